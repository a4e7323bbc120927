"""The most memory that a forward and backward takes, each peer in a fresh process of its own.

    python -m xent.benchmark.memory '{"shape": [4096, 32000]}' xent 2

prints the bytes on top of the data.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from xent.benchmark.cases import Case, Labels, Mode
from xent.benchmark.data import Data, made
from xent.benchmark.peers.registry import PEERS

LONGEST = 300.0
"""Seconds a process may take."""
COMPILED_FOR_SHAPE = ("compile", "jax")
"""Peers that have to see the very shape before they are measured; a few rows do for the others."""
STATUS = Path("/proc/self/status")
CLEAR_REFERENCES = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def peak_of(case: Case, peer: str) -> float | None:
    """Peak memory in units of one logits-sized tensor, or None if the process failed."""
    arguments = [json.dumps(asdict(case)), peer, str(torch.get_num_threads())]
    try:
        process = subprocess.run(
            [sys.executable, "-m", "xent.benchmark.memory", *arguments],
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=True,
        )
    except subprocess.SubprocessError:
        return None
    return int(process.stdout.split()[-1]) / case.bytes


def peak_bytes(call: Callable[[], object]) -> int:
    """How far the resident memory of this process rises during a call."""
    gc.collect()
    _reset_peak()
    before = _resident()
    call()
    return max(0, _peak() - before)


def main(case: str, peer: str, threads: str) -> None:
    """Measures one peer and prints the bytes."""
    torch.set_num_threads(int(threads))
    given = json.loads(case)
    labels = Labels(given.get("labels", Labels.INDEX))
    data = made(Case(tuple(given["shape"]), labels, given.get("dtype", "float32")))
    contender = PEERS[peer](data, Mode.BOTH)
    # What is loaded, compiled and allocated once for all must not count, but a buffer of the size
    # of this gradient that is kept for the next one has to.
    warm = contender if peer in COMPILED_FOR_SHAPE else PEERS[peer](_few_rows(data), Mode.BOTH)
    warm.run()
    warm.release()
    print(peak_bytes(contender.run))


def _few_rows(data: Data) -> Data:
    rows = max(1, data.case.shape[0] // 16)
    case = replace(data.case, shape=(rows, *data.case.shape[1:]))
    return replace(data, case=case, logits=data.logits[:rows], target=data.target[:rows])


def _reset_peak() -> None:
    """Forgets the peak so far, where the system can; a peak of the past may hide a smaller one."""
    try:
        CLEAR_REFERENCES.write_text(RESET_PEAK)
    except OSError:
        return


def _resident() -> int:
    return _status("VmRSS") or _highest()


def _peak() -> int:
    return _status("VmHWM") or _highest()


def _status(name: str) -> int | None:
    """Bytes of one entry of the process's status, which has them in kB."""
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None


def _highest() -> int:
    import resource  # not on every system, and on Linux not needed

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The most memory that one forward and backward takes, in a fresh process.

    python benchmarks/linear_memory.py '{"rows": 2048, "features": 256, "vocabulary": 32768}' xent

prints the bytes on top of hidden states, classifier and labels, gradients included.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

from linear_peers import Case, Mode, Program, made
from xent.benchmark.memory import peak_bytes

SECONDS = 300.0
COMPILED_FOR_SHAPE = ("compile", "CCE")
"""Peers that have to see the very shape before they are measured; a few rows do for the others."""


def peak_of(case: Case, peer: str) -> int | None:
    """Bytes, or None where the process failed."""
    command = [sys.executable, __file__, json.dumps(asdict(case)), peer]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except subprocess.SubprocessError:
        return None
    return int(process.stdout.split()[-1])


def main(text: str, peer: str) -> None:
    """Measures one peer and prints the bytes."""
    case = Case(**json.loads(text))
    program = Program(peer, made(case), Mode.BOTH)
    small = replace(case, rows=64, vocabulary=256)
    warm = program if peer in COMPILED_FOR_SHAPE else Program(peer, made(small), Mode.BOTH)
    warm.run()
    warm.release()
    print(peak_bytes(program.run))


if __name__ == "__main__":
    main(*sys.argv[1:])

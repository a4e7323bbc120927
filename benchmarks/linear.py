"""Time and memory of the loss of a large vocabulary, beside the usual two steps and other peers.

    python benchmarks/linear.py           # about twenty minutes on two cores
    python benchmarks/linear.py --quick   # does it run here?

Loss and gradients of each peer are compared with float64 before it is timed; the times are taken in
turn, and so are those of the floor, which is the matrix products alone. Written to
benchmarks/results/linear.json and docs/images/linear.svg.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from linear_memory import peak_of
from linear_peers import PEERS, Case, Data, Mode, Products, Program, made
from linear_plot import plot
from xent.benchmark.files import write
from xent.benchmark.load import Load
from xent.benchmark.machine import machine
from xent.benchmark.timing import Program as Timed
from xent.benchmark.timing import interleaved

ROOT = Path(__file__).parent.parent
CASES = (
    Case(2048, 512, 32000),
    Case(4096, 768, 50257),
    Case(2048, 512, 32000, "bfloat16"),
)
VOCABULARIES = tuple(1 << k for k in range(14, 19))
ROWS, FEATURES = 2048, 256  # of the memory against the vocabulary
SECONDS = 20.0
"""Of timing in each row, after five rounds."""
BARS = {"float32": (1e-5, 1e-4), "bfloat16": (5e-3, 2e-2)}
"""By dtype: the relative error of the loss, and of a gradient in the norm, above which a peer is
wrong. In bfloat16 one rounding is 4e-3."""
QUICK = (Case(64, 32, 1000),)

console = Console(stderr=True)


@dataclass(frozen=True)
class Truth:
    """In float64."""

    loss: Tensor
    gradients: tuple[Tensor, ...]


def truth_of(data: Data, mode: Mode) -> Truth:
    """By torch's two steps in float64."""
    hidden, classifier = (t.double().requires_grad_() for t in (data.hidden, data.classifier))
    reduction = "none" if mode is Mode.PER_ROW else "mean"
    loss = F.cross_entropy(F.linear(hidden, classifier), data.target, reduction=reduction)
    at = data.at_rows.double() if mode is Mode.PER_ROW else None
    return Truth(loss.detach(), torch.autograd.grad(loss, (hidden, classifier), at))


def measured(case: Case, mode: Mode, seconds: float) -> dict[str, Any]:
    """One row: who is right, and how long each takes."""
    data = made(case)
    truth = truth_of(data, mode)
    programs: dict[str, Timed] = {"floor": Products(data, mode)}
    peers: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        console.print(f"{case.title}, {mode}: {peer}")
        program = Program(peer, data, mode)
        peers[peer] = judged(program, truth, case.dtype)
        if "reason" not in peers[peer]:
            programs[peer] = program
        elif peer == "xent":
            raise SystemExit(f"xent is wrong: {peers[peer]['reason']}")
    del truth
    samples = interleaved(programs, seconds)
    for peer, found in peers.items():
        found["samples_ms"] = samples.get(peer, ())
    return {
        "case": asdict(case),
        "title": case.title,
        "mode": mode,
        "floor_ms": samples["floor"],
        "peers": peers,
    }


def judged(program: Program, truth: Truth, dtype: str) -> dict[str, Any]:
    """Its errors, and a reason if it can't be timed."""
    try:
        program.run()
    except Exception as error:  # a peer that can't run is reported, whatever it raises
        return {"reason": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    of_loss = _distance(program.loss, truth.loss)
    pairs = zip(program.gradients, truth.gradients, strict=True)
    of_gradients = [_distance(ours, theirs) for ours, theirs in pairs if ours is not None]
    program.release()
    found: dict[str, Any] = {"loss_error": of_loss, "gradient_errors": of_gradients}
    loss_bar, gradient_bar = BARS[dtype]
    if not of_loss <= loss_bar:
        found["reason"] = f"its loss is {of_loss:.1%} off"
    elif not all(error <= gradient_bar for error in of_gradients):
        found["reason"] = f"a gradient is {max(of_gradients):.1%} off"
    return found


def memory(vocabularies: tuple[int, ...]) -> dict[str, Any]:
    """Peak bytes of each peer at each vocabulary, and what the two gradients take."""
    peaks: dict[str, list[int | None]] = {peer: [] for peer in PEERS}
    for vocabulary in vocabularies:
        for peer, taken in peaks.items():
            console.print(f"memory at V = {vocabulary}: {peer}")
            taken.append(peak_of(Case(ROWS, FEATURES, vocabulary), peer))
    gradients = [4 * FEATURES * (ROWS + vocabulary) for vocabulary in vocabularies]
    return {
        "rows": ROWS, "features": FEATURES, "vocabularies": vocabularies,
        "gradients": gradients, "peaks": peaks,
    }  # fmt: skip


def version_of_cce() -> str | None:
    """Of the package that is used if it is there."""
    try:
        return version("cut-cross-entropy")
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measures, writes and draws."""
    quick = "--quick" in sys.argv[1:]
    cases, seconds = (QUICK, 0.1) if quick else (CASES, SECONDS)
    load = Load()
    rows = [measured(case, mode, seconds) for case in cases for mode in Mode]
    vocabularies = VOCABULARIES[:1] if quick else VOCABULARIES
    result = {
        "command": "python benchmarks/linear.py",
        "rows": rows,
        "memory": memory(vocabularies),
        "machine": asdict(machine()),
        "cut-cross-entropy": version_of_cce(),
        "other_cores": load.other_cores(),
    }
    for row in rows:
        times = {peer: found["samples_ms"] for peer, found in row["peers"].items()}
        shown = ", ".join(f"{p} {median(t):.0f}" for p, t in times.items() if t)
        console.print(
            f"{row['title']}, {row['mode']}: floor {median(row['floor_ms']):.0f}, {shown}"
        )
    if not quick:
        write(ROOT / "benchmarks" / "results" / "linear.json", json.dumps(result, indent=1) + "\n")
        write(ROOT / "docs" / "images" / "linear.svg", plot(result["memory"]))


def _distance(ours: Tensor | None, truth: Tensor) -> float:
    """‖ours − truth‖ / ‖truth‖."""
    if ours is None:
        return float("nan")
    return float((ours.double() - truth).norm() / truth.norm())


if __name__ == "__main__":
    main()

"""Time of one forward and backward, xent beside torch in the same run, against the memory floor.

Interleaved; medians. The floor is reading the logits twice and writing a gradient once into memory
that is already mapped: `sum` and `copy_`. Results are compared before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from machine import RESULTS, save
from rich.console import Console
from rich.progress import track
from rich.table import Table

import xent

SIZES = ((64, 10), (1024, 1000), (8192, 1000), (2048, 32000))
RUNS = 15


def main() -> None:
    """Measures, prints and saves."""
    console = Console()
    cases = [(n, c, labels) for n, c in SIZES for labels in ("index", "probabilities")]
    rows = [measured(*case) for case in track(cases, "measuring", console=Console(stderr=True))]
    table = Table(title="Forward and backward, float32, median ms")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)
    console.print(f"saved {save('speed', rows).relative_to(RESULTS.parent.parent)}")


def measured(n: int, c: int, labels: str) -> dict[str, Any]:
    """The medians of one case."""
    logits = torch.randn(n, c, requires_grad=True)
    target = torch.randint(0, c, (n,)) if labels == "index" else torch.randn(n, c).softmax(1)
    scratch = torch.empty_like(logits)

    def both(loss: Callable[..., torch.Tensor]) -> None:
        logits.grad = None
        loss(logits, target).backward()

    def floor() -> None:
        with torch.no_grad():
            logits.sum()
            scratch.copy_(logits)

    check(both, logits)
    torch_ms, xent_ms, floor_ms = medians(
        lambda: both(F.cross_entropy), lambda: both(xent.cross_entropy), floor
    )
    return {
        "n": n,
        "classes": c,
        "labels": labels,
        "torch_ms": torch_ms,
        "xent_ms": xent_ms,
        "floor_ms": floor_ms,
        "xent_over_torch": xent_ms / torch_ms,
    }


def check(both: Callable[..., None], logits: torch.Tensor) -> None:
    """The two gradients agree, or there is nothing to time."""
    both(F.cross_entropy)
    theirs = logits.grad
    both(xent.cross_entropy)
    torch.testing.assert_close(logits.grad, theirs)


def medians(*calls: Callable[[], None]) -> list[float]:
    """Median milliseconds of each call, run in turn."""
    times: list[list[float]] = [[] for _ in calls]
    for run in range(RUNS + 2):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if run >= 2:  # the first two warm up
                taken.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    main()

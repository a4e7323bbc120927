"""How far from the mathematics: torch's float32 loss and xent's, where a prediction is confident.

Truth: 60 decimal digits (mpmath). Error: relative. The row has C classes; one of them, the true
one, leads so far that 1 − p is about e^−margin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mpmath
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

import xent
from tables import RESULTS
from xent.benchmark.files import write
from xent.benchmark.machine import machine

CLASSES = 1000
MARGINS = (1, 5, 10, 15, 20, 30)


def main() -> None:
    """Measures, prints and saves."""
    rows = [measured(margin) for margin in MARGINS]
    table = Table(title=f"Relative error of float32, C = {CLASSES}")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(
            *(f"{value:.1e}" if isinstance(value, float) else str(value) for value in row.values())
        )
    console = Console()
    console.print(table)
    console.print(f"saved {save(rows).relative_to(RESULTS.parent.parent)}")


def save(rows: list[dict[str, Any]]) -> Path:
    """Writes the result with its command and machine."""
    path = RESULTS / "exactness.json"
    command = "python benchmarks/exactness.py"
    document = {"command": command, "machine": asdict(machine()), "rows": rows}
    write(path, json.dumps(document, indent=1) + "\n")
    return path


def measured(margin: int) -> dict[str, Any]:
    """The errors of loss and target gradient at one margin, torch's and xent's."""
    row = torch.linspace(-1, 1, CLASSES)
    row[0] = margin + row[1:].double().logsumexp(0)
    loss, gradient = truth(row)
    result: dict[str, Any] = {"margin": margin, "1−p": -gradient}
    for name, function in (("torch", F.cross_entropy), ("xent", xent.cross_entropy)):
        value, slope = run(function, row)
        result[f"{name}_loss"] = abs(value - loss) / loss
        result[f"{name}_gradient"] = abs(slope - gradient) / abs(gradient)
    return result


def run(function: Callable[..., Tensor], row: Tensor) -> tuple[float, float]:
    """The loss of the row with class 0 true, and its gradient there."""
    leaf = row[None].clone().requires_grad_()
    loss = function(leaf, torch.tensor([0]))
    loss.backward()
    return loss.item(), leaf.grad[0, 0].item()


def truth(row: Tensor) -> tuple[float, float]:
    """−log p and p − 1, exactly."""
    with mpmath.workdps(60):
        exp = [mpmath.exp(x) for x in row.tolist()]
        others = mpmath.fsum(exp[1:])
        return float(mpmath.log1p(others / exp[0])), float(-others / (exp[0] + others))


if __name__ == "__main__":
    main()

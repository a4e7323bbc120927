"""A result of a GPU in the terminal. Nothing is computed here."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpu_cases import Kind
from gpu_report import (
    dispatches,
    linear_cells,
    logits_cells,
    memory_cells,
    notes,
    origin,
    suite_line,
)
from gpu_targets import target_cells
from xent.benchmark.cells import Cells


def draw(result: dict[str, Any], terminal: Console) -> None:
    """Prints all of it."""
    for cells in (
        logits_cells(result),
        memory_cells(result, Kind.LOGITS),
        linear_cells(result),
        memory_cells(result, Kind.LINEAR),
        target_cells(result),
    ):
        if cells.lines:
            terminal.print(_table(cells))
            terminal.print()
    for note in (*notes(result), *dispatches(result)):
        terminal.print(Text(note, style="yellow"))
    terminal.print(suite_line(result["suite"]), markup=False)
    terminal.print(origin(result), markup=False)


def _table(cells: Cells) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(cells.header):
        words = number < cells.words
        table.add_column(
            name if words else name.replace(" ", "\n"), justify="left" if words else "right"
        )
    for line in cells.lines:
        table.add_row(*line)
    return table

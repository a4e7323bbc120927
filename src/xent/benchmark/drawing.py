"""A report drawn in the terminal. Nothing is computed here."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xent.benchmark.cases import Labels
from xent.benchmark.cells import Cells, memory_cells, notes, origin, speed_cells
from xent.benchmark.trace import Report


def draw(report: Report, terminal: Console) -> None:
    """Prints all of it."""
    terminal.print(_table(speed_cells(report)))
    terminal.print()
    terminal.print(
        Text(
            "Medians. The floor reads what the loss has to read and writes the gradient into "
            "mapped memory; a peer's ratio is its time over xent's.",
            style="dim",
        )
    )
    memory = memory_cells(report)
    if memory.lines:
        terminal.print()
        terminal.print(Text("Peak memory of forward+backward on top of the data, in gradients"))
        terminal.print(_table(memory))
    for note in notes(report):
        terminal.print(Text(note, style="yellow"))
    terminal.print()
    terminal.print(Text(origin(report), style="dim"))


def _table(cells: Cells) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in cells.header[: cells.words]:
        # of the words only the labels are long, and break between words
        widest = len(Labels.PROBABILITIES) if name == "labels" else None
        table.add_column(name, no_wrap=widest is None, min_width=widest)
    for name in cells.header[cells.words :]:
        table.add_column(name.replace(" ", "\n").replace("/", "\n/"), justify="right", no_wrap=True)
    for line in cells.lines:
        table.add_row(*line)
    return table

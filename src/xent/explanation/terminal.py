"""Blocks in a terminal, through rich; and as plain text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from rich import box
from rich.bar import Bar as RichBar
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from xent.explanation.blocks import (
    PLAIN,
    REST,
    TARGET,
    TOTAL,
    Bar,
    Block,
    Cell,
    Code,
    Formula,
    Heading,
    Paragraph,
    Table,
)

STYLES = {TARGET: "green", REST: "dim", TOTAL: "bold", PLAIN: "none"}
"""The terminal's own colours, which its owner can read on its background."""
POSITIVE, NEGATIVE = "blue", "yellow"
BAR = 12
GAP = 2
"""Characters between columns."""
NAME = 12
"""Characters of a name that are left to it in a narrow terminal."""


def drawn(blocks: Iterable[Block], width: int) -> Iterator[RenderableType]:
    """What rich prints, with a line between blocks."""
    for number, block in enumerate(blocks):
        if number:
            yield Text()
        yield _block(block, width)


def as_text(blocks: Iterable[Block], width: int) -> str:
    """The same as plain text."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        for part in drawn(blocks, width):
            console.print(part, highlight=False)
    lines = (line.rstrip() for line in capture.get().splitlines())
    return "\n".join(lines) + "\n"


def _block(block: Block, width: int) -> RenderableType:
    match block:
        case Heading(text, level):
            return Text(text, style="bold underline" if level == 1 else "bold")
        case Paragraph(text):
            return Text(text)
        case Formula(text):
            return Padding(Text(text, style="cyan"), (0, 0, 0, 4), expand=False)
        case Code(text):
            return Text(text.rstrip(), style="magenta", overflow="fold")
        case Table():
            table = _table(block, width)
            caption = Text(block.caption, style="italic")
            return Group(caption, table) if block.caption else table


def _table(table: Table, width: int) -> RenderableType:
    """One table; where its numbers have no room beside each other, several below each other."""
    widths, bars = _widths(table), table.bars()
    if widths[0] + sum(w + GAP for w in widths[1:]) > width:
        # Long headers and labels are cut short; no number is as long.
        widths = [widths[0], *(min(w, NAME) for w in widths[1:])]
    shown = _shown(table, widths, bars, width)
    parts = [_part(table, part, widths, bars, width) for part in _parts(shown, widths, width)]
    return Group(*parts) if len(parts) > 1 else parts[0]


def _parts(shown: list[int], widths: list[int], width: int) -> Iterator[list[int]]:
    """Columns that fit beside the names, over and over."""
    name = min(widths[0], NAME)
    part: list[int] = []
    for n in shown[1:]:
        if part and name + sum(widths[m] + GAP for m in (*part, n)) > width:
            yield [0, *part]
            part = []
        part.append(n)
    yield [0, *part]


def _part(
    table: Table, shown: list[int], widths: list[int], bars: list[bool], width: int
) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for n in shown:
        words = n == 0
        room = width - sum(widths[n] + GAP for n in shown[1:]) if words else widths[n]
        drawn.add_column(
            Text(table.headers[n]),
            justify="left" if words or bars[n] else "right",
            vertical="bottom",
            no_wrap=True,
            width=min(widths[n], max(room, NAME)),
            overflow="ellipsis",
        )
    for row in table.rows:
        drawn.add_row(*(_cell(row.cells[n]) for n in shown), style=STYLES[row.role])
    return drawn


def _shown(table: Table, widths: list[int], bars: list[bool], width: int) -> list[int]:
    """The columns there is room for; names are cut short before numbers are left out."""
    shown = list(range(len(widths)))

    def excess(name: int) -> int:
        return name + sum(widths[n] + GAP for n in shown[1:]) - width

    for n in [n for n, bar in enumerate(bars) if bar]:
        if excess(widths[0]) > 0:
            shown.remove(n)
    for n in table.optional:
        if excess(min(widths[0], NAME)) > 0:
            shown.remove(n)
    return shown


def _widths(table: Table) -> list[int]:
    """Characters that each column wants."""
    columns = zip(table.headers, *(row.cells for row in table.rows), strict=True)
    return [max(map(_width, column)) for column in columns]


def _width(cell: Cell) -> int:
    if isinstance(cell, Bar):
        return BAR
    return max((cell_len(line) for line in cell.splitlines()), default=0)


def _cell(cell: Cell) -> RenderableType:
    if isinstance(cell, str):
        return Text(cell)
    return RichBar(1, *cell.span, width=BAR, color=NEGATIVE if cell.value < 0 else POSITIVE)

"""Blocks as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from xent.explanation.blocks import (
    TARGET,
    TOTAL,
    Block,
    Code,
    Formula,
    Heading,
    Paragraph,
    Row,
    Table,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def as_markdown(blocks: Iterable[Block]) -> str:
    """A document; whatever came from the user is text in it, never markup."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_escaped(text)}"
        case Paragraph(text):
            return _escaped(text)
        case Formula(text):
            return _fenced(text, "")
        case Code(text):
            return _fenced(text.rstrip(), "python")
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    kept = [n for n, bars in enumerate(table.bars()) if not bars]
    lines = [
        "| " + " | ".join(_escaped(table.headers[n]) for n in kept) + " |",
        "| :--- |" + " ---: |" * (len(kept) - 1),
        *(_line(row, kept) for row in table.rows),
    ]
    caption = f"*{_escaped(table.caption)}*\n\n" if table.caption else ""
    return caption + "\n".join(lines)


def _line(row: Row, kept: list[int]) -> str:
    cells = []
    for n in kept:
        cell = row.cells[n]
        text = _escaped(cell) if isinstance(cell, str) else ""
        cells.append(f"**{text}**" if text and row.role in (TARGET, TOTAL) else text)
    return "| " + " | ".join(cells) + " |"


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))

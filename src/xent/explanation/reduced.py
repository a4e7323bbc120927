"""The part of the report on the batch: from the losses of all positions to one value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xent.explanation.blocks import (
    PLAIN,
    REST,
    TARGET,
    TOTAL,
    Block,
    Formula,
    Heading,
    Paragraph,
    Row,
    Table,
    counted,
    number,
    placed,
    short,
    visible,
)
from xent.explanation.trace import BatchTrace, PositionTrace, RowTrace

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

HALVES = ("float16", "bfloat16")
WRITTEN_OUT = 6
"""Positions up to which a sum is written out."""


def of_batch(told: Explanation) -> list[Block]:
    """How the losses were reduced, with the denominator in numbers."""
    batch, row = told.batch, told.row
    blocks: list[Block] = [Heading("From losses to the value")]
    if batch.count != 1:
        blocks.append(_positions(batch, row))
    blocks.append(Formula(value_formula(batch)))
    if batch.reduction == "mean" and not (batch.count == 1 and batch.divisor == 1):
        blocks.append(Paragraph(_denominator(batch)))
    if row is not None and not row.ignored and batch.divisor not in (None, 0, 1):
        blocks.append(
            Paragraph(
                f"The mean divides every gradient by {short(batch.divisor or 1)} as well: the "
                f"gradient of the value at these logits is ∂L/∂x / {short(batch.divisor or 1)}."
            )
        )
    return blocks


def value_formula(batch: BatchTrace) -> str:
    """The value, from the losses and the divisor in numbers."""
    if batch.value is None or batch.reduction == "none":
        return f"reduction='none': {counted(batch.count, 'loss', 'losses')}, one per position"
    value = f"{short(batch.value)} nats"
    if batch.value_dtype in HALVES:
        value += f", rounded to {batch.value_dtype}"
    terms = [p.loss for p in batch.positions if not p.ignored]
    complete = len(batch.positions) == batch.count
    losses = f"{short(batch.total)}"
    if complete and 1 < len(terms) <= WRITTEN_OUT:
        losses = f"({' + '.join(map(short, terms))})"
    if batch.reduction == "sum" or batch.divisor is None:
        return f"sum = {losses} = {value}"
    return f"mean = {losses} / {_divisor(batch)} = {value}"


def _divisor(batch: BatchTrace) -> str:
    shares = [p.share for p in batch.positions if not p.ignored and p.share is not None]
    unequal = len(set(shares)) > 1
    if unequal and len(batch.positions) == batch.count and len(shares) <= WRITTEN_OUT:
        return f"({' + '.join(map(short, shares))})"
    return short(batch.divisor or 0.0)


def _denominator(batch: BatchTrace) -> str:
    ignored = f" {counted(batch.ignored, 'position')} ignored." if batch.ignored else ""
    empty = (
        " Nothing counts: the mean over nothing is what on_empty says." if not batch.divisor else ""
    )
    return (
        f"The mean divides by {batch.denominator}: {short(batch.divisor or 0.0)}.{ignored}{empty}"
    )


def _positions(batch: BatchTrace, row: RowTrace | None) -> Table:
    mean = bool(batch.positions) and all(p.share is not None for p in batch.positions)
    headers = ("position", "label", "loss", *(("adds to the denominator",) if mean else ()))
    lines = [_position(p, row, mean) for p in batch.positions]
    hidden = batch.count - len(batch.positions)
    caption = "Every position" if not hidden else "The positions of the highest losses"
    if hidden:
        shown = sum(p.loss for p in batch.positions)
        rest = number(batch.total - shown) if math.isfinite(shown) else ""
        others = (f"{hidden:,} others", "", rest)
        lines.append(Row((*others, *(("",) if mean else ())), REST))
    divisor = (number(batch.divisor or 0.0),) if mean else ()
    lines.append(Row(("sum", "", number(batch.total), *divisor), TOTAL))
    return Table(caption, headers, tuple(lines))


def _position(p: PositionTrace, row: RowTrace | None, mean: bool) -> Row:
    share = (number(p.share or 0.0),) if mean else ()
    role = TARGET if row is not None and p.position == row.position else PLAIN
    label = "(ignored)" if p.ignored else visible(p.label)
    return Row((placed(p.position), label, number(p.loss), *share), role)

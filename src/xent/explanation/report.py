"""The report on an explanation, as blocks. Every number in it is one of the trace."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xent.explanation.blocks import (
    PLAIN,
    REST,
    TARGET,
    TOTAL,
    Bar,
    Block,
    Cell,
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
from xent.explanation.reduced import of_batch
from xent.explanation.trace import ClassTrace, RowTrace
from xent.explanation.units import in_all_units
from xent.explanation.why import QUESTIONS
from xent.explanation.words import SUM, gradient_formula, label_in_words, loss_formula

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

COLUMNS_OF_DESCENT = 6
ROUNDING = 1e-12
SOFTMAX = (
    "Softmax: each class weighs exp(logit), and p is its share of all. The largest logit is taken "
    "off first, which changes no share and keeps exp from overflowing."
)
SIGMOID = (
    "One logit x stands against an unspoken 0: sigmoid(x) is the softmax over the pair (0, x), and "
    "what x feels is p − y of the second. (The 0 is fixed and feels nothing.)"
)


def report(told: Explanation) -> tuple[Block, ...]:
    """The row, the batch, landmarks, and where to ask on."""
    parts: list[Block] = [Heading(_title(told), 1)]
    row = told.row
    if row is not None:
        parts += _of_row(told, row)
    parts += of_batch(told)
    if row is not None and not row.ignored:
        parts += _landmarks(told, row)
    questions = ", ".join(QUESTIONS)
    parts.append(
        Paragraph(f'Ask on: .why("gradient"), or xent why gradient. Questions: {questions}.')
    )
    return tuple(parts)


def _title(told: Explanation) -> str:
    what = "Binary cross-entropy" if told.kind == "binary" else "Cross-entropy"
    if told.row is None:
        return f"{what} of {counted(told.batch.count, 'position')}"
    classes = (
        "" if told.kind == "binary" else f" over {counted(told.class_count, 'class', 'classes')}"
    )
    where = f", position {placed(told.row.position)}" if told.batch.count > 1 else ""
    return f"{what}{classes}{where}: {_label(told)}"


def _label(told: Explanation) -> str:
    if told.row is None or told.source is None:
        return ""
    return label_in_words(told.row, told.source)


def _of_row(told: Explanation, row: RowTrace) -> list[Block]:
    stages: list[Block] = [Paragraph(SOFTMAX), _stages(told, row)]
    if told.kind == "binary":
        stages.insert(0, Paragraph(SIGMOID))
    if row.ignored:
        inert = "This position is ignored: it costs nothing, and no logit of it moves."
        return [*stages, Paragraph(inert)]
    return [
        *stages,
        Formula(loss_formula(told, row)),
        Heading("Why the others fall"),
        Paragraph(
            "∂L/∂p asks what a probability alone would change: nothing, for a class without "
            "label. But logits share one sum, so ∂L/∂x reaches them all: descent lowers a logit "
            "where it is positive and raises it where it is negative."
        ),
        _gradients(row),
        Formula(gradient_formula(told, row)),
        *_descent(row),
    ]


def _stages(told: Explanation, row: RowTrace) -> Table:
    weighted = told.options.weighted
    headers = ["class", "logit x", "x − max", "exp", "p =\nsoftmax", "", "log p", "target"]
    headers += ["weight"] if weighted else []
    headers += ["weight ·\ntarget ·\n(−log p)" if weighted else "target ·\n(−log p)"]
    lines = [Row(_stage(c, weighted), _role(c)) for c in row.classes]
    if row.rest is not None:
        rest = row.rest
        cells = (_rest_name(row), "", "", number(rest.exp), number(rest.p), Bar(rest.p), "")
        weight = ("",) if weighted else ()
        lines.append(Row((*cells, number(rest.target), *weight, number(rest.term)), REST))
    p = math.fsum(c.p for c in row.classes) + (row.rest.p if row.rest else 0)
    target = math.fsum(c.target for c in row.classes) + (row.rest.target if row.rest else 0)
    terms = math.fsum(c.term for c in row.classes) + (row.rest.term if row.rest else 0)
    sums = ("sum", "", "", number(row.exp_sum), number(p), "", "", number(target))
    lines.append(Row((*sums, *(("",) if weighted else ()), number(terms)), TOTAL))
    return Table("From logits to loss", tuple(headers), tuple(lines), optional=(2, 3, 6))


def _stage(c: ClassTrace, weighted: bool) -> tuple[Cell, ...]:
    cells = (visible(c.name), number(c.logit), number(c.shifted), number(c.exp), number(c.p))
    weight = (number(c.weight),) if weighted else ()
    return (*cells, Bar(c.p), number(c.log_p), number(c.target), *weight, number(c.term))


def _gradients(row: RowTrace) -> Table:
    lines = [
        Row(
            (
                visible(c.name), number(c.p), number(c.target), number(c.gradient_p),
                _zero(c.gradient), Bar(c.gradient, signed=True), _direction(c.gradient),
            ),
            _role(c),
        )
        for c in row.classes
    ]  # fmt: skip
    if row.rest is not None:
        rest = row.rest
        cells = (_rest_name(row), number(rest.p), number(rest.target), "", number(rest.gradient))
        lines.append(
            Row((*cells, Bar(rest.gradient, signed=True), _direction(rest.gradient)), REST)
        )
    lines.append(Row(("sum", "", "", "", _zero(row.gradient_sum), "", ""), TOTAL))
    headers = ("class", "p", "target", "∂L/∂p", "∂L/∂x", "", "descent")
    return Table("What each class feels", headers, tuple(lines), optional=(6, 2))


def _zero(total: float) -> str:
    """What is zero but for rounding, as zero."""
    return number(0.0) if abs(total) < ROUNDING else number(total)


def _direction(gradient: float) -> str:
    if not abs(gradient) >= ROUNDING:  # zero, or NaN
        return ""
    return "raises" if gradient < 0 else "lowers"


def _descent(row: RowTrace) -> list[Block]:
    descent = row.descent
    if descent is None or not all(math.isfinite(step.loss) for step in descent.steps):
        return []
    shown = sorted(
        range(len(row.classes)), key=lambda n: (-row.classes[n].label, -row.classes[n].p)
    )
    shown = sorted(shown[:COLUMNS_OF_DESCENT])
    hidden = [n for n in range(len(row.classes)) if n not in shown]
    others = bool(hidden) or row.rest is not None
    headers = ("step", "loss", *(visible(row.classes[n].name) for n in shown))
    lines = []
    for step in descent.steps:
        cells = [str(step.number), number(step.loss), *(number(step.p[n]) for n in shown)]
        if others:
            cells.append(number(step.rest + math.fsum(step.p[n] for n in hidden)))
        lines.append(Row(tuple(cells)))
    caption = f"Gradient descent: x ← x − {short(descent.step_size)} · ∂L/∂x, and p after it"
    return [Table(caption, (*headers, "others") if others else headers, tuple(lines))]


def _landmarks(told: Explanation, row: RowTrace) -> list[Block]:
    batch = told.batch
    lines = [
        _landmark("this position, without weights", row.cross_entropy, row.bits, row.perplexity),
        _landmark("an even guess, log C", *in_all_units(math.log(told.class_count))),
    ]
    note: list[Block] = []
    if abs(row.target_sum - 1) <= SUM:
        entropy, bits, perplexity = in_all_units(row.entropy)
        lines += [
            _landmark("entropy of the target: the least possible", entropy, bits, perplexity),
            _landmark("KL divergence: what training can remove", *in_all_units(row.divergence)[:2]),
        ]
    else:
        total = short(row.target_sum)
        note = [Paragraph(f"The label sums to {total}, not to 1: it is no distribution.")]
    if batch.count > 1 and batch.value is not None and batch.reduction == "mean":
        value = (batch.value, batch.bits or 0.0, batch.perplexity or 0.0)
        lines.append(_landmark("the mean that was returned", *value))
    if batch.count > 1 and batch.label_entropy is not None:
        guess = in_all_units(batch.label_entropy)
        lines.append(_landmark("always guessing the labels' frequencies", *guess))
    headers = ("landmark", "nats", "bits", "perplexity")
    return [Heading("How much is that?"), *note, Table("", headers, tuple(lines))]


def _landmark(name: str, nats: float, bits: float, perplexity: float | None = None) -> Row:
    return Row((name, number(nats), number(bits), "" if perplexity is None else number(perplexity)))


def _role(c: ClassTrace) -> str:
    return TARGET if c.label > 0 else PLAIN


def _rest_name(row: RowTrace) -> str:
    return f"{row.rest.classes:,} others" if row.rest else ""

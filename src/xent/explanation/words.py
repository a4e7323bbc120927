"""Sentences and formulas with the numbers of a row, for the report and for the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xent.explanation.blocks import listed, short, vector, visible
from xent.explanation.source import RowSource
from xent.explanation.trace import RowTrace

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

SUM = 1e-6
"""By which a label may miss 1 and be a probability."""
TERMS = 4
"""Classes up to which a sum is written out."""


def label_in_words(row: RowTrace, source: RowSource) -> str:
    """What the label says: a class, a mixture, or nothing."""
    called = source.called
    if row.ignored:
        return "ignored"
    classes = row.target_classes
    if len(classes) == 1 and classes[0].label == 1:
        return f"the label is {visible(called(classes[0].index))}"
    if not classes:
        return "no class has a label"
    shown = [f"{short(c.label)} of {visible(called(c.index))}" for c in classes[:3]]
    shown += ["more"] if len(classes) > 3 else []
    return f"the label is {listed(shown)}"


def loss_formula(told: Explanation, row: RowTrace) -> str:
    """The loss of the row, with its numbers."""
    smoothed, weighted = told.options.label_smoothing > 0, told.options.weighted
    factor = f"{short(row.sample_weight)} · " if told.options.sample_weighted else ""
    target = row.shown(row.label_index)
    if target is not None and not smoothed and not weighted:
        times = "sample weight · " if factor else ""
        name = visible(told.source.called(target.index)) if told.source else target.name
        if 0.0001 <= target.p <= 0.9999:
            surprise = f"−log p({name}) = {factor}−log {short(target.p)}"
        else:  # p would be written as 0 or 1, and its logarithm would be another
            parts = f"{_signed(row.maximum)} + log {short(row.exp_sum)} − {_signed(target.logit)}"
            surprise = f"max + log Σ exp − x({name}) = {factor}({parts})"
        return f"loss = {times}{surprise} = {short(row.loss)} nats"
    of_class = "weight_c · target_c" if weighted else "target_c"
    terms = [c.term for c in row.classes if c.term]
    whole = f"{factor}Σ_c {of_class} · (−log p_c)"
    if row.rest is None and 1 < len(terms) <= TERMS:
        written = " + ".join(short(term) for term in terms)
        whole += f" = {factor}({written})" if factor else f" = {written}"
    return f"loss = {whole} = {short(row.loss)} nats"


def gradient_formula(told: Explanation, row: RowTrace) -> str:
    """The gradient at the shown logits, with its numbers."""
    name = "y" if told.options.label_smoothing == 0 else "target"
    formula = f"p − {name}"
    if told.options.weighted:
        formula = f"(Σ weight · {name}) · p − weight · {name}"
    elif abs(row.mass - 1) > SUM:
        formula = f"(Σ {name}) · p − {name}"
    if told.options.sample_weighted:
        formula = f"sample weight · ({formula})"
    return f"∂L/∂x = {formula} = {shown_vector(row, [c.gradient for c in row.classes])}"


def shown_vector(row: RowTrace, values: list[float]) -> str:
    """Numbers of the shown classes; it says so if there are others."""
    if row.rest is None:
        return vector(values)
    numbers = ", ".join(short(value) for value in values[:TERMS])
    return f"({numbers}, … {row.class_count:,} in all)"


def _signed(value: float) -> str:
    """A number in a sum: in parentheses if it is negative."""
    return f"({short(value)})" if value < 0 else short(value)

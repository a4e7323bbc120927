"""Sentences and formulas with the numbers of a row, for the report and for the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xent.explanation.blocks import listed, short, vector, visible
from xent.explanation.trace import RowTrace

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

TERMS = 4
"""Classes up to which a sum is written out."""


def label_in_words(row: RowTrace) -> str:
    """What the label says: a class, a mixture, or nothing."""
    if row.ignored:
        return "ignored"
    classes = row.target_classes
    if len(classes) == 1 and classes[0].label == 1:
        return f"the label is {visible(classes[0].name)}"
    if not classes:
        return "no class has a label"
    shown = [f"{short(c.label)} {visible(c.name)}" for c in classes[:3]]
    shown += ["more"] if len(classes) > 3 else []
    return f"the label is {listed(shown)}"


def loss_formula(told: Explanation, row: RowTrace) -> str:
    """The loss of the row, with its numbers."""
    smoothed, weighted = told.options.label_smoothing > 0, told.options.weighted
    factor = f"{short(row.sample_weight)} · " if told.options.sample_weighted else ""
    target = row.shown(row.label_index)
    if target is not None and not smoothed and not weighted:
        name, p, times = visible(target.name), short(target.p), "sample weight · " if factor else ""
        return f"loss = {times}−log p({name}) = {factor}−log {p} = {short(row.loss)} nats"
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
    if told.options.sample_weighted:
        formula = f"sample weight · ({formula})"
    values = vector(c.gradient for c in row.classes)
    if row.rest is None and len(row.classes) <= 12:
        return f"∂L/∂x = {formula} = {values}"
    return f"∂L/∂x = {formula}"

"""The gradient: where p − y comes from, and why the wrong classes fall."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xent.explanation.answers.answer import Answer, Case, Quotes, case_of
from xent.explanation.blocks import (
    PLAIN,
    TARGET,
    TOTAL,
    Block,
    Code,
    Formula,
    Paragraph,
    Row,
    Table,
    number,
    visible,
)
from xent.explanation.code import IMPORTS, log_softmax_of, row_lines
from xent.explanation.row import trace_row
from xent.explanation.source import RowSource

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

NUDGE = 0.01
"""By how much a logit is raised, to see what the loss does."""


def negatives(told: Explanation, question: str, title: str) -> Answer:
    """The wrong classes are in the denominator."""
    case, say = plain_case(told), Quotes()
    right, p = case.called(case.right), say("p", case.right.p)
    body: list[Block] = [
        Paragraph(
            f"The loss reads one probability, that of {right}: −log {p} = "
            f"{say('loss', case.row.loss)}. The probabilities of the others do not occur in it; "
            "∂L/∂p is zero for them. But a network does not set probabilities. It sets logits, "
            "and every probability is a share of one sum over all of them:"
        ),
        Formula("L = −log p_y = −x_y + log Σ_c exp x_c"),
        Paragraph(
            "Every logit stands in that sum. Raising a wrong one makes the sum larger, the share "
            "of the right one smaller, and the loss higher: at the start by its own p for each "
            "unit of the logit."
        ),
        Formula(
            "∂L/∂x_c = exp x_c / Σ exp x = p_c   for a wrong class;   p_y − 1   for the right one"
        ),
        _both_gradients(case),
    ]
    if case.rival is not None:
        body.append(Paragraph(_nudged(case, say)))
    body += [*_one_step(case, say), *case_of(told).aside, Code(_autograd(case))]
    return Answer(question, title, tuple(body), say.numbers)


def derivation(told: Explanation, question: str, title: str) -> Answer:
    """The chain rule through softmax, step by step."""
    case, say = plain_case(told), Quotes()
    right = case.called(case.right)
    p, at_p = say("p", case.right.p), say("gradient at p", case.right.gradient_p)
    body: list[Block] = [
        Paragraph("1. The loss, as a function of the probabilities alone:"),
        Formula("L = −log p_y        ∂L/∂p_y = −1/p_y        ∂L/∂p_c = 0 for every other c"),
        Paragraph(f"Here y is {right}, and ∂L/∂p_y = −1/{p} = {at_p}."),
        Paragraph("2. The softmax: p_y = exp x_y / S with S = Σ_c exp x_c. By the quotient rule"),
        Formula(
            "∂p_y/∂x_y = (exp x_y · S − exp x_y · exp x_y) / S² = p_y · (1 − p_y)\n"
            "∂p_y/∂x_c = (0 · S − exp x_y · exp x_c) / S²       = −p_y · p_c"
        ),
        Paragraph("3. The chain rule multiplies the two, and p_y cancels:"),
        Formula(
            "∂L/∂x_y = −1/p_y · p_y · (1 − p_y) = p_y − 1\n∂L/∂x_c = −1/p_y · (−p_y · p_c)    = p_c"
        ),
        _chain(case),
        Paragraph(
            "Both are p − y, where y is the label in numbers: 1 at the right class and 0 "
            "elsewhere. For a soft label every "
            "class is the right one for its share: Σ_k label_k · (p_c − [c = k]) = p_c − label_c, "
            "since the label sums to 1. ([c = k] is 1 if c is k, else 0.) And the gradients sum to "
            "Σ p − Σ y = 1 − 1 = 0: descent leaves the average of the logits where it is."
        ),
        Formula(f"p − y = {_gradient(case, say)}"),
    ]
    body += [*case_of(told).aside, Code(_autograd(case))]
    return Answer(question, title, tuple(body), say.numbers)


def plain_case(told: Explanation) -> Case:
    """The row as if its likeliest label were certain, with no weight and no smoothing."""
    case = case_of(told)
    source = certain(case.source, case.right.index)
    row = trace_row(source, told.extent)
    plain = replace(told, row=row, source=source)
    return case_of(plain)


def certain(source: RowSource, index: int) -> RowSource:
    """The row with all of the label at one class, no weights and no smoothing."""
    label = source.label.new_zeros(len(source.label))
    label[index] = 1
    return replace(
        source, label=label, label_index=index, weight=None, label_smoothing=0.0, sample_weight=1.0
    )


def _gradient(case: Case, say: Quotes) -> str:
    return say.vector("gradient", (c.gradient for c in case.row.classes), case.row.rest)


def _one_step(case: Case, say: Quotes) -> list[Block]:
    """What one step of descent does to p: not every wrong one has to fall at once."""
    steps = case.row.descent.steps if case.row.descent else ()
    if len(steps) < 2:
        return []
    before, after = steps[0].p, steps[1].p
    here = next(n for n, c in enumerate(case.row.classes) if c.index == case.right.index)
    words = (
        f"One step of descent lowers every wrong logit by its own p, and takes p of "
        f"{case.called(case.right)} from {say('p before', before[here])} to "
        f"{say('p after', after[here])}. What it gained the others lost, together: the "
        "probabilities are shares of one cake."
    )
    risen = [n for n, p in enumerate(after) if n != here and p > before[n]]
    if risen:
        one = max(risen, key=lambda n: after[n] - before[n])
        words += (
            f" (One of them may still gain for a step: {case.called(case.row.classes[one])} goes "
            f"from {say('risen before', before[one])} to {say('risen after', after[one])}, since a "
            "larger rival falls faster than it does.)"
        )
    return [Paragraph(words)]


def _nudged(case: Case, say: Quotes) -> str:
    """What the loss does when the likeliest wrong logit is raised a little."""
    rival = case.rival or case.right
    logits = case.source.logits.clone()
    logits[rival.index] += NUDGE
    after = trace_row(replace(case.source, logits=logits), case.told.extent).loss
    return (
        f"Try it: raise the logit of {case.called(rival)} by {say('nudge', NUDGE)}, and the loss "
        f"grows by {say('growth', after - case.row.loss)}, which is {say('nudge', NUDGE)} times "
        f"its p = {say('p of the rival', rival.p)}, but for the curve's bend."
    )


def _both_gradients(case: Case) -> Table:
    rows = [
        Row(
            (visible(c.name), number(c.p), number(c.gradient_p), number(c.gradient)),
            TARGET if c.label else PLAIN,
        )
        for c in case.row.classes
    ]
    if case.row.rest is None:
        p = number(sum(c.p for c in case.row.classes))
        rows.append(Row(("sum", p, "", number(round(case.row.gradient_sum, 12))), TOTAL))
    rows += case.rest_row(lambda rest: (rest.p, None, rest.gradient))
    return Table("", ("class", "p", "∂L/∂p", "∂L/∂x = p − y"), tuple(rows))


def _chain(case: Case) -> Table:
    """∂L/∂p_y · ∂p_y/∂x_c = ∂L/∂x_c, in numbers."""
    p_y, at_p = case.right.p, case.right.gradient_p
    rows = []
    for c in case.row.classes:
        jacobian = p_y * ((c.index == case.right.index) - c.p)
        # p_y cancels in the product, before it can be 0.
        cells = (visible(c.name), number(at_p), number(jacobian), number(c.gradient))
        rows.append(Row(cells, TARGET if c.label else PLAIN))
    return Table("", ("class c", "∂L/∂p_y", "∂p_y/∂x_c", "product = ∂L/∂x_c"), tuple(rows))


def _autograd(case: Case) -> str:
    return (
        f"{IMPORTS}\n{row_lines(case.source)}\n"
        "logits.requires_grad_()\n"
        f"loss = -(label * {log_softmax_of(case.source, 'label')}).sum()\n"
        "loss.backward()\n"
        "result = logits.grad  # p - y"
    )

"""Options: smoothing, class weights, ignored labels, and what a mean divides by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from xent.explanation.answers.answer import Answer, Quotes, case_of
from xent.explanation.blocks import (
    PLAIN,
    TARGET,
    Block,
    Code,
    Formula,
    Paragraph,
    Row,
    Table,
    counted,
    number,
    visible,
)
from xent.explanation.code import IMPORTS, log_softmax_of, row_lines
from xent.explanation.reduced import value_formula
from xent.explanation.row import trace_row
from xent.explanation.trace import RowTrace

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

EXAMPLE_SMOOTHING = 0.1
EXAMPLE_WEIGHT = 2.0


def smoothing(told: Explanation, question: str, title: str) -> Answer:
    """Some of the label goes to every class, and the loss gets a floor."""
    case, say = case_of(told), Quotes()
    epsilon = told.options.label_smoothing or EXAMPLE_SMOOTHING
    own = told.options.label_smoothing > 0
    bare = replace(case.source, weight=None, sample_weight=1.0)
    sharp = trace_row(replace(bare, label_smoothing=0.0), told.extent)
    smooth = trace_row(replace(bare, label_smoothing=epsilon), told.extent)
    share = epsilon / told.class_count
    rows = [
        Row(
            (visible(c.name), number(c.p), number(before.target), number(c.target),
             number(before.gradient), number(c.gradient)),
            TARGET if c.label else PLAIN,
        )
        for before, c in zip(sharp.classes, smooth.classes, strict=True)
    ]  # fmt: skip
    whose = "Your" if own else "You asked for none; say"
    body = (
        Paragraph(
            f"{whose} ε = {say('epsilon', epsilon)}: of each label ε is taken and spread evenly "
            f"over all {say('classes', told.class_count)} classes, {say('share', share)} each. "
            "The target asks for a little of everything, so a model has nothing to gain from "
            "driving its logits apart without end."
        ),
        Formula("target_c = (1 − ε) · label_c + ε/C        ∂L/∂x_c = p_c − target_c"),
        Table(
            "",
            ("class", "p", "label", "smoothed", "p − label", "p − smoothed"),
            tuple(rows),
        ),
        Paragraph(
            f"The loss goes from {say('sharp loss', sharp.cross_entropy)} to "
            f"{say('smooth loss', smooth.cross_entropy)}. It can no longer reach zero: its floor "
            f"is the entropy of the target, {say('floor', smooth.entropy)}, where p equals it. A "
            f"class without label and with p below {say('share', share)} is now raised, not "
            "lowered."
        ),
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"target = (1 - {epsilon!r}) * label + {epsilon!r} / len(label)\n"
            f"result = -(target * {log_softmax_of(case.source, 'target')}).sum()"
        ),
    )
    return Answer(question, title, body, say.numbers)


def weights(told: Explanation, question: str, title: str) -> Answer:
    """They scale a class's cost, and for indices the mean's divisor as well."""
    case, say = case_of(told), Quotes()
    own = case.source.weight is not None
    weight = case.source.weight if own else None
    if weight is None:
        weight = torch.ones(told.class_count, dtype=torch.float64)
        weight[case.right.index] = EXAMPLE_WEIGHT
    bare = replace(case.source, label_smoothing=0.0, sample_weight=1.0)
    without = trace_row(replace(bare, weight=None), told.extent)
    heavy = trace_row(replace(bare, weight=weight), told.extent)
    right, factor = case.called(case.right), float(weight[case.right.index])
    weighs = f"Your weight of {say('weight', factor)}"
    if not own:
        weighs = f"You gave none. A weight of, say, {say('weight', factor)}"
    one_hot = case.right.label == 1
    what = "so" if one_hot else "with it shifts"
    body: list[Block] = [
        Paragraph(
            f"{weighs} for {right} multiplies what {right} costs, and {what} its gradient: the "
            f"loss of this row goes from {say('plain loss', without.loss)} to "
            f"{say('weighted loss', heavy.loss)}, the gradient at {right} from "
            f"{say('plain gradient', _gradient(without, case.right.index))} to "
            f"{say('weighted gradient', _gradient(heavy, case.right.index))}."
        ),
        Formula(
            "loss = Σ_c weight_c · label_c · (−log p_c)\n"
            "∂L/∂x_c = (Σ_k weight_k · label_k) · p_c − weight_c · label_c"
        ),
        Paragraph(_divided(told, heavy, one_hot, say)),
        Code(
            f"{IMPORTS}\n{row_lines(replace(bare, weight=weight))}\n"
            f"result = -(weight * label * {log_softmax_of(case.source, 'label')}).sum()"
        ),
    ]
    return Answer(question, title, tuple(body), say.numbers)


def _divided(told: Explanation, heavy: RowTrace, one_hot: bool, say: Quotes) -> str:
    """What the mean does with weights: it depends on what the labels are."""
    if told.kind == "binary":
        return (
            "The binary mean divides by the number of elements, whatever pos_weight is: a larger "
            "weight makes the loss and every gradient of that side larger."
        )
    cancel = "leave nothing to divide by"
    if heavy.mass:
        loss, mass = say("weighted loss", heavy.loss), say("mass", heavy.mass)
        cancel = f"cancel: {loss} / {mass} = {say('cancelled', heavy.loss / heavy.mass)}"
    alone = f"; and for a batch of this one row they {cancel}" if one_hot else ""
    return (
        "With class indices the mean divides by the sum of the labels' weights, not by their "
        "number: it is a weighted mean. So weights shift attention between rows and leave the "
        f"scale alone{alone}. With dense labels the mean divides by the number of rows, and "
        "weights do change the scale."
    )


def ignore(told: Explanation, question: str, title: str) -> Answer:
    """A label that says: leave this position out."""
    case, say = case_of(told), Quotes()
    batch = told.batch
    counting = batch.count - batch.ignored
    body: list[Block] = [
        Paragraph(
            "A position whose label is ignore_index costs nothing, gets no gradient and is not "
            "counted by the mean: padding, or pixels nobody labelled. It takes positions out, not "
            "classes: the softmax of every other position still has all "
            f"{say('classes', told.class_count)}. To take a class out, set its logit to −∞."
        ),
        Formula("mean = Σ losses of the others / what the others add to the denominator"),
        Paragraph(
            f"Here, of {counted(batch.count, 'position')}, ignored: "
            f"{say('ignored', batch.ignored)}; counted: {say('counting', counting)}. So "
            f"{value_formula(batch)}."
        ),
    ]
    here = next(p for p in batch.positions if p.position == case.row.position)
    if batch.divisor and here.share is not None and counting > 1 and batch.divisor > here.share:
        others = (batch.total - here.loss) / (batch.divisor - here.share)
        body.append(
            Paragraph(
                "Were this position ignored too, the mean would go from "
                f"{say('mean', batch.total / batch.divisor)} to {say('mean of others', others)}."
            )
        )
    body.append(
        Paragraph(
            "In xent an ignored row is inert: its logits may be NaN, and neither the loss nor a "
            "gradient notices. If all are ignored, the mean is NaN as in torch, or 0 with "
            'on_empty="zero".'
        )
    )
    body.append(
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            "pair = torch.stack([logits, logits])\n"
            f"target = torch.tensor([{case.right.index}, -100])  # the second is padding\n"
            "result = F.cross_entropy(pair, target)  # the loss of the first alone"
        )
    )
    return Answer(question, title, tuple(body), say.numbers)


def mean(told: Explanation, question: str, title: str) -> Answer:
    """The divisor scales the loss and every gradient, and there are several."""
    case, say = case_of(told), Quotes()
    batch = told.batch
    counting = batch.count - batch.ignored
    body: list[Block] = [
        Paragraph(
            "reduction='mean' adds the losses of all positions and divides once. By what, depends: "
            "for class indices, by the sum of the labels' weights, which without weights is the "
            "number of labels not ignored; for probabilities, by the number of positions."
        ),
        Formula(value_formula(batch)),
    ]
    if counting:
        gradient, divisor = case.right.gradient, batch.divisor or counting
        body.append(
            Paragraph(
                f"The gradient is divided as well. At {case.called(case.right)} it is "
                f"{say('gradient', gradient)} for this position alone, "
                f"{say('gradient in the mean', gradient / divisor)} in a mean that divides by "
                f"{say('divisor', divisor)}. With 'sum' it would not shrink with the batch, and "
                "the learning rate would have to."
            )
        )
    body.append(
        Paragraph(
            "A mean of means is not the mean, unless all parts count the same. Accumulating "
            "gradients over micro-batches with unequal numbers of labels wants the sum of each, "
            "divided by the count of all: denominator= takes that number."
        )
    )
    equal = len({p.share for p in batch.positions if not p.ignored}) == 1
    losses = [p.loss for p in batch.positions if not p.ignored][:4]
    if len(losses) > 2 and equal:
        first, others = losses[:1], losses[1:]
        body.append(
            Paragraph(
                f"With {say('example count', len(losses))} of the losses here, "
                f"{' + '.join(say.all('example', losses))}: their mean is "
                f"{say('example mean', math.fsum(losses) / len(losses))}; the mean of the first "
                "one's and the others' means is "
                f"{say('mean of means', (math.fsum(first) + math.fsum(others) / len(others)) / 2)}."
            )
        )
    body.append(
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"index = {case.right.index}\n"
            "pair = torch.stack([logits, logits]).requires_grad_()\n"
            "F.cross_entropy(pair, torch.tensor([index, index])).backward()\n"
            "result = pair.grad[0]  # half of p - y"
        )
    )
    return Answer(question, title, tuple(body), say.numbers)


def _gradient(row: RowTrace, index: int) -> float:
    return next(c.gradient for c in row.classes if c.index == index)

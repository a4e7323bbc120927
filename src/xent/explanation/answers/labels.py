"""Labels: why they multiply, what is summed, and what an index has to do with it."""

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
    short,
    visible,
)
from xent.explanation.code import IMPORTS, log_softmax_of, row_lines
from xent.explanation.reduced import value_formula
from xent.explanation.row import trace_row

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation


def dense(told: Explanation, question: str, title: str) -> Answer:
    """The module of the Kaggle kernels, one line after another."""
    case, say = case_of(told), Quotes()
    classes = case.row.classes
    rest = case.row.rest
    logs = say.vector("log p", (c.log_p for c in classes), rest)
    products = say.vector("product", (_product(c.label, -c.log_p) for c in classes), rest)
    where = " Here:"
    if told.batch.count > 1:
        place = ", ".join(map(str, case.row.position))
        where = f" Of the {say('positions', told.batch.count)} rows this is row {place}:"
    body: list[Block] = [
        Paragraph(
            "It is given logits and labels of one shape, a row per example and a column per class, "
            f"and turns them into one number in four steps.{where} logits "
            f"{say.vector('logit', (c.logit for c in classes), rest)}, labels "
            f"{say.vector('label', (c.label for c in classes), rest)}."
        ),
        Formula("logprobs = log_softmax(x, dim=-1)"),
        Paragraph(
            "How likely each class is to the model, as a logarithm; each row of probabilities sums "
            f"to 1. Here {logs}."
        ),
        Formula("loss = -logprobs * target"),
        Paragraph(
            f"−log p is the surprise; the label weighs it: {products}. Still one number per class. "
            '(Ask "multiply".)'
        ),
        Formula("loss = loss.sum(-1)"),
        Paragraph(
            f"Over the classes, the last axis: {say('loss', _total(case))} nats for this example. "
            'One number per row. (Ask "sum".)'
        ),
        Formula("return loss.mean()"),
        Paragraph(
            f"{_over_examples(told)} With labels that are 1 at one class "
            "and 0 elsewhere, that is CrossEntropyLoss with the index of the class; with mixtures, "
            "such as mixup makes, it is CrossEntropyLoss with probabilities."
        ),
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"logprobs = {log_softmax_of(case.source, 'label')}\n"
            "loss = -logprobs * label\n"
            "result = loss.sum(-1)"
        ),
    ]
    return Answer(question, title, tuple(body), say.numbers)


def multiply(told: Explanation, question: str, title: str) -> Answer:
    """The label chooses which surprises are paid."""
    case, say = case_of(told), Quotes()
    label, p = say("label", case.right.label), say("p", case.right.p)
    right = case.called(case.right)
    surprise = say("surprise", -case.right.log_p)
    if case.right.label == 1:
        reading = (
            f"Here the label is 1 at {right} and 0 elsewhere: the product keeps {right}'s "
            f"−log {p} = {surprise} and erases all others. Multiplying is choosing."
        )
    else:
        reading = (
            f"Here the label is soft: {right} has {label} of it and pays that share of its "
            f"−log {p} = {surprise}; the other classes pay theirs. Multiplying is mixing."
        )
    body = (
        Paragraph(
            "log_softmax gives every class log p: 0 if the model is certain of it, and the further "
            "below zero the less likely it finds it. −log p is the surprise if that class turns "
            "out to be true. The label says how true each class is, and weighs the surprises."
        ),
        _products(case),
        Paragraph(reading),
        Formula("loss = Σ_c label_c · (−log p_c)"),
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"products = -label * {log_softmax_of(case.source, 'label')}\n"
            "result = products"
        ),
    )
    return Answer(question, title, body, say.numbers)


def over_classes(told: Explanation, question: str, title: str) -> Answer:
    """The sum collapses classes, the mean collapses examples."""
    case, say = case_of(told), Quotes()
    classes = say("classes", told.class_count)
    count = say("positions", told.batch.count)
    products = [c.label * -c.log_p for c in case.row.classes if c.label]
    labelled = int((case.source.label != 0).sum())
    terms = " + ".join(say.all("product", products[:6]))
    terms += " + …" if labelled > 6 else ""
    zeros = told.class_count - labelled
    rest = f" and {say('zeros', zeros)} zeros" if zeros else ""
    total = say("loss", _total(case))
    body = (
        Paragraph(
            f"After the multiplication there is still one number per class, {classes} of them, "
            "and the classes lie on the last axis: dim=-1. Summing along it asks: how surprised "
            "was the model by this example, over all classes? What is left is one loss per "
            f"example, {count} here. Only then does mean() go over the examples."
        ),
        _products(case),
        Paragraph(f"This example: {terms}{rest} = {total} nats."),
        Formula("[N, C]  →  sum(-1)  →  [N]  →  mean()  →  one number"),
        Paragraph(
            "sum(0) would add the examples of each class instead and mix what does not belong "
            "together; mean(-1) would divide the loss by the number of classes and every "
            "gradient with it."
        ),
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"products = -label * {log_softmax_of(case.source, 'label')}\n"
            "result = products.sum(-1)"
        ),
    )
    return Answer(question, title, body, say.numbers)


def index_dense(told: Explanation, question: str, title: str) -> Answer:
    """An index is a one-hot label that is not written out."""
    case, say = case_of(told), Quotes()
    index, right = case.right.index, case.called(case.right)
    one_hot = _one_hot(case)
    surprise = say("loss of the index", -case.right.log_p)
    body: list[Block] = [
        Paragraph(
            f"A class index is a one-hot label in short. Index {say('index', index)} ({right}) "
            f"says what the dense label {one_hot} says: all of the label at one class. The sum "
            f"over classes has one term left, −log p = {surprise}, which the index looks up "
            "without the zeros."
        ),
        Formula("Σ_c label_c · (−log p_c) = −log p_index   for a one-hot label"),
    ]
    if case.row.label_index is None and case.right.label != 1:
        dense = say("loss of the label", _total(case))
        body.append(
            Paragraph(
                f"Your label is soft, so no index can say it: its loss is {dense}; the index of "
                f"its likeliest class would give {surprise}, another question."
            )
        )
    body += [
        Paragraph(
            "The rest differs by convention: ignore_index works for indices only; with class "
            "weights the mean divides by their sum over the labels for indices, by the number of "
            "examples for dense labels; dense labels take N·C numbers of memory, indices N."
        ),
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"index = torch.tensor({index})\n"
            "by_index = F.cross_entropy(logits, index)\n"
            "one_hot = F.one_hot(index, len(logits)).double()\n"
            f"dense = (-one_hot * {log_softmax_of(case.source, 'one_hot')}).sum(-1)\n"
            "result = torch.stack([by_index, dense])"
        ),
    ]
    return Answer(question, title, tuple(body), say.numbers)


def _over_examples(told: Explanation) -> str:
    """The last step; options that the module does not have are named, not shown."""
    options = told.options
    own = options.weighted or options.label_smoothing or options.sample_weighted
    if own or told.batch.reduction != "mean":
        return "Over the examples. (Your own options are left out here: the module has none.)"
    return f"Over the examples: {value_formula(told.batch)}."


def _one_hot(case: Case) -> str:
    if case.row.class_count > 8:
        return f"of {case.row.class_count:,} numbers, zero but for one 1"
    return (
        f"({', '.join('1' if n == case.right.index else '0' for n in range(case.row.class_count))})"
    )


def _products(case: Case) -> Table:
    rows = [
        Row(
            (
                visible(c.name),
                short(c.p),
                short(-c.log_p),
                short(c.label),
                short(_product(c.label, -c.log_p)),
            ),
            TARGET if c.label else PLAIN,
        )
        for c in case.row.classes
    ]
    if case.row.rest is None:
        total = short(sum(_product(c.label, -c.log_p) for c in case.row.classes))
        rows.append(Row(("sum", "", "", "", total), TOTAL))
    rows += case.rest_row(lambda rest: (rest.p, None, rest.label, None))
    return Table("", ("class", "p", "−log p", "label", "label · (−log p)"), tuple(rows))


def _total(case: Case) -> float:
    """The loss of the label as it was given: neither smoothed nor weighted."""
    if case.told.options.label_smoothing == 0:
        return case.row.cross_entropy
    return trace_row(replace(case.source, label_smoothing=0.0), case.told.extent).cross_entropy


def _product(label: float, surprise: float) -> float:
    return label * surprise if label else 0.0

"""Softmax beside sigmoid, and its logarithm taken in one step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from xent.explanation.answers.answer import Answer, Quotes, case_of
from xent.explanation.blocks import (
    MINUS,
    PLAIN,
    TARGET,
    TOTAL,
    Code,
    Formula,
    Paragraph,
    Row,
    Table,
    number,
    visible,
)
from xent.explanation.code import IMPORTS, row_lines

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

HIGH = 1000.0
"""Added to every logit, it changes no probability and overflows a naive softmax."""


def sigmoid(told: Explanation, question: str, title: str) -> Answer:
    """One cake, or a yes or no for each class."""
    case, say = case_of(told), Quotes()
    right, logits = case.called(case.right), case.source.logits
    alone = logits.sigmoid()
    others = torch.cat([logits[: case.right.index], logits[case.right.index + 1 :]])
    against = float(case.right.logit - others.logsumexp(0)) if len(others) else math.inf
    rows = [
        Row(
            (visible(c.name), number(c.logit), number(c.p), number(float(alone[c.index]))),
            TARGET if c.label else PLAIN,
        )
        for c in case.row.classes
    ]
    if case.row.rest is None:
        whole = number(sum(c.p for c in case.row.classes))
        rows.append(Row(("sum", "", whole, number(float(alone.sum()))), TOTAL))
    hidden = float(alone.sum() - sum(alone[c.index] for c in case.row.classes))
    rows += case.rest_row(lambda rest: (None, rest.p, hidden))
    body = (
        Paragraph(
            "Softmax shares one cake: the probabilities sum to 1, so raising one logit lowers all "
            "other classes. Sigmoid asks each class on its own, yes or no: its probabilities sum "
            f"to whatever they do, here {say('sum of sigmoids', float(alone.sum()))}, and raising "
            "one logit moves that class alone."
        ),
        Table("", ("class", "logit x", "softmax", "sigmoid"), tuple(rows)),
        Paragraph(
            "They are one formula. A sigmoid is the softmax over the pair (0, x). And softmax is "
            "the sigmoid of a logit's lead over all others together:"
        ),
        Formula("sigmoid(x) = exp x / (exp 0 + exp x)\np_y = sigmoid(x_y − log Σ_{c≠y} exp x_c)"),
        Paragraph(
            f"Here {right} leads by {say('lead', against)}, and its p is "
            f"sigmoid({say('lead', against)}) = {say('p', case.right.p)}. Exactly one class is "
            "true: softmax with cross_entropy. Any number of them may be: sigmoid with "
            "binary_cross_entropy_with_logits. Either way the gradient at a logit is p − y."
        ),
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"own = torch.arange(len(logits)) == {case.right.index}\n"
            "lead = logits[own] - logits[~own].logsumexp(0)\n"
            "result = torch.sigmoid(lead)"
        ),
    )
    return Answer(question, title, body, say.numbers)


def log_softmax(told: Explanation, question: str, title: str) -> Answer:
    """exp overflows and underflows; their difference need not be formed."""
    case, say = case_of(told), Quotes()
    row, right = case.row, case.right
    single = case.source.logits.float()
    naive = (single + HIGH).exp() / (single + HIGH).exp().sum()
    lowest = min(row.classes, key=lambda c: c.logit)
    body = (
        Paragraph(
            "In mathematics they are the same. In float32, exp overflows above 88 and is zero "
            "below −104, and log 0 is −∞: an unlucky example costs infinity and its gradient is "
            "NaN. log-softmax never forms the probability. It subtracts:"
        ),
        Formula("log p_c = (x_c − max x) − log Σ_k exp(x_k − max x)"),
        Paragraph(
            f"Here, for {case.called(right)}: ({say('logit', right.logit)} − "
            f"{_in_parentheses(say('maximum', row.maximum))}) − log "
            f"{say('exp sum', row.exp_sum)} = {say('log p', right.log_p)}. "
            "Its largest exponential is exp 0 = 1, so nothing overflows, and a tiny probability "
            "stays a number of ordinary size: "
            f"{case.called(lowest)} has p = {say('lowest p', lowest.p)} and log p = "
            f"{say('lowest log p', lowest.log_p)}."
        ),
        Paragraph(
            f"Add {say('high', HIGH)} to every logit: no share changes. In float32 the naive way "
            f"gives {say('naive', float(naive[right.index]))}; log-softmax takes the largest off "
            "again before exp sees it. (cross_entropy takes logits for this reason: it does this "
            "itself. Softmax before it would be done twice.)"
        ),
        Code(
            f"{IMPORTS}\n{row_lines(case.source, weight=False)}\n"
            f"high = (logits + {HIGH}).float()\n"
            "naive = torch.log(high.exp() / high.exp().sum())  # nan\n"
            f"result = F.log_softmax(logits + {HIGH}, dim=-1)[{right.index}]"
        ),
    )
    return Answer(question, title, body, say.numbers)


def _in_parentheses(negative: str) -> str:
    """A number that is taken away: (−2) if it is negative."""
    return f"({negative})" if negative.startswith(MINUS) else negative

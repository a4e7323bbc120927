"""What the losses have to give, in float64 on the device, and who is too far from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpu_cases import LinearData
from gpu_peers import Program
from linear import BARS
from xent.benchmark.truth import Answer, Truth, errors

BLOCK = 1 << 27
"""Logits that are there in float64 at once: 1 GiB."""
SAMPLE = 128
"""Rows, and classes of as many rows and as many others, whose gradients are compared."""


@dataclass(frozen=True)
class LinearTruth:
    """The mean loss of all rows; the gradients of some hidden states and some classes."""

    loss: float
    rows: Tensor
    at_rows: Tensor
    classes: Tensor
    at_classes: Tensor


def linear_truth(data: LinearData) -> LinearTruth:
    """All logits in float64, a block of rows at a time: every row matters to every class."""
    hidden, target = data.hidden, data.target
    classifier = data.classifier.double()
    count, vocabulary = len(hidden), len(classifier)
    rows = _spread(count, target)
    classes = torch.cat((target[rows], _spread(vocabulary, target))).unique()
    at_classes = classifier.new_zeros(len(classes), classifier.shape[1])
    total = 0.0
    for some in torch.arange(count, device=target.device).split(max(1, BLOCK // vocabulary)):
        states = hidden[some].double()
        lse, shares = _shares(states, classifier, target[some], classes)
        at_classes.addmm_(shares.t(), states, alpha=1 / count)
        total += float((lse - (states * classifier[target[some]]).sum(1)).sum())
    logits = hidden[rows].double() @ classifier.t()
    at_rows = (logits.softmax(1) @ classifier - classifier[target[rows]]) / count
    return LinearTruth(total / count, rows, at_rows, classes, at_classes)


def _shares(
    states: Tensor, classifier: Tensor, target: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """lse, and p − y at these classes."""
    logits = states @ classifier.t()
    lse = logits.logsumexp(1)
    shares = (logits[:, classes] - lse[:, None]).exp()
    return lse, shares - (target[:, None] == classes).double()


def _spread(count: int, like: Tensor) -> Tensor:
    """Evenly spread indices."""
    taken = min(SAMPLE, count)
    return torch.linspace(0, count - 1, taken, device=like.device, dtype=torch.float64).long()


def judged_logits(program: Program, truth: Truth, dtype: str) -> dict[str, Any]:
    """Errors of the program's last run, and a reason if it is wrong."""
    gradient = program.gradients[0] if program.gradients else None
    answer = Answer(_loss(program), None if gradient is None else gradient[truth.rows])
    found = errors(answer, truth)
    result: dict[str, Any] = {"loss_error": found.loss, "gradient_error": found.gradient}
    wrong = found.verdict(dtype) or _unwritten(program)
    return {**result, "reason": wrong} if wrong else result


def judged_linear(program: Program, truth: LinearTruth, dtype: str) -> dict[str, Any]:
    """The same, with the gradients measured in the norm."""
    of_loss = abs(_loss(program) - truth.loss) / abs(truth.loss)
    result: dict[str, Any] = {"loss_error": of_loss, "gradient_error": None}
    loss_bar, gradient_bar = BARS[dtype]
    wrong = None if of_loss <= loss_bar else f"its loss is {of_loss:.1%} off"
    if program.gradients:
        at_hidden, at_classifier = program.gradients
        off = torch.stack((
            _distance(at_hidden[truth.rows], truth.at_rows),
            _distance(at_classifier[truth.classes], truth.at_classes),
        )).max().item()  # fmt: skip
        result["gradient_error"] = off
        if not off <= gradient_bar:
            wrong = wrong or f"a gradient is {off:.1%} off"
    wrong = wrong or _unwritten(program)
    return {**result, "reason": wrong} if wrong else result


def _loss(program: Program) -> float:
    assert program.loss is not None
    return program.loss.item()


def _unwritten(program: Program) -> str | None:
    """Freed memory was filled with NaN before the run."""
    sums = (gradient.sum(dtype=torch.float32) for gradient in program.gradients)
    return "a gradient has NaN" if any(total.isnan().item() for total in sums) else None


def _distance(ours: Tensor, truth: Tensor) -> Tensor:
    """‖ours − truth‖ / ‖truth‖; max keeps a NaN."""
    return (ours.double() - truth).norm() / truth.norm()

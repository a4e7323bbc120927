"""What a loss has to give, in float64, and how far from it an answer may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xent.benchmark.cases import Labels
from xent.benchmark.data import BLOCK, Data

LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Relative error of the loss. Measured: torch.compile sums the weights of two million labels in
float32 one after another and is off by 1e-5."""
GRADIENT_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1}
"""Error of each entry of the gradient, relative to the terms whose difference it is. In bfloat16
torch rounds log p, which is about −11 at 50 000 classes, to steps of 1/16: 3 % of p."""


@dataclass(frozen=True)
class Truth:
    """The mean loss in nats, and the gradient of a sample of the batch."""

    loss: float
    rows: Tensor
    gradient: Tensor
    size: Tensor
    """Of the terms of each entry: p − q may cancel, but not to better than the rounding of p."""


@dataclass(frozen=True)
class Answer:
    """What a peer gave: its loss and, if it was asked for one, its gradient of the sample."""

    loss: float
    gradient: Tensor | None


@dataclass(frozen=True)
class Errors:
    """Relative distance of an answer from the truth."""

    loss: float
    gradient: float | None

    def verdict(self, dtype: str) -> str | None:
        """What is wrong, in words, or None."""
        # Negated comparisons, so that NaN is wrong as well.
        if not self.loss <= LOSS_TOLERANCE[dtype]:
            return f"loss is off by {self.loss:.1e} of it; {LOSS_TOLERANCE[dtype]:.0e} is allowed"
        if self.gradient is not None and not self.gradient <= GRADIENT_TOLERANCE[dtype]:
            allowed = GRADIENT_TOLERANCE[dtype]
            return f"gradient is off by {self.gradient:.1e} of it; {allowed:.0e} is allowed"
        return None


def truth_of(data: Data) -> Truth:
    """Loss over all of the batch, block by block, and the gradient of evenly spread rows of it."""
    divisor = _divisor(data)
    total = sum(_summed(data, block, data.logits[block].double()).item() for block in data.blocks())
    batch, *rest = data.case.shape
    count = min(batch, max(2, BLOCK // math.prod(rest)))
    rows = torch.linspace(0, batch - 1, count).round().long()
    leaf = data.logits[rows].double().requires_grad_()
    (gradient,) = torch.autograd.grad(_summed(data, rows, leaf), leaf)
    gradient.div_(divisor)
    size = leaf.detach().softmax(1).div_(divisor).add_(gradient.abs())
    return Truth(total / divisor, rows, gradient, size)


def errors(answer: Answer, truth: Truth) -> Errors:
    """How far the answer is from the truth."""
    loss = abs(answer.loss - truth.loss) / abs(truth.loss)
    if answer.gradient is None:
        return Errors(loss, None)
    difference = (answer.gradient.double() - truth.gradient).abs_()
    return Errors(loss, difference.div_(truth.size).max().item())


def _summed(data: Data, rows: slice | Tensor, logits: Tensor) -> Tensor:
    target = data.target[rows]
    return F.cross_entropy(
        logits,
        target.double() if target.is_floating_point() else target,
        None if data.weight is None else data.weight.double(),
        ignore_index=data.ignore_index,
        label_smoothing=data.label_smoothing,
        reduction="sum",
    )


def _divisor(data: Data) -> float:
    """What the mean divides by: positions, or the weights of the labels that count."""
    if data.case.labels is Labels.PROBABILITIES:
        return data.target.numel() / data.case.shape[1]
    valid = data.target[data.target != data.ignore_index]
    return float(valid.numel() if data.weight is None else data.weight.double()[valid].sum())

"""The Module of ``dense_cross_entropy``."""

from __future__ import annotations

import torch
from torch import Tensor

from xent import functional
from xent.contract.reduction import checked_reduction
from xent.contract.weights import checked_label_smoothing
from xent.nn.showing import named, not_scriptable


class DenseCrossEntropyLoss(torch.nn.Module):
    """``dense_cross_entropy`` as a Module: probability labels, classes on the last axis.

    Options, formula (nats), what ``mean`` divides by, shapes and errors: see
    ``xent.functional.dense_cross_entropy``. ``weight`` is a buffer.

    Example:
        >>> import torch, xent
        >>> criterion = xent.DenseCrossEntropyLoss()
        >>> criterion(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]])).item()  # log 2
        0.6931471824645996
    """

    weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        label_smoothing = checked_label_smoothing(label_smoothing)
        self.register_buffer("weight", weight)
        self.reduction = checked_reduction(reduction).mode
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits ``(…, C)`` and labels of the same shape."""
        return functional.dense_cross_entropy(
            logits, labels, self.weight, self.reduction, self.label_smoothing
        )

    def extra_repr(self) -> str:
        """The options that differ from their defaults."""
        return named(
            weight=(self.weight, None),
            reduction=(self.reduction, "mean"),
            label_smoothing=(self.label_smoothing, 0.0),
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        raise not_scriptable(self)


DenseCrossEntropy = DenseCrossEntropyLoss

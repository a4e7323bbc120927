"""The Module of ``binary_cross_entropy_with_logits``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xent import functional
from xent.contract.reduction import checked_reduction
from xent.contract.targets import stored_ignore_index
from xent.contract.weights import checked_label_smoothing
from xent.nn.showing import named, not_scriptable, warn_of_script


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """``binary_cross_entropy_with_logits`` as a Module; for ``torch.nn.BCEWithLogitsLoss``.

    Options, formula (nats), what ``mean`` divides by, shapes and errors: see
    ``xent.functional.binary_cross_entropy_with_logits``. ``weight`` and ``pos_weight`` are buffers.

    Example:
        >>> import torch, xent
        >>> criterion = xent.BCEWithLogitsLoss(reduction="sum")
        >>> criterion(torch.zeros(2), torch.tensor([True, False])).item()  # 2 log 2
        1.3862943649291992
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        *,
        ignore_index: int | Sequence[int] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        checked = checked_reduction(reduction, size_average, reduce)
        label_smoothing = checked_label_smoothing(label_smoothing)
        super().__init__(weight, reduction=checked.mode, pos_weight=pos_weight)
        self.ignore_index = None if ignore_index is None else stored_ignore_index(ignore_index)
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits and labels of one shape."""
        return functional.binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        """The options that differ from their defaults."""
        return named(
            weight=(self.weight, None),
            reduction=(self.reduction, "mean"),
            pos_weight=(self.pos_weight, None),
            ignore_index=(self.ignore_index, None),
            label_smoothing=(self.label_smoothing, 0.0),
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        if self.ignore_index is not None or self.label_smoothing:
            raise not_scriptable(self)
        warn_of_script(self)
        return torch.nn.BCEWithLogitsLoss(
            self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )

"""The Module of ``cross_entropy``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xent import functional
from xent.contract.dtypes import check_dtype
from xent.contract.groups import Group, Groups, RankGroup
from xent.contract.layout import checked_dim
from xent.contract.reduction import Denominator, OnEmpty, checked_reduction
from xent.contract.targets import Check, checked_check, stored_ignore_index
from xent.contract.weights import checked_label_smoothing
from xent.nn.showing import named, not_scriptable, warn_of_script


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """``cross_entropy`` as a Module; takes the place of ``torch.nn.CrossEntropyLoss``.

    Options, formula (nats), what ``mean`` divides by, shapes and errors: see
    ``xent.functional.cross_entropy``. ``weight`` is a buffer: it moves with ``.to()`` and is
    part of the ``state_dict``.

    Example:
        >>> import torch, xent
        >>> criterion = xent.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)
        >>> criterion
        CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)
        >>> criterion(torch.zeros(2, 4), torch.tensor([0, 3])).item()  # log 4
        1.3862943649291992
    """

    ignore_index: int | Sequence[int]  # type: ignore[assignment]  # torch's takes one value only

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int | Sequence[int] = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        dim: int | None = None,
        denominator: Denominator | None = None,
        on_empty: OnEmpty = "nan",
        dtype: torch.dtype | None = None,
        inplace_backward: bool = False,
        check: Check | None = None,
        group: Group | None = None,
        dp_group: RankGroup | None = None,
    ) -> None:
        checked = checked_reduction(
            reduction, size_average, reduce, denominator=denominator, on_empty=on_empty
        )
        check_dtype(dtype)
        label_smoothing = checked_label_smoothing(label_smoothing)
        super().__init__(weight, reduction=checked.mode, label_smoothing=label_smoothing)
        self.ignore_index = stored_ignore_index(ignore_index)
        self.dim = None if dim is None else checked_dim(dim)
        self.denominator = checked.denominator
        self.on_empty = on_empty
        self.dtype = dtype
        self.inplace_backward = inplace_backward
        checked_check(check)
        self.check = check
        self.groups = Groups(group, dp_group)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: Denominator | None = None,
    ) -> Tensor:
        """The loss; a ``denominator`` given here goes before the constructor's."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            dim=self.dim,
            sample_weight=sample_weight,
            denominator=self.denominator if denominator is None else denominator,
            on_empty=self.on_empty,
            dtype=self.dtype,
            inplace_backward=self.inplace_backward,
            check=self.check,
            group=self.groups.group,
            dp_group=self.groups.dp_group,
        )

    def extra_repr(self) -> str:
        """The options that differ from their defaults."""
        return named(
            weight=(self.weight, None),
            ignore_index=(self.ignore_index, -100),
            reduction=(self.reduction, "mean"),
            label_smoothing=(self.label_smoothing, 0.0),
            dim=(self.dim, None),
            denominator=(self.denominator, None),
            on_empty=(self.on_empty, "nan"),
            dtype=(self.dtype, None),
            inplace_backward=(self.inplace_backward, False),
            check=(self.check, None),
            group=(self.groups.group, None),
            dp_group=(self.groups.dp_group, None),
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        groups = (self.groups.group, self.groups.dp_group)
        beyond = (self.dim, self.denominator, self.dtype, *groups)
        further = any(option is not None for option in beyond) or self.on_empty != "nan"
        if further or not isinstance(self.ignore_index, int):
            raise not_scriptable(self)
        warn_of_script(self)
        return torch.nn.CrossEntropyLoss(
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

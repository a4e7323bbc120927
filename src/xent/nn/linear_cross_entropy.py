"""The Module of ``linear_cross_entropy``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xent import functional
from xent.contract.dtypes import check_dtype
from xent.contract.errors import described, mistake, shape
from xent.contract.groups import Group, Groups, RankGroup
from xent.contract.linear import checked_chunk_bytes
from xent.contract.reduction import Denominator, OnEmpty, checked_reduction
from xent.contract.targets import Check, checked_check, stored_ignore_index
from xent.contract.weights import checked_label_smoothing
from xent.nn.showing import named, not_scriptable


class LinearCrossEntropyLoss(torch.nn.Module):
    """``linear_cross_entropy`` with a classifier of its own, ``linear``; torch's since 2.13.

    Options, formula (nats), what ``mean`` divides by, shapes and errors: see
    ``xent.functional.linear_cross_entropy``. ``dtype`` is that of the classifier, as in torch;
    ``loss_dtype`` that of the returned loss. Names in the
    ``state_dict`` are torch's: ``linear.weight``, ``linear.bias``, ``weight``. For tied embeddings:
    ``criterion.linear.weight = embedding.weight``. With ``group``, ``num_classes`` is this rank's.

    Example:
        >>> import torch, xent
        >>> criterion = xent.LinearCrossEntropyLoss(16, 1000, ignore_index=0)
        >>> criterion
        LinearCrossEntropyLoss(
          in_features=16, num_classes=1000, bias=False, ignore_index=0
          (linear): Linear(in_features=16, out_features=1000, bias=False)
        )
        >>> criterion(torch.zeros(2, 16), torch.tensor([7, 0])).item()  # log 1000
        6.907755374908447
    """

    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | Sequence[int] | None = -100,
        label_smoothing: float = 0.0,
        denominator: Denominator | None = None,
        on_empty: OnEmpty = "nan",
        loss_dtype: torch.dtype | None = None,
        chunk_bytes: int | None = None,
        check: Check | None = None,
        group: Group | None = None,
        dp_group: RankGroup | None = None,
    ) -> None:
        super().__init__()
        checked = checked_reduction(reduction, denominator=denominator, on_empty=on_empty)
        self.num_classes = num_classes
        self.out_features = _checked_sizes(out_features)
        self.reduction = checked.mode
        self.denominator = checked.denominator
        self.on_empty = on_empty
        self.ignore_index = stored_ignore_index(-100 if ignore_index is None else ignore_index)
        self.label_smoothing = checked_label_smoothing(label_smoothing)
        check_dtype(loss_dtype)
        self.loss_dtype = loss_dtype
        self.chunk_bytes = checked_chunk_bytes(chunk_bytes)
        checked_check(check)
        self.check = check
        self.groups = Groups(group, dp_group)
        if weight is not None and group is None and tuple(weight.shape) != (num_classes,):
            raise mistake(
                RuntimeError,
                "weight",
                expected=f"one factor for each of the {num_classes} classes",
                got=f"shape {shape(weight)}",
            )
        outputs = math.prod(self.out_features, start=num_classes)
        self.linear = torch.nn.Linear(in_features, outputs, bias=bias, device=device, dtype=dtype)
        self.register_buffer("weight", weight)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: Denominator | None = None,
    ) -> Tensor:
        """The loss of hidden states; a ``denominator`` given here goes before the constructor's."""
        outputs = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return functional.linear_cross_entropy(
            input,
            self.linear.weight.reshape(*outputs, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(outputs),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            sample_weight=sample_weight,
            denominator=self.denominator if denominator is None else denominator,
            on_empty=self.on_empty,
            dtype=self.loss_dtype,
            chunk_bytes=self.chunk_bytes,
            check=self.check,
            group=self.groups.group,
            dp_group=self.groups.dp_group,
        )

    def extra_repr(self) -> str:
        """The classifier's shape, and the options that differ from their defaults."""
        shape = f"in_features={self.linear.in_features}, num_classes={self.num_classes}"
        options = named(
            out_features=(self.out_features, ()),
            weight=(self.weight, None),
            reduction=(self.reduction, "mean"),
            ignore_index=(self.ignore_index, -100),
            label_smoothing=(self.label_smoothing, 0.0),
            denominator=(self.denominator, None),
            on_empty=(self.on_empty, "nan"),
            loss_dtype=(self.loss_dtype, None),
            chunk_bytes=(self.chunk_bytes, None),
            check=(self.check, None),
            group=(self.groups.group, None),
            dp_group=(self.groups.dp_group, None),
        )
        bias = f"bias={self.linear.bias is not None}"
        return ", ".join(filter(None, (shape, bias, options)))

    def __prepare_scriptable__(self) -> torch.nn.Module:
        raise not_scriptable(self)


def _checked_sizes(out_features: Any) -> tuple[int, ...]:
    if isinstance(out_features, Sequence) and all(isinstance(n, int) for n in out_features):
        return tuple(out_features)
    raise mistake(
        TypeError,
        "out_features",
        expected="a tuple of ints, the sizes d1, …, dK of the positions of a hidden state",
        got=described(out_features),
        remedy="The number of classes is num_classes.",
    )

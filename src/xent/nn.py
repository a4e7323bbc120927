"""Floor 5: the losses as Modules. Each holds options and forwards to the function of its name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xent import functional
from xent.contract.dtypes import check_dtype
from xent.contract.layout import checked_dim
from xent.contract.linear import checked_chunk_bytes
from xent.contract.reduction import Denominator, OnEmpty, checked_reduction
from xent.contract.targets import stored_ignore_index
from xent.contract.weights import checked_label_smoothing


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
        )

    def extra_repr(self) -> str:
        """The options that differ from their defaults."""
        return _named(
            weight=(self.weight, None),
            ignore_index=(self.ignore_index, -100),
            reduction=(self.reduction, "mean"),
            label_smoothing=(self.label_smoothing, 0.0),
            dim=(self.dim, None),
            denominator=(self.denominator, None),
            on_empty=(self.on_empty, "nan"),
            dtype=(self.dtype, None),
            inplace_backward=(self.inplace_backward, False),
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        beyond = [self.dim, self.denominator, self.dtype] != [None] * 3 or self.on_empty != "nan"
        if beyond or not isinstance(self.ignore_index, int):
            raise _not_scriptable(self)
        _warn_of_script(self)
        return torch.nn.CrossEntropyLoss(
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


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
        return _named(
            weight=(self.weight, None),
            reduction=(self.reduction, "mean"),
            label_smoothing=(self.label_smoothing, 0.0),
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        raise _not_scriptable(self)


DenseCrossEntropy = DenseCrossEntropyLoss


class LinearCrossEntropyLoss(torch.nn.Module):
    """``linear_cross_entropy`` with a classifier of its own, ``linear``; torch's since 2.13.

    Options, formula (nats), what ``mean`` divides by, shapes and errors: see
    ``xent.functional.linear_cross_entropy``. ``dtype`` is that of the classifier. Names in the
    ``state_dict`` are torch's: ``linear.weight``, ``linear.bias``, ``weight``. For tied embeddings:
    ``criterion.linear.weight = embedding.weight``.

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
        chunk_bytes: int | None = None,
    ) -> None:
        super().__init__()
        checked = checked_reduction(reduction, denominator=denominator, on_empty=on_empty)
        self.num_classes = num_classes
        self.out_features = tuple(out_features)
        self.reduction = checked.mode
        self.denominator = checked.denominator
        self.on_empty = on_empty
        self.ignore_index = stored_ignore_index(-100 if ignore_index is None else ignore_index)
        self.label_smoothing = checked_label_smoothing(label_smoothing)
        self.chunk_bytes = checked_chunk_bytes(chunk_bytes)
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
            chunk_bytes=self.chunk_bytes,
        )

    def extra_repr(self) -> str:
        """The classifier's shape, and the options that differ from their defaults."""
        shape = f"in_features={self.linear.in_features}, num_classes={self.num_classes}"
        options = _named(
            out_features=(self.out_features, ()),
            weight=(self.weight, None),
            reduction=(self.reduction, "mean"),
            ignore_index=(self.ignore_index, -100),
            label_smoothing=(self.label_smoothing, 0.0),
            denominator=(self.denominator, None),
            on_empty=(self.on_empty, "nan"),
            chunk_bytes=(self.chunk_bytes, None),
        )
        bias = f"bias={self.linear.bias is not None}"
        return ", ".join(filter(None, (shape, bias, options)))

    def __prepare_scriptable__(self) -> torch.nn.Module:
        raise _not_scriptable(self)


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
        return _named(
            weight=(self.weight, None),
            reduction=(self.reduction, "mean"),
            pos_weight=(self.pos_weight, None),
            ignore_index=(self.ignore_index, None),
            label_smoothing=(self.label_smoothing, 0.0),
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        if self.ignore_index is not None or self.label_smoothing:
            raise _not_scriptable(self)
        _warn_of_script(self)
        return torch.nn.BCEWithLogitsLoss(
            self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


def _warn_of_script(module: torch.nn.Module) -> None:
    warnings.warn(
        f"TorchScript puts torch.nn.{type(module).__name__} in the place of this one, "
        "in the model that is scripted too: the same options, torch's precision.",
        stacklevel=2,
    )


def _not_scriptable(module: torch.nn.Module) -> NotImplementedError:
    return NotImplementedError(
        f"{module} cannot be scripted: TorchScript has no counterpart of its options. "
        "Script the model without its loss, or use torch.compile."
    )


def _named(**options: tuple[Any, Any]) -> str:
    """The options that differ from their defaults; tensors by shape."""
    shown = []
    for name, (value, default) in options.items():
        if isinstance(value, Tensor):
            shown.append(
                f"{name}=<{tuple(value.shape)}>" if value.ndim else f"{name}={value.item()}"
            )
        elif value != default:
            shown.append(f"{name}={value!r}")
    return ", ".join(shown)

"""Small batches in the usual form: a few calls of kernels instead of forty of torch.

Below some hundred thousand logits the time of a loss is the time of its Python and of torch's
operations, a few microseconds each. Here a batch of rows on a CPU with the options that nearly
everybody uses goes straight to a kernel; everything else takes the general way, to the same
formulas.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from xent.contract.inspection import holds_its_values
from xent.statistics.dispatch import asked_backend, failure, log

LARGEST = 1 << 18
"""Logits up to which one thread in one kernel is quicker than the general way."""

_PLAIN = (Tensor, Parameter)
_LOWEST = -(2**63)
_LABELS: Any = np.empty(0, np.int64)


class _Kind(NamedTuple):
    """What belongs to a dtype: an empty array of it for the kernels, and a number to copy."""

    like: Any
    scalar: Tensor


_KINDS = {
    torch.float32: _Kind(
        np.empty(0, np.float32), torch.zeros((), dtype=torch.float32, device="cpu")
    ),
    torch.float64: _Kind(
        np.empty(0, np.float64), torch.zeros((), dtype=torch.float64, device="cpu")
    ),
}


# ignore_index, whether it is the mean, label_smoothing, the general way. A NamedTuple would read
# better and take as long to make as a kernel to call.
_Options = tuple[int, bool, float, Callable[..., Tensor]]


def batch_loss(
    general: Callable[..., Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: Any,
    reduction: Any,
    label_smoothing: Any,
) -> Tensor | None:
    """The loss of a small batch in the usual form; None where it is not for this way.

    ``general`` is the loss by the general way: its second derivatives are taken there.
    """
    if (
        torch.compiler.is_compiling()
        or _in_a_special_mode()
        or not _fits(input, target, weight)
        or reduction not in ("mean", "sum")
        or type(ignore_index) is not int
        or not _LOWEST <= ignore_index <= -_LOWEST - 1
        or type(label_smoothing) is not float
        or not 0.0 <= label_smoothing <= 1.0
        or (ignore_index >= 0 and target.ndim == 2)
        or asked_backend() not in (None, "numba")
        or failure("numba") is not None
    ):
        return None
    if log.isEnabledFor(logging.DEBUG):
        log.debug("small batch of %s %s: numba", tuple(input.shape), input.dtype)
    options = (ignore_index, reduction == "mean", label_smoothing, general)
    if input.requires_grad and torch.is_grad_enabled():
        loss: Tensor | None = _apply(input, target, weight, options)  # type: ignore[no-untyped-call]  # torch's
        return loss
    return _loss(_described(input, target, weight, options), input, target, options, None)[0]


def _fits(input: Any, target: Any, weight: Any) -> bool:
    """True for rows of float32 or float64 in CPU memory, with labels that need no conversion."""
    if type(input) not in _PLAIN or type(target) is not Tensor or input.ndim != 2:
        return False
    dtype = input.dtype
    if dtype not in _KINDS or not 0 < input.numel() <= LARGEST:
        return False
    if not holds_its_values(input) or not holds_its_values(target) or not input.data_ptr():
        return False
    if not (input.is_contiguous() or input.stride(1) == 1):
        return False
    if weight is not None and not (
        type(weight) in _PLAIN
        and weight.dtype == dtype
        and holds_its_values(weight)
        and weight.shape == input.shape[1:]
        and weight.is_contiguous()
        and not weight.requires_grad
    ):
        return False
    if target.dtype == torch.int64:
        return target.ndim == 1 and len(target) == len(input) and target.is_contiguous()
    return (
        target.dtype == dtype
        and target.shape == input.shape
        and target.stride(1) == 1
        and not target.requires_grad
    )


def _in_a_special_mode() -> bool:
    """True inside transforms, traces, forward mode, and where a mode watches every operation."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


def _loss(
    rows: tuple[Any, ...], input: Tensor, target: Tensor, options: _Options, kept: Tensor | None
) -> tuple[Tensor | None, float]:
    """The loss and its divisor; None where there are cases for words, which kernels don't have."""
    kind = _KINDS[input.dtype]
    loss = torch.empty_like(kind.scalar)
    places = (None, 0) if kept is None else (kind.like, kept.data_ptr())
    kernel = _kernels().index_loss if target.ndim == 1 else _kernels().dense_loss
    divisor = kernel(*rows, options[1], *places, loss.data_ptr())
    return (loss if divisor and divisor == divisor else None), divisor


def _gradient(
    rows: tuple[Any, ...], input: Tensor, target: Tensor, kept: Tensor, scale: float
) -> Tensor:
    gradient = torch.empty_like(input)
    kernel = _kernels().index_gradient if target.ndim == 1 else _kernels().dense_gradient
    kernel(*rows, scale, kept.data_ptr(), gradient.data_ptr())
    return gradient


def _described(
    input: Tensor, target: Tensor, weight: Tensor | None, options: _Options
) -> tuple[Any, ...]:
    """What every kernel begins with."""
    like = _KINDS[input.dtype].like
    positions, classes = input.shape
    v = (None, 0) if weight is None else (like, weight.data_ptr())
    stride = classes if input.is_contiguous() else input.stride(0)
    at = (input.data_ptr(), stride, positions, classes, target.data_ptr())
    ignore_index, _, label_smoothing, _ = options
    smoothing = label_smoothing or None
    if target.ndim == 1:
        return like, _LABELS, *at, *v, ignore_index, smoothing
    return like, *at, target.stride(0), *v, smoothing


class _BatchLoss(torch.autograd.Function):
    """The loss and the gradient in a kernel each; second derivatives by the general way."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, weight: Tensor | None, options: _Options
    ) -> Tensor | None:
        kept = input.new_empty(2 * len(input))
        rows = _described(input, target, weight, options)
        loss, divisor = _loss(rows, input, target, options, kept)
        ctx.save_for_backward(input, target, weight)
        ctx.own = options, kept, divisor, rows
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        options, kept, divisor, rows = ctx.own
        logits, target, weight = ctx.saved_tensors
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch._C._are_functorch_transforms_active()
            or torch._C._functorch.is_legacy_batchedtensor(grad)
            or not _lie_as_described(rows, logits, target, weight)
        ):
            return _general_gradient(options, grad, logits, target, weight), None, None, None
        return _gradient(rows, logits, target, kept, grad.item() / divisor), None, None, None


def _lie_as_described(
    rows: tuple[Any, ...], input: Tensor, target: Tensor, weight: Tensor | None
) -> bool:
    """False if a hook, or ``.data =``, has given a saved tensor other memory since the forward."""
    at = 2 if target.ndim == 1 else 1
    return (
        input.data_ptr() == rows[at]
        and target.data_ptr() == rows[at + 4]
        and (weight is None or weight.data_ptr() == rows[8])
        and input.dtype in _KINDS
    )


# Function.apply without its look for transforms, which do not get here: a tenth of a small forward.
_apply = super(torch.autograd.Function, _BatchLoss).apply


def _general_gradient(
    options: _Options, grad: Tensor, input: Tensor, target: Tensor, weight: Tensor | None
) -> Tensor:
    """The gradient that is differentiated again, or that torch transforms."""
    again = torch.is_grad_enabled()
    ignore_index, mean, label_smoothing, general = options
    with torch.enable_grad():
        own = input.view_as(input)  # hooks of the input are for the pass that is under way
        loss = general(
            own,
            target,
            weight,
            ignore_index=ignore_index,
            reduction="mean" if mean else "sum",
            label_smoothing=label_smoothing,
        )
    (gradient,) = torch.autograd.grad(loss, own, grad, create_graph=again)
    return gradient


@cache
def _kernels() -> ModuleType:
    from xent.backends.numba import batches

    return batches

"""Which precision a loss is accumulated in, and which one it is returned in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from xent.contract.errors import described, mistake

_HALVES = (torch.float16, torch.bfloat16)
_FLOATS = (*_HALVES, torch.float32, torch.float64)


def is_supported_float(dtype: torch.dtype) -> bool:
    """True for float16, bfloat16, float32 and float64."""
    return dtype in _FLOATS


def under_autocast(tensor: Tensor) -> torch.dtype:
    """The tensor's dtype, as autocast sees it: losses run in float32 there, like torch's."""
    if tensor.dtype in _HALVES and autocast_enabled(tensor.device.type):
        return torch.float32
    return tensor.dtype


def autocast_enabled(device: str) -> bool:
    """Whether autocast is on for a kind of device; not all of them know it."""
    # the two usual ones by name: before torch 2.13 the compiler can't ask whether they know it
    known = device in ("cpu", "cuda") or torch.amp.is_autocast_available(device)
    return known and torch.is_autocast_enabled(device)


def promoted(logits: Tensor, *others: Tensor | None) -> torch.dtype:
    """The dtype that arithmetic between these tensors gives, after autocast."""
    dtype = under_autocast(logits)
    for tensor in others:
        if tensor is not None:
            dtype = torch.promote_types(dtype, under_autocast(tensor))
    return dtype


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """float32 for half, bfloat16 and float32; float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(device: str) -> AbstractContextManager[None]:
    """What has chosen its own dtypes is not to be cast on the way."""
    return torch.autocast(device, enabled=False) if autocast_enabled(device) else nullcontext()


def check_dtype(dtype: Any) -> None:
    """``dtype=`` asks for the dtype of the returned loss: a floating-point one, or None."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in _FLOATS):
        raise mistake(
            TypeError,
            "dtype",
            expected="torch.float16, bfloat16, float32 or float64, or None",
            got=str(dtype) if isinstance(dtype, torch.dtype) else described(dtype),
            remedy="It is the dtype of the returned loss.",
        )

"""May the logits be overwritten by their gradient?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.contract.errors import described, mistake, shape


def check_inplace_backward(inplace_backward: Any, logits: Tensor) -> None:
    """Logits that a user still holds as a parameter, or that overlap themselves, are kept."""
    if not isinstance(inplace_backward, bool):
        raise mistake(
            TypeError, "inplace_backward", expected="a bool", got=described(inplace_backward)
        )
    if not inplace_backward or torch.compiler.is_compiling():
        return
    owner = logits if logits._base is None else logits._base
    if owner.is_leaf and owner.requires_grad:
        raise mistake(
            RuntimeError,
            "inplace_backward",
            expected="logits that were computed, as by a layer",
            got="a leaf that requires grad, or a view of one",
            remedy="Its values would be lost. Leave inplace_backward=False.",
        )
    if _overlaps(logits):
        raise mistake(
            RuntimeError,
            "inplace_backward",
            expected="logits with memory of their own for each element",
            got=f"shape {shape(logits)} with strides {tuple(logits.stride())}",
            remedy="Leave inplace_backward=False.",
        )


def _overlaps(tensor: Tensor) -> bool:
    """True if two elements may share their memory, as in what ``expand`` and ``unfold`` return."""
    extent = 1
    axes = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, size in sorted(axis for axis in axes if axis[1] > 1):
        if stride < extent:
            return True
        extent += stride * (size - 1)
    return False

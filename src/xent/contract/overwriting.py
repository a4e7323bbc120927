"""May the logits be overwritten by their gradient?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.contract.errors import described, mistake


def check_inplace_backward(inplace_backward: Any, logits: Tensor) -> None:
    """Logits that a user still holds as a parameter, or that overlap themselves, are kept."""
    if not isinstance(inplace_backward, bool):
        raise mistake(
            TypeError, "inplace_backward", expected="a bool", got=described(inplace_backward)
        )
    if not inplace_backward or torch.compiler.is_compiling():
        return
    if logits.is_leaf and logits.requires_grad:
        raise mistake(
            RuntimeError,
            "inplace_backward",
            expected="logits that were computed, as by a layer",
            got="a leaf that requires grad",
            remedy="Its values would be lost. Leave inplace_backward=False.",
        )
    if any(
        size > 1 and step == 0 for size, step in zip(logits.shape, logits.stride(), strict=True)
    ):
        raise mistake(
            RuntimeError,
            "inplace_backward",
            expected="logits with memory of their own for each element",
            got=f"an expanded tensor of strides {tuple(logits.stride())}",
            remedy="Leave inplace_backward=False.",
        )

"""What the binary loss accepts: labels of the logits' shape, factors that broadcast to it."""

from __future__ import annotations

import torch
from torch import Tensor

from xent.contract.dtypes import under_autocast
from xent.contract.errors import described, mistake, require_same_device, require_tensor, shape
from xent.contract.remedies import for_order


def check_labels(target: Tensor, logits: Tensor) -> None:
    """Binary labels have the logits' shape, any real dtype, and live beside them."""
    require_tensor("target", target)
    if target.shape != logits.shape:
        same_count = target.numel() == logits.numel()
        raise mistake(
            ValueError,
            "target",
            expected=f"one label per logit, the shape of input, {shape(logits)}",
            got=f"shape {shape(target)}",
            remedy=for_order(tuple(target.shape), tuple(logits.shape))
            if same_count
            else "For one label among several classes use cross_entropy.",
        )
    if target.is_complex():
        raise mistake(RuntimeError, "target", expected="real labels", got=str(target.dtype))
    require_same_device("target", target, logits, f"Move it: target.to({str(logits.device)!r}).")


def check_factor(name: str, factor: Tensor | None, logits: Tensor) -> None:
    """A factor broadcasts to the logits' shape without making it larger."""
    if factor is None:
        return
    require_tensor(name, factor)
    if factor.is_complex():
        raise mistake(RuntimeError, name, expected="real factors", got=described(factor))
    if not _broadcasts(tuple(factor.shape), tuple(logits.shape)):
        raise mistake(
            RuntimeError,
            name,
            expected=f"a shape that broadcasts to that of input, {shape(logits)}",
            got=f"shape {shape(factor)}",
            remedy="One factor per class goes with classes on the last axis; "
            "insert axes of size 1 for the others.",
        )
    require_same_device(
        name,
        factor,
        logits,
        "In a Module, pass it to the constructor: it is a buffer there and moves with .to().",
    )


def result_dtype(logits: Tensor, target: Tensor) -> torch.dtype:
    """Torch returns the dtype of floating-point labels, and float32 for halves under autocast."""
    return under_autocast(target if target.is_floating_point() else logits)


def _broadcasts(factor: tuple[int, ...], logits: tuple[int, ...]) -> bool:
    if len(factor) > len(logits):
        return False
    trailing = logits[len(logits) - len(factor) :]
    # Not `size in (1, whole)`: dynamo's symbolic sizes are equal, not identical.
    return all(size == 1 or size == whole for size, whole in zip(factor, trailing, strict=True))

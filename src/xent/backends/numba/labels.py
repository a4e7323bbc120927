"""A last look at labels: they were checked, but the memory behind them may have changed since."""

from __future__ import annotations

from typing import Any

from xent.backends.numba.compilation import kernel


@kernel
def check_label(y: int, classes: int) -> None:
    """Raises before memory is touched that is not the logits'."""
    if not 0 <= y < classes:
        raise IndexError(
            "target: expected the labels that were checked; got one out of bounds. "
            "Were they overwritten since the forward pass?"
        )


@kernel
def check_labels(target: Any, start: int, count: int, classes: int) -> None:
    """The same for neighbouring positions."""
    for i in range(start, start + count):
        check_label(target[i], classes)

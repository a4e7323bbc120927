"""How every message is built: the argument, what was expected, what came, what to do."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

E = TypeVar("E", bound=Exception)


def mistake(kind: type[E], argument: str, *, expected: str, got: str, remedy: str = "") -> E:
    """Builds the exception for a wrong argument. ``kind`` is the type torch raises for it."""
    message = f"{argument}: expected {expected}; got {got}."
    return kind(f"{message} {remedy}" if remedy else message)


def described(value: Any) -> str:
    """A value in the words of a message: a tensor by dtype and shape, anything else by repr."""
    if isinstance(value, Tensor):
        return f"a {plain(value.dtype)} tensor of shape {shape(value)}"
    return f"{value!r} of type {type(value).__name__}"


def plain(dtype: torch.dtype) -> str:
    """``torch.int64`` as ``int64``."""
    return str(dtype).removeprefix("torch.")


def shape(value: Tensor | tuple[int, ...] | torch.Size) -> str:
    """A shape as ``(2, 3)``."""
    return str(tuple(value.shape if isinstance(value, Tensor) else value))


def require_tensor(argument: str, value: Any) -> None:
    """A list or a number where a tensor belongs is a ``TypeError``, as in torch."""
    if not isinstance(value, Tensor):
        raise mistake(
            TypeError,
            argument,
            expected="a Tensor",
            got=described(value),
            remedy=f"Wrap it: torch.as_tensor({argument}).",
        )


def require_same_device(argument: str, value: Tensor, logits: Tensor, remedy: str) -> None:
    """Every tensor of one call lives where the logits live."""
    if value.device != logits.device:
        raise mistake(
            RuntimeError,
            argument,
            expected=f"a tensor on {logits.device}, where input is",
            got=f"one on {value.device}",
            remedy=remedy,
        )

"""How every message is built: the argument, what was expected, what came, what to do."""

from __future__ import annotations

import numbers
import reprlib
from typing import Any, TypeVar

import torch
from torch import Tensor

from xent.contract.inspection import is_distributed

E = TypeVar("E", bound=Exception)


def mistake(kind: type[E], argument: str, *, expected: str, got: str, remedy: str = "") -> E:
    """Builds the exception for a wrong argument. ``kind`` is the type torch raises for it."""
    message = f"{argument}: expected {expected}; got {got}."
    return kind(f"{message} {remedy}" if remedy else message)


def described(value: Any) -> str:
    """A value in the words of a message: a tensor by dtype and shape, anything else by repr."""
    if isinstance(value, Tensor):
        dtype = plain(value.dtype)
        return f"{'an' if dtype.startswith('int') else 'a'} {dtype} tensor of shape {shape(value)}"
    return f"{reprlib.repr(value)} of type {type(value).__name__}"


def plain(dtype: torch.dtype) -> str:
    """``torch.int64`` as ``int64``."""
    return str(dtype).removeprefix("torch.")


def shape(value: Tensor | tuple[int, ...] | torch.Size) -> str:
    """A shape as ``(2, 3)``."""
    return str(tuple(value.shape if isinstance(value, Tensor) else value))


def as_number(value: Any) -> float | None:
    """A real number of Python or numpy, or None for anything else; a bool is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return float(value) if isinstance(value, numbers.Real) else None


def require_tensor(argument: str, value: Any) -> None:
    """A list or a number where a tensor belongs is a ``TypeError``, as in torch."""
    if isinstance(value, Tensor):
        return
    remedy = ""
    if isinstance(getattr(value, "logits", None), Tensor):
        remedy = f"Pass the logits of this output: {argument}.logits."
    elif isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
        remedy = f"Pass the tensor that holds them, or torch.stack({argument})."
    elif isinstance(value, int | float | list | tuple) or hasattr(value, "__array__"):
        remedy = f"Wrap it: torch.as_tensor({argument})."
    raise mistake(TypeError, argument, expected="a Tensor", got=described(value), remedy=remedy)


def require_same_device(argument: str, value: Tensor, logits: Tensor, remedy: str) -> None:
    """Every tensor of one call lives where the logits live, on a mesh only if they do."""
    if is_distributed(value) and not is_distributed(logits):
        raise mistake(
            TypeError,
            argument,
            expected="a plain tensor, since input is one",
            got="a DTensor",
            remedy=f"Pass {argument}.to_local() or {argument}.full_tensor().",
        )
    if is_distributed(logits) and not is_distributed(value):
        raise mistake(
            TypeError,
            argument,
            expected="a DTensor, since input is one",
            got=described(value),
            remedy="Or pass input.to_local(), and group= if the classes are sharded.",
        )
    if value.device != logits.device:
        raise mistake(
            RuntimeError,
            argument,
            expected=f"a tensor on {logits.device}, where input is",
            got=f"one on {value.device}",
            remedy=remedy,
        )

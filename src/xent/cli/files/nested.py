"""Lists of lists of numbers as tensors, and where in them something is wrong."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xent.cli.arrays import class_names
from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake

DEEPEST = 8  # axes; more is a mistake in every loss


def tensor(value: Any, name: str, *, whole: bool = False) -> Tensor:
    """Turns a number, or lists of them, into a float64 tensor; int64 if whole and all are ints."""
    shape: list[int] = []
    level: Sequence[Any] = [value]
    while level and isinstance(level[0], list | tuple):
        if len(shape) == DEEPEST:
            raise mistake(
                BadInput, name, expected=f"at most {DEEPEST} axes", got="lists in deeper lists"
            )
        for place, item in enumerate(level):
            _require_length(item, len(level[0]), f"{name}{_index(place, shape)}")
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    for place, item in enumerate(level):
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise mistake(
                BadInput, f"{name}{_index(place, shape)}", expected="a number", got=_called(item)
            )
    whole = whole and all(isinstance(item, int) for item in level)
    try:
        array = np.array(level, np.int64 if whole else np.float64)
    except OverflowError as error:
        raise mistake(
            BadInput, name, expected="integers of 64 bits, or floats", got="a larger integer"
        ) from error
    return torch.from_numpy(array.reshape(shape))


def names(value: Any, name: str) -> tuple[str, ...]:
    """Turns a list of strings into class names."""
    if not isinstance(value, list | tuple):
        raise mistake(BadInput, name, expected="a list of strings", got=_called(value))
    for place, item in enumerate(value):
        if not isinstance(item, str):
            raise mistake(BadInput, f"{name}[{place}]", expected="a string", got=_called(item))
    return class_names(value, name)


def _require_length(item: Any, length: int, name: str) -> None:
    expected = f"a list of {length} values, as in the first one"
    if not isinstance(item, list | tuple):
        raise mistake(BadInput, name, expected=expected, got=_called(item))
    if len(item) != length:
        raise mistake(BadInput, name, expected=expected, got=f"one of {len(item)}")


def _index(place: int, shape: Sequence[int]) -> str:
    """The place of an element, counted over all lists, as ``[2][0]``."""
    index = ""
    for length in reversed(shape):
        place, last = divmod(place, length)
        index = f"[{last}]{index}"
    return index


def _called(value: Any) -> str:
    """What stands where a number or a name was expected, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | float):
        return reprlib.repr(value)
    known = {list: "a list", tuple: "a list", dict: "an object", int: "an integer"}
    return known.get(type(value), f"a {type(value).__name__}")

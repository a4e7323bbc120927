"""Names of classes, and places of rows, as a user gives them."""

from __future__ import annotations

import math
import operator
from typing import Any

from xent.contract.errors import described, mistake


def checked_names(names: Any, count: int, *, of: str = "class") -> tuple[str, ...] | None:
    """One name for each class, as strings; None numbers them."""
    if names is None:
        return None
    expected = f"one name for each {of}, {count} in all"
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise mistake(TypeError, "class_names", expected=expected, got=described(names))
    words = tuple(str(name) for name in names)
    if len(words) != count:
        raise mistake(ValueError, "class_names", expected=expected, got=f"{len(words)} names")
    return words


def place_of(row: Any, shape: tuple[int, ...]) -> int:
    """A row as its number in memory order; a tuple is an index into the positions' shape."""
    count = math.prod(shape)
    several = isinstance(row, tuple | list)
    indices = tuple(row) if several else (row,)
    sizes = shape if several else (count,)
    try:
        indices = tuple(operator.index(index) for index in indices)
    except TypeError:
        raise mistake(
            TypeError, "row", expected="an int, a tuple of ints, or None", got=described(row)
        ) from None
    inside = all(-size <= index < size for index, size in zip(indices, sizes, strict=False))
    if len(indices) != len(sizes) or not inside:
        raise mistake(
            IndexError,
            "row",
            expected=f"a position of {shape}" if several else f"a number below {count}",
            got=str(row),
            remedy="There is no position to explain." if not count else "",
        )
    place = 0
    for index, size in zip(indices, sizes, strict=True):
        place = place * size + index % size
    return place

"""Numbers, class names, targets and positions as they are typed in."""

from __future__ import annotations

import csv
import math
import os
import re
import reprlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake

SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
# Control characters, lone surrogates and separators of lines: a terminal obeys them, or cannot
# encode them. Invisible joiners (Cf) stay: emoji and several scripts are written with them.
UNSHOWABLE = {"Cc", "Cs", "Zl", "Zp"}


def shown(name: str | Path) -> str:
    """A name in one line that a terminal does not obey: as it is, or escaped."""
    text = os.fspath(name)
    return text if text.isprintable() else repr(text)


def number(text: str) -> float | None:
    """A number as people and programs write it, or None; one too large for float64 is None."""
    plain = text.strip().replace("−", "-")
    if "_" in plain:  # Python reads 1_000, nobody else does
        return None
    try:
        value = float(plain)
    except ValueError:
        return None
    overflown = math.isinf(value) and any(letter.isdigit() for letter in plain)
    return None if overflown else value


def integer(text: str) -> int | None:
    """A whole number that int64 holds, or None."""
    plain = text.strip().replace("−", "-")
    if not re.fullmatch(r"[+-]?\d{1,19}", plain):
        return None
    value = int(plain)
    return value if -(2**63) <= value < 2**63 else None


def numbers(text: str, *, argument: str = "numbers") -> list[float]:
    """Reads numbers that commas, semicolons or spaces separate.

    Args:
        text: For example ``1.2, 3.1, -inf 1e-3``. ``inf``, ``nan`` and the minus sign − are read.
        argument: What a message calls the text.

    Returns:
        At least one number.

    Raises:
        BadInput: If a value is missing or is no number; the line says which.

    Example:
        >>> numbers("1.2, 3.1; -inf 1e-3")
        [1.2, 3.1, -inf, 0.001]
    """
    values = []
    for place, part in enumerate(SEPARATOR.split(text.strip()), start=1):
        value = number(part)
        if value is None:
            raise mistake(
                BadInput,
                argument,
                expected="numbers such as 1.5, 1e-3 or -inf, separated by commas or spaces",
                got=f"{reprlib.repr(part)} as value {place}" if part else f"no value {place}",
            )
        values.append(value)
    return values


def words(text: str, *, argument: str = "names") -> tuple[str, ...]:
    """Reads class names that commas separate; a name in double quotes may hold a comma.

    Args:
        text: For example ``cat,dog,"bird, small"``.
        argument: What a message calls the text.

    Returns:
        The names, without the spaces around them.

    Raises:
        BadInput: If a name is empty, there twice or not fit for a terminal, or a quote stays open.

    Example:
        >>> words('cat, dog, "bird, small"')
        ('cat', 'dog', 'bird, small')
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise mistake(
            BadInput,
            argument,
            expected="class names separated by commas",
            got=reprlib.repr(text),
            remedy='Is a double quote left open? A name in quotes may hold commas: cat,"a, b".',
        ) from error
    return class_names(rows[0] if rows else [], argument)


def class_names(names: Sequence[str], argument: str) -> tuple[str, ...]:
    """Checks names of classes, however they came, and strips the spaces around them."""
    stripped = tuple(name.strip() for name in names)
    seen: dict[str, int] = {}
    for place, name in enumerate(stripped, start=1):
        got = None
        if not name:
            got = f"no name {place}"
        elif any(unicodedata.category(letter) in UNSHOWABLE for letter in name):
            got = f"control characters in name {place}, {reprlib.repr(name)}"
        elif name in seen:
            got = f"{reprlib.repr(name)} as names {seen[name]} and {place}"
        if got:
            raise mistake(BadInput, argument, expected="a different name for each class", got=got)
        seen[name] = place
    if not stripped:
        raise mistake(BadInput, argument, expected="a name for each class", got="none")
    return stripped


def class_index(text: str, names: Sequence[str], argument: str) -> int | None:
    """The class that an index or a name stands for, or None; a negative index stays one."""
    index = integer(text)
    if text not in names:
        return index
    named = names.index(text)
    if index is None or index == named:
        return named
    raise mistake(
        BadInput,
        argument,
        expected="one class",
        got=f"{text}, an index, and also the name of class {named}",
        remedy="Give the names letters, or leave them away.",
    )


def target_of(text: str, names: Sequence[str] | None, classes: int) -> Tensor:
    """Reads a target: a class or, with more than one value, probabilities.

    Args:
        text: An index such as ``0``, a negative value to ignore such as ``-100``, a class name,
            or as many probabilities as there are classes, ``0.7,0.2,0.1``.
        names: The names of the classes, if they have any.
        classes: How many classes there are.

    Returns:
        A scalar of int64, or probabilities ``(C)`` of float64. What they add up to is not checked.

    Raises:
        BadInput: If the text is none of these.

    Example:
        >>> target_of("dog", ("cat", "dog"), 2), target_of("0.7 0.3", None, 2).tolist()
        (tensor(1), [0.7, 0.3])
    """
    plain = text.strip()
    index = class_index(plain, names or (), "target")
    if index is not None and index < classes:
        return torch.tensor(index)
    parts = SEPARATOR.split(plain)
    values = [value for value in map(number, parts) if value is not None and math.isfinite(value)]
    if index is None and len(values) == len(parts) == classes:
        return torch.tensor(values, dtype=torch.float64)
    many = len(values) == len(parts) > 1
    raise mistake(
        BadInput,
        "target",
        expected=_targets(names, classes),
        got=f"{len(values)} values" if many else reprlib.repr(plain),
    )


def _targets(names: Sequence[str] | None, classes: int) -> str:
    """What a target may be, in the words of a message."""
    ways = [f"an index 0..{classes - 1}", "a negative value to ignore"]
    if names:
        few = ", ".join(reprlib.repr(name) for name in names[:5])
        ways.append(f"a name ({few}{', …' if len(names) > 5 else ''})")
    return f"{', '.join(ways)} or {classes} probabilities"


def position(text: str) -> int | tuple[int, ...]:
    """Reads which position is meant: ``3``, or ``2,5,7`` where positions have several axes.

    Args:
        text: Whole numbers separated by commas, semicolons or spaces. A negative one counts from
            the end, if the caller lets it.

    Returns:
        One number as it is, several as a tuple.

    Raises:
        BadInput: If a value is no whole number.

    Example:
        >>> position("3"), position("2,5,7")
        (3, (2, 5, 7))
    """
    values = [integer(part) for part in SEPARATOR.split(text.strip())]
    whole = tuple(value for value in values if value is not None)
    if len(whole) < len(values):
        raise mistake(
            BadInput,
            "position",
            expected="a whole number, or one for each axis, such as 2,5,7",
            got=reprlib.repr(text),
        )
    return whole[0] if len(whole) == 1 else whole

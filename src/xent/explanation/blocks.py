"""What a report is made of, and how numbers are written in it. Renderers draw blocks, no more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MINUS = "−"
TARGET, REST, TOTAL, PLAIN = "target", "rest", "total", ""
"""Roles of a table's row: a class of the label, all that is not shown, the sum, any other."""


@dataclass(frozen=True)
class Heading:
    """A line above a part of the report."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class Formula:
    """A line of mathematics, or several below each other."""

    text: str


@dataclass(frozen=True)
class Code:
    """Python that runs as it stands."""

    text: str


@dataclass(frozen=True)
class Bar:
    """A bar between zero and a value in [−1, 1]; left out where it can't be drawn."""

    value: float
    signed: bool = False
    """Zero is in the middle of the column, not at its left end."""

    @property
    def span(self) -> tuple[float, float]:
        """Where it begins and ends, in [0, 1] of the column."""
        value = min(max(self.value, -1.0), 1.0) if math.isfinite(self.value) else 0.0
        if not self.signed:
            return 0.0, max(value, 0.0)
        return min(0.5, 0.5 + value / 2), max(0.5, 0.5 + value / 2)


Cell = str | Bar


@dataclass(frozen=True)
class Row:
    """The cells of one line, and the role of the line."""

    cells: tuple[Cell, ...]
    role: str = PLAIN


@dataclass(frozen=True)
class Table:
    """Lines of cells under headers; the first column is words, the others are numbers or bars."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[Row, ...]
    optional: tuple[int, ...] = ()
    """Columns to leave out where there is no room, the first one first; bars go before them."""

    def bars(self) -> list[bool]:
        """Which columns hold bars."""
        columns = zip(*(row.cells for row in self.rows), strict=True)
        return [any(isinstance(cell, Bar) for cell in column) for column in columns]


Block = Heading | Paragraph | Formula | Code | Table


def number(value: float) -> str:
    """Four decimals, or the power of ten where they would say too little."""
    if not math.isfinite(value):
        return _not_finite(value)
    return _scientific(value) or signed(f"{value:.4f}")


def short(value: float) -> str:
    """As in a sentence: four digits and no trailing zeros."""
    if not math.isfinite(value):
        return _not_finite(value)
    if _is_extreme(value):
        return _scientific(value)
    if abs(value) < 1:
        return signed(f"{value:.4f}".rstrip("0").rstrip("."))
    return signed(f"{value:.5g}")


def signed(text: str) -> str:
    """Text of a number with a minus sign in place of a hyphen, and no sign at zero."""
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", MINUS)


def vector(values: Iterable[float]) -> str:
    """Numbers in parentheses."""
    return f"({', '.join(map(short, values))})"


def visible(text: str) -> str:
    """A user's text in one line, without what a terminal would obey instead of showing."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def placed(position: tuple[int, ...]) -> str:
    """A position as people write it: ``3``, or ``(2, 5)`` where there are more axes."""
    return str(position[0]) if len(position) == 1 else str(position)


def counted(count: int, word: str, plural: str = "") -> str:
    """``1 class``, ``2 classes``."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _is_extreme(value: float) -> bool:
    return abs(value) >= 1e5 or 0 < abs(value) < 5e-4


def _scientific(value: float) -> str:
    """Three digits and the power of ten, where four decimals would say too little or too much."""
    if not _is_extreme(value):
        return ""
    digits, power = f"{value:.2e}".split("e")
    return signed(f"{digits}e{int(power)}")


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "∞" if value > 0 else f"{MINUS}∞"

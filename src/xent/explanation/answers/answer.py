"""An answer, and what its authors need: the row, its classes, and a record of what they quote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xent.explanation.blocks import Block, Code, Heading, short
from xent.explanation.drawn import Drawn
from xent.explanation.source import RowSource
from xent.explanation.trace import ClassTrace, RowTrace

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation


@dataclass(frozen=True)
class Answer(Drawn):
    """A question answered with one explanation's numbers; draws itself as an explanation does."""

    question: str
    title: str
    body: tuple[Block, ...]
    numbers: dict[str, float]
    """Every number of the words, by what it is."""

    def blocks(self) -> tuple[Block, ...]:
        """The title and the body."""
        return (Heading(self.title, 1), *self.body)

    @property
    def python(self) -> str:
        """The lines of Python of the answer; they run, and leave their result in ``result``."""
        return "\n".join(block.text for block in self.body if isinstance(block, Code))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the question, the words as text, the numbers, the Python."""
        return {
            "question": self.question,
            "title": self.title,
            "text": self.to_text(),
            "numbers": dict(self.numbers),
            "python": self.python,
        }


@dataclass
class Quotes:
    """Writes numbers into sentences and remembers them by name."""

    numbers: dict[str, float] = field(default_factory=dict)

    def __call__(self, name: str, value: float) -> str:
        """The number as it stands in a sentence."""
        self.numbers[name] = value
        return short(value)

    def all(self, name: str, values: Iterable[float]) -> list[str]:
        """Several, ``name 0``, ``name 1`` and so on."""
        return [self(f"{name} {n}", value) for n, value in enumerate(values)]

    def vector(self, name: str, values: Iterable[float]) -> str:
        """Several in parentheses."""
        return f"({', '.join(self.all(name, values))})"


@dataclass(frozen=True)
class Case:
    """What an answer talks about: the row, the class of its label, and the likeliest other."""

    told: Explanation
    row: RowTrace
    source: RowSource
    right: ClassTrace
    rival: ClassTrace | None


def case_of(told: Explanation) -> Case:
    """The row of an explanation, which ``why`` has made sure of."""
    row, source = told.row, told.source
    if row is None or source is None:
        raise LookupError("an explanation without a row has nothing to talk about")
    labelled = row.target_classes
    right = labelled[0] if labelled else max(row.classes, key=lambda c: c.p)
    others = [c for c in row.classes if c.index != right.index]
    return Case(told, row, source, right, max(others, key=lambda c: c.p, default=None))

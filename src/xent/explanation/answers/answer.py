"""An answer, and what its authors need: the row, its classes, and a record of what they quote."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xent.explanation.blocks import (
    REST,
    Block,
    Code,
    Heading,
    Paragraph,
    Row,
    number,
    short,
    visible,
)
from xent.explanation.drawn import Drawn
from xent.explanation.source import RowSource
from xent.explanation.trace import ClassTrace, Rest, RowTrace

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

    def vector(self, name: str, values: Iterable[float], rest: Rest | None = None) -> str:
        """Several in parentheses; it says so if there are others."""
        others = f", … and {self('others', rest.classes)} others" if rest else ""
        return f"({', '.join(self.all(name, values))}{others})"


@dataclass(frozen=True)
class Case:
    """What an answer talks about: the row, the class of its label, and the likeliest other."""

    told: Explanation
    row: RowTrace
    source: RowSource
    right: ClassTrace
    rival: ClassTrace | None

    def called(self, c: ClassTrace) -> str:
        """A class in a sentence."""
        return visible(self.source.called(c.index))

    def rest_row(self, values: Callable[[Rest], tuple[float | None, ...]]) -> list[Row]:
        """The line of a table for the classes that are not shown, if there are any."""
        rest = self.row.rest
        if rest is None:
            return []
        cells = ("" if value is None else number(value) for value in values(rest))
        return [Row((f"{rest.classes:,} others", *cells), REST)]

    @property
    def aside(self) -> tuple[Block, ...]:
        """What an answer about a certain and plain label leaves out of this one."""
        told, notes = self.told, []
        if self.right.label != 1:
            notes.append(
                f"Your label is not all at one class: this speaks of {self.called(self.right)} as "
                "if it were, and your gradient is the mixture of such ones."
            )
        if told.options.weighted or told.options.label_smoothing or told.options.sample_weighted:
            notes.append(
                "Your weights and your smoothing, which scale and mix this, are left out here: "
                'ask "weights" and "smoothing".'
            )
        return tuple(Paragraph(f"({note})") for note in notes)


def case_of(told: Explanation) -> Case:
    """The row of an explanation, which ``why`` has made sure of."""
    row, source = told.row, told.source
    if row is None or source is None:
        raise LookupError("an explanation without a row has nothing to talk about")
    labelled = row.target_classes
    right = labelled[0] if labelled else max(row.classes, key=lambda c: c.p)
    others = [c for c in row.classes if c.index != right.index]
    return Case(told, row, source, right, max(others, key=lambda c: c.p, default=None))

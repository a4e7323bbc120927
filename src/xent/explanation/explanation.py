"""The explanation of one call: a trace, and everything that can be made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xent.explanation.answers.answer import Answer
from xent.explanation.blocks import Block
from xent.explanation.drawn import Drawn
from xent.explanation.row import Extent
from xent.explanation.source import Inputs, RowSource
from xent.explanation.trace import BatchTrace, Options, RowTrace
from xent.explanation.why import answer


@dataclass(frozen=True)
class Explanation(Drawn):
    """One call of a loss, taken apart: ``xent.explain`` makes it.

    ``print`` it, let a notebook show it, or write it as text, Markdown, HTML, JSON or Python;
    ``why(question)`` answers in words with its numbers. Losses are in nats.

    Example:
        >>> import xent
        >>> told = xent.explain([[2.0, 1.0, 0.0]], [0], class_names=["cat", "dog", "bird"])
        >>> cat = told.row.classes[0]
        >>> cat.name, round(cat.p, 4), round(cat.gradient, 4)
        ('cat', 0.6652, -0.3348)
        >>> print(told.to_text().splitlines()[0])
        Cross-entropy over 3 classes: the label is cat
    """

    kind: str
    """``"index"`` or ``"probabilities"``, by the target; or ``"binary"``."""
    class_count: int
    options: Options
    batch: BatchTrace
    row: RowTrace | None
    """The position that was asked for; None leaves only the batch."""
    source: RowSource | None = field(repr=False, compare=False)
    """What the row was traced from."""
    extent: Extent = field(repr=False, compare=False)
    inputs: Inputs = field(repr=False, compare=False)
    """The arguments of the call."""

    def blocks(self) -> tuple[Block, ...]:
        """The report: the row from logits to gradient, the batch, and landmarks of the loss."""
        from xent.explanation.report import report

        return report(self)

    def why(self, question: str) -> Answer:
        """Answers one of ``xent.explanation.QUESTIONS`` with the numbers of this explanation.

        Raises:
            ValueError: a question that is not among them, or one about a row without a row.

        Example:
            >>> import xent
            >>> told = xent.explain([[2.0, 1.0, 0.0]], [0])
            >>> print(told.why("log-softmax").title)
            Why log-softmax, and not the logarithm of softmax?
        """
        return answer(self, question)

    def to_dict(self) -> dict[str, Any]:
        """Plain data of the documented schema; numbers that JSON lacks are strings."""
        from xent.explanation.document import as_dict

        return as_dict(self)

    def to_json(self, indent: int | None = None) -> str:
        """``to_dict`` as a JSON document."""
        from xent.explanation.document import as_json

        return as_json(self, indent)

    def to_python(self) -> str:
        """A few lines of plain torch that compute the same numbers."""
        from xent.explanation.code import as_python

        return as_python(self)

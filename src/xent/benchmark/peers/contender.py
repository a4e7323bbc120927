"""What the benchmark asks of a peer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from xent.benchmark.timing import Program
from xent.benchmark.truth import Answer


class UnavailableError(Exception):
    """A peer can't run here; the message says why, and what to do where something can be done."""


class Contender(Program, Protocol):
    """A peer with the data of one case in one mode, compiled if it compiles."""

    def answer(self, rows: Tensor) -> Answer:
        """The loss of the last run and, if there is one, the gradient of these rows."""


def first_line(error: Exception) -> str:
    """An error of someone else's, short enough for a table's note."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__

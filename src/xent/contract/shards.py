"""A part of the classes: what one rank holds when a classifier is cut by vocabulary."""

from __future__ import annotations

from typing import Final, NamedTuple

from xent.contract.errors import mistake


class Shard(NamedTuple):
    """The classes [start, stop) of all ``classes``."""

    start: int
    stop: int
    classes: int

    @property
    def size(self) -> int:
        """How many these are."""
        return self.stop - self.start

    @property
    def is_known(self) -> bool:
        """False for ``UNKNOWN``."""
        return self is not UNKNOWN


UNKNOWN: Final = Shard(0, 0, 1 << 62)
"""Before the other ranks have said how many classes they hold: any label may be one."""


def check_partition(ranges: tuple[tuple[int, int], ...]) -> None:
    """The ranks' ranges [start, stop) are all classes from 0 on, each once. Empty ones fit in.

    The same ranges give the same error on every rank.
    """
    expected = "ranges that follow each other from 0 on, without a gap and without an overlap"
    remedy = "Each class belongs to exactly one rank; a rank may hold none."
    for rank, (start, stop) in enumerate(ranges):
        if not 0 <= start <= stop:
            got = f"({start}, {stop}) on rank {rank}"
            raise mistake(ValueError, "classes", expected=expected, got=got, remedy=remedy)
    end, before = 0, "the start"
    held = [(start, stop, rank) for rank, (start, stop) in enumerate(ranges) if start < stop]
    for start, stop, rank in sorted(held):
        if start != end:
            kind, these = ("a gap", (end, start)) if start > end else ("an overlap", (start, end))
            got = f"{kind}, classes {these[0]}..{these[1] - 1}, between {before} and rank {rank}"
            raise mistake(ValueError, "classes", expected=expected, got=got, remedy=remedy)
        end, before = stop, f"rank {rank}"

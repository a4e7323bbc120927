"""Some rows at a time: their hidden states and their labels, ignored rows left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from xent.contract.dtypes import accumulation, without_autocast
from xent.contract.inspection import values_at_hand
from xent.contract.rows import LinearRows
from xent.statistics.dispatch import dispatch_of

Selection = slice | Tensor
"""Neighbouring rows, or the numbers of some."""


# How many tensors of the size of a chunk's logits are held at a time, by what is done with it:
# the peak of resident memory over that size, without the gradients that are handed out.
KERNELS = 1
"""Logits, overwritten by their gradient. Probabilities of some rows only are gathered: 2 to 3."""
DEFINITION = 4
"""Exponentials and masks beside them, for class indices, whose chunks should be long: 5.3 with
smoothing or predictions, 6.3 with probabilities, and where only some of a row's positions count,
1 to 2 more."""
LABEL_GRADIENTS = 10
"""At class weights 5.3 to 6.3, at probabilities 6.3 to 9.3."""
ENTROPY_GRADIENT = 10
"""Alone 6 to 7, with the gradients at probabilities 6.5 to 10."""
DIFFERENTIATED = 15
"""The definition in torch's hands: forward mode 7 to 14.3, second derivatives up to 13.4."""


class CountingRows:
    """The rows that count; all, where one may not look which do."""

    def __init__(self, rows: LinearRows) -> None:
        self.rows = rows
        self.kept: Tensor | None = None
        if rows.valid is not None and values_at_hand(rows.valid):
            self.kept = rows.valid.any(1).nonzero().squeeze(1)
        self.count = len(rows.hidden if self.kept is None else self.kept)

    def selections(self, length: int) -> Iterator[Selection]:
        """So many rows at a time, with autocast off while they are worked on."""
        with without_autocast(self.rows.hidden.device.type):
            for start in range(0, self.count, length):
                stop = min(start + length, self.count)
                yield slice(start, stop) if self.kept is None else self.kept[start:stop]

    def hidden(self, selection: Selection) -> Tensor:
        """Hidden states, in the dtype that is multiplied in."""
        hidden = self.rows.hidden.detach()[selection].to(self.rows.kind)
        if self.rows.valid is None or self.kept is not None:
            return hidden
        return zeroed_rows(hidden, self.rows.valid[selection])

    def labels(self, selection: Selection) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Class indices, probabilities, and which positions count."""
        rows = self.rows
        all_count = self.kept is not None and rows.inner == 1
        valid = None if all_count else rows.valid
        target, probabilities, valid = taken((rows.target, rows.probabilities, valid), selection)
        return target, probabilities, valid


def chunk_length(rows: LinearRows, count: int, held: int) -> int:
    """How many rows the budget allows, evened out over as many chunks as are needed.

    A multiple of 16 where there is room: all chunks' vectors then begin where kernels like to read.
    """
    most = rows_within(rows, rows.classes, held)
    chunks = max(1, -(-count // most))
    return max(1, min(most, -(-count // (16 * chunks)) * 16))


def rows_within(rows: LinearRows, classes: int, held: int) -> int:
    """For how many rows the budget allows logits of so many classes, one at least."""
    if dispatch_of(rows.hidden).backend == "torch":
        held = max(held, DEFINITION)
    itemsize = accumulation(rows.kind).itemsize if held > KERNELS else rows.kind.itemsize
    return max(1, rows.chunk_bytes // max(1, classes * rows.inner * itemsize * held))


def zeroed_rows(hidden: Tensor, valid: Tensor) -> Tensor:
    """Hidden states, with zeros where no position counts: 0·NaN would reach the classifier."""
    return hidden.masked_fill(~valid.any(1, keepdim=True), 0)


def taken(vectors: Sequence[Tensor | None], selection: Selection) -> list[Tensor | None]:
    """What belongs to the selected rows."""
    return [None if vector is None else vector[selection] for vector in vectors]


def put(
    whole: Sequence[Tensor | None], selection: Selection, part: Sequence[Tensor | None]
) -> None:
    """Writes what is now known of the selected rows."""
    for vector, values in zip(whole, part, strict=True):
        if vector is not None and values is not None:
            vector[selection] = values

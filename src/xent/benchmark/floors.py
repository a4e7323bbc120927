"""The least that a loss must do with memory: read what it is given, write the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xent.benchmark.cases import Labels, Mode
from xent.benchmark.data import Data


@dataclass(frozen=True)
class Floor:
    """Reads and writes of logits-sized tensors, in the order in which they happen."""

    reads: tuple[Tensor, ...]
    copy: tuple[Tensor, Tensor] | None
    """From where, and into which memory, mapped already."""

    def run(self) -> None:
        """Every read as ``sum``, the write as ``copy_``."""
        for tensor in self.reads:
            tensor.sum()
        if self.copy is not None:
            source, mapped = self.copy
            mapped.copy_(source)

    def release(self) -> None:
        """Nothing to let go of."""


def floor_of(data: Data, mode: Mode) -> Floor | None:
    """The floor of a case, or None where the overhead of a call hides it.

    Forward reads everything once. Backward needs the sum of a whole row before it can write the
    first entry, so it reads everything a second time, and writes the gradient.
    """
    if not data.case.is_large:
        return None
    given = [_as_words(data.logits)]
    if data.case.labels is Labels.PROBABILITIES:
        given.append(_as_words(data.target))
    if mode is Mode.FORWARD:
        return Floor(tuple(given), None)
    logits, *others = given
    # zeros would map every page to the same empty one
    return Floor((*given, *others), (logits, torch.empty_like(logits).fill_(1)))


def _as_words(tensor: Tensor) -> Tensor:
    """The same bytes as float32: a sum in bfloat16 waits for arithmetic, not for memory."""
    return tensor.detach().view(-1).view(torch.float32)

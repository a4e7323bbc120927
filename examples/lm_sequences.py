"""Sequences: documents cut to length, what is to be predicted, and in which order they are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100
"""The label behind the end of a document; the losses' ``ignore_index``."""


class Sequences(NamedTuple):
    """``[S, L]`` each."""

    inputs: Tensor
    labels: Tensor
    """The token that follows, or ``IGNORED``."""

    def valid(self) -> int:
        """How many labels count."""
        return int((self.labels != IGNORED).sum())

    def take(self, rows: Tensor) -> Sequences:
        """Some of them."""
        return Sequences(self.inputs[rows], self.labels[rows])

    def split(self, size: int) -> list[Sequences]:
        """So many at a time."""
        pairs = zip(*(torch.split(tensor, size) for tensor in self), strict=True)
        return [Sequences(*pair) for pair in pairs]


def shifted(tokens: Tensor, context: int, start: int, padding: int) -> Sequences:
    """One document, cut: the only place where inputs and labels are moved against each other.

    The inputs are start, t1, …, t(n−1) and the labels t1, …, tn: every token of the document is
    predicted exactly once, from those before it in its sequence. The last sequence is padded.
    """
    inputs = torch.cat((tokens.new_tensor([start]), tokens[:-1]))
    rest = -len(tokens) % context
    return Sequences(
        torch.nn.functional.pad(inputs, (0, rest), value=padding).view(-1, context),
        torch.nn.functional.pad(tokens, (0, rest), value=IGNORED).view(-1, context),
    )


def sequences_of(documents: Sequence[Tensor], context: int, start: int, padding: int) -> Sequences:
    """All documents, one after the other; no sequence holds two."""
    cut = [shifted(tokens, context, start, padding) for tokens in documents]
    return Sequences(torch.cat([c.inputs for c in cut]), torch.cat([c.labels for c in cut]))


def drawn(sequences: Sequences, count: int, seed: int) -> Iterator[Sequences]:
    """So many sequences a step, for ever: each once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < count:
            order = torch.randperm(len(sequences.inputs), generator=generator)
            waiting = torch.cat((waiting, order))
        yield sequences.take(waiting[:count])
        waiting = waiting[count:]

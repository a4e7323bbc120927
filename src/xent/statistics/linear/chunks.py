"""Gradients, a few rows at a time, and statistics on the way.

The logits of a chunk are made, read, overwritten by their gradient and multiplied, in one buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.dtypes import accumulation
from xent.contract.rows import Beyond, Coefficients, LinearRows, Rows, Vectors
from xent.statistics.dispatch import RowBackend, backend_for
from xent.statistics.linear import tiles
from xent.statistics.linear.products import Products, add_product
from xent.statistics.linear.selections import (
    ENTROPY_GRADIENT,
    KERNELS,
    LABEL_GRADIENTS,
    CountingRows,
    Selection,
    chunk_length,
    put,
    taken,
)
from xent.statistics.linear.terms import Gradients, LinearCoefficients, Statistics, Wanted
from xent.statistics.masses import Masses
from xent.statistics.memory import reused


def statistics_of(rows: LinearRows, uniform: bool, predicted: bool = False) -> Statistics:
    """The statistics: one matrix product."""
    if not uniform and rows.probabilities is None:
        return tiles.statistics_of(rows, predicted)
    sweep = _Sweep(rows, Wanted(), rows.hidden.dtype, KERNELS)
    found = Statistics.zeros(rows, uniform, predicted)
    for chunk in sweep.chunks():
        vectors = chunk.backend.statistics(chunk.rows, uniform)
        put(found.vectors, chunk.selection, vectors)
        if predicted:
            put(found[1:], chunk.selection, chunk.backend.prediction(chunk.rows, vectors))
    return found


def gradients_of(
    rows: LinearRows,
    entropy: Tensor | None,
    coefficients: LinearCoefficients,
    wanted: Wanted,
    beyond: Beyond | None = None,
) -> Gradients:
    """The gradients at the statistics: three matrix products, the first for the second time.

    Maximum and sum are taken of these logits, not remembered: another order of the same product
    may differ in a last digit, and all digits of a confident prediction are in the difference
    between a logit and the maximum. ``beyond`` has what these classes are not alone with.
    """
    held = LABEL_GRADIENTS if wanted.of_labels else KERNELS
    if coefficients.entropy is not None:
        held = ENTROPY_GRADIENT
    sweep = _Sweep(rows, wanted, rows.hidden.dtype, held)
    for chunk in sweep.chunks():
        vectors = chunk.backend.statistics(chunk.rows, with_uniform=False)
        if beyond is not None:
            vectors = Beyond(*taken(beyond, chunk.selection)).seen_by(vectors)  # type: ignore[arg-type]  # as they were
        these = LinearCoefficients(
            Coefficients(*taken(coefficients.of_rows, chunk.selection)),
            *taken((coefficients.entropy,), chunk.selection),
        )
        sweep.add(chunk, vectors, these, *taken((entropy,), chunk.selection))
    return sweep.gradients


def both_of(rows: LinearRows, masses: Masses, wanted: Wanted) -> tuple[Statistics, Gradients]:
    """Statistics, and the gradient of their weighed sum: three matrix products.

    The gradients are yet to be scaled: none is rounded here.
    """
    sweep = _Sweep(rows, wanted, accumulation(rows.kind), KERNELS)
    found = Statistics.zeros(rows, masses.uniform is not None, predicted=False)
    coefficients = masses.coefficients(found.vectors)
    for chunk in sweep.chunks():
        vectors = chunk.backend.statistics(chunk.rows, masses.uniform is not None)
        put(found.vectors, chunk.selection, vectors)
        these = LinearCoefficients(Coefficients(*taken(coefficients, chunk.selection)))
        sweep.add(chunk, vectors, these, None)
    return found, sweep.gradients


class _Chunk(NamedTuple):
    """Some rows while their logits are there."""

    selection: Selection
    hidden: Tensor
    """Their hidden states, gathered, and in the dtype that is multiplied in."""
    rows: Rows
    backend: RowBackend


class _Sweep:
    """The buffer, the sums, and how a chunk comes to its logits."""

    def __init__(self, rows: LinearRows, wanted: Wanted, at_hidden: torch.dtype, held: int) -> None:
        self.rows = rows
        self.wanted = wanted
        self.products = Products(rows)
        self.counting = CountingRows(rows)
        self.length = chunk_length(rows, self.counting.count, held)
        size = (min(self.length, self.counting.count), len(rows.classifier))
        self.buffer = reused(size, rows.kind, rows.hidden.device)
        with_gaps = self.counting.kept is not None
        self.gradients = _gradients(rows, wanted, at_hidden, with_gaps=with_gaps)

    def chunks(self) -> Iterator[_Chunk]:
        """One after the other, each in the memory of the one before."""
        return map(self._chunk, self.counting.selections(self.length))

    def _chunk(self, selection: Selection) -> _Chunk:
        rows = self.rows
        hidden = self.counting.hidden(selection)
        logits = self.buffer[: len(hidden)]
        self.products.logits(hidden, logits)
        target, probabilities, valid = self.counting.labels(selection)
        chunk = Rows(
            logits.view(len(hidden), rows.classes, rows.inner),
            target, probabilities, rows.weight, valid,
        )  # fmt: skip
        return _Chunk(selection, hidden, chunk, backend_for(*chunk))

    def add(
        self,
        chunk: _Chunk,
        vectors: Vectors,
        coefficients: LinearCoefficients,
        entropy: Tensor | None,
    ) -> None:
        """Adds what a chunk has to say to the gradients. Its logits are gone afterwards."""
        rows, gradients, of_rows = chunk.rows, self.gradients, coefficients.of_rows
        if self.wanted.of_labels:
            at_q, at_weight = definition.label_gradients(rows, vectors, of_rows)
            if gradients.probabilities is not None and at_q is not None:
                gradients.probabilities[chunk.selection] = at_q
            if gradients.weight is not None and at_weight is not None:
                gradients.weight.add_(at_weight)
        if not self.wanted.of_logits:
            return
        of_entropy = None
        if coefficients.entropy is not None and entropy is not None:
            of_entropy = definition.entropy_gradient(rows, vectors, entropy, coefficients.entropy)
        at_logits = chunk.backend.logit_gradient(rows, vectors, of_rows, inplace=True)
        if of_entropy is not None:
            at_logits += of_entropy
        self._multiply(chunk, at_logits.reshape(len(at_logits), -1))

    def _multiply(self, chunk: _Chunk, at_logits: Tensor) -> None:
        gradients, selection = self.gradients, chunk.selection
        if gradients.bias is not None:
            gradients.bias.add_(at_logits.sum(0, dtype=gradients.bias.dtype))
        if gradients.classifier is not None:
            add_product(gradients.classifier, at_logits.t(), chunk.hidden)
        if gradients.hidden is not None:
            wide = torch.promote_types(gradients.hidden.dtype, at_logits.dtype)
            if isinstance(selection, slice) and gradients.hidden.dtype == wide:
                self.products.at_input(at_logits, gradients.hidden[selection])
            else:
                size = (len(at_logits), gradients.hidden.shape[1])
                part = at_logits.new_empty(size, dtype=wide)
                self.products.at_input(at_logits, part)
                gradients.hidden[selection] = part.to(gradients.hidden.dtype)


def _gradients(
    rows: LinearRows, wanted: Wanted, at_hidden: torch.dtype, *, with_gaps: bool
) -> Gradients:
    """Where the gradients will be; ``with_gaps`` if not every row is written."""
    kind = accumulation(rows.kind)
    hidden, classifier, bias, _, probabilities, weight, _ = rows.tensors

    def place(
        tensor: Tensor | None, wanted: bool, dtype: torch.dtype, from_zero: bool
    ) -> Tensor | None:
        if tensor is None or not wanted:
            return None
        held = reused(tensor.shape, dtype, tensor.device)
        return held.zero_() if from_zero or with_gaps else held

    return Gradients(
        place(hidden, wanted.hidden, at_hidden, from_zero=False),
        place(classifier, wanted.classifier, kind, from_zero=True),
        place(bias, wanted.bias, kind, from_zero=True),
        None
        if probabilities is None
        else place(probabilities, wanted.probabilities, probabilities.dtype, from_zero=False),
        place(weight, wanted.weight, kind, from_zero=True),
    )

"""The language of this room: what is known of rows, what is asked for, what comes back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xent.contract.dtypes import accumulation
from xent.contract.rows import Coefficients, LinearRows, Prediction, Vectors


class Statistics(NamedTuple):
    """What is known of the rows; ``[outer, inner]`` each."""

    vectors: Vectors
    entropy: Tensor | None = None
    argmax: Tensor | None = None

    @property
    def prediction(self) -> Prediction | None:
        """The last two, if they were asked for."""
        if self.entropy is None or self.argmax is None:
            return None
        return Prediction(self.entropy, self.argmax)

    @classmethod
    def zeros(cls, rows: LinearRows, uniform: bool, predicted: bool) -> Statistics:
        """What is true of rows that do not count."""
        kind = accumulation(rows.kind)

        def vector(wanted: bool = True) -> Tensor | None:
            size = (rows.hidden.shape[0], rows.inner)
            return rows.hidden.new_zeros(size, dtype=kind) if wanted else None

        wanted = (True, True, rows.target is not None, uniform, rows.probabilities is not None)
        vectors = Vectors(*map(vector, wanted))  # type: ignore[arg-type]  # two are always there
        argmax = torch.full_like(vectors.rest, -1, dtype=torch.int64) if predicted else None
        return cls(vectors, vector(predicted), argmax)


class LinearCoefficients(NamedTuple):
    """The gradients at the statistics, and at the entropy."""

    of_rows: Coefficients
    entropy: Tensor | None = None


class Wanted(NamedTuple):
    """Of which tensors of ``LinearRows`` the gradient is asked for."""

    hidden: bool = False
    classifier: bool = False
    bias: bool = False
    probabilities: bool = False
    weight: bool = False

    @property
    def of_logits(self) -> bool:
        """Whether the gradient at the logits is needed."""
        return self.hidden or self.classifier or self.bias

    def at(self, coefficients: LinearCoefficients) -> Wanted:
        """Without the probabilities, where nothing that depends on them has a gradient."""
        there = coefficients.of_rows.cross is not None
        return self._replace(probabilities=self.probabilities and there)

    @property
    def of_labels(self) -> bool:
        """Whether that at the labels or at the class weights is."""
        return self.probabilities or self.weight


class Gradients(NamedTuple):
    """The gradients that were wanted, None for the others; sums in the statistics' precision."""

    hidden: Tensor | None = None
    classifier: Tensor | None = None
    bias: Tensor | None = None
    probabilities: Tensor | None = None
    weight: Tensor | None = None

"""Row statistics of logits, and of hidden states, whose classes are spread over ranks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.rows import LINEAR_TENSORS, Beyond, Coefficients, LinearRows, Rows, Vectors
from xent.statistics.dispatch import backend_for
from xent.statistics.linear import chunks
from xent.statistics.linear.derivatives import at_rows, wanted_of
from xent.statistics.linear.terms import LinearCoefficients
from xent.statistics.shards.collectives import replicated
from xent.statistics.shards.derivatives import Found, RowKind, statistics
from xent.statistics.shards.parts import Part


def canonical_statistics(
    rows: Rows, part: Part, *, uniform: bool = False, inplace_backward: bool = False
) -> Found:
    """Statistics of checked, canonical rows: two all-reduces, and none in the backward."""
    gradients = partial(_gradients, inplace=inplace_backward)
    return statistics(RowKind(Rows, len(rows), _statistics, gradients), rows, part, uniform)


def canonical_linear_statistics(rows: LinearRows, part: Part, *, uniform: bool = False) -> Found:
    """The same for hidden states, which all ranks have, and a part of the classifier.

    One all-reduce more in the backward, for the gradient at the hidden states.
    """
    rows = rows._replace(hidden=replicated(rows.hidden, part.group))
    kind = RowKind(LinearRows, LINEAR_TENSORS, _linear_statistics, _linear_gradients)
    return statistics(kind, rows, part, uniform)


def _statistics(rows: Rows, uniform: bool) -> Vectors:
    return backend_for(*rows).statistics(rows, uniform)


def _gradients(
    rows: Rows,
    mass: Tensor | None,
    beyond: Beyond,
    coefficients: Coefficients,
    needed: tuple[bool, ...],
    *,
    inplace: bool,
) -> tuple[Tensor | None, ...]:
    vectors = Vectors(beyond.maximum, beyond.rest, beyond.nll, mass=mass)
    at_logits = at_probabilities = at_weight = None
    if needed[2] or needed[3]:
        labels = definition.label_gradients(rows, vectors, coefficients)
        at_probabilities, at_weight = labels
    if needed[0]:
        backend = backend_for(*rows, *coefficients)
        at_logits = backend.logit_gradient(rows, vectors, coefficients, inplace=inplace)
        if inplace:  # autograd refuses a later use of what was overwritten
            torch.autograd.graph.increment_version(rows.logits)
    return at_logits, None, at_probabilities, at_weight, None


def _linear_statistics(rows: LinearRows, uniform: bool) -> Vectors:
    return chunks.statistics_of(rows, uniform).vectors


def _linear_gradients(
    rows: LinearRows,
    mass: Tensor | None,
    beyond: Beyond,
    coefficients: Coefficients,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    del mass  # it is found again with the logits
    of_rows = LinearCoefficients(coefficients)
    wanted = wanted_of(needed).at(of_rows)
    found = chunks.gradients_of(rows, None, of_rows, wanted, beyond)
    return at_rows(found, rows)[:LINEAR_TENSORS]

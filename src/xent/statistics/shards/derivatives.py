"""The derivatives of statistics over ranks: no word to another rank, what is saved is enough.

The loss is the same on all ranks, and so is the gradient that comes back from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xent.contract.rows import Beyond, Coefficients, LinearRows, Rows, Vectors
from xent.contract.weights import zeroed
from xent.statistics.shards.parts import (
    Part,
    check_last_backward,
    joined_over,
    labels_of,
    own_coefficients,
    own_of,
)


class RowKind(NamedTuple):
    """How a kind of rows comes to its statistics and gradients, with its own classes only."""

    rows: Callable[..., Any]
    """Rows from what they consist of."""
    tensors: int
    """How many of these are tensors or None; they come first."""
    statistics: Callable[[Any, bool], Vectors]
    gradients: Callable[..., tuple[Tensor | None, ...]]
    """(rows, own mass, beyond, coefficients, which are needed) to those at the tensors."""


class Found(NamedTuple):
    """What the ranks know together."""

    vectors: Vectors
    weight_of_label: Tensor | None
    """v_y with class indices and class weights, Σ_c v_c q_c with probabilities."""


def statistics(kind: RowKind, rows: Rows | LinearRows, part: Part, uniform: bool) -> Found:
    """The statistics, with their backward."""
    *vectors, weight = _Statistics.apply(kind, part, uniform, *rows)  # type: ignore[no-untyped-call]  # torch's
    return Found(Vectors(*vectors), weight)


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kind: RowKind, part: Part, uniform: bool, *of_rows: Any
    ) -> tuple[Any, ...]:
        rows = kind.rows(*of_rows)
        labels = labels_of(rows, part.shard)
        if labels is not None:
            rows = rows._replace(target=labels.place)
        vectors = kind.statistics(rows, uniform)
        found = joined_over(own_of(rows, vectors, labels), part, rows.valid, labels)
        ctx.kind, ctx.numbers = kind, of_rows[kind.tensors :]
        constants = [found.vectors.maximum]
        at_masses = (3 + rows._fields.index(name) for name in ("weight", "probabilities"))
        if found.weight_of_label is not None and not any(
            ctx.needs_input_grad[i] for i in at_masses
        ):
            constants.append(found.weight_of_label)  # else a divisor would have a gradient, of zero
        ctx.mark_non_differentiable(*constants)
        ctx.set_materialize_grads(False)
        beyond = (found.vectors.maximum, found.rest, found.nll, found.at_top)
        elsewhere = (found.spread_elsewhere, found.mass_elsewhere)
        here = None if labels is None else labels.here
        ctx.save_for_backward(*rows[: kind.tensors], here, vectors.mass, *beyond, *elsewhere)
        return *found.vectors.statistics, found.weight_of_label

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        check_last_backward()
        kind, saved = ctx.kind, ctx.saved_tensors
        rows = kind.rows(*saved[: kind.tensors], *ctx.numbers)
        here, mass, *of_beyond = saved[kind.tensors : -2]
        beyond = Beyond(*of_beyond)
        _, at_rest, *others, at_weight_of_label = grads
        at_lse = None if at_rest is None else at_rest * (1 + beyond.rest)
        coefficients = own_coefficients(Coefficients(at_lse, *others), here, *saved[-2:])
        needed = ctx.needs_input_grad[3:]
        found = kind.gradients(rows, mass, beyond, coefficients, needed)
        if at_weight_of_label is not None:
            found = _with_weight_of_label(found, rows, here, at_weight_of_label, needed)
        return None, None, None, *found, *(None for _ in ctx.numbers)


def _with_weight_of_label(
    gradients: tuple[Tensor | None, ...],
    rows: Rows | LinearRows,
    here: Tensor | None,
    grad: Tensor,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Adds what the class weights of the labels have to say to the weights, and to the labels."""
    found, grad = list(gradients), zeroed(grad, rows.valid)
    at_weight, at_labels = (rows._fields.index(name) for name in ("weight", "probabilities"))
    weight, probabilities = rows.weight, rows.probabilities
    if weight is not None and needed[at_weight]:
        if probabilities is not None:
            mass = _inert(probabilities, rows.valid).to(grad.dtype)
            summed = torch.einsum("ocl,ol->c", mass, grad)
        else:
            assert rows.target is not None  # else nothing was weighed
            assert here is not None
            own = grad.masked_fill(~here, 0).flatten()
            summed = grad.new_zeros(len(weight))
            if len(weight):
                summed.index_add_(0, rows.target.flatten(), own)
        found[at_weight] = _sum(found[at_weight], summed.to(weight.dtype))
    if probabilities is not None and needed[at_labels]:
        each = grad.unsqueeze(1).expand_as(probabilities)
        each = each if weight is None else each * weight.to(grad.dtype).reshape(1, -1, 1)
        found[at_labels] = _sum(found[at_labels], each.to(probabilities.dtype))
    return tuple(found)


def _sum(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first + second


def _inert(probabilities: Tensor, valid: Tensor | None) -> Tensor:
    """Without what stands in rows that do not count: 0·NaN would be NaN."""
    return probabilities if valid is None else probabilities.masked_fill(~valid.unsqueeze(1), 0)

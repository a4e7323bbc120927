"""Derivatives of what is computed a chunk of logits at a time.

``statistics`` can be put to any use, so that its gradient has to make the logits again: four
matrix products in all. ``total`` is one number, Σ mass · statistic, whose gradient is known up
to a factor once the statistics are: three products, and the factor comes with the backward. Both
are differentiated again by the definition, chunk by chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.contract.inspection import is_transformed
from xent.contract.reduction import summed
from xent.contract.rows import LINEAR_TENSORS, Coefficients, LinearRows, Vectors
from xent.statistics.linear import chunks, definition
from xent.statistics.linear.terms import Gradients, LinearCoefficients, Statistics, Wanted
from xent.statistics.masses import Masses, at_mass, weighed

ROWS = len(LinearRows._fields)


def statistics(rows: LinearRows, uniform: bool, predicted: bool) -> Statistics:
    """The statistics, with their backward."""
    found = _Statistics.apply(*rows, uniform, predicted)  # type: ignore[no-untyped-call]  # torch's
    return as_statistics(found)


def total(rows: LinearRows, masses: Masses, wanted: Wanted) -> Tensor:
    """Σ mass · statistic over all positions; ``wanted`` says what backward will ask for."""
    found: Tensor = _Total.apply(*rows, *masses, wanted)  # type: ignore[no-untyped-call]  # torch's
    return found


def as_statistics(found: tuple[Any, ...]) -> Statistics:
    """The outputs of a function or operator as what they are."""
    *vectors, entropy, argmax = found
    return Statistics(Vectors(*vectors), entropy, argmax)


def coefficients_of(grads: tuple[Tensor | None, ...], rest: Tensor) -> LinearCoefficients:
    """The gradients at ``Statistics``, as the backward gets them, as coefficients."""
    _, at_rest, at_nll, at_uniform, at_cross, at_entropy, _ = grads
    at_lse = None if at_rest is None else at_rest * (1 + rest)
    return LinearCoefficients(Coefficients(at_lse, at_nll, at_uniform, at_cross), at_entropy)


class _Statistics(torch.autograd.Function):
    """All statistics in reverse mode; forward mode differentiates the definition."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor | None, ...]:
        rows, (uniform, predicted) = LinearRows(*arguments[:ROWS]), arguments[ROWS:]
        way = definition if _transformed(*rows.tensors) else chunks
        found = way.statistics_of(rows, uniform, predicted)
        return *found.vectors.statistics, found.entropy, found.argmax

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        rows = LinearRows(*inputs[:ROWS])
        maximum, rest, _, _, _, entropy, argmax = output
        ctx.mark_non_differentiable(maximum, *(() if argmax is None else (argmax,)))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*rows.tensors, rest, entropy)
        ctx.numbers = rows[LINEAR_TENSORS:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, rest, entropy = ctx.saved_tensors
        rows = LinearRows(*tensors, *ctx.numbers)
        coefficients = coefficients_of(grads, rest)
        wanted = wanted_of(ctx.needs_input_grad).at(coefficients)
        again = torch.is_grad_enabled() or _transformed(*tensors, *grads)
        way = definition if again else chunks
        found = way.gradients_of(rows, entropy, coefficients, wanted)
        return *at_rows(found, rows), None, None


class _Total(torch.autograd.Function):
    """A weighed sum and its gradient in one go; second derivatives by way of the statistics."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        rows, (*own, wanted) = LinearRows(*arguments[:ROWS]), arguments[ROWS:]
        masses = Masses(*own)
        found, gradients = chunks.both_of(rows, masses, wanted)
        losses = weighed(found.vectors, masses)
        statistics = found.vectors.of_labels, found.vectors.uniform
        of_masses = (m if isinstance(m, Tensor) else None for m in masses)
        ctx.save_for_backward(*rows.tensors, *of_masses, *statistics, *gradients[:3])
        ctx.numbers = rows[LINEAR_TENSORS:]
        ctx.masses = [None if isinstance(m, Tensor) else m for m in masses]
        return summed(losses)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, of_masses, statistics, sums = _split(ctx.saved_tensors, LINEAR_TENSORS, 2, 2, 3)
        rows = LinearRows(*tensors, *ctx.numbers)
        if torch.is_grad_enabled():
            numbers = zip(of_masses, ctx.masses, strict=True)
            masses = Masses(*(n if m is None else m for m, n in numbers))
            return *_differentiable(rows, masses, ctx.needs_input_grad, grad), None
        in_place = _ends_the_graph() and not _transformed(grad)  # nobody asks for these sums again
        scaled = (None if s is None else s.mul_(grad) if in_place else s * grad for s in sums)
        each = zip(of_masses, statistics, ctx.needs_input_grad[ROWS:-1], strict=True)
        at_masses = (at_mass(m, s) * grad if needed else None for m, s, needed in each)
        return *at_rows(Gradients(*scaled), rows), *at_masses, None


def _differentiable(
    rows: LinearRows, masses: Masses, needed: tuple[bool, ...], grad: Tensor
) -> list[Tensor | None]:
    """The gradients of the total as functions that can be differentiated again."""
    arguments: list[Any] = [*rows, *masses]
    asked = [i for i, of_this in enumerate(needed[: len(arguments)]) if of_this]
    with torch.enable_grad():
        for i in asked:  # hooks of the inputs are for the pass that is under way
            arguments[i] = arguments[i].view_as(arguments[i])
        own, own_masses = LinearRows(*arguments[:ROWS]), Masses(*arguments[ROWS:])
        found = statistics(own, masses.uniform is not None, predicted=False)
        value = summed(weighed(found.vectors, own_masses))
    at = torch.autograd.grad(value, [arguments[i] for i in asked], grad, create_graph=True)
    gradients: list[Tensor | None] = [None] * len(arguments)
    for i, gradient in zip(asked, at, strict=True):
        gradients[i] = gradient
    return gradients


def _ends_the_graph() -> bool:
    """True if the backward that is under way gives the graph up; in doubt it does not."""
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return keeps is not None and not keeps()


def wanted_of(needed: tuple[bool, ...]) -> Wanted:
    """What autograd needs of the tensors of ``LinearRows``, which come first."""
    hidden, classifier, bias, _, probabilities, weight, _ = needed[:LINEAR_TENSORS]
    return Wanted(hidden, classifier, bias, probabilities, weight)


def at_rows(gradients: Gradients, rows: LinearRows) -> tuple[Tensor | None, ...]:
    """The gradients at the fields of ``LinearRows``, each in the dtype of its tensor."""
    hidden, classifier, bias, probabilities, weight = gradients
    at = (hidden, classifier, bias, None, probabilities, weight, None)
    rounded = (
        None if gradient is None or tensor is None else gradient.to(tensor.dtype)
        for gradient, tensor in zip(at, rows.tensors, strict=True)
    )
    return *rounded, *(None for _ in rows[len(at) :])


def _split(tensors: tuple[Any, ...], *lengths: int) -> list[tuple[Any, ...]]:
    parts, at = [], 0
    for length in lengths:
        parts.append(tensors[at : at + length])
        at += length
    return parts


def _transformed(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and is_transformed(tensor) for tensor in tensors)

"""The derivatives of the row statistics: one gradient, written by hand, that serves them all."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.rows import Coefficients, Rows, Vectors
from xent.statistics.dispatch import backend_for


def differentiable_statistics(rows: Rows, uniform: bool, inplace_backward: bool) -> Vectors:
    """The statistics by whichever backend, with their backward."""
    vectors = _StatisticsFunction.apply(*rows, uniform, inplace_backward)  # type: ignore[no-untyped-call]  # torch's
    return Vectors(*vectors)


class LogitGradient(Protocol):
    """A backend's gradient at the logits."""

    def __call__(self, rows: Rows, vectors: Vectors, coefficients: Coefficients) -> Tensor:
        """Returns it in the logits' dtype."""
        ...


def keep(ctx: Any, rows: Rows, vectors: Vectors) -> None:
    """Saves what the gradients need: no tensor of the logits' size but the logits."""
    constants = (vectors.maximum, vectors.mass)
    ctx.mark_non_differentiable(*(v for v in constants if v is not None))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*rows, vectors.maximum, vectors.rest, vectors.nll, vectors.mass)


def gradients(
    ctx: Any, grads: tuple[Tensor | None, ...], logit_gradient: LogitGradient
) -> tuple[Tensor | None, ...]:
    """The gradients at the five tensors of ``Rows``, for gradients at the ``Vectors``."""
    *tensors, maximum, rest, nll, mass = ctx.saved_tensors
    rows, vectors = Rows(*tensors), Vectors(maximum, rest, nll, mass=mass)
    _, at_rest, *others, _ = grads
    coefficients = Coefficients(None if at_rest is None else at_rest * (1 + rest), *others)
    at_logits = at_probabilities = at_weight = None
    if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
        labels = definition.label_gradients(rows, vectors, coefficients)
        at_probabilities, at_weight = labels
    if ctx.needs_input_grad[0]:
        at_logits = logit_gradient(rows, vectors, coefficients)
    return at_logits, None, at_probabilities, at_weight, None


class _StatisticsFunction(torch.autograd.Function):
    """The primitive in reverse mode.

    There is no ``jvp``: torch drops the derivative of one, so that forward over forward mode
    would silently give zero. In forward mode the definition is differentiated instead.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor,
        index: Tensor | None,
        probabilities: Tensor | None,
        weight: Tensor | None,
        valid: Tensor | None,
        uniform: bool,
        inplace_backward: bool,
    ) -> tuple[Tensor | None, ...]:
        del inplace_backward  # the backward's
        rows = Rows(logits, index, probabilities, weight, valid)
        return tuple(backend_for(*rows).statistics(rows, uniform))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        *tensors, _, ctx.inplace = inputs
        keep(ctx, Rows(*tensors), Vectors(*output))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        def logit_gradient(rows: Rows, vectors: Vectors, coefficients: Coefficients) -> Tensor:
            if torch.is_grad_enabled():  # it is differentiated again: it must be the definition's
                _refuse_inplace(ctx.inplace)
                return definition.logit_gradient(rows, vectors, coefficients)
            backend = backend_for(*rows, *coefficients)
            gradient = backend.logit_gradient(rows, vectors, coefficients, inplace=ctx.inplace)
            if ctx.inplace:  # autograd refuses a later use of what was overwritten
                torch.autograd.graph.increment_version(rows.logits)
            return gradient

        return *gradients(ctx, grads, logit_gradient), None, None


def _refuse_inplace(inplace: bool) -> None:
    if inplace:
        raise RuntimeError(
            "inplace_backward: expected a backward without create_graph; got one that is to be "
            "differentiated again. The logits that second derivatives need would be overwritten."
        )


# Torch asks for the signature of forward at every call; it takes as long as the arithmetic of a
# small batch. inspect finds it here.
_signature = inspect.signature(_StatisticsFunction.forward)
_StatisticsFunction.forward.__signature__ = _signature  # type: ignore[attr-defined]  # inspect's

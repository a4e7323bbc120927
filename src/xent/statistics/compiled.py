"""The kernels under ``torch.compile``: opaque operators with shapes and derivatives.

The compiler can't look into a kernel; it is told what comes out of one (a fake kernel) and how it
is differentiated. Which backend runs is decided when the compiled code runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.dtypes import accumulation
from xent.contract.rows import Coefficients, Rows, Vectors
from xent.statistics.derivatives import gradients, keep
from xent.statistics.dispatch import backend_for

_Statistics = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def statistics(rows: Rows, with_uniform: bool) -> Vectors:
    """The statistics of rows; what was not asked for is None."""
    outputs = _statistics(*rows, with_uniform)
    wanted = _wanted(rows, with_uniform)
    return Vectors(*(v if w else None for v, w in zip(outputs, wanted, strict=True)))  # type: ignore[arg-type]  # two are always there


def _wanted(rows: Rows, with_uniform: bool) -> tuple[bool, ...]:
    """Which vectors there are; the mass is what the backends of other devices leave."""
    dense = rows.probabilities is not None
    with_mass = dense and rows.logits.device.type != "cpu"
    return True, True, rows.target is not None, with_uniform, dense, with_mass


@torch.library.custom_op("xent::row_statistics", mutates_args=())
def _statistics(
    logits: Tensor,
    target: Tensor | None,
    probabilities: Tensor | None,
    weight: Tensor | None,
    valid: Tensor | None,
    with_uniform: bool,
) -> _Statistics:
    """``Vectors``; operators return tensors only: an empty one stands for None."""
    rows = Rows(logits, target, probabilities, weight, valid)
    vectors = backend_for(logits).statistics(rows, with_uniform)
    wanted = _wanted(rows, with_uniform)
    if wanted[-1] and vectors.mass is None:
        vectors = vectors._replace(mass=definition.mass(rows, vectors))
    there = zip(vectors, wanted, strict=True)
    return tuple(v if v is not None and w else vectors.rest.new_empty(0) for v, w in there)  # type: ignore[return-value]  # six


@_statistics.register_fake
def _(
    logits: Tensor,
    target: Tensor | None,
    probabilities: Tensor | None,
    weight: Tensor | None,
    valid: Tensor | None,
    with_uniform: bool,
) -> _Statistics:
    rows = Rows(logits, target, probabilities, weight, valid)
    positions = (logits.shape[0], logits.shape[2])
    kind = accumulation(logits.dtype)
    *wanted, with_mass = _wanted(rows, with_uniform)
    return (  # type: ignore[return-value]  # six
        *(logits.new_empty(positions if there else (0,), dtype=kind) for there in wanted),
        logits.new_empty((2, *positions) if with_mass else (0,), dtype=kind),
    )


@torch.library.custom_op("xent::logit_gradient", mutates_args=())
def _logit_gradient(
    logits: Tensor,
    target: Tensor | None,
    probabilities: Tensor | None,
    weight: Tensor | None,
    valid: Tensor | None,
    maximum: Tensor,
    rest: Tensor,
    nll: Tensor | None,
    mass: Tensor | None,
    of_lse: Tensor | None,
    of_nll: Tensor | None,
    of_uniform: Tensor | None,
    of_cross: Tensor | None,
) -> Tensor:
    rows = Rows(logits, target, probabilities, weight, valid)
    coefficients = Coefficients(of_lse, of_nll, of_uniform, of_cross)
    vectors = Vectors(maximum, rest, nll, mass=mass)
    gradient = backend_for(logits).logit_gradient(rows, vectors, coefficients)
    return gradient.contiguous()  # the layout that the fake kernel promises


@_logit_gradient.register_fake
def _(logits: Tensor, *others: Any) -> Tensor:
    del others
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Statistics) -> None:
    keep(ctx, Rows(*inputs[:-1]), Vectors(*output))


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    def logit_gradient(rows: Rows, vectors: Vectors, coefficients: Coefficients) -> Tensor:
        nll = None if rows.target is None else vectors.nll
        mass = vectors.mass if vectors.mass is not None and vectors.mass.numel() else None
        gradient: Tensor = _logit_gradient(
            *rows, vectors.maximum, vectors.rest, nll, mass, *coefficients
        )
        return gradient

    present = (g if g is None or g.numel() else None for g in grads)
    return *gradients(ctx, tuple(present), logit_gradient), None


_statistics.register_autograd(_backward, setup_context=_setup_context)

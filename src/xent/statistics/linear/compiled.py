"""Chunks under ``torch.compile``: opaque operators with shapes and derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.contract.dtypes import accumulation
from xent.contract.reduction import summed
from xent.contract.rows import LINEAR_TENSORS, Coefficients, LinearRows
from xent.statistics.linear import chunks
from xent.statistics.linear.derivatives import as_statistics, coefficients_of
from xent.statistics.linear.terms import LinearCoefficients, Statistics, Wanted
from xent.statistics.masses import Masses, at_mass, weighed

ARGUMENTS = (
    "Tensor hidden, Tensor classifier, Tensor? bias, Tensor? target, Tensor? probabilities, "
    "Tensor? weight, Tensor? valid, SymInt inner, ScalarType kind, SymInt chunk_bytes"
)
"""``LinearRows`` in the schema of an operator, whose first arguments they are."""

# Operators return tensors only: an empty one stands for None.


def statistics(rows: LinearRows, uniform: bool, predicted: bool) -> Statistics:
    """The statistics; what was not asked for is None."""
    outputs = _statistics(*rows, uniform, predicted)
    wanted = _present(rows, uniform, predicted)
    return as_statistics(tuple(v if w else None for v, w in zip(outputs, wanted, strict=True)))


def total(rows: LinearRows, masses: Masses, wanted: Wanted) -> Tensor:
    """Σ mass · statistic over all positions."""
    labels, uniform = (
        mass
        if mass is None or isinstance(mass, Tensor)
        else rows.hidden.new_full((), mass, dtype=accumulation(rows.kind))
        for mass in masses
    )
    value: Tensor = _total(*rows, labels, uniform, *wanted[:3])[0]
    return value


def _present(rows: LinearRows, uniform: bool, predicted: bool) -> tuple[bool, ...]:
    """Which outputs are no stand-ins."""
    index, dense = rows.target is not None, rows.probabilities is not None
    return True, True, index, uniform, dense, predicted, predicted


@torch.library.custom_op(
    "xent::linear_row_statistics",
    mutates_args=(),
    schema=f"({ARGUMENTS}, bool uniform, bool predicted)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _statistics(*arguments: Any) -> tuple[Tensor, ...]:
    """``Statistics``, flat."""
    rows, (uniform, predicted) = _rows_first(arguments)
    found = chunks.statistics_of(rows, uniform, predicted)
    return _all_there((*found.vectors.statistics, found.entropy, found.argmax), found.vectors.rest)


@_statistics.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    rows, (uniform, predicted) = _rows_first(arguments)
    size = (rows.hidden.shape[0], rows.inner)
    *floats, argmax = _present(rows, uniform, predicted)
    kind = accumulation(rows.kind)
    return (
        *(rows.hidden.new_empty(size if there else (0,), dtype=kind) for there in floats),
        rows.hidden.new_empty(size if argmax else (0,), dtype=torch.int64 if argmax else kind),
    )


@torch.library.custom_op(
    "xent::linear_gradients",
    mutates_args=(),
    schema=f"({ARGUMENTS}, Tensor? entropy, Tensor? of_lse, Tensor? of_nll, Tensor? of_uniform, "
    "Tensor? of_cross, Tensor? of_entropy, bool[] wanted)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _gradients(*arguments: Any) -> tuple[Tensor, ...]:
    """``Gradients``, in the dtypes of what they are gradients at."""
    rows, (entropy, *of_rows, of_entropy, wanted) = _rows_first(arguments)
    coefficients = LinearCoefficients(Coefficients(*of_rows), of_entropy)
    found = chunks.gradients_of(rows, entropy, coefficients, Wanted(*wanted))
    at = zip(found, _differentiated(rows), strict=True)
    like = rows.hidden.new_empty(0, dtype=accumulation(rows.kind))
    return _all_there(tuple(None if g is None or t is None else g.to(t.dtype) for g, t in at), like)


@_gradients.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    rows, (*_, wanted) = _rows_first(arguments)
    at = zip(_differentiated(rows), wanted, strict=True)
    return tuple(
        tensor.new_empty(tensor.shape)
        if tensor is not None and asked
        else rows.hidden.new_empty(0, dtype=accumulation(rows.kind))
        for tensor, asked in at
    )


@torch.library.custom_op(
    "xent::linear_total",
    mutates_args=(),
    schema=f"({ARGUMENTS}, Tensor of_labels, Tensor? of_uniform, bool at_hidden, "
    "bool at_classifier, bool at_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _total(*arguments: Any) -> tuple[Tensor, ...]:
    """The sum, the two statistics that it is made of, and its gradients at the first three."""
    rows, (of_labels, of_uniform, *wanted) = _rows_first(arguments)
    masses = Masses(*(_mass(mass, rows) for mass in (of_labels, of_uniform)))  # type: ignore[arg-type]  # one is there
    found, gradients = chunks.both_of(rows, masses, Wanted(*wanted))
    labels, uniform = found.vectors.of_labels, found.vectors.uniform
    value = summed(weighed(found.vectors, masses))
    return (value, *_all_there((labels, uniform, *gradients[:3]), value))


def _mass(mass: Tensor | None, rows: LinearRows) -> Tensor | None:
    """One number for all positions as a number for each."""
    return None if mass is None else mass.expand(rows.hidden.shape[0], rows.inner)


@_total.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    rows, (_, of_uniform, *wanted) = _rows_first(arguments)
    kind = accumulation(rows.kind)
    size = (rows.hidden.shape[0], rows.inner)
    at = zip(rows.tensors[:3], wanted, strict=True)
    return (
        rows.hidden.new_empty((), dtype=kind),
        rows.hidden.new_empty(size, dtype=kind),
        rows.hidden.new_empty((0,) if of_uniform is None else size, dtype=kind),
        *(
            rows.hidden.new_empty(t.shape if t is not None and asked else (0,), dtype=kind)
            for t, asked in at
        ),
    )


def _keep_for_statistics(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, _ = _rows_first(inputs)
    maximum, rest, _, _, _, entropy, argmax = output
    ctx.mark_non_differentiable(maximum, argmax)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*rows.tensors, rest, entropy)
    ctx.numbers = rows[LINEAR_TENSORS:]


def _statistics_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, rest, entropy = ctx.saved_tensors
    rows = LinearRows(*tensors, *ctx.numbers)
    given = tuple(g if g is None or g.numel() else None for g in grads)
    of_rows, of_entropy = coefficients_of(given, rest)
    needed = ctx.needs_input_grad
    dense = needed[4] and of_rows.cross is not None
    wanted = [needed[0], needed[1], needed[2], dense, needed[5]]
    found = _gradients(
        *rows, None if of_entropy is None else entropy, *of_rows, of_entropy, wanted,
    )  # fmt: skip
    at_hidden, at_classifier, at_bias, at_dense, at_weight = (
        gradient if asked else None for gradient, asked in zip(found, wanted, strict=True)
    )
    beyond = (None for _ in needed[LINEAR_TENSORS:])
    return at_hidden, at_classifier, at_bias, None, at_dense, at_weight, None, *beyond


def _keep_for_total(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    first = len(LinearRows._fields)
    ctx.save_for_backward(*inputs[first : first + 2], *output[1:])
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs[:3]]


def _total_backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    of_labels, of_uniform, labels, uniform, *sums = ctx.saved_tensors
    needed, first = ctx.needs_input_grad, len(LinearRows._fields)
    at_rows = (
        (s * grad).to(dtype) if asked else None
        for s, asked, dtype in zip(sums, needed[:3], ctx.dtypes, strict=True)
    )
    each = ((of_labels, labels), (of_uniform, uniform))
    asked_of = zip(each, needed[first : first + 2], strict=True)
    at_masses = (at_mass(*of) * grad if asked else None for of, asked in asked_of)
    return *at_rows, *(None for _ in needed[3:first]), *at_masses, None, None, None


def _rows_first(arguments: tuple[Any, ...]) -> tuple[LinearRows, tuple[Any, ...]]:
    """The arguments of an operator: rows, and what it wants to know beside them."""
    count = len(LinearRows._fields)
    return LinearRows(*arguments[:count]), arguments[count:]


def _differentiated(rows: LinearRows) -> tuple[Tensor | None, ...]:
    """The tensors of ``Wanted``."""
    return rows.hidden, rows.classifier, rows.bias, rows.probabilities, rows.weight


def _all_there(tensors: tuple[Tensor | None, ...], like: Tensor) -> tuple[Any, ...]:
    return tuple(like.new_empty(0) if tensor is None else tensor for tensor in tensors)


_statistics.register_autograd(_statistics_backward, setup_context=_keep_for_statistics)
_total.register_autograd(_total_backward, setup_context=_keep_for_total)

"""Kernels for classes that lie a stride apart, with positions as neighbours in memory: images.

Each lane is a position. The classes of a group of positions, a wide vector of them, are gone
through several times, from the cache after the first. [start, stop) counts groups; offsets and
None are as in ``row_sums``. In a group that is cut off, ``n`` is how many positions it has; in
whole groups it is None, and numba leaves the masks out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.backends.numba.access import (
    load,
    load_flags,
    load_part,
    prefetch,
    read,
    store,
    store_some,
)
from xent.backends.numba.compilation import given, kernel
from xent.backends.numba.folds import any_lane
from xent.backends.numba.functions import exp, log1p
from xent.backends.numba.gathers import gather, look_up, scatter
from xent.backends.numba.labels import check_labels
from xent.backends.numba.lanes import filled, larger, where, wide_count

BLOCK = 32  # classes that are summed before their sum is added: shorter sums round less


@kernel
def statistics(
    x: Any, x_strides: Any, classes: int, inner: int, target: Any, q: Any, q_strides: Any, v: Any,
    valid: Any, maximum: Any, rest: Any, nll: Any, uniform: Any, cross: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """``contract.rows.Vectors`` of the positions in the groups [start, stop)."""
    width = wide_count(x)
    groups = (inner + width - 1) // width
    for group in range(start, stop):
        outer, k = group // groups, group % groups * width
        at, to = outer * x_strides[0] + k, outer * inner + k
        labels = outer * q_strides[0] + k
        if inner - k >= width:
            group_statistics(
                x, at, x_strides[1], classes, None, target, q, labels, q_strides[1], v, valid,
                maximum, rest, nll, uniform, cross, to,
            )  # fmt: skip
        else:
            group_statistics(
                x, at, x_strides[1], classes, inner - k, target, q, labels, q_strides[1], v, valid,
                maximum, rest, nll, uniform, cross, to,
            )  # fmt: skip


@kernel
def gradient(
    x: Any, x_strides: Any, classes: int, inner: int, target: Any, q: Any, q_strides: Any, v: Any,
    valid: Any, maximum: Any, rest: Any, of_lse: Any, of_nll: Any, of_uniform: Any,
    of_cross: Any, steps: Any, out: Any, out_strides: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """The gradient at the logits, of ``contract.rows.Coefficients`` at the positions' vectors."""
    width = wide_count(x)
    groups = (inner + width - 1) // width
    for group in range(start, stop):
        outer, k = group // groups, group % groups * width
        at, to = outer * x_strides[0] + k, outer * inner + k
        labels, into = outer * q_strides[0] + k, outer * out_strides[0] + k
        if inner - k >= width:
            group_gradient(
                x, at, x_strides[1], classes, None, target, q, labels, q_strides[1], v,
                valid, maximum, rest, of_lse, of_nll, of_uniform, of_cross, steps, to,
                out, into, out_strides[1],
            )  # fmt: skip
        else:
            group_gradient(
                x, at, x_strides[1], classes, inner - k, target, q, labels, q_strides[1], v,
                valid, maximum, rest, of_lse, of_nll, of_uniform, of_cross, steps, to,
                out, into, out_strides[1],
            )  # fmt: skip


@kernel
def group_statistics(
    x: Any, at: int, stride: int, classes: int, n: Any, target: Any, q: Any, labels: int,
    q_stride: int, v: Any, valid: Any, maximum: Any, rest: Any, nll: Any, uniform: Any, cross: Any,
    to: int,
) -> None:  # fmt: skip
    """The statistics of one group."""
    m = group_maximum(x, at, stride, classes, n)
    others = group_sum_exp_below(x, at, stride, classes, n, m)
    if any_lane((m + others) * 0.0 != 0.0):  # no softmax
        others = where((m + others) * 0.0 == 0.0, others, np.nan)
        for c in range(classes):
            logits = part(x, at + c * stride, n)
            m = where(logits != logits, logits, m)
    log_sum = log1p(others)
    count = wide_count(x) if n is None else n
    keep(maximum, to, n, m, valid)
    keep(rest, to, n, others, valid)
    if nll is not None:
        check_labels(target, to, count, classes)
        of_label = gather(x, at, stride, target, to, count)
        keep(nll, to, n, log_sum + (m - of_label), valid)
    if uniform is not None:
        keep(
            uniform, to, n, group_costs(x, at, stride, classes, n, m, log_sum, None, 0, 0, v), valid
        )
    if cross is not None:
        cost = group_costs(x, at, stride, classes, n, m, log_sum, q, labels, q_stride, v)
        keep(cross, to, n, cost, valid)


@kernel
def group_gradient(
    x: Any, at: int, stride: int, classes: int, n: Any, target: Any, q: Any, labels: int,
    q_stride: int, v: Any, valid: Any, maximum: Any, rest: Any, of_lse: Any,
    of_nll: Any, of_uniform: Any, of_cross: Any, steps: Any, to: int, out: Any, into: int,
    out_stride: int,
) -> None:  # fmt: skip
    """The gradient of one group; ``row_gradients`` has the formula."""
    m, others = part(maximum, to, n), part(rest, to, n)
    whole = coefficient(x, of_lse, steps[0], to, n)
    sharp = coefficient(x, of_nll, steps[1], to, n)
    even = given(of_uniform, coefficient(x, of_uniform, steps[2], to, n))
    soft = given(of_cross, coefficient(x, of_cross, steps[3], to, n))
    below, top, total = filled(x, 0.0), filled(x, 0.0), others + 1.0
    if of_uniform is not None:
        below, top = group_mass_sums(
            x, at, stride, classes, n, m, even, v, soft, q, labels, q_stride
        )
    elif of_cross is not None:
        below, top = group_mass_sums(
            x, at, stride, classes, n, m, None, v, soft, q, labels, q_stride
        )
    certain, surplus = where(others < 1.0, m, np.nan), below - top * others
    count = wide_count(x) if n is None else n
    at_label = filled(x, 0.0)
    if of_nll is not None:  # before its place may be overwritten
        check_labels(target, to, count, classes)
        of_label = gather(x, at, stride, target, to, count)
        e = exp(of_label - m)
        not_p = where(of_label == m, others, total - e)
        at_label = whole * e - sharp * not_p
        if of_uniform is not None:
            mass = even if v is None else even * look_up(v, target, to, count)
            at_label += where(of_label == certain, surplus, (below + top) * e - mass * total)
    whole = whole + sharp
    spread, at_top = (whole + below + top) / total, (whole + surplus) / total
    counts = counted(x, valid, to, n)
    for c in range(classes):
        logits = part(x, at + c * stride, n)
        slope = exp(logits - m) * spread
        if of_uniform is not None:
            mass = mass_of(x, c, n, even, v, soft, q, labels, q_stride)
            slope = where(logits == certain, at_top, slope - mass)
        elif of_cross is not None:
            mass = mass_of(x, c, n, None, v, soft, q, labels, q_stride)
            slope = where(logits == certain, at_top, slope - mass)
        prefetch(x, at + c * stride + wide_count(x))
        put(out, into + c * out_stride, n, where(counts, slope, 0.0))
    if of_nll is not None:
        scatter(out, into, out_stride, target, to, count, where(counts, at_label / total, 0.0))


@kernel
def group_maximum(x: Any, at: int, stride: int, classes: int, n: Any) -> Any:
    """max_c x of each position, NaN left out."""
    m = filled(x, -np.inf)
    for c in range(classes):
        m = larger(part(x, at + c * stride, n), m)
    return m


@kernel
def group_sum_exp_below(x: Any, at: int, stride: int, classes: int, n: Any, m: Any) -> Any:
    """Σ exp(x − m) of each position, without one of its maxima."""
    total, maxima = filled(x, 0.0), filled(x, 0.0)
    for first in range(0, classes, BLOCK):
        block = filled(x, 0.0)
        for c in range(first, min(first + BLOCK, classes)):
            logits = part(x, at + c * stride, n)
            prefetch(x, at + c * stride + wide_count(x))
            block = where(logits == m, block, block + exp(logits - m))
            maxima = where(logits == m, maxima + 1.0, maxima)
        total += block
    return total + (maxima - 1.0)


@kernel
def group_costs(
    x: Any, at: int, stride: int, classes: int, n: Any, m: Any, log_sum: Any, q: Any, labels: int,
    q_stride: int, v: Any,
) -> Any:  # fmt: skip
    """Σ mass·(−log p) of each position, for the mass v, q, v·q or 1."""
    total, lost = filled(x, 0.0), filled(x, 0.0)
    for first in range(0, classes, BLOCK):
        block = filled(x, 0.0)
        for c in range(first, min(first + BLOCK, classes)):
            mass = filled(x, 1.0) if q is None else part(q, labels + c * q_stride, n)
            if v is not None:
                mass = mass * read(v, c)
            surprise = m - part(x, at + c * stride, n) + log_sum
            block += where(mass == 0.0, 0.0, mass * surprise)
        exact = block - lost  # Kahan's sum: there are as many blocks as C / 32
        rounded = total + exact
        lost = where((rounded - total) * 0.0 == 0.0, rounded - total - exact, 0.0)  # not inf − inf
        total = rounded
    return total + log_sum * 0.0  # NaN without a softmax


@kernel
def group_mass_sums(
    x: Any, at: int, stride: int, classes: int, n: Any, m: Any, even: Any, v: Any, soft: Any,
    q: Any, labels: int, q_stride: int,
) -> Any:  # fmt: skip
    """Σ of the mass over the classes below the maximum, and at it, of each position."""
    below, top = filled(x, 0.0), filled(x, 0.0)
    for first in range(0, classes, BLOCK):
        block = filled(x, 0.0)
        for c in range(first, min(first + BLOCK, classes)):
            mass = mass_of(x, c, n, even, v, soft, q, labels, q_stride)
            highest = part(x, at + c * stride, n) == m
            block = where(highest, block, block + mass)
            top = where(highest, top + mass, top)
        below += block
    return below, top


@kernel
def mass_of(
    x: Any, c: int, n: Any, even: Any, v: Any, soft: Any, q: Any, labels: int, q_stride: int
) -> Any:
    """v·(even + soft·q) of one class; None stands for 0, or for v = 1."""
    mass = filled(x, 0.0)
    if soft is not None:
        mass = part(q, labels + c * q_stride, n) * soft
    if even is not None:
        mass = mass + even
    return mass if v is None else mass * read(v, c)


@kernel
def part(array: Any, offset: int, n: Any) -> Any:
    """A wide vector; beyond n it is 0."""
    return load(array, offset) if n is None else load_part(array, offset, n, 0.0)


@kernel
def put(array: Any, offset: int, n: Any, value: Any) -> None:
    """Writes a wide vector, up to n."""
    if n is None:
        store(array, offset, value)
    else:
        store_some(array, offset, n, value)


@kernel
def counted(x: Any, valid: Any, to: int, n: Any) -> Any:
    """A mask of the positions that count."""
    everything = filled(x, 0.0) == 0.0
    if not valid.size:
        return everything
    return load_flags(valid, to, wide_count(x) if n is None else n, filled(x, 0.0))


@kernel
def keep(vector: Any, to: int, n: Any, value: Any, valid: Any) -> None:
    """Writes a statistic, 0 where a position does not count."""
    put(vector, to, n, where(counted(vector, valid, to, n), value, 0.0))


@kernel
def coefficient(x: Any, vector: Any, step: int, to: int, n: Any) -> Any:
    """A coefficient of each position, one number for all if step is 0; 0 if there is none."""
    numbers = filled(x, 0.0)
    if vector is not None:
        numbers = filled(x, vector[0]) if step == 0 else part(vector, to, n)
    return numbers

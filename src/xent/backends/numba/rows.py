"""Kernels for rows whose classes are neighbours in memory: statistics, and their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.backends.numba.access import read
from xent.backends.numba.compilation import kernel, or_zero
from xent.backends.numba.labels import check_label
from xent.backends.numba.row_gradients import write_gradient, write_zeros
from xent.backends.numba.row_sums import add_log_sums, costs, softmax_sums


@kernel
def statistics(
    x: Any,
    x_strides: Any,
    classes: int,
    inner: int,
    target: Any,
    q: Any,
    q_strides: Any,
    v: Any,
    valid: Any,
    maximum: Any,
    rest: Any,
    nll: Any,
    uniform: Any,
    cross: Any,
    start: int,
    stop: int,
) -> None:
    """``contract.rows.Vectors`` of the positions [start, stop)."""
    for i in range(start, stop):
        if valid.size and not valid[i]:
            maximum[i] = rest[i] = 0.0
            if nll is not None:
                nll[i] = 0.0
            if uniform is not None:
                uniform[i] = 0.0
            if cross is not None:
                cross[i] = 0.0
            continue
        at = offset_of(i, inner, x_strides)
        m, others = softmax_sums(x, at, at + classes)
        maximum[i] = m
        rest[i] = others
        if nll is not None:
            check_label(target[i], classes)
            nll[i] = m - read(x, at + target[i])  # and log1p(rest), below
        if uniform is not None:
            uniform[i] = costs(x, at, classes, m, others, None, 0, v)
        if cross is not None:
            labels = offset_of(i, inner, q_strides)
            cross[i] = costs(x, at, classes, m, others, q, labels, v)
    if nll is not None:
        add_log_sums(rest, nll, start, stop)


@kernel
def gradient(
    x: Any,
    x_strides: Any,
    classes: int,
    inner: int,
    target: Any,
    q: Any,
    q_strides: Any,
    v: Any,
    valid: Any,
    maximum: Any,
    rest: Any,
    of_lse: Any,
    of_nll: Any,
    of_uniform: Any,
    of_cross: Any,
    steps: Any,
    out: Any,
    out_strides: Any,
    start: int,
    stop: int,
) -> None:
    """The gradient at the logits, of ``contract.rows.Coefficients`` at the positions' vectors."""
    for i in range(start, stop):
        to = offset_of(i, inner, out_strides)
        if valid.size and not valid[i]:
            write_zeros(out, to, to + classes)
            continue
        at = offset_of(i, inner, x_strides)
        labels = offset_of(i, inner, q_strides)
        whole = or_zero(read(of_lse, i * steps[0]))
        sharp = read(of_nll, i * steps[1])
        even = read(of_uniform, i * steps[2])
        soft = read(of_cross, i * steps[3])
        y = 0 if target is None else target[i]
        if target is not None:
            check_label(y, classes)
        m, others = np.float64(maximum[i]), np.float64(rest[i])
        write_gradient(
            x, at, classes, m, others, whole, sharp, y, even, v, soft, q, labels, out, to
        )


@kernel
def offset_of(i: int, inner: int, strides: Any) -> int:
    """Where row i of [outer, inner] begins."""
    if inner == 1:  # the usual case, without two divisions
        return i * strides[0]
    return i // inner * strides[0] + i % inner * strides[1]

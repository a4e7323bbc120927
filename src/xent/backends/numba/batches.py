"""Kernels for a whole small batch.

A few thousand logits take microseconds, and so does each operation of torch, and each array that
numba is handed. So here, and only here, kernels know the formula of a loss and its mean; and they
are handed addresses. Behind those: logits and probabilities [positions, C] with classes as
neighbours, int64 labels, class weights, and ``kept`` [2, positions]: the maximum and the rest
of each position. ``like`` is an empty array of their dtype, and so is ``v_like`` unless
there are no class weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.backends.numba.access import memory_at, read
from xent.backends.numba.compilation import given, kernel, or_zero
from xent.backends.numba.folds import first_lane
from xent.backends.numba.functions import log1p
from xent.backends.numba.labels import check_label
from xent.backends.numba.lanes import filled_narrow
from xent.backends.numba.row_gradients import write_gradient, write_zeros
from xent.backends.numba.row_sums import costs, softmax_sums


@kernel
def index_loss(
    like: Any, labels: Any, x_at: int, stride: int, positions: int, classes: int, target_at: int,
    v_like: Any, v_at: int, ignored: int, smoothing: Any, mean: bool, kept_like: Any, kept_at: int,
    loss_at: int,
) -> float:  # fmt: skip
    """Writes the loss for class indices and returns what it divides the sum by.

    If that is 0 or, because a label is out of bounds, NaN, nothing of use has been written.
    """
    x, target, v = memory_at(x_at, like), memory_at(target_at, labels), memory_at(v_at, v_like)
    kept, loss = memory_at(kept_at, kept_like), memory_at(loss_at, like)
    divisor = label_weight(target, positions, classes, v, ignored)
    if not mean and divisor == divisor:
        divisor = 1.0
    if divisor == 0.0 or divisor != divisor:
        return divisor
    total = 0.0
    for i in range(positions):
        at, y = i * stride, target[i]
        if y == ignored:
            continue
        m, others = softmax_sums(x, at, at + classes)
        if kept_like is not None:
            kept[i], kept[positions + i] = m, others
        nll = m - read(x, at + y) + first_lane(log1p(filled_narrow(x, others)))
        cost = without_mass(weight_of(v, y), nll)
        if smoothing is not None:
            even = costs(x, at, classes, m, others, None, 0, v)
            cost = without_mass(1.0 - smoothing, cost) + smoothing / classes * even
        total += cost
    loss[0] = total / divisor
    return divisor


@kernel
def dense_loss(
    like: Any, x_at: int, stride: int, positions: int, classes: int, q_at: int, q_stride: int,
    v_like: Any, v_at: int, smoothing: Any, mean: bool, kept_like: Any, kept_at: int, loss_at: int,
) -> float:  # fmt: skip
    """Writes the loss for class probabilities and returns what it divides the sum by."""
    x, q, v = memory_at(x_at, like), memory_at(q_at, like), memory_at(v_at, v_like)
    kept, loss = memory_at(kept_at, kept_like), memory_at(loss_at, like)
    total, divisor = 0.0, float(positions) if mean else 1.0
    for i in range(positions):
        at = i * stride
        m, others = softmax_sums(x, at, at + classes)
        if kept_like is not None:
            kept[i], kept[positions + i] = m, others
        cost = costs(x, at, classes, m, others, q, i * q_stride, v)
        if smoothing is not None:
            even = costs(x, at, classes, m, others, None, 0, v)
            cost = without_mass(1.0 - smoothing, cost) + smoothing / classes * even
        total += cost
    loss[0] = total / divisor
    return divisor


@kernel
def index_gradient(
    like: Any, labels: Any, x_at: int, stride: int, positions: int, classes: int, target_at: int,
    v_like: Any, v_at: int, ignored: int, smoothing: Any, scale: float, kept_at: int, out_at: int,
) -> None:  # fmt: skip
    """The gradient of positions with class indices, times ``scale``."""
    x, target, v = memory_at(x_at, like), memory_at(target_at, labels), memory_at(v_at, v_like)
    kept, out = memory_at(kept_at, like), memory_at(out_at, like)
    sharp = scale * (1.0 - or_zero(smoothing))
    even = given(smoothing, scale / classes * or_zero(smoothing))
    for i in range(positions):
        at, to, y = i * stride, i * classes, target[i]
        if y == ignored:
            write_zeros(out, to, to + classes)
            continue
        check_label(y, classes)
        m, others = np.float64(kept[i]), np.float64(kept[positions + i])
        of_label = sharp * weight_of(v, y)
        write_gradient(x, at, classes, m, others, 0.0, of_label, y, even, v, None, None, 0, out, to)


@kernel
def dense_gradient(
    like: Any, x_at: int, stride: int, positions: int, classes: int, q_at: int, q_stride: int,
    v_like: Any, v_at: int, smoothing: Any, scale: float, kept_at: int, out_at: int,
) -> None:  # fmt: skip
    """The gradient of positions with class probabilities, times ``scale``."""
    x, q, v = memory_at(x_at, like), memory_at(q_at, like), memory_at(v_at, v_like)
    kept, out = memory_at(kept_at, like), memory_at(out_at, like)
    soft = scale * (1.0 - or_zero(smoothing))
    even = given(smoothing, scale / classes * or_zero(smoothing))
    for i in range(positions):
        m, others = np.float64(kept[i]), np.float64(kept[positions + i])
        write_gradient(
            x, i * stride, classes, m, others, 0.0, None, 0, even, v, soft, q, i * q_stride,
            out, i * classes,
        )  # fmt: skip


@kernel
def label_weight(target: Any, positions: int, classes: int, v: Any, ignored: int) -> float:
    """Σ v_y over the positions that count; NaN if a label is out of bounds."""
    total = 0.0
    for i in range(positions):
        y = target[i]
        if y != ignored:
            if not 0 <= y < classes:
                return np.nan
            total += weight_of(v, y)
    return total


@kernel
def weight_of(v: Any, y: int) -> float:
    """The weight of a class."""
    if v is not None:
        return np.float64(v[y])
    return 1.0


@kernel
def without_mass(mass: float, cost: float) -> float:
    """mass·cost, where what has no mass costs nothing."""
    return 0.0 if mass == 0.0 and cost == np.inf else mass * cost

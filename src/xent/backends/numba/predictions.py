"""What the softmax of a row says by itself: its entropy and its most probable class."""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.backends.numba.access import load, load_some, read
from xent.backends.numba.compilation import kernel
from xent.backends.numba.folds import folded_sum, sum_across
from xent.backends.numba.functions import exp
from xent.backends.numba.lanes import filled, narrow_count, where, wide_count
from xent.backends.numba.row_sums import add_log_sums
from xent.backends.numba.rows import offset_of


@kernel
def predictions(
    x: Any,
    x_strides: Any,
    classes: int,
    inner: int,
    valid: Any,
    maximum: Any,
    rest: Any,
    entropy: Any,
    argmax: Any,
    start: int,
    stop: int,
) -> None:
    """``contract.rows.Prediction`` of the positions [start, stop)."""
    for i in range(start, stop):
        if valid.size and not valid[i]:
            entropy[i] = 0.0
            argmax[i] = -1
            continue
        at = offset_of(i, inner, x_strides)
        m, others = np.float64(maximum[i]), np.float64(rest[i])
        entropy[i] = mean_distance(x, at, at + classes, m) / (1.0 + others)  # and log1p(rest)
        argmax[i] = place_of(x, at, classes, m)
    add_log_sums(rest, entropy, start, stop)


@kernel
def mean_distance(x: Any, start: int, end: int, m: float) -> float:
    """Σ exp(x − m)·(m − x): below the normal floats exp is 0, and so is the product."""
    j, total = start, filled(x, 0.0)
    while j + wide_count(x) <= end:
        logits = load(x, j)
        e = exp(logits - m)
        total += where(e == 0.0, 0.0, e * (m - logits))
        j += wide_count(x)
    last = folded_sum(total)
    while j < end:
        some = load_some(x, j, end - j, -np.inf)
        some_e = exp(some - m)
        last += where(some_e == 0.0, 0.0, some_e * (m - some))
        j += narrow_count(x)
    return sum_across(last)


@kernel
def place_of(x: Any, at: int, classes: int, m: float) -> int:
    """The first class whose logit is m; 0 if there is none, as for NaN."""
    for j in range(classes):
        if read(x, at + j) == m:
            return j
    return 0

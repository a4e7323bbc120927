"""The gradient of one row whose classes are neighbours in memory.

    (whole + even·Σv)·p + sharp·(p − [c = y]) − even·v + soft·(Σvq·p − v·q)

A coefficient that is None has no term. Offsets and None are as in ``row_sums``; ``m`` is the row's
maximum and ``others`` is Σ exp(x − m) without one of its maxima.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.backends.numba.access import load, load_some, read, store, store_some, write
from xent.backends.numba.compilation import kernel
from xent.backends.numba.functions import exp
from xent.backends.numba.lanes import filled_narrow, first_lane, narrow_count, where, wide_count
from xent.backends.numba.row_sums import label_sums


@kernel
def write_gradient(
    x: Any, at: int, classes: int, m: float, others: float, whole: float, sharp: Any, y: int,
    even: Any, v: Any, total_v: float, soft: Any, q: Any, labels: int, out: Any, to: int,
) -> None:  # fmt: skip
    """Writes the gradient of a row, over the logits themselves if ``out`` is ``x``."""
    if even is not None:
        whole += even * total_v
    total = 1.0 + others
    if soft is not None:
        below, top = label_sums(x, at, classes, m, q, labels, v)
        # At a maximum that is nearly certain p − q would cancel; these sums do not.
        at_top = (whole + soft * (below - top * others)) / total
        certain = m if others < 1.0 else np.nan
        spread = (whole + soft * (below + top)) / total
        write_soft(
            x, at, classes, m, spread, even, v, soft, q, labels, certain, at_top, out, to
        )
    elif sharp is not None:
        slope = label_slope(x, read(x, at + y) - m, others, whole, sharp)
        if even is not None:
            slope -= even if v is None else even * v[y]
        write_softmax(x, at, classes, m, (whole + sharp) / total, even, v, out, to)
        write(out, to + y, slope)
    else:
        write_softmax(x, at, classes, m, whole / total, even, v, out, to)


@kernel
def label_slope(x: Any, behind: float, others: float, whole: float, sharp: float) -> float:
    """whole·p_y − sharp·(1 − p_y) for x_y − m, without a difference that cancels."""
    e = first_lane(exp(filled_narrow(x, behind)))
    not_p = others if behind == 0.0 else 1.0 + others - e
    return (whole * e - sharp * not_p) / (1.0 + others)


@kernel
def write_softmax(
    x: Any, at: int, classes: int, m: float, spread: float, even: Any, v: Any,
    out: Any, to: int,
) -> None:  # fmt: skip
    """spread·exp(x − m) − even·v."""
    j = 0
    while j + wide_count(x) <= classes:
        slope = exp(load(x, at + j) - m) * spread
        if even is not None:
            if v is None:
                slope = slope - even
            else:
                slope = slope - even * load(v, j)
        store(out, to + j, slope)
        j += wide_count(x)
    while j < classes:
        n = classes - j
        last = exp(load_some(x, at + j, n, -np.inf) - m) * spread
        if even is not None:
            if v is None:
                last = last - even
            else:
                last = last - even * load_some(v, j, n, 0.0)
        store_some(out, to + j, n, last)
        j += narrow_count(x)


@kernel
def write_soft(
    x: Any, at: int, classes: int, m: float, spread: float, even: Any, v: Any,
    soft: float, q: Any, labels: int, certain: float, at_top: float, out: Any, to: int,
) -> None:  # fmt: skip
    """spread·exp(x − m) − even·v − soft·v·q, and ``at_top`` for the first two where x is certain."""
    j = 0
    while j + wide_count(x) <= classes:
        logits, mass = load(x, at + j), load(q, labels + j)
        if v is not None:
            mass = mass * load(v, j)
        slope = exp(logits - m) * spread - mass * soft
        slope = where(logits == certain, at_top, slope)
        if even is not None:
            if v is None:
                slope = slope - even
            else:
                slope = slope - even * load(v, j)
        store(out, to + j, slope)
        j += wide_count(x)
    while j < classes:
        n = classes - j
        some, some_mass = load_some(x, at + j, n, -np.inf), load_some(q, labels + j, n, 0.0)
        if v is not None:
            some_mass = some_mass * load_some(v, j, n, 0.0)
        last = exp(some - m) * spread - some_mass * soft
        last = where(some == certain, at_top, last)
        if even is not None:
            if v is None:
                last = last - even
            else:
                last = last - even * load_some(v, j, n, 0.0)
        store_some(out, to + j, n, last)
        j += narrow_count(x)


@kernel
def write_zeros(out: Any, start: int, stop: int) -> None:
    """Writes zeros; the row is not read."""
    for j in range(start, stop, narrow_count(out)):
        store_some(out, j, stop - j, filled_narrow(out, 0.0))

"""The gradient of one row whose classes are neighbours in memory.

With the mass M_c = v_c·(even + soft·q_c) it is

    whole·p + sharp·(p − [c = y]) + ΣM·p − M_c

A coefficient that is None has no term. Offsets and None are as in ``row_sums``; ``m`` is the row's
maximum and ``others`` is Σ exp(x − m) without one of its maxima.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.backends.numba.access import load, load_some, read, store, store_some, write
from xent.backends.numba.compilation import kernel
from xent.backends.numba.folds import first_lane
from xent.backends.numba.functions import exp
from xent.backends.numba.lanes import filled_narrow, narrow_count, where, wide_count
from xent.backends.numba.row_sums import load_mass, load_some_mass, mass_sums


@kernel
def write_gradient(
    x: Any, at: int, classes: int, m: float, others: float, whole: float, sharp: Any, y: int,
    even: Any, v: Any, soft: Any, q: Any, labels: int, out: Any, to: int,
) -> None:  # fmt: skip
    """Writes the gradient of a row, over the logits themselves if ``out`` is ``x``."""
    below, top, total = 0.0, 0.0, 1.0 + others
    if even is not None:
        below, top = even * (classes - 1), even
        if soft is not None:
            below, top = mass_sums(x, at, classes, m, even, v, soft, q, labels)
        elif v is not None:
            below, top = mass_sums(x, at, classes, m, even, v, None, q, labels)
    elif soft is not None:
        below, top = mass_sums(x, at, classes, m, None, v, soft, q, labels)
    # Where the maximum is nearly certain, p − M would cancel at it; these sums do not.
    certain, surplus = m if others < 1.0 else np.nan, below - top * others
    at_label = 0.0
    if sharp is not None:
        behind = read(x, at + y) - m
        e = first_lane(exp(filled_narrow(x, behind)))
        not_p = others if behind == 0.0 else total - e
        at_label = whole * e - sharp * not_p
        if even is not None:
            mass = even if v is None else even * v[y]
            at_label += surplus if m + behind == certain else (below + top) * e - mass * total
        whole += sharp
    spread, at_top = (whole + below + top) / total, (whole + surplus) / total
    if even is not None:
        write_slopes(x, at, classes, m, spread, even, v, soft, q, labels, certain, at_top, out, to)
    elif soft is not None:
        write_slopes(x, at, classes, m, spread, None, v, soft, q, labels, certain, at_top, out, to)
    else:
        write_softmax(x, at, classes, m, spread, out, to)
    if sharp is not None:
        write(out, to + y, at_label / total)


@kernel
def write_softmax(
    x: Any, at: int, classes: int, m: float, spread: float, out: Any, to: int
) -> None:
    """spread·exp(x − m)."""
    j = 0
    while j + wide_count(x) <= classes:
        store(out, to + j, exp(load(x, at + j) - m) * spread)
        j += wide_count(x)
    while j < classes:
        some = load_some(x, at + j, classes - j, -np.inf)
        store_some(out, to + j, classes - j, exp(some - m) * spread)
        j += narrow_count(x)


@kernel
def write_slopes(
    x: Any, at: int, classes: int, m: float, spread: float, even: Any, v: Any, soft: Any, q: Any,
    labels: int, certain: float, at_top: float, out: Any, to: int,
) -> None:  # fmt: skip
    """spread·exp(x − m) − M, but ``at_top`` where the logit is ``certain``."""
    j = 0
    while j + wide_count(x) <= classes:
        logits = load(x, at + j)
        slope = exp(logits - m) * spread - load_mass(x, j, even, v, soft, q, labels)
        store(out, to + j, where(logits == certain, at_top, slope))
        j += wide_count(x)
    while j < classes:
        n = classes - j
        some = load_some(x, at + j, n, -np.inf)
        last = exp(some - m) * spread - load_some_mass(x, j, n, even, v, soft, q, labels)
        store_some(out, to + j, n, where(some == certain, at_top, last))
        j += narrow_count(x)


@kernel
def write_zeros(out: Any, start: int, stop: int) -> None:
    """Writes zeros; the row is not read."""
    for j in range(start, stop, narrow_count(out)):
        store_some(out, j, stop - j, filled_narrow(out, 0.0))

"""Kernels for rows whose classes are neighbours in memory.

A row is read from memory once: in blocks that fit the first cache, each read for its maximum and
then for its sum of exp; while one block is summed the next is on its way. When a block holds a
larger logit, what was summed so far is rescaled. Sums within a block have the precision of the
lanes, sums of blocks are float64.

Offsets count elements of ``x``; a block or a row is ``[start, stop)``. Arguments that a call has no
use for are None: numba compiles a kernel of its own for each combination, without the branches.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from xent.backends.numba.access import load, load_some, prefetch, read, store, store_some, write
from xent.backends.numba.functions import exp, log1p
from xent.backends.numba.lanes import (
    any_lane,
    filled,
    filled_narrow,
    first_lane,
    folded_larger,
    folded_sum,
    lanes_set,
    larger,
    largest_across,
    narrow_count,
    sum_across,
    where,
    wide_count,
)

BLOCK = 2048  # elements: 8 KiB of float32, a sixth of a usual first cache
AHEAD = 2048  # elements: the block after this one

kernel = njit(nogil=True, cache=True)


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
        at = i // inner * x_strides[0] + i % inner * x_strides[1]
        m, others = softmax_sums(x, at, at + classes)
        maximum[i] = m
        rest[i] = others
        if nll is not None:
            nll[i] = m - read(x, at + target[i])  # and log1p(rest), below
        if uniform is not None:
            uniform[i] = costs(x, at, classes, m, others, None, 0, v)
        if cross is not None:
            labels = i // inner * q_strides[0] + i % inner * q_strides[1]
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
    total_v: float,
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
        to = i // inner * out_strides[0] + i % inner * out_strides[1]
        if valid.size and not valid[i]:
            fill_zeros(out, to, to + classes)
            continue
        at = i // inner * x_strides[0] + i % inner * x_strides[1]
        m, others = np.float64(maximum[i]), np.float64(rest[i])
        whole = 0.0 if of_lse is None else np.float64(of_lse[i * steps[0]])
        sharp = 0.0 if of_nll is None else np.float64(of_nll[i * steps[1]])
        even = 0.0 if of_uniform is None else np.float64(of_uniform[i * steps[2]])
        whole += even * total_v
        if of_cross is None:
            spread = (whole + sharp) / (1.0 + others)
            write_softmax(x, at, classes, m, spread, of_uniform, even, v, out, to)
        else:
            labels = i // inner * q_strides[0] + i % inner * q_strides[1]
            soft = np.float64(of_cross[i * steps[3]])
            below, top = label_sums(x, at, classes, m, q, labels, v)
            spread = (whole + soft * (below + top)) / (1.0 + others)
            # At a maximum that is nearly certain p − q would cancel; these sums do not.
            at_top = (whole + soft * (below - top * others)) / (1.0 + others)
            certain = m if others < 1.0 else np.nan
            write_soft(
                x, at, classes, m, spread, of_uniform, even, v, soft, q, labels, certain, at_top,
                out, to,
            )  # fmt: skip
        if of_nll is not None:
            y = target[i]
            slope = label_slope(x, read(x, at + y) - m, others, whole, sharp)
            if of_uniform is not None:
                slope -= even if v is None else even * v[y]
            write(out, to + y, slope)


@kernel
def softmax_sums(x: Any, start: int, end: int) -> Any:
    """A row's maximum m, and Σ exp(x − m) without one of its maxima."""
    m, others, at = -np.inf, 0.0, start
    while at < end:
        upto = min(at + BLOCK, end)
        top = block_maximum(x, at, upto)
        if top > m:
            if m > -np.inf:
                others = (others + 1.0) * math.exp(m - top)
            others += sum_exp_below(x, at, upto, top)
            m = top
        elif m > -np.inf:
            others += sum_exp(x, at, upto, m)
        at = upto
    if not math.isfinite(m + others):  # there is no softmax
        others = np.nan
        if holds_nan(x, start, end):
            m = np.nan
    return m, others


@kernel
def block_maximum(x: Any, start: int, stop: int) -> float:
    """The largest of a block, NaN left out; −inf if there is none."""
    j, top = start, filled(x, -np.inf)
    while j + wide_count(x) <= stop:
        top = larger(load(x, j), top)
        j += wide_count(x)
    last = folded_larger(top)
    while j < stop:
        last = larger(load_some(x, j, stop - j, -np.inf), last)
        j += narrow_count(x)
    return largest_across(last)


@kernel
def sum_exp(x: Any, start: int, stop: int, m: float) -> float:
    """Σ exp(x − m) over a block."""
    j, total = start, filled(x, 0.0)
    while j + wide_count(x) <= stop:
        prefetch(x, j + AHEAD)
        total += exp(load(x, j) - m)
        j += wide_count(x)
    last = folded_sum(total)
    while j < stop:
        last += exp(load_some(x, j, stop - j, -np.inf) - m)
        j += narrow_count(x)
    return sum_across(last)


@kernel
def sum_exp_below(x: Any, start: int, stop: int, m: float) -> float:
    """Σ exp(x − m) over a block, without one of its maxima m."""
    j, total, maxima = start, filled(x, 0.0), 0
    while j + wide_count(x) <= stop:
        prefetch(x, j + AHEAD)
        logits = load(x, j)
        total = where(logits == m, total, total + exp(logits - m))
        maxima += lanes_set(logits == m)
        j += wide_count(x)
    last = folded_sum(total)
    while j < stop:
        logits = load_some(x, j, stop - j, -np.inf)
        last = where(logits == m, last, last + exp(logits - m))
        maxima += lanes_set(logits == m)
        j += narrow_count(x)
    return sum_across(last) + (maxima - 1)


@kernel
def holds_nan(x: Any, start: int, stop: int) -> bool:
    """Whether a row holds a NaN."""
    for j in range(start, stop, narrow_count(x)):
        logits = load_some(x, j, stop - j, 0.0)
        if any_lane(logits != logits):
            return True
    return False


@kernel
def add_log_sums(rest: Any, vector: Any, start: int, stop: int) -> None:
    """Adds log Σ exp(x − m) to each element."""
    j, count = start, narrow_count(rest)
    while j < stop:
        log_sum = log1p(load_some(rest, j, stop - j, 0.0))
        store_some(vector, j, stop - j, load_some(vector, j, stop - j, 0.0) + log_sum)
        j += count


@kernel
def costs(
    x: Any, at: int, classes: int, m: float, others: float, q: Any, labels: int, v: Any
) -> float:
    """Σ mass·(−log p) over a row, for the mass v, q, v·q or 1."""
    log_sum = first_lane(log1p(filled_narrow(x, others)))
    if q is None:
        if v is None:
            return distance(x, at, classes, m) + classes * log_sum
        cost, mass = weighted_distance(x, at, classes, m, v, 0, None)
        return cost + mass * log_sum
    cost, mass = weighted_distance(x, at, classes, m, q, labels, v)
    return cost + mass * log_sum


@kernel
def distance(x: Any, at: int, classes: int, m: float) -> float:
    """Σ (m − x) over a row."""
    j, end, total = at, at + classes, filled(x, 0.0)
    while j + wide_count(x) <= end:
        total += m - load(x, j)
        j += wide_count(x)
    last = folded_sum(total)
    while j < end:
        last += m - load_some(x, j, end - j, m)
        j += narrow_count(x)
    return sum_across(last)


@kernel
def weighted_distance(
    x: Any, at: int, classes: int, m: float, mass: Any, masses: int, factor: Any
) -> Any:
    """Σ mass·(m − x) and Σ mass over a row; without mass, −inf costs nothing."""
    j, total, whole = 0, filled(x, 0.0), filled(x, 0.0)
    while j + wide_count(x) <= classes:
        weight = load(mass, masses + j)
        if factor is not None:
            weight = weight * load(factor, j)
        total += where(weight == 0.0, 0.0, weight * (m - load(x, at + j)))
        whole += weight
        j += wide_count(x)
    last, sum_ = folded_sum(total), folded_sum(whole)
    while j < classes:
        weight = load_some(mass, masses + j, classes - j, 0.0)
        if factor is not None:
            weight = weight * load_some(factor, j, classes - j, 0.0)
        behind = m - load_some(x, at + j, classes - j, m)
        last += where(weight == 0.0, 0.0, weight * behind)
        sum_ += weight
        j += narrow_count(x)
    return sum_across(last), sum_across(sum_)


@kernel
def label_sums(x: Any, at: int, classes: int, m: float, q: Any, labels: int, v: Any) -> Any:
    """Σ v·q over the classes below the maximum, and at it."""
    j, below, top = 0, filled(x, 0.0), filled(x, 0.0)
    while j + wide_count(x) <= classes:
        mass = load(q, labels + j)
        if v is not None:
            mass = mass * load(v, j)
        highest = load(x, at + j) == m
        below = where(highest, below, below + mass)
        top = where(highest, top + mass, top)
        j += wide_count(x)
    last_below, last_top = folded_sum(below), folded_sum(top)
    while j < classes:
        mass = load_some(q, labels + j, classes - j, 0.0)
        if v is not None:
            mass = mass * load_some(v, j, classes - j, 0.0)
        highest = load_some(x, at + j, classes - j, m) == m
        last_below = where(highest, last_below, last_below + mass)
        last_top = where(highest, last_top + mass, last_top)
        j += narrow_count(x)
    return sum_across(last_below), sum_across(last_top)


@kernel
def label_slope(x: Any, behind: float, others: float, whole: float, sharp: float) -> float:
    """whole·p_y − sharp·(1 − p_y) for x_y − m, without a difference that cancels."""
    e = first_lane(exp(filled_narrow(x, behind)))
    not_p = others if behind == 0.0 else 1.0 + others - e
    return (whole * e - sharp * not_p) / (1.0 + others)


@kernel
def write_softmax(
    x: Any, at: int, classes: int, m: float, spread: float, of_uniform: Any, even: float, v: Any,
    out: Any, to: int,
) -> None:  # fmt: skip
    """spread·exp(x − m) − even·v."""
    j = 0
    while j + wide_count(x) <= classes:
        slope = exp(load(x, at + j) - m) * spread
        if of_uniform is not None:
            if v is None:
                slope = slope - even
            else:
                slope = slope - even * load(v, j)
        store(out, to + j, slope)
        j += wide_count(x)
    while j < classes:
        n = classes - j
        last = exp(load_some(x, at + j, n, -np.inf) - m) * spread
        if of_uniform is not None:
            if v is None:
                last = last - even
            else:
                last = last - even * load_some(v, j, n, 0.0)
        store_some(out, to + j, n, last)
        j += narrow_count(x)


@kernel
def write_soft(
    x: Any, at: int, classes: int, m: float, spread: float, of_uniform: Any, even: float, v: Any,
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
        if of_uniform is not None:
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
        if of_uniform is not None:
            if v is None:
                last = last - even
            else:
                last = last - even * load_some(v, j, n, 0.0)
        store_some(out, to + j, n, last)
        j += narrow_count(x)


@kernel
def fill_zeros(out: Any, start: int, stop: int) -> None:
    """Writes zeros; the row is not read."""
    for j in range(start, stop, narrow_count(out)):
        store_some(out, j, stop - j, filled_narrow(out, 0.0))

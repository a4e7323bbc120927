"""What is summed over a row whose classes are neighbours in memory.

A row is read from memory once, in blocks that fit the first cache. A block is summed on the guess
that the maximum so far stays the maximum, while the next is on its way; if it holds a larger
logit, what was summed before is rescaled and the block is summed again. Sums within a block have
the precision of the lanes, sums of blocks are float64.

Offsets count elements of ``x``; a block or a row is ``[start, stop)``. Arguments that a call has no
use for are None: numba compiles a function of its own for each combination, without what stands
under ``is not None`` (what stands under ``is None`` has to make sense in any case).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xent.backends.numba.access import first_lanes, load, load_some, prefetch, store_some
from xent.backends.numba.compilation import kernel
from xent.backends.numba.folds import (
    any_lane,
    first_lane,
    folded_larger,
    folded_sum,
    lanes_set,
    largest_across,
    sum_across,
)
from xent.backends.numba.functions import exp, log1p
from xent.backends.numba.lanes import filled, filled_narrow, larger, narrow_count, where, wide_count

BLOCK = 2048  # elements: 8 KiB of float32, a sixth of a usual first cache
AHEAD = 2048  # elements: the block after this one


@kernel
def softmax_sums(x: Any, start: int, end: int) -> Any:
    """A row's maximum m, and Σ exp(x − m) without one of its maxima."""
    m, others, at = -np.inf, 0.0, start
    while at < end:
        upto = min(at + BLOCK, end)
        if m > -np.inf:  # mostly it stays the maximum: both at once
            top, total = maximum_and_sum_exp(x, at, upto, m)
        else:
            top, total = block_maximum(x, at, upto), 0.0
        if top > m:
            if m > -np.inf:
                others = (others + 1.0) * math.exp(m - top)
            others += sum_exp_below(x, at, upto, top)
            m = top
        elif m > -np.inf:
            others += total
        elif holds_nan(x, at, upto):
            break
        at = upto
    if at < end or not math.isfinite(m + others):  # there is no softmax
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
def maximum_and_sum_exp(x: Any, start: int, stop: int, m: float) -> Any:
    """The largest of a block, NaN left out, and Σ exp(x − m) if that is no larger than m."""
    j, top, total = start, filled(x, -np.inf), filled(x, 0.0)
    while j + wide_count(x) <= stop:
        prefetch(x, j + AHEAD)
        logits = load(x, j)
        top = larger(logits, top)
        total += exp(logits - m)
        j += wide_count(x)
    last_top, last = folded_larger(top), folded_sum(total)
    while j < stop:
        some = load_some(x, j, stop - j, -np.inf)
        last_top = larger(some, last_top)
        last += exp(some - m)
        j += narrow_count(x)
    return largest_across(last_top), sum_across(last)


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
def costs(
    x: Any, at: int, classes: int, m: float, others: float, q: Any, labels: int, v: Any
) -> float:
    """Σ mass·(−log p) over a row, for the mass v, q, v·q or 1."""
    log_sum = first_lane(log1p(filled_narrow(x, others)))
    if q is not None:
        return weighted_costs(x, at, classes, m, log_sum, q, labels, v)
    if v is not None:
        return weighted_costs(x, at, classes, m, log_sum, v, 0, None)
    return distance(x, at, classes, m) + classes * log_sum


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
def weighted_costs(
    x: Any, at: int, classes: int, m: float, log_sum: float, mass: Any, masses: int, factor: Any
) -> float:
    """Σ mass·factor·(log_sum + m − x) over a row; what has no mass costs nothing."""
    j, total = 0, filled(x, 0.0)
    while j + wide_count(x) <= classes:
        weight = load(mass, masses + j)
        if factor is not None:
            weight = weight * load(factor, j)
        surprise = m - load(x, at + j) + log_sum
        total += where(weight == 0.0, 0.0, weight * surprise)
        j += wide_count(x)
    last = folded_sum(total)
    while j < classes:
        some = load_some(mass, masses + j, classes - j, 0.0)
        if factor is not None:
            some = some * load_some(factor, j, classes - j, 0.0)
        some_surprise = m - load_some(x, at + j, classes - j, m) + log_sum
        last += where(some == 0.0, 0.0, some * some_surprise)
        j += narrow_count(x)
    return sum_across(last) + log_sum * 0.0  # NaN without a softmax


@kernel
def mass_sums(
    x: Any, at: int, classes: int, m: float, even: Any, v: Any, soft: Any, q: Any, labels: int
) -> Any:
    """Σ of the mass v·(even + soft·q) over the classes below the maximum, and at it."""
    j, below, top = 0, filled(x, 0.0), filled(x, 0.0)
    while j + wide_count(x) <= classes:
        mass = load_mass(x, j, even, v, soft, q, labels)
        highest = load(x, at + j) == m
        below = where(highest, below, below + mass)
        top = where(highest, top + mass, top)
        j += wide_count(x)
    last_below, last_top = folded_sum(below), folded_sum(top)
    while j < classes:
        some = load_some_mass(x, j, classes - j, even, v, soft, q, labels)
        some_highest = load_some(x, at + j, classes - j, m) == m
        last_below = where(some_highest, last_below, last_below + some)
        last_top = where(some_highest, last_top + some, last_top)
        j += narrow_count(x)
    return sum_across(last_below), sum_across(last_top)


@kernel
def load_mass(x: Any, j: int, even: Any, v: Any, soft: Any, q: Any, labels: int) -> Any:
    """v·(even + soft·q) from class j on, as a wide vector; None stands for 0, or for v = 1."""
    mass = filled(x, even)
    if soft is not None:
        mass = load(q, labels + j) * soft
        if even is not None:
            mass = mass + even
    if v is not None:
        mass = mass * load(v, j)
    return mass


@kernel
def load_some_mass(
    x: Any, j: int, n: int, even: Any, v: Any, soft: Any, q: Any, labels: int
) -> Any:
    """The same for the last n classes, as a narrow vector; 0 beyond them."""
    mass = filled_narrow(x, even)
    if soft is not None:
        mass = load_some(q, labels + j, n, 0.0) * soft
        if even is not None:
            mass = mass + even
    if v is not None:
        mass = mass * load_some(v, j, n, 0.0)
    return where(first_lanes(x, n), mass, 0.0)


@kernel
def add_log_sums(rest: Any, vector: Any, start: int, stop: int) -> None:
    """Adds log Σ exp(x − m) to each element."""
    j, count = start, narrow_count(rest)
    while j < stop:
        log_sum = log1p(load_some(rest, j, stop - j, 0.0))
        store_some(vector, j, stop - j, load_some(vector, j, stop - j, 0.0) + log_sum)
        j += count

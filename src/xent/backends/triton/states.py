"""What has been seen of a row, and how what was seen apart is put together.

A state (m, r) stands for some logits of a row: m is the largest, and r = Σ exp(x − m) over all of
them but one that is m. A logit x is the state (x, 0), and nothing at all is (−inf, −1). One or
other order of putting states together makes a difference of roundings only; an order is chosen
with the sizes of the tiles, so that equal calls on a device have equal results.

Beside it, for a mass w_c at every class: the distance Σ w_c (m − x_c), the mass Σ w_c, and the
mass of the others, Σ w_c over x_c < m. NaN logits make r NaN, whatever m is.
"""

from __future__ import annotations

import triton
import triton.language as tl

from xent.backends.triton.functions import exp


@triton.jit
def folded(m, r, axis: tl.constexpr):
    """(m, r) of all states along an axis."""
    top = tl.max(m, axis, keep_dims=True)
    lead = m == top
    parts = tl.where(lead, r, (1.0 + r) * exp(m - top))
    leaders = tl.sum(tl.where(lead, 1.0, 0.0), axis)
    return tl.max(m, axis), tl.sum(parts, axis) + (leaders - 1.0)


@triton.jit
def joined(m, r, other_m, other_r):
    """(m, r) of two states; equal maxima need no case of their own, since exp(0) is 1."""
    first = m >= other_m
    top = tl.maximum(m, other_m)
    low = tl.minimum(m, other_m)
    of_top = tl.where(first, r, other_r)
    of_low = tl.where(first, other_r, r)
    return top, of_top + (1.0 + of_low) * exp(_behind(low, top))


@triton.jit
def _behind(x, top):
    """x − top, 0 where they are equal, if infinite."""
    return tl.where(x == top, 0.0, x - top)


@triton.jit
def moved(distance, mass, m, top):
    """The distance from another maximum, of what was measured from m: no mass costs nothing."""
    return distance + tl.where(mass == 0.0, 0.0, -mass * _behind(m, top))


@triton.jit
def others(beside, mass, m, top):
    """The mass of what is below another maximum: all of it, if m is."""
    return tl.where(m == top, beside, mass)

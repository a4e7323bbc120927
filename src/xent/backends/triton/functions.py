"""Functions of numbers, for kernels. No device library: its functions are not everywhere."""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")
"""Whether triton's interpreter runs the kernels, on a CPU."""

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def exp(d):
    """exp for d ≤ 0 in three instructions: what is smaller than the normal floats becomes 0."""
    return tl.exp2(d * _LOG2_E)


@triton.jit
def log1p(r):
    """log(1 + r) for r ≥ 0, to a rounding or two; NaN for NaN.

    Up to 1 by 2·atanh(s) = 2·(s + s³/3 + …), s = r / (2 + r): log itself is exact to an absolute
    error only, near 1.
    """
    s = r / (2.0 + r)
    square = s * s
    series = tl.full(r.shape, 1.0 / 21.0, r.dtype)
    for term in tl.static_range(9, -1, -1):
        series = series * square + 1.0 / (2.0 * term + 1.0)
    return tl.where(r > 1.0, tl.log(1.0 + r), 2.0 * s * series)


@triton.jit
def expm1_of_minus(z):
    """exp(−z) − 1 for z ≥ 0, to a rounding or two where it is small: Taylor's series."""
    series = tl.full(z.shape, 1.0, z.dtype)
    for term in tl.static_range(11, 1, -1):
        series = 1.0 - series * z * (1.0 / term)
    return tl.where(z < 0.5, -z * series, tl.exp(-z) - 1.0)


@triton.jit
def narrowed(x, dtype: tl.constexpr):
    """float32 numbers in the dtype of the logits, rounded to the nearest, ties to even.

    The interpreter truncates to bfloat16: there the bits are rounded by hand.
    """
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        bits = tl.where(x != x, 0x7FC00000, bits)  # NaN
        return (bits & 0xFFFF0000).to(tl.float32, bitcast=True).to(tl.bfloat16)
    return x.to(dtype)

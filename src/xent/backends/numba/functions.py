"""exp and log1p on lanes, in the precision of the lanes."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from xent.backends.numba.lanes import F32, I32, I64, Lanes, fused, splat

# 2^r = 1 + c1·r + c2·r² + … on |r| ≤ 1/2, relative error 9.2e-8 and 1.8e-17: minimax, with the
# constant 1 fixed so that exp(0) is exactly 1.
_POWER = {
    32: (
        0.6931469775964135,
        0.24022242086993542,
        0.055507337522409175,
        0.00967151258526886,
        0.0013264724110888062,
    ),
    64: (
        0.69314718055994569675,
        0.24022650695910098006,
        0.055504108664790394528,
        0.0096181291076070026171,
        0.001333355815343996974,
        0.00015403530441571850099,
        1.525272738518977478e-5,
        1.3215442675452855182e-6,
        1.0180647660573069343e-7,
        7.0725703945407994337e-9,
        4.0780717860928704165e-10,
    ),
}


class _Format:
    """What exp and log need to know of a float's bits."""

    def __init__(self, lanes: Lanes) -> None:
        self.vector = lanes.llvm()
        single = self.vector.element == F32
        self.bits = 32 if single else 64
        self.mantissa = 23 if single else 52
        self.bias = 127 if single else 1023
        self.whole = ir.VectorType(I32 if single else I64, lanes.count)
        # A float this large has steps of 1: adding it rounds to the nearest integer, and leaves
        # that integer in the lowest bits.
        self.rounder = 1.5 * 2.0**self.mantissa
        # log2(e) in floats of this format. The first float32 is off by a tenth of its last place:
        # a relative error of 1.3e-8·|x|, which a second would mend and nobody would see.
        self.log2e = (
            (1.44269502162933349609,)
            if single
            else (1.44269504088896338700, 2.0355273740931033e-17)
        )


@intrinsic
def exp(_typing: Any, x: Any) -> Any:
    """e^x for x ≤ 0, to about two units in the last place; below the normal floats it is 0.

    NaN stays NaN.
    """
    form = _Format(x)

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        def number(value: float) -> Any:
            return splat(builder, form.vector, value)

        # At the lowest x the exponent's bits are all 0, and the power of two is 0 as well.
        lowest = number(-form.bias * math.log(2))
        clamped = builder.select(builder.fcmp_ordered(">", lowest, args[0]), lowest, args[0])
        log2e, *low = (number(part) for part in form.log2e)
        # x·log2(e) = n + r, n whole: n as a float, and n + bias in the lowest bits of `shifted`.
        shifted = fused(builder, clamped, log2e, number(form.rounder + form.bias))
        n = builder.fsub(shifted, number(form.rounder + form.bias))
        r = fused(builder, clamped, log2e, builder.fneg(n))
        for part in low:
            r = fused(builder, clamped, part, r)
        *coefficients, power = (number(c) for c in _POWER[form.bits])
        for coefficient in (*reversed(coefficients), number(1.0)):
            power = fused(builder, power, r, coefficient)
        exponent = builder.bitcast(shifted, form.whole)
        scale = builder.shl(exponent, splat(builder, form.whole, form.mantissa))
        return builder.fmul(power, builder.bitcast(scale, form.vector))

    return x(x), codegen


@intrinsic
def log1p(_typing: Any, x: Any) -> Any:
    """log(1 + x) for x ≥ 0, to about one unit in the last place, however small x is."""
    form = _Format(x)
    terms = 6 if form.bits == 32 else 12

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        def number(value: float) -> Any:
            return splat(builder, form.vector, value)

        (y,) = args
        one = number(1.0)
        u = builder.fadd(one, y)
        lost = builder.fdiv(builder.fsub(y, builder.fsub(u, one)), u)  # what the sum rounded away
        # u = 2^n·m with m in [√½, √2): the bits of √½ are where the exponent is made to step.
        half_root = splat(builder, form.whole, _bits_of_root(form))
        offset = builder.sub(builder.bitcast(u, form.whole), half_root)
        step = builder.ashr(offset, splat(builder, form.whole, form.mantissa))
        taken = builder.shl(step, splat(builder, form.whole, form.mantissa))
        m = builder.bitcast(builder.sub(builder.bitcast(u, form.whole), taken), form.vector)
        n = builder.sitofp(step, form.vector)
        # log m = 2·artanh(s), s = (m − 1) / (m + 1)
        s = builder.fdiv(builder.fsub(m, one), builder.fadd(m, one))
        square = builder.fmul(s, s)
        series = number(2.0 / (2 * terms + 1))
        for k in reversed(range(1, terms)):
            series = fused(builder, series, square, number(2.0 / (2 * k + 1)))
        odd = builder.fmul(builder.fmul(s, square), series)
        log_m = builder.fadd(builder.fadd(s, s), builder.fadd(odd, lost))
        log_u = fused(builder, n, number(math.log(2)), log_m)
        infinite = builder.fcmp_ordered("==", y, number(math.inf))
        return builder.select(infinite, y, log_u)

    return x(x), codegen


def _bits_of_root(form: _Format) -> int:
    """The bits of √½, as an integer."""
    fraction = math.sqrt(0.5) * 2 - 1  # √½ = (1 + fraction) / 2
    return ((form.bias - 1) << form.mantissa) | round(fraction * 2**form.mantissa)

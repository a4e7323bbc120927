"""From many lanes to few, and to one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xent.backends.numba.lanes import I32, I64, REGISTERS, Lanes, call, suffix


@intrinsic
def folded_sum(_typing: Any, lanes: Any) -> Any:
    """Four registers added up into one."""
    return _folded(lanes, lambda builder, x, y: builder.fadd(x, y))


@intrinsic
def folded_larger(_typing: Any, lanes: Any) -> Any:
    """The largest of four registers, lane by lane."""
    return _folded(lanes, lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))


def _folded(lanes: Lanes, join: Callable[..., Any]) -> Any:
    count = lanes.count // REGISTERS

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        parts = []
        for k in range(REGISTERS):
            places = [I32(k * count + lane) for lane in range(count)]
            mask = ir.Constant(ir.VectorType(I32, count), places)
            parts.append(builder.shuffle_vector(args[0], args[0], mask))
        pairs = join(builder, parts[0], parts[1]), join(builder, parts[2], parts[3])
        return join(builder, *pairs)

    return Lanes(lanes.element, count)(lanes), codegen


@intrinsic
def sum_across(_typing: Any, lanes: Any) -> Any:
    """The sum of all lanes, as float64."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.{suffix(args[0].type)}"
        zero = ir.Constant(args[0].type.element, -0.0)
        total = call(builder, name, zero.type, zero, args[0], flags=("reassoc",))
        return context.cast(builder, total, lanes.element, types.float64)

    return types.float64(lanes), codegen


@intrinsic
def largest_across(_typing: Any, lanes: Any) -> Any:
    """The largest lane, as float64; lanes are not NaN."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        name = f"llvm.vector.reduce.fmax.{suffix(args[0].type)}"
        top = call(builder, name, args[0].type.element, args[0], flags=("nnan", "nsz"))
        return context.cast(builder, top, lanes.element, types.float64)

    return types.float64(lanes), codegen


@intrinsic
def first_lane(_typing: Any, lanes: Any) -> Any:
    """The number in the first lane, as float64."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        number = builder.extract_element(args[0], I32(0))
        return context.cast(builder, number, lanes.element, types.float64)

    return types.float64(lanes), codegen


@intrinsic
def any_lane(_typing: Any, mask: Any) -> Any:
    """Whether the mask is set in any lane."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        whole = builder.bitcast(args[0], ir.IntType(mask.count))
        return builder.icmp_unsigned("!=", whole, ir.Constant(whole.type, 0))

    return types.boolean(mask), codegen


@intrinsic
def lanes_set(_typing: Any, mask: Any) -> Any:
    """In how many lanes the mask is set."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        bits = ir.IntType(mask.count)
        number = call(builder, f"llvm.ctpop.i{mask.count}", bits, builder.bitcast(args[0], bits))
        return number if bits == I64 else builder.zext(number, I64)

    return types.int64(mask), codegen

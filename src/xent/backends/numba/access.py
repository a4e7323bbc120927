"""From memory into lanes and back: at any offset, with a mask at the ends, with any float type.

An array stands for memory here, from its first element on: offsets count elements and may go
beyond the array's own length, as far as the tensor behind it goes. Kernels check nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from xent.backends.numba.lanes import (
    F32,
    F64,
    I16,
    I32,
    I64,
    Lanes,
    call,
    computed,
    narrow,
    splat,
    suffix,
    wide,
)

BFLOAT16, FLOAT16 = types.uint16, types.int16  # stand-ins: numpy has no bfloat16, numba no float16
_IN_MEMORY = {
    types.float32: F32,
    types.float64: F64,
    FLOAT16: ir.HalfType(),
    BFLOAT16: I16,
    types.boolean: ir.IntType(8),
    types.int64: I64,
}


@intrinsic
def memory_at(_typing: Any, address: Any, like: Any) -> Any:
    """The memory at an address as an array with the dtype of ``like``; None if that is None."""
    if isinstance(like, types.NoneType):
        return types.none(address, like), lambda context, *_: context.get_dummy_value()

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array = make_array(sig.return_type)(context, builder, args[1])
        array.data = builder.inttoptr(args[0], array.data.type)
        for owner in ("meminfo", "parent"):  # whoever has the address keeps the memory alive
            setattr(array, owner, ir.Constant(getattr(array, owner).type, None))
        return array._getvalue()

    return like(address, like), codegen


@intrinsic
def load(_typing: Any, array: Any, offset: Any) -> Any:
    """A wide vector from this offset on."""
    return _load(wide(array.dtype), array, offset)


@intrinsic
def load_some(_typing: Any, array: Any, offset: Any, count: Any, fill: Any) -> Any:
    """A narrow vector of which only the first ``count`` lanes are read; the others are ``fill``."""
    return _load_some(narrow(array.dtype), array, offset, count, fill)


@intrinsic
def load_part(_typing: Any, array: Any, offset: Any, count: Any, fill: Any) -> Any:
    """A wide vector of which only the first ``count`` lanes are read; the others are ``fill``."""
    return _load_some(wide(array.dtype), array, offset, count, fill)


@intrinsic
def first_lanes(_typing: Any, array: Any, count: Any) -> Any:
    """A mask of the first ``count`` lanes of a narrow vector for this array."""
    lanes = narrow(array.dtype)
    mask = Lanes(types.boolean, lanes.count)
    return mask(array, count), lambda _context, builder, _sig, args: first_mask(
        builder, lanes.count, args[1]
    )


@intrinsic
def load_flags(_typing: Any, array: Any, offset: Any, count: Any, like: Any) -> Any:
    """The first ``count`` of these bools as a mask for this vector; the others are False."""
    lanes = Lanes(types.boolean, like.count)

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = ir.VectorType(ir.IntType(8), like.count)
        pointer = pointer_to(context, builder, array, args[0], args[1], memory)
        mask = first_mask(builder, like.count, args[2])
        flags = masked_load(builder, memory, pointer, mask)
        return builder.trunc(flags, lanes.llvm())

    return lanes(array, offset, count, like), codegen


@intrinsic
def read(_typing: Any, array: Any, offset: Any) -> Any:
    """One number, as float64; None from None."""
    if isinstance(array, types.NoneType):
        return types.none(array, offset), lambda context, *_: context.get_dummy_value()
    lanes = Lanes(computed(array.dtype), 1)

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = memory_type(array, lanes)
        pointer = pointer_to(context, builder, array, args[0], args[1], memory)
        one = widened(builder, builder.load(pointer, align=1), lanes)
        number = builder.extract_element(one, I32(0))
        return context.cast(builder, number, lanes.element, types.float64)

    return types.float64(array, offset), codegen


@intrinsic
def write(_typing: Any, array: Any, offset: Any, number: Any) -> Any:
    """Writes one number."""
    lanes = Lanes(computed(array.dtype), 1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = memory_type(array, lanes)
        one = splat(
            builder, lanes.llvm(), context.cast(builder, args[2], sig.args[2], lanes.element)
        )
        pointer = pointer_to(context, builder, array, args[0], args[1], memory)
        builder.store(narrowed(builder, one, memory), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, offset, number), codegen


def _load_some(lanes: Lanes, array: Any, offset: Any, count: Any, fill: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        filled = context.cast(builder, args[3], sig.args[3], lanes.element)
        mask = first_mask(builder, lanes.count, args[2])
        memory = memory_type(array, lanes)
        pointer = pointer_to(context, builder, array, args[0], args[1], memory)
        raw = masked_load(builder, memory, pointer, mask)
        return builder.select(
            mask, widened(builder, raw, lanes), splat(builder, lanes.llvm(), filled)
        )

    return lanes(array, offset, count, fill), codegen


@intrinsic
def store(_typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Writes all lanes from this offset on."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = memory_type(array, value)
        pointer = pointer_to(context, builder, array, args[0], args[1], memory)
        builder.store(narrowed(builder, args[2], memory), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, offset, value), codegen


@intrinsic
def store_some(_typing: Any, array: Any, offset: Any, count: Any, value: Any) -> Any:
    """Writes the first ``count`` lanes, of a narrow or of a wide vector."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = memory_type(array, value)
        call(
            builder,
            f"llvm.masked.store.{suffix(memory)}.p0",
            ir.VoidType(),
            narrowed(builder, args[3], memory),
            pointer_to(context, builder, array, args[0], args[1], memory),
            I32(1),
            first_mask(builder, value.count, args[2]),
        )
        return context.get_dummy_value()

    return types.void(array, offset, count, value), codegen


@intrinsic
def prefetch(_typing: Any, array: Any, offset: Any) -> Any:
    """Asks for the memory of a wide vector, to be in the cache when its turn comes."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        lanes = wide(array.dtype)
        memory = memory_type(array, lanes)
        pointer = pointer_to(context, builder, array, args[0], args[1], memory)
        line = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        for start in range(0, lanes.count * array.dtype.bitwidth // 8, 64):
            at = builder.gep(line, [I32(start)])
            call(builder, "llvm.prefetch.p0", ir.VoidType(), at, I32(0), I32(2), I32(1))
        return context.get_dummy_value()

    return types.void(array, offset), codegen


def _load(lanes: Lanes, array: Any, offset: Any) -> Any:
    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = memory_type(array, lanes)
        pointer = pointer_to(context, builder, array, args[0], args[1], memory)
        return widened(builder, builder.load(pointer, align=1), lanes)

    return lanes(array, offset), codegen


def masked_load(builder: Any, memory: ir.VectorType, pointer: Any, mask: Any) -> Any:
    """A vector of memory; lanes that are not in the mask are 0, and not read."""
    name = f"llvm.masked.load.{suffix(memory)}.p0"
    return call(builder, name, memory, pointer, I32(1), mask, ir.Constant(memory, None))


def memory_type(array: Any, lanes: Lanes) -> ir.VectorType:
    """So many elements of an array, as they lie in memory."""
    return ir.VectorType(_IN_MEMORY[array.dtype], lanes.count)


def pointer_to(context: Any, builder: Any, kind: Any, array: Any, offset: Any, memory: Any) -> Any:
    """The address of an array's element, for a vector of this type."""
    data = make_array(kind)(context, builder, array).data
    typed = builder.bitcast(data, memory.element.as_pointer())
    return builder.bitcast(builder.gep(typed, [offset]), memory.as_pointer())


def first_mask(builder: Any, lanes: int, count: Any) -> Any:
    """A mask of the first ``count`` lanes."""
    all_ = ir.Constant(count.type, lanes)  # more than all would not fit 32 bits
    count = builder.select(builder.icmp_signed("<", count, all_), count, all_)
    places = ir.VectorType(I32, lanes)
    order = ir.Constant(places, [I32(k) for k in range(lanes)])
    limit = splat(builder, places, builder.trunc(count, I32))
    return builder.icmp_signed("<", order, limit)


def widened(builder: Any, raw: Any, lanes: Lanes) -> Any:
    """What was in memory, as it is computed with."""
    vector = lanes.llvm()
    if raw.type.element == I16:  # bfloat16 is the upper half of a float32
        whole = ir.VectorType(I32, lanes.count)
        upper = builder.shl(builder.zext(raw, whole), splat(builder, whole, 16))
        return builder.bitcast(upper, vector)
    return raw if raw.type == vector else builder.fpext(raw, vector)


def narrowed(builder: Any, value: Any, memory: ir.VectorType) -> Any:
    """What was computed, as it is stored: to the nearest, ties to even."""
    if memory.element != I16:
        return value if value.type == memory else builder.fptrunc(value, memory)
    whole = ir.VectorType(I32, memory.count)
    bits = builder.bitcast(value, whole)
    sixteen, one = splat(builder, whole, 16), splat(builder, whole, 1)
    odd = builder.and_(builder.lshr(bits, sixteen), one)
    rounded = builder.add(bits, builder.add(odd, splat(builder, whole, 0x7FFF)))
    nan = builder.fcmp_unordered("!=", value, value)  # rounding could turn one into infinity
    kept = builder.select(nan, splat(builder, whole, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(kept, sixteen), memory)

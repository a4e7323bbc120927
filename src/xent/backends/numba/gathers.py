"""Memory at places that are looked up: one address per lane."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xent.backends.numba.access import (
    first_mask,
    masked_load,
    memory_type,
    narrowed,
    pointer_to,
    widened,
)
from xent.backends.numba.lanes import I32, I64, call, splat, suffix, wide


@intrinsic
def gather(
    _typing: Any, array: Any, offset: Any, stride: Any, index: Any, first: Any, count: Any
) -> Any:
    """``array[offset + lane + stride·index[first + lane]]``; lanes from ``count`` on are 0."""
    lanes = wide(array.dtype)

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = memory_type(array, lanes)
        mask = first_mask(builder, lanes.count, args[5])
        pointers = _pointers(context, builder, array, index, args, mask, memory)
        return widened(builder, _gathered(builder, memory, pointers, mask), lanes)

    return lanes(array, offset, stride, index, first, count), codegen


@intrinsic
def look_up(_typing: Any, table: Any, index: Any, first: Any, count: Any) -> Any:
    """``table[index[first + lane]]``; lanes from ``count`` on are 0."""
    lanes = wide(table.dtype)

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = memory_type(table, lanes)
        mask = first_mask(builder, lanes.count, args[3])
        place = (args[0], I64(0), I64(1), args[1], args[2])
        pointers = _pointers(context, builder, table, index, place, mask, memory, apart=0)
        return widened(builder, _gathered(builder, memory, pointers, mask), lanes)

    return lanes(table, index, first, count), codegen


@intrinsic
def scatter(
    _typing: Any, array: Any, offset: Any, stride: Any, index: Any, first: Any, count: Any,
    value: Any,
) -> Any:  # fmt: skip
    """Writes lanes to where ``gather`` reads them."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        memory = memory_type(array, value)
        mask = first_mask(builder, value.count, args[5])
        pointers = _pointers(context, builder, array, index, args, mask, memory)
        name = f"llvm.masked.scatter.{suffix(memory)}.v{value.count}p0"
        stored = narrowed(builder, args[6], memory)
        call(builder, name, ir.VoidType(), stored, pointers, I32(1), mask)
        return context.get_dummy_value()

    return types.void(array, offset, stride, index, first, count, value), codegen


def _gathered(builder: Any, memory: ir.VectorType, pointers: Any, mask: Any) -> Any:
    name = f"llvm.masked.gather.{suffix(memory)}.v{memory.count}p0"
    return call(builder, name, memory, pointers, I32(1), mask, ir.Constant(memory, None))


def _pointers(
    context: Any, builder: Any, kind: Any, index: Any, args: Any, mask: Any, memory: Any,
    apart: int = 1,
) -> Any:  # fmt: skip
    """One address per lane, ``apart`` elements from the last one for the same index.

    ``args`` begins with array, offset, stride, index array and its first element.
    """
    array, offset, stride, indices, first = args[:5]
    whole = ir.VectorType(I64, memory.count)
    labels = masked_load(
        builder, whole, pointer_to(context, builder, index, indices, first, whole), mask
    )
    lane = ir.Constant(whole, [I64(k * apart) for k in range(memory.count)])
    steps = builder.add(builder.mul(labels, splat(builder, whole, stride)), lane)
    base = builder.ptrtoint(pointer_to(context, builder, kind, array, offset, memory), I64)
    size = kind.dtype.bitwidth // 8
    bytes_ = builder.mul(steps, splat(builder, whole, size))
    addresses = builder.add(splat(builder, whole, base), bytes_)
    return builder.inttoptr(addresses, ir.VectorType(ir.PointerType(), memory.count))

"""Vectors in registers: how kernels reach the whole width of a CPU.

LLVM turns plain loops into vector code, but not all of them, not with as wide registers as there
are, and with a slow scalar rest at the end of each row. So kernels name their vectors. A ``Lanes``
holds one number per lane, all treated alike; ``+ − * <`` and so on work on each lane, and a
scalar operand meets them all.

Two widths: *narrow*, one register, with a mask where a row ends; *wide*, four registers at once,
since an addition takes four cycles and a new one can begin in each of them.

Numbers in memory are float32, float64, float16 or bfloat16. In registers they are float64 for
float64, else float32; conversion is exact on the way in, and to the nearest, ties to even, on the
way out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core.datamodel import PrimitiveModel
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

F32, F64, BIT = ir.FloatType(), ir.DoubleType(), ir.IntType(1)
I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _register_bytes() -> int:
    """The widest vector register of this CPU."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512bw"):
        return 64
    return 32 if features.get("avx2") else 16


REGISTER = _register_bytes()
REGISTERS = 4


class Lanes(types.Type):  # type: ignore[misc]  # numba ships no type hints
    """The type of a vector: ``count`` numbers of one kind, float32, float64 or bool."""

    def __init__(self, element: Any, count: int) -> None:
        self.element, self.count = element, count
        super().__init__(name=f"Lanes({element}, {count})")

    def llvm(self) -> ir.VectorType:
        """The same type, as LLVM knows it."""
        kinds = {types.float32: F32, types.float64: F64, types.boolean: BIT}
        return ir.VectorType(kinds[self.element], self.count)


@register_model(Lanes)
class _LanesModel(PrimitiveModel):  # type: ignore[misc]  # as above
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.llvm())


def computed(element: Any) -> Any:
    """The kind of number that a kind in memory becomes in registers."""
    return types.float64 if element == types.float64 else types.float32


def wide(element: Any) -> Lanes:
    """The type of four registers of what ``element`` becomes."""
    return Lanes(computed(element), REGISTERS * REGISTER * 8 // computed(element).bitwidth)


def narrow(element: Any) -> Lanes:
    """The type of one register of what ``element`` becomes."""
    return Lanes(computed(element), REGISTER * 8 // computed(element).bitwidth)


def splat(builder: Any, vector: ir.VectorType, value: Any) -> Any:
    """One scalar in every lane; a Python number or an LLVM value of the element's type."""
    if not isinstance(value, ir.Value):
        value = ir.Constant(vector.element, value)
    start = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(start, value, I32(0))
    return builder.shuffle_vector(one, start, ir.Constant(ir.VectorType(I32, vector.count), None))


def call(builder: Any, name: str, result: Any, *args: Any, flags: tuple[str, ...] = ()) -> Any:
    """A call of an LLVM intrinsic by its full name."""
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(result, [a.type for a in args])
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, args, fastmath=flags)


def suffix(vector: ir.VectorType) -> str:
    """How LLVM spells a vector type in the names of intrinsics."""
    floats = {F32: "f32", F64: "f64", ir.HalfType(): "f16"}
    kind = floats.get(vector.element) or f"i{vector.element.width}"
    return f"v{vector.count}{kind}"


def fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x·y + z, rounded once where the CPU can."""
    return call(builder, f"llvm.fmuladd.{suffix(x.type)}", x.type, x, y, z)


def constants(vector: ir.VectorType, values: Any) -> ir.Constant:
    """A vector of known numbers."""
    return ir.Constant(vector, [ir.Constant(vector.element, v) for v in values])


_ARITHMETIC = {
    operator.add: "fadd",
    operator.iadd: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}
_COMPARISON = {operator.eq: "==", operator.lt: "<", operator.ne: "!="}


def _operator(symbol: Any, lower: Callable[..., Any], *, result: Any = None) -> None:
    """Teaches numba an operator between lanes, or between lanes and a scalar."""

    @infer_global(symbol)
    class _Typing(AbstractTemplate):  # type: ignore[misc]  # numba's, as well
        def generic(self, args: Any, kws: Any) -> Any:
            del kws
            lanes = next((a for a in args if isinstance(a, Lanes)), None)
            if lanes is None or len(args) != 2:
                return None
            if not all(a == lanes or isinstance(a, types.Number) for a in args):
                return None
            kind = lanes if result is None else Lanes(result, lanes.count)
            return signature(kind, *args)

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = next(a for a in sig.args if isinstance(a, Lanes))
        values = [
            _spread(context, builder, kind, value, lanes)
            for kind, value in zip(sig.args, args, strict=True)
        ]
        return lower(builder, *values)

    for pair in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(symbol, *pair)(lowered)


def _spread(context: Any, builder: Any, kind: Any, value: Any, lanes: Lanes) -> Any:
    if isinstance(kind, Lanes):
        return value
    if isinstance(kind, types.NoneType):
        return ir.Constant(lanes.llvm(), None)  # zeros
    return splat(builder, lanes.llvm(), context.cast(builder, value, kind, lanes.element))


def _arithmetic(name: str) -> Callable[..., Any]:
    # "contract" lets LLVM fuse a product and a sum; nothing else is allowed, so that NaN and
    # infinities behave.
    return lambda builder, x, y: getattr(builder, name)(x, y, flags=("contract",))


def _comparison(sign: str) -> Callable[..., Any]:
    if sign == "!=":  # true for NaN, as everywhere
        return lambda builder, x, y: builder.fcmp_unordered(sign, x, y)
    return lambda builder, x, y: builder.fcmp_ordered(sign, x, y)


for _symbol, _name in _ARITHMETIC.items():
    _operator(_symbol, _arithmetic(_name))
for _symbol, _name in _COMPARISON.items():
    _operator(_symbol, _comparison(_name), result=types.boolean)


@intrinsic
def where(_typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """``yes`` where the mask is set, else ``no``; either may be a scalar."""
    lanes = yes if isinstance(yes, Lanes) else no

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [
            _spread(context, builder, kind, value, lanes)
            for kind, value in zip(sig.args[1:], args[1:], strict=True)
        ]
        return builder.select(args[0], *values)

    return lanes(mask, yes, no), codegen


@intrinsic
def larger(_typing: Any, x: Any, y: Any) -> Any:
    """The larger of two; y where either is NaN: one instruction on x86, unlike IEEE's maximum."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [
            _spread(context, builder, kind, value, sig.return_type)
            for kind, value in zip(sig.args, args, strict=True)
        ]
        return builder.select(builder.fcmp_ordered(">", *values), *values)

    return (x if isinstance(x, Lanes) else y)(x, y), codegen


@intrinsic
def filled(_typing: Any, array: Any, value: Any) -> Any:
    """A wide vector for what this array holds, with one number in every lane; None is 0."""
    lanes = wide(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _spread(context, builder, sig.args[1], args[1], lanes)

    return lanes(array, value), codegen


@intrinsic
def filled_narrow(_typing: Any, array: Any, value: Any) -> Any:
    """A narrow vector for what this array holds, with one number in every lane; None is 0."""
    lanes = narrow(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _spread(context, builder, sig.args[1], args[1], lanes)

    return lanes(array, value), codegen


@intrinsic
def wide_count(_typing: Any, array: Any) -> Any:
    """How many numbers of this array a wide vector holds."""
    return types.intp(array), lambda *_: I64(wide(array.dtype).count)


@intrinsic
def narrow_count(_typing: Any, array: Any) -> Any:
    """How many numbers of this array a narrow vector holds."""
    return types.intp(array), lambda *_: I64(narrow(array.dtype).count)

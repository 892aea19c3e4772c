"""Vector types for compiled code over several candidates, one per lane.

Values common to all candidates (sizes, loops) stay ordinary code. Where candidates differ, code computes both branches
and selects by `choose`. Comparisons give integers with all bits set, or none.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array

from fastconv.native.source.vectors import I32, I64, external, splat

WIDTH = 16
"""Number of candidates per vector: it spans several registers of any CPU, to hide latency."""


class Lanes(types.Type):
    """The type of one float64 or int64 number per candidate."""

    def __init__(self, name: str, element: ir.Type) -> None:
        super().__init__(name=f"{WIDTH} {name}")
        self.vector = ir.VectorType(element, WIDTH)


reals, wholes = Lanes("reals", ir.DoubleType()), Lanes("wholes", I64)


@register_model(Lanes)
class _Register(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, kind.vector)


def _spread(builder: Any, value: Any) -> Any:
    """Return a vector with the same number for every candidate."""
    if isinstance(value.type, ir.VectorType):
        return value
    return splat(builder, value, ir.VectorType(value.type, WIDTH))


def _define(op: Any, result: Lanes, operands: tuple[Any, ...], emit: Callable[..., Any]) -> None:
    """Define a Python operator on lanes, or on lanes and a number."""

    class Typed(ConcreteTemplate):  # type: ignore[misc]
        cases = [signature(result, *operands)]

    infer_global(op)(Typed)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *(_spread(builder, a) for a in args))

    lower_builtin(op, *operands)(lower)


def _compare(real: bool, sign: str) -> Callable[..., Any]:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        bits = builder.fcmp_ordered(sign, a, b) if real else builder.icmp_signed(sign, a, b)
        return builder.sext(bits, wholes.vector)

    return emit


for _operands in ((reals, reals), (reals, types.float64), (types.float64, reals)):
    _define(operator.add, reals, _operands, lambda builder, a, b: builder.fadd(a, b))
    _define(operator.sub, reals, _operands, lambda builder, a, b: builder.fsub(a, b))
    _define(operator.mul, reals, _operands, lambda builder, a, b: builder.fmul(a, b))
    _define(operator.truediv, reals, _operands, lambda builder, a, b: builder.fdiv(a, b))
    for _op, _sign in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.eq, "==")):
        _define(_op, wholes, _operands, _compare(True, _sign))
for _pair in ((wholes, wholes), (wholes, types.int64)):
    _define(operator.add, wholes, _pair, lambda builder, a, b: builder.add(a, b))
    _define(operator.sub, wholes, _pair, lambda builder, a, b: builder.sub(a, b))
    _define(operator.and_, wholes, _pair, lambda builder, a, b: builder.and_(a, b))
    _define(operator.or_, wholes, _pair, lambda builder, a, b: builder.or_(a, b))
    _define(operator.xor, wholes, _pair, lambda builder, a, b: builder.xor(a, b))
    _define(operator.rshift, wholes, _pair, lambda builder, a, b: builder.lshr(a, b))
    _define(operator.lshift, wholes, _pair, lambda builder, a, b: builder.shl(a, b))
    for _op, _sign in ((operator.eq, "=="), (operator.ne, "!="), (operator.ge, ">=")):
        _define(_op, wholes, _pair, _compare(False, _sign))
_define(operator.invert, wholes, (wholes,), lambda builder, a: builder.not_(a))


def _called(builder: Any, name: str, *args: Any) -> Any:
    name = f"llvm.{name}.v{WIDTH}f64"
    kind = ir.FunctionType(reals.vector, [reals.vector] * len(args))
    return builder.call(external(builder, name, kind), args)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return the address of the lanes at an index; the candidates are the last axis of the array."""
    parts = make_array(kind)(context, builder, array)
    shape = cgutils.unpack_tuple(builder, parts.shape)
    first, *rest = cgutils.unpack_tuple(builder, index)
    for i, size in zip(rest, shape[1:], strict=False):
        first = builder.add(builder.mul(first, size), i)
    return builder.gep(parts.data, [builder.mul(first, I64(WIDTH))])


@intrinsic
def get(typingctx: Any, array: Any, index: Any) -> Any:
    """Return the lanes at an index, a tuple of integers."""
    result = reals if array.dtype == types.float64 else wholes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        where = _address(context, builder, array, *args)
        return builder.load(builder.bitcast(where, result.vector.as_pointer()), align=8)

    return result(array, index), codegen


@intrinsic
def put(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write lanes, or the same number for all, at an index."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = _spread(builder, args[2])
        where = _address(context, builder, array, *args[:2])
        builder.store(lanes, builder.bitcast(where, lanes.type.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def take(typingctx: Any, table: Any, offset: Any, index: Any) -> Any:
    """Return the entries of a flat table at an offset plus each candidate's index."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = builder.gep(make_array(table)(context, builder, args[0]).data, [args[1]])
        result = ir.Constant(reals.vector, ir.Undefined)
        for k in range(WIDTH):
            entry = builder.load(builder.gep(data, [builder.extract_element(args[2], I32(k))]))
            result = builder.insert_element(result, entry, I32(k))
        return result

    return reals(table, types.int64, wholes), codegen


@intrinsic
def spread(typingctx: Any, number: Any) -> Any:
    """Return lanes with the same number for every candidate."""
    result = wholes if isinstance(number, types.Integer) else reals

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _spread(builder, args[0])

    return result(types.int64 if result is wholes else types.float64), codegen


@intrinsic
def choose(typingctx: Any, where: Any, a: Any, b: Any) -> Any:
    """Return a where the comparison `where` holds, and b elsewhere."""
    result = wholes if wholes in (a, b) else reals

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        holds = builder.icmp_signed("<", args[0], ir.Constant(wholes.vector, [0] * WIDTH))
        return builder.select(holds, _spread(builder, args[1]), _spread(builder, args[2]))

    return result(wholes, a, b), codegen


@intrinsic
def any_of(typingctx: Any, where: Any) -> Any:
    """Return whether a comparison holds for any candidate."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        holds = builder.icmp_signed("<", args[0], ir.Constant(wholes.vector, [0] * WIDTH))
        whole = ir.IntType(WIDTH)
        return builder.icmp_unsigned("!=", builder.bitcast(holds, whole), whole(0))

    return types.boolean(wholes), codegen


@intrinsic
def fused(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once where the CPU has an instruction for it."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _called(builder, "fmuladd", *(_spread(builder, a) for a in args))

    return reals(a, b, c), codegen


@intrinsic
def root(typingctx: Any, a: Any) -> Any:
    """Return the square root."""
    return reals(reals), lambda context, builder, sig, args: _called(builder, "sqrt", args[0])


@intrinsic
def magnitude(typingctx: Any, a: Any) -> Any:
    """Return the absolute value."""
    return reals(reals), lambda context, builder, sig, args: _called(builder, "fabs", args[0])


@intrinsic
def pattern(typingctx: Any, a: Any) -> Any:
    """Return the bits of a float64 as an integer."""
    return wholes(reals), lambda context, builder, sig, args: builder.bitcast(args[0], wholes.vector)


@intrinsic
def number(typingctx: Any, a: Any) -> Any:
    """Return the float64 with these bits."""
    return reals(wholes), lambda context, builder, sig, args: builder.bitcast(args[0], reals.vector)


@intrinsic
def whole_part(typingctx: Any, a: Any) -> Any:
    """Return the integer part of numbers between 0 and 2**31."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sext(builder.fptosi(args[0], ir.VectorType(I32, WIDTH)), wholes.vector)

    return wholes(reals), codegen


@intrinsic
def as_real(typingctx: Any, a: Any) -> Any:
    """Return integers between 0 and 2**31 as float64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(builder.trunc(args[0], ir.VectorType(I32, WIDTH)), reals.vector)

    return reals(wholes), codegen

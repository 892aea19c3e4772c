"""Emit vectorised activations and products, see `fastconv.kernels.operators.curves`."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.records import CURVE
from fastconv.kernels.source.engine import copy
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import I64, claim, load_at, multiplied_and_added, pointer, splat, store_at, vector_of

_LOG_2 = Fraction("0.693147180559945309417232121458176568")
_FORMATS = {"f4": (23, 7, 88.0, ir.IntType(32)), "f8": (52, 13, 709.0, I64)}
"""Bits of the significand, degree of the polynomial, largest argument of exp, integer of the same size."""


def _constant(vector: ir.Type, value: float) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _bounded(builder: Any, x: Any, low: float, high: float) -> Any:
    """Return a vector clamped to the bounds; NaN stays NaN."""
    below, above = _constant(x.type, low), _constant(x.type, high)
    x = builder.select(builder.fcmp_ordered("<", x, below), below, x)
    return builder.select(builder.fcmp_ordered(">", x, above), above, x)


def _exponential(builder: Any, kind: str, t: Any) -> Any:
    """Return exp(t), if a normal number, as 2^k exp(r) with r within half an octave of zero."""
    bits, degree, _, integer = _FORMATS[kind]
    vector, fused = t.type, machine().fma
    number = np.float32 if kind == "f4" else np.float64

    def add(a: Any, b: float, c: Any) -> Any:
        return multiplied_and_added(builder, a, _constant(vector, b), c, fused)

    magic = _constant(vector, 1.5 * 2.0**bits)
    shifted = add(t, 1 / math.log(2), magic)
    k = builder.fsub(shifted, magic)
    high = float(np.ldexp(np.round(np.ldexp(math.log(2), bits // 2)), -(bits // 2)))  # so few bits that k * high is exact
    r = add(k, -float(number(float(_LOG_2 - Fraction(high)))), add(k, -high, t))
    total = _constant(vector, float(number(1 / math.factorial(degree))))
    for d in range(degree - 1, -1, -1):
        total = multiplied_and_added(builder, total, r, _constant(vector, float(number(1 / math.factorial(d)))), fused)
    lane = ir.VectorType(integer, vector.count)
    power = builder.shl(builder.bitcast(shifted, lane), ir.Constant(lane, [bits] * vector.count))
    return builder.bitcast(builder.add(builder.bitcast(total, lane), power), vector)


def _sigmoid(builder: Any, kind: str, x: Any) -> Any:
    largest, one = _FORMATS[kind][2], _constant(x.type, 1.0)
    # exp(-x) beyond either bound changes nothing: 1 + exp(-x) rounds to 1, or its inverse is not a normal number.
    t = _bounded(builder, builder.fsub(_constant(x.type, -0.0), x), -largest + 1, largest)
    y = builder.fdiv(one, builder.fadd(one, _exponential(builder, kind, t)))
    return builder.select(builder.fcmp_unordered("uno", x, x), x, y)


def _number_at(builder: Any, address: Any, vector: ir.Type) -> Any:
    return splat(builder, load_at(builder, address, vector.element), vector)


def _product(builder: Any, kind: str, x: Any, other: Any, table: Any) -> Any:
    return builder.fmul(x, load_at(builder, other, x.type))


def _scaled(builder: Any, kind: str, x: Any, other: Any, table: Any) -> Any:
    return builder.fmul(x, _number_at(builder, other, x.type))


def _swish(builder: Any, kind: str, x: Any, other: Any, table: Any) -> Any:
    return builder.fmul(x, _sigmoid(builder, kind, builder.fmul(_number_at(builder, table, x.type), x)))


def _hard_sigmoid(builder: Any, kind: str, x: Any, other: Any, table: Any) -> Any:
    alpha, beta = (_number_at(builder, builder.add(table, I64(k * SIZE[kind])), x.type) for k in (0, 1))
    return _bounded(builder, builder.fadd(builder.fmul(alpha, x), beta), 0.0, 1.0)


def _hard_swish(builder: Any, kind: str, x: Any, other: Any, table: Any) -> Any:
    line = builder.fadd(builder.fdiv(x, _constant(x.type, 6.0)), _constant(x.type, 0.5))
    return builder.fmul(x, _bounded(builder, line, 0.0, 1.0))


CURVES: dict[str, Callable[[Any, str, Any, Any, Any], Any]] = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "product": _product,
    "scaled": _scaled,
    "sigmoid": lambda builder, kind, x, other, table: _sigmoid(builder, kind, x),
    "swish": _swish,
}
"""Each emits one vector of a curve from ``(builder, kind, x, other, table)``: second factor at `other`, alpha and beta at `table`."""


def curve_writer(kind: str, name: str) -> Any:
    """Return ``write(dst, src, other, table)``, which writes one vector of a curve."""
    vector = vector_of(kind, lanes_of(kind))

    @intrinsic
    def write(typingctx: Any, dst: Any, src: Any, other: Any, table: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            dst, src, other, table = args
            store_at(builder, CURVES[name](builder, kind, load_at(builder, src, vector), other, table), dst)
            return context.get_dummy_value()

        return types.void(dst, src, other, table), codegen

    return write


def curve(kind: str, name: str) -> Callable[..., None]:
    """Return a kernel that computes a curve; for ``"scaled"`` a piece is a plane."""
    lanes, size = lanes_of(kind), SIZE[kind]
    write = curve_writer(kind, name)
    vector, planes, pairs = lanes * size, name == "scaled", name == "product"

    def curve(description, counter, items, x, other, table, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), CURVE)[0]
        total, piece, count, group = d.total * size, d.piece * size, d.count, d.group
        item = claim(counter)
        while item < items:
            for k in range(item * group, min(count, (item + 1) * group)):
                at = k * piece
                length = min(piece, total - at)
                src, dst, second = x + at, y + at, other
                if planes:
                    second = other + k * size
                if pairs:
                    second = other + at
                if length >= vector:
                    i = 0
                    while i + vector <= length:
                        write(dst + i, src + i, second + i * pairs, table)
                        i += vector
                    if i < length:  # the last vector overlaps the one before and writes the same values
                        i = length - vector
                        write(dst + i, src + i, second + i * pairs, table)
                else:
                    copy(workspace, src, length)
                    if pairs:
                        copy(workspace + 2 * vector, second, length)
                        second = workspace + 2 * vector
                    write(workspace + vector, workspace, second, table)
                    copy(dst, workspace + vector, length)
            item = claim(counter)

    return curve

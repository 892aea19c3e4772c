"""Element-wise operators: arithmetic, comparison, logic, rounding and the elementary functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call, Definition
from fastconv.network.operators.record import Operator


def unary(function: Callable[[Array], Any]) -> Definition:
    """Return the operator that applies `function` to each element and keeps the element type."""

    def operator(call: Call, x: Array) -> Array:
        return np.asarray(function(x)).astype(x.dtype, copy=False)

    return operator


def predicate(function: Callable[[Array], Any]) -> Definition:
    """Return the operator that applies a boolean `function` to each element."""

    def operator(call: Call, x: Array) -> Array:
        return np.asarray(function(x)).astype(bool, copy=False)

    return operator


def paired(call: Call, *arrays: Array) -> None:
    """Reject tensors that do not broadcast, have different types, or give too large a result."""
    if len({array.dtype for array in arrays}) > 1:
        raise ValueError(f"the inputs must have one type, not {', '.join(str(array.dtype) for array in arrays)}")
    call.reserve(np.broadcast_shapes(*(array.shape for array in arrays)), arrays[0].dtype)


def binary(function: Callable[[Array, Array], Any]) -> Definition:
    """Return the broadcasting operator of two inputs of one type, whose result has that type."""

    def operator(call: Call, a: Array, b: Array) -> Array:
        paired(call, a, b)
        return np.asarray(function(a, b)).astype(a.dtype, copy=False)

    return operator


def comparison(function: Callable[[Array, Array], Any]) -> Definition:
    """Return the broadcasting operator of two inputs of one type, whose result is boolean."""

    def operator(call: Call, a: Array, b: Array) -> Array:
        paired(call, a, b)
        return np.asarray(function(a, b)).astype(bool, copy=False)

    return operator


def variadic(function: Callable[[Array, Array], Any]) -> Definition:
    """Return the broadcasting operator of one or more inputs, folded from the left."""

    def operator(call: Call, *arrays: Array) -> Array:
        paired(call, *arrays)
        return np.asarray(reduce(function, arrays)).astype(arrays[0].dtype, copy=False)

    return operator


def divide(a: Array, b: Array) -> Array:
    """Return a / b; integers round towards zero, as in C, while numpy rounds down."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)).astype(quotient.dtype))


def modulo(call: Call, a: Array, b: Array) -> Array:
    """Return the remainder with the sign of the divisor, or of the dividend (C's fmod) by attribute."""
    paired(call, a, b)
    return np.asarray(np.fmod(a, b) if call["fmod"] else np.mod(a, b))


def power(call: Call, a: Array, b: Array) -> Array:
    """Return the power with the type of the base; the exponent may have another type."""
    call.reserve(np.broadcast_shapes(a.shape, b.shape), np.float64)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu" and (b >= 0).all():
        return np.asarray(np.power(a, b.astype(a.dtype)))
    if a.dtype.kind in "iu" or a.dtype.itemsize < 4:
        return np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype)
    return np.asarray(np.power(a, b.astype(a.dtype)))


def mean(call: Call, *arrays: Array) -> Array:
    """Return the mean of one or more inputs."""
    paired(call, *arrays)
    return np.asarray(reduce(np.add, arrays) / len(arrays)).astype(arrays[0].dtype, copy=False)


def error_function(x: Array) -> Array:
    """Apply erf to each element."""
    from scipy.special import erf

    return np.asarray(erf(x))


def is_infinite(call: Call, x: Array) -> Array:
    """Return where x is positive infinity, negative infinity or either, by attributes."""
    answer = np.zeros(x.shape, bool)
    if call["detect_positive"]:
        answer |= x == np.inf
    if call["detect_negative"]:
        answer |= x == -np.inf
    return answer


def clip(call: Call, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Clip from below, then from above: with low > high every output is `high`."""
    if call.opset < 11:
        low, high = np.asarray(call["min"], x.dtype), np.asarray(call["max"], x.dtype)
    for name, bound in (("min", low), ("max", high)):
        if bound is not None and bound.size != 1:
            raise ValueError(f"{name} must be one number, not of shape {bound.shape}")
    x = x if low is None else np.maximum(x, low.reshape(()).astype(x.dtype))
    return x if high is None else np.minimum(x, high.reshape(()).astype(x.dtype))


def where(call: Call, condition: Array, a: Array, b: Array) -> Array:
    """Choose from `a` where the condition holds, from `b` elsewhere."""
    paired(call, a, b)
    call.reserve(np.broadcast_shapes(condition.shape, a.shape, b.shape), a.dtype)
    return np.where(condition.astype(bool), a, b)


def bit_shift(call: Call, a: Array, b: Array) -> Array:
    """Shift bits left or right."""
    paired(call, a, b)
    if call["direction"] not in ("LEFT", "RIGHT"):
        raise ValueError(f"direction must be LEFT or RIGHT, not {call['direction']!r}")
    return np.asarray(np.left_shift(a, b) if call["direction"] == "LEFT" else np.right_shift(a, b))


def cumulative(function: Any, start: int) -> Definition:
    """Return the operator of a running sum or product along one axis."""

    def operator(call: Call, x: Array, axis: Array) -> Array:
        if axis.size != 1:
            raise ValueError(f"axis must be one integer, not of shape {axis.shape}")
        along = int(axis.reshape(()))
        if not -x.ndim <= along < x.ndim:
            raise ValueError(f"axis {along} does not exist in a tensor of rank {x.ndim}")
        y = np.flip(x, along) if call["reverse"] else x
        if call["exclusive"]:
            y = np.roll(y, 1, along)
            first: list[Any] = [slice(None)] * x.ndim
            first[along] = slice(0, 1)
            y[tuple(first)] = start
        y = function(y, axis=along, dtype=x.dtype)
        return np.asarray(np.flip(y, along) if call["reverse"] else y)

    return operator


def bounds(node: Node, constants: Mapping[str, Array], channels: int | None) -> tuple[Any, float, float] | None:
    """Return the bounds of Clip as an activation, or None if they are not constant numbers."""
    if node.opset < 11:
        ends: list[Any] = [node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)]
    else:
        given = [constants.get(name) if name else None for name in node.inputs[1:]]
        given += [None] * (2 - len(given))
        named = zip(node.inputs[1:], given, strict=False)
        if any(name and array is None or array is not None and array.size != 1 for name, array in named):
            return None
        ends = [default if a is None else float(a.reshape(())) for a, default in zip(given, (-math.inf, math.inf), strict=True)]
    return None if any(map(math.isnan, ends)) else (1.0, float(ends[0]), float(ends[1]))


OPERATORS: tuple[Operator, ...] = (
    Operator("Abs", unary(np.abs), pointwise="curve", steady=True),
    Operator("Acos", unary(np.arccos)),
    Operator("Acosh", unary(np.arccosh)),
    Operator("Add", binary(np.add), narrow="uniform", pointwise="elements", steady=True),
    Operator("And", comparison(np.logical_and), narrow="uniform", pointwise="elements", steady=True),
    Operator("Asin", unary(np.arcsin)),
    Operator("Asinh", unary(np.arcsinh)),
    Operator("Atan", unary(np.arctan)),
    Operator("Atanh", unary(np.arctanh)),
    Operator("BitShift", bit_shift, narrow="uniform"),
    Operator("BitwiseAnd", binary(np.bitwise_and), narrow="uniform"),
    Operator("BitwiseNot", unary(np.bitwise_not)),
    Operator("BitwiseOr", binary(np.bitwise_or), narrow="uniform"),
    Operator("BitwiseXor", binary(np.bitwise_xor), narrow="uniform"),
    Operator("Ceil", unary(np.ceil), pointwise="curve", steady=True),
    Operator("Clip", clip, narrow="uniform", pointwise="follower", steady=True, activation=bounds),
    Operator("Cos", unary(np.cos)),
    Operator("Cosh", unary(np.cosh)),
    Operator("CumProd", cumulative(np.cumprod, 1)),
    Operator("CumSum", cumulative(np.cumsum, 0)),
    Operator("Div", binary(divide), narrow="uniform", pointwise="elements", steady=True),
    Operator("Equal", comparison(np.equal), narrow="uniform", pointwise="elements", steady=True),
    Operator("Erf", unary(error_function), pointwise="curve", steady=True),
    Operator("Exp", unary(np.exp), pointwise="curve", steady=True),
    Operator("Floor", unary(np.floor), pointwise="curve", steady=True),
    Operator("Greater", comparison(np.greater), narrow="uniform", pointwise="elements", steady=True),
    Operator("GreaterOrEqual", comparison(np.greater_equal), narrow="uniform", pointwise="elements", steady=True),
    Operator("IsInf", is_infinite),
    Operator("IsNaN", predicate(np.isnan)),
    Operator("Less", comparison(np.less), narrow="uniform", pointwise="elements", steady=True),
    Operator("LessOrEqual", comparison(np.less_equal), narrow="uniform", pointwise="elements", steady=True),
    Operator("Log", unary(np.log)),
    Operator("Max", variadic(np.maximum), narrow="uniform", pointwise="elements", steady=True),
    Operator("Mean", mean, narrow="uniform", pointwise="elements", steady=True),
    Operator("Min", variadic(np.minimum), narrow="uniform", pointwise="elements", steady=True),
    Operator("Mod", modulo, narrow="uniform"),
    Operator("Mul", binary(np.multiply), narrow="uniform", pointwise="elements", steady=True),
    Operator("Neg", unary(np.negative), pointwise="curve", steady=True),
    Operator("Not", predicate(np.logical_not), pointwise="elements", steady=True),
    Operator("Or", comparison(np.logical_or), narrow="uniform", pointwise="elements", steady=True),
    Operator("Pow", power, pointwise="elements", steady=True),
    Operator("Reciprocal", unary(lambda x: 1 / x), pointwise="curve", steady=True),
    Operator("Round", unary(np.rint), pointwise="curve", steady=True),
    Operator("Sign", unary(np.sign), pointwise="curve", steady=True),
    Operator("Sin", unary(np.sin)),
    Operator("Sinh", unary(np.sinh)),
    Operator("Sqrt", unary(np.sqrt), pointwise="curve", steady=True),
    Operator("Sub", binary(np.subtract), narrow="uniform", pointwise="elements", steady=True),
    Operator("Sum", variadic(np.add), narrow="uniform", pointwise="elements", steady=True),
    Operator("Tan", unary(np.tan)),
    Operator("Where", where, narrow="uniform", pointwise="elements", steady=True),
    Operator("Xor", comparison(np.logical_xor), narrow="uniform", pointwise="elements", steady=True),
)

"""Element-wise operators: arithmetic, comparison, logic, rounding and the elementary functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.operators.call import Call, Operator


def unary(function: Callable[[Array], Any]) -> Operator:
    """Make the operator that applies `function` to each element and keeps the element type."""

    def operator(call: Call, x: Array) -> Array:
        return np.asarray(function(x)).astype(x.dtype, copy=False)

    return operator


def predicate(function: Callable[[Array], Any]) -> Operator:
    """Make the operator that asks a yes-or-no question of each element."""

    def operator(call: Call, x: Array) -> Array:
        return np.asarray(function(x)).astype(bool, copy=False)

    return operator


def paired(call: Call, *arrays: Array) -> None:
    """Refuse tensors that cannot be broadcast together, that have different types, or whose result is too large."""
    if len({array.dtype for array in arrays}) > 1:
        raise ValueError(f"the inputs must have one type, not {', '.join(str(array.dtype) for array in arrays)}")
    call.reserve(np.broadcast_shapes(*(array.shape for array in arrays)), arrays[0].dtype)


def binary(function: Callable[[Array, Array], Any]) -> Operator:
    """Make the broadcasting operator of two inputs of one type, whose result has that type."""

    def operator(call: Call, a: Array, b: Array) -> Array:
        paired(call, a, b)
        return np.asarray(function(a, b)).astype(a.dtype, copy=False)

    return operator


def comparison(function: Callable[[Array, Array], Any]) -> Operator:
    """Make the broadcasting operator of two inputs of one type, whose result is boolean."""

    def operator(call: Call, a: Array, b: Array) -> Array:
        paired(call, a, b)
        return np.asarray(function(a, b)).astype(bool, copy=False)

    return operator


def variadic(function: Callable[[Array, Array], Any]) -> Operator:
    """Make the broadcasting operator of one or more inputs, folded from the left."""

    def operator(call: Call, *arrays: Array) -> Array:
        paired(call, *arrays)
        return np.asarray(reduce(function, arrays)).astype(arrays[0].dtype, copy=False)

    return operator


def divide(a: Array, b: Array) -> Array:
    """Divide; integers towards zero, as in C, where numpy goes down."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)).astype(quotient.dtype))


def modulo(call: Call, a: Array, b: Array) -> Array:
    """Remainder with the sign of the divisor, or with that of the dividend (C's fmod) where the attribute says so."""
    paired(call, a, b)
    return np.asarray(np.fmod(a, b) if call["fmod"] else np.mod(a, b))


def power(call: Call, a: Array, b: Array) -> Array:
    """Power with the type of the base; the exponent may have another type."""
    call.reserve(np.broadcast_shapes(a.shape, b.shape), np.float64)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu" and (b >= 0).all():
        return np.asarray(np.power(a, b.astype(a.dtype)))
    if a.dtype.kind in "iu" or a.dtype.itemsize < 4:
        return np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype)
    return np.asarray(np.power(a, b.astype(a.dtype)))


def mean(call: Call, *arrays: Array) -> Array:
    """Mean of one or more inputs."""
    paired(call, *arrays)
    return np.asarray(reduce(np.add, arrays) / len(arrays)).astype(arrays[0].dtype, copy=False)


def error_function(x: Array) -> Array:
    """Apply erf to each element."""
    from scipy.special import erf

    return np.asarray(erf(x))


def is_infinite(call: Call, x: Array) -> Array:
    """Ask for either or both infinities."""
    answer = np.zeros(x.shape, bool)
    if call["detect_positive"]:
        answer |= x == np.inf
    if call["detect_negative"]:
        answer |= x == -np.inf
    return answer


def clip(call: Call, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Bound from below, then from above: with low > high everything is `high`."""
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


def cumulative(function: Any, start: int) -> Operator:
    """Make a running sum or product along one axis, from either end, with or without the element itself."""

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


OPERATORS: Mapping[str, Operator] = {
    "Abs": unary(np.abs),
    "Acos": unary(np.arccos),
    "Acosh": unary(np.arccosh),
    "Add": binary(np.add),
    "And": comparison(np.logical_and),
    "Asin": unary(np.arcsin),
    "Asinh": unary(np.arcsinh),
    "Atan": unary(np.arctan),
    "Atanh": unary(np.arctanh),
    "BitShift": bit_shift,
    "BitwiseAnd": binary(np.bitwise_and),
    "BitwiseNot": unary(np.bitwise_not),
    "BitwiseOr": binary(np.bitwise_or),
    "BitwiseXor": binary(np.bitwise_xor),
    "Ceil": unary(np.ceil),
    "Clip": clip,
    "Cos": unary(np.cos),
    "Cosh": unary(np.cosh),
    "CumProd": cumulative(np.cumprod, 1),
    "CumSum": cumulative(np.cumsum, 0),
    "Div": binary(divide),
    "Equal": comparison(np.equal),
    "Erf": unary(error_function),
    "Exp": unary(np.exp),
    "Floor": unary(np.floor),
    "Greater": comparison(np.greater),
    "GreaterOrEqual": comparison(np.greater_equal),
    "IsInf": is_infinite,
    "IsNaN": predicate(np.isnan),
    "Less": comparison(np.less),
    "LessOrEqual": comparison(np.less_equal),
    "Log": unary(np.log),
    "Max": variadic(np.maximum),
    "Mean": mean,
    "Min": variadic(np.minimum),
    "Mod": modulo,
    "Mul": binary(np.multiply),
    "Neg": unary(np.negative),
    "Not": predicate(np.logical_not),
    "Or": comparison(np.logical_or),
    "Pow": power,
    "Reciprocal": unary(lambda x: 1 / x),
    "Round": unary(np.rint),
    "Sign": unary(np.sign),
    "Sin": unary(np.sin),
    "Sinh": unary(np.sinh),
    "Sqrt": unary(np.sqrt),
    "Sub": binary(np.subtract),
    "Sum": variadic(np.add),
    "Tan": unary(np.tan),
    "Where": where,
    "Xor": comparison(np.logical_xor),
}

"""Activation functions; the output has the element type of the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call, Definition, axis_of
from fastconv.network.operators.elementwise import unary
from fastconv.network.operators.record import Operator


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    from scipy.special import expit

    return np.asarray(expit(x))


def leaky_relu(call: Call, x: Array) -> Array:
    """Return x where positive, alpha x elsewhere."""
    return np.where(x < 0, call["alpha"] * x, x).astype(x.dtype, copy=False)


def prelu(call: Call, x: Array, slope: Array) -> Array:
    """Return x where positive, slope x elsewhere; the slope broadcasts to x, not x to the slope."""
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise ValueError(f"a slope of shape {slope.shape} does not broadcast to the input's {x.shape}")
    return np.where(x < 0, slope * x, x).astype(x.dtype, copy=False)


def elu(call: Call, x: Array) -> Array:
    """Return x where positive, alpha (exp(x) - 1) elsewhere."""
    return np.asarray(np.where(x < 0, call["alpha"] * np.expm1(np.minimum(x, 0)), x), x.dtype)


def celu(call: Call, x: Array) -> Array:
    """Return Celu, an Elu with a continuous derivative."""
    alpha = call["alpha"]
    return np.asarray(np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha))).astype(x.dtype, copy=False)


def selu(call: Call, x: Array) -> Array:
    """Return Selu, a scaled Elu."""
    alpha, gamma = call["alpha"], call["gamma"]
    return np.asarray(np.where(x > 0, gamma * x, gamma * alpha * np.expm1(np.minimum(x, 0))), x.dtype)


def gelu(call: Call, x: Array) -> Array:
    """Return x times the normal distribution function, or its tanh approximation."""
    from scipy.special import erf

    if call["approximate"] == "tanh":
        gate = np.tanh(float(np.sqrt(2 / np.pi)) * (x + 0.044715 * x * x * x))
    elif call["approximate"] == "none":
        gate = erf(x / float(np.sqrt(2)))
    else:
        raise ValueError(f"approximate must be 'none' or 'tanh', not {call['approximate']!r}")
    return np.asarray(0.5 * x * (1 + gate)).astype(x.dtype, copy=False)


def hard_sigmoid(call: Call, x: Array) -> Array:
    """Return alpha x + beta, clipped to [0, 1]."""
    return np.asarray(np.clip(call["alpha"] * x + call["beta"], 0, 1), x.dtype)


def swish(call: Call, x: Array) -> Array:
    """Return x sigmoid(alpha x)."""
    return np.asarray(x * sigmoid(call["alpha"] * x)).astype(x.dtype, copy=False)


def shrink(call: Call, x: Array) -> Array:
    """Return zero near the origin, x shifted towards it elsewhere."""
    bias, low = call["bias"], call["lambd"]
    return np.where(x < -low, x + bias, np.where(x > low, x - bias, 0)).astype(x.dtype, copy=False)


def thresholded_relu(call: Call, x: Array) -> Array:
    """Return x above alpha, zero elsewhere."""
    return np.where(x > call["alpha"], x, 0).astype(x.dtype, copy=False)


def along_axis(function: Callable[[Array, int], Array]) -> Definition:
    """Return the operator of a function along an axis; old opsets flatten to two axes."""

    def operator(call: Call, x: Array) -> Array:
        axis = int(call["axis"])
        if call.opset >= 13:
            return function(x, axis_of(axis, x.ndim)).astype(x.dtype, copy=False)
        # Before opset 13 the axis may equal the rank: each element is then a row of length one.
        split = axis if axis == x.ndim else axis_of(axis, x.ndim)
        rows = x.reshape((int(np.prod(x.shape[:split], dtype=np.int64)), int(np.prod(x.shape[split:], dtype=np.int64))))
        return function(rows, 1).reshape(x.shape).astype(x.dtype, copy=False)

    return operator


def softmax(x: Array, axis: int) -> Array:
    """Return exp(x) / sum exp(x), shifted by the maximum."""
    if x.size == 0:
        return x
    y = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(y / y.sum(axis=axis, keepdims=True))


def log_softmax(x: Array, axis: int) -> Array:
    """Return the logarithm of softmax, shifted by the maximum."""
    if x.size == 0:
        return x
    y = x - x.max(axis=axis, keepdims=True)
    return np.asarray(y - np.log(np.exp(y).sum(axis=axis, keepdims=True)))


def hardmax(x: Array, axis: int) -> Array:
    """Return one at the first maximum, zero elsewhere."""
    y = np.zeros_like(x)
    if x.size:
        np.put_along_axis(y, np.expand_dims(x.argmax(axis=axis), axis), np.asarray(1, x.dtype), axis)
    return y


def _hard_swish(x: Array) -> Any:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def rectifier(node: Node, constants: Mapping[str, Array], channels: int | None) -> tuple[Any, float, float] | None:
    """Return Relu as an activation."""
    return 1.0, 0.0, math.inf


def leak(node: Node, constants: Mapping[str, Array], channels: int | None) -> tuple[Any, float, float] | None:
    """Return LeakyRelu as an activation."""
    return node.attributes["alpha"], -math.inf, math.inf


def slopes(node: Node, constants: Mapping[str, Array], channels: int | None) -> tuple[Any, float, float] | None:
    """Return PRelu with one constant slope, or one per channel, as an activation."""
    slope = constants.get(node.inputs[1]) if node.inputs[1:] and node.inputs[1] else None
    if slope is None:
        return None
    if slope.size == 1 and slope.ndim <= 2:
        return float(slope.reshape(())), -math.inf, math.inf
    ends = slope.ndim in (3, 4) and slope.shape[-3:] == (channels, 1, 1) and slope.size == channels
    return (slope.reshape(-1), -math.inf, math.inf) if ends else None


OPERATORS: tuple[Operator, ...] = (
    Operator("Celu", celu, pointwise="follower"),
    Operator("Elu", elu, pointwise="follower"),
    Operator("Gelu", gelu, pointwise="follower", steady=True),
    Operator("HardSigmoid", hard_sigmoid, pointwise="follower", steady=True),
    Operator("HardSwish", unary(_hard_swish), pointwise="follower", steady=True),
    Operator("Hardmax", along_axis(hardmax)),
    Operator("LeakyRelu", leaky_relu, pointwise="follower", steady=True, activation=leak),
    Operator("LogSoftmax", along_axis(log_softmax)),
    Operator("Mish", unary(lambda x: x * np.tanh(np.logaddexp(x, np.zeros((), x.dtype)))), pointwise="follower"),
    Operator("PRelu", prelu, pointwise="follower", steady=True, activation=slopes),
    Operator("Relu", unary(lambda x: np.maximum(x, 0)), pointwise="follower", steady=True, activation=rectifier),
    Operator("Selu", selu, pointwise="follower"),
    Operator("Shrink", shrink),
    Operator("Sigmoid", unary(sigmoid), pointwise="follower", steady=True),
    Operator("Softmax", along_axis(softmax)),
    Operator("Softplus", unary(lambda x: np.logaddexp(x, np.zeros((), x.dtype))), pointwise="follower"),
    Operator("Softsign", unary(lambda x: x / (1 + np.abs(x))), pointwise="follower", steady=True),
    Operator("Swish", swish, pointwise="follower", steady=True),
    Operator("Tanh", unary(np.tanh), pointwise="follower", steady=True),
    Operator("ThresholdedRelu", thresholded_relu, pointwise="follower", steady=True),
)

"""Normalisations: batch, instance, layer, group, local response and p-norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.operators.call import Call, axes_of, axis_of
from fastconv.network.operators.record import Operator


def _channelwise(parameter: Array, x: Array, what: str) -> Array:
    if parameter.shape != x.shape[1:2]:
        raise ValueError(f"{what} must have the shape {x.shape[1:2]}, not {parameter.shape}")
    return parameter.reshape(-1, *(1,) * (x.ndim - 2)).astype(x.dtype, copy=False)


def batch_normalization(call: Call, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Any:
    """Normalise each channel by the given statistics, or in training mode by those of the batch."""
    if x.ndim < 2:
        raise ValueError(f"the input must have a channel axis, not the shape {x.shape}")
    if call.get("spatial", 1) != 1:
        raise ValueError("statistics of each pixel (spatial=0) are not supported")
    scale, bias = _channelwise(scale, x, "scale"), _channelwise(bias, x, "B")
    if call.opset >= 14 and call["training_mode"]:
        axes = (0, *range(2, x.ndim))
        own_mean, own_var, keep = x.mean(axis=axes), x.var(axis=axes), call["momentum"]
        y = (x - _channelwise(own_mean, x, "mean")) / np.sqrt(_channelwise(own_var, x, "var") + call["epsilon"]) * scale + bias
        running = mean * keep + own_mean * (1 - keep), var * keep + own_var * (1 - keep)
        return y.astype(x.dtype, copy=False), running[0].astype(mean.dtype), running[1].astype(var.dtype)
    factor = scale / np.sqrt(_channelwise(var, x, "var") + call["epsilon"])
    return ((x - _channelwise(mean, x, "mean")) * factor + bias).astype(x.dtype, copy=False)


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = x - x.mean(axis=axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon))


def instance_normalization(call: Call, x: Array, scale: Array, bias: Array) -> Array:
    """Normalise each channel of each image by its mean and variance."""
    if x.ndim < 3:
        raise ValueError(f"the input must have a spatial axis, not the shape {x.shape}")
    y = _standardise(x, tuple(range(2, x.ndim)), call["epsilon"])
    return (y * _channelwise(scale, x, "scale") + _channelwise(bias, x, "B")).astype(x.dtype, copy=False)


def layer_normalization(call: Call, x: Array, scale: Array, bias: Array | None = None) -> Any:
    """Normalise over the axes from `axis` on; return also the mean and the inverse deviation."""
    axes = tuple(range(axis_of(call["axis"], x.ndim), x.ndim))
    wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
    mean = wide.mean(axis=axes, keepdims=True)
    centred = wide - mean
    inverse = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + call["epsilon"])
    y = (centred * inverse).astype(x.dtype) * scale
    y = y if bias is None else y + bias
    return tuple(part.astype(x.dtype if i == 0 else wide.dtype, copy=False) for i, part in enumerate((y, mean, inverse)))


def rms_normalization(call: Call, x: Array, scale: Array) -> Array:
    """Divide by the root mean square over the axes from `axis` on."""
    axes = tuple(range(axis_of(call["axis"], x.ndim), x.ndim))
    wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
    y = wide / np.sqrt((wide * wide).mean(axis=axes, keepdims=True) + call["epsilon"])
    return np.asarray(y.astype(x.dtype) * scale).astype(x.dtype, copy=False)


def group_normalization(call: Call, x: Array, scale: Array, bias: Array) -> Array:
    """Normalise groups of channels, with parameters per channel (opset 18: per group)."""
    groups = int(call["num_groups"])
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"an input of shape {x.shape} has no {groups} equal groups of channels")
    rows = x.reshape(x.shape[0], groups, -1)
    wide = rows.astype(np.float32) if x.dtype.itemsize < 4 else rows
    y = _standardise(wide, (2,), call["epsilon"]).astype(x.dtype).reshape(x.shape)
    return (y * _channelwise(scale, x, "scale") + _channelwise(bias, x, "bias")).astype(x.dtype, copy=False)


def local_response(call: Call, x: Array) -> Array:
    """Divide by a power of the sum of squares over neighbouring channels."""
    size = int(call["size"])
    if x.ndim < 2 or size < 1:
        raise ValueError(f"size {size} and an input of shape {x.shape} do not fit")
    square, channels = x * x, x.shape[1]
    total = np.zeros_like(x)
    before, after = min((size - 1) // 2, channels), min(size - 1 - (size - 1) // 2, channels)
    for shift in range(-before, after + 1):
        into = slice(max(0, -shift), min(channels, channels - shift))
        total[:, into] += square[:, max(0, shift) : min(channels, channels + shift)]
    return np.asarray(x / (call["bias"] + call["alpha"] / size * total) ** call["beta"]).astype(x.dtype, copy=False)


def lp_normalization(call: Call, x: Array) -> Array:
    """Divide by the 1-norm or 2-norm along one axis; a zero vector stays zero."""
    axis = axis_of(call["axis"], x.ndim)
    if call["p"] not in (1, 2):
        raise ValueError(f"p must be 1 or 2, not {call['p']}")
    norm = np.abs(x).sum(axis=axis, keepdims=True) if call["p"] == 1 else np.sqrt((x * x).sum(axis=axis, keepdims=True))
    return np.asarray(np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm))).astype(x.dtype, copy=False)


def mean_variance_normalization(call: Call, x: Array) -> Array:
    """Subtract the mean and divide by the deviation over the given axes."""
    axes = axes_of(call["axes"], x.ndim)
    centred = x - x.mean(axis=axes, keepdims=True)
    return np.asarray(centred / (np.sqrt((centred * centred).mean(axis=axes, keepdims=True)) + 1e-9)).astype(x.dtype, copy=False)


OPERATORS: tuple[Operator, ...] = (
    Operator("BatchNormalization", batch_normalization, pointwise="follower", takes_activation=True),
    Operator("GroupNormalization", group_normalization, narrow="own"),
    Operator("InstanceNormalization", instance_normalization),
    Operator("LRN", local_response),
    Operator("LayerNormalization", layer_normalization, narrow="own"),
    Operator("LpNormalization", lp_normalization),
    Operator("MeanVarianceNormalization", mean_variance_normalization),
    Operator("RMSNormalization", rms_normalization, narrow="own"),
)

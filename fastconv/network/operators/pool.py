"""Pools: maximum, average and p-norm over windows or over the whole picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.operators.call import Call, Operator
from fastconv.network.operators.window import padded, window


def _spatial(x: Array) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ValueError(f"the input must have a batch, a channel and a spatial axis, not the shape {x.shape}")
    return x.shape[2:]


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def max_pool(call: Call, x: Array) -> Array | tuple[Array, Array]:
    """Maximum of each window and, where asked for, the flat index at which it first occurs."""
    view = window(call, _spatial(x), call["kernel_shape"], bool(call.get("ceil_mode", 0)))
    shape = call.reserve((*x.shape[:2], *view.out), np.int64)
    inside = padded(call, x, view, _lowest(x.dtype))
    if call.outputs == 1:
        best: Array | None = None
        for _, slices in view.taps():
            value = inside[slices]
            best = value.copy() if best is None else np.maximum(best, value, out=best)
        return np.asarray(best)
    order: Literal["F", "C"] = "F" if call.get("storage_order", 0) else "C"
    place = np.reshape(np.arange(int(np.prod(x.shape[2:])), dtype=np.int64), x.shape[2:], order=order)
    place = padded(call, place, view, -1)
    value, index = np.full(shape, _lowest(x.dtype), x.dtype), np.full(shape, -1, np.int64)
    for _, slices in view.taps():
        candidate, where = inside[slices], np.broadcast_to(place[slices], shape)
        better = (where >= 0) & ((candidate > value) | (index < 0))
        value[better], index[better] = candidate[better], where[better]
    plane = np.arange(x.shape[0] * x.shape[1], dtype=np.int64).reshape(*x.shape[:2], *(1,) * len(view.out))
    return value, index + plane * int(np.prod(x.shape[2:]))


def average_pool(call: Call, x: Array) -> Array:
    """Mean of each window, over the values inside the input or, where the attribute says so, inside the padded one."""
    view = window(call, _spatial(x), call["kernel_shape"], bool(call.get("ceil_mode", 0)))
    call.reserve((*x.shape[:2], *view.out), x.dtype)
    counted = np.ones(x.shape[2:], x.dtype)
    if call["count_include_pad"]:
        counted = np.pad(counted, list(zip(view.begin, view.end, strict=True)), constant_values=1)
        shift = padded(call, counted, replace(view, begin=(0,) * len(view.begin)), 0)
    else:
        shift = padded(call, counted, view, 0)
    inside = padded(call, x, view, 0)
    total, count = np.zeros((*x.shape[:2], *view.out), x.dtype), np.zeros(view.out, x.dtype)
    for _, slices in view.taps():
        total += inside[slices]
        count += shift[slices]
    return np.asarray(total / count)


def lp_pool(call: Call, x: Array) -> Array:
    """p-norm of each window."""
    view = window(call, _spatial(x), call["kernel_shape"], bool(call.get("ceil_mode", 0)))
    total = np.zeros(call.reserve((*x.shape[:2], *view.out), x.dtype), x.dtype)
    inside = padded(call, np.abs(x) ** call["p"], view, 0)
    for _, slices in view.taps():
        total += inside[slices]
    return np.asarray(total ** (1 / call["p"]))


def max_unpool(call: Call, x: Array, index: Array, output_shape: Array | None = None) -> Array:
    """Put values back where a max pool found them, zero elsewhere."""
    rank = len(_spatial(x))
    strides, pads = call.get("strides") or (1,) * rank, call.get("pads") or (0,) * (2 * rank)
    kernel = call["kernel_shape"]
    if not len(strides) == len(kernel) == rank or len(pads) != 2 * rank:
        raise ValueError(f"kernel_shape, strides and pads must fit {rank} spatial axes")
    small = tuple((n - 1) * s + k - pads[i] - pads[rank + i] for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True)))
    shape = call.reserve((*x.shape[:2], *small), x.dtype)
    target = shape if output_shape is None else call.reserve([int(v) for v in output_shape], x.dtype)
    if len(target) != len(shape) or index.shape != x.shape:
        raise ValueError(f"indices of shape {index.shape} and output shape {target} do not fit the input's {x.shape}")
    flat = np.zeros(int(np.prod(shape)), x.dtype)
    if index.size and not 0 <= int(index.min()) <= int(index.max()) < flat.size:
        raise ValueError(f"indices must lie in 0..{flat.size - 1}")
    flat[index.reshape(-1)] = x.reshape(-1)
    result = np.zeros(target, x.dtype)
    common = tuple(slice(0, min(a, b)) for a, b in zip(shape, target, strict=True))
    result[common] = flat.reshape(shape)[common]
    return result


def over_everything(function: Any) -> Operator:
    """Make the pool over all spatial axes."""

    def operator(call: Call, x: Array) -> Array:
        _spatial(x)
        return np.asarray(function(call, x, tuple(range(2, x.ndim)))).astype(x.dtype, copy=False)

    return operator


OPERATORS: Mapping[str, Operator] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": over_everything(lambda call, x, axes: x.mean(axis=axes, keepdims=True)),
    "GlobalLpPool": over_everything(lambda call, x, axes: (np.abs(x) ** call["p"]).sum(axis=axes, keepdims=True) ** (1 / call["p"])),
    "GlobalMaxPool": over_everything(lambda call, x, axes: x.max(axis=axes, keepdims=True)),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
}

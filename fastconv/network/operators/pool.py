"""Pools: maximum, average and p-norm over windows or over the whole image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fastconv.kernels import Windows, kind_of
from fastconv.kernels import max_pool as max_pool_job
from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call, Definition
from fastconv.network.operators.record import Blocks, Operator, Place
from fastconv.network.operators.window import Window, padded, window

_POOL_BYTES = 2**26
"""Most bytes of a pool's workspace."""


def _spatial(x: Array) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ValueError(f"the input must have a batch, a channel and a spatial axis, not the shape {x.shape}")
    return x.shape[2:]


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def max_pool(call: Call, x: Array) -> Array | tuple[Array, Array]:
    """Return the maximum of each window and, if requested, the flat index of its first occurrence."""
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
    """Return the mean of each window, over the input or, by attribute, the padded input."""
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
    """Return the p-norm of each window."""
    view = window(call, _spatial(x), call["kernel_shape"], bool(call.get("ceil_mode", 0)))
    total = np.zeros(call.reserve((*x.shape[:2], *view.out), x.dtype), x.dtype)
    inside = padded(call, np.abs(x) ** call["p"], view, 0)
    for _, slices in view.taps():
        total += inside[slices]
    return np.asarray(total ** (1 / call["p"]))


def max_unpool(call: Call, x: Array, index: Array, output_shape: Array | None = None) -> Array:
    """Return the values at the positions where a max pool found them, zero elsewhere."""
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
        raise ValueError(f"indices must be in 0..{flat.size - 1}")
    flat[index.reshape(-1)] = x.reshape(-1)
    result = np.zeros(target, x.dtype)
    common = tuple(slice(0, min(a, b)) for a, b in zip(shape, target, strict=True))
    result[common] = flat.reshape(shape)[common]
    return result


def over_everything(function: Any) -> Definition:
    """Return the pool over all spatial axes."""

    def operator(call: Call, x: Array) -> Array:
        _spatial(x)
        return np.asarray(function(call, x, tuple(range(2, x.ndim)))).astype(x.dtype, copy=False)

    return operator


def _view(call: Call, shape: tuple[int, ...]) -> Window:
    return window(call, shape[2:4], call["kernel_shape"], bool(call.get("ceil_mode", 0)))


def _windows(view: Window, shape: tuple[int, ...]) -> Windows:
    # A stride longer than the input gives one window like any other.
    strides = tuple(min(s, n + b + e) for s, n, b, e in zip(view.strides, shape[2:4], view.begin, view.end, strict=True))
    return Windows(view.kernel, strides, view.dilations, view.begin)


def compiled_max_pool(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    """Run a maximum pool of images, in either layout."""
    x = inputs[0]
    if x is None or x.ndim != 4 + place.is_blocked(node.inputs[0], x) or not kind_of(x) or call.outputs != 1:
        return None
    view = _view(call, x.shape)
    y = place.allocate(call.reserve((*x.shape[:2], *view.out, *x.shape[4:]), x.dtype), x.dtype)
    job = max_pool_job(x, y, _windows(view, x.shape), place.threads)
    if job.room > _POOL_BYTES:  # with excessive padding
        return None
    place.do(job)
    return y


def _inside(view: Window, axis: int, length: int, padding: bool) -> Array:
    """Return how many taps of each window along one axis count."""
    before, after = (view.begin[axis], view.end[axis]) if padding else (0, 0)
    at = np.arange(view.out[axis])[:, None] * view.strides[axis] + np.arange(view.kernel[axis]) * view.dilations[axis] - view.begin[axis]
    return np.asarray(((at >= -before) & (at < length + after)).sum(axis=1))


def _mean(call: Call, x: Array, axes: tuple[int, ...]) -> Any:
    return x.mean(axis=axes, keepdims=True)


def _norm(call: Call, x: Array, axes: tuple[int, ...]) -> Any:
    return (np.abs(x) ** call["p"]).sum(axis=axes, keepdims=True) ** (1 / call["p"])


def _one_image_pool(node: Node, constants: Mapping[str, Array]) -> bool:
    """Return whether a max pool of images has one result and no fused nodes."""
    images = len(node.attributes.get("kernel_shape", ())) == 2  # type: ignore[arg-type]
    return len([name for name in node.outputs if name]) == 1 and not node.fused and images


def _pooled(call: Call, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], *_view(call, shape).out)


OPERATORS: tuple[Operator, ...] = (
    Operator("AveragePool", average_pool),
    Operator("GlobalAveragePool", over_everything(_mean)),
    Operator("GlobalLpPool", over_everything(_norm)),
    Operator("GlobalMaxPool", over_everything(lambda call, x, axes: x.max(axis=axes, keepdims=True))),
    Operator("LpPool", lp_pool),
    Operator("MaxPool", max_pool, compiled=compiled_max_pool, blocks=Blocks(_one_image_pool, _pooled)),
    Operator("MaxUnpool", max_unpool),
)

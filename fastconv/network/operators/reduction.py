"""Reductions over axes, ArgMax, ArgMin and TopK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.operators.call import Call, Definition, axes_of, axis_of
from fastconv.network.operators.elementwise import divide
from fastconv.network.operators.record import Operator

Reduce = Callable[[Array, tuple[int, ...]], Any]


def reduction(function: Reduce) -> Definition:
    """Return a reduction operator over given axes, by default all."""

    def operator(call: Call, x: Array, axes: Array | None = None) -> Array:
        given = call.get("axes") if axes is None else axes
        if given is None or len(given) == 0:
            if call.get("noop_with_empty_axes", 0):
                return function(x, ()) if function in _ELEMENTWISE_WHEN_EMPTY else x
            over = tuple(range(x.ndim))
        else:
            over = axes_of(given, x.ndim)
        y = np.asarray(function(x, over)).astype(x.dtype, copy=False)
        return y if call["keepdims"] else y.reshape(tuple(n for i, n in enumerate(x.shape) if i not in over))

    return operator


def _sum(x: Array, axes: tuple[int, ...]) -> Any:
    return x.sum(axis=axes, keepdims=True, dtype=x.dtype)


def _mean(x: Array, axes: tuple[int, ...]) -> Any:
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    total = _sum(x, axes)
    return total / count if x.dtype.kind == "f" else divide(total, np.asarray(max(count, 1), total.dtype))


def _extreme(x: Array, axes: tuple[int, ...], largest: bool) -> Any:
    if x.dtype.kind == "b":
        return x.any(axis=axes, keepdims=True) if largest else x.all(axis=axes, keepdims=True)
    info: Any = np.iinfo(x.dtype) if x.dtype.kind in "iu" else None
    if largest:
        return x.max(axis=axes, keepdims=True, initial=-np.inf if info is None else info.min)
    return x.min(axis=axes, keepdims=True, initial=np.inf if info is None else info.max)


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Any:
    if x.dtype.kind != "f":
        x = x.astype(np.float64)
    top = x.max(axis=axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, np.zeros((), x.dtype))
    return np.log(np.exp(x - top).sum(axis=axes, keepdims=True)) + top


def _l1(x: Array, axes: tuple[int, ...]) -> Any:
    return _sum(np.abs(x), axes)


def _l2(x: Array, axes: tuple[int, ...]) -> Any:
    return np.sqrt(_sum(x * x, axes))


def _log_sum(x: Array, axes: tuple[int, ...]) -> Any:
    return np.log(_sum(x, axes))


def _sum_square(x: Array, axes: tuple[int, ...]) -> Any:
    return _sum(x * x, axes)


_ELEMENTWISE_WHEN_EMPTY = (_l1, _l2, _log_sum, _sum_square, _log_sum_exp)
"""Reductions that still transform each element if noop_with_empty_axes leaves no axis to reduce."""


def arg_extreme(largest: bool) -> Definition:
    """Return ArgMax or ArgMin; of equal values the first, or by attribute the last."""

    def operator(call: Call, x: Array) -> Array:
        axis = axis_of(call["axis"], x.ndim)
        if x.shape[axis] == 0:
            raise ValueError(f"axis {axis} is empty and has no extreme")
        find = np.argmax if largest else np.argmin
        if call.get("select_last_index", 0):
            index = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis)
        else:
            index = find(x, axis=axis)
        index = np.asarray(index, np.int64)
        return np.expand_dims(index, axis) if call["keepdims"] else index

    return operator


def top_k(call: Call, x: Array, k: Array | None = None) -> tuple[Array, Array]:
    """Return the k largest (or smallest) along an axis with indices; of equals the first."""
    axis = axis_of(call["axis"], x.ndim)
    count = int(call["k"] if k is None else np.asarray(k).reshape(()))
    if not 0 <= count <= x.shape[axis]:
        raise ValueError(f"k = {count} of an axis of length {x.shape[axis]}")
    if call.get("largest", 1):
        # A stable sort of the reversed axis, reversed again, is descending and keeps equal values in order.
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    index = order.take(np.arange(count), axis=axis).astype(np.int64)
    return np.take_along_axis(x, index, axis), index


OPERATORS: tuple[Operator, ...] = (
    Operator("ArgMax", arg_extreme(largest=True)),
    Operator("ArgMin", arg_extreme(largest=False)),
    Operator("ReduceL1", reduction(_l1)),
    Operator("ReduceL2", reduction(_l2)),
    Operator("ReduceLogSum", reduction(_log_sum)),
    Operator("ReduceLogSumExp", reduction(_log_sum_exp)),
    Operator("ReduceMax", reduction(lambda x, axes: _extreme(x, axes, largest=True))),
    Operator("ReduceMean", reduction(_mean)),
    Operator("ReduceMin", reduction(lambda x, axes: _extreme(x, axes, largest=False))),
    Operator("ReduceProd", reduction(lambda x, axes: x.prod(axis=axes, keepdims=True, dtype=x.dtype))),
    Operator("ReduceSum", reduction(_sum)),
    Operator("ReduceSumSquare", reduction(_sum_square)),
    Operator("TopK", top_k),
)

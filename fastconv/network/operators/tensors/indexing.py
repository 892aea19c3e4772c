"""Gather, scatter and selection; indices out of range raise ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.operators.call import Call, axis_of
from fastconv.network.operators.record import Operator


def _wrapped(index: Array, length: int) -> Array:
    if index.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers, not {index.dtype}")
    if index.size and not -length <= int(index.min()) <= int(index.max()) < length:
        raise ValueError(f"indices from {index.min()} to {index.max()} leave an axis of length {length}")
    return np.where(index < 0, index + length, index).astype(np.int64)


def gather(call: Call, x: Array, index: Array) -> Array:
    """Return slices along an axis."""
    axis = axis_of(call["axis"], x.ndim)
    call.reserve((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), x.dtype)
    return np.asarray(x.take(_wrapped(index, x.shape[axis]), axis=axis))


def gather_elements(call: Call, x: Array, index: Array) -> Array:
    """Return one element for each index, at the index's position on the other axes."""
    axis = axis_of(call["axis"], x.ndim)
    return x[_positions(index, x, axis)]


def _positions(index: Array, x: Array, axis: int) -> tuple[Array, ...]:
    if index.ndim != x.ndim or any(i > n for k, (i, n) in enumerate(zip(index.shape, x.shape, strict=True)) if k != axis):
        raise ValueError(f"indices of shape {index.shape} do not fit into a tensor of shape {x.shape}")
    grid: list[Array] = [np.asarray(g) for g in np.ogrid[tuple(slice(n) for n in index.shape)]]
    grid[axis] = _wrapped(index, x.shape[axis])
    return tuple(grid)


def gather_nd(call: Call, x: Array, index: Array) -> Array:
    """Return a slice for each vector of indices, after `batch_dims` shared axes."""
    batch = int(call.get("batch_dims", 0))
    depth = index.shape[-1] if index.ndim else 0
    if not 0 <= batch < min(x.ndim, index.ndim) or batch + depth > x.ndim or x.shape[:batch] != index.shape[:batch]:
        raise ValueError(f"indices of shape {index.shape} do not fit a tensor of shape {x.shape} with batch_dims {batch}")
    call.reserve((*index.shape[:-1], *x.shape[batch + depth :]), x.dtype)
    shared = np.ogrid[tuple(slice(n) for n in x.shape[:batch])] if batch else []
    shared = [np.asarray(g).reshape(*g.shape, *(1,) * (index.ndim - 1 - batch)) for g in shared]
    picks = [_wrapped(index[..., k], x.shape[batch + k]) for k in range(depth)]
    return np.asarray(x[(*shared, *picks)])


_COMBINE: Mapping[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _update(y: Array, where: tuple[Any, ...], values: Array, how: str) -> Array:
    if how == "none":
        y[where] = values
    elif how in _COMBINE:
        _COMBINE[how].at(y, where, values)
    else:
        raise ValueError(f"reduction must be none, {', '.join(_COMBINE)}, not {how!r}")
    return y


def scatter_elements(call: Call, x: Array, index: Array, updates: Array) -> Array:
    """Set, add, multiply, or take the maximum or minimum, at one element for each index."""
    axis = axis_of(call["axis"], x.ndim)
    if updates.shape != index.shape or updates.dtype != x.dtype:
        raise ValueError(f"updates of shape {updates.shape} and type {updates.dtype} do not fit the indices' {index.shape}, {x.dtype}")
    return _update(x.copy(), _positions(index, x, axis), updates, call.get("reduction", "none"))


def scatter_nd(call: Call, x: Array, index: Array, updates: Array) -> Array:
    """Set, add, multiply, or take the maximum or minimum, at a slice for each vector of indices."""
    depth = index.shape[-1] if index.ndim else 0
    if depth > x.ndim or updates.shape != index.shape[:-1] + x.shape[depth:] or updates.dtype != x.dtype:
        raise ValueError(f"indices {index.shape} and updates {updates.dtype} {updates.shape} do not fit a tensor {x.dtype} {x.shape}")
    where = tuple(_wrapped(index[..., k], x.shape[k]) for k in range(depth))
    return _update(x.copy(), where or (...,), updates, call.get("reduction", "none"))


def one_hot(call: Call, index: Array, depth: Array, values: Array) -> Array:
    """Return the second value where an axis of the given depth equals the index, the first elsewhere."""
    if depth.size != 1 or values.shape != (2,):
        raise ValueError(f"depth must be one number and values two, not of shapes {depth.shape} and {values.shape}")
    count = int(depth.reshape(()))
    axis = axis_of(call["axis"], index.ndim + 1)
    call.reserve((*index.shape, count), values.dtype)
    classes = np.arange(count).reshape(-1, *(1,) * (index.ndim - axis))
    whole = np.expand_dims(index.astype(np.int64), axis)
    return np.asarray(np.where(np.where(whole < 0, whole + count, whole) == classes, values[1], values[0]))


def compress(call: Call, x: Array, condition: Array) -> Array:
    """Return the slices at which the condition holds."""
    axis = call.get("axis")
    x, along = (x.reshape(-1), 0) if axis is None else (x, axis_of(axis, x.ndim))
    if condition.ndim != 1 or len(condition) > x.shape[along]:
        raise ValueError(f"a condition of shape {condition.shape} does not fit an axis of length {x.shape[along]}")
    return np.compress(condition, x, axis=along)


def non_zero(call: Call, x: Array) -> Array:
    """Return the positions of the nonzero elements, one column each."""
    return np.asarray(np.nonzero(np.atleast_1d(x)), np.int64)[: max(x.ndim, 1)]


def reverse_sequence(call: Call, x: Array, lengths: Array) -> Array:
    """Reverse a prefix of the time axis, with one length per batch entry."""
    time, batch = int(call["time_axis"]), int(call["batch_axis"])
    if x.ndim < 2 or {time, batch} != {0, 1} or lengths.shape != (x.shape[batch],):
        raise ValueError(f"lengths of shape {lengths.shape} do not fit a tensor of shape {x.shape}")
    y = x.copy()
    for i, length in enumerate(_checked_lengths(lengths, x.shape[time])):
        if batch == 0:
            y[i, :length] = x[i, :length][::-1]
        else:
            y[:length, i] = x[:length, i][::-1]
    return y


def _checked_lengths(lengths: Array, limit: int) -> list[int]:
    values = [int(v) for v in lengths]
    if any(not 0 <= v <= limit for v in values):
        raise ValueError(f"lengths {values} leave the time axis of length {limit}")
    return values


def unique(call: Call, x: Array) -> Any:
    """Return the distinct values or slices, their first positions, the inverse map and the counts."""
    axis = call.get("axis")
    axis = None if axis is None else axis_of(axis, x.ndim)
    y, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not call["sorted"]:
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        y, first, inverse, counts = y.take(order, axis=axis or 0), first[order], rank[inverse], counts[order]
    return y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


def non_max_suppression(
    call: Call, boxes: Array, scores: Array, limit: Array | None = None, overlap: Array | None = None, lowest: Array | None = None
) -> Array:
    """Return the best boxes of each class, without those that overlap a better one."""
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.ndim != 3 or (boxes.shape[0], boxes.shape[1]) != (scores.shape[0], scores.shape[2]):
        raise ValueError(f"boxes of shape {boxes.shape} and scores of shape {scores.shape} do not belong together")
    most = 0 if limit is None else int(limit.reshape(()))
    threshold = 0.0 if overlap is None else float(overlap.reshape(()))
    corners = _corners(boxes, bool(call["center_point_box"]))
    kept: list[tuple[int, int, int]] = []
    for image in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            score = scores[image, kind]
            order = np.argsort(-score, kind="stable")
            if lowest is not None:
                order = order[score[order] > lowest.reshape(())]
            taken = 0
            while len(order) and taken < most:
                best, order = order[0], order[1:]
                kept.append((image, kind, int(best)))
                taken += 1
                order = order[_overlap(corners[image, best], corners[image, order]) <= threshold]
    return np.asarray(kept, np.int64).reshape(-1, 3)


def _corners(boxes: Array, centred: bool) -> Array:
    if centred:
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        return np.concatenate([centre - half, centre + half], -1)
    return np.concatenate([np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])], -1)


def _overlap(box: Array, others: Array) -> Array:
    shared = np.prod(np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0), -1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], -1) - shared
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1), 0))


OPERATORS: tuple[Operator, ...] = (
    Operator("Compress", compress, narrow="own"),
    Operator("Gather", gather, narrow="own"),
    Operator("GatherElements", gather_elements, narrow="own"),
    Operator("GatherND", gather_nd, narrow="own"),
    Operator("NonMaxSuppression", non_max_suppression, narrow="own"),
    Operator("NonZero", non_zero, narrow="own"),
    Operator("OneHot", one_hot, narrow="own"),
    Operator("ReverseSequence", reverse_sequence, narrow="own"),
    Operator("Scatter", scatter_elements, narrow="own"),
    Operator("ScatterElements", scatter_elements, narrow="own"),
    Operator("ScatterND", scatter_nd, narrow="own"),
    Operator("Unique", unique, narrow="own"),
)

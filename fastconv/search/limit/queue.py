"""Branch and bound as compiled code: boxes in a heap, the one of the least limit first."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.native.source import jit
from fastconv.search.limit.box import limit_of_box

NARROW = 1e-9
"""A box narrower than this in all coordinates is not split: its limit stands."""


@jit
def _up(heap: Any, limits: Any, pos: int) -> None:
    while pos > 0:
        parent = (pos - 1) >> 1
        if not limits[heap[pos]] < limits[heap[parent]]:
            break
        heap[pos], heap[parent] = heap[parent], heap[pos]
        pos = parent


@jit
def _down(heap: Any, limits: Any, size: int) -> None:
    pos = 0
    while 2 * pos + 1 < size:
        child = 2 * pos + 1
        if child + 1 < size and limits[heap[child + 1]] < limits[heap[child]]:
            child += 1
        if not limits[heap[child]] < limits[heap[pos]]:
            break
        heap[pos], heap[child] = heap[child], heap[pos]
        pos = child


@jit
def possible(lo: Any, hi: Any) -> bool:
    """Whether a box holds ascending points whose mirror image is not asked for instead: the sum of a set or of its mirror is <= 0."""
    k = len(lo)
    for j in range(k - 1):
        if lo[j] >= hi[j + 1]:
            return False
    return bool(lo.sum() <= 0.0)


@jit
def branch(
    boxes: Any, slopes: Any, limits: Any, heap: Any, size: int, inf: bool, m: int, r: int, dims: int, target: float, steps: int
) -> tuple[int, int]:
    """Split the boxes of the least limits until none below the target is left, the room is used up, or so many steps are done.

    Parameters
    ----------
    boxes : array, (room, 2, k)
        Ends of boxes; the first `size` are in the heap.
    slopes : array, (room, k)
        What `limit_of_box` says each coordinate answers for.
    limits : array, (room,)
        Their lower limits.
    heap : array, (room,)
        A permutation: the numbers of the boxes, a heap by their limits, then the numbers of free ones.
    size : int
        Boxes in the heap.

    Returns
    -------
    int, int
        Boxes in the heap, boxes examined.
    """
    k = boxes.shape[2]
    examined = 0
    slope = np.empty(k)
    while size and examined < steps and size + 1 < len(heap) and limits[heap[0]] < target:
        parent = heap[0]
        score, axis = 0.0, 0
        for t in range(k):
            width = boxes[parent, 1, t] - boxes[parent, 0, t]
            value = slopes[parent, t] + 0.2 * target * width
            if value > score and width > NARROW:
                score, axis = value, t
        if score == 0.0:
            break
        lo, hi, limit = boxes[parent, 0].copy(), boxes[parent, 1].copy(), limits[parent]
        middle = 0.5 * (lo[axis] + hi[axis])
        size -= 1
        heap[0], heap[size] = heap[size], heap[0]
        _down(heap, limits, size)
        for half in range(2):
            number = heap[size]
            boxes[number, 0], boxes[number, 1] = lo, hi
            boxes[number, 1 - half, axis] = middle
            if not possible(boxes[number, 0], boxes[number, 1]):
                continue
            examined += 1
            found = max(limit, limit_of_box(boxes[number, 0], boxes[number, 1], inf, m, r, dims, target, slope))
            if found >= target:
                continue
            limits[number], slopes[number] = found, slope
            _up(heap, limits, size)
            size += 1
    return size, examined

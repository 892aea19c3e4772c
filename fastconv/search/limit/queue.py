"""Branch and bound as compiled code: boxes in a heap, the least limit first."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.native.source import jit
from fastconv.search.limit.box import limit_of_box

NARROW = 1e-9
"""A box narrower than this in all coordinates is not split: its limit is final."""


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
    """Return whether a box holds ascending points with a sum <= 0; mirror images cover the others."""
    k = len(lo)
    for j in range(k - 1):
        if lo[j] >= hi[j + 1]:
            return False
    return bool(lo.sum() <= 0.0)


@jit
def branch(queue: Any, count: int, size: Any, target: float, steps: int) -> tuple[int, int]:
    """Split boxes, the least limit first, until all reach the target, memory is full, or `steps` are done.

    Parameters
    ----------
    queue : Heap
        The first `count` in its order are open.
    count : int
        Open boxes.
    size : Size
        Size and dimension.
    target : float
        The limit to prove, in units of one rounding.
    steps : int
        Approximate number of boxes to examine.

    Returns
    -------
    int, int
        Boxes in the heap, boxes examined.
    """
    boxes, slopes, limits, heap = queue
    k = boxes.shape[2]
    examined = 0
    slope = np.empty(k)
    while count and examined < steps and count + 1 < len(heap) and limits[heap[0]] < target:
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
        count -= 1
        heap[0], heap[count] = heap[count], heap[0]
        _down(heap, limits, count)
        for half in range(2):
            number = heap[count]
            boxes[number, 0], boxes[number, 1] = lo, hi
            boxes[number, 1 - half, axis] = middle
            if not possible(boxes[number, 0], boxes[number, 1]):
                continue
            examined += 1
            found = max(limit, limit_of_box(boxes[number, 0], boxes[number, 1], size, target, slope))
            if found >= target:
                continue
            limits[number], slopes[number] = found, slope
            _up(heap, limits, count)
            count += 1
    return count, examined

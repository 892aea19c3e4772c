"""Objectives of the search: functions from sets of points, as floats, to numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.arithmetic import Policy
from fastconv.error.predict.compiled import bulk_predictor

Array = npt.NDArray[Any]
Objective = Callable[[Array, bool], Array]
"""``f(points (sets, k), infinity) -> (sets,)``; smaller is better."""


def _by_magnitude(points: Array) -> Array:
    """Sort the points of each set by magnitude, the negative first, as for `toom_cook`.

    Integers made of the bits, with the sign bit moved to the end, sort in this order.
    """
    bits = (np.ascontiguousarray(points, np.float64) + 0.0).view(np.uint64)
    keys = bits << np.uint64(1)
    bits >>= np.uint64(63)  # in place: allocating arrays of this size costs more than the operations
    bits ^= np.uint64(1)
    keys |= bits
    keys.sort(axis=1)
    np.bitwise_and(keys, np.uint64(1), out=bits)
    bits ^= np.uint64(1)
    bits <<= np.uint64(63)
    keys >>= np.uint64(1)
    keys |= bits
    return np.asarray(keys.view(np.float64))


def predicted(m: int, r: int, dims: int, policy: str | Policy) -> Objective:
    """Return the mean error of F(m, r) by `predict_errors`: uniform inputs in (-1, 1), Huffman order, normal errors."""
    predict = bulk_predictor(m, r, dims, policy)

    def evaluate(points: Array, infinity: bool) -> Array:
        return predict(_by_magnitude(points))[0]

    return evaluate


def condition(m: int, r: int, dims: int, policy: str | Policy) -> Objective:
    """Return the condition number of the square Vandermonde matrix of the finite points, which NOVA minimises."""

    def evaluate(points: Array, infinity: bool) -> Array:
        matrices = points[:, :, None] ** np.arange(points.shape[1])
        with np.errstate(all="ignore"):
            values = np.linalg.svd(matrices, compute_uv=False)
            return np.asarray(np.where(values[:, -1] > 1e-12 * values[:, 0], values[:, 0] / values[:, -1], np.inf))

    return evaluate


OBJECTIVES: dict[str, Callable[[int, int, int, str | Policy], Objective]] = {"predicted": predicted, "condition": condition}


def objective_named(name: str) -> Callable[[int, int, int, str | Policy], Objective]:
    """Return the objective of that name.

    Raises
    ------
    ValueError
        Lists the known objectives.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: the objectives are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]

"""Transform weights and pack them the way the inner product reads them."""

from __future__ import annotations

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import apply, array_reading
from fastconv.exact import format_named
from fastconv.kernels.layer import Array
from fastconv.program import programs_of


def transformed_weights(axes: tuple[BilinearAlgorithm, BilinearAlgorithm], weight: Array, order: str) -> Array:
    """Return U = G w G^T, shape (xi, filters, channels): in float64, then rounded once to the weights' format.

    A plan pays this once, and float64 keeps the error of the kernel transform out of the layer's.
    """
    reading = array_reading(format_named("fp64"))
    u = np.ascontiguousarray(weight.transpose(2, 3, 0, 1), dtype=np.float64)
    for axis, alg in enumerate(axes):
        u = apply(programs_of(alg, order).kernel, u, reading, axis)
    return u.reshape(-1, *weight.shape[:2]).astype(weight.dtype)


def packed(u: Array, mr: int) -> Array:
    """Pack U (groups, xi, filters, depth) into panels of `mr` filters, each (depth, filter); the last holds what is left."""
    groups, xis, filters, depth = u.shape
    whole = filters // mr * mr
    panels = u[:, :, :whole].reshape(groups, xis, -1, mr, depth).swapaxes(3, 4).reshape(groups, xis, -1)
    return np.concatenate([panels, u[:, :, whole:].swapaxes(2, 3).reshape(groups, xis, -1)], axis=2)

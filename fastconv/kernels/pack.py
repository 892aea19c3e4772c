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


def packed(u: Array, mr: int, kblock: int) -> Array:
    """Pack U (groups, xi, filters, depth) into blocks of filters, each (xi, panel of `mr` filters, depth, filter).

    Every block has the same size; the last one's last panel holds the filters that are left.
    """
    groups, xis, filters, depth = u.shape
    blocks = -(-filters // kblock)
    out = np.zeros((groups, blocks, xis, kblock * depth), u.dtype)
    for b in range(blocks):
        part = u[:, :, b * kblock : (b + 1) * kblock]
        whole = part.shape[2] // mr * mr
        panels = part[:, :, :whole].reshape(groups, xis, -1, mr, depth).swapaxes(3, 4).reshape(groups, xis, -1)
        out[:, b, :, : whole * depth] = panels
        out[:, b, :, whole * depth : part.shape[2] * depth] = part[:, :, whole:].swapaxes(2, 3).reshape(groups, xis, -1)
    return out

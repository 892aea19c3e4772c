"""Transform weights and pack them in the order in which the inner product reads them."""

from __future__ import annotations

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import apply, array_reading
from fastconv.exact import format_named
from fastconv.kernels.layer import Array
from fastconv.native import lasting
from fastconv.program import program_of

AT_ONCE = 1 << 20
"""Bytes of filters, in float64, transformed at once: they stay in a cache, and numpy's calls still take less time than the numbers."""


def transformed_weights(axes: tuple[BilinearAlgorithm, BilinearAlgorithm], weight: Array, order: str) -> Array:
    """Return U = G w G^T of shape (xi, filters, channels), computed in float64 and rounded once.

    A plan does this once; float64 keeps the error of the kernel transform out of the layer's. Nothing is fused here: numpy has no
    such operation, and its effect in float64 hardly ever survives the rounding.
    """
    reading, (filters, channels, *kernel) = array_reading(format_named("fp64")), weight.shape
    order = order.removesuffix("+fma")
    xis = [alg.products for alg in axes]
    out = lasting((xis[0] * xis[1], filters, channels), weight.dtype)
    some = max(1, AT_ONCE // (8 * channels * max(*kernel, *xis) ** 2))
    for k in range(0, filters, some):
        u = np.ascontiguousarray(weight[k : k + some].transpose(2, 3, 0, 1), dtype=np.float64)
        for axis, alg in enumerate(axes):
            u = apply(program_of(alg.G, order), u, reading, axis)
        out[:, k : k + some] = u.reshape(-1, *u.shape[2:])
    return out


def packed(u: Array, kblock: int, panel: int, chain: int) -> Array:
    """Pack U (groups, xi, filters, depth) in reading order, so that it streams from memory.

    The result is blocks of `kblock` filters, each (xi, chains of the depth, panels of `panel` filters, depth of the chain,
    filter). The last panel holds the remaining filters.
    """
    groups, xis, filters, depth = u.shape
    out = lasting((groups, xis * filters * depth), u.dtype)
    at = 0
    for k in range(0, filters, kblock):
        here = min(kblock, filters - k)
        part = out[:, at : at + xis * here * depth].reshape(groups, xis, depth * here)
        whole = here // panel * panel
        for c in range(0, depth, chain):
            steps = u[:, :, k : k + here, c : c + chain]
            count = steps.shape[3]
            sheet = part[:, :, c * here : (c + count) * here]
            panels = steps[:, :, :whole].reshape(groups, xis, -1, panel, count).swapaxes(3, 4)
            sheet[:, :, : whole * count] = panels.reshape(groups, xis, -1)
            sheet[:, :, whole * count :] = steps[:, :, whole:].swapaxes(2, 3).reshape(groups, xis, -1)
        at += xis * here * depth
    return out

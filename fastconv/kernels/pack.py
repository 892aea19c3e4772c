"""Transform weights and pack them the way the inner product reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm
from fastconv.exact import format_of_dtype, rounded
from fastconv.program import Program, Reading, programs_of

Array = npt.NDArray[Any]


def arrays(dtype: npt.DTypeLike) -> Reading[Array, Any]:
    """Return the reading of a program on numpy arrays, one rounding an operation; programs with fma are refused."""
    fmt, kind = format_of_dtype(dtype), np.dtype(dtype)

    def fused(c: Any, a: Array, b: Array) -> Array:
        raise ValueError("numpy has no fused multiply-add: take the order without +fma")

    return Reading(
        constant=lambda c: np.array(rounded(c, fmt), kind),
        mul=lambda c, a: c * a,
        add=lambda a, b: a + b,
        sub=lambda a, b: a - b,
        neg=lambda a: -a,
        fma=fused,
    )


def along(program: Program, values: Array, axis: int, reading: Reading[Array, Any]) -> Array:
    """Run a program along an axis of an array."""
    lines: list[Array] = [*np.moveaxis(values, axis, 0)]
    return np.stack(program.read(lines, reading), axis=axis)


def unfused(order: str) -> str:
    """Return the order without its fused multiply-adds."""
    return order.replace("+fma", "")


def transformed_weights(axes: tuple[BilinearAlgorithm, BilinearAlgorithm], weight: Array, order: str) -> Array:
    """Return U = G w G^T, shape (xi, filters, channels): in float64, then rounded once to the weights' format.

    A plan pays this once, and float64 keeps the error of the kernel transform out of the layer's.
    """
    u = weight.astype(np.float64)
    for axis, alg in zip((2, 3), axes, strict=True):
        u = along(programs_of(alg, unfused(order)).kernel, u, axis, arrays(np.float64))
    return u.transpose(2, 3, 0, 1).reshape(-1, *weight.shape[:2]).astype(weight.dtype)


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

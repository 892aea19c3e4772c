"""A numpy version of the layers, with the same operations in the same order, to compare compiled layers with.

In float32 it equals the compiled layer bit for bit, fused multiply-adds included, which are
rounded once here as well; in float64 too, as long as nothing overflows or underflows.
"""

from __future__ import annotations

import numpy as np

from fastconv.arithmetic import apply, array_reading, fused
from fastconv.exact import Format, format_of_dtype
from fastconv.kernels.choose.method import Method
from fastconv.kernels.layer import Array, Layer
from fastconv.kernels.runners.pack import transformed_weights
from fastconv.program import programs_of


def twin(layer: Layer, method: Method, x: Array, weight: Array, bias: Array | None, order: str, chain: int, has_fma: bool) -> Array:
    """Return the output of a fast algorithm or im2col, computed as by the block engine.

    Parameters
    ----------
    layer, method
        The layer, and its method.
    x, weight, bias : arrays
        Arrays of a 2-D layer.
    order : str
        Order of summation of the transforms.
    chain : int
        Products summed before the sum is added to the total.
    has_fma : bool
        Whether the inner product fuses multiplication and addition.
    """
    fmt = format_of_dtype(layer.dtype)
    (oh, ow), groups = layer.output, layer.groups
    if method.axes is None:
        columns = windows(layer, x, layer.kernel, layer.stride, layer.dilation, (oh, ow))
        v = columns.reshape(1, layer.batch, groups, -1, *columns.shape[-2:])  # a tap is a channel
        u = weight.reshape(1, groups, layer.filters // groups, -1)
    else:
        m, n = tuple(a.m for a in method.axes), tuple(a.n for a in method.axes)
        count = tuple(-(-size // k) for size, k in zip((oh, ow), m, strict=True))
        step = tuple(a.m * a.stride for a in method.axes)
        tiles = np.moveaxis(windows(layer, x, n, step, (1, 1), count), (2, 3), (0, 1))
        for axis, alg in enumerate(method.axes):
            tiles = apply(programs_of(alg, order).input, tiles, array_reading(fmt), axis)
        v = tiles.reshape(-1, layer.batch, 1, layer.channels, *count)
        u = transformed_weights(method.axes, weight, order)[:, None]
    total = chained(u, v, chain, fmt, has_fma)
    if method.axes is None:
        y = total.reshape(layer.batch, layer.filters, oh, ow)
    else:
        y = total.reshape(*(a.products for a in method.axes), *total.shape[1:])
        for axis, alg in enumerate(method.axes):
            y = apply(programs_of(alg, order).output, y, array_reading(fmt), axis)
        # (row of a tile, column of a tile, batch, 1, filters, tiles down, tiles across)
        y = y[:, :, :, 0].transpose(2, 3, 4, 0, 5, 1).reshape(layer.batch, layer.filters, count[0] * m[0], count[1] * m[1])[:, :, :oh, :ow]
    shift = np.zeros(layer.filters, layer.dtype) if bias is None else bias
    return np.asarray(y + shift[:, None, None])


def windows(
    layer: Layer,
    x: Array,
    size: tuple[int, ...],
    step: tuple[int, ...],
    spacing: tuple[int, ...],
    count: tuple[int, ...],
) -> Array:
    """Return (batch, channels, *size, *count): the numbers in each of `count` windows, zeros outside the image."""
    reach = [(c - 1) * s + d * (k - 1) + 1 for c, s, d, k in zip(count, step, spacing, size, strict=True)]
    shape = (layer.height, layer.width)
    pads = [(before, max(0, r - have - before)) for r, have, (before, _) in zip(reach, shape, layer.padding, strict=True)]
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    rows, columns = (d * np.arange(k)[:, None] + s * np.arange(c)[None, :] for k, d, s, c in zip(size, spacing, step, count, strict=True))
    return padded[:, :, rows[:, None, :, None], columns[None, :, None, :]]


def chained(u: Array, v: Array, chain: int, fmt: Format, has_fma: bool) -> Array:
    """Sum u (xi, groups, filters, depth) times v (xi, batch, groups, depth, ...) over the depth, in chains."""
    total: Array | None = None
    for start in range(0, u.shape[-1], chain):
        part = np.zeros((), u.dtype)
        for c in range(start, min(start + chain, u.shape[-1])):
            a, b = u[:, None, :, :, c, None, None], v[:, :, :, None, c]
            part = fused(a, b, part, fmt) if has_fma else part + a * b
        total = part if total is None else total + part
    assert total is not None
    return total

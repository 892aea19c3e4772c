"""Evaluate an algorithm on tiles, with every operation rounded by a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm, axes_of
from fastconv.arithmetic import Policy, Setting, apply, array_reading, carrier, channel_sum_named, round_to, setting_of
from fastconv.error.measure.shapes import Array, check_pair, windows
from fastconv.exact import Format
from fastconv.program import Program, programs_of

Axes = BilinearAlgorithm | str | tuple[BilinearAlgorithm, ...]
"""What functions of this package accept as an algorithm."""


def evaluate(
    alg: Axes,
    w: Any,
    x: Any,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: bool = False,
    channel_sum: str = "linear",
) -> Array:
    """Run an algorithm on tiles: ``y_i = sum_k w_k x_{i+k}``, rounded by a policy.

    Parameters
    ----------
    alg : BilinearAlgorithm, str or pair of BilinearAlgorithm
        F(m, r), n = m + r - 1, along all axes; a name; or one along the height and one along the width.
    w : array, (..., r) or (..., r, r)
        Kernels; with `channels` the axis before the tile is that of the channels.
    x : array, (..., n) or (..., n, n)
        Tiles of input. Leading axes broadcast with those of `w`.
    dims : {1, 2}, optional
        Dimension: that of the name or the pair, one for one algorithm.
    policy : str or Policy
        Formats of the stages; w and x are first rounded to its data format.
    order : str
        Order of summation in the transforms: ``"huffman"``, ``"sequential"`` or ``"pairwise"``, and ``+shared``, ``+folded``, ``+fma``.
    channels : bool
        Whether to sum over a channel axis.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"`` (32 at a time).

    Returns
    -------
    array, (..., m) or (..., m, m)
        In float32 if the output format is fp32, otherwise in float64. Overflow gives inf or NaN, depending on the
        format.

    Raises
    ------
    TypeError, ValueError
        For wrong types, shapes or names.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> alg = toom_cook(2, 3, [0, 1, -1, "inf"])
    >>> evaluate(alg, np.ones(3, "f4"), np.arange(4, dtype="f4"))
    array([3., 6.], dtype=float32)
    """
    axes = axes_of(alg, dims)
    w, x = check_pair(axes, w, x, channels)
    return stages(axes, w, x, setting_of(policy, order, 1, channel_sum), channels)["output"]


def stages(axes: Sequence[BilinearAlgorithm], w: Array, x: Array, setting: Setting, summed: bool) -> dict[str, Array]:
    """Return the result of each stage: kernel, input, product, sum (over channels, if `summed`), output. Tile axes last."""
    policy = setting.policy
    add_channels = channel_sum_named(setting.channel_sum)
    programs = [programs_of(alg, setting.order) for alg in axes]
    kernel, input, output = ([getattr(one, stage) for one in programs] for stage in ("kernel", "input", "output"))
    U = round_to(transform(kernel, round_to(w, policy.data), policy.kernel, policy.constants), policy.operands)
    V = round_to(transform(input, round_to(x, policy.data), policy.input, policy.constants), policy.operands)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        hold = carrier(policy.product)
        products = round_to(U.astype(hold, copy=False) * V.astype(hold, copy=False), policy.product)
    total = products
    if summed:
        terms = round_to(np.moveaxis(products, -len(axes) - 1, 0), policy.accumulate)
        total = add_channels(terms, array_reading(policy.accumulate).add)
    y = transform(output, round_to(total, policy.accumulate), policy.output, policy.constants)
    return {"kernel": U, "input": V, "product": products, "sum": total, "output": y}


def transform(programs: Sequence[Program], values: Array, fmt: Format, constants: Format | None) -> Array:
    """Apply a program along each tile axis: from the left first (``G w``), then from the right (``... G^T``)."""
    reading, dims = array_reading(fmt, constants), len(programs)
    tiles = np.moveaxis(round_to(values, fmt), range(-dims, 0), range(dims))
    for axis, program in enumerate(programs):
        tiles = apply(program, np.ascontiguousarray(tiles), reading, axis)
    return np.moveaxis(tiles, range(dims), range(-dims, 0))


def direct(w: Array, x: Array, strides: Sequence[int], setting: Setting, summed: bool) -> Array:
    """Convolve directly in a policy's product and accumulator formats: taps left to right, then channels."""
    policy = setting.policy
    hold = carrier(policy.product)
    w, x = (round_to(a, policy.data).astype(hold) for a in (w, x))
    add = array_reading(policy.accumulate).add
    total: Array | None = None
    for weight, window in windows(w, x, strides):
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            term = round_to(round_to(weight * window, policy.product), policy.accumulate)
        total = term if total is None else add(total, term)
    assert total is not None
    return channel_sum_named(setting.channel_sum)(np.moveaxis(total, -len(strides) - 1, 0), add) if summed else total

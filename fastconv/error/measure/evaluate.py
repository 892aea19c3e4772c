"""Evaluate an algorithm on tiles, every operation rounded as a policy says."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, apply, array_reading, carrier, channel_sum_named, policy_named, round_to
from fastconv.error.measure.shapes import Array, by_name, check_pair, windows
from fastconv.program import programs_of


@by_name
def evaluate(
    alg: BilinearAlgorithm,
    w: Any,
    x: Any,
    dims: int = 1,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: bool = False,
    channel_sum: str = "linear",
) -> Array:
    """Run an algorithm on tiles: ``y_i = sum_k w_k x_{i+k}``, in the rounding of a policy.

    Parameters
    ----------
    alg : BilinearAlgorithm or str
        F(m, r), n = m + r - 1.
    w : array, (..., r) or (..., r, r)
        Kernels; with `channels` the axis before the tile is that of the channels.
    x : array, (..., n) or (..., n, n)
        Tiles of input. Leading axes broadcast with those of `w`.
    dims : {1, 2}
        Dimension.
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
        Held in float32 where the output format is fp32, in float64 otherwise. What overflows is inf or NaN, as
        the format says.

    Raises
    ------
    TypeError, ValueError
        For wrong kinds, shapes or names.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> alg = toom_cook(2, 3, [0, 1, -1, "inf"])
    >>> evaluate(alg, np.ones(3, "f4"), np.arange(4, dtype="f4"))
    array([3., 6.], dtype=float32)
    """
    w, x = check_pair(alg, w, x, dims, channels)
    return stages(alg, w, x, dims, policy_named(policy), order, channels, channel_sum)["output"]


def stages(
    alg: BilinearAlgorithm, w: Array, x: Array, dims: int, policy: Policy, order: str, channels: bool, channel_sum: str
) -> dict[str, Array]:
    """Return the result of each stage: kernel, input, product, sum, output. Tile axes last."""
    add_channels = channel_sum_named(channel_sum)
    programs = programs_of(alg, order)
    U = round_to(transform(programs.kernel, round_to(w, policy.data), policy.kernel, dims, policy.constants), policy.operands)
    V = round_to(transform(programs.input, round_to(x, policy.data), policy.input, dims, policy.constants), policy.operands)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        hold = carrier(policy.product)
        products = round_to(U.astype(hold, copy=False) * V.astype(hold, copy=False), policy.product)
    total = products
    if channels:
        terms = round_to(np.moveaxis(products, -dims - 1, 0), policy.accumulate)
        total = add_channels(terms, array_reading(policy.accumulate).add)
    y = transform(programs.output, round_to(total, policy.accumulate), policy.output, dims, policy.constants)
    return {"kernel": U, "input": V, "product": products, "sum": total, "output": y}


def transform(program: Any, values: Array, fmt: Any, dims: int, constants: Any) -> Array:
    """Apply a program along the tile axes: from the left first (``G w``), then from the right (``... G^T``)."""
    reading = array_reading(fmt, constants)
    tiles = np.moveaxis(round_to(values, fmt), range(-dims, 0), range(dims))
    for axis in range(dims):
        tiles = apply(program, np.ascontiguousarray(tiles), reading, axis)
    return np.moveaxis(tiles, range(dims), range(-dims, 0))


def direct(w: Array, x: Array, dims: int, policy: Policy, channels: bool, channel_sum: str, stride: int = 1) -> Array:
    """Convolve directly in a policy's product and accumulator formats: taps left to right, then channels."""
    hold = carrier(policy.product)
    w, x = (round_to(a, policy.data).astype(hold) for a in (w, x))
    add = array_reading(policy.accumulate).add
    total: Array | None = None
    for weight, window in windows(w, x, dims, stride):
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            term = round_to(round_to(weight * window, policy.product), policy.accumulate)
        total = term if total is None else add(total, term)
    assert total is not None
    return channel_sum_named(channel_sum)(np.moveaxis(total, -dims - 1, 0), add) if channels else total

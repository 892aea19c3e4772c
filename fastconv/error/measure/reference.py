"""Direct convolution as the reference: in float64, in twice float64, or in mpmath."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.arithmetic import check_count, two_product, two_sum
from fastconv.error.measure.shapes import Array, check_pair, windows


def reference(w: Any, x: Any, dims: int = 1, channels: bool = False, digits: int | None = None, stride: int = 1) -> Array:
    """Convolve directly: ``y_i = sum_k w_k x_{stride i + k}``, the reference for measured errors.

    Parameters
    ----------
    w : array, (..., r) or (..., r, r)
        Kernels; with `channels` the axis before the tile is that of the channels.
    x : array, (..., n) or (..., n, n)
        Tiles.
    dims : {1, 2}
        Dimension.
    channels : bool
        Whether to sum over a channel axis.
    digits : int, optional
        Compute in mpmath with that many decimal digits instead of float64.
    stride : int
        Inputs from one output to the next.

    Returns
    -------
    array, (..., m) or (..., m, m)
        float64, or objects of mpmath.

    Notes
    -----
    In float64 the relative error is at most K 2^-53 sum |w||x| with K = r (or r^2) times the channels: for data of
    24 bits, whose products are exact, nine digits below the rounding errors of fp32.

    Examples
    --------
    >>> reference(np.ones(3), np.arange(4.0))
    array([3., 6.])
    """
    check_count("stride", stride)
    w, x = check_pair(dims, w, x, channels)
    if digits is None:
        return direct_in_float64(w, x, (stride,) * dims, channels)
    return _in_mpmath(w, x, (stride,) * dims, channels, digits)


def direct_in_float64(w: Array, x: Array, strides: tuple[int, ...], channels: bool) -> Array:
    """Convolve in float64, taps left to right."""
    total: Any = 0.0
    for weight, window in windows(w.astype(np.float64), x.astype(np.float64), strides):
        total = total + weight * window
    return np.asarray(total.sum(axis=-len(strides) - 1) if channels else total)


def direct_in_double_double(w: Array, x: Array, strides: tuple[int, ...], channels: bool) -> tuple[Array, Array]:
    """Convolve in twice the precision of float64 (error near 2**-104): the result is high + low."""
    high: Any = 0.0
    low: Any = 0.0
    for weight, window in windows(w.astype(np.float64), x.astype(np.float64), strides):
        p, e = two_product(*np.broadcast_arrays(weight, window))
        high, t = two_sum(np.asarray(high), p)
        low = low + (t + e)
    if channels:
        parts_high, parts_low = (np.moveaxis(part, -len(strides) - 1, 0) for part in (high, low))
        high, low = parts_high[0], parts_low[0]
        for h, l in zip(parts_high[1:], parts_low[1:], strict=True):  # noqa: E741
            high, t = two_sum(high, h)
            low = low + (t + l)
    return two_sum(high, low)


def _in_mpmath(w: Array, x: Array, strides: tuple[int, ...], channels: bool, digits: int) -> Array:
    import mpmath

    if not isinstance(digits, int) or digits < 1:
        raise ValueError(f"digits is {digits!r}: pass a positive number of decimal digits")
    with mpmath.workdps(digits):
        to_mpf = np.frompyfunc(lambda v: mpmath.mpf(float(v)), 1, 1)
        total: Any = mpmath.mpf(0)
        for weight, window in windows(to_mpf(w), to_mpf(x), strides):
            total = total + weight * window
        return np.asarray(total.sum(axis=-len(strides) - 1) if channels else total)

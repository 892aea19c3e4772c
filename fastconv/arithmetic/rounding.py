"""Round arrays to a number format, once and correctly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.exact import Format

Array = npt.NDArray[Any]


def carrier(fmt: Format) -> type[np.floating[Any]]:
    """Return the dtype that holds values of a format: float32 for fp32, float64 for all others.

    One operation in float64 on values of at most 24 bits, then rounded to the format, is correctly rounded:
    53 >= 2 p + 2 for p <= 24 (Figueroa 1995), and float64's exponents leave the subnormals of the format exact.
    """
    return np.float32 if fmt.name == "fp32" else np.float64


def round_to(x: Array, fmt: Format) -> Array:
    """Round to the nearest number of a format: ties to even, gradual underflow, its overflow.

    Parameters
    ----------
    x : array
        Values in float32 or float64, of any shape.
    fmt : Format
        The format.

    Returns
    -------
    array
        Values of the format, held in `carrier(fmt)`.

    Examples
    --------
    >>> from fastconv.exact import format_named
    >>> round_to(np.array([1 + 2**-8 + 2**-40, 1e5]), format_named("fp16"))
    array([1.00390625,        inf])
    """
    if fmt.name == "fp64":
        return x.astype(np.float64, copy=False)
    if fmt.name == "fp32":
        with np.errstate(over="ignore", invalid="ignore"):
            return x.astype(np.float32, copy=False)
    wide = np.asarray(x, np.float64)
    # In the normal range: add half a unit less one, plus the last kept bit, to the integer pattern; then truncate.
    drop = np.uint64(53 - fmt.p)
    bits = wide.view(np.uint64)
    last = (bits >> drop) & np.uint64(1)
    half = np.uint64((1 << (53 - fmt.p - 1)) - 1)
    cut = ~np.uint64((1 << (53 - fmt.p)) - 1)
    rounded = ((bits + half + last) & cut).view(np.float64)
    magnitude = np.abs(wide)
    smallest = float(2.0**fmt.emin)
    if (magnitude < smallest).any():
        tiny = float(fmt.tiny)
        rounded = np.where(magnitude < smallest, np.rint(wide / tiny) * tiny, rounded)
    over = ~(np.abs(rounded) <= float(fmt.largest))
    if over.any():
        rounded = np.where(over, np.copysign(fmt.overflow, wide), rounded)
        rounded = np.where(np.isnan(wide), wide, rounded)
    return rounded


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return s + e = a + b exactly, s the rounded sum (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Return p + e = a * b exactly, p the rounded product (Dekker, Veltkamp).

    Exact in float64 unless e underflows or p overflows.
    """
    p = a * b
    if max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0)) < _SPLIT:
        return p, _rest(p, a, b)
    (a_part, a_exponent), (b_part, b_exponent) = np.frexp(a), np.frexp(b)
    return p, np.ldexp(_rest(a_part * b_part, a_part, b_part), a_exponent + b_exponent)


_SPLIT = 2.0**990
"""Below this magnitude, splitting an operand does not overflow."""


def _rest(p: Array, a: Array, b: Array) -> Array:
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return np.asarray(((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low)


def _split(a: Array) -> tuple[Array, Array]:
    c = a * 134217729.0  # 2**27 + 1
    high = c - (c - a)
    return high, a - high


def _add_to_odd(a: Array, b: Array) -> Array:
    """Add in float64, rounding an inexact sum to the neighbour with an odd last bit (Boldo, Melquiond 2008)."""
    s, e = two_sum(a, b)
    bits = s.view(np.int64)
    even = (bits & 1) == 0
    away = (e > 0) == (s > 0)
    return np.where((e != 0) & even & np.isfinite(s), np.where(away, bits + 1, bits - 1), bits).view(np.float64)


def fused(c: Any, a: Array, b: Array, fmt: Format) -> Array:
    """Return c * a + b rounded once to the format.

    For formats of at most 24 bits the product is exact in float64 and the sum is rounded to odd before the format
    rounds it, so that no double rounding occurs; for fp64 the sum of three parts is formed the same way. Exact
    as long as the operations in float64 neither overflow nor underflow.
    """
    c, a, b = (np.asarray(v, np.float64) for v in (c, a, b))
    with np.errstate(over="ignore", invalid="ignore"):
        if fmt.name != "fp64":
            return round_to(_add_to_odd(*np.broadcast_arrays(c * a, b)), fmt)
        high, low = two_product(*np.broadcast_arrays(c, a))
        t_high, t_low = two_sum(b, low)
        v_high, v_low = two_sum(high, t_high)
        result = v_high + _add_to_odd(t_low, v_low)
        plain = c * a + b
        return np.where(np.isfinite(plain) & np.isfinite(result), result, plain)

"""Point sets with pairs of complex points: on the unit circle, and the best known."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from typing import Any

from fastconv.exact import INF, Gaussian, Number, exact_point

_REALS = (Fraction(0), INF, Fraction(1), Fraction(-1))


def circle_points(n: int) -> tuple[Number, ...]:
    """Return 0, infinity, and points on the unit circle, equally spaced up to rounding.

    Parameters
    ----------
    n : int
        Tile size m + r - 1, at least 4. One real point is on the circle if n is odd, two if it is even. The others are
        pairs of complex points.

    Returns
    -------
    tuple
        The real points, then one `Gaussian` of the upper half plane per pair.

    Notes
    -----
    With the N-th roots of unity instead of rational points, the matrices would be a discrete Fourier transform of N = n - 2
    points and two products that correct the wrap-around. Their entries are sines and cosines, so the error hardly grows with
    the tile. Rational points of the circle are ``(1 + t I)**2 / (1 + t**2)``.

    Examples
    --------
    >>> circle_points(8)
    (Fraction(0, 1), inf, Fraction(1, 1), Fraction(-1, 1), 33/65+56/65*I, -33/65+56/65*I)
    """
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"n is {n!r}: the tile size is an integer")
    if n < 4:
        raise ValueError(f"n is {n}: a circle needs tiles of at least 4")
    pairs = (n - 3) // 2
    finest = max(12, pairs)

    def near(k: int) -> Gaussian:
        """Return the point nearest to k of n - 2 parts of the circle."""
        if 4 * k == n - 2:
            return Gaussian(Fraction(0), Fraction(1))
        if 4 * k > n - 2 and n % 2 == 0:
            return -near((n - 2) // 2 - k).conjugate
        t = Fraction(math.tan(math.pi * k / (n - 2))).limit_denominator(finest)
        return Gaussian((1 - t * t) / (1 + t * t), 2 * t / (1 + t * t))

    return (*_REALS[: n - 2 * pairs], *(near(k + 1) for k in range(pairs)))


@lru_cache(maxsize=1)
def _searched() -> dict[tuple[int, int, int, int], dict[str, Any]]:
    data = json.loads(files("fastconv.algebra").joinpath("complex_points.json").read_text(encoding="utf-8"))
    return {(row["m"], row["r"], row["dims"], row["pairs"]): row for row in data["rows"]}


def complex_points(m: int, r: int, pairs: int, dims: int = 2) -> tuple[Number, ...]:
    """Return the points with the smallest known error for a number of complex pairs.

    Parameters
    ----------
    m, r : int
        Outputs and taps.
    pairs : int
        Pairs of complex points, at least one. Each takes one multiplication more than two real points and lowers the error.
    dims : {1, 2}
        Dimension.

    Raises
    ------
    ValueError
        If no set of that size is known; the message lists the numbers of pairs that have one.

    Notes
    -----
    The sets come from the table that analysis/complex_points.py writes; `circle_points` is the set with the most pairs.

    Examples
    --------
    >>> complex_points(14, 5, 7) == circle_points(18)
    True
    """
    n = m + r - 1
    row = _searched().get((m, r, dims, pairs))
    if row is not None:
        return tuple(exact_point(p) for p in row["points"].split())
    most = (n - 3) // 2
    if pairs == most and n >= 5:
        return circle_points(n)
    known = sorted({key[3] for key in _searched() if key[:3] == (m, r, dims)} | ({most} if n >= 5 else set()))
    have = f"sets are known with {', '.join(map(str, known))}" if known else "no set is known"
    raise ValueError(f"{pairs} pairs of complex points asked for F({m},{r}) in {dims}-D: {have}; pass your own points to toom_cook")


def complex_sizes(r: int, dims: int) -> tuple[tuple[int, int], ...]:
    """Return outputs and pairs of the searched sets for a kernel size."""
    return tuple((m, pairs) for m, taps, d, pairs in _searched() if (taps, d) == (r, dims))

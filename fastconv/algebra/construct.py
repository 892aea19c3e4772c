"""Construct Toom-Cook algorithms, plain and modified, from any exact points."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.algebra.interpolate import matrices_at
from fastconv.exact import PLAIN, Gaussian, Number, exact_point

LARGEST_TILE = 256
"""Largest tile size n: far beyond any use in floating point, and built in seconds."""


def toom_cook(m: int, r: int, points: Iterable[Any]) -> BilinearAlgorithm:
    """Construct the Toom-Cook algorithm F(m, r) that interpolates at the given points.

    Parameters
    ----------
    m, r : int
        Outputs and taps: ``y_i = sum_k w_k x_{i+k}``, i = 0..m-1, k = 0..r-1.
    points : iterable
        Exactly n = m + r - 1 distinct points, each an int, a `Fraction`, text such as ``"1/2"`` or
        ``"sqrt(2)"``, a real sympy expression (which may hold symbols), or `INF` / ``"inf"``. With infinity
        the algorithm is the modified one, without it the plain one. A complex point, ``"3/5+4/5*I"``, represents itself
        and its conjugate: it counts twice and takes three multiplications.

    Returns
    -------
    BilinearAlgorithm
        The points keep their order; row j of G and BT and column j of AT belong to point j.

    Raises
    ------
    TypeError
        For a float, which is not exact, or another unsupported type.
    ValueError
        For a wrong count, a duplicate, a NaN, or a point that is neither real nor a complex rational.

    Notes
    -----
    With ``M(x) = prod (x - a_i)`` over the finite points, ``M_i = M / (x - a_i)`` and ``N_i = M_i(a_i)``: row i of
    BT holds the coefficients of M_i, low to high; row i of G is ``(1, a_i, ..., a_i^{r-1}) / N_i``; column i of AT
    is ``(1, a_i, ..., a_i^{m-1})``. Infinity adds the row M to BT and ``(0, ..., 0, 1)`` to G and AT.

    References
    ----------
    Barabasz, Anderson, Soodhalter, Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution
    for Deep Neural Networks", ACM TOMS 46(4), 2020, sections 2 and 3.
    Barabasz, Gregg, "Winograd Convolution for DNNs: Beyond Linear Polynomials", 2019, arXiv 1905.05233, for factors of
    higher degree, of which pairs of complex points are a case.

    Examples
    --------
    >>> alg = toom_cook(2, 3, [0, 1, -1, "inf"])
    >>> [[int(e) for e in row] for row in alg.BT]
    [[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    """
    if isinstance(points, str):
        raise TypeError(f"points is the text {points!r}: pass a list, such as {points.split(',')!r}")
    for name, value in (("m", m), ("r", r)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}: outputs and taps are integers")
        if value < 1:
            raise ValueError(f"{name} is {value}: outputs and taps are at least 1")
    n = m + r - 1
    if n > LARGEST_TILE:
        raise ValueError(f"F({m},{r}) has tiles of n = m + r - 1 = {n}: at most {LARGEST_TILE} are built")
    exact = tuple(exact_point(p) for p in points)
    pairs = sum(isinstance(p, Gaussian) for p in exact)
    if len(exact) + pairs != n:
        twice = ", complex ones twice" if pairs else ""
        raise ValueError(f"{len(exact) + pairs} points given: F({m},{r}) takes exactly n = m + r - 1 = {n}, infinity counted{twice}")
    if pairs and not all(isinstance(p, PLAIN) for p in exact):
        raise ValueError("complex points combine only with rational points and infinity: another point is irrational or holds a symbol")
    return _toom_cook(m, r, exact)


@lru_cache(maxsize=256)
def _toom_cook(m: int, r: int, points: tuple[Number, ...]) -> BilinearAlgorithm:
    return BilinearAlgorithm(m, r, points, *matrices_at(m, r, points))

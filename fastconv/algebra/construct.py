"""Construct Toom-Cook algorithms, plain and modified, from any exact points."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.exact import INF, Field, Number, exact_point, to_text

LARGEST_TILE = 256
"""The largest n that is built: far past any use in floating point, and small enough to answer in seconds."""


def toom_cook(m: int, r: int, points: Iterable[Any]) -> BilinearAlgorithm:
    """Construct the Toom-Cook algorithm F(m, r) that interpolates at the given points.

    Parameters
    ----------
    m, r : int
        Outputs and taps: ``y_i = sum_k w_k x_{i+k}``, i = 0..m-1, k = 0..r-1.
    points : iterable
        Exactly n = m + r - 1 distinct points, each an int, a `Fraction`, text such as ``"1/2"`` or
        ``"sqrt(2)"``, a real sympy expression (which may hold symbols), or `INF` / ``"inf"``. With infinity
        the algorithm is the modified one, without it the plain one.

    Returns
    -------
    BilinearAlgorithm
        The points keep their order; row j of G and BT and column j of AT belong to point j.

    Raises
    ------
    TypeError
        For a float, which is not exact, or another foreign kind.
    ValueError
        For a wrong count, a duplicate, a NaN, or a point that is not real.

    Notes
    -----
    With ``M(x) = prod (x - a_i)`` over the finite points, ``M_i = M / (x - a_i)`` and ``N_i = M_i(a_i)``: row i of
    BT holds the coefficients of M_i, low to high; row i of G is ``(1, a_i, ..., a_i^{r-1}) / N_i``; column i of AT
    is ``(1, a_i, ..., a_i^{m-1})``. Infinity adds the row M to BT and ``(0, ..., 0, 1)`` to G and AT.

    References
    ----------
    Barabasz, Anderson, Soodhalter, Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution
    for Deep Neural Networks", ACM TOMS 46(4), 2020, sections 2 and 3.

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
    if len(exact) != n:
        raise ValueError(f"{len(exact)} points given: F({m},{r}) takes exactly n = m + r - 1 = {n}, infinity counted")
    return _toom_cook(m, r, exact)


@lru_cache(maxsize=256)
def _toom_cook(m: int, r: int, points: tuple[Number, ...]) -> BilinearAlgorithm:
    finite = [p for p in points if p is not INF]
    K = Field(finite)
    a = [K(p) for p in finite]
    zero, one = K(Fraction(0)), K(Fraction(1))
    for i, p in enumerate(finite):
        if a[i] in a[:i]:
            raise ValueError(f"point {to_text(p)} is given twice: points are distinct")
    if len(points) - len(finite) > 1:
        raise ValueError("point inf is given twice: points are distinct")

    M = [one]
    for p in a:
        M = [low - p * high for low, high in zip([zero, *M], [*M, zero], strict=True)]

    columns, G, BT = [], [], []
    at = iter(a)
    for point in points:
        if point is INF:
            columns.append([zero] * (m - 1) + [one])
            G.append([zero] * (r - 1) + [one])
            BT.append(M)
            continue
        p = next(at)
        quotient = _quotient(M, p)
        N = _value(quotient, p)
        columns.append(_powers(p, m, one))
        G.append([power / N for power in _powers(p, r, one)])
        BT.append(quotient + [zero] * (m + r - 1 - len(quotient)))
    AT = zip(*columns, strict=True)
    return BilinearAlgorithm(m, r, points, *(tuple(tuple(K.number(e) for e in row) for row in matrix) for matrix in (AT, G, BT)))


def _quotient(M: list[Any], a: Any) -> list[Any]:
    """Divide a polynomial by (x - a), where a is a root: Horner's scheme; coefficients low to high."""
    quotient = [M[-1]]
    for c in M[-2:0:-1]:
        quotient.append(c + a * quotient[-1])
    return quotient[::-1]


def _value(polynomial: list[Any], x: Any) -> Any:
    value = polynomial[-1]
    for c in polynomial[-2::-1]:
        value = value * x + c
    return value


def _powers(x: Any, count: int, one: Any) -> list[Any]:
    powers = [one]
    for _ in range(count - 1):
        powers.append(powers[-1] * x)
    return powers

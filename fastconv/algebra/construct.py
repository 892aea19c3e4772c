"""Construct Toom-Cook algorithms, plain and modified, from any exact points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.exact import INF, PLAIN, Field, Gaussian, Number, exact_point, gaussian, to_text, turned_root

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
        the algorithm is the modified one, without it the plain one. A complex point, ``"3/5+4/5*I"``, stands for itself
        and its conjugate: it counts twice, and takes three multiplications.

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
        raise ValueError("complex points go with rational points, or infinity: one of the others is irrational or holds a symbol")
    return _toom_cook(m, r, exact)


@lru_cache(maxsize=256)
def _toom_cook(m: int, r: int, points: tuple[Number, ...]) -> BilinearAlgorithm:
    n = m + r - 1
    real = [p for p in points if p is not INF and not isinstance(p, Gaussian)]
    K = Field(real)
    roots = [p if p is INF else _roots(p) if isinstance(p, Gaussian) else (K(p),) for p in points]
    zero, one = K(Fraction(0)), K(Fraction(1))
    for i, (p, q) in enumerate(zip(points, roots, strict=True)):
        if q in roots[:i]:
            also = ": a complex point stands for its conjugate, too" if isinstance(p, Gaussian) else ": points are distinct"
            raise ValueError(f"point {to_text(p)} is given twice{also}")

    M = [one]
    for factor in (_factor(q, one) for q in roots if q is not INF):
        M = _product(M, factor, zero)

    columns, G, BT = [], [], []
    for q in roots:
        if q is INF:
            columns.append([zero] * (m - 1) + [one])
            G.append([zero] * (r - 1) + [one])
            BT.append(M)
            continue
        quotient = _quotient(M, q[0])
        if len(q) == 2:
            for column, g, b in _pair(m, r, q[0], quotient):
                columns.append(column)
                G.append(g)
                BT.append(b + [zero] * (n - len(b)))
            continue
        N = _value(quotient, q[0])
        columns.append(_powers(q[0], m, one))
        G.append([power / N for power in _powers(q[0], r, one)])
        BT.append(quotient + [zero] * (n - len(quotient)))
    AT = zip(*columns, strict=True)
    return BilinearAlgorithm(m, r, points, *(tuple(tuple(K.number(e) for e in row) for row in matrix) for matrix in (AT, G, BT)))


def _roots(z: Gaussian) -> tuple[Gaussian, Gaussian]:
    """Return a complex point and its conjugate, the upper one first."""
    return (z, z.conjugate) if z.im > 0 else (z.conjugate, z)


def _factor(roots: tuple[Any, ...], one: Any) -> list[Any]:
    """Return the monic polynomial of a real point or a pair of complex ones; coefficients low to high."""
    return [-roots[0], one] if len(roots) == 1 else [roots[0].norm, -2 * roots[0].re, one]


def _product(a: list[Any], b: list[Any], zero: Any) -> list[Any]:
    total = [zero] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            total[i + j] = total[i + j] + x * y
    return total


def _pair(m: int, r: int, z: Gaussian, quotient: list[Gaussian]) -> Iterator[tuple[list[Fraction], list[Fraction], list[Fraction]]]:
    """Yield the three products of a complex point and its conjugate: column of AT, row of G, row of BT.

    The residue of the product of two polynomials there is the product of two complex numbers, in three multiplications;
    both contribute twice its real part times ``M_z(x)``. On the unit circle the columns of AT are centred on ``z^((m-1)/2)`` and the
    rows of BT turned by half the angle of z: then real parts are the same from both ends, imaginary parts opposite.
    """
    one = Gaussian(Fraction(1), Fraction(0))
    root = turned_root(z)
    turn = one if root is None else z.conjugate ** ((m - 1) // 2) * (root.conjugate if m % 2 == 0 else one)
    spin = one if root is None else root
    a = [turn * z**i for i in range(m)]
    b = [spin * c for c in quotient]
    scale = gaussian(Fraction(2)) / (turn * spin * _value(quotient, z))
    g = [scale * z**k for k in range(r)]
    yield [e.re for e in a], [e.re for e in g], [e.re + e.im for e in b]
    yield [e.im for e in a], [e.im for e in g], [e.im - e.re for e in b]
    yield [e.re + e.im for e in a], [-e.re - e.im for e in g], [e.im for e in b]


def _quotient(M: list[Any], a: Any) -> list[Any]:
    """Divide a polynomial by (x - a), where a is a root: Horner's scheme; coefficients low to high."""
    quotient = [M[-1] if not isinstance(a, Gaussian) else gaussian(M[-1])]
    for c in M[-2:0:-1]:
        quotient.append(a * quotient[-1] + c)
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

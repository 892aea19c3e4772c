"""The matrices of Toom-Cook algorithms: polynomials evaluated at exact points and interpolated from them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from fastconv.exact import INF, Field, Gaussian, Number, gaussian, half_angle_root, to_text

Matrix = tuple[tuple[Number, ...], ...]


def matrices_at(m: int, r: int, points: tuple[Number, ...]) -> tuple[Matrix, Matrix, Matrix]:
    """Return AT, G and BT of F(m, r) at exact points; raise ValueError for a point given twice.

    Examples
    --------
    >>> [[int(e) for e in row] for row in matrices_at(2, 1, (Fraction(0), INF))[2]]
    [[1, 0], [0, 1]]
    """
    n = m + r - 1
    real = [p for p in points if p is not INF and not isinstance(p, Gaussian)]
    K = Field(real)
    roots = [p if p is INF else _roots(p) if isinstance(p, Gaussian) else (K(p),) for p in points]
    zero, one = K(Fraction(0)), K(Fraction(1))
    for i, (p, q) in enumerate(zip(points, roots, strict=True)):
        if q in roots[:i]:
            also = ": a complex point includes its conjugate" if isinstance(p, Gaussian) else ": points are distinct"
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
    return tuple(tuple(tuple(K.number(e) for e in row) for row in matrix) for matrix in (AT, G, BT))  # type: ignore[return-value]


def _roots(z: Gaussian) -> tuple[Gaussian, Gaussian]:
    """Return a complex point and its conjugate, the upper one first."""
    return (z, z.conjugate) if z.im > 0 else (z.conjugate, z)


def _factor(roots: tuple[Any, ...], one: Any) -> list[Any]:
    """Return the monic polynomial of a real point or a complex pair; coefficients low to high."""
    return [-roots[0], one] if len(roots) == 1 else [roots[0].norm, -2 * roots[0].re, one]


def _product(a: list[Any], b: list[Any], zero: Any) -> list[Any]:
    total = [zero] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            total[i + j] = total[i + j] + x * y
    return total


def _pair(m: int, r: int, z: Gaussian, quotient: list[Gaussian]) -> Iterator[tuple[list[Fraction], list[Fraction], list[Fraction]]]:
    """Yield the three products of a complex point and its conjugate: column of AT, row of G, row of BT.

    The residue of a product of two polynomials at z is a product of two complex numbers, computed in three multiplications. z
    and its conjugate together contribute twice its real part times ``M_z(x)``. On the unit circle, the columns of AT are centred
    on ``z^((m-1)/2)`` and the rows of BT are rotated by half the angle of z. Real parts are then equal from both ends of the
    tile, and imaginary parts opposite.
    """
    one = Gaussian(Fraction(1), Fraction(0))
    root = half_angle_root(z)
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

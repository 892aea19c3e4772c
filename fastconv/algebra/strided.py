"""Algorithms with a stride: a Toom-Cook algorithm for each phase of the input."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.algebra.construct import LARGEST_TILE, toom_cook
from fastconv.exact import Number


def strided(m: int, r: int, stride: int, points: Iterable[Iterable[Any]]) -> BilinearAlgorithm:
    """Construct an algorithm for ``y_i = sum_k w_k x_{stride i + k}`` from one for each phase.

    Taps p, p + stride, ... meet only inputs p, p + stride, ...: a convolution of stride one, F(m, ceil((r - p) / stride)). The
    products of the phases are stored side by side, and AT adds them. A phase of one tap needs no transform.

    Parameters
    ----------
    m, r, stride : int
        Outputs, taps, and inputs from one output to the next (at most r).
    points : iterable of iterables
        The points of each phase, as for `toom_cook`: m + r_p - 1 for a phase of r_p taps; an empty list for a single tap.

    Returns
    -------
    BilinearAlgorithm
        With real points it takes stride (m - 1) + r multiplications.

    Raises
    ------
    TypeError, ValueError
        As `toom_cook`, and for a stride of one or of more than r.

    References
    ----------
    Yepez, Ko, "Stride 2 1-D, 2-D, and 3-D Winograd for Convolutional Neural Networks", IEEE TVLSI 28(4), 2020.

    Examples
    --------
    >>> alg = strided(2, 3, 2, [[0, 1, "inf"], []])
    >>> alg.verify()
    >>> alg, alg.n, alg.products
    (F(2,3)s2 of given matrices, 5, 5)
    """
    for name, value in (("m", m), ("r", r), ("stride", stride)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}: outputs, taps and the stride are integers")
    if not 2 <= stride <= r:
        raise ValueError(f"stride is {stride}: at least 2, and at most the number of taps, {r}, or inputs would be left out")
    n = stride * (m - 1) + r
    if n > LARGEST_TILE:
        raise ValueError(f"F({m},{r})s{stride} has tiles of n = stride (m - 1) + r = {n}: at most {LARGEST_TILE} are built")
    given = [tuple(some) for some in points]
    if len(given) != stride:
        raise ValueError(f"{len(given)} sets of points given: one per phase is needed, {stride}")
    columns: list[list[Number]] = []
    G: list[tuple[Number, ...]] = []
    BT: list[tuple[Number, ...]] = []
    for phase, own in enumerate(given):
        taps = phase_taps(r, stride)[phase]
        if taps == 1 and not own:
            one, zero = Fraction(1), Fraction(0)
            unit = [[one if i == j else zero for j in range(m)] for i in range(m)]
            matrices: tuple[Any, Any, Any] = (unit, [[one]] * m, unit)
        else:
            alg = toom_cook(m, taps, own)
            matrices = (alg.AT, alg.G, alg.BT)
        columns += [list(column) for column in zip(*matrices[0], strict=True)]
        G += [_spread(row, phase, stride, r) for row in matrices[1]]
        BT += [_spread(row, phase, stride, n) for row in matrices[2]]
    AT = tuple(zip(*columns, strict=True))
    return BilinearAlgorithm(m, r, (), AT, tuple(G), tuple(BT), stride=stride)


def phase_taps(r: int, stride: int) -> tuple[int, ...]:
    """Return the number of taps of each phase.

    Examples
    --------
    >>> phase_taps(7, 2)
    (4, 3)
    """
    return tuple(len(range(phase, r, stride)) for phase in range(stride))


def _spread(row: Iterable[Number], start: int, step: int, size: int) -> tuple[Number, ...]:
    """Place the numbers of a row `step` apart, with zeros between them."""
    whole: list[Number] = [Fraction(0)] * size
    for k, e in enumerate(row):
        whole[start + step * k] = e
    return tuple(whole)

"""Families of algorithms: each owns some sizes and makes the algorithm for one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.algebra.catalogue import best_points
from fastconv.algebra.complex_points import complex_points
from fastconv.algebra.construct import toom_cook
from fastconv.algebra.strided import phase_taps, strided


class Size(NamedTuple):
    """One axis of a named algorithm, and the dimension that its points are chosen for."""

    m: int
    r: int
    dims: int = 2
    products: int | None = None
    """None: the fewest."""
    stride: int = 1

    def __str__(self) -> str:
        """Return it as a name."""
        return f"F({self.m},{self.r})" + f"s{self.stride}" * (self.stride > 1)


class Family(NamedTuple):
    """A family of algorithms.

    Attributes
    ----------
    name : str
    owns : callable
        Says whether a `Size` belongs to the family.
    make : callable
        Makes the algorithm for such a size; raises ValueError if there is none.
    """

    name: str
    owns: Callable[[Size], bool]
    make: Callable[[Size], BilinearAlgorithm]


def identity() -> BilinearAlgorithm:
    """Return F(1,1), the algorithm for an axis with one tap."""
    one = ((Fraction(1),),)
    return BilinearAlgorithm(1, 1, (), one, one, one)


def _real(size: Size) -> BilinearAlgorithm:
    m, r, dims, products, _ = size
    if products is not None and products < m + r - 1:
        raise ValueError(f"{products} products asked for {size}: it takes at least n = m + r - 1 = {m + r - 1}")
    return toom_cook(m, r, best_points(m, r, dims))


def _complex(size: Size) -> BilinearAlgorithm:
    m, r, dims, products, _ = size
    return toom_cook(m, r, complex_points(m, r, (products or 0) - (m + r - 1), dims))


def _strided(size: Size) -> BilinearAlgorithm:
    m, r, dims, products, stride = size
    if products is not None:
        raise ValueError(f"{products} products asked for {size}: the stride determines them, leave them out")
    return strided(m, r, stride, [best_points(m, taps, dims) if taps > 1 else () for taps in phase_taps(r, stride)])


FAMILIES = (
    Family("one tap", lambda size: size.m == size.r == size.stride == 1, lambda size: identity()),
    Family("strided", lambda size: size.stride > 1, _strided),
    Family("complex points", lambda size: size.products is not None and size.products > size.m + size.r - 1, _complex),
    Family("real points", lambda size: True, _real),
)
"""The families; the first that owns a size makes its algorithm."""


def best_algorithm(
    m: int, r: int, dims: int = 2, products: int | None = None, stride: int = 1, *, families: Sequence[Family] = FAMILIES
) -> BilinearAlgorithm:
    """Return F(m, r) at the best-known points for fp32, with a number of products (None: the fewest).

    Raises
    ------
    ValueError
        If no set of that size is known.

    Examples
    --------
    >>> best_algorithm(8, 3, products=12).products
    12
    >>> best_algorithm(4, 3, stride=2).products
    9
    """
    size = Size(m, r, dims, products, stride)
    return next(family for family in families if family.owns(size)).make(size)

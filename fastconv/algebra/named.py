"""Algorithms by name."""

from __future__ import annotations

from typing import Any

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.algebra.catalogue import check_dims, published_points
from fastconv.algebra.construct import toom_cook
from fastconv.algebra.families import best_algorithm, identity
from fastconv.algebra.names import parse_name


def algorithm(name: str, points: str = "best") -> BilinearAlgorithm:
    """Return an algorithm by its name, at the best-known points for fp32 or at those of a source.

    Parameters
    ----------
    name : str
        Such as ``"F(4x4,3x3)"``, see `parse_name`. The suffix ``/14`` in ``"F(8x8,5x5)/14"`` is the number of products; those
        beyond n are pairs of `complex_points`. The suffix ``s2`` in ``"F(4x4,3x3)s2"`` means stride two (`strided`).
    points : str
        ``"best"`` or a source of `published_points`.

    Returns
    -------
    BilinearAlgorithm
        The algorithm of all axes.

    Raises
    ------
    TypeError, ValueError
        For anything but a name, a size without a known point set, or axes that differ (see `algorithms`).

    Examples
    --------
    >>> algorithm("winograd43").n
    6
    >>> algorithm("F(14x14,5x5)/25").products
    25
    """
    axes = algorithms(name, points)
    if any(axis != axes[0] for axis in axes):
        sides = f"{axes[0].name(1)} along the height and {axes[1].name(1)} along the width"
        raise ValueError(f"{name!r} is {sides}: fastconv.algorithms gives both; name one of the two here")
    return axes[0]


def algorithms(name: str, points: str = "best") -> tuple[BilinearAlgorithm, ...]:
    """Return the algorithms of a name, one per axis: one, or those along height and width.

    Parameters
    ----------
    name, points : str
        As for `algorithm`, rectangles included.

    Returns
    -------
    tuple of BilinearAlgorithm
        `measure_error` and others accept it in place of the name.

    Examples
    --------
    >>> [alg.m for alg in algorithms("F(5x3,3x3)")]
    [5, 3]
    """
    found = parse_name(name)
    dims = 1 if 1 in found.r else found.dims
    axes = zip(found.m, found.r, found.stride, found.products, strict=True)
    if points == "best":
        return tuple(best_algorithm(m, r, dims, products, stride) for m, r, stride, products in axes)
    if any(stride != 1 for stride in found.stride):
        raise ValueError(f"{name!r} has a stride, {points!r} publishes no strided algorithms: leave the source out")
    if any(products not in (None, m + r - 1) for m, r, _, products in axes):
        raise ValueError(f"{name!r} has complex points, {points!r} publishes none: leave the source out")
    return tuple(
        identity() if m == r == 1 else toom_cook(m, r, published_points(points, m + r - 1, dims))
        for m, r in zip(found.m, found.r, strict=True)
    )


def axes_of(given: Any, dims: int | None = None) -> tuple[BilinearAlgorithm, ...]:
    """Return the algorithms of an argument, one per axis.

    Parameters
    ----------
    given : BilinearAlgorithm, str or tuple of BilinearAlgorithm
        One algorithm serves all axes; a tuple has one per axis, two for height and width.
    dims : {1, 2}, optional
        Dimension. By default that of the name or the pair, and one for a single algorithm.

    Raises
    ------
    TypeError, ValueError
        For anything but an algorithm, or another dimension.

    Examples
    --------
    >>> [alg.m for alg in axes_of("F(5x3,3x3)")], len(axes_of(algorithm("F(4,3)"), 2))
    ([5, 3], 2)
    """
    if dims is not None:
        check_dims(dims)
    if isinstance(given, BilinearAlgorithm):
        return (given,) * (1 if dims is None else dims)
    if isinstance(given, str):
        axes = algorithms(given)
    elif isinstance(given, (tuple, list)) and len(given) in (1, 2) and all(isinstance(one, BilinearAlgorithm) for one in given):
        axes = tuple(given)
    else:
        raise TypeError(f"alg is {given!r}: pass an algorithm, its name, such as 'F(4x4,3x3)', or a pair for height and width")
    if dims not in (None, len(axes)):
        what = given if isinstance(given, str) else "a pair"
        raise ValueError(f"dims is {dims!r}, but {what} has {len(axes)}: leave dims out, or name another algorithm")
    return axes

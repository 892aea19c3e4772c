"""The catalogue of published point sets, each with its source, and the algorithms that names ask for."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from typing import Any

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.algebra.complex_points import complex_points
from fastconv.algebra.construct import toom_cook
from fastconv.algebra.names import parse_name
from fastconv.algebra.strided import phase_taps, strided
from fastconv.exact import INF, Number, exact_point


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(files("fastconv.algebra").joinpath("points.json").read_text(encoding="utf-8"))
    return data


def published_sources() -> dict[str, str]:
    """Return the sources of the catalogue: name and citation."""
    return dict(_catalogue()["sources"])


def published_points(source: str, n: int, dims: int = 2) -> tuple[Number, ...]:
    """Return a published point set.

    Parameters
    ----------
    source : str
        ``"barabasz2020"``, ``"alam2022"``, ``"lavin2016"``, ``"nova2025"`` and others: `published_sources` lists
        them all with their citations.
    n : int
        Tile size m + r - 1.
    dims : {1, 2}
        Dimension that the set was chosen for.

    Returns
    -------
    tuple
        n points, infinity last.

    Raises
    ------
    ValueError
        For an unknown source, or a size that the source has no set for.

    Examples
    --------
    >>> published_points("lavin2016", 4)
    (Fraction(0, 1), Fraction(1, 1), Fraction(-1, 1), inf)
    """
    check_dims(dims)
    if source not in _catalogue()["sources"]:
        raise ValueError(f"unknown source {source!r}: the sources are {', '.join(_catalogue()['sources'])}")
    sizes = {len(text.split()) + 1: text for name, for_dims, text in _catalogue()["sets"] if name == source and dims in for_dims}
    if n not in sizes:
        raise ValueError(f"{source} has no set for n = {n} in {dims}-D: it has n = {', '.join(map(str, sorted(sizes)))}")
    return (*(exact_point(p) for p in sizes[n].split()), INF)


@lru_cache(maxsize=1)
def _searched() -> dict[tuple[int, int, int, str, bool], dict[str, Any]]:
    data = json.loads(files("fastconv.algebra").joinpath("best_points.json").read_text(encoding="utf-8"))
    return {(row["m"], row["r"], row["dims"], row["policy"], row["infinity"]): row for row in data["rows"]}


@lru_cache(maxsize=1)
def _found() -> dict[tuple[int, int, int, str, bool], dict[str, Any]]:
    return {size: row for size, row in _searched().items() if row["points"] is not None}


def best_points(m: int, r: int, dims: int = 2, policy: str = "fp32", *, infinity: bool = True) -> tuple[Number, ...]:
    """Return the set of rational points of the smallest known error.

    Parameters
    ----------
    m, r : int
        Outputs and taps.
    dims : {1, 2}
        Dimension.
    policy : str
        Precision policy. Sizes that were not searched in it get the set for fp32. In fp16 the error is that of
        ``toom_cook(m, r, points).balanced("fp16")``, whose rows fit the range.
    infinity : bool
        Whether infinity is one of the points, as it is by default (the modified algorithm, which is cheaper). A few
        sizes have a set with a smaller error without it.

    Returns
    -------
    tuple
        n = m + r - 1 points, infinity last; their order decides ties in the Huffman trees.

    Raises
    ------
    ValueError
        If no set of that size is known, or every set that the search found is unusable in the policy.

    Notes
    -----
    The sets come from the table that analysis/best_points.py writes; see `best_row`. Other sizes come from the catalogue
    of published sets.

    Examples
    --------
    >>> sorted(best_points(2, 3)[:-1]), best_points(2, 3)[-1]
    ([Fraction(-1, 1), Fraction(0, 1), Fraction(1, 1)], inf)
    """
    _check_use(m, r, dims, policy, infinity)
    row = best_row(m, r, dims, policy, infinity=infinity)
    if row is not None:
        return tuple(exact_point(p) for p in row["points"].split())
    if not infinity:
        raise ValueError(f"no point set without infinity is known for F({m},{r}): leave infinity in, or give points of your own")
    return published_points(best_source(m, r, dims, policy), m + r - 1, dims)


def best_row(m: int, r: int, dims: int = 2, policy: str = "fp32", *, infinity: bool = True) -> dict[str, Any] | None:
    """Return the record of a set of `best_points`, None if it is from the catalogue or missing.

    Returns
    -------
    dict or None
        ``"points"`` as text; ``"predicted"`` and ``"measured"`` mean error (uniform inputs as libstdc++ draws them,
        Huffman order, one channel), ``"stderr"`` of the measured one, ``"direct"``, that of direct convolution,
        and ``"trials"``; in newer rows ``"relative"``, the root mean square of the error over that of the outputs;
        ``"additions"`` and ``"multiplications"`` of the three transforms in one dimension;
        ``"found"`` (by search, or the source), ``"policy"``, and the ``"command"`` that finds it again.

    Examples
    --------
    >>> row = best_row(4, 3, 2)
    >>> row["measured"] < 2.5e-7
    True
    """
    _check_size(m, r, dims, policy)
    if (m, r, dims, policy, infinity) in _searched():
        return _found().get((m, r, dims, policy, infinity))
    return _found().get((m, r, dims, "fp32", infinity))


def best_source(m: int, r: int, dims: int = 2, policy: str = "fp32") -> str:
    """Return the source of `best_points`: ``"fastconv"``, or one of `published_sources`."""
    _check_use(m, r, dims, policy, True)
    row = best_row(m, r, dims, policy)
    if row is not None:
        return "fastconv" if row["found"] == "search" else str(row["found"])
    n = m + r - 1
    source: str = _catalogue()["best"][str(dims)].get(str(n), _catalogue()["best_otherwise"])
    if n > 18:
        raise ValueError(f"no point set is known for F({m},{r}), n = {n}: sets are known to n = 18; give points of your own to toom_cook")
    return source


def _check_use(m: int, r: int, dims: int, policy: str, infinity: bool) -> None:
    """Refuse sizes at which the search found the policy too narrow or too coarse."""
    _check_size(m, r, dims, policy)
    row = _searched().get((m, r, dims, policy, infinity))
    if row is not None and row["points"] is None:
        where = f"F({m},{r}) in {dims}-D in {policy}{'' if infinity else ' without infinity'}"
        raise ValueError(f"no point set is of use for {where}: {row['because']}; take a smaller tile or a wider policy")


def _check_size(m: int, r: int, dims: int, policy: str) -> None:
    check_dims(dims)
    for name, value in (("m", m), ("r", r)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: outputs and taps are integers of at least 1")
    if not isinstance(policy, str):
        raise TypeError(f"policy is {policy!r}: pass the name of a policy, such as 'fp32'")


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
        For what is no name, a size without a known point set, or axes that differ, which `algorithms` takes.

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
    """Return the algorithm along each axis that a name asks for: one, or those along the height and the width.

    Parameters
    ----------
    name, points : str
        As `algorithm` takes them; rectangles too.

    Returns
    -------
    tuple of BilinearAlgorithm
        What `measure_error` and others take in place of the name.

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
        raise ValueError(f"{name!r} has a stride, {points!r} publishes nothing of the kind: leave the source out")
    if any(products not in (None, m + r - 1) for m, r, _, products in axes):
        raise ValueError(f"{name!r} has complex points, {points!r} publishes none: leave the source out")
    return tuple(
        identity() if m == r == 1 else toom_cook(m, r, published_points(points, m + r - 1, dims))
        for m, r in zip(found.m, found.r, strict=True)
    )


def axes_of(given: Any, dims: int | None = None) -> tuple[BilinearAlgorithm, ...]:
    """Return the algorithm along each axis of what functions of an algorithm are given.

    Parameters
    ----------
    given : BilinearAlgorithm, str or tuple of BilinearAlgorithm
        One algorithm is that of all axes; a tuple has one for each axis, two for the height and the width.
    dims : {1, 2}, optional
        Dimension; that of the name or the pair if None, and one for one algorithm.

    Raises
    ------
    TypeError, ValueError
        For what is no algorithm, or has another dimension.

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


def identity() -> BilinearAlgorithm:
    """Return F(1,1), the algorithm of an axis of one tap."""
    one = ((Fraction(1),),)
    return BilinearAlgorithm(1, 1, (), one, one, one)


def best_algorithm(m: int, r: int, dims: int = 2, products: int | None = None, stride: int = 1) -> BilinearAlgorithm:
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
    if m == r == stride == 1:
        return identity()
    if stride != 1:
        if products is not None:
            raise ValueError(f"{products} products asked for F({m},{r})s{stride}: the products of a stride follow from it, leave them out")
        return strided(m, r, stride, [best_points(m, taps, dims) if taps > 1 else () for taps in phase_taps(r, stride)])
    pairs = 0 if products is None else products - (m + r - 1)
    if pairs < 0:
        raise ValueError(f"{products} products asked for F({m},{r}): it takes at least n = m + r - 1 = {m + r - 1}")
    return toom_cook(m, r, complex_points(m, r, pairs, dims) if pairs else best_points(m, r, dims))


def check_dims(dims: int) -> None:
    """Refuse dimensions other than one and two."""
    if dims not in (1, 2):
        raise ValueError(f"dims is {dims!r}: algorithms are one- or two-dimensional, pass 1 or 2")

"""The catalogue of published point sets, each with its source, and the names of algorithms."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from fastconv.algebra.bilinear import BilinearAlgorithm
from fastconv.algebra.complex_points import complex_points
from fastconv.algebra.construct import toom_cook
from fastconv.algebra.strided import phase_taps, strided
from fastconv.exact import INF, Number, exact_point

_FULL = re.compile(r"f\((\d+)(?:x(\d+))?,(\d+)(?:x(\d+))?\)")
_SHORT = re.compile(r"(?:winograd(?P<a>\d)(?P<b>\d)|f(?P<c>\d+)x(?P<d>\d+)|b(?P<e>\d+)f(?P<f>\d+))")

_BEHIND = re.compile(r"\s*(.+?)(?:(?<=\))\s*s(\d+))?\s*(?:/\s*(\d+))?\s*", re.IGNORECASE)


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
    _check_dims(dims)
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
    _check_dims(dims)
    for name, value in (("m", m), ("r", r)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: outputs and taps are integers of at least 1")
    if not isinstance(policy, str):
        raise TypeError(f"policy is {policy!r}: pass the name of a policy, such as 'fp32'")


def parse_name(name: str) -> tuple[int, int, int]:
    """Read an algorithm's name.

    Parameters
    ----------
    name : str
        ``"F(4x4,3x3)"``, ``"F(4,3)"``, or an alias: ``"winograd43"`` (ncnn), ``"f4x3"`` (MIOpen), ``"b4f3"`` (ppl.nn).

    Returns
    -------
    m, r, dims : int
        Outputs, taps, and the dimension of the name (2 for the aliases, which come from image layers).

    Examples
    --------
    >>> parse_name("F(4x4, 3x3)")
    (4, 3, 2)
    """
    if not isinstance(name, str):
        raise TypeError(f"algorithm is {name!r}: pass a name, such as 'F(4x4,3x3)'")
    text = name.replace(" ", "").lower()
    if match := _FULL.fullmatch(text):
        m, m2, r, r2 = match.groups()
        if (m2 is None) == (r2 is None) and m2 in (None, m) and r2 in (None, r) and int(m) and int(r):
            return int(m), int(r), 1 if m2 is None else 2
        if m2 is not None and r2 is not None and int(m) * int(r) * int(m2) * int(r2):
            sides = f"F({m},{r}) along the height and F({m2},{r2}) along the width"
            raise ValueError(f"unknown algorithm {name!r}: it is {sides}, which layers run; name one of the two here, or a square")
    elif match := _SHORT.fullmatch(text):
        m, r = (g for g in match.groups() if g is not None)
        if int(m) and int(r):
            return int(m), int(r), 2
    raise ValueError(f"unknown algorithm {name!r}: write 'F(4x4,3x3)' for two dimensions, 'F(4,3)' for one, or 'winograd43'")


class NameParts(NamedTuple):
    """The name of an algorithm, split into size, products and stride."""

    size: str
    products: int | None
    stride: int


def split_name(name: str) -> NameParts:
    """Split the suffixes of an algorithm's name from its size: stride and products.

    Examples
    --------
    >>> split_name("F(8x8,5x5)/14")
    NameParts(size='F(8x8,5x5)', products=14, stride=1)
    >>> split_name("F(4,3)s2")
    NameParts(size='F(4,3)', products=None, stride=2)
    """
    match = _BEHIND.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return NameParts(name, None, 1)
    size, stride, products = match.groups()
    return NameParts(size, int(products) if products else None, int(stride) if stride else 1)


def algorithm(name: str, points: str = "best") -> BilinearAlgorithm:
    """Return an algorithm by its name, at the best-known points for fp32 or at those of a source.

    Parameters
    ----------
    name : str
        See `parse_name`. The suffix ``/14`` in ``"F(8x8,5x5)/14"`` is the number of products; those beyond n are pairs of
        `complex_points`. The suffix ``s2`` in ``"F(4x4,3x3)s2"`` means stride two (`strided`).
    points : str
        ``"best"`` or a source of `published_points`.

    Examples
    --------
    >>> algorithm("winograd43").n
    6
    >>> algorithm("F(14x14,5x5)/25").products
    25
    """
    head, products, stride = split_name(name)
    m, r, dims = parse_name(head)
    if points == "best":
        return best_algorithm(m, r, dims, products, stride)
    if stride != 1:
        raise ValueError(f"{name!r} has a stride, {points!r} publishes nothing of the kind: leave the source out")
    if products is not None and products != m + r - 1:
        raise ValueError(f"{name!r} has complex points, {points!r} publishes none: leave the source out")
    return toom_cook(m, r, published_points(points, m + r - 1, dims))


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
    if stride != 1:
        if products is not None:
            raise ValueError(f"{products} products asked for F({m},{r})s{stride}: the products of a stride follow from it, leave them out")
        return strided(m, r, stride, [best_points(m, taps, dims) if taps > 1 else () for taps in phase_taps(r, stride)])
    pairs = 0 if products is None else products - (m + r - 1)
    if pairs < 0:
        raise ValueError(f"{products} products asked for F({m},{r}): it takes at least n = m + r - 1 = {m + r - 1}")
    return toom_cook(m, r, complex_points(m, r, pairs, dims) if pairs else best_points(m, r, dims))


def _check_dims(dims: int) -> None:
    if dims not in (1, 2):
        raise ValueError(f"dims is {dims!r}: algorithms are one- or two-dimensional, pass 1 or 2")

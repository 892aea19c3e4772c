"""The catalogue of published point sets, each with its source, and of the best sets found."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

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
    """Return the set of rational points with the smallest known error.

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
    """Reject sizes for which the search found the policy too narrow or too coarse."""
    _check_size(m, r, dims, policy)
    row = _searched().get((m, r, dims, policy, infinity))
    if row is not None and row["points"] is None:
        where = f"F({m},{r}) in {dims}-D in {policy}{'' if infinity else ' without infinity'}"
        raise ValueError(f"no point set is usable for {where}: {row['because']}; take a smaller tile or a wider policy")


def _check_size(m: int, r: int, dims: int, policy: str) -> None:
    check_dims(dims)
    for name, value in (("m", m), ("r", r)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: outputs and taps are integers of at least 1")
    if not isinstance(policy, str):
        raise TypeError(f"policy is {policy!r}: pass the name of a policy, such as 'fp32'")


def check_dims(dims: int) -> None:
    """Reject dimensions other than one and two."""
    if dims not in (1, 2):
        raise ValueError(f"dims is {dims!r}: algorithms are one- or two-dimensional, pass 1 or 2")

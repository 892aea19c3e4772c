"""Units of work: each is computed by one process, from plain data to plain data."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm, toom_cook
from fastconv.arithmetic import Policy, policy_named
from fastconv.error import measure_error, predict_error
from fastconv.exact import INF, Format
from fastconv.search.points.candidates import Points, random_start
from fastconv.search.points.objective import objective_named
from fastconv.search.points.refine import Search

CHUNK = 20000
"""Sets that one unit of an exhaustive search evaluates."""

_FIELDS = ("kernel", "input", "product", "accumulate", "output", "operands", "data", "constants")


def policy_data(policy: str | Policy) -> list[Any]:
    """Write a policy as plain data: its formats, with their numbers."""
    policy = policy_named(policy)
    formats = [getattr(policy, name) for name in _FIELDS]
    return [None if f is None else [f.name, f.p, f.emin, f.emax, f.top, str(f.overflow)] for f in formats]


def policy_from(data: list[Any]) -> Policy:
    """Read what `policy_data` wrote."""
    formats = [None if f is None else Format(f[0], f[1], f[2], f[3], f[4], float(f[5])) for f in data]
    given: dict[str, Any] = dict(zip(_FIELDS, formats, strict=True))
    return Policy(**given)


def text_of(points: Points) -> str:
    """Write points as text: 'p/q p/q ...'."""
    return " ".join(map(str, points))


def points_of(text: str) -> Points:
    """Read what `text_of` wrote."""
    return tuple(map(Fraction, text.split()))


def algorithm_for(m: int, r: int, points: Points, infinity: bool, policy: Policy) -> BilinearAlgorithm:
    """Make the algorithm of a set for measurement: rows are balanced if a format has the range of fp16 or less."""
    alg = toom_cook(m, r, [*points, *([INF] if infinity else [])])
    formats = [f for name in _FIELDS if (f := getattr(policy, name)) is not None]
    narrow = min(formats, key=lambda f: f.emax)
    return alg.balanced(narrow) if narrow.emax < 127 else alg


def predicted_error(m: int, r: int, dims: int, policy: Policy, points: Points, infinity: bool) -> float:
    """Return the predicted mean error of a set as it is measured; inf if the format does not hold it."""
    try:
        return predict_error(algorithm_for(m, r, points, infinity, policy), dims, policy).mean_abs
    except ValueError:  # an entry exceeds the format, even when balanced
        return math.inf


def run_unit(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a unit of work.

    Parameters
    ----------
    spec : dict
        Plain data, with ``"kind"``: ``"descent"``, ``"all"`` or ``"measure"``.

    Returns
    -------
    dict
        Plain data; the same for the same specification, wherever it runs.
    """
    return _KINDS[spec["kind"]](spec)


def _search_for(spec: dict[str, Any]) -> Search:
    policy = policy_from(spec["policy"])
    objective = objective_named(spec["objective"])(spec["m"], spec["r"], spec["dims"], policy)
    return Search(objective, spec["infinity"], spec["keep"])


def _result(search: Search) -> dict[str, Any]:
    return {"evaluated": search.evaluated, "sets": [[value, text_of(points)] for points, value in search.best()]}


def _descent(spec: dict[str, Any]) -> dict[str, Any]:
    """Descend from one start: exchange over the pool, then refine if requested."""
    search = _search_for(spec)
    rng = np.random.default_rng([spec["seed"], spec["index"]])
    pool = points_of(spec["pool"])
    k = spec["m"] + spec["r"] - 1 - spec["infinity"]
    start = points_of(spec["start"]) if spec["start"] is not None else random_start(rng, k, pool)
    points, _ = search.exchange(start, lambda p: pool, rng)
    if spec["height"]:
        search.polished(points, rng, spec["height"], spec["bits"])
    return _result(search)


def _all(spec: dict[str, Any]) -> dict[str, Any]:
    """Evaluate one chunk of all subsets of the pool."""
    search = _search_for(spec)
    names = spec["pool"].split()
    k = spec["m"] + spec["r"] - 1 - spec["infinity"]
    begin = spec["index"] * CHUNK
    chosen = subsets(len(names), k, begin, min(begin + CHUNK, math.comb(len(names), k)))
    values = search.values(np.array(points_of(spec["pool"]), float)[chosen])
    low = np.flatnonzero(values <= np.partition(values, min(spec["keep"], len(values)) - 1)[min(spec["keep"], len(values)) - 1])
    best = low[np.argsort(values[low], kind="stable")][: spec["keep"]]
    sets = [[float(values[i]), " ".join(names[j] for j in chosen[i])] for i in best if math.isfinite(values[i])]
    return {"evaluated": search.evaluated, "sets": sets}


def subsets(size: int, k: int, begin: int, end: int) -> npt.NDArray[np.int64]:
    """Return the subsets of k of `size` numbers whose lexicographic ranks are in [begin, end).

    Each follows from its rank, counted from the last, in the combinatorial number system (Lehmer): its first element has the
    largest binomial coefficient that fits, and so on with the rest.

    Examples
    --------
    >>> subsets(4, 2, 1, 4).tolist()
    [[0, 2], [0, 3], [1, 2]]
    """
    rest = math.comb(size, k) - 1 - np.arange(begin, end, dtype=np.int64)
    found = np.empty((end - begin, k), np.int64)
    for j in range(k):
        below = np.array([math.comb(c, k - j) for c in range(size)], np.int64)
        largest = np.searchsorted(below, rest, side="right") - 1
        found[:, j] = size - 1 - largest
        rest -= below[largest]
    return found


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure the error of one set."""
    policy = policy_from(spec["policy"])
    points = points_of(spec["points"])
    try:
        alg = algorithm_for(spec["m"], spec["r"], points, spec["infinity"], policy)
    except ValueError:  # an entry exceeds the format, even when balanced
        return {"mean_abs": None, "stderr": None, "direct": None, "relative": None}
    report = measure_error(alg, dims=spec["dims"], policy=policy, trials=spec["trials"], seed=spec["seed"])
    if not math.isfinite(report.mean_abs) or report.overflows:
        return {"mean_abs": None, "stderr": None, "direct": None, "relative": None}
    assert report.direct is not None
    return {"mean_abs": report.mean_abs, "stderr": report.mean_abs_stderr, "direct": report.direct.mean_abs, "relative": report.relative_l2}


_KINDS = {"descent": _descent, "all": _all, "measure": _measure}

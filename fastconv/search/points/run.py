"""Search for good points: plan units of work, run those that the store lacks, rank the results."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from fastconv.algebra import published_points, published_sources, toom_cook
from fastconv.arithmetic import Policy, policy_named
from fastconv.exact import INF, Number
from fastconv.program import programs_of
from fastconv.search.points.candidates import Points, in_order, pool_of, projective_start, rationals
from fastconv.search.points.objective import objective_named
from fastconv.search.points.result import PointSet, SearchResult
from fastconv.search.points.store import VERSION, Store
from fastconv.search.points.units import CHUNK, points_of, policy_data, predicted_error, run_unit, text_of

Progress = Callable[[int, int, int], None]


class Executor(Protocol):
    """Interface of an executor: one of `concurrent.futures`, a `dask.distributed.Client`, or similar."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Start a call; return a future with `done`, `result`, `exception`, `cancel` and `add_done_callback`."""


MOST_SUBSETS = 2_000_000
"""Largest number of subsets of given candidates that are all evaluated; above it, the search is local."""

_INLINE = 3.0
"""Seconds of work below which no process is worth starting."""

_WHOLE = 64
"""Least number of sets predicted in full: a second of work at n = 8 in two dimensions."""


def search_points(
    m: int,
    r: int,
    dims: int = 2,
    policy: str | Policy = "fp32",
    candidates: Iterable[Any] | None = None,
    objective: str = "predicted",
    store: str | os.PathLike[str] | None = "search.sqlite",
    executor: Executor | None = None,
    seed: int = 0,
    *,
    starts: int = 32,
    height: int = 16,
    bits: int = 5,
    infinity: bool | None = None,
    keep: int = 64,
    confirm: int = 16,
    trials: int = 5000,
    shard: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> SearchResult:
    """Search for interpolation points with a small error.

    Parameters
    ----------
    m, r : int
        Outputs and taps; n = m + r - 1 points.
    dims : {1, 2}
        Dimension.
    policy : str or Policy
        Formats of the stages.
    candidates : iterable of exact rationals, optional
        The only points to choose from: all subsets, if at most `MOST_SUBSETS`. By default, descents over the rationals of height 6
        start from known and random sets; each is moved to the continuous optimum and back to the best simple numbers nearby.
    objective : str
        ``"predicted"`` (mean error) or ``"condition"`` (of the Vandermonde matrix).
    store : str or path, optional
        SQLite file of finished units of work, from which a repeated run resumes. None keeps nothing.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Runs the units; by default, processes on this machine's cores, or this process if the work is small.
    seed : int
        Decides the starts and orders of the descents; the result does not depend on the executor.
    starts : int
        Random starts, in addition to the known sets of that size.
    height, bits : int
        Bounds of the refined numbers: numerator and denominator, or bits of the significand.
    infinity : bool, optional
        Whether infinity is a point; by default both are tried.
    keep, confirm, trials : int
        Number of sets that are ranked; number of the best that are measured; tiles of each measurement.
    shard : (int, int)
        (i, n): run only the units of shard i of n, 0 <= i < n. Shards with one store, or merged stores, do the work of one run.
    progress : callable, optional
        Called with units done, total units, candidates evaluated so far.

    Returns
    -------
    SearchResult
        A sequence of `PointSet`, the best first. Ties are ordered by the number of operations: sets that differ by less than one
        standard error of the measurement, or by 0.1 % in the objective.

    Raises
    ------
    TypeError, ValueError
        For wrong types, impossible sizes, unknown names, too few candidates, a damaged store.

    Examples
    --------
    >>> found = search_points(2, 3, dims=1, candidates=[0, 1, -1, 2, -2], store=None, infinity=True, trials=1000)
    >>> [str(p) for p in found[0].points]
    ['0', '-1', '1', 'inf']
    """
    effort = _Effort(starts, height, bits, keep, trials, confirm, seed)
    task = _Task(m, r, dims, policy, objective, effort).checked()
    specs = _share(task.specs(candidates, infinity), shard)
    with _executor(executor, _seconds(specs)) as workers, Store(store) as held:
        return task.result(specs, Runner(held, workers, progress))


class _Effort(NamedTuple):
    """How much a search does, see `search_points`."""

    starts: int
    height: int
    bits: int
    keep: int
    trials: int
    confirm: int
    seed: int


class _Task(NamedTuple):
    """What a search looks for, see `search_points`."""

    m: int
    r: int
    dims: int
    policy: Any
    objective: str
    effort: _Effort

    def checked(self) -> _Task:
        """Return the task with its policy, or raise TypeError or ValueError for what makes no sense."""
        counts = {"m": self.m, "r": self.r, **self.effort._asdict()}
        for name, number in counts.items():
            _check_count(name, number, 0 if name in ("confirm", "seed") else 1)
        if self.dims not in (1, 2):
            raise ValueError(f"dims is {self.dims!r}: tiles are one- or two-dimensional, pass 1 or 2")
        if not 2 <= self.n <= 32:
            raise ValueError(f"F({self.m},{self.r}) has n = m + r - 1 = {self.n} points: the search takes 2 to 32")
        objective_named(self.objective)
        return self._replace(policy=policy_named(self.policy))

    @property
    def n(self) -> int:
        """The number of points."""
        return self.m + self.r - 1

    @property
    def job(self) -> dict[str, Any]:
        """What the units of work have in common."""
        return {"version": VERSION, "m": self.m, "r": self.r, "dims": self.dims, "policy": policy_data(self.policy)}

    def specs(self, candidates: Iterable[Any] | None, infinity: bool | None) -> list[dict[str, Any]]:
        """List the units of work that evaluate sets."""
        pool, kinds = _pool(candidates, infinity, self.n)
        job = self.job | {"objective": self.objective, "keep": self.effort.keep}
        return [spec for inf in kinds for spec in _planned(job | {"infinity": inf}, pool, candidates is None, self.effort)]

    def result(self, specs: list[dict[str, Any]], runner: Runner) -> SearchResult:
        """Run the units, rank the sets that they find, and measure the best."""
        keep, confirm = self.effort.keep, self.effort.confirm
        results = runner.run(specs, confirm)
        ranked = _ranked(results, min(2 * keep, max(keep, _WHOLE)))
        if self.objective == "predicted":
            known = (self.m, self.r, self.dims, self.policy)
            ranked = {(inf, text): predicted_error(*known, points_of(text), inf) for inf, text in ranked}
        ranked = dict(sorted(ranked.items(), key=lambda item: (item[1], item[0]))[:keep])
        counts = {key: _operations(self.m, self.r, key) for key in ranked}
        order = sorted(ranked, key=lambda key: (_rounded(ranked[key]), sum(counts[key]), ranked[key], key))
        measure = self.job | {"kind": "measure", "trials": self.effort.trials, "seed": self.effort.seed}
        reports = runner.run([measure | {"points": text, "infinity": inf} for inf, text in order[:confirm]], 0)
        evaluated = sum(result["evaluated"] for _, result in results)
        measured = {(spec["infinity"], spec["points"]): result for spec, result in reports}
        sets = [_point_set(key, ranked[key], counts[key], measured.get(key, {})) for key in order]
        return SearchResult(self.m, self.r, self.dims, tuple(_by_measurement(sets)), evaluated, runner.reused, runner.computed)


Key = tuple[bool, str]


def _pool(candidates: Iterable[Any] | None, infinity: bool | None, n: int) -> tuple[Points, list[bool]]:
    """Return the finite candidates, and whether to try sets with infinity, without it, or both."""
    if candidates is None:
        pool = in_order({Fraction(0)} | {s * p for p in rationals(6) for s in (1, -1)})
        kinds = [True, False] if infinity is None else [infinity]
    else:
        pool, has_infinity = pool_of(candidates)
        kinds = [True, False] if infinity is None else [infinity]
        if infinity is None and has_infinity:
            kinds = [True, False]
    possible = [inf for inf in kinds if len(pool) >= n - inf]
    if not possible:
        raise ValueError(f"{len(pool)} finite candidates for n = {n} points: give at least {n - max(kinds)}")
    return pool, possible


def _planned(job: dict[str, Any], pool: Points, refined: bool, effort: _Effort) -> Iterator[dict[str, Any]]:
    """List the units of work with or without infinity."""
    height, bits = effort.height, effort.bits
    k = job["m"] + job["r"] - 1 - job["infinity"]
    text = text_of(pool)
    subsets = math.comb(len(pool), k)
    if not refined and subsets <= MOST_SUBSETS:
        for i in range(-(-subsets // CHUNK)):
            yield job | {"kind": "all", "pool": text, "index": i}
        return
    descent = job | {"kind": "descent", "pool": text, "seed": effort.seed, "height": height if refined else 0, "bits": bits}
    known = _known(job, k, height, bits) if refined else []
    for i, start in enumerate(known):
        yield descent | {"start": text_of(start), "index": i}
    for i in range(len(known), len(known) + (effort.starts if job["infinity"] else -(-effort.starts // 4))):
        yield descent | {"start": None, "index": i}


def _known(job: dict[str, Any], k: int, height: int, bits: int) -> list[Points]:
    """Return the catalogue's rational sets of k finite points, and points evenly spread by angle."""
    found: dict[Points, None] = {}
    for source in published_sources():
        for dims in (1, 2):
            try:
                points = [p for p in published_points(source, k + 1, dims) if p is not INF]
            except ValueError:
                continue  # this source has no set of this size
            if all(isinstance(p, Fraction) for p in points):
                found[in_order(points)] = None
    for stretch in (0.6, 0.75, 0.9):
        spread = projective_start(k, job["infinity"], stretch, height, bits)
        if len(set(spread)) == k:
            found[spread] = None
    return list(found)


class Runner:
    """Run units that the store lacks, a few at a time, and commit each as it ends."""

    def __init__(self, store: Store, executor: Executor | None, progress: Progress | None) -> None:
        self.store, self.executor, self.progress = store, executor, progress
        self.total = self.done = self.reused = self.computed = self.evaluated = 0
        self.ended: SimpleQueue[Any] = SimpleQueue()

    def run(self, specs: list[dict[str, Any]], later: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return each specification with its result, in the order given; `later` more units will follow."""
        self.total = self.done + len(specs) + later
        results: dict[int, dict[str, Any]] = {}
        waiting: dict[int, Any] = {}
        try:
            for i, spec in enumerate(specs):
                found = self.store.get(spec)
                if found is not None:
                    results[i] = found
                    self.reused += 1
                    self._tell(found)
                elif self.executor is None:
                    results[i] = self._commit(spec, run_unit(spec))
                else:
                    waiting[i] = self.executor.submit(run_unit, spec)
                    waiting[i].add_done_callback(self.ended.put)
                    while len(waiting) >= _in_flight():
                        self._collect(waiting, specs, results)
            while waiting:
                self._collect(waiting, specs, results)
        finally:
            for future in waiting.values():
                future.cancel()
        return [(spec, results[i]) for i, spec in enumerate(specs)]

    def _collect(self, waiting: dict[int, Any], specs: list[dict[str, Any]], results: dict[int, dict[str, Any]]) -> None:
        self.ended.get()
        problems = []
        for i in [i for i, future in waiting.items() if future.done()]:  # a failure must not lose other results
            future = waiting.pop(i)
            problem = future.exception()
            if problem is None:
                results[i] = self._commit(specs[i], future.result())
            else:
                problems.append(problem)
        if problems:
            raise problems[0]

    def _commit(self, spec: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        self.store.put(spec, result)
        self.computed += 1
        self._tell(result)
        return result

    def _tell(self, result: dict[str, Any]) -> None:
        self.done += 1
        self.evaluated += result.get("evaluated", 0)
        if self.progress:
            self.progress(self.done, self.total, self.evaluated)


def _in_flight() -> int:
    return 4 * _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds(specs: Sequence[dict[str, Any]]) -> float:
    """Estimate the work in seconds on one core: n**3 operations per set, and a typical number of sets per descent."""
    total = 0.0
    for spec in specs:
        n = spec["m"] + spec["r"] - 1
        sets = CHUNK if spec["kind"] == "all" else 50 * n * len(spec["pool"].split()) // 8
        total += sets * 4e-8 * n**3
    return total


@contextmanager
def _executor(given: Executor | None, seconds: float) -> Iterator[Executor | None]:
    """Yield where to run: the executor given, processes, or None for this process."""
    if given is not None and not callable(getattr(given, "submit", None)):
        raise TypeError(f"executor is {given!r}: pass an executor of concurrent.futures, a dask.distributed Client, or None")
    if given is not None or seconds < _INLINE or _cores() == 1:
        yield given
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(_cores(), mp_context=get_context("spawn")) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise RuntimeError("a worker process was killed: finished work is in the store, run the search again to resume") from None


def _ranked(results: list[tuple[dict[str, Any], dict[str, Any]]], keep: int) -> dict[Key, float]:
    """Return the best sets of all units; a key is whether infinity is included, and the points."""
    values: dict[Key, float] = {}
    for spec, result in results:
        for value, text in result["sets"]:
            values[spec["infinity"], text] = value
    return dict(sorted(values.items(), key=lambda item: (item[1], item[0]))[:keep])


def _rounded(value: float) -> float:
    """Round to three digits: closer values are ties."""
    return float(f"{value:.2e}")


def _operations(m: int, r: int, key: Key) -> tuple[int, int]:
    alg = toom_cook(m, r, _points(key))
    programs = programs_of(alg)
    counts = [p.counts for p in (programs.output, programs.kernel, programs.input)]
    return sum(c.adds for c in counts), sum(c.muls for c in counts)


def _points(key: Key) -> tuple[Number, ...]:
    infinity, text = key
    return (*points_of(text), *([INF] if infinity else []))


def _point_set(key: Key, value: float, counts: tuple[int, int], report: dict[str, Any]) -> PointSet:
    return PointSet(_points(key), value, report.get("mean_abs"), report.get("stderr"), *counts)


def _by_measurement(sets: list[PointSet]) -> list[PointSet]:
    """Put the measured sets first, by error; within one standard error, by the number of operations."""
    measured = sorted((s for s in sets if s.measured is not None), key=lambda s: s.measured or 0.0)
    ordered: list[PointSet] = []
    while measured:
        first = measured[0]
        limit = (first.measured or 0.0) + (first.stderr or 0.0)
        tied = [s for s in measured if (s.measured or 0.0) <= limit]
        ordered += sorted(tied, key=lambda s: (s.operations, s.measured))
        measured = measured[len(tied) :]
    return ordered + [s for s in sets if s.measured is None]


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: pass an integer")
    if value < least:
        raise ValueError(f"{name} is {value}: pass at least {least}")


def _share(specs: list[dict[str, Any]], shard: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the units of a shard."""
    try:
        i, n = shard
    except (TypeError, ValueError):
        raise TypeError(f"shard is {shard!r}: pass a pair (i, n), 0 <= i < n") from None
    if not isinstance(i, int) or not isinstance(n, int) or not 0 <= i < n:
        raise ValueError(f"shard is {shard!r}: pass a pair (i, n), 0 <= i < n")
    return specs[i::n]

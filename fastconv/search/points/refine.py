"""Local search: exchange points for candidates, refine them as real numbers, return to simple numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.search.points.candidates import Points, in_order, near, nearest
from fastconv.search.points.objective import Objective

Array = npt.NDArray[Any]

_LEAST_GAIN = 1e-9
"""Least relative gain that counts: smaller ones are rounding errors."""


class Search:
    """An objective, the best sets evaluated, and the number of evaluations.

    Attributes
    ----------
    evaluated : int
        Sets evaluated.
    """

    def __init__(self, objective: Objective, infinity: bool, keep: int = 64) -> None:
        self.objective, self.infinity, self.keep = objective, infinity, keep
        self.evaluated = 0
        self._best: dict[Points, float] = {}

    def values(self, points: Array) -> Array:
        """Evaluate sets given as floats."""
        self.evaluated += len(points)
        return np.asarray(self.objective(points, self.infinity))

    def note(self, points: Iterable[Fraction], value: float) -> None:
        """Remember a set of exact points, if it is among the best."""
        if not math.isfinite(value):
            return
        self._best[in_order(points)] = value
        if len(self._best) > 4 * self.keep:
            self._best = dict(self.best())

    def best(self) -> list[tuple[Points, float]]:
        """Return the best sets, the best first; equal values in the order of their points."""
        return sorted(self._best.items(), key=lambda item: (item[1], item[0]))[: self.keep]

    def exchange(self, start: Points, choices: Callable[[Fraction], Sequence[Fraction]], rng: np.random.Generator) -> tuple[Points, float]:
        """Exchange points, and opposite pairs of points, for the best of their choices until no exchange helps.

        Parameters
        ----------
        start : tuple of Fraction
            Where to begin.
        choices : callable
            Maps a point to its replacements; a pair takes the positive ones, with both signs.
        rng : numpy.random.Generator
            Decides the order in which points are tried.
        """
        points = list(start)
        value = float(self.values(np.array([points], float))[0])
        self.note(points, value)
        idle = 0
        while idle < 2:  # until two rounds, in different orders, bring no gain
            idle += 1
            blocks = _blocks(points)
            for b in rng.permutation(len(blocks)):
                block = [p for p in blocks[b] if p in points]
                if len(block) < len(blocks[b]):
                    continue  # an earlier exchange split it
                options = _options(block, choices)
                if not options:
                    continue
                where = [points.index(p) for p in block]
                trial = np.tile(np.array(points, float), (len(options), 1))
                trial[:, where] = np.array(options, float)
                found = self.values(trial)
                for i in np.argsort(found, kind="stable")[:4]:
                    other = points.copy()
                    for j, p in zip(where, options[i], strict=True):
                        other[j] = p
                    if len(set(other)) == len(other):
                        self.note(other, float(found[i]))
                        if found[i] < value * (1 - _LEAST_GAIN):
                            points, value, idle = other, float(found[i]), 0
        return in_order(points), value

    def continuous(self, start: Points, steps: int = 400) -> list[float]:
        """Move the points as real numbers to a local optimum: Nelder-Mead on logarithms, opposite pairs tied.

        Returns
        -------
        list of float
            In the order of `start`.
        """
        from scipy.optimize import minimize

        groups: dict[Fraction, list[int]] = {}
        for i, p in enumerate(start):
            if p:
                groups.setdefault(abs(p) if -p in start else p, []).append(i)
        floats = np.array(start, float)

        def placed(t: Array) -> Array:
            x = floats.copy()
            for where, shift in zip(groups.values(), t, strict=True):
                x[where] *= math.exp(shift)
            return x

        if not groups:
            return [float(p) for p in floats]
        simplex = np.vstack([np.zeros(len(groups)), 0.05 * np.eye(len(groups))])
        options = {"maxfev": steps, "initial_simplex": simplex, "xatol": 1e-3, "fatol": 0}
        smooth = lambda t: float(self.values(placed(t)[None])[0]) if np.abs(t).max() < 2 else math.inf
        with np.errstate(invalid="ignore"):
            done = minimize(smooth, np.zeros(len(groups)), method="Nelder-Mead", options=options)
        return [float(x) for x in placed(done.x)]

    def polished(self, start: Points, rng: np.random.Generator, height: int, bits: int) -> tuple[Points, float]:
        """Refine a set: exchange points for nearby simple numbers, then again from the continuous optimum."""
        around = lambda p: _signed(p, near(p, height, bits, 0.25)) if p else ()
        points, value = self.exchange(start, around, rng)
        moved = self.continuous(points)
        snapped = [nearest(x, height, bits) if x else Fraction(0) for x in moved]
        if len(set(snapped)) == len(snapped):
            other, found = self.exchange(in_order(snapped), around, rng)
            if found < value:
                return other, found
        return points, value


def _blocks(points: Sequence[Fraction]) -> list[list[Fraction]]:
    """List the blocks that are exchanged: each point, and each pair of opposite points."""
    return [[p] for p in points] + [[p, -p] for p in points if p > 0 and -p in points]


def _options(block: Sequence[Fraction], choices: Callable[[Fraction], Sequence[Fraction]]) -> list[tuple[Fraction, ...]]:
    if len(block) == 1:
        return [(q,) for q in choices(block[0])]
    known = set(choices(block[0])) | {-q for q in choices(block[1])}
    return [(q, -q) for q in sorted(known) if q > 0]


def _signed(p: Fraction, positive: Sequence[Fraction]) -> tuple[Fraction, ...]:
    return tuple(q if p > 0 else -q for q in positive)

"""Candidates for points: rationals of bounded height, numbers of few significand bits, symmetric families, starts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv.exact import INF, exact_point, to_text

Points = tuple[Fraction, ...]


@lru_cache(maxsize=32)
def rationals(height: int) -> Points:
    """Return the positive p/q with p, q <= height, ascending.

    Examples
    --------
    >>> [str(p) for p in rationals(3)]
    ['1/3', '1/2', '2/3', '1', '3/2', '2', '3']
    """
    return tuple(sorted({Fraction(p, q) for q in range(1, height + 1) for p in range(1, height + 1)}))


def few_bits(bits: int, low: float, high: float) -> Points:
    """Return the numbers of at most `bits` significand bits between two positive limits, ascending.

    Examples
    --------
    >>> [str(p) for p in few_bits(2, 0.5, 2)]
    ['1/2', '3/4', '1', '3/2', '2']
    """
    found = set()
    for e in range(math.floor(math.log2(low)) - bits + 1, math.ceil(math.log2(high)) + 1):
        unit = Fraction(2) ** e
        found |= {k * unit for k in range(1, 2**bits) if low <= k * unit <= high}
    return tuple(sorted(found))


@lru_cache(maxsize=2**16)
def near(x: float, height: int, bits: int, spread: float) -> Points:
    """Return simple numbers within a factor ``1 + spread`` of ``|x|``, ascending.

    They are rationals of bounded height and numbers of few bits.

    Examples
    --------
    >>> [str(p) for p in near(0.7, 4, 3, 0.1)]
    ['2/3', '3/4']
    """
    x = abs(float(x))
    low, high = x / (1 + spread), x * (1 + spread)
    return tuple(sorted({p for p in rationals(height) if low <= p <= high} | set(few_bits(bits, low, high))))


def family(c: Fraction) -> Points:
    """Return the family {-1/c, -c, c, 1/c} of Alam et al. 2022.

    Examples
    --------
    >>> [str(p) for p in family(Fraction(2, 3))]
    ['-3/2', '-2/3', '2/3', '3/2']
    """
    return (-1 / c, -c, c, 1 / c)


def pool_of(candidates: Iterable[Any]) -> tuple[Points, bool]:
    """Split the given candidates into finite rationals and whether infinity is among them.

    Raises
    ------
    TypeError, ValueError
        For a candidate that is not an exact rational, or no finite candidate.
    """
    if isinstance(candidates, str):
        raise TypeError(f"candidates is the text {candidates!r}: pass a list, such as {candidates.split(',')!r}")
    try:
        exact = [exact_point(p) for p in candidates]
    except TypeError as e:
        raise TypeError(f"candidates: {e}") from None
    for p in exact:
        if p is not INF and not isinstance(p, Fraction):
            raise ValueError(f"candidate {to_text(p)} is not rational: pass rationals, the search finds real parameters itself")
    finite = sorted({p for p in exact if p is not INF}, key=magnitude_order)
    if not finite:
        raise ValueError("candidates holds no finite point: give rationals such as [0, 1, -1, '1/2', '-1/2']")
    return tuple(finite), INF in exact


def magnitude_order(p: Fraction) -> tuple[Fraction, Fraction]:
    """Order points as the catalogue does: by magnitude, the negative one first."""
    return abs(p), p


def in_order(points: Iterable[Fraction]) -> Points:
    """Sort points as the catalogue does."""
    return tuple(sorted(points, key=magnitude_order))


def random_start(rng: np.random.Generator, k: int, pool: Points) -> Points:
    """Draw k distinct points from a pool of signed numbers, sometimes as opposite pairs and families."""
    symmetric, reciprocal = rng.random() < 0.7, rng.random() < 0.6
    known = set(pool)
    chosen: dict[Fraction, None] = {}
    if Fraction(0) in known and rng.random() < 0.9:
        chosen[Fraction(0)] = None
    weights = np.array([1 / (1 + math.log2(abs(p)) ** 2) if p else 0.0 for p in pool])
    draws = rng.choice(len(pool), size=20 * k, p=weights / weights.sum()) if weights.sum() else np.zeros(0, int)
    for i in [*draws, *rng.permutation(len(pool))]:
        p = pool[i]
        new = [p]
        if symmetric and p:
            new = [p, -p, 1 / p, -1 / p] if reciprocal else [p, -p]
        fresh = [q for q in dict.fromkeys(new) if q in known and q not in chosen]
        for q in fresh[: k - len(chosen)]:
            chosen[q] = None
        if len(chosen) == k:
            break
    return in_order(chosen)


def projective_start(k: int, infinity: bool, stretch: float, height: int, bits: int) -> Points:
    """Return k simple numbers near points that are equally spaced on the projective line.

    The points are ``tan(pi j / n)``, magnitudes to the power `stretch`. Without infinity they are shifted by half a step.

    Examples
    --------
    >>> [str(p) for p in projective_start(3, True, 1.0, 4, 2)]
    ['0', '-1', '1']
    """
    n = k + infinity
    shift = 0.0 if infinity else 0.5
    points = []
    for j in range(k):
        turn = (j + 1 - shift) / n - 0.5  # infinity is at -1/2
        if abs(turn) < 1e-9:
            points.append(Fraction(0))
            continue
        points.append(nearest(math.copysign(abs(math.tan(math.pi * turn)) ** stretch, turn), height, bits))
    return in_order(points)


def nearest(x: float, height: int, bits: int) -> Fraction:
    """Return the rational of bounded height or number of few bits that is nearest to x on a logarithmic scale."""
    options = near(abs(x), height, bits, 0.25)
    if not options:
        return Fraction(x).limit_denominator(height)
    close = min(options, key=lambda p: abs(math.log(float(p) / abs(x))))
    return close if x > 0 else -close

"""Sum over channels: orders of summation as plain functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from fastconv.arithmetic.rounding import Array

BLOCK = 32
"""Channels in a block of the blocked sum."""

Add = Callable[[Array, Array], Array]


def _linear(terms: Array, add: Add) -> Array:
    """Add one after the other."""
    total: Array = reduce(add, list(terms))
    return total


def _pairwise(terms: Array, add: Add) -> Array:
    """Add neighbours, then neighbours of the sums, and so on; a term without neighbour moves up."""
    level: list[Array] = list(terms)
    while len(level) > 1:
        level = [add(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + level[len(level) & ~1 :]
    return level[0]


def _blocked(terms: Array, add: Add) -> Array:
    """Add one after the other in blocks of 32, then the blocks one after the other."""
    total: Array = reduce(add, [reduce(add, terms[k : k + BLOCK]) for k in range(0, len(terms), BLOCK)])
    return total


CHANNEL_SUMS: dict[str, Callable[[Array, Add], Array]] = {"linear": _linear, "pairwise": _pairwise, "blocked": _blocked}


def channel_sum_named(name: str) -> Callable[[Array, Add], Array]:
    """Return the channel sum of that name; it takes the terms along the first axis and an addition.

    Raises
    ------
    ValueError
        Lists the known sums.

    Examples
    --------
    >>> import numpy as np
    >>> float(channel_sum_named("pairwise")(np.arange(5.0), np.add))
    10.0
    """
    if name not in CHANNEL_SUMS:
        raise ValueError(f"unknown channel sum {name!r}: the sums are {', '.join(CHANNEL_SUMS)}")
    return CHANNEL_SUMS[name]

"""Compiled interval arithmetic with interval gradients: the values and slopes of a function on a box.

A jet is a row (1 + d, 2) of a pool: an interval that holds the value at every point of a box, then one for each partial
derivative. With d = 0 it is a plain interval. Operations take row numbers, because slices would cost more than the arithmetic.
Rounding is not directed: the margins of `fastconv.search.limit.certified` cover it.
"""

from __future__ import annotations

import math
from typing import Any

from fastconv.native.source import inlined, jit


@inlined
def _product(a: float, b: float, c: float, d: float) -> tuple[float, float]:
    """Multiply [a, b] by [c, d]."""
    p, q, s, t = a * c, a * d, b * c, b * d
    return min(min(p, q), min(s, t)), max(max(p, q), max(s, t))


@jit
def constant(Q: Any, out: int, value: float) -> None:
    """Set a jet to a number."""
    for k in range(Q.shape[1]):
        Q[out, k, 0] = Q[out, k, 1] = 0.0
    Q[out, 0, 0] = Q[out, 0, 1] = value


@jit
def copy(Q: Any, out: int, x: int) -> None:
    """Set a jet to another."""
    for k in range(Q.shape[1]):
        Q[out, k, 0], Q[out, k, 1] = Q[x, k, 0], Q[x, k, 1]


@jit
def add(Q: Any, out: int, x: int, factor: float) -> None:
    """Add a jet times a number to another."""
    a, b = (0, 1) if factor >= 0 else (1, 0)
    for k in range(Q.shape[1]):
        lo, hi = Q[x, k, a], Q[x, k, b]
        Q[out, k, 0] += factor * lo
        Q[out, k, 1] += factor * hi


@jit
def negate(Q: Any, out: int) -> None:
    """Negate a jet."""
    for k in range(Q.shape[1]):
        Q[out, k, 0], Q[out, k, 1] = -Q[out, k, 1], -Q[out, k, 0]


@jit
def multiply(Q: Any, out: int, x: int, y: int) -> None:
    """Set a jet, which may be x or y, to their product."""
    a, b, c, d = Q[x, 0, 0], Q[x, 0, 1], Q[y, 0, 0], Q[y, 0, 1]
    for k in range(1, Q.shape[1]):
        p, q = _product(Q[x, k, 0], Q[x, k, 1], c, d)
        s, t = _product(a, b, Q[y, k, 0], Q[y, k, 1])
        Q[out, k, 0], Q[out, k, 1] = p + s, q + t
    Q[out, 0, 0], Q[out, 0, 1] = _product(a, b, c, d)


@jit
def square(Q: Any, out: int, x: int) -> None:
    """Set a jet, which may be x, to the square of x."""
    a, b = Q[x, 0, 0], Q[x, 0, 1]
    for k in range(1, Q.shape[1]):
        p, q = _product(Q[x, k, 0], Q[x, k, 1], 2 * a, 2 * b)
        Q[out, k, 0], Q[out, k, 1] = p, q
    p, q = a * a, b * b
    Q[out, 0, 0], Q[out, 0, 1] = (0.0 if a <= 0.0 <= b else min(p, q)), max(p, q)


@jit
def invert(Q: Any, out: int, x: int) -> None:
    """Set a jet, which may be x, to 1 / x for a positive x."""
    a, b = 1 / Q[x, 0, 1], 1 / Q[x, 0, 0]
    for k in range(1, Q.shape[1]):
        p, q = _product(Q[x, k, 0], Q[x, k, 1], -b * b, -a * a)
        Q[out, k, 0], Q[out, k, 1] = p, q
    Q[out, 0, 0], Q[out, 0, 1] = a, b


@jit
def root(Q: Any, out: int, x: int) -> None:
    """Set a jet, which may be x, to the square root of a positive x."""
    a, b = math.sqrt(Q[x, 0, 0]), math.sqrt(Q[x, 0, 1])
    for k in range(1, Q.shape[1]):
        p, q = _product(Q[x, k, 0], Q[x, k, 1], 0.5 / b, 0.5 / a)
        Q[out, k, 0], Q[out, k, 1] = p, q
    Q[out, 0, 0], Q[out, 0, 1] = a, b


@jit
def lower(Q: Any, out: int, x: int) -> None:
    """Set a jet to the minimum of itself and x; where the box does not decide, unite the gradients."""
    if Q[x, 0, 0] >= Q[out, 0, 1]:
        return
    if Q[x, 0, 1] <= Q[out, 0, 0]:
        copy(Q, out, x)
        return
    for k in range(1, Q.shape[1]):
        Q[out, k, 0], Q[out, k, 1] = min(Q[out, k, 0], Q[x, k, 0]), max(Q[out, k, 1], Q[x, k, 1])
    Q[out, 0, 0], Q[out, 0, 1] = min(Q[out, 0, 0], Q[x, 0, 0]), min(Q[out, 0, 1], Q[x, 0, 1])

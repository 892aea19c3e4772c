"""Compute the matrices of several candidates at a time: from points, rounded, multiplied."""

from __future__ import annotations

from typing import Any

from fastconv.native.source import choose, fused, get, jit, magnitude, number, pattern, put, spread

_ZERO = 1e-13
"""Below this share of the sum of its terms' magnitudes, a coefficient counts as zero."""


@jit
def fill_matrices(a: Any, matrices: Any, room: Any) -> Any:
    """Fill AT, G and BT; `weight` gets the rows of G without their common denominator. Return where points are distinct."""
    (A, G, B, weight), (q, s) = matrices, room
    k, (m, n), r = len(a), A.shape[:2], G.shape[1]
    apart = spread(-1)
    for i in range(k + (k < n)):
        put(q, (0,), 1.0)
        put(s, (0,), 1.0)
        N, count = spread(1.0), 0
        for t in range(k):
            if t == i:
                continue
            p = get(a, (t,))
            size = magnitude(p)
            if i < k:
                d = get(a, (i,)) - p
                N = N * d
                apart = apart & (magnitude(d) > size * 1e-9)
            count += 1
            put(q, (count,), get(q, (count - 1,)))
            put(s, (count,), get(s, (count - 1,)))
            for j in range(count - 1, 0, -1):
                put(q, (j,), get(q, (j - 1,)) - p * get(q, (j,)))
                put(s, (j,), fused(size, get(s, (j,)), get(s, (j - 1,))))
            put(q, (0,), (0.0 - p) * get(q, (0,)))
            put(s, (0,), size * get(s, (0,)))
        for j in range(n):
            put(B, (i, j), 0.0)
        for j in range(count + 1):
            x = get(q, (j,))
            put(B, (i, j), choose(magnitude(x) > get(s, (j,)) * _ZERO, x, 0.0))
        if i == k:
            for j in range(m):
                put(A, (j, i), 1.0 if j == m - 1 else 0.0)
            for j in range(r):
                put(weight, (i, j), 1.0 if j == r - 1 else 0.0)
                put(G, (i, j), 1.0 if j == r - 1 else 0.0)
            continue
        power = spread(1.0)
        for j in range(max(m, r)):
            if j < m:
                put(A, (j, i), power)
            if j < r:
                put(weight, (i, j), power)
                put(G, (i, j), power / N)
            power = power * get(a, (i,))
    return apart


@jit
def to_bits(X: Any, change: Any, bits: int) -> None:
    """Round a matrix to `bits` significant bits, ties to even, and fill the changes."""
    cut = max(53 - bits, 1)
    half, keep = (1 << (cut - 1)) - 1, -(1 << cut)
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            x = get(X, (i, j))
            near = x
            if bits < 53:
                whole = pattern(x)
                near = number((whole + ((whole >> cut) & 1) + half) & keep)
            put(change, (i, j), near - x)
            put(X, (i, j), near)


@jit
def fill_gram(X: Any, out: Any) -> None:
    """Fill X X'."""
    for i in range(X.shape[0]):
        for j in range(i + 1):
            total = spread(0.0)
            for k in range(X.shape[1]):
                total = fused(get(X, (i, k)), get(X, (j, k)), total)
            put(out, (i, j), total)
            put(out, (j, i), total)


@jit
def through(A: Any, i: int, form: Any) -> Any:
    """Return ``A_i form A_i'`` for a symmetric form."""
    total = spread(0.0)
    for j in range(A.shape[1]):
        part = spread(0.0)
        for t in range(j):
            part = fused(get(A, (i, t)), get(form, (j, t)), part)
        a = get(A, (i, j))
        total = fused(a, fused(part, 2.0, a * get(form, (j, j))), total)
    return total


@jit
def fill_lengths(X: Any, out: Any) -> None:
    """Fill the squared lengths of rows, and their kurtosis as sums of equal variables."""
    for i in range(X.shape[0]):
        square, fourth = spread(0.0), spread(0.0)
        for j in range(X.shape[1]):
            v = get(X, (i, j)) * get(X, (i, j))
            square, fourth = square + v, fused(v, v, fourth)
        put(out, (i, 0), square)
        put(out, (i, 1), fourth / (square * square))

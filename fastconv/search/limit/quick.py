"""Bound the first-order predicted error on a box of point sets from below, by the minimum of each term."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.native.source import jit
from fastconv.search.limit.choices import least_cost


@jit
def _least_square(x: Any) -> Any:
    a, b = x[0, 0], x[0, 1]
    return 0.0 if a <= 0.0 <= b else min(a * a, b * b)


@jit
def _largest_cosine(rows: Any, j: int, q: int) -> float:
    """Bound the cosine of two rows of intervals from above."""
    low = high = one = two = 0.0
    for c in range(rows.shape[1]):
        x, y = rows[j, c], rows[q, c]
        products = (x[0, 0] * y[0, 0], x[0, 0] * y[0, 1], x[0, 1] * y[0, 0], x[0, 1] * y[0, 1])
        low += min(products)
        high += max(products)
        one += _least_square(x)
        two += _least_square(y)
    if one * two == 0.0:
        return 1.0
    return float(min(1.0, max(abs(low), abs(high)) / np.sqrt(one * two)))


@jit
def _kept(shared: Any, cosines: Any, out: Any) -> None:
    """Fill `out` with the least share of each row's roundings that remains when rows share roundings.

    Two equal errors in directions of cosine c keep at least 1 - abs(c) of their separate variances; three or more count as zero.
    """
    n = len(shared)
    partners = np.zeros(n, np.int64)
    for j in range(n):
        out[j] = 1.0
        for q in range(n):
            partners[j] += q != j and shared[j, q]
    for j in range(n):
        for q in range(n):
            if q != j and shared[j, q]:
                out[j] = 1 - cosines[j, q] if partners[j] == 1 and partners[q] == 1 else 0.0


@jit
def _mean_root(e: Any, p: Any, o: Any, r: int, dims: int) -> Any:
    """Return the mean standard deviation of the outputs, from roundings before, at and after the product."""
    m = len(e)
    total = 0.0
    for i in range(m):
        if dims == 1:
            total += np.sqrt(e[i] + p[i] + o[i])
        else:
            for j in range(m):
                total += np.sqrt(r * e[i] + p[i] * e[j] + p[i] * p[j] + o[i] * p[j] + r * o[j])
    return total / (m if dims == 1 else m * m)


@jit
def quick_limit(size: Any, entries: Any, chosen: Any) -> Any:
    """Return a lower limit from the minimum of each positive term, without the partial sums in AT z."""
    _, m, r, dims = size
    AL, BE, D, B, G = entries
    zero_B, mult_B, mult_G, mult_A, sum_G, _, ratio_B, ratio_G = chosen
    n = m + r - 1
    cos_G, cos_B = np.zeros((n, n)), np.zeros((n, n))
    for j in range(n):
        for q in range(j):
            cos_G[j, q] = cos_G[q, j] = _largest_cosine(G, j, q)
            cos_B[j, q] = cos_B[q, j] = _largest_cosine(B, j, q)
    kernel, input, gamma, length = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    kept, squares, together = np.empty(n), np.empty(n), np.zeros((n, n), np.bool_)
    for k in range(r):
        _kept(ratio_G[:, :, k], cos_B, kept)
        for j in range(n):
            s = _least_square(G[j, k])
            gamma[j] += s
            kernel[j] += s * kept[j] if mult_G[j, k] else 0.0
    for j in range(n):
        for q in range(n):
            together[j, q] = j != q and ratio_G[j, q, 0] and ratio_G[j, q, 2]
    _kept(together, cos_B, kept)
    for j in range(n):
        if sum_G[j]:
            for k in range(r):
                squares[k] = _least_square(G[j, k])
            kernel[j] += kept[j] * least_cost(squares, r)
    for c in range(n):
        _kept(ratio_B[:, :, c], cos_G, kept)
        for j in range(n):
            s = _least_square(B[j, c])
            length[j] += s
            input[j] += s * kept[j] if mult_B[j, c] else 0.0
    for j in range(n):
        for q in range(n):
            count = 0
            for c in range(n):
                count += ratio_B[j, q, c]
            together[j, q] = j != q and count > 1
    _kept(together, cos_G, kept)
    e, p, o = np.zeros(m), np.zeros(m), np.full(m, float(r))
    for j in range(n):
        leaves = 0
        for c in range(n):
            if not zero_B[j, c]:
                squares[leaves] = _least_square(B[j, c])
                leaves += 1
        input[j] += kept[j] * least_cost(squares, leaves)
        scale = 1.0
        for t in range(n):
            if t != j:
                scale *= D[max(j, t), min(j, t), 0, 1]
        scale = 1 / max(scale * scale, 1e-200)
        for i in range(m):
            a = (_least_square(AL[j]) ** i) * BE[j, 0, 0] ** (2 * (m - 1 - i)) * scale
            e[i] += a * (length[j] * kernel[j] + gamma[j] * input[j])
            p[i] += a * length[j] * gamma[j]
            if mult_A[i, j]:
                o[i] += a * length[j] * gamma[j]
    return _mean_root(e, p, o, r, dims)

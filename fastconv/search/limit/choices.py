"""Find the possible programs of the point sets in a box: zeros, saved products, shared values, summation trees.

In doubt, every test assumes fewer roundings: those that remain occur at every point of the box. Sets of columns
are bit masks. A tree is the set of the masks of its sums, one bit for each of the 64 masks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.native.source import jit

SLACK = 1e-6
"""Relative widening of every comparison: far above the rounding of constants to 24 bits and that of these floats."""
TREES = 64
"""A row with more possible trees than this is treated as if all trees were possible."""


@jit
def may_be_power(lo: float, hi: float) -> bool:
    """Return whether [lo, hi] may contain a power of two."""
    if lo <= 0.0 or not hi < np.inf:
        return True
    exponent = math.frexp(hi * (1 + SLACK))[1]
    return math.ldexp(1.0, exponent - 1) >= lo * (1 - SLACK)


@jit
def lowest(tree: Any) -> int:
    """Return the number of the lowest bit that is set."""
    return math.frexp(float(tree & (~tree + np.uint64(1))))[1] - 1


@jit
def ratio(a: float, b: float, c: float, d: float) -> tuple[float, float]:
    """Divide magnitudes in [a, b] by those in [c, d]; infinity if the latter include zero."""
    return (a / d if 0.0 < d < np.inf else 0.0), (b / c if c > 0.0 else np.inf)


@jit
def huffman_trees(masks: Any, lo: Any, hi: Any, size: int, trees: Any, count: int) -> int:
    """Append every Huffman tree that is possible for weights in [lo, hi]; return the count, -1 if too many."""
    if size < 2:
        if count == 0 or trees[0] != 0:
            for t in range(count):
                if trees[t] == 0:
                    return count
            if count == len(trees):
                return -1
            trees[count] = 0
            return count + 1
        return count
    M, L, H = np.empty((size, size), np.int64), np.empty((size, size)), np.empty((size, size))
    first, second, tree = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.uint64)
    one = np.uint64(1)
    for i in range(size):
        M[0, i], L[0, i], H[0, i] = masks[i], lo[i], hi[i]
    level, second[0] = 0, 0
    while level >= 0:
        left = size - level
        if left == 1:
            new = True
            for t in range(count):
                new = new and trees[t] != tree[level]
            if new:
                if count == len(trees):
                    return -1
                trees[count] = tree[level]
                count += 1
            level -= 1
            continue
        second[level] += 1
        if second[level] >= left:
            first[level] += 1
            second[level] = first[level] + 1
            if first[level] >= left - 1:
                level -= 1
                continue
        a, b = first[level], second[level]
        least = max(L[level, a], L[level, b]) * (1 - SLACK)
        possible = True
        for z in range(left):
            possible = possible and (z == a or z == b or H[level, z] >= least)
        if not possible:
            continue
        k = 0
        for z in range(left):
            if z != a and z != b:
                M[level + 1, k], L[level + 1, k], H[level + 1, k] = M[level, z], L[level, z], H[level, z]
                k += 1
        M[level + 1, k] = M[level, a] | M[level, b]
        L[level + 1, k], H[level + 1, k] = L[level, a] + L[level, b], H[level, a] + H[level, b]
        tree[level + 1] = tree[level] | (one << np.uint64(M[level + 1, k]))
        level += 1
        first[level] = second[level] = 0
    return count


@jit
def trees_of(lo: Any, hi: Any, present: Any, maybe: Any, trees: Any) -> int:
    """List the possible trees of a row whose `maybe` entries may be absent; return the count, -1 if too many."""
    n = len(lo)
    optional = np.empty(n, np.int64)
    options = 0
    for j in range(n):
        if maybe[j]:
            optional[options] = j
            options += 1
    masks, low, high = np.empty(n, np.int64), np.empty(n), np.empty(n)
    count = 0
    for choice in range(1 << options):
        size = 0
        for j in range(n):
            here = present[j]
            for k in range(options):
                if optional[k] == j:
                    here = (choice >> k) & 1 == 1
            if here:
                masks[size], low[size], high[size] = 1 << j, lo[j], hi[j]
                size += 1
        count = huffman_trees(masks, low, high, size, trees, count)
        if count < 0:
            return -1
    return count


@jit
def union(trees: Any, count: int) -> Any:
    """Return the sums of all trees; every possible sum if the trees are too many to list."""
    sums = np.uint64(0) if count >= 0 else ~np.uint64(0)
    for t in range(count):
        sums |= trees[t]
    return sums


@jit
def strip(trees: Any, count: int, columns: int) -> int:
    """Remove columns from trees, which never raises the cost of uncorrelated terms; return how many differ."""
    one = np.uint64(1)
    kept = 0
    for t in range(count):
        tree = np.uint64(0)
        left = trees[t]
        while left:
            rest = lowest(left) & ~columns
            left &= left - one
            if rest & (rest - 1):
                tree |= one << np.uint64(rest)
        new = True
        for k in range(kept):
            new = new and trees[k] != tree
        if new:
            trees[kept] = tree
            kept += 1
    return kept if count >= 0 else count


@jit
def least_cost(squares: Any, size: int) -> float:
    """Return the least total squared length of partial sums over all trees: Huffman's tree of the squares."""
    total = 0.0
    while size > 1:
        for turn in range(2):  # the two smallest to the end
            for i in range(size - 1 - turn):
                if squares[i] < squares[size - 1 - turn]:
                    squares[i], squares[size - 1 - turn] = squares[size - 1 - turn], squares[i]
        size -= 1
        squares[size - 1] += squares[size]
        total += squares[size - 1]
    return total


@jit
def choose(size: Any, entries: Any, found: Any) -> None:
    """Fill the choices of a box: possible zeros of BT, products certainly rounded, ratios that may be powers of two."""
    infinity, m, r, _ = size
    AL, BE, D, B, _ = entries
    zero_B, mult_B, mult_G, mult_A, sum_G, X, ratio_B, ratio_G = found
    n = m + r - 1
    finite = n - infinity
    bounded = True
    scale = 1.0
    for j in range(n):
        scale *= BE[j, 0, 1] + max(abs(AL[j, 0, 0]), abs(AL[j, 0, 1]))
    for j in range(finite):
        small, large = min(abs(AL[j, 0, 0]), abs(AL[j, 0, 1])), max(abs(AL[j, 0, 0]), abs(AL[j, 0, 1]))
        X[j, 0], X[j, 1] = small / BE[j, 0, 1], (large / BE[j, 0, 0] if BE[j, 0, 0] > 0 else np.inf)
        bounded = bounded and BE[j, 0, 0] > 0
    if infinity:
        X[n - 1, 0] = X[n - 1, 1] = np.inf
    rest, denominator = np.empty((n, 2)), np.empty((n, 2))
    for j in range(n):
        for e in range(2):
            rest[j, e] = denominator[j, e] = 1.0
        for t in range(finite):
            if t == j:
                continue
            for e in range(2):
                rest[j, e] *= BE[t, 0, e]
            if j < finite:
                d = D[j, t] if j > t else D[t, j]
                denominator[j, 0] *= d[0, 0]
                denominator[j, 1] *= d[0, 1]
    for j in range(n):
        own = BE[j, 0] if j < finite else np.ones(2)
        for c in range(n):
            lo, hi = B[j, c, 0, 0], B[j, c, 0, 1]
            zero_B[j, c] = lo <= 1e-11 * scale and hi >= -1e-11 * scale
            small, large = (0.0 if zero_B[j, c] else min(abs(lo), abs(hi))), max(abs(lo), abs(hi))
            power = True
            if bounded and not zero_B[j, c]:
                power = may_be_power(small / rest[j, 1], large / rest[j, 0])
            mult_B[j, c] = not power
            for q in range(j):
                other = BE[q, 0] if q < finite else np.ones(2)
                low, high = B[q, c, 0, 0], B[q, c, 0, 1]
                small_q, large_q = (0.0 if zero_B[q, c] else min(abs(low), abs(high))), max(abs(low), abs(high))
                first, last = ratio(small * own[0], large * own[1], small_q * other[0], large_q * other[1])
                ratio_B[j, q, c] = ratio_B[q, j, c] = may_be_power(first, last)
        sum_G[j] = j < finite and X[j, 0] > 0
        for k in range(r):
            power = True
            if bounded and j < finite and denominator[j, 0] > 0 and (k == 0 or X[j, 0] > 0):
                to = own[0] ** (finite - 1) * rest[j, 0], own[1] ** (finite - 1) * rest[j, 1]  # N = prod D / (own beta, other beta)
                power = may_be_power(X[j, 0] ** k * to[0] / denominator[j, 1], X[j, 1] ** k * to[1] / denominator[j, 0])
            mult_G[j, k] = not power
            for q in range(min(j, finite)):
                if j >= finite:
                    ratio_G[j, q, k] = ratio_G[q, j, k] = False  # infinity's row of G rounds nothing
                    continue
                low = own[0] ** (finite - 2) * X[j, 0] ** k, own[1] ** (finite - 2) * X[j, 1] ** k
                other = BE[q, 0]
                high = other[0] ** (finite - 2) * X[q, 0] ** k, other[1] ** (finite - 2) * X[q, 1] ** k
                if BE[j, 0, 0] <= 0 or BE[q, 0, 0] <= 0 or denominator[j, 0] <= 0 or denominator[q, 0] <= 0:
                    shared = True
                else:
                    a, b = ratio(low[0], low[1], high[0], high[1])
                    c0, c1 = ratio(denominator[q, 0], denominator[q, 1], denominator[j, 0], denominator[j, 1])
                    shared = may_be_power(a * c0, b * c1)
                ratio_G[j, q, k] = ratio_G[q, j, k] = shared
        for i in range(m):
            mult_A[i, j] = i > 0 and j < finite and not may_be_power(X[j, 0] ** i, X[j, 1] ** i)

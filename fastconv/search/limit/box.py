"""Bound the first-order predicted error on a box of point sets from below, with its gradient.

A point a = alpha / beta is stored as (u, 1), (1, 2 - u) or (-1, 2 + u) for u in [-1, 1], [1, 2], [-2, -1]; infinity is (1, 0).
These coordinates scale rows of G and BT and columns of AT, which changes no variance. See docs/points.md for the derivation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.native.source import jit
from fastconv.search.limit.choices import TREES, choose, least_cost, lowest
from fastconv.search.limit.jets import add, constant, copy, invert, lower, multiply, negate, root, square
from fastconv.search.limit.lists import list_shares, list_trees
from fastconv.search.limit.quick import quick_limit
from fastconv.search.limit.records import Choices, Entries, Places, Trees

APART = 2.0**-12
"""Least distance between points at which gradients are used: the quick limit rules out closer points."""
TURNS = 4
"""How often a box is reduced to the face that holds its minimum, where a derivative keeps its sign."""
MONOTONE = 0.3
"""Weight of such a coordinate when a box is split."""


@jit
def places(size: Any) -> Any:
    """Return the offsets of the jets of a limit in their pool."""
    m, r = size.m, size.r
    n = m + r - 1
    BE, D, B = n, 2 * n, 2 * n + n * n
    G = B + n * n
    A = G + n * r
    squares = A + m * n
    power, before, own = squares + n, squares + 2 * n, squares + 3 * n
    GG = own + n
    BB, H, Z = GG + n * n, GG + 2 * n * n, GG + 3 * n * n
    E = Z + n * n
    P, S, F = E + m, E + 2 * m, E + 3 * m
    work = F + m
    other, least, cost, gamma = work + 1, work + 2, work + 3, work + 4
    length, result, spare, scratch = work + 5, work + 6, work + 7, work + 8
    variance = scratch + 2
    ends = variance + 64
    shared = ends + n * n
    room = shared + n * n * m
    return Places(
        BE, D, B, G, A, squares, power, before, own, GG, BB, H, Z, E, P, S, F,
        work, other, least, cost, gamma, length, result, spare, scratch, variance, ends, shared, room,
    )  # fmt: skip


@jit
def transforms(lo: Any, hi: Any, size: Any, Q: Any) -> None:
    """Fill the jets of alpha, beta, D, BT, and the rows of G times N_j.

    ``D[j, t] = alpha_j beta_t - beta_j alpha_t`` is positive for j > t. Row j of BT holds the coefficients of
    ``prod (beta_t x - alpha_t)`` over t != j, that of G ``beta_j**(r-1-k) alpha_j**k``.
    """
    r, slots = size.r, Q.shape[1]
    n = size.m + r - 1
    pool = places(size)
    BE, D, B, G, free = pool.BE, pool.D, pool.B, pool.G, pool.work
    for j in range(n):
        constant(Q, j, 1.0)
        constant(Q, BE + j, 0.0)
        if size.infinity and j == n - 1:
            continue
        if lo[j] >= -1 and hi[j] <= 1:
            Q[j, 0, 0], Q[j, 0, 1] = lo[j], hi[j]
            Q[BE + j, 0, 0] = Q[BE + j, 0, 1] = 1.0
            if slots > 1:
                Q[j, 1 + j, 0] = Q[j, 1 + j, 1] = 1.0
        else:
            side = 1.0 if lo[j] >= 1 else -1.0
            Q[j, 0, 0] = Q[j, 0, 1] = side
            a, b = 2 - side * lo[j], 2 - side * hi[j]
            Q[BE + j, 0, 0], Q[BE + j, 0, 1] = min(a, b), max(a, b)
            if slots > 1:
                Q[BE + j, 1 + j, 0] = Q[BE + j, 1 + j, 1] = -side
    for j in range(n):
        for t in range(j):
            at = D + j * n + t
            multiply(Q, at, j, BE + t)
            multiply(Q, free, BE + j, t)
            add(Q, at, free, -1.0)
            Q[at, 0, 0] = max(Q[at, 0, 0], 0.0)  # the points ascend
        for c in range(n):
            constant(Q, B + j * n + c, 1.0 if c == 0 else 0.0)
        degree = 0
        for t in range(n):
            if t == j:
                continue
            degree += 1
            for c in range(degree, -1, -1):
                at = B + j * n + c
                multiply(Q, at, at, t)
                negate(Q, at)
                if c:
                    multiply(Q, free, at - 1, BE + t)
                    add(Q, at, free, 1.0)
        for k in range(r):
            at = G + j * r + k
            constant(Q, at, 1.0)
            for t in range(r - 1):
                multiply(Q, at, at, j if t < k else BE + j)


@jit
def _in_depth(Q: Any, out: int, squares: int, n: int, tree: Any) -> None:
    """Set a jet to the total squared length of a tree's partial sums, from the squares of its leaves."""
    constant(Q, out, 0.0)
    depth = np.zeros(n, np.int64)
    while tree:
        mask = lowest(tree)
        tree &= tree - np.uint64(1)
        for c in range(n):
            depth[c] += (mask >> c) & 1
    for c in range(n):
        if depth[c]:
            add(Q, out, squares + c, float(depth[c]))


@jit
def _bounded_cost(Q: Any, out: int, squares: int, zero: Any) -> None:
    """Set a jet to the least cost over all trees; the depth of each leaf is unknown."""
    n = len(zero)
    lo, hi = np.empty(n), np.empty(n)
    size = 0
    constant(Q, out, 0.0)
    for c in range(n):
        if not zero[c]:
            lo[size], hi[size] = Q[squares + c, 0, 0], Q[squares + c, 0, 1]
            size += 1
    for c in range(n):
        if not zero[c] and size > 1:
            for k in range(1, Q.shape[1]):
                a, b = Q[squares + c, k, 0], Q[squares + c, k, 1]
                Q[out, k, 0] += min(a, (size - 1) * a)
                Q[out, k, 1] += max(b, (size - 1) * b)
    Q[out, 0, 0], Q[out, 0, 1] = least_cost(lo, size), least_cost(hi, size)


PAIRS = 4
"""Pairs of rows whose shared roundings are enumerated together; for the others each output takes the best case."""


@jit
def _unknown(Q: Any, out: int) -> None:
    """Set a jet to zero with an unbounded gradient: a variance may be negative, where the root is not concave."""
    constant(Q, out, 0.0)
    for k in range(1, Q.shape[1]):
        Q[out, k, 0], Q[out, k, 1] = -1e300, 1e300


@jit
def _mean_root(Q: Any, out: int, pool: Any, size: Any) -> None:
    """Set a jet to the mean standard deviation of the outputs, from roundings before, at and after the product."""
    m, (F, P, S), sum_, part = size.m, (pool.F, pool.P, pool.S), pool.scratch, pool.scratch + 1
    constant(Q, out, 0.0)
    for i in range(m):
        if size.dims == 1:
            copy(Q, sum_, F + i)
            add(Q, sum_, P + i, 1.0)
            add(Q, sum_, S + i, 1.0)
            if not Q[sum_, 0, 0] > 0:
                _unknown(Q, out)
                return
            root(Q, sum_, sum_)
            add(Q, out, sum_, 1.0 / m)
            continue
        for j in range(m):
            constant(Q, sum_, 0.0)
            add(Q, sum_, F + i, float(size.r))
            add(Q, sum_, S + j, float(size.r))
            copy(Q, part, F + j)
            add(Q, part, P + j, 1.0)
            multiply(Q, part, part, P + i)
            add(Q, sum_, part, 1.0)
            multiply(Q, part, S + i, P + j)
            add(Q, sum_, part, 1.0)
            if not Q[sum_, 0, 0] > 0:
                _unknown(Q, out)
                return
            root(Q, sum_, sum_)
            add(Q, out, sum_, 1.0 / (m * m))


@jit
def _column(Q: Any, pool: Any, size: Any, j: int) -> None:
    """Set the jets of a column of AT divided by the denominator of the row of G: only their product matters."""
    m, r = size.m, size.r
    n = m + r - 1
    constant(Q, pool.other, 1.0)
    for t in range(n):
        if t != j:
            multiply(Q, pool.other, pool.other, pool.D + max(j, t) * n + min(j, t))
    invert(Q, pool.other, pool.other)
    for i in range(m):
        at = pool.A + i * n + j
        copy(Q, at, pool.other)
        for t in range(m - 1):
            multiply(Q, at, at, j if t < i else pool.BE + j)


@jit
def _product(Q: Any, pool: Any, size: Any, chosen: Any, trees: Any, j: int) -> None:
    """Set the jets of a product: its variance, and that of the earlier roundings of kernel and input."""
    r, squares, cost, gamma, length = size.r, pool.squares, pool.cost, pool.gamma, pool.length
    n, before, beta = size.m + r - 1, pool.before + j, pool.BE + j
    constant(Q, gamma, 0.0)
    constant(Q, cost, 0.0)
    for k in range(r):
        square(Q, squares + k, pool.G + j * r + k)
        add(Q, gamma, squares + k, 1.0)
        if chosen.mult_G[j, k]:
            add(Q, cost, squares + k, 1.0)
    if chosen.sum_G[j]:  # the two lightest of 1, a, a**2 first
        add(Q, cost, gamma, 1.0)
        add(Q, cost, squares + 1, 1.0)
        add(Q, cost, squares + (2 if Q[beta, 0, 0] == 1.0 and Q[beta, 0, 1] == 1.0 else 0), 1.0)
    constant(Q, length, 0.0)
    constant(Q, before, 0.0)
    for c in range(n):
        square(Q, squares + c, pool.B + j * n + c)
        add(Q, length, squares + c, 1.0)
        if chosen.mult_B[j, c]:
            add(Q, before, squares + c, 1.0)
    if trees.count_B[j] < 0:
        _bounded_cost(Q, pool.least, squares, chosen.zero_B[j])
    else:
        _in_depth(Q, pool.least, squares, n, trees.B[j, 0])
        for t in range(1, trees.count_B[j]):
            _in_depth(Q, pool.work, squares, n, trees.B[j, t])
            lower(Q, pool.least, pool.work)
    add(Q, before, pool.least, 1.0)
    multiply(Q, before, before, gamma)
    multiply(Q, cost, cost, length)
    add(Q, before, cost, 1.0)
    multiply(Q, pool.power + j, gamma, length)


@jit
def _correlation(Q: Any, pool: Any, size: Any, j: int, q: int) -> None:
    """Set the jets of the products of two rows of G, of BT, and of both."""
    r, work = size.r, pool.work
    n = size.m + r - 1
    at = j * n + q
    constant(Q, pool.GG + at, 0.0)
    for k in range(r):
        multiply(Q, work, pool.G + j * r + k, pool.G + q * r + k)
        add(Q, pool.GG + at, work, 1.0)
    constant(Q, pool.BB + at, 0.0)
    for c in range(n):
        multiply(Q, work, pool.B + j * n + c, pool.B + q * n + c)
        add(Q, pool.BB + at, work, 1.0)
    multiply(Q, pool.H + at, pool.GG + at, pool.BB + at)


@jit
def _rounded_once(Q: Any, pool: Any, size: Any, shares: Any, rows: Any) -> int:
    """Set the jets of the roundings that each pair of rows may share, at least and at most.

    Store the pairs in `rows` and return their number. A shared rounding adds a multiple h of AT_ij AT_iq to the outputs. The
    error is concave in h, so its minimum is at an end.
    """
    r, work, spare = size.r, pool.work, pool.spare
    n, pairs = size.m + r - 1, 0
    for s in range(len(shares)):
        of_G, j, q, mask = shares[s, 0], shares[s, 1], shares[s, 2], shares[s, 3]
        if pairs == 0 or rows[pairs - 1, 0] != j or rows[pairs - 1, 1] != q:
            rows[pairs, 0], rows[pairs, 1] = j, q
            constant(Q, pool.ends + 2 * pairs, 0.0)
            constant(Q, pool.ends + 2 * pairs + 1, 0.0)
            pairs += 1
        constant(Q, spare, 0.0)
        for c in range(n):
            if (mask >> c) & 1:
                if of_G:
                    multiply(Q, work, pool.G + j * r + c, pool.G + q * r + c)
                else:
                    multiply(Q, work, pool.B + j * n + c, pool.B + q * n + c)
                add(Q, spare, work, 2.0)
        multiply(Q, spare, spare, (pool.BB if of_G else pool.GG) + j * n + q)
        for end in range(2):
            constant(Q, pool.other, 0.0)
            lower(Q, pool.other, spare)
            add(Q, pool.ends + 2 * (pairs - 1) + end, pool.other, 1.0 - 2.0 * end)
            negate(Q, spare)
    return pairs


@jit
def _variances(Q: Any, pool: Any, size: Any, mult_A: Any, i: int) -> None:
    """Set the jets of an output's variances without partial sums, and of the factor of each pair of products."""
    n = size.m + size.r - 1
    constant(Q, pool.E + i, 0.0)
    constant(Q, pool.P + i, 0.0)
    constant(Q, pool.S + i, float(size.r))
    for j in range(n):
        square(Q, pool.other, pool.A + i * n + j)
        multiply(Q, pool.work, pool.other, pool.before + j)
        add(Q, pool.E + i, pool.work, 1.0)
        multiply(Q, pool.own + j, pool.other, pool.power + j)
        add(Q, pool.P + i, pool.own + j, 1.0)
        if mult_A[i, j]:
            add(Q, pool.S + i, pool.own + j, 1.0)
        for q in range(j):
            at = pool.Z + j * n + q
            multiply(Q, at, pool.A + i * n + j, pool.A + i * n + q)
            if (j - q) % 2:  # N_j N_q has this sign
                negate(Q, at)


@jit
def _partial_sums(Q: Any, pool: Any, n: int, trees: Any, known: Any) -> None:
    """Set a jet to the least variance of partial sums over the trees of an output.

    The last sum is the output, with variance r.
    """
    for j in range(n):
        for q in range(j):
            multiply(Q, pool.Z + j * n + q, pool.Z + j * n + q, pool.H + j * n + q)
    known[:] = False
    for t in range(len(trees)):
        constant(Q, pool.work, 0.0)
        left = trees[t]
        while left & (left - np.uint64(1)):
            mask = lowest(left)
            left &= left - np.uint64(1)
            at = pool.variance + mask
            if not known[mask]:
                known[mask] = True
                constant(Q, at, 0.0)
                for j in range(n):
                    if (mask >> j) & 1:
                        add(Q, at, pool.own + j, 1.0)
                        for q in range(j):
                            if (mask >> q) & 1:
                                add(Q, at, pool.Z + j * n + q, 2.0)
                Q[at, 0, 0], Q[at, 0, 1] = max(Q[at, 0, 0], 0.0), max(Q[at, 0, 1], 0.0)
            add(Q, pool.work, at, 1.0)
        if t == 0:
            copy(Q, pool.least, pool.work)
        else:
            lower(Q, pool.least, pool.work)


@jit
def _least_mean(Q: Any, pool: Any, size: Any, pairs: int) -> None:
    """Set the result to the least mean error over the roundings that pairs of rows may share.

    The first `PAIRS` pairs try both ends; the others take the better end.
    """
    split = min(pairs, PAIRS)
    for choice in range(1 << split):
        for i in range(size.m):
            copy(Q, pool.F + i, pool.E + i)
            for t in range(pairs):
                at = pool.shared + (i * pairs + t) * 2
                if t < split:
                    add(Q, pool.F + i, at + ((choice >> t) & 1), 1.0)
                    continue
                copy(Q, pool.least, at)
                lower(Q, pool.least, at + 1)
                add(Q, pool.F + i, pool.least, 1.0)
        _mean_root(Q, pool.work if choice else pool.result, pool, size)
        if choice:
            lower(Q, pool.result, pool.work)


@jit
def jet_limit(size: Any, Q: Any, chosen: Any, trees: Any, shares: Any) -> Any:
    """Compute the jet of a lower limit of the error on a box; return its place in the pool.

    The choices, trees and shares are those of the box.
    """
    n, pool = size.m + size.r - 1, places(size)
    for j in range(n):
        _column(Q, pool, size, j)
        _product(Q, pool, size, chosen, trees, j)
        for q in range(j):
            _correlation(Q, pool, size, j, q)
    rows = np.empty((n * n, 2), np.int64)
    pairs = _rounded_once(Q, pool, size, shares, rows)
    known = np.empty(64, np.bool_)
    for i in range(size.m):
        _variances(Q, pool, size, chosen.mult_A, i)
        for t in range(pairs):
            for end in range(2):
                common = pool.Z + rows[t, 0] * n + rows[t, 1]
                multiply(Q, pool.shared + (i * pairs + t) * 2 + end, common, pool.ends + 2 * t + end)
        if trees.count_A[i] > 0:
            _partial_sums(Q, pool, n, trees.A[i, : trees.count_A[i]], known)
            add(Q, pool.S + i, pool.least, 1.0)
    _least_mean(Q, pool, size, pairs)
    return pool.result


@jit
def entries_of(Q: Any, size: Any) -> Any:
    """Return the transforms in a pool."""
    pool = places(size)
    r, slots = size.r, Q.shape[1]
    n = size.m + r - 1
    D, B = Q[pool.D : pool.B].reshape(n, n, slots, 2), Q[pool.B : pool.G].reshape(n, n, slots, 2)
    return Entries(Q[: pool.BE], Q[pool.BE : pool.D], D, B, Q[pool.G : pool.A].reshape(n, r, slots, 2))


@jit
def undecided(size: Any) -> Any:
    """Return empty arrays for the choices on a box."""
    m, r = size.m, size.r
    n = m + r - 1
    zero_B, mult_B, mult_G = np.zeros((n, n), np.bool_), np.zeros((n, n), np.bool_), np.zeros((n, r), np.bool_)
    mult_A, sum_G, X = np.zeros((m, n), np.bool_), np.zeros(n, np.bool_), np.empty((n, 2))
    return Choices(zero_B, mult_B, mult_G, mult_A, sum_G, X, np.zeros((n, n, n), np.bool_), np.zeros((n, n, r), np.bool_))


@jit
def unlisted(size: Any) -> Any:
    """Return empty arrays for the trees of the rows."""
    n = size.m + size.r - 1
    of_B, of_A = np.zeros((n, TREES), np.uint64), np.zeros((size.m, TREES), np.uint64)
    return Trees(of_B, of_A, np.zeros(n, np.int64), np.zeros(size.m, np.int64), np.zeros(n, np.uint64))


@jit
def limit_of_box(lo: Any, hi: Any, size: Any, enough: float, result: Any) -> Any:
    """Return a lower limit of the error in a box, in units of one rounding; store slopes in `result`.

    Parameters
    ----------
    lo, hi : array, (k,)
        Ends of the box: ascending points; no interval crosses -1, 0 or 1.
    size : Size
        Size and dimension.
    enough : float
        If the quick limit reaches this, the gradient is not computed.
    result : array, (k,)
        Variation of the error along each coordinate of the box; zeros if only the quick limit was computed.
    """
    n, d = size.m + size.r - 1, len(lo)
    result[:] = 0.0
    Q = np.empty((places(size).room, 1, 2))
    transforms(lo, hi, size, Q)
    entries, chosen = entries_of(Q, size), undecided(size)
    choose(size, entries, chosen)
    limit = quick_limit(size, entries, chosen)
    if limit >= enough:
        return limit
    for j in range(n):
        for t in range(j):
            if entries.D[j, t, 0, 0] < APART:
                return limit
    trees, shares = unlisted(size), np.zeros((256, 4), np.int64)
    list_trees(size, entries.B, chosen, trees)
    count = list_shares(size, entries, chosen, trees.sums_B, shares)
    if count < 0:
        return limit
    wide = np.empty((len(Q), 1 + d, 2))
    low, high = lo.copy(), hi.copy()
    jet = wide[0]
    for turn in range(TURNS):
        transforms(low, high, size, wide)
        at = jet_limit(size, wide, chosen, trees, shares[:count])
        jet = wide[at]
        limit = max(limit, jet[0, 0])
        changed = False
        for k in range(d):
            if turn == 0:
                result[k] = (hi[k] - lo[k]) * max(abs(jet[1 + k, 0]), abs(jet[1 + k, 1]))
            if low[k] == high[k]:
                continue
            if jet[1 + k, 0] >= 0.0:  # increasing: the minimum is at the lower end
                high[k] = low[k]
                result[k] *= MONOTONE
                changed = True
            elif jet[1 + k, 1] <= 0.0:
                low[k] = high[k]
                result[k] *= MONOTONE
                changed = True
        if limit >= enough or not changed:
            break
    if limit >= enough:
        return limit
    where, drop = low.copy(), 0.0
    for k in range(d):
        if low[k] < high[k]:
            a, b_ = min(jet[1 + k, 0], 0.0), max(jet[1 + k, 1], 0.0)
            if a < b_:  # the loss to both sides is equal here
                where[k] = min(max(low[k] + (high[k] - low[k]) * (-a / (b_ - a)), low[k]), high[k])
            drop += max(-a * (high[k] - where[k]), b_ * (where[k] - low[k]))
    transforms(where, where, size, Q)
    at = jet_limit(size, Q, chosen, trees, shares[:count])
    return max(limit, Q[at, 0, 0] - drop)

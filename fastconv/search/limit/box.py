"""A lower limit of the first-order predicted error on a box of point sets: quickly, and by its gradient.

A point a = alpha / beta is held as (u, 1), (1, 2 - u) or (-1, 2 + u) for u in [-1, 1], [1, 2], [-2, -1]; infinity is (1, 0).
Scaling a row of G or BT, or a column of AT, back by it leaves every variance as it is. See docs/points.md for the derivation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.native.source import inlined, jit
from fastconv.search.limit.choices import TREES, choices, least_cost, lowest
from fastconv.search.limit.jets import add, constant, copy, invert, lower, multiply, negate, root, square
from fastconv.search.limit.lists import list_shares, list_trees
from fastconv.search.limit.quick import quick_limit

APART = 2.0**-12
"""Least distance of points at which gradients are used: nearer ones are ruled out by the quick limit."""
TURNS = 4
"""How often a box is cut down to the face that holds the least value, where the gradient has a sign."""
MONOTONE = 0.3
"""How much such a coordinate counts for when a box is split."""


@inlined
def places(n: int, r: int) -> tuple[int, int, int, int]:
    """Return where beta, the differences, BT and G begin in the pool, which alpha begins, and behind them what is free."""
    return n, 2 * n, 2 * n + n * n, 2 * n + 2 * n * n


@jit
def transforms(lo: Any, hi: Any, inf: bool, n: int, r: int, Q: Any) -> None:
    """Fill the jets of alpha, beta, ``D[j, t] = alpha_j beta_t - beta_j alpha_t > 0`` for j > t, BT, and the rows of G times N_j.

    Row j of BT holds the coefficients of ``prod (beta_t x - alpha_t)`` over t != j, that of G ``beta_j**(r-1-k) alpha_j**k``.
    """
    BE, D, B, G = places(n, r)
    free = G + n * r
    slots = Q.shape[1]
    for j in range(n):
        constant(Q, j, 1.0)
        constant(Q, BE + j, 0.0)
        if inf and j == n - 1:
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
    """Set a jet to the sum of the squared lengths of a tree's sums, from the squares of its leaves."""
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
    """Set a jet to the least cost over all trees, each leaf at an unknown depth."""
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
"""Pairs of rows whose common roundings are weighed against each other; of further ones each output takes the best."""


@jit
def _unknown(Q: Any, out: int) -> None:
    """Set a jet to what says nothing: more is taken off than there is, and the root is not concave beyond zero."""
    constant(Q, out, 0.0)
    for k in range(1, Q.shape[1]):
        Q[out, k, 0], Q[out, k, 1] = -1e300, 1e300


@jit
def _mean_root(Q: Any, out: int, E: int, P: int, O: int, m: int, r: int, dims: int, work: int) -> None:  # noqa: E741
    """Set a jet to the mean over outputs of the root of the variances, of what rounds before, at and after the product."""
    sum_, part = work, work + 1
    constant(Q, out, 0.0)
    for i in range(m):
        if dims == 1:
            copy(Q, sum_, E + i)
            add(Q, sum_, P + i, 1.0)
            add(Q, sum_, O + i, 1.0)
            if not Q[sum_, 0, 0] > 0:
                _unknown(Q, out)
                return
            root(Q, sum_, sum_)
            add(Q, out, sum_, 1.0 / m)
            continue
        for j in range(m):
            constant(Q, sum_, 0.0)
            add(Q, sum_, E + i, float(r))
            add(Q, sum_, O + j, float(r))
            copy(Q, part, E + j)
            add(Q, part, P + j, 1.0)
            multiply(Q, part, part, P + i)
            add(Q, sum_, part, 1.0)
            multiply(Q, part, O + i, P + j)
            add(Q, sum_, part, 1.0)
            if not Q[sum_, 0, 0] > 0:
                _unknown(Q, out)
                return
            root(Q, sum_, sum_)
            add(Q, out, sum_, 1.0 / (m * m))


@jit
def jet_limit(
    inf: bool,
    m: int,
    r: int,
    dims: int,
    Q: Any,
    zero_B: Any,
    mult_B: Any,
    mult_G: Any,
    sum_G: Any,
    mult_A: Any,
    trees_B: Any,
    count_B: Any,
    trees_A: Any,
    count_A: Any,
    shares: Any,
    count: int,
) -> Any:
    """Return where the pool then holds the jet of a function that is at most the error on all of the box whose choices are given."""
    n = m + r - 1
    BE, D, B, G = places(n, r)
    A = G + n * r
    squares = A + m * n
    power, before, own = squares + n, squares + 2 * n, squares + 3 * n
    GG, BB, H, Z = own + n, own + n + n * n, own + n + 2 * n * n, own + n + 3 * n * n
    E, P = Z + n * n, Z + n * n + m
    O, F = P + m, P + 2 * m  # noqa: E741
    free = F + m
    work, other, least, cost, gamma, length, result, spare = free, free + 1, free + 2, free + 3, free + 4, free + 5, free + 6, free + 7
    scratch = free + 8
    variance, ends = scratch + 2, scratch + 66
    shared = ends + n * n
    for j in range(n):
        constant(Q, other, 1.0)
        for t in range(n):
            if t != j:
                multiply(Q, other, other, D + max(j, t) * n + min(j, t))
        invert(Q, other, other)
        for i in range(m):
            at = A + i * n + j
            copy(Q, at, other)  # AT / N: all that is asked for is their product
            for t in range(m - 1):
                multiply(Q, at, at, j if t < i else BE + j)
        constant(Q, gamma, 0.0)
        constant(Q, cost, 0.0)
        for k in range(r):
            square(Q, squares + k, G + j * r + k)
            add(Q, gamma, squares + k, 1.0)
            if mult_G[j, k]:
                add(Q, cost, squares + k, 1.0)
        if sum_G[j]:  # the two lightest of 1, a, a**2 first
            add(Q, cost, gamma, 1.0)
            add(Q, cost, squares + 1, 1.0)
            add(Q, cost, squares + (2 if Q[BE + j, 0, 0] == 1.0 and Q[BE + j, 0, 1] == 1.0 else 0), 1.0)
        constant(Q, length, 0.0)
        constant(Q, before + j, 0.0)
        for c in range(n):
            square(Q, squares + c, B + j * n + c)
            add(Q, length, squares + c, 1.0)
            if mult_B[j, c]:
                add(Q, before + j, squares + c, 1.0)
        if count_B[j] < 0:
            _bounded_cost(Q, least, squares, zero_B[j])
        else:
            _in_depth(Q, least, squares, n, trees_B[j, 0])
            for t in range(1, count_B[j]):
                _in_depth(Q, work, squares, n, trees_B[j, t])
                lower(Q, least, work)
        add(Q, before + j, least, 1.0)
        multiply(Q, before + j, before + j, gamma)
        multiply(Q, cost, cost, length)
        add(Q, before + j, cost, 1.0)
        multiply(Q, power + j, gamma, length)
        for q in range(j):
            at = j * n + q
            constant(Q, GG + at, 0.0)
            for k in range(r):
                multiply(Q, work, G + j * r + k, G + q * r + k)
                add(Q, GG + at, work, 1.0)
            constant(Q, BB + at, 0.0)
            for c in range(n):
                multiply(Q, work, B + j * n + c, B + q * n + c)
                add(Q, BB + at, work, 1.0)
            multiply(Q, H + at, GG + at, BB + at)

    # What rows j and q round once adds, over all outputs, a multiple h of AT_ij AT_iq: the error is concave in h, least at an end.
    pairs = 0
    first, second = np.empty(n * n, np.int64), np.empty(n * n, np.int64)
    for s in range(count):
        of_G, j, q, mask = shares[s, 0], shares[s, 1], shares[s, 2], shares[s, 3]
        if pairs == 0 or first[pairs - 1] != j or second[pairs - 1] != q:
            first[pairs], second[pairs] = j, q
            constant(Q, ends + 2 * pairs, 0.0)
            constant(Q, ends + 2 * pairs + 1, 0.0)
            pairs += 1
        constant(Q, spare, 0.0)
        for c in range(n):
            if (mask >> c) & 1:
                if of_G:
                    multiply(Q, work, G + j * r + c, G + q * r + c)
                else:
                    multiply(Q, work, B + j * n + c, B + q * n + c)
                add(Q, spare, work, 2.0)
        multiply(Q, spare, spare, (BB if of_G else GG) + j * n + q)
        for end in range(2):
            constant(Q, other, 0.0)
            lower(Q, other, spare)
            add(Q, ends + 2 * (pairs - 1) + end, other, 1.0 - 2.0 * end)
            negate(Q, spare)

    known = np.empty(64, np.bool_)
    for i in range(m):
        constant(Q, E + i, 0.0)
        constant(Q, P + i, 0.0)
        constant(Q, O + i, float(r))
        for j in range(n):
            square(Q, other, A + i * n + j)
            multiply(Q, work, other, before + j)
            add(Q, E + i, work, 1.0)
            multiply(Q, own + j, other, power + j)
            add(Q, P + i, own + j, 1.0)
            if mult_A[i, j]:
                add(Q, O + i, own + j, 1.0)
            for q in range(j):
                at = j * n + q
                multiply(Q, Z + at, A + i * n + j, A + i * n + q)
                if (j - q) % 2:  # N_j N_q has this sign
                    negate(Q, Z + at)
        for t in range(pairs):
            for end in range(2):
                multiply(Q, shared + (i * pairs + t) * 2 + end, Z + first[t] * n + second[t], ends + 2 * t + end)
        if count_A[i] <= 0:
            continue
        for j in range(n):
            for q in range(j):
                multiply(Q, Z + j * n + q, Z + j * n + q, H + j * n + q)
        known[:] = False
        for t in range(count_A[i]):
            constant(Q, work, 0.0)
            left = trees_A[i, t]
            while left & (left - np.uint64(1)):  # the last sum is the output, its variance r
                mask = lowest(left)
                left &= left - np.uint64(1)
                at = variance + mask
                if not known[mask]:
                    known[mask] = True
                    constant(Q, at, 0.0)
                    for j in range(n):
                        if (mask >> j) & 1:
                            add(Q, at, own + j, 1.0)
                            for q in range(j):
                                if (mask >> q) & 1:
                                    add(Q, at, Z + j * n + q, 2.0)
                    Q[at, 0, 0], Q[at, 0, 1] = max(Q[at, 0, 0], 0.0), max(Q[at, 0, 1], 0.0)
                add(Q, work, at, 1.0)
            if t == 0:
                copy(Q, least, work)
            else:
                lower(Q, least, work)
        add(Q, O + i, least, 1.0)
    split = min(pairs, PAIRS)
    for choice in range(1 << split):
        for i in range(m):
            copy(Q, F + i, E + i)
            for t in range(pairs):
                at = shared + (i * pairs + t) * 2
                if t < split:
                    add(Q, F + i, at + ((choice >> t) & 1), 1.0)
                    continue
                copy(Q, least, at)
                lower(Q, least, at + 1)
                add(Q, F + i, least, 1.0)
        _mean_root(Q, work if choice else result, F, P, O, m, r, dims, scratch)
        if choice:
            lower(Q, result, work)
    return result


@inlined
def room(n: int, m: int, r: int) -> int:
    """Return how many jets `jet_limit` works with."""
    return 3 * n + n * n * 8 + n * r + m * n + 5 * n + 5 * m + 80 + n * n * (m + 1)


@jit
def limit_of_box(lo: Any, hi: Any, inf: bool, m: int, r: int, dims: int, enough: float, result: Any) -> Any:
    """Return a number that the error, in units of one rounding, does not go below in the box; enter slopes in `result`.

    Parameters
    ----------
    lo, hi : array, (k,)
        Ends of the box, ascending points, none across -1, 0 or 1.
    inf : bool
        Whether infinity is a point too.
    m, r, dims : int
        Size and dimension.
    enough : float
        Where the quick limit reaches this the gradient is not asked for.
    result : array, (k,)
        How much of the box's range of values each coordinate answers for; zeros where only the quick limit was computed.
    """
    n, d = m + r - 1, len(lo)
    result[:] = 0.0
    Q = np.empty((room(n, m, r), 1, 2))
    BE, D, B, G = places(n, r)
    transforms(lo, hi, inf, n, r, Q)
    al, be, dd = Q[:BE], Q[BE:D], Q[D:B].reshape(n, n, 1, 2)
    b, g = Q[B:G].reshape(n, n, 1, 2), Q[G : G + n * r].reshape(n, r, 1, 2)
    zero_B, mult_B = np.zeros((n, n), np.bool_), np.zeros((n, n), np.bool_)
    mult_G, sum_G, mult_A = np.zeros((n, r), np.bool_), np.zeros(n, np.bool_), np.zeros((m, n), np.bool_)
    X, ratio_B, ratio_G = np.empty((n, 2)), np.zeros((n, n, n), np.bool_), np.zeros((n, n, r), np.bool_)
    choices(inf, m, r, al, be, b, dd, zero_B, mult_B, mult_G, sum_G, mult_A, X, ratio_B, ratio_G)
    limit = quick_limit(inf, m, r, dims, al, be, dd, b, g, zero_B, mult_B, mult_G, sum_G, mult_A, ratio_B, ratio_G)
    if limit >= enough:
        return limit
    for j in range(n):
        for t in range(j):
            if dd[j, t, 0, 0] < APART:
                return limit
    trees_B, count_B, sums_B = np.zeros((n, TREES), np.uint64), np.zeros(n, np.int64), np.zeros(n, np.uint64)
    trees_A, count_A = np.zeros((m, TREES), np.uint64), np.zeros(m, np.int64)
    shares = np.zeros((256, 4), np.int64)
    list_trees(inf, m, b, X, zero_B, trees_B, count_B, sums_B, trees_A, count_A)
    count = list_shares(inf, r, b, be, X, al, zero_B, mult_B, mult_G, ratio_B, ratio_G, sums_B, shares)
    if count < 0:
        return limit
    wide = np.empty((len(Q), 1 + d, 2))
    low, high = lo.copy(), hi.copy()
    jet = wide[0]
    for turn in range(TURNS):
        transforms(low, high, inf, n, r, wide)
        at = jet_limit(inf, m, r, dims, wide, zero_B, mult_B, mult_G, sum_G, mult_A, trees_B, count_B, trees_A, count_A, shares, count)
        jet = wide[at]
        limit = max(limit, jet[0, 0])
        changed = False
        for k in range(d):
            if turn == 0:
                result[k] = (hi[k] - lo[k]) * max(abs(jet[1 + k, 0]), abs(jet[1 + k, 1]))
            if low[k] == high[k]:
                continue
            if jet[1 + k, 0] >= 0.0:  # it ascends: its least value is at the lower end
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
            if a < b_:  # where what is lost to both sides is the same
                where[k] = min(max(low[k] + (high[k] - low[k]) * (-a / (b_ - a)), low[k]), high[k])
            drop += max(-a * (high[k] - where[k]), b_ * (where[k] - low[k]))
    transforms(where, where, inf, n, r, Q)
    at = jet_limit(inf, m, r, dims, Q, zero_B, mult_B, mult_G, sum_G, mult_A, trees_B, count_B, trees_A, count_A, shares, count)
    return max(limit, Q[at, 0, 0] - drop)

"""List the possible summation trees of a transform's rows in a box, and the roundings that two rows may share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.native.source import jit
from fastconv.search.limit.choices import SLACK, lowest, may_be_power, ratio, strip, trees_of, union


@jit
def list_trees(size: Any, B: Any, chosen: Any, trees: Any) -> None:
    """List the possible trees of the rows of BT and AT, and the sums of those of BT.

    Columns of BT that may be zero are left out of its trees, but not of its sums.
    """
    zero_B, X = chosen.zero_B, chosen.X
    n = len(B)
    lo, hi, present, maybe = np.empty(n), np.empty(n), np.empty(n, np.bool_), np.empty(n, np.bool_)
    for j in range(n):
        for c in range(n):
            a, b = B[j, c, 0, 0], B[j, c, 0, 1]
            lo[c], hi[c] = (0.0 if zero_B[j, c] else min(abs(a), abs(b))), max(abs(a), abs(b))
            maybe[c] = zero_B[j, c] and hi[c] > 0
            present[c] = not zero_B[j, c]
        columns = 0
        for c in range(n):
            columns |= zero_B[j, c] << c
        count = trees_of(lo, hi, present, maybe, trees.B[j])
        trees.sums_B[j] = union(trees.B[j], count)
        trees.count_B[j] = strip(trees.B[j], count, columns)
    for i in range(size.m):
        for j in range(n):
            lo[j], hi[j] = X[j, 0] ** i, X[j, 1] ** i
            present[j], maybe[j] = True, i > 0 and X[j, 0] <= 0
            if size.infinity and j == n - 1:
                present[j], lo[j], hi[j] = i == size.m - 1, 1.0, 1.0
        trees.count_A[i] = trees_of(lo, hi, present, maybe, trees.A[i])


@jit
def _may_share(sums: Any, zeros: int, mask: int) -> bool:
    """Return whether one of the sums is over these columns, with or without some of the zeros."""
    while sums:
        if lowest(sums) & ~zeros == mask:
            return True
        sums &= sums - np.uint64(1)
    return False


@jit
def list_shares(size: Any, entries: Any, chosen: Any, sums_B: Any, shares: Any) -> int:
    """List the roundings that two rows may share; return the count, -1 if too many.

    Each entry is (1 for G or 0 for BT, row, row, columns).
    """
    AL, BE, _, B, _ = entries
    zero_B, mult_B, mult_G, _, _, X, ratio_B, ratio_G = chosen
    n = len(B)
    count = 0
    low, high, sign, one = np.empty(n), np.empty(n), np.empty(n, np.int64), np.ones(2)
    for j in range(n):
        for q in range(j):
            columns = zeros = 0
            for c in range(n):
                if zero_B[j, c] and zero_B[q, c]:
                    zeros |= 1 << c  # may be absent from both rows
                    continue
                if not ratio_B[j, q, c]:
                    continue
                columns |= 1 << c
                x0, x1, y0, y1 = B[j, c, 0, 0], B[j, c, 0, 1], B[q, c, 0, 0], B[q, c, 0, 1]
                small, small_q = (0.0 if zero_B[j, c] else min(abs(x0), abs(x1))), (0.0 if zero_B[q, c] else min(abs(y0), abs(y1)))
                large, large_q = max(abs(x0), abs(x1)), max(abs(y0), abs(y1))
                low[c], high[c] = ratio(small, large, small_q, large_q)
                sign[c] = 0 if zero_B[j, c] or zero_B[q, c] else (1 if (x0 > 0) == (y0 > 0) else -1)
                if mult_B[j, c] or mult_B[q, c]:
                    if count == len(shares):
                        return -1
                    shares[count, 0], shares[count, 1], shares[count, 2], shares[count, 3] = 0, j, q, 1 << c
                    count += 1
            for mask in range(3, 1 << n):
                if mask & columns != mask or mask & (mask - 1) == 0:
                    continue
                a, b, plus, minus = 0.0, np.inf, False, False
                for c in range(n):
                    if (mask >> c) & 1:
                        a, b = max(a, low[c]), min(b, high[c])
                        plus, minus = plus or sign[c] > 0, minus or sign[c] < 0
                own = BE[j, 0] if not (size.infinity and j == n - 1) else one
                least, most = ratio(own[0], own[1], BE[q, 0, 0], BE[q, 0, 1])  # the rows are stored without these factors
                agree = not (plus and minus) and a * (1 - SLACK) <= b * (1 + SLACK) and may_be_power(min(a, b) * least, max(a, b) * most)
                if agree and _may_share(sums_B[j] & sums_B[q], zeros, mask):
                    if count == len(shares):
                        return -1
                    shares[count, 0], shares[count, 1], shares[count, 2], shares[count, 3] = 0, j, q, mask
                    count += 1
            for k in range(size.r):
                if ratio_G[j, q, k] and (mult_G[j, k] or mult_G[q, k]):
                    if count == len(shares):
                        return -1
                    shares[count, 0], shares[count, 1], shares[count, 2], shares[count, 3] = 1, j, q, 1 << k
                    count += 1
            opposite = AL[j, 0, 1] >= 0 >= AL[q, 0, 0] and X[j, 0] <= X[q, 1] * (1 + SLACK) and X[q, 0] <= X[j, 1] * (1 + SLACK)
            unit = X[j, 0] <= 1 + SLACK and X[j, 1] >= 1 - SLACK
            if opposite and unit and not (size.infinity and j == n - 1):
                if count == len(shares):
                    return -1
                shares[count, 0], shares[count, 1], shares[count, 2], shares[count, 3] = 1, j, q, 5
                count += 1
    return count

"""Predict the errors of sets of points side by side, where errors are small and their distribution does not matter.

The formulas are those of `fastconv.error.predict.compiled.sets`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.error.predict.compiled.trees import (
    CURVE,
    FLAT,
    HERE,
    PLAIN,
    POWER,
    ROUNDED,
    SQUARE,
    correlated_errors,
    equal_entries,
    modulated,
    number_rows,
    shared_errors,
)
from fastconv.native.source import WIDTH, any_of, choose, fused, get, jit, magnitude, number, pattern, put, root, spread

_ZERO = 1e-13
"""Below this share of what was added up, a coefficient is a cancellation to zero."""


@jit
def _fill_matrices(a: Any, m: int, r: int, A: Any, G: Any, B: Any, weight: Any, q: Any, s: Any) -> Any:
    """Fill AT, G and BT; `weight` gets the rows of G without their common denominator. Return where points are apart."""
    k, n = len(a), m + r - 1
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
def _to_bits(X: Any, change: Any, bits: int) -> None:
    """Round a matrix to `bits` significant bits, ties to even, and fill what that adds."""
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
def _fill_gram(X: Any, out: Any) -> None:
    """Fill X X'."""
    for i in range(X.shape[0]):
        for j in range(i + 1):
            total = spread(0.0)
            for k in range(X.shape[1]):
                total = fused(get(X, (i, k)), get(X, (j, k)), total)
            put(out, (i, j), total)
            put(out, (j, i), total)


@jit
def _through(A: Any, i: int, form: Any) -> Any:
    """Return ``A_i form A_i'`` of a symmetric form."""
    total = spread(0.0)
    for j in range(A.shape[1]):
        part = spread(0.0)
        for t in range(j):
            part = fused(get(A, (i, t)), get(form, (j, t)), part)
        a = get(A, (i, j))
        total = fused(a, fused(part, 2.0, a * get(form, (j, j))), total)
    return total


@jit
def _before(
    M: Any, tree: Any, dims: int, rounding: float, variance: float, modulations: Any,
    A: Any, A2: Any, own: Any, other: Any, room: Any, passed: Any, after: Any,
) -> None:  # fmt: skip
    """Fill what a transform before the product adds, as `predict._Model.before`, all over the variance across it.

    passed (m): first pass; after (m, m): second pass, in two dimensions.
    """
    form, second, change, pair = room
    nodes, rows, base = tree
    m, n, N = A.shape[0], A.shape[1], M.shape[1]
    scale, steps = rounding * variance, 2 * N - 1
    for j in range(n):
        total = spread(0.0)
        for t in range(steps):
            total = total + get(nodes, (base[j], SQUARE, t))
        put(form, (0, j, j), total * get(other, (j, j)))
        put(form, (1, j, j), 0.0)
        for k in range(j):
            one, two = spread(0.0), spread(0.0)
            alike = equal_entries(M, rows, k, j)
            if any_of(alike != 0):
                shared_errors(M, nodes, base, k, j, alike, change, pair)
                one, two = get(pair, (0,)) * get(other, (j, k)), get(pair, (1,)) * get(other, (j, k))
            put(form, (0, j, k), two)
            put(form, (1, j, k), one)
    for i in range(m):
        put(passed, (i,), _through(A, i, form[0]) * scale)
    if dims == 1:
        return
    for j in range(n):
        if base[j] == j:
            flat = spread(0.0)
            for t in range(n):
                put(second, (t, j), 0.0)
            for k in range(steps):
                s, f = get(nodes, (j, PLAIN, k)), get(nodes, (j, CURVE, k))
                plane = f > 2 * FLAT
                flat = flat + choose(plane, s, 0.0)
                if any_of(~plane):
                    v = get(nodes, (j, POWER, k)) * variance
                    s = choose(plane, 0.0, s)
                    for t in range(n):
                        if base[t] == t:
                            x, g = s, f * get(own, (t, 1))
                            if any_of(g <= FLAT):
                                x = s * modulated(g, v * get(own, (t, 0)), modulations)
                            put(second, (t, j), get(second, (t, j)) + x)
            for t in range(n):
                put(second, (t, j), get(second, (t, j)) + flat)
        for t in range(n):
            put(form, (0, t, j), get(second, (base[t], base[j])) * get(own, (t, 0)) * get(other, (j, j)) * get(other, (t, t)))
    for i in range(m):
        spread_of = spread(0.0)
        for t in range(n):
            spread_of = fused(get(A2, (i, t)), get(other, (t, t)) * get(own, (t, 0)), spread_of)
            reach = spread(0.0)
            for j in range(n):
                reach = fused(get(A2, (i, j)), get(form, (0, j, t)), reach)
            put(change, (t,), pattern(reach))
        for h in range(m):
            total = spread_of * _through(A, h, form[1])
            for t in range(n):
                total = fused(number(get(change, (t,))), get(A2, (h, t)), total)
            put(after, (i, h), total * scale)


@jit
def _inexact_constants(A: Any, G: Any, B: Any, dA: Any, dG: Any, dB: Any, room: Any, of_self: Any, of_exact: Any) -> None:
    """Fill the squared lengths of what inexact constants add to the bilinear maps, and its products with the exact ones."""
    m, n, r = A.shape[0], A.shape[1], G.shape[1]
    for i in range(m):
        square, exact = spread(0.0), spread(0.0)
        for c in range(r):
            for j in range(n):
                a, g = get(A, (i, j)), get(G, (j, c))
                put(room, (0, j), fused(get(dA, (i, j)), g, a * get(dG, (j, c))))
                put(room, (1, j), a * g)
            for t in range(n):
                x, y = spread(0.0), spread(0.0)
                for j in range(n):
                    x = fused(get(room, (0, j)), get(B, (j, t)), x)
                    y = fused(get(room, (1, j)), get(dB, (j, t)), y)
                x = x + y
                square = fused(x, x, square)
                if t == i + c:
                    exact = exact + x
        put(of_self, (i,), square)
        put(of_exact, (i,), exact)


@jit
def predict_lanes(
    points: Any, m: int, r: int, dims: int, channels: int, units: Any, bits: Any, moments: Any,
    sums: Any, line: Any, modulations: Any, leaf_w: Any, leaf_x: Any, mean: Any, rms: Any,
) -> None:  # fmt: skip
    """Fill `mean` and `rms` for each row of points; see `predict_bulk.predict_errors`."""
    n, finite = m + r - 1, points.shape[1]
    a, q, s = np.empty((finite, WIDTH)), np.empty((n + 1, WIDTH)), np.empty((n + 1, WIDTH))
    A, G, B, weight = np.empty((m, n, WIDTH)), np.empty((n, r, WIDTH)), np.empty((n, n, WIDTH)), np.empty((n, r, WIDTH))
    dA, dG, dB, A2 = np.empty((m, n, WIDTH)), np.empty((n, r, WIDTH)), np.empty((n, n, WIDTH)), np.empty((m, n, WIDTH))
    GG, BB, H = np.empty((n, n, WIDTH)), np.empty((n, n, WIDTH)), np.empty((n, n, WIDTH))
    own_k, own_i = np.empty((n, 2, WIDTH)), np.empty((n, 2, WIDTH))
    heap, counts = np.empty((4, n, WIDTH)), np.empty((1, WIDTH), np.int64)
    nodes, rows, base = np.empty((n, 6, 2 * n, WIDTH)), np.empty((2, n, WIDTH)), np.empty(n, np.int64)
    change = np.empty((n, WIDTH), np.int64)
    forms = (np.empty((2, n, n, WIDTH)), np.empty((n, n, WIDTH)), change, np.empty((2, WIDTH)))
    pass_k, pass_i, after_k, after_i = np.empty((m, WIDTH)), np.empty((m, WIDTH)), np.empty((m, m, WIDTH)), np.empty((m, m, WIDTH))
    K, rest = np.empty((n, n, WIDTH)), np.empty((2, n, WIDTH))
    of_output, of_self, of_exact, level = np.empty((m, WIDTH)), np.empty((m, WIDTH)), np.empty((m, WIDTH)), np.empty((m, WIDTH))
    kept, result = np.empty((3, m, WIDTH)), np.empty((2, WIDTH))
    vw, vx, kurtosis_w, kurtosis_x = moments
    scale = channels * vw * vx
    for begin in range(0, len(points), WIDTH):
        for k in range(WIDTH):
            for j in range(finite):
                a[j, k] = points[min(begin + k, len(points) - 1), j]
        apart = _fill_matrices(a, m, r, A, G, B, weight, q, s)
        _to_bits(A, dA, bits[0])
        _to_bits(G, dG, bits[1])
        _to_bits(B, dB, bits[2])
        _fill_gram(G, GG)
        _fill_gram(B, BB)
        for i in range(n):
            for j in range(n):
                put(H, (i, j), get(GG, (i, j)) * get(BB, (i, j)))
                if i < m:
                    put(A2, (i, j), get(A, (i, j)) * get(A, (i, j)))
        _own(G, own_k)
        _own(B, own_i)
        for i in range(m):
            for k in range(3):
                put(kept, (k, i), 0.0)
        number_rows(G, weight, vw, kurtosis_w, line, modulations, leaf_w, heap, counts, nodes, rows, base)
        _before(G, (nodes, rows, base), dims, units[0], vw, modulations, A, A2, own_k, BB, forms, pass_k, after_k)
        _keep(A2, H, rows, kept, 1)
        number_rows(B, B, vx, kurtosis_x, line, modulations, leaf_x, heap, counts, nodes, rows, base)
        _before(B, (nodes, rows, base), dims, units[1], vx, modulations, A, A2, own_i, GG, forms, pass_i, after_i)
        _keep(A2, H, rows, kept, 2)
        correlated_errors(A, H, sums, heap, counts, K, rest[0], of_output)
        _inexact_constants(A, G, B, dA, dG, dB, rest, of_self, of_exact)
        for i in range(m):
            total = spread(0.0)
            for j in range(n):
                total = fused(get(A2, (i, j)), get(H, (j, j)), total)
            put(kept, (0, i), total)
            put(level, (i,), _through(A, i, H) if dims == 2 else spread(1.0))
        squares = roots = spread(0.0)
        every = units[3] + units[4] + units[5] + units[6]
        for i in range(m):
            c, x, of_i = get(of_self, (i,)), get(of_exact, (i,)), get(kept, (0, i))
            before = get(pass_k, (i,)) * (channels * vx) + get(pass_i, (i,)) * (channels * vw)
            if dims == 1:
                stored = of_i * every - get(kept, (1, i)) * units[3] - get(kept, (2, i)) * units[4]
                square = before + (get(of_output, (i,)) * units[2] + c + stored) * scale
                squares, roots = squares + square, roots + root(square)
                continue
            for h in range(m):
                d, y, of_h = get(of_self, (h,)), get(of_exact, (h,)), get(kept, (0, h))
                stored = of_i * of_h * every - get(kept, (1, i)) * get(kept, (1, h)) * units[3]
                stored = stored - get(kept, (2, i)) * get(kept, (2, h)) * units[4]
                output = get(of_output, (i,)) * of_h + get(of_output, (h,)) * get(level, (i,))
                constants = (c + d) * (1.0 * r) + c * d + (x * y + x * d + c * y) * 2.0
                square = before * get(level, (h,)) + (stored + output * units[2] + constants) * scale
                square = square + get(after_k, (i, h)) * (channels * vx) + get(after_i, (i, h)) * (channels * vw)
                squares, roots = squares + square, roots + root(square)
        outputs = 1.0 * m**dims
        put(result, (0,), choose(apart, roots * (np.sqrt(2.0 / np.pi) / outputs), np.inf))
        put(result, (1,), choose(apart, root(squares * (1.0 / outputs)), np.inf))
        for k in range(min(WIDTH, len(points) - begin)):
            mean[begin + k], rms[begin + k] = result[0, k], result[1, k]


@jit
def _own(X: Any, out: Any) -> None:
    """Fill the squared lengths of rows, and their kurtosis as sums of equal variables."""
    for i in range(X.shape[0]):
        square, fourth = spread(0.0), spread(0.0)
        for j in range(X.shape[1]):
            v = get(X, (i, j)) * get(X, (i, j))
            square, fourth = square + v, fused(v, v, fourth)
        put(out, (i, 0), square)
        put(out, (i, 1), fourth / (square * square))


@jit
def _keep(A2: Any, H: Any, rows: Any, kept: Any, side: int) -> None:
    """Fill what of the products at each output stems from rows that are plain inputs, which storing does not round."""
    for j in range(A2.shape[1]):
        here = pattern(get(rows, (HERE, j)))
        bare = ((here & (here - 1)) | pattern(get(rows, (ROUNDED, j)))) == 0
        if any_of(bare):
            for i in range(A2.shape[0]):
                x = fused(get(A2, (i, j)), get(H, (j, j)), get(kept, (side, i)))
                put(kept, (side, i), choose(bare, x, get(kept, (side, i))))

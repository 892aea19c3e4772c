"""Huffman programs of matrix rows, and what their roundings err, for several candidates side by side.

Within a program all coefficients are powers of two, so that a sum of some columns of a row errs by its share of the
variance of that row: a node of the program is the set of its columns, a whole number with a bit for each. Two rows share
a node where they sum the same columns in the same order, and their entries differ by one power of two and sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.native.source import (
    WIDTH,
    any_of,
    as_real,
    choose,
    fused,
    get,
    inlined,
    jit,
    magnitude,
    number,
    pattern,
    put,
    root,
    spread,
    take,
    whole_part,
)

Array = npt.NDArray[Any]

_TIE = 1 - 1e-12
"""Weights closer than this are equal: they would be in exact arithmetic."""

MANTISSA = (1 << 52) - 1
ONE = 1023 << 52
FLAT = -0.1
"""Above this kurtosis the modulation is below a fifth of a per cent, of a variance."""

WEIGHT, COLUMNS, SPREAD, HOLE = range(4)
"""What the heap holds of an item: its weight, columns, a measure of its size; and whether the item to be put goes there."""

POWER, PLAIN, SQUARE, CURVE, OF, CHILD = range(6)
"""What is known of a node, in shares of the inputs' variance and of one rounding: the variance, the mean square error
without and with the modulation; its kurtosis; its columns, and those of one of its operands."""

HERE, ROUNDED = range(2)
"""What is known of a row: the columns that are not zero, and those whose products are rounded."""


def paired(low: Array, slope: Array) -> Array:
    """Return numbers of half the bits two by two in one float64, for a table that is looked up in one go."""
    halves = [(np.ascontiguousarray(x, np.float64).view(np.int64) + (1 << 31)) >> 32 for x in (low, slope)]
    return np.asarray((halves[0] << 32 | (halves[1] & 0xFFFFFFFF)).view(np.float64))


def line_of(table: Array) -> Array:
    """Return the cells of a table of one argument: values and slopes."""
    return paired(table[:-1], np.diff(table))


def plane_of(table: Array) -> Array:
    """Return the cells of a table of two arguments: values and slopes along the second, and what the first adds to both."""
    low, along = table[:, :-1], np.diff(table, axis=1)
    return np.stack([paired(low[:-1], along[:-1]), paired(np.diff(low, axis=0), np.diff(along, axis=0))], axis=-1)


@inlined
def _cell(x: Any, cells: int) -> Any:
    """Return which cell x is in."""
    x = choose(x > 0.0, x, 0.0)
    return as_real(whole_part(choose(x < cells - 1.0, x, cells - 1.0)))


@inlined
def _along(words: Any, x: Any) -> Any:
    return fused(number(pattern(words) << 32), x, words)


@inlined
def _on_line(x: Any, cells: Any) -> Any:
    """Interpolate in the cells of `line_of`."""
    i = _cell(x, len(cells))
    return _along(take(cells, 0, whole_part(i)), x - i)


@inlined
def _on_plane(x: Any, y: Any, cells: Any) -> Any:
    """Interpolate in the cells of `plane_of`."""
    i, j, flat = _cell(x, cells.shape[0]), _cell(y, cells.shape[1]), cells.reshape(-1)
    k = whole_part(fused(i, 2.0 * cells.shape[1], j + j))
    return fused(_along(take(flat, 1, k), y - j), x - i, _along(take(flat, 0, k), y - j))


@inlined
def _turn(variance: Any, cells: int) -> Any:
    """Return where a variance is between powers of four, from 1 to 4, in cells of the table of the modulation."""
    bits = pattern(variance)
    f = number((bits & MANTISSA) | ONE)
    return (choose(((bits >> 52) & 1) == 0, f + f, f) - 1.0) * (cells / 3.0)


@inlined
def modulated(kurtosis: Any, variance: Any, cells: Any) -> Any:
    """Look up `predict_rounding.modulation`."""
    x = (kurtosis * (1 / 1.2) + 1.0) * (1.0 * cells.shape[0])
    return choose(kurtosis <= FLAT, _on_plane(x, _turn(variance, cells.shape[1]), cells), 1.0)


@jit
def _product_factor(mantissa: Any) -> Any:
    """Return `predict_rounding.product_factor` of a constant; zero for a power of two, whose products are exact."""
    few = (mantissa & ((1 << 45) - 1)) == 0
    factor = spread(1.0)
    if any_of(few):
        last = mantissa & (spread(0) - mantissa)  # 2**(52 - d) for d bits; as a float by way of the exponent of 2**52
        share = (number(last | (1075 << 52)) - 2.0**52) * 2.0**-52
        share, f = share * share, number(mantissa | ONE)
        f = f * f
        low, high = share * 2.0 + 1.0, share * 0.5 + 1.0
        factor = choose(few, ((1.0 - f * 0.25) * low + (f - 1.0) * high) / (f * 0.75), factor)
    return choose(mantissa == 0, 0.0, factor)


@jit
def _sink(heap: Any, live: Any, size: int, start: int, w: Any, b: Any, v: Any) -> None:
    """Put an item at `start` and sink it along the lighter children, in live lanes: what `heapq` comes to."""
    inner = size // 2
    if start >= inner:
        put(heap, (WEIGHT, start), choose(live, w, get(heap, (WEIGHT, start))))
        put(heap, (COLUMNS, start), choose(live, b, get(heap, (COLUMNS, start))))
        put(heap, (SPREAD, start), choose(live, v, get(heap, (SPREAD, start))))
        return
    put(heap, (HOLE, start), number(live))
    low = high = start
    while low < inner:
        for p in range(low, min(high + 1, inner)):
            c = 2 * p + 1
            here, left = pattern(get(heap, (HOLE, p))), spread(-1)
            wc, bc, vc = get(heap, (WEIGHT, c)), get(heap, (COLUMNS, c)), get(heap, (SPREAD, c))
            if c + 1 < size:
                other = get(heap, (WEIGHT, c + 1))
                left = wc < other * _TIE
                wc = choose(left, wc, other)
                bc = choose(left, bc, get(heap, (COLUMNS, c + 1)))
                vc = choose(left, vc, get(heap, (SPREAD, c + 1)))
            go = here & ~(w < wc * _TIE)
            put(heap, (WEIGHT, p), choose(go, wc, choose(here, w, get(heap, (WEIGHT, p)))))
            put(heap, (COLUMNS, p), choose(go, bc, choose(here, b, get(heap, (COLUMNS, p)))))
            put(heap, (SPREAD, p), choose(go, vc, choose(here, v, get(heap, (SPREAD, p)))))
            for child in range(c, min(c + 2, size)):
                there = go & (left if child == c else ~left)
                if child < inner:
                    put(heap, (HOLE, child), number(there))
                else:
                    put(heap, (WEIGHT, child), choose(there, w, get(heap, (WEIGHT, child))))
                    put(heap, (COLUMNS, child), choose(there, b, get(heap, (COLUMNS, child))))
                    put(heap, (SPREAD, child), choose(there, v, get(heap, (SPREAD, child))))
        low, high = 2 * low + 1, 2 * high + 2


@jit
def _drop(heap: Any, live: Any, size: int) -> None:
    """Put the last of `size` items in the place of the lightest."""
    last = size - 1
    if last:
        _sink(heap, live, last, 0, get(heap, (WEIGHT, last)), get(heap, (COLUMNS, last)), get(heap, (SPREAD, last)))


@jit
def _lift(heap: Any, live: Any, place: int, w: Any, b: Any, v: Any) -> None:
    """Put an item at the end of the heap and lift it."""
    here = live
    while place > 0:
        parent = (place - 1) >> 1
        above = get(heap, (WEIGHT, parent))
        go = here & (w < above * _TIE)
        put(heap, (WEIGHT, place), choose(go, above, choose(here, w, get(heap, (WEIGHT, place)))))
        put(heap, (COLUMNS, place), choose(go, get(heap, (COLUMNS, parent)), choose(here, b, get(heap, (COLUMNS, place)))))
        put(heap, (SPREAD, place), choose(go, get(heap, (SPREAD, parent)), choose(here, v, get(heap, (SPREAD, place)))))
        here, place = go, parent
        if not any_of(here):
            return
    put(heap, (WEIGHT, 0), choose(here, w, get(heap, (WEIGHT, 0))))
    put(heap, (COLUMNS, 0), choose(here, b, get(heap, (COLUMNS, 0))))
    put(heap, (SPREAD, 0), choose(here, v, get(heap, (SPREAD, 0))))


@jit
def _heapify(weights: Any, i: int, sizes: Any, here: Any, counts: Any, heap: Any) -> int:
    """Fill the heap with the entries of a row that are not zero, and how many there are; return the largest number."""
    N = weights.shape[1]
    put(counts, (0,), here)
    first, alike, most = counts[0, 0], True, 0
    for k in range(1, WIDTH):
        alike = alike and counts[0, k] == first
    if alike:
        for j in range(N):
            if (first >> j) & 1:
                put(heap, (WEIGHT, most), magnitude(get(weights, (i, j))))
                put(heap, (COLUMNS, most), number(spread(1 << j)))
                put(heap, (SPREAD, most), get(sizes, (j,)))
                most += 1
        put(counts, (0,), most)
    else:
        bits = heap.view(np.int64)
        for t in range(N):
            put(heap, (WEIGHT, t), np.inf)  # candidates with fewer entries join when others have as few
        for k in range(WIDTH):
            size = 0
            for j in range(N):
                if (counts[0, k] >> j) & 1:
                    heap[WEIGHT, size, k], heap[SPREAD, size, k] = abs(weights[i, j, k]), sizes[j, k]
                    bits[COLUMNS, size, k] = 1 << j
                    size += 1
            counts[0, k], most = size, max(most, size)
    for start in range(most // 2 - 1, -1, -1):
        _sink(heap, spread(-1), most, start, get(heap, (WEIGHT, start)), get(heap, (COLUMNS, start)), get(heap, (SPREAD, start)))
    return most


@jit
def _alike(M: Any, weights: Any, i: int, k: int) -> bool:
    """Whether rows i and k are equal but for signs, for all candidates."""
    for j in range(M.shape[1]):
        same = (magnitude(get(M, (i, j))) == magnitude(get(M, (k, j)))) & (
            magnitude(get(weights, (i, j))) == magnitude(get(weights, (k, j)))
        )
        if any_of(~same):
            return False
    return True


@jit
def number_rows(
    M: Any, weights: Any, variance: float, kurtosis: float, line: Any, modulations: Any, of_leaf: Any,
    heap: Any, counts: Any, nodes: Any, rows: Any, base: Any,
) -> None:  # fmt: skip
    """Fill the roundings of ``M x`` for uncorrelated inputs of one variance and kurtosis.

    `base` is the first row that is equal but for signs: nodes are those of that row, products first, then sums.
    """
    N = M.shape[1]
    curved = kurtosis <= FLAT
    for i in range(M.shape[0]):
        base[i] = i
        for k in range(i):
            if base[i] == i and base[k] == k and _alike(M, weights, i, k):
                base[i] = k
        k = base[i]
        if k < i:
            put(rows, (HERE, i), get(rows, (HERE, k)))
            put(rows, (ROUNDED, i), get(rows, (ROUNDED, k)))
            continue
        here, rounded = spread(0), spread(0)
        for j in range(N):
            e = get(M, (i, j))
            v, mantissa, bit = e * e, pattern(e) & MANTISSA, 1 << j
            here = here | (~(e == 0.0)) & bit
            rounded = rounded | (mantissa != 0) & bit
            s = v * _product_factor(mantissa)
            put(nodes, (i, OF, j), number(spread(bit)))
            put(nodes, (i, POWER, j), v)
            put(nodes, (i, PLAIN, j), s)
            put(nodes, (i, CURVE, j), kurtosis)
            if curved:
                s = s * _on_line(_turn(v * variance, len(of_leaf)), of_leaf)
            put(nodes, (i, SQUARE, j), s)
        put(rows, (HERE, i), number(here))
        put(rows, (ROUNDED, i), number(rounded))
        size = _heapify(weights, i, nodes[i, POWER], here, counts, heap)
        for t in range(2 * N - 2, N + size - 2, -1):
            put(nodes, (i, OF, t), 0.0)
            put(nodes, (i, PLAIN, t), 0.0)
            put(nodes, (i, SQUARE, t), 0.0)
            put(nodes, (i, POWER, t), 1.0)
            put(nodes, (i, CURVE, t), 0.0)
        for t in range(N, N + size - 1):
            live = get(counts, (0,)) >= size
            w, b, va = get(heap, (WEIGHT, 0)), pattern(get(heap, (COLUMNS, 0))), get(heap, (SPREAD, 0))
            _drop(heap, live, size)
            size -= 1
            w, both, vb = w + get(heap, (WEIGHT, 0)), b | pattern(get(heap, (COLUMNS, 0))), get(heap, (SPREAD, 0))
            _drop(heap, live, size)
            v = va + vb
            _lift(heap, live, size - 1, w, number(both), v)
            one = 1.0 / v
            s = v * _on_line(va * one * (1.0 * len(line)), line)
            put(nodes, (i, OF, t), number(both & live))
            put(nodes, (i, CHILD, t), number(b))
            put(nodes, (i, POWER, t), choose(live, v, 1.0))
            put(nodes, (i, PLAIN, t), choose(live, s, 0.0))
            put(nodes, (i, CURVE, t), 0.0)
            if curved:
                fourth = spread(0.0)
                for j in range(N):
                    x = get(nodes, (i, POWER, j))
                    fourth = fused(choose((both & (1 << j)) == 0, 0.0, x), x, fourth)
                f = fourth * one * one * kurtosis
                put(nodes, (i, CURVE, t), choose(live, f, 0.0))
                s = s * modulated(f, v * variance, modulations)
            put(nodes, (i, SQUARE, t), choose(live, s, 0.0))


@jit
def equal_entries(M: Any, rows: Any, i: int, k: int) -> Any:
    """Return the columns where two rows differ by powers of two, of candidates whose rows may share a node."""
    alike = spread(0)
    for j in range(M.shape[1]):
        alike = alike | ((((pattern(get(M, (i, j))) ^ pattern(get(M, (k, j)))) & MANTISSA) == 0) & (1 << j))
    alike = alike & pattern(get(rows, (HERE, i))) & pattern(get(rows, (HERE, k)))
    return alike & (((alike & pattern(get(rows, (ROUNDED, i)))) | (alike & (alike - 1))) != 0)


@jit
def shared_errors(M: Any, nodes: Any, base: Any, i: int, k: int, alike: Any, change: Any, out: Any) -> None:
    """Fill the covariance of the errors of two rows, without and with the modulation."""
    N, a, b = M.shape[1], base[i], base[k]
    of_plain, of_square, apart = spread(0.0), spread(0.0), ~alike
    for j in range(N):
        d = pattern(get(M, (k, j))) - pattern(get(M, (i, j)))
        put(change, (j,), d)
        ratio = choose((alike & (1 << j)) == 0, 0.0, number(d + ONE))
        of_plain = fused(ratio, get(nodes, (a, PLAIN, j)), of_plain)
        of_square = fused(ratio, get(nodes, (a, SQUARE, j)), of_square)
    for t in range(N, 2 * N - 1):
        of = pattern(get(nodes, (a, OF, t)))
        ok = ((of & apart) == 0) & (of != 0)
        if any_of(ok):
            union, common = spread(0), spread(-1)
            for j in range(N):
                within, d = (of & (1 << j)) != 0, get(change, (j,))
                union = union | (d & within)
                common = common & (d | ~within)
            ok = ok & (union == common)
            if a != b:
                same, operand = spread(0), pattern(get(nodes, (a, CHILD, t)))
                for u in range(N, 2 * N - 1):
                    one = pattern(get(nodes, (b, CHILD, u)))
                    same = same | ((pattern(get(nodes, (b, OF, u))) == of) & ((one == operand) | (one == (of ^ operand))))
                ok = ok & same
            ratio = choose(ok, number(union + ONE), 0.0)
            of_plain = fused(ratio, get(nodes, (a, PLAIN, t)), of_plain)
            of_square = fused(ratio, get(nodes, (a, SQUARE, t)), of_square)
        apart = apart | choose(ok, 0, of)
    put(out, (0,), of_plain)
    put(out, (1,), of_square)


@jit
def correlated_errors(A: Any, H: Any, sums: Any, heap: Any, counts: Any, K: Any, room: Any, out: Any) -> None:
    """Fill the mean squares of the roundings of each row of ``A z``, in those of one rounding; H is the covariance of z."""
    m, n = A.shape[0], A.shape[1]
    tall, wide = 1.0 * sums.shape[0], 1.0 * sums.shape[1]
    for i in range(m):
        here, total = spread(0), spread(0.0)
        for j in range(n):
            e = get(A, (i, j))
            here = here | ((~(e == 0.0)) & (1 << j))
            twice = e + e
            for t in range(j):
                put(K, (j, t), twice * get(A, (i, t)) * get(H, (j, t)))
            v = e * e * get(H, (j, j))
            put(K, (j, j), v)
            put(room, (j,), root(v))
            total = fused(v, _product_factor(pattern(e) & MANTISSA), total)
        size = _heapify(A, i, room, here, counts, heap)
        while size > 1:
            live = get(counts, (0,)) >= size
            w, both, sa = get(heap, (WEIGHT, 0)), pattern(get(heap, (COLUMNS, 0))), get(heap, (SPREAD, 0))
            _drop(heap, live, size)
            size -= 1
            w, both, sb = w + get(heap, (WEIGHT, 0)), both | pattern(get(heap, (COLUMNS, 0))), get(heap, (SPREAD, 0))
            _drop(heap, live, size)
            v = spread(0.0)
            for j in range(n):
                part, among = get(K, (j, j)), choose((both & (1 << j)) == 0, 0.0, 1.0)
                for t in range(j):
                    part = fused(get(room, (t,)), get(K, (j, t)), part)
                put(room, (j,), among)
                v = fused(among, part, v)
            v = choose(v > 0.0, v, 0.0)
            _lift(heap, live, size - 1, w, number(both), root(v))
            d, ab = sa - sb, sa * sb
            one = 1.0 / ((sa + sb) * ab)
            y = root(choose(v > d * d, (v - d * d) * (sa + sb) * one * 0.25, 0.0)) * wide
            factor = choose(ab > 0.0, _on_plane(sa * ab * one * tall, y, sums), 1.0)
            total = total + choose(live, v * factor, 0.0)
        put(out, (i,), total)

"""Build the Huffman trees of matrix rows, and their rounding errors, for several candidates at a time.

A node of a tree is the set of the columns it sums, an integer with one bit per column. Two rows share a node if
they sum the same columns in the same order, and their entries differ by one power of two and sign.
`fastconv.program` builds the same trees in exact arithmetic; tests/error/test_predict_lanes.py compares them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
"""Weights closer than this count as equal, because they are equal in exact arithmetic."""

MANTISSA = (1 << 52) - 1
ONE = 1023 << 52
FLAT = -0.1
"""Above this kurtosis the modulation is below 0.2 % of a variance."""

WEIGHT, COLUMNS, SPREAD, HOLE = range(4)
"""Fields of a heap item: its weight, its columns, its variance; and whether the new item goes here."""

POWER, PLAIN, SQUARE, CURVE, OF, CHILD = range(6)
"""Fields of a node: variance over that of the inputs; mean square error over that of one rounding, without and with the
modulation; kurtosis; columns; columns of one operand."""

HERE, ROUNDED = range(2)
"""Fields of a row: the columns that are not zero, and those whose products are rounded."""

FIRST, BOTH, OF_FIRST, OF_SECOND, OF_SUM = range(5)
"""Fields of a sum: columns of the first operand and of both, true variances of the operands and of the sum."""


class Heap(NamedTuple):
    """Workspace of a Huffman tree: items (4, n) of the heap, and the number of items of each candidate, (1,)."""

    items: Array
    counts: Array


class Program(NamedTuple):
    """Roundings of a transform of uncorrelated inputs.

    nodes (n, 6, 2 n): products, then sums of each row; rows (2, n); base (n,): the first row that is equal up to signs;
    its nodes apply to this row.
    """

    nodes: Array
    rows: Array
    base: Array


class Trees(NamedTuple):
    """Huffman trees of the rows of a matrix A whose inputs are correlated.

    sums (m, 5, n): the sums of each row; steps (m,): their number; squares (m, n): squared entries; products (m, n): the same,
    times the correction for few bits, zero where the product is exact; exact (m,): true mean squares of these products.
    """

    sums: Array
    steps: Array
    squares: Array
    products: Array
    exact: Array


def paired(low: Array, slope: Array) -> Array:
    """Pack two numbers of half the bits into each float64, so that one lookup reads both."""
    halves = [(np.ascontiguousarray(x, np.float64).view(np.int64) + (1 << 31)) >> 32 for x in (low, slope)]
    return np.asarray((halves[0] << 32 | (halves[1] & 0xFFFFFFFF)).view(np.float64))


def line_of(table: Array) -> Array:
    """Return the cells of a table of one argument: values and slopes."""
    return paired(table[:-1], np.diff(table))


def plane_of(table: Array) -> Array:
    """Return the cells of a table of two arguments: values and slopes along the second, and their slopes along the first."""
    low, along = table[:, :-1], np.diff(table, axis=1)
    return np.stack([paired(low[:-1], along[:-1]), paired(np.diff(low, axis=0), np.diff(along, axis=0))], axis=-1)


@inlined
def _cell(x: Any, cells: int) -> Any:
    """Return the index of the cell that contains x."""
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
    """Return the position of a variance between powers of four, in cells of the modulation table."""
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
        last = mantissa & (spread(0) - mantissa)  # 2**(52 - d) for d bits; converted to float by the exponent of 2**52
        share = (number(last | (1075 << 52)) - 2.0**52) * 2.0**-52
        share, f = share * share, number(mantissa | ONE)
        f = f * f
        low, high = share * 2.0 + 1.0, share * 0.5 + 1.0
        factor = choose(few, ((1.0 - f * 0.25) * low + (f - 1.0) * high) / (f * 0.75), factor)
    return choose(mantissa == 0, 0.0, factor)


@jit
def _sink(heap: Any, live: Any, size: int, start: int, w: Any, b: Any, v: Any) -> None:
    """Put an item at `start` and sink it along the lighter children, in live lanes, as `heapq` does."""
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
    """Replace the lightest of `size` items by the last."""
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
    """Fill the heap with the nonzero entries of a row, and their counts; return the largest count."""
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
            put(heap, (WEIGHT, t), np.inf)  # candidates with fewer entries start later
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
    """Return whether rows i and k are equal up to signs, for all candidates."""
    for j in range(M.shape[1]):
        same = (magnitude(get(M, (i, j))) == magnitude(get(M, (k, j)))) & (
            magnitude(get(weights, (i, j))) == magnitude(get(weights, (k, j)))
        )
        if any_of(~same):
            return False
    return True


@inlined
def _lightest(heap: Any, live: Any, size: int) -> Any:
    """Remove the lightest of `size` items; return its weight, columns and variance."""
    w, columns, v = get(heap, (WEIGHT, 0)), pattern(get(heap, (COLUMNS, 0))), get(heap, (SPREAD, 0))
    _drop(heap, live, size)
    return w, columns, v


@jit
def number_rows(M: Any, weights: Any, moments: Any, tables: Any, heap: Any, program: Any) -> None:
    """Fill the roundings of ``M x``.

    moments: variance and kurtosis of the inputs, which are uncorrelated; tables: sums, modulation, and the modulation of
    products at the inputs' kurtosis.
    """
    base, rows = program.base, program.rows
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
        _number_products(M, i, moments, tables[2], program)
        size = _heapify(weights, i, program.nodes[i, POWER], pattern(get(rows, (HERE, i))), heap.counts, heap.items)
        _number_sums(program.nodes[i], M.shape[1], size, moments, tables, heap)


@jit
def _number_products(M: Any, i: int, moments: Any, of_leaf: Any, program: Any) -> None:
    """Fill the products of a row, and which of its columns are not zero or rounded."""
    nodes, (variance, kurtosis) = program.nodes, moments
    here, rounded = spread(0), spread(0)
    for j in range(M.shape[1]):
        e = get(M, (i, j))
        v, mantissa, bit = e * e, pattern(e) & MANTISSA, 1 << j
        here = here | (~(e == 0.0)) & bit
        rounded = rounded | (mantissa != 0) & bit
        s = v * _product_factor(mantissa)
        put(nodes, (i, OF, j), number(spread(bit)))
        put(nodes, (i, POWER, j), v)
        put(nodes, (i, PLAIN, j), s)
        put(nodes, (i, CURVE, j), kurtosis)
        if kurtosis <= FLAT:
            s = s * _on_line(_turn(v * variance, len(of_leaf)), of_leaf)
        put(nodes, (i, SQUARE, j), s)
    put(program.rows, (HERE, i), number(here))
    put(program.rows, (ROUNDED, i), number(rounded))


@jit
def _number_sums(row: Any, N: int, size: int, moments: Any, tables: Any, heap: Any) -> None:
    """Fill the sums of a row of N columns, whose entries are in the heap."""
    items, counts = heap
    (variance, kurtosis), (line, modulations, _) = moments, tables
    for t in range(2 * N - 2, N + size - 2, -1):
        put(row, (OF, t), 0.0)
        put(row, (PLAIN, t), 0.0)
        put(row, (SQUARE, t), 0.0)
        put(row, (POWER, t), 1.0)
        put(row, (CURVE, t), 0.0)
    for t in range(N, N + size - 1):
        live = get(counts, (0,)) >= size
        first, of, va = _lightest(items, live, size)
        second, other, vb = _lightest(items, live, size - 1)
        size -= 1
        both, v = of | other, va + vb
        _lift(items, live, size - 1, first + second, number(both), v)
        one = 1.0 / v
        s = v * _on_line(va * one * (1.0 * len(line)), line)
        put(row, (OF, t), number(both & live))
        put(row, (CHILD, t), number(of))
        put(row, (POWER, t), choose(live, v, 1.0))
        put(row, (PLAIN, t), choose(live, s, 0.0))
        put(row, (CURVE, t), 0.0)
        if kurtosis <= FLAT:
            fourth = spread(0.0)
            for j in range(N):
                x = get(row, (POWER, j))
                fourth = fused(choose((both & (1 << j)) == 0, 0.0, x), x, fourth)
            f = fourth * one * one * kurtosis
            put(row, (CURVE, t), choose(live, f, 0.0))
            s = s * modulated(f, v * variance, modulations)
        put(row, (SQUARE, t), choose(live, s, 0.0))


@jit
def equal_entries(M: Any, rows: Any, i: int, k: int) -> Any:
    """Return the columns where two rows differ by powers of two, for candidates whose rows may share a node."""
    alike = spread(0)
    for j in range(M.shape[1]):
        alike = alike | ((((pattern(get(M, (i, j))) ^ pattern(get(M, (k, j)))) & MANTISSA) == 0) & (1 << j))
    alike = alike & pattern(get(rows, (HERE, i))) & pattern(get(rows, (HERE, k)))
    return alike & (((alike & pattern(get(rows, (ROUNDED, i)))) | (alike & (alike - 1))) != 0)


@jit
def shared_errors(M: Any, program: Any, i: int, k: int, alike: Any, change: Any) -> Any:
    """Return the covariance of the errors of two rows, without and with the modulation."""
    nodes, N, a, b = program.nodes, M.shape[1], program.base[i], program.base[k]
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
    return of_plain, of_square


@jit
def grow_trees(A: Any, H: Any, heap: Any, room: Any, trees: Any) -> None:
    """Fill the trees of the rows of ``A z``, except their squares; H is the covariance of z; room is (n, n) and (n,)."""
    items, counts = heap
    K, among = room
    sums, steps, squares, products, of_products = trees
    n = A.shape[1]
    for i in range(A.shape[0]):
        here, exact = spread(0), spread(0.0)
        for j in range(n):
            e = get(A, (i, j))
            here = here | ((~(e == 0.0)) & (1 << j))
            square, twice = get(squares, (i, j)), e + e
            for t in range(j):
                put(K, (j, t), twice * get(A, (i, t)) * get(H, (j, t)))
            v = square * get(H, (j, j))
            put(K, (j, j), v)
            put(among, (j,), v)
            rounded = square * _product_factor(pattern(e) & MANTISSA)
            put(products, (i, j), rounded)
            exact = fused(rounded, get(H, (j, j)), exact)
        put(of_products, (i,), exact)
        size = _heapify(A, i, among, here, counts, items)
        steps[i] = size - 1
        for k in range(size - 1):
            live = get(counts, (0,)) >= size
            first, of, va = _lightest(items, live, size)
            second, other, vb = _lightest(items, live, size - 1)
            size -= 1
            both = of | other
            v = _variance_of(both, K, among)
            _lift(items, live, size - 1, first + second, number(both), v)
            put(sums, (i, FIRST, k), number(of & live))
            put(sums, (i, BOTH, k), number(both & live))
            put(sums, (i, OF_FIRST, k), choose(live, va, 0.0))
            put(sums, (i, OF_SECOND, k), choose(live, vb, 0.0))
            put(sums, (i, OF_SUM, k), choose(live, v, 0.0))


@inlined
def _variance_of(columns: Any, K: Any, among: Any) -> Any:
    """Return the variance of a sum of columns; the lower half of K holds their covariance, doubled off the diagonal."""
    v = spread(0.0)
    for j in range(len(K)):
        part, here = get(K, (j, j)), choose((columns & (1 << j)) == 0, 0.0, 1.0)
        for t in range(j):
            part = fused(get(among, (t,)), get(K, (j, t)), part)
        put(among, (j,), here)
        v = fused(here, part, v)
    return choose(v > 0.0, v, 0.0)


@jit
def correlated_errors(trees: Any, level: Any, errors: Any, table: Any, out: Any) -> None:
    """Fill the mean square error of each row, over that of one rounding.

    A rounded value has `level` times its true variance, plus the variances of the inputs' `errors` (n,). Without errors,
    pass an array of length 0.
    """
    sums, steps, squares, products, exact = trees
    tall, wide = 1.0 * table.shape[0], 1.0 * table.shape[1]
    for i in range(len(out)):
        total = level * get(exact, (i,))
        for j in range(len(errors)):
            total = fused(get(products, (i, j)), get(errors, (j,)), total)
        for k in range(steps[i]):
            va, vb = level * get(sums, (i, OF_FIRST, k)), level * get(sums, (i, OF_SECOND, k))
            v = level * get(sums, (i, OF_SUM, k))
            of, both = pattern(get(sums, (i, FIRST, k))), pattern(get(sums, (i, BOTH, k)))
            for j in range(len(errors)):
                e = get(squares, (i, j)) * get(errors, (j,))
                first = choose((of & (1 << j)) == 0, 0.0, e)
                among = choose((both & (1 << j)) == 0, 0.0, e)
                va, vb, v = va + first, vb + (among - first), v + among
            s = root(va * vb)  # the correlation of the operands is (v - va - vb) / (2 s)
            one = 1.0 / (s * (va + s))
            y = fused((v - va - vb) * (va + s), one * 0.25, 0.5)
            factor = _on_plane(va * s * one * tall, root(choose(y > 0.0, y, 0.0)) * wide, table)
            total = fused(v, choose(s > 0.0, factor, 1.0), total)
        put(out, (i,), total)

"""Predict the errors of several point sets at a time, one per SIMD lane.

The formulas are those of `fastconv.error.predict.variances`. All variances are relative to that of a channel sum whose
row of G and row of BT have length one: channels times the variances of the weights and of the inputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastconv.error.predict.compiled.matrices import fill_gram, fill_lengths, fill_matrices, through, to_bits
from fastconv.error.predict.compiled.trees import (
    CURVE,
    FLAT,
    HERE,
    PLAIN,
    POWER,
    ROUNDED,
    SQUARE,
    Heap,
    Program,
    Trees,
    correlated_errors,
    equal_entries,
    grow_trees,
    modulated,
    number_rows,
    shared_errors,
)
from fastconv.native.source import WIDTH, any_of, choose, fused, get, jit, pattern, put, root, spread

Array = npt.NDArray[Any]


SELF, EXACT, SIZE, BARE_W, BARE_X, LEVEL, ROUNDINGS = range(7)
"""Fields of an output along one axis: squared length of the change of its bilinear map by inexact constants, product of that
with the exact map; variance of its products as if uncorrelated, and the parts of it in rows of G and of BT that are plain
inputs; its variance; mean square of its roundings."""


class Case(NamedTuple):
    """Settings that all sets share.

    `coarse`: the output transform's roundings depend on the errors so far. `units`: mean squares of roundings over those of
    the values, in G w, BT x and AT z, of storing G w and BT x, of products, of channel sums. `bits`: those of the entries of
    AT, G and BT. `moments`: variances of weights and inputs, then their kurtoses.
    """

    m: int
    r: int
    dims: int
    channels: int
    coarse: bool
    units: Array
    bits: Array
    moments: Array


class Tables(NamedTuple):
    """Cells of `line_of` and `plane_of`: sums, sums of uncorrelated operands, modulation, the same at the kurtoses of w and x."""

    sums: Array
    line: Array
    modulations: Array
    leaf_w: Array
    leaf_x: Array


class _Matrices(NamedTuple):
    """AT, G, BT, G without its denominators; their rounding errors; squares of AT, Gram matrices, their product."""

    A: Array
    G: Array
    B: Array
    weight: Array
    dA: Array
    dG: Array
    dB: Array
    A2: Array
    GG: Array
    BB: Array
    H: Array


class _Side(NamedTuple):
    """A transform before the product.

    Its matrix, the weights of its sums, its rows (`own`), the Gram matrix across the product, and which rows are plain inputs;
    unit; variance and kurtosis of its inputs.
    """

    M: Array
    weights: Array
    own: Array
    other: Array
    bare: Array
    unit: float
    variance: float
    kurtosis: float


class _Errors(NamedTuple):
    """Error variances so far.

    first (m,): of the first passes at each output along the first axis; second (m, m): of second passes at each output;
    products (n, n), the index of the second axis first: of all at each product; bare (2, n): one for rows of G and of BT that are
    plain inputs, which storing does not round; output (m, m): of the output transform.
    """

    first: Array
    second: Array
    products: Array
    bare: Array
    output: Array


class _Room(NamedTuple):
    """Workspace."""

    own: Array
    polynomials: tuple[Array, Array]
    forms: Array
    square: Array
    change: Array
    rows: Array
    passed: Array
    outputs: Array


@jit
def _first_pass(side: Any, program: Any, A: Any, across: bool, room: Any, errors: Any) -> None:
    """Add the errors of a transform's first pass at each output, and at each product unless a second pass follows.

    room.forms becomes the covariance of the errors of two rows times that of the values across the product, with and
    without the modulation; the second has no diagonal.
    """
    M, other, unit = side.M, side.other, side.unit
    (nodes, rows, base), form, change = program, room.forms, room.change
    whole, first, products, steps = form[0], errors.first, errors.products, 2 * M.shape[1] - 1
    for j in range(A.shape[1]):
        total = spread(0.0)
        for t in range(steps):
            total = total + get(nodes, (base[j], SQUARE, t))
        total = total * get(other, (j, j))
        put(form, (0, j, j), total)
        put(form, (1, j, j), 0.0)
        if not across:
            put(products, (0, j), fused(total, unit, get(products, (0, j))))
        for k in range(j):
            plain, square = spread(0.0), spread(0.0)
            alike = equal_entries(M, rows, k, j)
            if any_of(alike != 0):
                plain, square = shared_errors(M, program, k, j, alike, change)
                plain, square = plain * get(other, (j, k)), square * get(other, (j, k))
            put(form, (0, j, k), square)
            put(form, (1, j, k), plain)
    for i in range(A.shape[0]):
        put(first, (i,), fused(through(A, i, whole), unit, get(first, (i,))))


@jit
def _second_rows(side: Any, program: Any, modulations: Any, room: Any) -> None:
    """Fill room.square (t, j): mean squares of row j in the second pass of a transform, over the variance of row t."""
    M, own, variance = side.M, side.own, side.variance
    (nodes, _, base), second, n = program, room.square, len(own)
    for j in range(n):
        if base[j] != j:
            continue
        flat = spread(0.0)
        for t in range(n):
            put(second, (t, j), 0.0)
        for k in range(2 * M.shape[1] - 1):
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


@jit
def _second_pass(side: Any, base: Any, matrices: Any, room: Any, errors: Any) -> None:
    """Add the errors of a transform's second pass at each output, and of both passes at each product."""
    own, other, unit = side.own, side.other, side.unit
    A, A2, form, square, reached = matrices.A, matrices.A2, room.forms, room.square, room.rows
    _, second, products, _, _ = errors
    plain = form[1]
    m, n = A2.shape[:2]
    for j in range(n):
        of_first = get(form, (0, j, j))
        length = get(own, (j, 0)) * get(other, (j, j))
        for t in range(n):
            of_second = get(square, (base[j], base[t])) * length * get(other, (t, t))
            both = fused(of_first, get(own, (t, 0)) * get(other, (t, t)), of_second)
            put(form, (0, j, t), of_second)
            put(products, (t, j), fused(both, unit, get(products, (t, j))))
    for i in range(m):
        across = spread(0.0)
        for t in range(n):
            across = fused(get(A2, (i, t)), get(other, (t, t)) * get(own, (t, 0)), across)
            reach = spread(0.0)
            for j in range(n):
                reach = fused(get(A2, (i, j)), get(form, (0, j, t)), reach)
            put(reached, (0, t), reach)
        for h in range(m):
            total = across * through(A, h, plain)
            for t in range(n):
                total = fused(get(reached, (0, t)), get(A2, (h, t)), total)
            put(second, (i, h), fused(total, unit, get(second, (i, h))))


@jit
def _before_product(side: Any, tables: Any, across: bool, programs: Any, matrices: Any, room: Any, errors: Any) -> None:
    """Add the errors of a transform before the product; `across`, of both its passes."""
    heap, program = programs
    number_rows(side.M, side.weights, (side.variance, side.kurtosis), tables, heap, program)
    _bare_rows(program.rows, side.bare)
    fill_lengths(side.M, side.own)
    _first_pass(side, program, matrices.A, across, room, errors)
    if across:
        _second_rows(side, program, tables[1], room)
        _second_pass(side, program.base, matrices, room, errors)


@jit
def _bare_rows(rows: Any, bare: Any) -> None:
    """Fill one for rows that are plain inputs, zero for others."""
    for j in range(len(bare)):
        here = pattern(get(rows, (HERE, j)))
        more = (here & (here - 1)) | pattern(get(rows, (ROUNDED, j)))
        put(bare, (j,), choose(more == 0, 1.0, 0.0))


@jit
def _late_errors(case: Any, H: Any, errors: Any) -> None:
    """Add the errors of storing transformed values, of products and of channel sums, at each product."""
    (_, _, products, bare, _), units, n = errors, case.units, len(H)
    every = units[3] + units[4] + units[5] + units[6]
    for t in range(n if case.dims == 2 else 1):
        for j in range(n):
            w, x, size = get(bare, (0, j)), get(bare, (1, j)), get(H, (j, j))
            if case.dims == 2:
                w, x, size = w * get(bare, (0, t)), x * get(bare, (1, t)), size * get(H, (t, t))
            square = (every - w * units[3] - x * units[4]) * size
            put(products, (t, j), get(products, (t, j)) + square)


@jit
def _output_errors(case: Any, trees: Any, table: Any, of: Any, output: Any) -> None:
    """Fill the errors of the output transform if earlier errors are small compared with its values."""
    correlated_errors(trees, spread(1.0), of[0, :0], table, of[ROUNDINGS])
    for i in range(case.m):
        one = get(of, (ROUNDINGS, i)) * case.units[2]
        put(output, (i, 0), one)
        if case.dims == 2:
            level = get(of, (LEVEL, i)) * case.units[2]
            for h in range(case.m):
                put(output, (i, h), fused(one, get(of, (SIZE, h)), get(of, (ROUNDINGS, h)) * level))


@jit
def _coarse_output_errors(case: Any, matrices: Any, trees: Any, table: Any, room: Any, errors: Any) -> None:
    """Fill the errors of the output transform; earlier errors add to the variance of its values."""
    _, A2, H = matrices
    (m, n), unit, (passed, along, of) = A2.shape[:2], case.units[2], room
    _, _, products, _, output = errors
    if case.dims == 1:
        correlated_errors(trees, spread(1.0), products[0], table, of[ROUNDINGS])
        for i in range(m):
            put(output, (i, 0), get(of, (ROUNDINGS, i)) * unit)
        return
    for t in range(n):
        correlated_errors(trees, get(H, (t, t)), products[t], table, passed[t])
    for i in range(m):
        for t in range(n):
            reach = get(passed, (t, i)) * unit
            for j in range(n):
                reach = fused(get(A2, (i, j)), get(products, (t, j)), reach)
            put(along, (t,), reach)
        correlated_errors(trees, get(of, (LEVEL, i)), along, table, of[ROUNDINGS])
        for h in range(m):
            total = get(of, (ROUNDINGS, h))
            for t in range(n):
                total = fused(get(passed, (t, i)), get(A2, (h, t)), total)
            put(output, (i, h), total * unit)


@jit
def _inexact_constants(matrices: Any, changes: Any, rows: Any, outputs: Any) -> None:
    """Fill the squared changes of the bilinear maps by inexact constants, and their products with the exact maps."""
    (A, G, B), (dA, dG, dB) = matrices, changes
    m, n, r = A.shape[0], A.shape[1], G.shape[1]
    for i in range(m):
        square, exact = spread(0.0), spread(0.0)
        for c in range(r):
            for j in range(n):
                a, g = get(A, (i, j)), get(G, (j, c))
                put(rows, (0, j), fused(get(dA, (i, j)), g, a * get(dG, (j, c))))
                put(rows, (1, j), a * g)
            for t in range(n):
                x, y = spread(0.0), spread(0.0)
                for j in range(n):
                    x = fused(get(rows, (0, j)), get(B, (j, t)), x)
                    y = fused(get(rows, (1, j)), get(dB, (j, t)), y)
                x = x + y
                square = fused(x, x, square)
                if t == i + c:
                    exact = exact + x
        put(outputs, (SELF, i), square)
        put(outputs, (EXACT, i), exact)


@jit
def _value_variances(matrices: Any, bare: Any, across: bool, outputs: Any) -> None:
    """Fill the variances of the values at each output along one axis."""
    A, A2, H = matrices
    for i in range(A2.shape[0]):
        every, w, x = spread(0.0), spread(0.0), spread(0.0)
        for j in range(A2.shape[1]):
            size = get(A2, (i, j)) * get(H, (j, j))
            every, w, x = every + size, fused(size, get(bare, (0, j)), w), fused(size, get(bare, (1, j)), x)
        put(outputs, (SIZE, i), every)
        put(outputs, (BARE_W, i), w)
        put(outputs, (BARE_X, i), x)
        if across:
            put(outputs, (LEVEL, i), through(A, i, H))


@jit
def _total(case: Any, of: Any, errors: Any) -> Any:
    """Return the sums over the outputs of the variance of the error, and of its square root."""
    units, (first, second, _, _, output) = case.units, errors
    every = units[3] + units[4] + units[5] + units[6]
    squares = roots = spread(0.0)
    for i in range(case.m):
        c, x = get(of, (SELF, i)), get(of, (EXACT, i))
        all_i, w_i, x_i = get(of, (SIZE, i)), get(of, (BARE_W, i)), get(of, (BARE_X, i))
        if case.dims == 1:
            square = get(first, (i,)) + get(output, (i, 0)) + c + all_i * every - w_i * units[3] - x_i * units[4]
            squares, roots = squares + square, roots + root(square)
            continue
        for h in range(case.m):
            d, y = get(of, (SELF, h)), get(of, (EXACT, h))
            late = all_i * get(of, (SIZE, h)) * every - w_i * get(of, (BARE_W, h)) * units[3] - x_i * get(of, (BARE_X, h)) * units[4]
            constants = (c + d) * (1.0 * case.r) + c * d + (x * y + x * d + c * y) * 2.0
            square = get(first, (i,)) * get(of, (LEVEL, h)) + get(second, (i, h)) + late + get(output, (i, h)) + constants
            squares, roots = squares + square, roots + root(square)
    return squares, roots


@jit
def _workspace(m: int, r: int, finite: int) -> Any:
    """Return the arrays that one block of sets needs."""
    n = m + r - 1
    A, G, B, weight = np.empty((m, n, WIDTH)), np.empty((n, r, WIDTH)), np.empty((n, n, WIDTH)), np.empty((n, r, WIDTH))
    dA, dG, dB, A2 = np.empty((m, n, WIDTH)), np.empty((n, r, WIDTH)), np.empty((n, n, WIDTH)), np.empty((m, n, WIDTH))
    GG, BB, H = np.empty((n, n, WIDTH)), np.empty((n, n, WIDTH)), np.empty((n, n, WIDTH))
    matrices = _Matrices(A, G, B, weight, dA, dG, dB, A2, GG, BB, H)
    heap = Heap(np.empty((4, n, WIDTH)), np.empty((1, WIDTH), np.int64))
    program = Program(np.empty((n, 6, 2 * n, WIDTH)), np.empty((2, n, WIDTH)), np.empty(n, np.int64))
    sums, steps = np.empty((m, 5, n, WIDTH)), np.empty(m, np.int64)
    trees = Trees(sums, steps, A2, np.empty((m, n, WIDTH)), np.empty((m, WIDTH)))
    first, second, products = np.empty((m, WIDTH)), np.empty((m, m, WIDTH)), np.empty((n, n, WIDTH))
    errors = _Errors(first, second, products, np.empty((2, n, WIDTH)), np.empty((m, m, WIDTH)))
    room = _Room(
        np.empty((n, 2, WIDTH)),
        (np.empty((n + 1, WIDTH)), np.empty((n + 1, WIDTH))),
        np.empty((2, n, n, WIDTH)),
        np.empty((n, n, WIDTH)),
        np.empty((n, WIDTH), np.int64),
        np.empty((2, n, WIDTH)),
        np.empty((n, m, WIDTH)),
        np.empty((7, m, WIDTH)),
    )
    return np.empty((finite, WIDTH)), np.empty((2, WIDTH)), matrices, heap, program, trees, errors, room


@jit
def predict_lanes(points: Any, case: Any, tables: Any, mean: Any, rms: Any) -> None:
    """Fill `mean` and `rms` for each row of points, inf where points coincide."""
    a, result, matrices, heap, program, trees, errors, room = _workspace(case.m, case.r, points.shape[1])
    A, G, B, weight, dA, dG, dB, A2, GG, BB, H = matrices
    first, second, products, bare, output = errors
    vw, vx, kurtosis_w, kurtosis_x = case.moments
    bits, across = case.bits, case.dims == 2
    tables_w, tables_x = (tables.line, tables.modulations, tables.leaf_w), (tables.line, tables.modulations, tables.leaf_x)
    w = _Side(G, weight, room.own, BB, bare[0], case.units[0], vw, kurtosis_w)
    x = _Side(B, B, room.own, GG, bare[1], case.units[1], vx, kurtosis_x)
    programs, outputs = (heap, program), room.outputs
    filled, exact, inexact, output_matrices = (A, G, B, weight), (A, G, B), (dA, dG, dB), (A, A2, H)
    polynomials, of_trees, of_coarse, sums = (
        room.polynomials,
        (room.square, room.rows[0]),
        (room.passed, room.rows[0], outputs),
        tables.sums,
    )
    size, count = np.sqrt(case.channels * vw * vx), 1.0 * case.m**case.dims
    for begin in range(0, len(points), WIDTH):
        for k in range(WIDTH):
            for j in range(points.shape[1]):
                a[j, k] = points[min(begin + k, len(points) - 1), j]
        apart = fill_matrices(a, filled, polynomials)
        to_bits(A, dA, bits[0])
        to_bits(G, dG, bits[1])
        to_bits(B, dB, bits[2])
        fill_gram(G, GG)
        fill_gram(B, BB)
        for i in range(len(B)):
            for j in range(len(B)):
                put(H, (i, j), get(GG, (i, j)) * get(BB, (i, j)))
                put(products, (i, j), 0.0)
        for i in range(len(A)):
            put(first, (i,), 0.0)
            for j in range(len(A)):
                put(second, (i, j), 0.0)
            for j in range(len(B)):
                put(A2, (i, j), get(A, (i, j)) * get(A, (i, j)))
        _before_product(w, tables_w, across, programs, matrices, room, errors)
        _before_product(x, tables_x, across, programs, matrices, room, errors)
        grow_trees(A, H, heap, of_trees, trees)
        _inexact_constants(exact, inexact, room.rows, outputs)
        _value_variances(output_matrices, bare, across, outputs)
        if case.coarse:
            _late_errors(case, H, errors)
            _coarse_output_errors(case, output_matrices, trees, sums, of_coarse, errors)
        else:
            _output_errors(case, trees, sums, outputs, output)
        squares, roots = _total(case, outputs, errors)
        put(result, (0,), choose(apart, roots * (size * np.sqrt(2.0 / np.pi) / count), np.inf))
        put(result, (1,), choose(apart, root(squares * (1.0 / count)) * size, np.inf))
        for k in range(min(WIDTH, len(points) - begin)):
            mean[begin + k], rms[begin + k] = result[0, k], result[1, k]

"""Predictions side by side: they are those of one set at a time, and of the exact programs."""

from fractions import Fraction

import numpy as np
import pytest
from numba import njit

import fastconv as fc
from fastconv.error.predict.compiled import bulk
from fastconv.error.predict.compiled.bulk import predict_errors
from fastconv.error.predict.compiled.lanes import Case, _Errors, _late_errors
from fastconv.error.predict.compiled.matrices import to_bits
from fastconv.error.predict.compiled.trees import (
    BOTH,
    CHILD,
    FIRST,
    OF,
    Heap,
    Program,
    Trees,
    correlated_errors,
    grow_trees,
    line_of,
    number_rows,
    plane_of,
)
from fastconv.error.predict.nodes import nodes_of
from fastconv.error.predict.rounding import mellin, modulation, sum_factor, sum_table
from fastconv.exact import format_named, rounded
from fastconv.native.source import lanes
from fastconv.native.source.lanes import WIDTH
from fastconv.program import program_of

POOL = [float(p) for p in sorted({Fraction(p, q) for p in range(-6, 7) for q in range(1, 7)})]


def rational(rng, sets, k):
    """Zeros in some sets and not in others, equal magnitudes, entries with few bits, values shared by rows."""
    return np.array([rng.permutation(POOL)[:k] for _ in range(sets)])


def symmetric(rng, sets, k):
    half = rng.uniform(0.2, 3, (sets, k // 2))
    return np.concatenate([np.zeros((sets, k % 2)), half, -half], axis=1)


def scattered(rng, sets, k):
    return rng.uniform(-3, 3, (sets, k))


def exact(points, m, r, dims, **options):
    """Return the prediction of the exact programs at the points that the floats are."""
    own = [Fraction(p).limit_denominator(1000) for p in points]
    return fc.predict_error(fc.toom_cook(m, r, [*own, *["inf"] * (m + r - 1 - len(own))]), dims, **options).rms


@pytest.mark.parametrize("kind", [rational, symmetric, scattered])
@pytest.mark.parametrize(
    ("m", "r", "dims", "finite"), [(6, 3, 1, 0), (6, 3, 2, 0), (5, 4, 1, 1), (9, 3, 2, 0), (7, 1, 1, 0), (1, 6, 2, 1), (4, 4, 2, 1)]
)
@pytest.mark.parametrize("policy", ["fp32", "bf16"])
def test_they_are_those_of_the_exact_programs(kind, m, r, dims, finite, policy):
    """Interpolated modulation and products without it: half a per cent."""
    sets = kind(np.random.default_rng(m), WIDTH + 3, m + r - 2 + finite)
    sets = np.round(sets * 64) / 64 if kind is not rational else sets
    _, rms = predict_errors(sets, m, r, dims, policy)
    for k in (0, WIDTH - 1, WIDTH + 2):  # of both rounds, at their ends
        if np.isfinite(rms[k]):
            assert rms[k] == pytest.approx(exact(sets[k], m, r, dims, policy=policy), rel=0.005)
    assert np.isfinite(rms).sum() > 3


@pytest.mark.parametrize(
    "options", [{"policy": "tf32", "inputs": "normal"}, {"policy": "fp64"}, {"channels": 64, "channel_sum": "blocked"}]
)
@pytest.mark.parametrize("dims", [1, 2])
def test_they_are_those_of_the_exact_programs_in_other_policies(options, dims):
    sets = rational(np.random.default_rng(0), 20, 7)
    _, rms = predict_errors(sets, 6, 3, dims, **options)
    for k in range(0, 20, 4):
        assert rms[k] == pytest.approx(exact(sets[k], 6, 3, dims, **options), rel=0.005)


def test_the_table_of_the_modulation_is_of_what_it_says():
    table = bulk._modulation_table()
    for i, j in ((0, 0), (3, 10), (11, 40), (24, 64), (17, 63)):
        moments = mellin(np.array([-1.2 + 1.2 * i / 24]))
        assert table[i, j] == pytest.approx(float(modulation(moments, np.array([1 + 3 * j / 64]))[0]), rel=1e-12)
    sums = bulk._uncorrelated()
    assert sums[64] == pytest.approx(float(sum_factor(np.array(0.25), np.array(0.75), np.array(1.0))))


@pytest.mark.parametrize("dims", [1, 2])
def test_neighbours_do_not_matter(dims):
    rng = np.random.default_rng(2)
    sets = np.concatenate([rational(rng, 20, 6), scattered(rng, 20, 6)])
    sets[5, 1] = sets[5, 4]
    mean, rms = predict_errors(sets, 5, 3, dims)
    turned = rng.permutation(len(sets))
    again = predict_errors(sets[turned], 5, 3, dims)
    np.testing.assert_array_equal(again, [mean[turned], rms[turned]])
    assert [predict_errors(sets[k : k + 1], 5, 3, dims)[1][0] for k in (0, 5, 39)] == [rms[0], np.inf, rms[39]]
    assert np.isinf(mean).tolist() == [k == 5 for k in range(40)]
    assert predict_errors(sets[:0], 5, 3, dims)[0].shape == (0,)


@pytest.mark.parametrize(("name", "p"), [("fp16", 11), ("bf16", 8), ("fp32", 24)])
def test_rounding_of_matrices(name, p):
    values = np.random.default_rng(p).normal(size=(1, 3, WIDTH))
    values[0, 0, :2] = 1 + 2.0**-p, 1 + 3 * 2.0**-p  # ties, to even
    values[0, 1, 0] = 0.0
    near, change = values.copy(), np.empty_like(values)
    to_bits(near, change, p)
    assert near.ravel().tolist() == [rounded(Fraction(v), format_named(name)) for v in values.ravel()]
    np.testing.assert_array_equal(change, near - values)


def sums_of(row):
    """Return the sums of a row's program, as the columns of their two operands."""
    program = program_of((row,), "huffman")
    columns, found = [1 << j for j in range(len(row))], []
    for op in program.ops:
        columns.append(columns[op.a] | (columns[op.b] if op.b >= 0 else 0))
        if op.b >= 0:
            found.append({columns[op.a], columns[op.b]})
    return found


def split(parts, wholes):
    """Return sums as the columns of their operands, from those of one operand and of both; padding is left out."""
    return [{int(part), int(whole ^ part)} for part, whole in zip(parts, wholes, strict=True) if whole]


def of_matrices(rng, pool, m, n):
    """Return one exact matrix for each candidate, no row of zeros, and their entries as floats."""
    exact = [[[pool[i] for i in rng.integers(0, len(pool), n)] for _ in range(m)] for _ in range(WIDTH)]
    for matrix in exact:
        for row in matrix:
            row[int(rng.integers(n))] = Fraction(1)
    return exact, np.ascontiguousarray(np.moveaxis(np.array(exact, float), 0, -1))


def grown(M, H):
    """Return the trees of the rows of M, and a heap."""
    m, n = M.shape[:2]
    heap = Heap(np.empty((4, n, WIDTH)), np.empty((1, WIDTH), np.int64))
    trees = Trees(np.empty((m, 5, n, WIDTH)), np.empty(m, np.int64), M * M, np.empty((m, n, WIDTH)), np.empty((m, WIDTH)))
    grow_trees(M, H, heap, (np.empty((n, n, WIDTH)), np.empty((n, WIDTH))), trees)
    return trees, heap


@pytest.mark.parametrize("seed", range(4))
def test_trees_are_those_of_the_programs(seed):
    """Rows with ties, zeros, and equal sums in another order."""
    rng, m, n = np.random.default_rng(seed), 5, 8
    pool = [Fraction(0), *(s * Fraction(p, q) for p in range(1, 5 + 3 * seed) for q in (1, 2, 3, 5) for s in (1, -1))]
    exact, M = of_matrices(rng, pool, m, n)
    trees, heap = grown(M, np.ascontiguousarray(np.broadcast_to(np.eye(n)[..., None], (n, n, WIDTH))))
    program = Program(np.empty((m, 6, 2 * n, WIDTH)), np.empty((2, m, WIDTH)), np.empty(m, np.int64))
    line = line_of(np.ones(3))
    number_rows(M, M, (1.0, 0.0), (line, plane_of(np.ones((3, 3))), line), heap, program)
    of_trees, of_rows = trees.sums.view(np.int64), program.nodes.view(np.int64)
    for i in range(m):
        for k in range(WIDTH):
            expected, last = sums_of(exact[k][i]), trees.steps[i]
            assert split(of_trees[i, FIRST, :last, k], of_trees[i, BOTH, :last, k]) == expected
            assert split(of_rows[program.base[i], CHILD, n:-1, k], of_rows[program.base[i], OF, n:-1, k]) == expected


@njit
def _row_errors(trees, level, errors, table, out):
    correlated_errors(trees, lanes.get(level, (0,)), errors, table, out)


def test_errors_before_a_sum_are_rounded_with_it():
    """As `Model.after` does: large errors, correlated inputs, and products with powers of two, which are exact."""
    rng, m, n, fp32 = np.random.default_rng(0), 4, 6, format_named("fp32")
    exact, M = of_matrices(rng, [Fraction(p, q) for p in range(-4, 5) for q in (1, 2, 3)], m, n)
    half = rng.normal(size=(n, n, WIDTH))
    H = np.ascontiguousarray(np.einsum("ikw,jkw->ijw", half, half))
    trees, _ = grown(M, H)
    errors, level, table = rng.uniform(0, 30, (n, WIDTH)), rng.uniform(0.5, 2, (1, WIDTH)), plane_of((sum_table() + sum_table()[::-1]) / 2)
    with_errors, without = np.empty((m, WIDTH)), np.empty((m, WIDTH))
    _row_errors(trees, level, errors, table, with_errors)
    _row_errors(trees, level, errors[:0], table, without)
    for k in range(WIDTH):
        for of_inputs, found in ((errors[:, k], with_errors[:, k]), (np.zeros(n), without[:, k])):
            for i in range(m):
                nodes = nodes_of(program_of((exact[k][i],)), fp32, fp32)
                true = np.einsum("vj,jk,vk->v", nodes.rows, H[..., k], nodes.rows)
                variance = level[0, k] * true + nodes.rows**2 @ of_inputs
                square = nodes.gain[0] ** 2 @ (variance[n:] * nodes.factors(variance, 24, 24))
                assert found[i] == pytest.approx(square, rel=3e-3)  # a table of sums that is alike in its operands


@pytest.mark.parametrize("dims", [1, 2])
def test_errors_of_products_before_the_output_transform(dims):
    """Storing does not round plain inputs: of G in rows where w is one, of BT where x is."""
    rng, n, units = np.random.default_rng(0), 4, np.arange(1.0, 8.0)
    bare, H, products = rng.integers(0, 2, (2, n, WIDTH)).astype(float), rng.uniform(1, 2, (n, n, WIDTH)), np.zeros((n, n, WIDTH))
    case = Case(2, 3, dims, 1, True, units, np.full(3, 24), np.ones(4))
    nothing = np.zeros((1, WIDTH))
    _late_errors(case, H, _Errors(nothing, products.copy(), products, bare, products.copy()))
    size, one = np.einsum("jjw->jw", H), np.ones((n, WIDTH))
    across, w, x = (v if dims == 2 else one for v in (size, *bare))
    of = np.multiply(units[3:].sum() - units[3] * w[:, None] * bare[0] - units[4] * x[:, None] * bare[1], across[:, None] * size)
    np.testing.assert_allclose(products[: n if dims == 2 else 1], of[: n if dims == 2 else 1])


@njit
def _everything(x, y, table, out, whole):
    a, b = lanes.get(x, (0, 1)), lanes.get(y, (1,))
    k = lanes.whole_part(lanes.magnitude(a))
    lanes.put(out, (0,), (a + b) * 2.0 - 1.0 / b)
    lanes.put(out, (1,), lanes.choose(a < b, lanes.root(lanes.magnitude(a)), 7.0))
    lanes.put(out, (2,), lanes.take(table, 1, k) + lanes.as_real(k))
    lanes.put(out, (3,), lanes.number(lanes.pattern(a) & ((1 << 63) - 1)))
    lanes.put(out, (4,), lanes.fused(a, b, 0.5))
    lanes.put(whole, (0,), ((lanes.spread(5) - k) ^ 3) | ((k << 4) >> 2) + 1)
    lanes.put(whole, (1,), (~(k == 1)) & (k >= 1))
    return lanes.any_of(a > 100.0), lanes.any_of(b == b)


def test_lanes_are_numbers():
    rng = np.random.default_rng(1)
    x, y, table = rng.normal(0, 2, (1, 2, WIDTH)), rng.normal(0, 2, (2, WIDTH)), rng.normal(size=30)
    out, whole = np.empty((5, WIDTH)), np.empty((2, WIDTH), np.int64)
    assert _everything(x, y, table, out, whole) == (False, True)
    a, b = x[0, 1], y[1]
    k = np.abs(a).astype(int)
    expected = [(a + b) * 2 - 1 / b, np.where(a < b, np.sqrt(np.abs(a)), 7), table[k + 1] + k, np.abs(a)]
    np.testing.assert_array_equal(out[:4], expected)
    np.testing.assert_allclose(out[4], a * b + 0.5, rtol=1e-15, atol=1e-15)  # rounded once or twice
    np.testing.assert_array_equal(whole, [((5 - k) ^ 3) | (k * 4 + 1), -(k > 1).astype(int)])


def test_tables_of_two_numbers_in_one():
    """Numbers of 20 bits behind the leading one, rounded, and those of the other number behind them."""
    table = np.random.default_rng(0).normal(size=(5, 4))
    value, along = (_halves(plane_of(table)[..., k]) for k in (0, 1))
    np.testing.assert_allclose(value[0], table[:-1, :-1], rtol=1.5 * 2.0**-20)
    np.testing.assert_allclose(value[1], np.diff(table[:-1], axis=1), rtol=1.5 * 2.0**-20)
    np.testing.assert_allclose(along[0], np.diff(table[:, :-1], axis=0), rtol=1.5 * 2.0**-20)
    np.testing.assert_allclose(along[1], np.diff(np.diff(table, axis=1), axis=0), rtol=1.5 * 2.0**-20)
    np.testing.assert_allclose(_halves(line_of(table[0]))[1], np.diff(table[0]), rtol=1.5 * 2.0**-20)


def _halves(words):
    return words, (words.view(np.int64) << 32).view(np.float64)

"""Certified limits: the bound on a box against the errors of sets in it, the jets, branch and bound to the end, the shipped table."""

import heapq
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv as fc
from fastconv.algebra import best_row, published_sources
from fastconv.cli import main
from fastconv.exact import FORMATS
from fastconv.search import certified_limit
from fastconv.search.limit import choices, jets, lists
from fastconv.search.limit.box import _bounded_cost, _in_depth, entries_of, limit_of_box, places, transforms, undecided, unlisted
from fastconv.search.limit.certified import MARGIN, first_order_error, limits, load, scale_of, start
from fastconv.search.limit.queue import possible
from fastconv.search.limit.quick import quick_limit
from fastconv.search.limit.records import Size

UNIT = scale_of(FORMATS["fp32"])
SPECIAL = [Fraction(p) for p in ("-2", "-7/4", "-3/2", "-1", "-3/4", "-1/2", "-1/4", "0", "1/4", "1/2", "3/4", "1", "5/4", "3/2", "7/4")]


def point(u):
    """The point at a place on the projective line, -2 and 2 being infinity."""
    return u if abs(u) <= 1 else 1 / (2 - u) if u > 0 else -1 / (2 + u)


def error(places_, infinity, dims, order=None):
    points = [point(Fraction(u)) for u in places_]
    points = [points[i] for i in order] if order else points
    n = len(points) + infinity
    return first_order_error(fc.toom_cook(n - 2, 3, points + [fc.INF] * infinity), dims) / UNIT


@st.composite
def boxes(draw):
    """A box with a set of points inside, often special ones: zeros, powers of two, opposite pairs."""
    n, infinity = draw(st.integers(4, 6)), draw(st.booleans())
    k = n - infinity
    mirrored = draw(st.lists(st.sampled_from([p for p in SPECIAL if 0 < p < 2]), min_size=k // 2, max_size=k // 2, unique=True))
    free = st.integers(-1990, 1990).map(lambda i: Fraction(i, 1000))
    if draw(st.booleans()):
        us = {*mirrored, *(-p for p in mirrored)} | ({Fraction(0)} if k % 2 else set())
    else:
        us = draw(st.sets(st.one_of(free, st.sampled_from(SPECIAL[1:])), min_size=k, max_size=k))
    us = sorted(us)
    lo, hi = [], []
    for u in us:
        cell = draw(st.sampled_from([c for c in (-2, -1, 0, 1) if c <= u <= c + 1]))
        width = Fraction(draw(st.sampled_from([0, 1, 16, 256, 4096])), 2**15)
        low = max(Fraction(cell), u - width * draw(st.integers(0, 4)) / 4)
        lo.append(low)
        hi.append(min(Fraction(cell + 1), max(u, low + width)))
    return (
        us,
        [math.nextafter(float(x), -9) if x != round(x) else float(x) for x in lo],
        [math.nextafter(float(x), 9) if x != round(x) else float(x) for x in hi],
        infinity,
    )


@settings(max_examples=120)
@given(boxes(), st.sampled_from([1, 2]), st.randoms(use_true_random=False))
def test_the_limit_of_a_box_is_below_every_set_in_it(box, dims, random):
    """The set's points in any order: the limit holds for all, up to what rounded constants do, 1e-5."""
    us, lo, hi, infinity = box
    order = list(range(len(us)))
    random.shuffle(order)
    n = len(us) + infinity
    limit = limit_of_box(np.array(lo), np.array(hi), Size(infinity, n - 2, 3, dims), math.inf, np.empty(len(us)))
    assert limit <= error(us, infinity, dims, order) * (1 + 1e-5)


@pytest.mark.parametrize("infinity", [True, False])
@pytest.mark.parametrize("dims", [1, 2])
def test_narrow_boxes_give_the_error_itself(infinity, dims):
    """Without special values the limit goes to the least error over the orders of the points: here n = 4, all orders."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        us = np.sort(rng.choice(np.arange(-18, 19), 4 - infinity, replace=False) / 10 + 0.0137)
        least = min(error(us, infinity, dims, order) for order in itertools.permutations(range(len(us))))
        got = [limit_of_box(us - w, us + w, Size(infinity, 2, 3, dims), math.inf, np.empty(len(us))) for w in (1e-3, 1e-5, 1e-7)]
        assert got[0] <= got[1] * (1 + 1e-9)
        assert 0.999 * least < got[2] <= least * (1 + 1e-5)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_the_shipped_sets_are_near_the_limit_of_their_place(n):
    """Zeros, powers of two, shared values and ties are granted where they are: little is given away there."""
    row = best_row(n - 2, 3, 1)
    points = sorted(Fraction(p) for p in row["points"].split()[:-1])
    us = np.array([float(p if abs(p) <= 1 else 2 - 1 / p if p > 0 else -2 - 1 / p) for p in points])
    limit = limit_of_box(us, us, Size(True, n - 2, 3, 1), math.inf, np.empty(n - 1))
    assert 0.96 < limit / (first_order_error(fc.toom_cook(n - 2, 3, row["points"].split()), 1) / UNIT) <= 1 + 1e-5


@given(st.lists(st.integers(-63, 63), min_size=5, max_size=5, unique=True), st.integers(0, 2**32 - 1))
def test_jets_hold_exact_entries_and_their_derivatives(numerators, seed):
    rng = np.random.default_rng(seed)
    us = np.sort(np.array(numerators) / 32 + 1 / 64)
    lo, hi = us - rng.integers(0, 17, 5) / 1024, us + rng.integers(0, 17, 5) / 1024
    size = Size(False, 3, 3, 1)
    Q = np.empty((places(size).room, 6, 2))
    transforms(lo, hi, size, Q)
    B, G = places(size).B, places(size).G
    inside = [Fraction(a) + (Fraction(b) - Fraction(a)) * Fraction(int(rng.integers(0, 9)), 8) for a, b in zip(lo, hi, strict=True)]

    def exact(place):
        al = [u if abs(u) <= 1 else Fraction(1 if u > 0 else -1) for u in place]
        be = [Fraction(1) if abs(u) <= 1 else 2 - abs(u) for u in place]
        found = {}
        for j in range(5):
            row = [Fraction(1)] + [Fraction(0)] * 4
            for t in range(5):
                if t != j:
                    row = [(be[t] * row[c - 1] if c else 0) - al[t] * row[c] for c in range(5)]
            found |= {B + 5 * j + c: e for c, e in enumerate(row)}
            found |= {G + 3 * j + k: be[j] ** (2 - k) * al[j] ** k for k in range(3)}
        return found

    values = exact(inside)
    assert all(Q[at, 0, 0] - 1e-12 <= v <= Q[at, 0, 1] + 1e-12 for at, v in values.items())
    for t in range(5):
        step = Fraction(1, 2**40)
        ahead = exact([u + step * (i == t) for i, u in enumerate(inside)])
        for at, v in values.items():  # the quadratic part of a secant over 2**-40 is far below 1e-9
            assert Q[at, 1 + t, 0] - 1e-9 <= (ahead[at] - v) / step <= Q[at, 1 + t, 1] + 1e-9


def proved(state):
    for _ in limits(state):
        pass
    return state


@pytest.mark.parametrize("dims", [1, 2])
def test_the_smallest_size_is_solved_to_the_end(dims, tmp_path):
    best = first_order_error(fc.algorithm("F(2,3)"), dims) / UNIT
    state = start(2, 3, dims, True, best / 1.03, room=20000)
    state.run(2000)
    assert state.size > 0
    assert state.value < state.goal * (1 - MARGIN)
    state.save(tmp_path / "open.npz")
    again, through = proved(load(tmp_path / "open.npz")), proved(state)
    assert again.size == through.size == 0
    assert again.value == through.value == state.goal * (1 - MARGIN)
    assert again.examined == through.examined
    rng = np.random.default_rng(0)
    assert min(error(us, True, dims) for us in np.sort(rng.uniform(-1.9, 1.9, (300, 3)))) > through.value


def test_a_goal_beyond_the_best_set_is_not_proved():
    """The box around the best set stays open, its limit below the set's error."""
    best = first_order_error(fc.algorithm("F(2,3)"), 1) / UNIT
    state = start(2, 3, 1, True, best * 1.02, room=20000)
    for _ in range(20):
        if not state.run(2000):
            break
    assert state.size > 0
    assert state.value < best


def test_the_shipped_limits_are_below_every_known_set():
    for n, dims in itertools.product((4, 5, 6), (1, 2)):
        for infinity in (True, False):
            entry = certified_limit(n - 2, 3, dims, infinity)
            row = best_row(n - 2, 3, dims, infinity=infinity)
            assert entry.limit < first_order_error(fc.toom_cook(n - 2, 3, row["points"].split()), dims)
        both = certified_limit(n - 2, 3, dims)
        assert both.limit == min(certified_limit(n - 2, 3, dims, kind).limit for kind in (True, False))
        for source in published_sources():
            try:
                points = fc.published_points(source, n, dims)
            except ValueError:
                continue
            assert both.limit < first_order_error(fc.toom_cook(n - 2, 3, points), dims)


def test_how_close_the_table_is():
    """What the table claims: n = 4 closed over all sets, n = 5 over the sets with infinity."""
    for dims in (1, 2):
        assert certified_limit(2, 3, dims).gap < 0.02
        assert certified_limit(3, 3, dims, True).gap < 0.05
    assert certified_limit(6, 3) is None


def test_what_is_closed_is_printed(capsys):
    assert main(["points", "2", "3", "--trials", "50"]) == 0
    assert "within 1.0% of the best possible (certified)" in capsys.readouterr().out


def test_other_sizes_are_refused():
    for m, r in ((1, 3), (5, 3), (3, 5)):
        with pytest.raises(ValueError, match="limits are computed for r = 3 and n = 4 to 6"):
            start(m, r, 1, True, 1.0)


def interval_product(x, y):
    ends = [a * b for a in x for b in y]
    return min(ends), max(ends)


def test_jets_add_and_multiply_as_intervals_do():
    """Ends are whole numbers, so that all is exact; a result may stand where an operand stood."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        Q = np.sort(rng.integers(-4, 5, (4, 3, 2)), axis=2).astype(float)
        x, y, before = Q[0].copy(), Q[1].copy(), Q[2].copy()
        factor = float(rng.integers(-6, 7)) / 4
        jets.add(Q, 2, 0, factor)
        assert [tuple(e) for e in Q[2]] == [
            tuple(np.add(e, sorted((factor * a[0], factor * a[1])))) for e, a in zip(before, x, strict=True)
        ]
        jets.copy(Q, 3, 1)
        assert np.array_equal(Q[3], y)
        jets.negate(Q, 3)
        assert np.array_equal(Q[3], -y[:, ::-1])
        product = [interval_product(x[0], y[0])]
        product += [tuple(np.add(interval_product(x[k], y[0]), interval_product(x[0], y[k]))) for k in (1, 2)]
        for out in (2, 1, 0):
            Q[0], Q[1] = x, y
            jets.multiply(Q, out, 0, 1)
            assert [tuple(e) for e in Q[out]] == product
        low, high = x[0]
        square = [(0.0 if low <= 0 <= high else min(low * low, high * high), max(low * low, high * high))]
        square += [interval_product(x[k], 2 * x[0]) for k in (1, 2)]
        for out in (2, 0):
            Q[0] = x
            jets.square(Q, out, 0)
            assert [tuple(e) for e in Q[out]] == square
        jets.constant(Q, 2, 3.0)
        assert Q[2].tolist() == [[3.0, 3.0], [0.0, 0.0], [0.0, 0.0]]


def test_jets_invert_and_take_roots_as_intervals_do():
    rng = np.random.default_rng(1)
    for _ in range(50):
        Q = np.sort(rng.integers(-4, 5, (2, 3, 2)), axis=2).astype(float)
        Q[0, 0] = np.sort(4.0 ** rng.integers(-2, 3, 2))
        x = Q[0].copy()
        low, high = x[0]
        for operation, value, slope in (
            (jets.invert, (1 / high, 1 / low), (-1 / low**2, -1 / high**2)),
            (jets.root, (low**0.5, high**0.5), (0.5 / high**0.5, 0.5 / low**0.5)),
        ):
            for out in (1, 0):
                Q[0] = x
                operation(Q, out, 0)
                assert [tuple(e) for e in Q[out]] == [value, *(interval_product(x[k], slope) for k in (1, 2))]


def test_the_smaller_of_two_jets_has_either_gradient_where_neither_is_smaller():
    rng = np.random.default_rng(2)
    for _ in range(300):
        Q = np.sort(rng.integers(-4, 5, (2, 3, 2)), axis=2).astype(float)
        out, x = Q.copy()
        jets.lower(Q, 0, 1)
        if x[0, 0] >= out[0, 1]:
            expected = out
        elif x[0, 1] <= out[0, 0]:
            expected = x
        else:
            expected = np.stack([np.minimum(out[:, 0], x[:, 0]), np.maximum(out[:, 1], x[:, 1])], axis=1)
            expected[0, 1] = min(out[0, 1], x[0, 1])
        assert np.array_equal(Q[0], expected)


def holds_power(lo, hi):
    """Whether [lo, hi], a little widened, holds a power of two."""
    if lo <= 0 or hi == math.inf:
        return True
    return math.floor(math.log2(hi * (1 + choices.SLACK))) >= math.log2(lo * (1 - choices.SLACK))


def test_powers_of_two_are_seen_in_an_interval():
    rng = np.random.default_rng(3)
    for _ in range(500):
        lo, hi = np.sort(
            2 ** rng.uniform(-4, 4, 2) if rng.random() < 0.5 else 2.0 ** rng.integers(-3, 4) * (1 + rng.integers(-5, 6, 2) / 2e6)
        )
        assert choices.may_be_power(lo, hi) == holds_power(lo, hi)
    for lo, hi in ((0.0, 3.0), (3.0, math.inf), (-1.0, 3.0), (0.0, 0.0)):
        assert choices.may_be_power(lo, hi)
    for bit in range(64):
        assert choices.lowest(np.uint64(2**bit)) == bit
        assert choices.lowest(np.uint64(2**64 - 2**bit)) == bit
    assert choices.ratio(1.0, 6.0, 2.0, 4.0) == (0.25, 3.0)
    assert choices.ratio(1.0, 6.0, 0.0, 4.0) == (0.25, math.inf)
    assert choices.ratio(1.0, 6.0, 0.0, 0.0) == (0.0, math.inf)
    assert choices.ratio(1.0, 6.0, 2.0, math.inf) == (0.0, 3.0)
    assert choices.ratio(1.0, 6.0, 0.5, 0.5) == (2.0, 12.0)


def every_tree(leaves):
    """All trees, as sets of the masks of their sums, that merging two of the lightest may give: (mask, least, most) a leaf."""
    if len(leaves) < 2:
        return {frozenset()}
    found = set()
    for a, b in itertools.combinations(leaves, 2):
        others = [leaf for leaf in leaves if leaf is not a and leaf is not b]
        if all(leaf[2] >= max(a[1], b[1]) * (1 - choices.SLACK) for leaf in others):
            merged = tuple(x + y for x, y in zip(a, b, strict=True))
            found |= {tree | {merged[0]} for tree in every_tree([*others, merged])}
    return found


def word(tree):
    return sum(1 << mask for mask in tree)


def listed(trees, count):
    assert len({int(t) for t in trees[:count]}) == count  # none twice
    return {int(t) for t in trees[:count]}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5])
def test_the_trees_of_weights_are_those_of_every_order_of_merging(size):
    """Of weights that are whole numbers, ties among them, and of intervals of such."""
    rng = np.random.default_rng(size)
    for _ in range(20):
        lo = rng.integers(1, 5, size).astype(float)
        hi = lo + rng.integers(0, 3, size) * (rng.random() < 0.5)
        masks = 1 << rng.permutation(6)[:size]
        expected = {word(tree) for tree in every_tree(list(zip(masks.tolist(), lo, hi, strict=True)))}
        trees = np.zeros(200, np.uint64)
        count = choices.huffman_trees(masks, lo, hi, size, trees, 0)
        assert listed(trees, count) == expected
        assert choices.huffman_trees(masks, lo, hi, size, trees, count) == count  # all are there
        few = np.zeros(max(count - 1, 0), np.uint64)
        assert choices.huffman_trees(masks, lo, hi, size, few, 0) == -1 or not count - 1 < len(expected)
        another = np.zeros(count + 1, np.uint64)
        another[0] = 77
        assert choices.huffman_trees(masks, lo, hi, size, another, 1) == count + 1
        assert choices.huffman_trees(masks, lo, hi, size, np.full(count, 77, np.uint64), 1) == -1
        assert choices.huffman_trees(masks, lo, hi, size, np.zeros(count, np.uint64), 0) == count


def trees_with_options(lo, hi, present, maybe):
    """The same where some entries may be absent."""
    found = set()
    some = [j for j in range(len(lo)) if maybe[j]]
    for here in itertools.product((False, True), repeat=len(some)):
        there = {j for j, h in zip(some, here, strict=True) if h} | {j for j in range(len(lo)) if present[j] and not maybe[j]}
        found |= every_tree([(1 << j, lo[j], hi[j]) for j in sorted(there)])
    return found


def test_the_trees_of_a_row_are_those_with_and_without_what_may_be_absent():
    rng = np.random.default_rng(5)
    for _ in range(60):
        lo = rng.integers(1, 5, 4).astype(float)
        hi = lo + rng.integers(0, 2, 4)
        present, maybe = rng.random(4) < 0.7, rng.random(4) < 0.4
        expected = {word(tree) for tree in trees_with_options(lo, hi, present, maybe)}
        trees = np.zeros(100, np.uint64)
        count = choices.trees_of(lo, hi, present, maybe, trees)
        assert listed(trees, count) == expected
        if count > 1:
            assert choices.trees_of(lo, hi, present, maybe, trees[: count - 1].copy()) == -1
        sums = 0
        for tree in expected:
            sums |= tree
        assert int(choices.union(trees, count)) == sums
        columns = int(rng.integers(0, 16))
        kept = {word({m & ~columns for m in range(64) if tree >> m & 1 and (m & ~columns).bit_count() > 1}) for tree in expected}
        stripped = trees.copy()
        assert listed(stripped, choices.strip(stripped, count, columns)) == kept
    assert int(choices.union(trees, -1)) == 2**64 - 1
    assert int(choices.union(trees, 0)) == 0
    assert choices.strip(trees, -1, 1) == -1


def huffman_cost(squares):
    heap, total = sorted(squares), 0.0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


def test_the_least_cost_is_that_of_huffmans_tree():
    rng = np.random.default_rng(6)
    for size in (0, 1, 2, 3, 4, 5, 6) * 5:
        squares = rng.integers(1, 50, size + 1).astype(float)
        assert choices.least_cost(squares.copy(), size) == huffman_cost(squares[:size])


def test_the_least_cost_over_all_trees_holds_for_every_depth_of_a_leaf():
    """Values are Huffman's at both ends; a leaf lies 1 to ``leaves - 1`` deep, which bounds the slopes; entries of zero are no leaves."""
    rng = np.random.default_rng(7)
    for zero in itertools.product((False, True), repeat=4):
        Q = np.sort(rng.integers(-9, 10, (6, 3, 2)), axis=2).astype(float)
        Q[1:5, 0] = np.abs(Q[1:5, 0])
        Q[1:5, 0].sort(axis=1)
        _bounded_cost(Q, 0, 1, np.array(zero))
        leaves = [k for k in range(4) if not zero[k]]
        assert Q[0, 0].tolist() == [huffman_cost([Q[1 + k, 0, end] for k in leaves]) for end in (0, 1)]
        for axis in (1, 2):
            slopes = [sorted(depth * end for depth in (1, len(leaves) - 1) for end in Q[1 + k, axis]) for k in leaves if len(leaves) > 1]
            assert Q[0, axis].tolist() == [sum(s[0] for s in slopes), sum(s[-1] for s in slopes)]


@pytest.mark.parametrize(
    ("merges", "depths"), [((), (0, 0, 0)), ((0b011,), (1, 1, 0)), ((0b011, 0b111), (2, 2, 1)), ((0b111, 0b110), (1, 2, 2))]
)
def test_the_cost_of_a_tree_counts_each_leaf_as_often_as_it_is_summed(merges, depths):
    Q = np.sort(np.random.default_rng(8).integers(-9, 10, (4, 3, 2)), axis=2).astype(float)
    _in_depth(Q, 3, 0, 3, np.uint64(sum(1 << mask for mask in merges)))
    assert np.array_equal(Q[3], np.tensordot(depths, Q[:3], 1))


class Box:
    """A box of points around given ones, and by plain intervals what its transforms are: the points' own entries, infinity last."""

    def __init__(self, us, width, infinity):
        self.infinity, self.finite, self.n = infinity, len(us), len(us) + infinity
        self.m = self.n - 2
        lo, hi = np.array(us, float), np.array(us, float)
        for side, ends in ((-1, lo), (1, hi)):
            for j, u in enumerate(us):
                cell = math.floor(u) if u < 2 else 1
                if u != round(u):
                    ends[j] = min(max(u + side * width, cell), cell + 1)
        self.of = Size(infinity, self.m, 3, 1)
        Q = np.empty((places(self.of).room, 1, 2))
        transforms(lo, hi, self.of, Q)
        self.entries, self.chosen = entries_of(Q, self.of), undecided(self.of)
        choices.choose(self.of, self.entries, self.chosen)
        for record in (self.entries, self.chosen):
            vars(self).update(record._asdict())

    def size(self, j, c):
        """Magnitudes of an entry of BT, zero if it may be zero."""
        ends = np.abs(self.B[j, c, 0])
        return (0.0 if self.zero_B[j, c] else ends.min()), ends.max()

    def beta(self, j):
        """The factor that row j of BT lacks beside the others."""
        return self.BE[j, 0] if j < self.finite else np.ones(2)

    def entry(self, j, c):
        """Magnitudes of an entry of BT of monic polynomials: that of the box over the factors of the others."""
        rest = [math.prod(self.BE[t, 0, e] for t in range(self.finite) if t != j) for e in (0, 1)]
        low, high = self.size(j, c)
        return low / rest[1], high / rest[0] if rest[0] > 0 else math.inf

    def differences(self, j):
        return [math.prod(self.D[max(j, t), min(j, t), 0, e] for t in range(self.finite) if t != j) for e in (0, 1)]

    def kernel(self, j, k):
        """Magnitudes of an entry of G: the point's power over the product of the differences."""
        rest = [math.prod(self.BE[t, 0, e] for t in range(self.finite) if t != j) for e in (0, 1)]
        to = [self.X[j, e] ** k * self.BE[j, 0, e] ** (self.finite - 1) * rest[e] for e in (0, 1)]
        low, high = self.differences(j)
        return to[0] / high, to[1] / low if low > 0 else math.inf


def drawn_boxes(count, seed):
    """Boxes of one set of points, and wider ones; points are often special."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        infinity = bool(k % 2)
        size = int(rng.integers(3, 6)) if infinity else int(rng.integers(4, 6))
        us = set(map(float, rng.choice(SPECIAL[1:], int(rng.integers(0, size + 1)), replace=False)))
        if k % 3 == 0:
            us = {u for p in rng.choice([0.25, 0.5, 0.75, 1.0, 1.25, 1.5], size // 2, replace=False) for u in (-p, p)}
        while len(us) < size:
            us.add(round(float(rng.uniform(-1.95, 1.95)), 2))
        yield Box(sorted(us), [0.0, 0.0, 0.001, 0.02, 0.3][k % 5], infinity)


def divided(x, y):
    """Quotients of magnitudes in two intervals."""
    return (x[0] / y[1] if 0 < y[1] < math.inf else 0.0), (x[1] / y[0] if y[0] > 0 else math.inf)


def test_what_is_chosen_on_a_box_is_what_its_intervals_allow():
    """Zeros, products that are rounded, and ratios that may be powers of two, from the entries of the transforms themselves."""
    for box in drawn_boxes(200, 7):
        n, finite = box.n, box.finite
        scale = math.prod(box.BE[j, 0, 1] + np.abs(box.AL[j, 0]).max() for j in range(n))
        bounded = all(box.BE[j, 0, 0] > 0 for j in range(finite))
        for j in range(n):
            low, high = (np.abs(box.AL[j, 0]).min(), np.abs(box.AL[j, 0]).max()) if j < finite else (math.inf, math.inf)
            expected = divided((low, high), box.BE[j, 0]) if j < finite else (math.inf, math.inf)
            assert tuple(box.X[j]) == pytest.approx(expected)
            assert box.sum_G[j] == (j < finite and low > 0)
            for i in range(box.m):
                assert box.mult_A[i, j] == (i > 0 and j < finite and not holds_power(box.X[j, 0] ** i, box.X[j, 1] ** i))
            for c in range(n):
                a, b = box.B[j, c, 0]
                assert box.zero_B[j, c] == (a <= 1e-11 * scale and b >= -1e-11 * scale)
                assert box.mult_B[j, c] == (bounded and not box.zero_B[j, c] and not holds_power(*box.entry(j, c)))
                for q in range(j):
                    one, two = (np.multiply(box.size(row, c), box.beta(row)) for row in (j, q))
                    assert box.ratio_B[j, q, c] == box.ratio_B[q, j, c] == holds_power(*divided(one, two))
            apart = j < finite and box.differences(j)[0] > 0
            for k in range(3):
                assert box.mult_G[j, k] == (bounded and apart and (k == 0 or low > 0) and not holds_power(*box.kernel(j, k)))
                for q in range(min(j, finite)):
                    shared = j < finite
                    if shared and box.BE[j, 0, 0] > 0 and box.BE[q, 0, 0] > 0 and apart and box.differences(q)[0] > 0:
                        to = [[box.beta(row)[e] ** (finite - 2) * box.X[row, e] ** k for e in (0, 1)] for row in (j, q)]
                        powers, others = divided(*to), divided(box.differences(q), box.differences(j))
                        shared = holds_power(powers[0] * others[0], powers[1] * others[1])
                    assert box.ratio_G[j, q, k] == box.ratio_G[q, j, k] == shared


def row_trees(box, i):
    """The trees of a row of AT: powers of the points, of infinity only in the last row."""
    lo, hi = box.X[:, 0] ** i, box.X[:, 1] ** i
    present, maybe = np.ones(box.n, bool), (i > 0) & (box.X[:, 0] <= 0)
    if box.infinity:
        present[-1], maybe[-1], lo[-1], hi[-1] = i == box.m - 1, False, 1.0, 1.0
    return {word(tree) for tree in trees_with_options(lo, hi, present, maybe)}


def lists_of(box):
    found = unlisted(box.of)
    lists.list_trees(box.of, box.B, box.chosen, found)
    return found


def test_the_trees_of_both_transforms_are_listed():
    for box in drawn_boxes(100, 8):
        trees_B, trees_A, count_B, count_A, sums_B = lists_of(box)
        for j in range(box.n):
            sizes = np.array([box.size(j, c) for c in range(box.n)])
            maybe = box.zero_B[j] & (sizes[:, 1] > 0)
            trees = trees_with_options(sizes[:, 0], sizes[:, 1], ~box.zero_B[j], maybe)
            if len(trees) > choices.TREES:
                assert count_B[j] == -1
                assert int(sums_B[j]) == 2**64 - 1
                continue
            assert int(sums_B[j]) == word(set().union(*trees))
            zeros = sum(1 << c for c in range(box.n) if box.zero_B[j, c])
            kept = {word({mask & ~zeros for mask in tree if (mask & ~zeros).bit_count() > 1}) for tree in trees}
            assert listed(trees_B[j], count_B[j]) == kept
        for i in range(box.m):
            trees = row_trees(box, i)
            if len(trees) > choices.TREES:
                assert count_A[i] == -1
            else:
                assert listed(trees_A[i], count_A[i]) == trees


def shares_of(box, sums_B, room_=2000):
    shares = np.full((room_, 4), 99)
    return lists.list_shares(box.of, box.entries, box.chosen, sums_B, shares), shares


def test_what_two_rows_may_round_once_is_listed():
    """Products of a power of two as ratio, sums over such columns that both rows may have, and the sum of a point and its opposite."""
    widened = 1 + choices.SLACK
    for box in drawn_boxes(200, 9):
        sums_B = lists_of(box).sums_B
        expected = []
        for j, q in itertools.combinations(reversed(range(box.n)), 2):
            both = {c for c in range(box.n) if box.zero_B[j, c] and box.zero_B[q, c]}
            alike = {c for c in range(box.n) if box.ratio_B[j, q, c]} - both
            expected += [(0, j, q, 1 << c) for c in alike if box.mult_B[j, c] or box.mult_B[q, c]]
            common = [mask for mask in range(64) if (int(sums_B[j] & sums_B[q]) >> mask) & 1]
            for size in range(2, box.n + 1):
                for some in itertools.combinations(sorted(alike), size):
                    ratios = [divided(box.size(j, c), box.size(q, c)) for c in some]
                    low, high = max(a for a, _ in ratios), min(b for _, b in ratios)
                    certain = [c for c in some if not box.zero_B[j, c] and not box.zero_B[q, c]]
                    signs = {bool((box.B[j, c, 0, 0] > 0) == (box.B[q, c, 0, 0] > 0)) for c in certain}
                    factor = divided(box.beta(j), box.BE[q, 0])
                    power = holds_power(min(low, high) * factor[0], max(low, high) * factor[1])
                    mask = sum(1 << c for c in some)
                    seen = any(one & ~sum(1 << c for c in both) == mask for one in common)
                    if len(signs) < 2 and low * (1 - choices.SLACK) <= high * widened and power and seen:
                        expected.append((0, j, q, mask))
            expected += [(1, j, q, 1 << k) for k in range(3) if box.ratio_G[j, q, k] and (box.mult_G[j, k] or box.mult_G[q, k])]
            meet = box.X[j, 0] <= box.X[q, 1] * widened and box.X[q, 0] <= box.X[j, 1] * widened
            unit = box.X[j, 0] <= widened and box.X[j, 1] >= 1 - choices.SLACK
            if j < box.finite and box.AL[q, 0, 0] <= 0 <= box.AL[j, 0, 1] and meet and unit:
                expected.append((1, j, q, 5))
        count, shares = shares_of(box, sums_B)
        assert sorted(map(tuple, shares[:count].tolist())) == sorted(expected)
        for less in range(0, len(expected), 3):
            assert shares_of(box, sums_B, less)[0] == -1
        assert shares_of(box, sums_B, len(expected))[0] == len(expected)


def least_square(ends):
    return 0.0 if ends[0] <= 0 <= ends[1] else min(ends[0] ** 2, ends[1] ** 2)


def largest_cosines(rows):
    """Bounds of the cosines of rows of intervals."""
    n = len(rows)
    found = np.zeros((n, n))
    for j, q in itertools.permutations(range(n), 2):
        products = [interval_product(x, y) for x, y in zip(rows[j], rows[q], strict=True)]
        most = max(abs(sum(p[0] for p in products)), abs(sum(p[1] for p in products)))
        lengths = math.prod(sum(map(least_square, rows[row])) for row in (j, q))
        found[j, q] = min(1.0, most / math.sqrt(lengths)) if lengths else 1.0
    return found


def kept_of(shared, cosines):
    """What is left of each row's roundings: all alone, one less the cosine with one partner, nothing of more."""
    n = len(shared)
    partners = [[q for q in range(n) if q != j and shared[j, q]] for j in range(n)]
    alone = lambda j: len(partners[j]) == 1 and len(partners[partners[j][0]]) == 1
    return np.array([1.0 if not partners[j] else 1 - cosines[j, partners[j][0]] if alone(j) else 0.0 for j in range(n)])


@pytest.mark.parametrize("dims", [1, 2])
def test_the_quick_limit_adds_the_least_of_each_term(dims):
    for box in drawn_boxes(100, 10):
        n, m = box.n, box.m
        cost = lambda squares: float(choices.least_cost(np.array([*squares, 0.0]), len(squares)))
        G = np.array([[least_square(box.G[j, k, 0]) for k in range(3)] for j in range(n)])
        B = np.array([[least_square(box.B[j, c, 0]) for c in range(n)] for j in range(n)])
        cos_G, cos_B = largest_cosines(box.G[:, :, 0]), largest_cosines(box.B[:, :, 0])
        kernel, input_ = np.zeros(n), np.zeros(n)
        for k in range(3):
            kernel += G[:, k] * box.mult_G[:, k] * kept_of(box.ratio_G[:, :, k], cos_B)
        kernel += box.sum_G * kept_of(box.ratio_G[:, :, 0] & box.ratio_G[:, :, 2], cos_B) * [cost(row) for row in G]
        for c in range(n):
            input_ += B[:, c] * box.mult_B[:, c] * kept_of(box.ratio_B[:, :, c], cos_G)
        sums = [cost(B[j, ~box.zero_B[j]]) for j in range(n)]
        input_ += kept_of(box.ratio_B.sum(axis=2) > 1, cos_G) * sums
        gamma, length = G.sum(axis=1), B.sum(axis=1)
        e, p, o = np.zeros(m), np.zeros(m), np.full(m, 3.0)
        for j in range(n):
            scale = math.prod(box.D[max(j, t), min(j, t), 0, 1] for t in range(n) if t != j)
            for i in range(m):
                a = least_square(box.AL[j, 0]) ** i * box.BE[j, 0, 0] ** (2 * (m - 1 - i)) / max(scale**2, 1e-200)
                e[i] += a * (length[j] * kernel[j] + gamma[j] * input_[j])
                p[i] += a * length[j] * gamma[j]
                o[i] += a * length[j] * gamma[j] * box.mult_A[i, j]
        if dims == 1:
            variances = e + p + o
        else:
            variances = np.array([[3 * e[i] + p[i] * e[j] + p[i] * p[j] + o[i] * p[j] + 3 * o[j] for j in range(m)] for i in range(m)])
        found = quick_limit(box.of._replace(dims=dims), box.entries, box.chosen)
        assert found == pytest.approx(np.sqrt(variances).mean(), rel=1e-9)


LIMITS = [
    ((-1.5, -0.5, 0.3), 0.1, True, 1, 99, 4.184917489, (12.18147795, 9.306208903, 12.41168012)),
    ((-1.3, -0.4, 0.2, 0.8), 0.008, True, 2, 99, 26.17098156, (0.4131623633, 0.8028590918, 0.5824529531, 0.3362806731)),
    ((-1.2, -0.6, 0.3, 1.4), 0.02, False, 1, 99, 6.373646438, (0.2408697258, 0.7624681717, 0.5253231628, 0.2700283016)),
    ((-1.5, -0.5, 0.1, 0.45, 1.25), 0.01, True, 1, 99, 9.338022636, (0.2671796786, 0.4565942399, 0.8282790853, 0.7898560718, 0.3224252484)),
    ((-1.25, -0.5, 0.25, 0.45, 1.25), 0.01, False, 2, 99, 62.4973954, (7.470014217, 21.9424606, 88.01862363, 86.5661384, 16.8856539)),
    ((-1.0, 0.0, 1.0), 0, True, 2, 99, 12.20655562, (0.0, 0.0, 0.0)),
    ((-0.5, 0.0, 0.5, 1.0), 0, True, 1, 99, 10.99570007, (0.0, 0.0, 0.0, 0.0)),
    ((-0.5, 0.0, 0.5, 1.0), 0.003, True, 2, 99, 60.664144, (0.3272293967, 0.1650723904, 0.167169444, 0.1345033996)),
    ((-0.5, 0.5, 1.0), 0.01, True, 1, 99, 7.552941775, (0.04666338155, 0.1066258579, 0.03324988883)),
    ((-1.3, -0.4, 0.2, 0.8), 0.1, True, 1, 99, 2.219759831, (2e299, 2e299, 2e299, 2e299)),
    ((-1.3, -0.4, 0.2, 0.8), 0.008, True, 2, 1.0, 16.44729331, (0.0, 0.0, 0.0, 0.0)),
    ((-1.3, -0.4, 0.2, 0.8), 0.008, True, 2, 26.0, 26.17098156, (0.4131623633, 0.8028590918, 0.5824529531, 0.3362806731)),
    ((-1.7, -0.9, -0.4, 0.2, 0.8), 0.003, True, 2, 99, 67.66004411, (0.1681726857, 0.1593964132, 0.2847166409, 0.2222743558, 0.1386734032)),
    ((-0.75, -0.25, 0.25, 0.75), 0.001, False, 2, 99, 63.94753318, (0.09349602282, 0.03985318517, 0.04009611395, 0.09351564713)),
]
"""Points, how far the box goes to both sides, infinity, dimension, what is enough; the limit and what each coordinate answers for."""


@pytest.mark.parametrize(("us", "width", "infinity", "dims", "enough", "limit", "slopes"), LIMITS)
def test_limits_do_not_get_looser(us, width, infinity, dims, enough, limit, slopes):
    """Computed once: a looser limit proves less, and is below the errors all the same."""
    lo = np.array([max(u - width, math.floor(u)) if width else u for u in us])
    hi = np.array([min(u + width, math.floor(u) + 1) if width else u for u in us])
    result = np.empty(len(us))
    found = limit_of_box(lo, hi, Size(infinity, len(us) + infinity - 2, 3, dims), float(enough), result)
    assert found == pytest.approx(limit, rel=1e-7)
    assert result == pytest.approx(slopes, rel=1e-7)


@pytest.mark.parametrize(
    ("m", "dims", "infinity", "goal", "size", "examined", "value"),
    [(2, 1, True, 4.3, 288, 600, 2.44559369), (2, 2, False, 7.5, 295, 601, 3.284527553), (3, 1, True, 7.5, 297, 600, 1.919509438)],
)
def test_boxes_are_split_in_the_order_of_their_limits(m, dims, infinity, goal, size, examined, value):
    state = start(m, 3, dims, infinity, goal, room=3000)
    begun = state.boxes[state.heap[: state.size]].copy()
    assert {tuple(box[0]) for box in begun} == {
        cells for cells in itertools.combinations_with_replacement((-2.0, -1.0, 0.0, 1.0), m + 2 - infinity) if sum(cells) <= 0
    }
    assert (begun[:, 1] - begun[:, 0] == 1).all()
    state.run(600)
    assert (state.size, state.examined) == (size, examined)
    assert state.value == pytest.approx(value, rel=1e-7)
    assert sorted(state.heap) == list(range(3000))
    of = [state.limits[number] for number in state.heap[:size]]
    assert all(of[(k - 1) // 2] <= of[k] < goal for k in range(1, size))
    boxes = state.boxes[state.heap[:size]]
    assert (boxes[:, 0].sum(axis=1) <= 0).all()
    assert (boxes[:, 0, :-1] < boxes[:, 1, 1:]).all()
    assert len({box.tobytes() for box in boxes}) == size
    widths = np.log2(boxes[:, 1] - boxes[:, 0])
    assert (widths == np.round(widths)).all()  # each is a half of a half of a cell


def test_boxes_of_ascending_points_are_possible():
    assert possible(np.array([-1.0, -0.5]), np.array([0.0, 0.5]))
    assert not possible(np.array([0.0, -1.0]), np.array([1.0, 0.0]))  # only at one point, where both are the same
    assert possible(np.array([0.0, -1.0]), np.array([1.0, 0.1]))
    assert possible(np.array([-0.5, 0.5]), np.array([0.0, 1.0]))
    assert not possible(np.array([-0.5, 0.6]), np.array([0.0, 1.0]))

"""Certified limits: the bound on a box against the errors of sets in it, the jets, branch and bound to the end, the shipped table."""

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
from fastconv.search.limit.box import limit_of_box, places, room, transforms
from fastconv.search.limit.certified import MARGIN, first_order_error, limits, load, scale_of, start

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
    limit = limit_of_box(np.array(lo), np.array(hi), infinity, n - 2, 3, dims, math.inf, np.empty(len(us)))
    assert limit <= error(us, infinity, dims, order) * (1 + 1e-5)


@pytest.mark.parametrize("infinity", [True, False])
@pytest.mark.parametrize("dims", [1, 2])
def test_narrow_boxes_give_the_error_itself(infinity, dims):
    """Without special values the limit goes to the least error over the orders of the points: here n = 4, all orders."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        us = np.sort(rng.choice(np.arange(-18, 19), 4 - infinity, replace=False) / 10 + 0.0137)
        least = min(error(us, infinity, dims, order) for order in itertools.permutations(range(len(us))))
        got = [limit_of_box(us - w, us + w, infinity, 2, 3, dims, math.inf, np.empty(len(us))) for w in (1e-3, 1e-5, 1e-7)]
        assert got[0] <= got[1] * (1 + 1e-9)
        assert 0.999 * least < got[2] <= least * (1 + 1e-5)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_the_shipped_sets_are_near_the_limit_of_their_place(n):
    """Zeros, powers of two, shared values and ties are granted where they are: little is given away there."""
    row = best_row(n - 2, 3, 1)
    points = sorted(Fraction(p) for p in row["points"].split()[:-1])
    us = np.array([float(p if abs(p) <= 1 else 2 - 1 / p if p > 0 else -2 - 1 / p) for p in points])
    limit = limit_of_box(us, us, True, n - 2, 3, 1, math.inf, np.empty(n - 1))
    assert 0.96 < limit / (first_order_error(fc.toom_cook(n - 2, 3, row["points"].split()), 1) / UNIT) <= 1 + 1e-5


@given(st.lists(st.integers(-63, 63), min_size=5, max_size=5, unique=True), st.integers(0, 2**32 - 1))
def test_jets_hold_exact_entries_and_their_derivatives(numerators, seed):
    rng = np.random.default_rng(seed)
    us = np.sort(np.array(numerators) / 32 + 1 / 64)
    lo, hi = us - rng.integers(0, 17, 5) / 1024, us + rng.integers(0, 17, 5) / 1024
    Q = np.empty((room(5, 3, 3), 6, 2))
    transforms(lo, hi, False, 5, 3, Q)
    _, _, B, G = places(5, 3)
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

"""Complex points: exact construction and proof, sums of mirrored inputs, their error, layers that run them."""

import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv as fc
from fastconv.exact import Gaussian, exact_point, half_angle_root, to_text
from fastconv.program import program_of, programs_of
from fastconv.program.fold import folded, transposed

PARTS = st.fractions(-3, 3, max_denominator=5)
NUMBERS = st.builds(Gaussian, PARTS, PARTS.filter(bool))
CIRCLE = {n: fc.toom_cook(n - 4, 5, fc.circle_points(n)) for n in (6, 9, 10, 18)}


@st.composite
def algorithms(draw):
    """Real and complex points together, n up to 9."""
    pairs, reals, r = draw(st.integers(1, 3)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
    n = reals + 2 * pairs
    r = min(r, n)
    upper = draw(st.lists(NUMBERS, min_size=pairs, max_size=pairs, unique_by=lambda z: (z.re, abs(z.im))))
    finite = draw(st.lists(PARTS, min_size=reals, max_size=reals, unique=True))
    if finite and draw(st.booleans()):
        finite[0] = fc.INF
    return fc.toom_cook(n - r + 1, r, draw(st.permutations([*upper, *finite])))


def multiply(matrix, v):
    return [sum((e * t for e, t in zip(row, v, strict=True)), Fraction(0)) for row in matrix]


@given(NUMBERS, NUMBERS)
def test_gaussian_numbers_are_complex_numbers(a, b):
    """Parts of up to 5ths: a quotient's are below 30 with denominators below 2**20, so float64 tells them apart."""
    x, y = complex(a.re, a.im), complex(b.re, b.im)
    for exact, near in ((a + b, x + y), (a - b, x - y), (a * b, x * y), (a / b, x / y), (a**3, x**3)):
        assert abs(complex(exact.re, exact.im) - near) <= 1e-12 * max(1, abs(near))
    assert exact_point(to_text(a)) == a


@pytest.mark.parametrize(("text", "re", "im"), [("I", 0, 1), ("-I", 0, -1), ("1/2 - 3/4*I", "1/2", "-3/4"), ("0.6+0.8*I", "3/5", "4/5")])
def test_complex_points_are_read_from_text(text, re, im):
    assert exact_point(text) == Gaussian(Fraction(re), Fraction(im))


@given(algorithms())
@settings(max_examples=40)
def test_any_complex_points_are_proved(alg):
    alg.verify()
    assert alg.products == alg.n + sum(isinstance(p, Gaussian) for p in alg.points)
    assert fc.BilinearAlgorithm.from_json(alg.to_json()) == alg


@given(algorithms(), st.data())
@settings(max_examples=40)
def test_equals_direct_convolution_in_rationals(alg, data):
    w = data.draw(st.lists(PARTS, min_size=alg.r, max_size=alg.r))
    x = data.draw(st.lists(PARTS, min_size=alg.n, max_size=alg.n))
    y = multiply(alg.AT, [a * b for a, b in zip(multiply(alg.G, w), multiply(alg.BT, x), strict=True)])
    assert y == [sum(w[k] * x[i + k] for k in range(alg.r)) for i in range(alg.m)]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (["I", "-I"], "includes its conjugate"),
        (["I", 0], "complex ones twice"),
        (["I", "sqrt(2)", 0], "irrational or holds a symbol"),
        (["I", 0, "inf", 1, 2], "exactly n = m + r - 1 = 4"),
    ],
)
def test_wrong_complex_points_are_refused(points, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fc.toom_cook(2, 3, points)


@pytest.mark.parametrize("n", [*range(4, 24), 34, 50])
def test_circle_points_are_apart_on_the_circle(n):
    points = fc.circle_points(n)
    pairs = [p for p in points if isinstance(p, Gaussian)]
    assert len(points) + len(pairs) == n
    assert all(z.norm == 1 and z.im > 0 for z in pairs)
    angles = sorted(float(np.angle(complex(z.re, z.im))) for z in pairs)
    # Equal parts are 2 pi / (n - 2) wide; the nearest rational point is within a tenth of one.
    assert all(abs(a - 2 * np.pi * (k + 1) / (n - 2)) < 0.1 * 2 * np.pi / (n - 2) for k, a in enumerate(angles))


@pytest.mark.parametrize(("given", "kind"), [(3, ValueError), (2.0, TypeError), (True, TypeError)])
def test_no_circle_of_that_size(given, kind):
    with pytest.raises(kind, match="tile"):
        fc.circle_points(given)


def test_entries_stay_small_on_the_circle():
    """Where real points have entries beyond 1000: sines and cosines, but for the correction of what wraps around."""
    alg = CIRCLE[18]
    assert max(abs(e) for row in (*alg.AT, *alg.BT) for e in row) < 3
    real = fc.toom_cook(14, 5, fc.best_points(14, 5))
    assert max(abs(e) for row in (*real.AT, *real.BT) for e in row) > 1000


@given(NUMBERS)
def test_the_root_has_half_the_angle(z):
    w = z * z / z.norm  # on the circle
    root = half_angle_root(w)
    if root is not None:
        half = np.angle(complex(w.re, w.im)) / 2
        assert abs(np.angle(complex(root.re, root.im)) - half) < 1e-12


@given(
    st.lists(st.lists(st.sampled_from([Fraction(k, 2) for k in range(-2, 3)]), min_size=5, max_size=5).filter(any), min_size=1, max_size=5)
)
def test_folding_multiplies_to_the_matrix(rows):
    for mirrored in (rows, [[*row, *row[::-1]] for row in rows], [[*row, *(-e for e in row[::-1])] for row in rows]):
        total = [[Fraction(int(i == j)) for j in range(len(mirrored[0]))] for i in range(len(mirrored[0]))]
        for factor in folded(mirrored):
            assert all(any(row) for row in factor)
            total = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in transposed(total)] for row in factor]
        assert total == mirrored


@pytest.mark.parametrize(("n", "order"), list(product(CIRCLE, ["huffman+folded", "huffman+shared+folded+fma", "pairwise+folded"])))
def test_folded_programs_are_the_matrices(n, order):
    alg, programs = CIRCLE[n], programs_of(CIRCLE[n], order)
    assert (programs.output.matrix(), programs.kernel.matrix(), programs.input.matrix()) == (alg.AT, alg.G, alg.BT)


def test_folding_halves_the_operations_on_the_circle():
    for matrix in (CIRCLE[18].AT, CIRCLE[18].BT):
        plain, less = program_of(matrix, "huffman").counts, program_of(matrix, "huffman+folded").counts
        assert less.adds < 0.5 * plain.adds
        assert less.muls < 0.55 * plain.muls


@pytest.mark.parametrize(
    ("alg", "dims"), [(CIRCLE[10], 1), (CIRCLE[18], 1), (CIRCLE[10], 2), (fc.toom_cook(3, 3, [0, "inf", "1/2", "2*I"]), 2)]
)
def test_the_predicted_error_is_the_measured_one(alg, dims):
    """Normal inputs, 8 channels: the mean over 6 blocks of tiles, within 5 % and three standard errors."""
    settings = {"dims": dims, "order": "huffman+folded", "channels": 8, "inputs": "normal"}
    measured = [fc.measure_error(alg, trials=60, seed=seed, **settings).rms for seed in range(6)]
    predicted = fc.predict_error(alg, **settings).rms
    assert abs(np.mean(measured) - predicted) < 0.05 * predicted + 3 * np.std(measured) / np.sqrt(5)


def test_the_error_hardly_grows_with_the_tile():
    """From n = 6 to 18 by less than a half, where the best real points lose more than three digits."""
    circle = [fc.predict_error(CIRCLE[n], dims=2, order="huffman+folded").relative_l2 for n in (6, 18)]
    assert circle[1] < 1.5 * circle[0]
    real = [fc.predict_error(fc.toom_cook(n - 4, 5, fc.best_points(n - 4, 5)), dims=2).relative_l2 for n in (6, 18)]
    assert real[1] > 1000 * real[0]


def test_what_is_known_is_named_where_a_number_of_pairs_is_not():
    with pytest.raises(ValueError, match="3 pairs of complex points asked for F\\(3,3\\) in 2-D: sets are known with 1"):
        fc.complex_points(3, 3, 3)
    with pytest.raises(ValueError, match="no set is known"):
        fc.complex_points(2, 3, 3)

"""Exact algorithms: construction, proof, text, the catalogue."""

import json
from fractions import Fraction
from itertools import product

import ml_dtypes
import numpy as np
import pytest
import sympy
from hypothesis import assume, given
from hypothesis import strategies as st

import fastconv as fc
from fastconv.algebra import best_algorithm, name_of, parse_name, published_sources

POINTS = st.fractions(-4, 4, max_denominator=6)


@st.composite
def algorithms(draw, largest=8):
    m, r = draw(st.integers(1, largest - 1)), draw(st.integers(1, 5))
    assume(m + r - 1 <= largest)
    n = m + r - 1
    finite = draw(st.lists(POINTS, min_size=n, max_size=n, unique=True))
    if draw(st.booleans()):
        finite[draw(st.integers(0, n - 1))] = fc.INF
    return fc.toom_cook(m, r, finite)


def convolve(w, x):
    return [sum(w[k] * x[i + k] for k in range(len(w))) for i in range(len(x) - len(w) + 1)]


def apply(matrix, v):
    return [sum((e * t for e, t in zip(row, v, strict=True)), Fraction(0)) for row in matrix]


@given(algorithms())
def test_any_rational_points_verify(alg):
    alg.verify()


@given(algorithms(6), st.data())
def test_equals_direct_convolution_in_rationals(alg, data):
    """The oracle is the definition of convolution, on random data, not the identity that `verify` checks."""
    w = data.draw(st.lists(POINTS, min_size=alg.r, max_size=alg.r))
    x = data.draw(st.lists(POINTS, min_size=alg.n, max_size=alg.n))
    products = [a * b for a, b in zip(apply(alg.G, w), apply(alg.BT, x), strict=True)]
    assert apply(alg.AT, products) == convolve(w, x)


def run(alg, w, x):
    return apply(alg.AT, [a * b for a, b in zip(apply(alg.G, w), apply(alg.BT, x), strict=True)])


@given(algorithms(6), st.data())
def test_linear_and_shift_equivariant(alg, data):
    """Linear in the kernel and in the tile; the tile one further along gives the outputs one further along."""
    vector = lambda size: data.draw(st.lists(POINTS, min_size=size, max_size=size))
    w, v, x, z, c = vector(alg.r), vector(alg.r), vector(alg.n + 1), vector(alg.n + 1), data.draw(POINTS)
    first, second = x[:-1], x[1:]
    mixed = lambda a, b: [s + c * t for s, t in zip(a, b, strict=True)]
    assert run(alg, mixed(w, v), first) == mixed(run(alg, w, first), run(alg, v, first))
    assert run(alg, w, mixed(first, z[:-1])) == mixed(run(alg, w, first), run(alg, w, z[:-1]))
    assert run(alg, w, first)[1:] == run(alg, w, second)[:-1]


@given(algorithms(6), st.data())
def test_text_round_trip(alg, data):
    again = fc.BilinearAlgorithm.from_json(alg.to_json())
    assert again == alg
    assert hash(again) == hash(alg)


@given(algorithms(7), st.data())
def test_any_changed_entry_is_caught(alg, data):
    name = data.draw(st.sampled_from(["AT", "G", "BT"]))
    text = json.loads(alg.to_json())
    i = data.draw(st.integers(0, len(text[name]) - 1))
    j = data.draw(st.integers(0, len(text[name][0]) - 1))
    text[name][i][j] = str(Fraction(text[name][i][j]) + Fraction(1, 1000))
    with pytest.raises(fc.VerificationError, match="coefficient of w_"):
        fc.BilinearAlgorithm.from_json(json.dumps(text))


def test_matrices_of_the_literature():
    """F(2,3) as Lavin and Gray print it, up to the signs of whole products."""
    alg = fc.toom_cook(2, 3, [0, 1, -1, "inf"])
    half = Fraction(1, 2)
    G = [[1, 0, 0], [half, half, half], [half, -half, half], [0, 0, 1]]
    BT = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
    AT = [[1, 1, 1, 0], [0, 1, -1, -1]]
    columns = list(zip(*AT, strict=True))
    ours = list(zip(*alg.AT, strict=True))
    for j in range(4):
        terms = [[[a * g * b for b in row_b] for g in row_g] for row_b, row_g in ((BT[j], G[j]),) for a in columns[j]]
        found = [[[a * g * b for b in alg.BT[j]] for g in alg.G[j]] for a in ours[j]]
        assert terms == found


@pytest.mark.parametrize(
    ("points", "kappa"),
    [
        ("0 1 -1 2 -2", 42.472),
        ("0 5/6 -5/6 7/6 -7/6", 14.546),
        ("0 1 -1 2 -2 1/2 -1/2", 936.774),
        ("0 2/5 -2/5 5/6 -5/6 1 -1 7/6 -7/6", 474.1006),
    ],
)
def test_condition_numbers_of_the_literature(points, kappa):
    """The square Vandermonde of the finite points, from AT of F(n-1, 1), against figures printed with three or four decimals."""
    finite = points.split()
    alg = fc.toom_cook(len(finite), 1, finite)
    assert np.linalg.cond(alg.matrices("f8").AT) == pytest.approx(kappa, abs=6e-4)


def test_onednn_constants_come_out():
    """The constants that oneDNN prints for G of its F(4x4,3x3), the last of them good to seven digits only."""
    G = fc.toom_cook(4, 3, fc.published_points("onednn", 6)).matrices("f8").G
    printed = [
        0.119514452455649,
        0.179271708683473,
        0.26890756302521,
        0.26890756302521,
        0.430252100840336,
        0.688403361344538,
        1.13777777777778,
    ]
    ours = sorted(abs(e) for row in (G[0], G[2], G[4]) for e in row if e)
    assert ours == pytest.approx(printed, rel=3e-7)


def test_symbols_and_square_roots():
    c = sympy.Symbol("c")
    alg = fc.toom_cook(4, 3, [0, -1 / c, -c, c, 1 / c, fc.INF])
    alg.verify()
    assert alg.subs(c, Fraction(5, 8)) == fc.toom_cook(4, 3, [0, "-8/5", "-5/8", "5/8", "8/5", "inf"])
    irrational = fc.toom_cook(4, 3, ["0", "sqrt(2)", "-sqrt(2)", "sqrt(2)/2", "-sqrt(2)/2", "inf"])
    irrational.verify()
    assert alg.subs("c", "sqrt(2)/2").BT[1] == irrational.BT[2]
    assert fc.BilinearAlgorithm.from_json(irrational.to_json()) == irrational
    positive = sympy.Symbol("c", positive=True)
    assumed = fc.toom_cook(2, 3, [0, positive, -positive, fc.INF])
    assert fc.BilinearAlgorithm.from_json(assumed.to_json()) == assumed


def test_symbols_have_no_floats():
    c = sympy.Symbol("c")
    alg = fc.toom_cook(2, 3, [0, c, -c, fc.INF])
    with pytest.raises(ValueError, match="holds the symbol c"):
        alg.matrices("f4")
    with pytest.raises(ValueError, match="holds no symbol d"):
        alg.subs("d", 1)
    with pytest.raises(ValueError, match="c = 0 does not fit"):
        alg.subs("c", 0)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16])
def test_entries_are_rounded_once(dtype):
    """Each entry lies nearest to its exact value: checked with rationals against both neighbours."""
    alg = fc.algorithm("F(6,3)")
    for exact, array in zip((alg.AT, alg.G, alg.BT), alg.matrices(dtype), strict=True):
        assert array.dtype == np.dtype(dtype)
        for (i, j), value in np.ndenumerate(array):
            error = abs(Fraction(float(value)) - exact[i][j])
            for way in (-np.inf, np.inf):
                neighbour = np.nextafter(value, np.asarray(way, value.dtype))
                assert error <= abs(Fraction(float(neighbour)) - exact[i][j])


def test_entries_beyond_a_format_are_named():
    alg = fc.toom_cook(16, 3, [*range(17), "inf"])
    with pytest.raises(ValueError, match=r"AT\[4\]\[16\] = 65536 is beyond the largest number of fp16"):
        alg.matrices("float16")


@pytest.mark.parametrize(
    ("points", "kind", "message"),
    [
        ([0, 1, 1, "inf"], ValueError, "point 1 is given twice"),
        ([0, 1, "2/2", "inf"], ValueError, "point 1 is given twice"),
        ([0, 1, "inf", "inf"], ValueError, "point inf is given twice"),
        ([0, 1, "inf"], ValueError, "3 points given"),
        ([0, 1, -1, 2, "inf"], ValueError, "5 points given"),
        ([0, 1.5, -1, "inf"], TypeError, "pass a string"),
        ([0, float("nan"), -1, "inf"], ValueError, "not a number"),
        ("0,1,-1,inf", TypeError, "pass a list"),
        ([0, "sqrt(2)", "2/sqrt(2)", "inf"], ValueError, "given twice"),
    ],
)
def test_bad_points_are_refused(points, kind, message):
    with pytest.raises(kind, match=message) as caught:
        fc.toom_cook(2, 3, points)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("m", "r", "kind"), [(0, 3, ValueError), (2, 0, ValueError), (2.0, 3, TypeError), (True, 3, TypeError), (300, 3, ValueError)]
)
def test_bad_sizes_are_refused(m, r, kind):
    with pytest.raises(kind):
        fc.toom_cook(m, r, [0, 1, -1, "inf"])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "fastconv-bilinear-1"}', "\x00", '{"format": "fastconv-bilinear-1", "m": 2, "r": 1, "points": 3}']
)
def test_damaged_text_is_refused(text):
    with pytest.raises(ValueError, match="not "):
        fc.BilinearAlgorithm.from_json(text)


def test_foreign_matrices_are_proved():
    with pytest.raises(fc.VerificationError):
        fc.BilinearAlgorithm.from_matrices([[1, 1, 0], [0, 1, 1]], [[1, 0], ["1/2", "1/3"], [0, 1]], [[1, -1, 0], [0, 2, 0], [0, -1, 1]])


@given(algorithms(6), st.data())
def test_scaling_keeps_the_algorithm(alg, data):
    factors = st.lists(st.sampled_from([Fraction(1, 2), Fraction(3), Fraction(-1), Fraction(5, 7)]), min_size=alg.n, max_size=alg.n)
    alg.scaled(dB=data.draw(factors)).verify()
    alg.scaled(dA=data.draw(factors), dG=data.draw(factors)).verify()


def test_balance_brings_rows_to_the_scale_of_the_data():
    alg = fc.toom_cook(8, 3, fc.published_points("barabasz2020", 10)).balanced("fp16")
    alg.verify()
    for matrix in (alg.G, alg.BT):
        norms = np.linalg.norm(np.array(matrix, dtype=float), axis=1)
        assert (norms >= np.sqrt(0.5) * (1 - 1e-12)).all()  # numpy's norm of <= 10 terms errs by less than 1e-12
        assert (norms <= np.sqrt(2.0) * (1 + 1e-12)).all()


def test_balance_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"AT\[\d+\]\[\d+\] = .* times the largest number of fp8_e4m3"):
        fc.toom_cook(8, 3, [0, 1, 2, 3, 4, 5, 6, 7, 8, "inf"]).balanced("fp8_e4m3")


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("F(4x4,3x3)", ((4, 4), (3, 3), (1, 1), (None, None))),
        ("f(4, 3)", ((4,), (3,), (1,), (None,))),
        ("winograd63", ((6, 6), (3, 3), (1, 1), (None, None))),
        ("f2x3", ((2, 2), (3, 3), (1, 1), (None, None))),
        ("b4f3", ((4, 4), (3, 3), (1, 1), (None, None))),
        ("F(14,3)", ((14,), (3,), (1,), (None,))),
        ("F(5x3,3x3)", ((5, 3), (3, 3), (1, 1), (None, None))),
        ("F(4x4,3x3)s2", ((4, 4), (3, 3), (2, 2), (None, None))),
        ("F(4x5,3x2)s2x1", ((4, 5), (3, 2), (2, 1), (None, None))),
        ("F(1x8,1x3)s2/12", ((1, 8), (1, 3), (1, 2), (None, 12))),
        (" F(8x8, 3x3) / 13x12 ", ((8, 8), (3, 3), (1, 1), (13, 12))),
    ],
)
def test_names(name, parsed):
    assert parse_name(name) == parsed


SIDES = st.tuples(st.sampled_from([(1, 1, 1, 0), (2, 3, 1, 0), (4, 3, 1, 0), (6, 3, 1, 1), (8, 5, 1, 2), (3, 3, 2, 0)]), st.booleans())


@given(st.lists(SIDES, min_size=1, max_size=2))
def test_a_name_that_is_written_is_read_as_it_was(sides):
    """What one part of fastconv prints all others take: rectangles, strides, complex points, and axes of one tap."""
    axes = tuple(best_algorithm(m, r, 2, m + r - 1 + pairs if pairs else None, stride) for (m, r, stride, pairs), _ in sides)
    name = name_of(axes)
    for text in (name, name.lower(), name.replace(",", " , ")):
        found = parse_name(text)
        assert (found.m, found.r) == (tuple(a.m for a in axes), tuple(a.r for a in axes))
        assert found.stride == tuple(a.stride for a in axes)
        more = tuple(a.products if a.products > a.n else None for a in axes)
        assert all(a in (b, c.n) for a, b, c in zip(found.products, more, axes, strict=True))


def test_one_algorithm_of_two_is_asked_for():
    with pytest.raises(ValueError, match=r"F\(5,3\) along the height and F\(3,3\) along the width: fastconv.algorithms gives both"):
        fc.algorithm("F(5x3,3x3)")
    assert [alg.m for alg in fc.algorithms("F(5x3,3x3)")] == [5, 3]
    assert fc.algorithms("F(4x4,3x3)") == (fc.algorithm("F(4x4,3x3)"),) * 2
    assert fc.algorithms("F(4x2,3x3)", "barabasz2020")[0] == fc.algorithm("F(4x4,3x3)", "barabasz2020")


@pytest.mark.parametrize("name", ["F(x)", "F(4x4,3)", "F(0,3)", "winograd", "", "F(4,3)x", "F(4,3)s0", "F(4,3)s2x2", "F(4x4,3x3)s2x"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="unknown algorithm"):
        fc.algorithm(name)


def test_the_catalogue_is_whole():
    """Each set has distinct points, infinity last, and every algorithm from it verifies."""
    found = 0
    for source, n, dims in product(published_sources(), range(1, 19), (1, 2)):
        try:
            points = fc.published_points(source, n, dims)
        except ValueError:
            continue
        found += 1
        assert len(points) == n
        assert points[-1] is fc.INF
        r = 3 if n > 3 else 1
        fc.toom_cook(n - r + 1, r, points)  # distinct, or refused
        if n <= 10:
            fc.toom_cook(n - r + 1, r, points).verify()
    assert found > 50
    for n in range(3, 19):
        assert len(fc.best_points(n - 2, 3, dims=1)) == len(fc.best_points(n - 2, 3)) == n


def test_unknown_sources_and_sizes_are_refused():
    with pytest.raises(ValueError, match="lavin2016, wincnn"):
        fc.published_points("lavin2015", 4)
    with pytest.raises(ValueError, match="it has n = 4, 6"):
        fc.published_points("lavin2016", 8)
    with pytest.raises(ValueError, match="sets are known to n = 18"):
        fc.best_points(30, 3)


@pytest.mark.parametrize("name", ["F(4,3)", "F(4x4,3x3)", "F(8x8,3x3)/13"])
def test_points_in_json_belong_to_the_matrices(name):
    alg = fc.algorithm(name)
    data = json.loads(alg.to_json())
    assert fc.BilinearAlgorithm.from_json(json.dumps(data)) == alg
    scaled = alg.balanced("fp32")
    assert fc.BilinearAlgorithm.from_json(scaled.to_json()) == scaled
    if len(alg.points) == alg.n:
        other = [point for point in ("7", "9", "11") if point not in data["points"]]
        data["points"] = [other[0], *data["points"][1:]]
        with pytest.raises(ValueError, match="the points do not belong to the matrices: no row of G is that of the point 7"):
            fc.BilinearAlgorithm.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp64", "float64"), ("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"), ("bfloat16", "bfloat16")]
)
def test_matrices_take_the_names_of_formats(name, dtype):
    made = fc.algorithm("F(2x2,3x3)").matrices(name)
    assert {matrix.dtype.name for matrix in made} == {dtype}
    np.testing.assert_array_equal(np.asarray(made.BT, float), fc.algorithm("F(2x2,3x3)").matrices().BT)
    with pytest.raises(TypeError, match="'tf32' is not a supported dtype: use one of fp64"):
        fc.algorithm("F(2x2,3x3)").matrices("tf32")

"""Evaluation and measurement: against rationals, mpmath, the published table, and the laws of convolution."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from fastconv.arithmetic import POLICIES, channel_sum_named, setting_of
from fastconv.error.measure.inputs import GENERATORS, draw
from fastconv.error.measure.reference import direct_in_double_double, direct_in_float64
from fastconv.exact import FORMATS, rounded
from fastconv.program import Reading, programs_of

SETS = ["0 1 -1 inf", "0 1 -1 1/2 -3 inf", "0 5/8 -5/8 3/2 -3/2 inf", "0 1 -1 2 -2 3"]


def algorithm(points, r=3):
    return fc.toom_cook(len(points.split()) - r + 1, r, points.split())


def in_fractions(name):
    """A reading on single numbers that rounds every operation with exact rationals."""
    fmt = FORMATS[name]
    keep = lambda v: Fraction(rounded(v, fmt))
    return Reading(
        constant=keep,
        mul=lambda c, a: keep(c * a),
        add=lambda a, b: keep(a + b),
        sub=lambda a, b: keep(a - b),
        neg=lambda a: -a,
        fma=lambda c, a, b: keep(c * a + b),
    )


@given(
    st.sampled_from(SETS),
    st.sampled_from(["fp32", "bf16", "fp16", "tf32"]),
    st.integers(0, 2**32),
    st.sampled_from(["huffman", "sequential+fma"]),
)
def test_evaluate_rounds_every_operation(points, name, seed, order):
    """Bit for bit what an interpreter in rationals gives that rounds after each operation."""
    alg = algorithm(points)
    rng = np.random.default_rng(seed)
    w, x = (draw("normal", rng, (size,), FORMATS[name]) for size in (3, alg.n))
    programs, reading = programs_of(alg, order), in_fractions(name)
    U = programs.kernel.read([Fraction(float(v)) for v in w], reading)
    V = programs.input.read([Fraction(float(v)) for v in x], reading)
    products = [Fraction(rounded(a * b, FORMATS[name])) for a, b in zip(U, V, strict=True)]
    expected = programs.output.read(products, reading)
    got = fc.evaluate(alg, w, x, policy=name, order=order)
    assert [Fraction(float(v)) for v in got] == expected


@given(st.sampled_from(SETS[:2]), st.integers(0, 2**32))
def test_two_dimensions_nest_one(points, seed):
    """A kernel w v^T on a tile x z^T: in rationals the product of two one-dimensional results; here in float64 to 1e-13."""
    alg = algorithm(points)
    rng = np.random.default_rng(seed)
    w, v = rng.standard_normal((2, 3))
    x, z = rng.standard_normal((2, alg.n))
    got = fc.evaluate(alg, np.outer(w, v), np.outer(x, z), dims=2, policy="fp64")
    expected = np.outer(fc.reference(w, x), fc.reference(v, z))
    # 4 n + 2 r + 7 roundings on sums whose absolute parts stay below 1e4 here (Barabasz et al. 2020, theorem 2)
    assert np.abs(got - expected).max() <= (4 * alg.n + 13) * 1e4 * 2.0**-53


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("channel_sum", ["linear", "pairwise", "blocked"])
def test_evaluate_computes_convolution(dims, channel_sum):
    """Small integers and points whose matrices hold powers of two: nothing rounds, the result is exact."""
    alg = algorithm("0 1 -1 inf")
    rng = np.random.default_rng(3)
    w = rng.integers(-3, 4, (5, 37, *[3] * dims)).astype("f4")
    x = rng.integers(-3, 4, (5, 37, *[4] * dims)).astype("f4")
    got = fc.evaluate(alg, w, x, dims=dims, channels=True, channel_sum=channel_sum)
    np.testing.assert_array_equal(got, fc.reference(w, x, dims=dims, channels=True))


def test_linear_and_shift_equivariant_in_exact_arithmetic():
    """On integers, where nothing rounds: linear in w, and a tile shifted by one shifts the outputs."""
    alg = algorithm("0 1 -1 inf")
    rng = np.random.default_rng(5)
    w, v, x = (rng.integers(-9, 10, s).astype("f4") for s in (3, 3, 5))
    y = lambda k, t: fc.evaluate(alg, k, t)
    np.testing.assert_array_equal(y(w + 2 * v, x[:4]), y(w, x[:4]) + 2 * y(v, x[:4]))
    assert y(w, x[:4])[1] == y(w, x[1:])[0]


@given(st.integers(2, 6), st.integers(1, 4), st.data())
def test_any_points_convolve_within_the_bound(m, r, data):
    """In fp32, at random points: |error| <= (r + 2 n + 4) u |AT| (|G||w| . |BT||x|), Barabasz et al. 2020, theorem 1."""
    n = m + r - 1
    points = data.draw(st.lists(st.fractions(-3, 3, max_denominator=4), min_size=n - 1, max_size=n - 1, unique=True))
    alg = fc.toom_cook(m, r, [*points, "inf"])
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    w, x = rng.standard_normal((20, r)).astype("f4"), rng.standard_normal((20, n)).astype("f4")
    AT, G, BT = (np.abs(a) for a in alg.matrices("f8"))
    bound = (r + 2 * n + 4) * 2.0**-24 * 1.001 * (((np.abs(w) @ G.T) * (np.abs(x) @ BT.T)) @ AT.T)  # 1.001: second order
    assert (np.abs(fc.evaluate(alg, w, x) - fc.reference(w, x)) <= bound).all()


@given(st.integers(0, 2**32), st.sampled_from([1, 2]), st.booleans())
def test_reference_agrees_with_mpmath(seed, dims, channels):
    rng = np.random.default_rng(seed)
    lead = (2, 3) if channels else (2,)
    w, x = rng.standard_normal((*lead, *[3] * dims)), rng.standard_normal((*lead, *[5] * dims))
    exact = fc.reference(w, x, dims=dims, channels=channels, digits=50)
    got = fc.reference(w, x, dims=dims, channels=channels)
    high, low = direct_in_double_double(w, x, (1,) * dims, channels)
    size = fc.reference(np.abs(w), np.abs(x), dims=dims, channels=channels)
    terms = 3**dims * (3 if channels else 1)
    error = np.array([[abs(float(e - mpmath.mpf(float(g)))) for e, g in zip(exact.ravel(), got.ravel(), strict=True)]])
    fine = np.array(
        [abs(float(e - mpmath.mpf(float(h)) - mpmath.mpf(float(t)))) for e, h, t in zip(*map(np.ravel, (exact, high, low)), strict=True)]
    )
    assert (error <= terms * 2.0**-53 * size.ravel()).all()  # Higham, gamma_K
    assert (fine <= 2 * terms**2 * 2.0**-106 * size.ravel()).all()  # Ogita, Rump, Oishi 2005, Dot2


def test_reference_in_float64_is_enough_for_fp32():
    """Its own error, against 50 digits, is at least 2**-20 times smaller than that of direct convolution in fp32."""
    rng = np.random.default_rng(0)
    w, x = (draw("uniform-libstdcxx", rng, (50, *s), FORMATS["fp32"]) for s in ((3, 3), (6, 6)))
    exact = fc.reference(w, x, dims=2, digits=50)
    own = max(
        abs(float(e - mpmath.mpf(float(g)))) for e, g in zip(exact.ravel(), direct_in_float64(w, x, (1, 1), False).ravel(), strict=True)
    )
    assert own < 4.6e-8 * 2.0**-20


PUBLISHED = {  # table 2 of Barabasz et al. 2020: n -> 1-D, 2-D
    4: (2.45e-8, 7.65e-8),
    6: (6.92e-8, 3.29e-7),
    8: (1.15e-7, 8.79e-7),
    11: (5.91e-7, 2.20e-5),
    14: (1.84e-6, 1.99e-4),
}


@pytest.mark.parametrize("n", PUBLISHED)
@pytest.mark.parametrize("dims", [1, 2])
def test_the_published_table_comes_out(n, dims):
    alg = fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n, dims))
    report = fc.measure_error(alg, dims=dims, trials=4000)
    published = PUBLISHED[n][dims - 1]
    assert abs(report.mean_abs / published - 1) < 0.06 + 3 * report.mean_abs_stderr / published
    direct = {1: 1.75e-8, 2: 4.63e-8}[dims]
    assert abs(report.direct.mean_abs / direct - 1) < 0.01 + 3 * report.direct.mean_abs_stderr / direct


def test_mixed_precision_of_the_paper():
    """Transforms in fp64: 34 % less error at n = 4, 57 % less at n = 18, both within four points here."""
    for n, gain in ((4, 0.34), (18, 0.57)):
        alg = fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n, 2))
        plain = fc.measure_error(alg, dims=2, order="sequential", inputs="uniform", trials=2000 if n == 18 else 10000)
        mixed = fc.measure_error(alg, dims=2, policy="mixed", inputs="uniform", trials=plain.trials)
        assert abs(1 - mixed.mean_abs / plain.mean_abs - gain) < 0.04


def test_policies_in_the_order_of_their_precision():
    alg = fc.algorithm("F(4x4,3x3)")
    errors = [fc.measure_error(alg, dims=2, policy=p, trials=300).mean_abs for p in ("fp64", "mixed", "fp32", "tf32", "bf16")]
    assert errors == sorted(errors)
    assert errors[0] < 1e-15
    for name in POLICIES:
        assert fc.measure_error(alg, policy=name, trials=10).mean_abs > 0


def test_pairwise_sums_lose_less_than_linear():
    alg = fc.algorithm("F(4,3)")
    error = {s: fc.measure_error(alg, channels=256, channel_sum=s, trials=200).rms for s in ("linear", "blocked", "pairwise")}
    assert error["pairwise"] < error["blocked"] < error["linear"]


def test_channel_sums_say_how_they_add():
    trace = lambda name, count: channel_sum_named(name)([f"{i}" for i in range(count)], lambda a, b: f"({a}+{b})")
    assert trace("linear", 4) == "(((0+1)+2)+3)"
    assert trace("pairwise", 5) == "(((0+1)+(2+3))+4)"
    assert trace("blocked", 34).endswith("+(32+33))")
    assert trace("pairwise", 1) == trace("blocked", 1) == "0"


def test_seeds_decide():
    alg = fc.algorithm("F(2,3)")
    one, again, other = (fc.measure_error(alg, trials=500, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one.mean_abs != other.mean_abs


def test_overflow_is_counted():
    alg = algorithm("0 1 -1 2 -2 4 -4 8 -8 inf")
    big = lambda rng, shape: rng.uniform(100, 200, shape)
    report = fc.measure_error(alg, dims=2, policy="fp16", inputs=big, trials=20)
    assert sum(report.overflows.values()) > 0
    assert next(iter(report.overflows)) in ("kernel", "input")
    assert not np.isfinite(report.mean_abs)
    assert fc.measure_error(alg, dims=2, policy="fp32", inputs=big, trials=20).overflows == {}


def test_balance_saves_what_underflows():
    alg = fc.toom_cook(8, 3, fc.published_points("barabasz2020", 10))
    plain, balanced = (fc.measure_error(a, dims=2, policy="fp16-fp32", inputs="normal", trials=100) for a in (alg, alg.balanced("fp16")))
    assert balanced.relative_l2 < plain.relative_l2 / 10


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_give_the_format_of_the_data(name):
    x = draw(name, np.random.default_rng(0), (20000,), FORMATS["fp32"])
    assert x.dtype == np.float32
    spread = 1.0 if name == "normal" else 3**-0.5
    assert abs(x.std() - spread) < 5 * spread / np.sqrt(2 * 20000)  # standard error of a standard deviation, at most
    assert abs(x.mean()) < 5 * spread / np.sqrt(20000)


def test_the_grid_of_libstdcxx():
    """Positive draws are multiples of 2**-23, negative ones of 2**-24."""
    x = draw("uniform-libstdcxx", np.random.default_rng(0), (50000,), FORMATS["fp32"]).astype(float)
    assert (np.mod(x[x > 0] * 2**23, 1) == 0).all()
    assert (np.mod(x[x < 0] * 2**24, 1) == 0).all()
    assert (np.mod(x[x < 0] * 2**23, 1) != 0).any()
    assert x.min() >= -1
    assert x.max() < 1


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"trials": 0}, ValueError, "trials is 0"),
        ({"trials": -5}, ValueError, "positive"),
        ({"trials": 2.5}, TypeError, "positive integer"),
        ({"channels": 0}, ValueError, "channels is 0"),
        ({"dims": 3}, ValueError, "dims is 3"),
        ({"policy": "fp31"}, ValueError, "the policies are fp64, fp32"),
        ({"order": "bubble"}, ValueError, "the orders are huffman"),
        ({"channel_sum": "kahan"}, ValueError, "the sums are linear"),
        ({"inputs": "cauchy"}, ValueError, "the generators are uniform-libstdcxx"),
        ({"inputs": lambda rng, shape: np.zeros(3)}, ValueError, "floats of that shape"),
    ],
)
def test_bad_options_are_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        fc.measure_error(fc.algorithm("F(2,3)"), **options)


@pytest.mark.parametrize(
    ("w", "x", "options", "kind", "message"),
    [
        (np.ones(5), np.ones(6), {}, ValueError, "takes"),
        (np.ones(3), np.ones(5), {}, ValueError, "takes"),
        (np.ones(3, int), np.ones(6), {}, TypeError, "floating-point"),
        (np.ones((2, 3)), np.ones((3, 6)), {"channels": True}, ValueError, "channels"),
        (np.ones((2, 3)), np.ones((3, 6)), {}, ValueError, "broadcast"),
        (np.ones(3), np.ones(6), {"dims": 2}, ValueError, "axes"),
    ],
)
def test_wrong_tiles_are_refused(w, x, options, kind, message):
    with pytest.raises(kind, match=message):
        fc.evaluate(fc.algorithm("F(4,3)"), w, x, **options)


def test_kernels_larger_than_the_tile_are_refused():
    with pytest.raises(ValueError, match="kernel must fit"):
        fc.reference(np.ones(5), np.ones(3))


def test_overflows_are_counted_tile_by_tile():
    """Of each tile at its first stage that has any: so the counts of two parts add up to that of the whole."""
    from fastconv.error.measure.evaluate import stages
    from fastconv.error.measure.measure import _count

    alg, rng = fc.algorithm("F(2x2,3x3)"), np.random.default_rng(0)
    w, x = (rng.uniform(-100, 100, (400, 8, *[n] * 2)).astype("f4") for n in (alg.r, alg.n))
    results = stages((alg, alg), w, x, setting_of(fc.Policy(*["fp16"] * 5)), True)
    whole, parts = {}, {}
    _count(whole, results)
    for start in (0, 1, 50, 399):
        end = {0: 1, 1: 50, 50: 399, 399: 400}[start]
        _count(parts, {stage: values[start:end] for stage, values in results.items()})
    assert whole == parts
    wrong = {stage: ~np.isfinite(values.reshape(400, -1)) for stage, values in results.items()}
    at_sums, at_end = wrong["sum"].sum(), wrong["output"][~wrong["sum"].any(axis=1)].sum()
    assert whole == {"sum": at_sums, "output": at_end}
    assert min(at_sums, at_end) > 0


def test_every_figure_of_a_report_is_that_of_its_errors():
    alg, policy = fc.algorithm("F(4x4,3x3)"), "fp16"
    made = {}

    def inputs(rng, shape):
        made[shape[-1]] = rng.uniform(-1, 1, shape)
        return made[shape[-1]]

    report = fc.measure_error(alg, 2, policy, channels=3, inputs=inputs, trials=40)
    w, x = (made[n].astype(np.float16).astype("f8") for n in (alg.r, alg.n))
    truth = fc.reference(w, x, 2, True).astype("f8")
    for found, y in ((report, fc.evaluate(alg, w, x, 2, policy, channels=True)), (report.direct, None)):
        if y is None:
            from fastconv.error.measure.evaluate import direct

            y = direct(w, x, (1, 1), setting_of(fc.Policy(*["fp16"] * 5)), True)
        error = np.abs(y.astype("f8") - truth)
        ulp = 2.0 ** (np.floor(np.log2(np.abs(truth))).clip(-14) - 10)
        assert found.trials == 40
        assert found.max_abs == error.max()
        assert found.mean_abs == pytest.approx(error.mean(), rel=1e-12)
        assert found.rms == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
        assert found.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(truth), rel=1e-12)
        assert found.max_ulp == pytest.approx((error / ulp).max(), rel=1e-12)
        by_tile = error.reshape(40, -1).mean(axis=1)
        assert found.mean_abs_stderr == pytest.approx(by_tile.std(ddof=1) / np.sqrt(40), rel=1e-12)
    assert set(report.to_dict()) == {*vars(report)}


@given(st.integers(-1074, 1023), st.integers(-1074, 1023), st.integers(2**52, 2**53 - 1), st.integers(2**52, 2**53 - 1))
def test_a_product_is_split_exactly_over_the_whole_range(e, f, a, b):
    from fastconv.arithmetic import two_product

    x, y = np.ldexp(float(a), e - 52), np.ldexp(float(b), f - 52)
    with np.errstate(all="ignore"):
        high, low = (float(part[0]) for part in two_product(np.array([x]), np.array([y])))
    exact = Fraction(float(x)) * Fraction(float(y))
    if np.isfinite(high) and abs(exact) > Fraction(2) ** -960:
        assert Fraction(high) + Fraction(low) == exact


@pytest.mark.parametrize("name", ["F(4x4,3x3)", "F(4,3)", "F(8x8,3x3)/13", "F(2x2,3x3)s2", "winograd43"])
def test_names_stand_for_algorithms_and_say_their_dimensions(name):
    alg, dims = fc.algorithm(name), 1 if name == "F(4,3)" else 2
    rng = np.random.default_rng(0)
    w, x = (rng.uniform(-1, 1, (5, *[n] * dims)).astype("f4") for n in (alg.r, alg.n))
    calls = (
        lambda a, **d: fc.measure_error(a, trials=50, **d),
        lambda a, **d: fc.predict_error(a, **d).rms,
        lambda a, **d: fc.evaluate(a, w, x, **d).tolist(),
        lambda a, **d: fc.bound_error(a, w, x, **d).tolist(),
        lambda a, **d: fc.theorem_bound(a, w, x, **d).tolist(),
        lambda a, **d: fc.certified_constant(a, **d),
        lambda a, **d: fc.error_constants(a, **d).total.tolist(),
        lambda a, **d: fc.tolerance(a, **d).atol,
    )
    for call in calls:
        assert call(name) == call(name, dims=dims) == call(alg, dims=dims)
        with pytest.raises(ValueError, match=f"dims is {3 - dims}, but .* has {dims}: leave dims out"):
            call(name, dims=3 - dims)
        with pytest.raises(TypeError, match="alg is 7: pass an algorithm, its name"):
            call(7)

"""The bounds hold: against errors in exact rationals, for any algorithm, policy, order and data."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv as fc
from fastconv.algebra import axes_of
from fastconv.arithmetic import CHANNEL_SUMS, POLICIES, policy_named, round_to, setting_of
from fastconv.error.bound.certify import certified_errors
from fastconv.error.bound.running import half_ulp
from fastconv.error.bound.theorem import error_constants
from fastconv.exact import FORMATS, round_rational

POINTS = st.fractions(min_value=-4, max_value=4, max_denominator=5)
ORDERS = [base + option for base in ("huffman", "sequential", "pairwise") for option in ("", "+shared", "+fma", "+shared+fma")]
NAMES = sorted(FORMATS)


@st.composite
def algorithms(draw, largest=4):
    m, r = draw(st.integers(1, largest)), draw(st.integers(1, 3))
    infinity = draw(st.booleans())
    finite = draw(st.lists(POINTS, min_size=m + r - 1 - infinity, max_size=m + r - 1 - infinity, unique=True))
    return fc.toom_cook(m, r, [*finite, "inf"] if infinity else finite)


@st.composite
def policies(draw):
    name = draw(st.sampled_from([*sorted(POLICIES), "own"]))
    if name != "own":
        return name
    stages = [draw(st.sampled_from(NAMES)) for _ in range(7)]
    return fc.Policy(*stages, constants=draw(st.sampled_from([None, *NAMES])))


def drawn(rng, shape, kind):
    """Data with what makes bounds wrong: few bits, many magnitudes, cancellation, the smallest numbers."""
    if kind == "few bits":
        return rng.integers(-4, 5, shape).astype(float)
    if kind == "magnitudes":
        return rng.normal(size=shape) * 2.0 ** rng.integers(-30, 12, shape)
    if kind == "subnormal":
        return rng.normal(size=shape) * 2.0 ** rng.choice([-149, -135, -126, -24, -14, -7, -1], shape)
    if kind == "float64 subnormal":
        return rng.normal(size=shape) * 2.0 ** rng.choice([-1074, -1060, -540, -500, 0], shape)
    if kind == "cancelling":
        return np.cumsum(rng.choice([-1.0, 1.0], shape), axis=-1) + rng.normal(size=shape) * 2.0**-11
    return rng.uniform(-1, 1, shape)


KINDS = ("uniform", "few bits", "magnitudes", "subnormal", "float64 subnormal", "cancelling")


def exact(w, x, dims, channels):
    """Convolve in rationals."""
    w, x = (np.vectorize(Fraction, otypes=[object])(a.astype(np.float64)) for a in (w, x))
    r, n = w.shape[-1], x.shape[-1]
    y = np.full((*np.broadcast_shapes(w.shape[:-dims], x.shape[:-dims]), *[n - r + 1] * dims), Fraction(0), dtype=object)
    for k in product(range(r), repeat=dims):
        window = x[(..., *(slice(i, i + n - r + 1) for i in k))]
        y = y + w[(..., *k)][(..., *[None] * dims)] * window
    return y.sum(axis=-dims - 1) if channels else y


def violations(y, truth, bound):
    """Return outputs whose error, in rationals, exceeds the bound."""
    return [
        (float(a), float(t), float(b))
        for a, t, b in zip(y.ravel(), truth.ravel(), bound.ravel(), strict=True)
        if np.isfinite(b) and not abs(Fraction(float(a)) - t) <= Fraction(float(b))
    ]


CASE = {
    "alg": algorithms(),
    "policy": policies(),
    "order": st.sampled_from(ORDERS),
    "kind": st.sampled_from(KINDS),
    "seed": st.integers(0, 2**32 - 1),
    "dims": st.sampled_from([1, 1, 2]),
    "channels": st.sampled_from([0, 0, 1, 3, 5]),
    "channel_sum": st.sampled_from(sorted(CHANNEL_SUMS)),
    "dtype": st.sampled_from(["f4", "f8", "f2"]),
}


@settings(max_examples=250)
@given(**CASE)
def test_no_bound_is_violated(alg, policy, order, kind, seed, dims, channels, channel_sum, dtype):
    rng = np.random.default_rng(seed)
    axes = (3, channels) if channels else (3,)
    with np.errstate(all="ignore"):
        w, x = (drawn(rng, (*axes, *[size] * dims), kind).astype(dtype) for size in (alg.r, alg.n))
    options = {"dims": dims, "policy": policy, "order": order, "channels": bool(channels), "channel_sum": channel_sum}
    y, running = fc.evaluate(alg, w, x, **options), fc.bound_error(alg, w, x, **options)
    theorem = fc.theorem_bound(alg, w, x, **options)
    norm = fc.theorem_bound(alg, w, x, **options, kind="normwise")
    truth = exact(w, x, dims, bool(channels))
    assert running.shape == theorem.shape == y.shape
    assert norm.shape == (3,)
    assert (np.isinf(running) == ~np.isfinite(y)).all()
    finite = np.isfinite(y)
    assert not violations(y[finite], truth[finite], running[finite])
    assert not violations(y[finite], truth[finite], theorem[finite])
    for t in np.flatnonzero(finite.all(axis=tuple(range(1, y.ndim)))):
        total = sum(abs(Fraction(float(a)) - b) for a, b in zip(y[t].ravel(), truth[t].ravel(), strict=True))
        assert np.isinf(norm[t]) or total <= Fraction(float(norm[t]))


@settings(max_examples=60)
@given(
    alg=algorithms(3),
    policy=policies(),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**32 - 1),
    dims=st.sampled_from([1, 1, 2]),
    channels=st.sampled_from([1, 3]),
    channel_sum=st.sampled_from(sorted(CHANNEL_SUMS)),
    box=st.sampled_from([(1, 1), (Fraction(1, 3), 5), (2.0**-20, 3)]),
)
def test_a_certified_constant_holds_in_its_box(alg, policy, order, seed, dims, channels, channel_sum, box):
    options = {"dims": dims, "policy": policy, "order": order, "channel_sum": channel_sum}
    errors = certified_errors(axes_of(alg, dims), setting_of(policy, order, channels, channel_sum), box, True)
    strict = fc.certified_constant(alg, channels=channels, box=box, **options)
    assert np.isinf(strict) or strict == errors.max()
    rng = np.random.default_rng(seed)
    data = policy_named(policy).data
    w, x = (
        round_to(rng.choice([1, 1, 0.999, rng.uniform(), 2.0**-12], (40, channels, *[size] * dims)) * float(b), data)
        * rng.choice([-1.0, 1.0], (40, channels, *[size] * dims))
        for size, b in zip((alg.r, alg.n), box, strict=True)
    )
    inside = (np.abs(w) <= float(box[0])).all() and (np.abs(x) <= float(box[1])).all()
    y = fc.evaluate(alg, w, x, channels=True, **options).reshape(40, -1)
    if np.isfinite(strict) and inside:
        assert np.isfinite(y).all()
    truth = exact(w, x, dims, True).reshape(40, -1)
    largest = np.broadcast_to(errors.reshape(-1), y.shape)
    assert not inside or not violations(y[np.isfinite(y)], truth[np.isfinite(y)], largest[np.isfinite(y)])


@pytest.mark.parametrize("name", ["fp32", "fp64", "fp16", "fp8_e4m3"])
def test_half_an_ulp_is_what_rounding_costs(name):
    """Of the midpoints between neighbours the cost is attained, among the subnormals too."""
    fmt = FORMATS[name]
    for value in (fmt.tiny, 3 * fmt.tiny, Fraction(2) ** fmt.emin, Fraction(5, 4), Fraction(2) - 2 * fmt.u):
        spacing = max(Fraction(2) ** (value.numerator.bit_length() - value.denominator.bit_length() - fmt.p), fmt.tiny)
        near = round_rational(value + spacing / 2, fmt)
        cost = Fraction(float(half_ulp(np.array([float(near)]), fmt)[0]))
        assert abs(near - value - spacing / 2) <= cost
        assert cost <= max(fmt.u * near, fmt.tiny / 2, Fraction(2) ** -1074)


def test_exact_operations_add_nothing():
    """Small integers are computed exactly where all constants are; 1/3 in G is not."""
    w, x = np.array([1.0, -2.0, 3.0]), np.array([4.0, -1.0, 2.0, 8.0])
    assert fc.bound_error(fc.toom_cook(2, 3, [0, 1, -1, "inf"]), w, x).max() == 0
    assert fc.bound_error(fc.toom_cook(2, 3, [0, 1, -2, "inf"]), w, x).min() > 0


def test_the_bound_is_attained():
    """A product of two numbers of p bits, nothing else rounded: an error just below half a unit meets its bound."""
    alg = fc.toom_cook(1, 1, [0])
    u = 2.0**-24
    w, x = np.array([1 + 2.0**-12]), np.array([1 + 2.0**-12])
    error = abs(fc.evaluate(alg, w, x) - w * x)
    bound = fc.bound_error(alg, w, x)
    assert error == u
    assert u <= bound <= u * (1 + 2.0**-40)


def test_data_outside_the_format_are_bounded_as_given():
    """The product by one is exact: all that is wrong is the rounding of 1/3 to the data format."""
    alg, one, third = fc.toom_cook(1, 1, [0]), np.ones(1), np.array([1 / 3])
    y = fc.evaluate(alg, one, third, policy="bf16")
    error = abs(y - third)
    assert fc.bound_error(alg, one, y, policy="bf16") == 0
    assert 0 < error <= fc.bound_error(alg, one, third, policy="bf16") <= error * (1 + 2.0**-40)


def test_overflow_makes_the_bound_infinite():
    alg = fc.algorithm("F(4,3)")
    w, x = np.full((2, 3), 2.0), np.array([[60000.0] * 6, [1.0] * 6])
    bound = fc.bound_error(alg, w, x, policy="fp16")
    assert np.isinf(bound[0]).all()
    assert np.isfinite(bound[1]).all()
    assert fc.certified_constant(alg, policy="fp16", box=(2, 60000)) == np.inf
    assert np.isfinite(fc.certified_constant(alg, policy="fp16", box=(2, 60000), finite=True))


def test_the_theorem_has_the_constants_of_the_paper():
    """Linear summation of a full matrix with inexact entries: n + 1, n + 1, r + 1; ours are one less, for the first
    term of a sum of k is in k - 1 additions. In one dimension the sum, plus one for the product."""
    points = ["1/3", "-1/3", "2/3", "5/3", "-7/3", "7/5"]
    m, r = 4, 3
    alg = fc.toom_cook(m, r, points)
    c = error_constants(alg, order="sequential")
    n = alg.n
    assert (c.alpha, c.beta, c.gamma) == (n - 1 + 2, n - 1 + 2, r - 1 + 2)
    assert c.total.max() == c.alpha + c.beta + c.gamma + 1
    twice = error_constants(alg, dims=2, order="sequential", channels=8, channel_sum="pairwise")
    assert twice.total.max() == 2 * (c.alpha + c.beta + c.gamma) + 1 + 3
    assert error_constants(alg, channels=64, channel_sum="linear").total.max() == error_constants(alg).total.max() + 63
    assert error_constants(alg, channels=64, channel_sum="blocked").total.max() == error_constants(alg).total.max() + 32


def test_the_modified_algorithm_spares_all_outputs_but_the_last():
    """Where no entry is zero or a power of two: infinity is one more term, in the sum of the last output alone."""
    alg = fc.toom_cook(4, 3, ["1/3", "-1/3", "2/3", "5/3", "-7/3", "inf"])
    total = error_constants(alg, order="sequential").total
    assert (total[:-1] < total[-1]).all()


def test_bounds_are_ordered():
    """For the same data the running bound is the smallest, the certified constant covers the box, the norm is the coarsest."""
    rng = np.random.default_rng(3)
    for dims, name in ((1, "F(4,3)"), (2, "F(4x4,3x3)")):
        alg = fc.algorithm(name)
        w, x = rng.uniform(-1, 1, (500, *[3] * dims)).astype("f4"), rng.uniform(-1, 1, (500, *[6] * dims)).astype("f4")
        running, theorem = fc.bound_error(alg, w, x, dims), fc.theorem_bound(alg, w, x, dims)
        assert (running <= theorem).all()
        assert (
            running.max() <= fc.certified_constant(alg, dims) <= fc.theorem_bound(alg, np.ones_like(w[:1]), np.ones_like(x[:1]), dims).max()
        )
        norm = fc.theorem_bound(alg, w, x, dims, kind="normwise")
        assert (theorem.reshape(500, -1).sum(axis=1) <= norm).all()


def test_irrational_points_are_bounded():
    alg = fc.toom_cook(2, 3, [0, "sqrt(2)", "-sqrt(2)", "inf"])
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(50, 3)).astype("f4"), rng.normal(size=(50, 4)).astype("f4")
    truth = exact(w, x, 1, False)
    y = fc.evaluate(alg, w, x)
    assert not violations(y, truth, fc.bound_error(alg, w, x))
    assert not violations(y, truth, fc.theorem_bound(alg, w, x))
    box = (float(abs(w).max()), float(abs(x).max()))
    assert not violations(y, truth, np.broadcast_to(certified_errors((alg,), setting_of(), box), y.shape))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda a: fc.bound_error(a, np.ones(3), np.ones(7)), ValueError, "tiles"),
        (lambda a: fc.bound_error(a, np.ones(3, int), np.ones(6)), TypeError, "floating"),
        (lambda a: fc.bound_error(a, np.ones(3), np.ones(6), policy="fp31"), ValueError, "policies"),
        (lambda a: fc.bound_error(a, np.ones(3), np.ones(6), order="best"), ValueError, "orders"),
        (lambda a: fc.bound_error(a, np.ones(3), np.ones(6), channel_sum="best"), ValueError, "sums"),
        (lambda a: fc.theorem_bound(a, np.ones(3), np.ones(6), kind="best"), ValueError, "componentwise"),
        (lambda a: fc.certified_constant(a, channels=0), ValueError, "channels"),
        (lambda a: fc.certified_constant(a, box=(0, 1)), ValueError, "positive"),
        (lambda a: fc.certified_constant(a, box=("wide", 1)), TypeError, "box"),
        (lambda a: fc.certified_constant(a, dims=3), ValueError, "dims"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, kind, words):
    with pytest.raises(kind, match=words) as caught:
        call(fc.algorithm("F(4,3)"))
    assert "\n" not in str(caught.value)


def test_inexact_constants_are_certified():
    """Only the entries are rounded, to 8 bits: then the error is their perturbation, which the corners of the box attain nearly."""
    alg = fc.toom_cook(2, 3, [0, "1/3", "-2/3", "inf"])
    policy = fc.Policy(*["fp64"] * 5, constants="bf16")
    w, x = (np.array(list(product([-1.0, 1.0], repeat=size))) for size in (3, 4))
    error = np.abs(fc.evaluate(alg, w[:, None], x[None], policy=policy) - fc.reference(w[:, None], x[None])).max()
    certified = fc.certified_constant(alg, policy=policy)
    assert 2.0**-9 < error <= certified <= 5 * error


@pytest.mark.parametrize("policy", ["fp64", "fp32", "fp16", "bf16"])
@pytest.mark.parametrize("exponent", [996, 1000, 1016, 960, -960, -1000])
def test_a_fused_bound_holds_at_the_ends_of_the_range(policy, exponent):
    """A constant near the largest and the smallest number of float64, whose product with the data cancels."""
    largest = FORMATS[policy].emax
    exponent = exponent if policy == "fp64" else (1 if exponent > 0 else -1) * (largest - 4)
    c = Fraction(2**42 - 11, 2**41) * Fraction(2) ** exponent / 3
    alg = fc.toom_cook(1, 2, [0, "inf"]).scaled(dA=[c, 1])
    rng, u = np.random.default_rng(abs(exponent)), float(FORMATS[policy].u)
    w0, x0 = rng.integers(1024, 1060, 300) / 1024, rng.uniform(1, 1.02, 300)
    data = policy_named(policy).data
    w = round_to(np.stack([w0, -w0 * x0 * (1 - 8 * u)], -1), data)
    x = round_to(np.stack([x0, np.ones(300)], -1), data)
    options = {"policy": policy, "order": "huffman+fma"}
    y, bound = (f(alg, w, x, **options)[:, 0] for f in (fc.evaluate, fc.bound_error))
    certified = fc.certified_constant(alg, policy=policy, order="huffman+fma", box=(2, 2))
    for got, limit, a, b in zip(y, bound, w, x, strict=True):
        if np.isfinite(limit):
            exact = sum(Fraction(float(p)) * Fraction(float(q)) for p, q in zip(a, b, strict=True))
            error = abs(Fraction(float(got)) - exact)
            assert error <= Fraction(float(limit))
            assert certified == np.inf or error <= Fraction(certified)


def test_conversions_only_add_to_the_theorem():
    """Each conversion adds the unit roundoff of its target, the operands' to the product's twice."""
    alg = fc.algorithm("F(2x2,3x3)")
    formats = {"kernel": "fp32", "input": "fp32", "product": "fp32", "accumulate": "fp32", "output": "fp32"}
    base = error_constants(alg, policy=fc.Policy(**formats)).total
    half = Fraction(FORMATS["fp16"].u)
    single = Fraction(FORMATS["fp32"].u)
    found = {}
    for stage in formats:
        policy = fc.Policy(**formats | {stage: "fp16"}, operands="fp32", data="fp32")
        found[stage] = policy
        w, x = np.ones((1, 3)), np.ones((1, 4))
        one = fc.toom_cook(2, 3, [0, 1, -1, "inf"])
        plain = fc.theorem_bound(one, w, x, policy=fc.Policy(**formats, data="fp32"))
        assert np.all(fc.theorem_bound(one, w, x, policy=policy) > plain)
    wide = fc.Policy("fp32", "fp32", "fp16", "fp32", "fp32", operands="fp32", data="fp32")
    same = fc.Policy("fp32", "fp32", "fp16", "fp32", "fp32", operands="fp16", data="fp32")
    one, w, x = fc.toom_cook(1, 1, [0]), np.ones((1, 1)), np.ones((1, 1))
    # No transform rounds: the product, and two operands converted to it; or the operands converted before, with as many roundings.
    assert fc.theorem_bound(one, w, x, policy=wide)[0, 0] == pytest.approx(float(3 * half), rel=0.01)
    assert fc.theorem_bound(one, w, x, policy=same)[0, 0] == pytest.approx(float(3 * half), rel=0.01)
    assert np.all(base > 0)
    assert single < half

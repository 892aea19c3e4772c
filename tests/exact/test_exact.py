"""Exact numbers, number formats, and the one rounding between them."""

import time
from fractions import Fraction

import gfloat
import gfloat.formats as gf
import ml_dtypes
import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from fastconv.arithmetic import fused, round_to
from fastconv.exact import FORMATS, INF, exact_number, exact_point, format_named, round_rational, rounded

GFLOAT = {
    "fp64": gf.format_info_binary64,
    "fp32": gf.format_info_binary32,
    "bf16": gf.format_info_bfloat16,
    "fp16": gf.format_info_binary16,
    "fp8_e5m2": gf.format_info_ocp_e5m2,
    "fp8_e4m3": gf.format_info_ocp_e4m3,
}
SMALL = ("fp16", "bf16", "fp8_e5m2", "fp8_e4m3")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3/4", Fraction(3, 4)), ("-0.25", Fraction(-1, 4)), ("2**3", 8), ("sqrt(4)", 2), (" 1/2 ", Fraction(1, 2)), ("1e3", 1000)],
)
def test_text_is_read_exactly(text, value):
    assert exact_number(text) == value
    assert isinstance(exact_number(text), Fraction)


def test_expressions_are_read():
    c = sympy.Symbol("c")
    assert exact_number("-1/c") == -1 / c
    assert exact_number("sqrt(2)/2") == sympy.sqrt(2) / 2
    assert exact_number(np.int64(3)) == 3


@pytest.mark.parametrize("value", ["inf", "oo", INF, sympy.oo])
def test_infinity_is_a_point(value):
    assert exact_point(value) is INF


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), True, None, [1], sympy.Float(0.5), 1 + 2j, float("inf")])
def test_inexact_kinds_are_refused(value):
    with pytest.raises(TypeError):
        exact_point(value)


@pytest.mark.parametrize(
    "value",
    ["", "x y", "nan", "1/0", "__import__('os')", "f(1)", "sqrt(-1)", "9**9**9", "1" * 3000, float("nan"), sympy.I, sympy.nan, -sympy.oo],
)
def test_what_is_no_real_number_is_refused(value):
    with pytest.raises(ValueError, match="number"):
        exact_point(value)


@given(
    st.fractions(max_denominator=10**6) | st.floats(allow_nan=False, allow_infinity=False).map(Fraction), st.sampled_from(sorted(GFLOAT))
)
def test_rounding_agrees_with_gfloat(x, name):
    """Only values that float64 holds can be asked of gfloat; it rounds them correctly."""
    x = Fraction(float(x))
    expected = gfloat.round_float(GFLOAT[name], float(x), gfloat.RoundMode.TiesToEven)
    np.testing.assert_equal(rounded(x, FORMATS[name]), expected + 0.0)  # rationals have no negative zero


@given(st.fractions(), st.sampled_from(sorted(FORMATS)))
def test_rounding_is_nearest(x, name):
    """Of the neighbours on either side none is nearer than what `round_rational` gives."""
    fmt = FORMATS[name]
    r = round_rational(x, fmt)
    if r is None:
        assert abs(x) > fmt.largest
        return
    for step in (fmt.tiny, abs(r) * 2 * fmt.u):
        for neighbour in (round_rational(r + step, fmt), round_rational(r - step, fmt)):
            assert neighbour is None or abs(x - r) <= abs(x - neighbour)


@pytest.mark.parametrize("name", SMALL)
def test_every_code_of_a_small_format_survives(name):
    """All bit patterns of 8 and 16 bits: finite values round to themselves, on arrays as on rationals."""
    dtype = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp8_e5m2": ml_dtypes.float8_e5m2, "fp8_e4m3": ml_dtypes.float8_e4m3fn}[name]
    codes = np.arange(2 ** (8 * np.dtype(dtype).itemsize), dtype=np.uint32).astype(f"u{np.dtype(dtype).itemsize}")
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = codes.view(dtype).astype(np.float64)
    finite = values[np.isfinite(values)]
    np.testing.assert_array_equal(round_to(finite, FORMATS[name]), finite)
    assert finite.max() == float(FORMATS[name].largest)
    assert finite[finite > 0].min() == float(FORMATS[name].tiny)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_arrays_round_as_rationals_do(name):
    """Between, at and just beside every kind of boundary: ties, subnormals, the largest number and beyond."""
    fmt = FORMATS[name]
    rng = np.random.default_rng(7)
    x = rng.standard_normal(3000) * 2.0 ** rng.integers(max(fmt.emin - fmt.p - 2, -1000), min(fmt.emax + 3, 1000), 3000)
    x = np.concatenate([x, [0.0, -0.0, np.inf, -np.inf, np.nan]])
    if fmt.p < 50:
        grid = round_to(x[:1000], fmt).astype(np.float64)
        ties = grid * (1 + 2.0 ** (-fmt.p))
        largest = float(fmt.largest) * np.array([1, 1 + 2.0**-fmt.p, 1 + 2.0 ** (1 - fmt.p), 1.5, 1 - 2.0**-50])
        x = np.concatenate([x, ties[np.isfinite(ties)], np.nextafter(ties, 0)[np.isfinite(ties)], largest, -largest])
    got = round_to(x, fmt).astype(np.float64)
    expected = [rounded(Fraction(float(v)), fmt) if np.isfinite(v) else (v if np.isnan(v) else np.copysign(fmt.overflow, v)) for v in x]
    np.testing.assert_array_equal(got, expected)


def test_bfloat16_rounds_once():
    """A conversion through float32 gives 1.0 here: it rounds twice."""
    assert round_to(np.array([1 + 2.0**-8 + 2.0**-40]), FORMATS["bf16"])[0] == 1.0078125
    assert rounded(Fraction(1) + Fraction(1, 256) + Fraction(1, 2**40), FORMATS["bf16"]) == 1.0078125


def test_irrational_numbers_round_to_the_nearest():
    """Checked by squaring: the exact square root of two lies between the midpoints to the neighbours."""
    for fmt in FORMATS.values():
        r = Fraction(rounded(sympy.sqrt(2), fmt))
        half = Fraction(1, 2**fmt.p)
        assert (r - half) ** 2 < 2 < (r + half) ** 2


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(-100, 100), st.sampled_from(["fp64", "fp32", "tf32", "bf16", "fp16"]))
def test_fused_multiply_add_rounds_once(c, a, b, name):
    fmt = FORMATS[name]
    c, a, b = (float(round_to(np.array([v]), fmt)[0]) for v in (c, a, b))
    if any(0 < abs(v) < 1e-60 for v in (c, a, b)):
        c = a = b = 1.0
    got = fused(np.array([c]), np.array([a]), np.array([b]), fmt)[0]
    assert float(got) == rounded(Fraction(c) * Fraction(a) + Fraction(b), fmt)


def test_unknown_formats_list_the_known():
    with pytest.raises(ValueError, match="fp32, tf32, bf16"):
        format_named("fp31")


HANGS = [
    "1e999999999",
    "1e-999999999",
    "-1E+99999",
    "((((9**64)**64)**64)**64)**64",
    "(9**64*9**64*9**64)**64",
    "(c+1)**64*(c+2)**64*(c+3)**64*(c+4)**64*(c+5)",
    "((c**64)**64)**64",
    "sqrt(2)+sqrt(3)+sqrt(5)+sqrt(7)+sqrt(11)+sqrt(13)",
    "sqrt(1+sqrt(1+sqrt(1+sqrt(1+sqrt(2)))))",
    "2**(1/61)+3**(1/59)",
    "1/(1/(1/(9**60)**60)**60)",
]


@pytest.mark.parametrize("text", HANGS)
def test_texts_that_would_take_minutes_are_refused_before_anything_is_computed(text):
    begun = time.process_time()
    for read in (exact_number, exact_point):
        with pytest.raises(ValueError, match="is not an exact real number|different roots"):
            read(text)
    assert time.process_time() - begun < 5  # minutes otherwise; the first import of sympy is in it


def test_points_whose_common_field_is_too_large_are_refused():
    with pytest.raises(ValueError, match=r"the numbers hold 4 different roots .*: at most 3"):
        fc.toom_cook(4, 2, ["sqrt(2)", "sqrt(3)", "sqrt(5)", "sqrt(7)", "inf"])
    assert fc.toom_cook(3, 2, ["sqrt(2)", "sqrt(3)", "sqrt(6)", "inf"]).verify() is None


@pytest.mark.parametrize(
    ("text", "value"), [("2**(1/2)", sympy.sqrt(2)), ("4**(1/2)", 2), ("8**(1/3)", 2), ("(1/4)**(1/2)", Fraction(1, 2))]
)
def test_fractional_powers(text, value):
    assert exact_number(text) == value


def test_names_are_symbols_or_constants_and_no_others():
    assert exact_number("GoldenRatio") == exact_number("(1+sqrt(5))/2")
    assert fc.toom_cook(2, 2, ["GoldenRatio", "-1/GoldenRatio", "inf"]).verify() is None
    for name in ("c", "x2", "t_1", "theta"):
        assert exact_number(name) == sympy.Symbol(name)
    for name in ("golden", "Goldenratio", "infinite", "sqrt2", "cc"):
        with pytest.raises(ValueError, match=f"holds the name '{name}', which is unknown: .* GoldenRatio"):
            exact_number(f"1/{name}")


def test_a_number_near_a_tie_rounds_by_its_own_side():
    """Above and below half a unit by less than any approximation of 40 digits shows."""
    tie = 1 + sympy.Rational(1, 2**24)
    above, below = (tie + sign * sympy.sqrt(2) / 2**140 for sign in (1, -1))
    assert rounded(above, FORMATS["fp32"]) == 1 + Fraction(1, 2**23)
    assert rounded(below, FORMATS["fp32"]) == 1

"""Algorithms that differ along height and width: what one part of fastconv reports, every other takes."""

import json
from fractions import Fraction

import numpy as np
import pytest

import fastconv as fc
from fastconv.algebra import name_of
from fastconv.cli import main

NAMES = ["F(5x3,3x3)", "F(2x4,5x3)", "F(6x2,3x3)/9x4", "F(3x4,3x3)s2x1"]
RNG = np.random.default_rng(0)


def tiles(name, count=60, channels=4):
    axes = fc.algorithms(name)
    w = RNG.standard_normal((count, channels, *(a.r for a in axes))).astype("f4")
    x = RNG.standard_normal((count, channels, *(a.n for a in axes))).astype("f4")
    return axes, w, x


def exact(axes, w, x):
    """Tap by tap in float64, in whose 53 bits the products of float32 are exact."""
    h, v = axes
    y = np.zeros((len(w), h.m, v.m))
    for i, j in np.ndindex(h.m, v.m):
        part = x[:, :, h.stride * i : h.stride * i + h.r, v.stride * j : v.stride * j + v.r]
        y[:, i, j] = (w.astype("f8") * part.astype("f8")).sum(axis=(1, 2, 3))
    return y


@pytest.mark.parametrize("name", NAMES)
def test_they_are_evaluated_and_bounded_as_any_other(name):
    axes, w, x = tiles(name)
    truth = exact(axes, w, x)
    y = fc.evaluate(name, w, x, channels=True)
    np.testing.assert_array_equal(y, fc.evaluate(axes, w, x, channels=True))
    error, bound = np.abs(y - truth), fc.bound_error(name, w, x, channels=True)
    assert y.shape == bound.shape == truth.shape
    assert (error <= bound).all()
    assert bound.max() < 1e-3  # a few hundred roundings of numbers of about ten
    assert (error <= fc.theorem_bound(axes, w, x, channels=True)).all()
    box = Fraction(float(np.abs(w).max())), Fraction(float(np.abs(x).max()))
    assert error.max() <= fc.certified_constant(name, channels=4, box=box) < 1
    with pytest.raises(ValueError, match="takes"):
        fc.evaluate(name, w.swapaxes(2, 3)[..., :1], x, channels=True)


@pytest.mark.parametrize("channels", [1, 32])
@pytest.mark.parametrize("name", NAMES)
def test_their_error_is_measured_and_predicted(name, channels):
    options = {"channels": channels, "inputs": "normal"}
    measured = fc.measure_error(name, trials=1500, seed=1, **options)
    predicted = fc.predict_error(name, **options)
    noise = 3 * measured.mean_abs_stderr / measured.mean_abs
    assert abs(predicted.mean_abs / measured.mean_abs - 1) < 0.06 + noise
    assert len(predicted.rms_of_outputs) == np.prod([a.m for a in fc.algorithms(name)])
    sides = [fc.predict_error(a, 2, **options).rms for a in fc.algorithms(name)]
    assert min(sides) <= predicted.rms * 1.02
    assert predicted.rms <= max(sides) * 1.02


def test_a_rectangle_of_equal_sides_is_a_square():
    pair, alg = fc.algorithms("F(4x4,3x3)"), fc.algorithm("F(4x4,3x3)")
    assert fc.predict_error(pair, channels=8) == fc.predict_error(alg, 2, channels=8)
    assert fc.measure_error(pair, trials=50) == fc.measure_error(alg, 2, trials=50)
    assert fc.certified_constant(pair) == fc.certified_constant(alg, 2)
    np.testing.assert_array_equal(fc.error_constants(pair).total, fc.error_constants(alg, 2).total)
    assert fc.tolerance(pair, 8) == fc.tolerance(alg, 8, 2)


@pytest.mark.parametrize("name", NAMES)
def test_turned_they_make_the_errors_of_the_other_axis(name):
    axes = fc.algorithms(name)
    outputs = [a.m for a in axes]
    there, back = (np.reshape(fc.predict_error(a).rms_of_outputs, m) for a, m in ((axes, outputs), (axes[::-1], outputs[::-1])))
    np.testing.assert_allclose(back.T, there, rtol=0.12)  # which pass comes first decides where numbers are rounded
    assert fc.certified_constant(axes) == pytest.approx(fc.certified_constant(axes[::-1]), rel=0.5)


def test_their_tolerance_passes_what_is_right_and_catches_what_is_not():
    axes, w, x = tiles("F(5x3,3x3)", 400, 16)
    limits = fc.tolerance("F(5x3,3x3)", channels=16)
    assert limits.name == "F(5x3,3x3)"
    assert "F_5X3_3X3" in limits.to_c_header()
    y, truth = fc.evaluate(axes, w, x, channels=True), exact(axes, w, x)
    assert limits.check(y, truth).passed
    wrong = truth + 4 * limits.atol * (np.arange(15).reshape(5, 3) == 7)
    assert limits.check(wrong, truth).violations == len(w)
    assert not limits.check(y * (1 + 2.0**-16), truth).passed
    assert fc.tolerance("F(4x4,3x3)s2").name == "F(4x4,3x3)s2"
    guards = [
        line for name in ("F(4x4,3x3)s2", "F(4x4,3x3)") for line in fc.tolerance(name).to_c_header().splitlines() if "#ifndef" in line
    ]
    assert len(set(guards)) == 2


def test_what_auto_reports_runs_and_is_taken_back_everywhere(capsys):
    plan = fc.plan_conv2d(np.ones((32, 32, 3, 3), "f4"), padding=1, input_shape=(1, 32, 20, 12), algorithm="F(5x3,3x3)")
    assert plan.algorithm == "F(5x3,3x3)" == name_of(plan.method.axes)
    for command in (["error", plan.algorithm, "--trials", "20"], ["tolerance", plan.algorithm], ["matrices", plan.algorithm]):
        assert main([*command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert plan.algorithm in json.dumps(told) or set(told) == {"height", "width"}
        assert main(command) == 0
        assert "F(5" in capsys.readouterr().out
    assert main(["points", plan.algorithm]) == 2
    assert "name one of its axes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("alg", "dims", "error", "said"),
    [
        ("F(5x3,3x3)", 1, ValueError, "dims is 1, but F(5x3,3x3) has 2"),
        (("F(5,3)", "F(3,3)"), None, TypeError, "pass an algorithm, its name"),
        (None, None, TypeError, "pass an algorithm, its name"),
        ("F(4,3)", 3, ValueError, "dims is 3"),
    ],
)
def test_what_is_none_is_refused_in_one_sentence(alg, dims, error, said):
    for function in (fc.measure_error, fc.predict_error, fc.certified_constant):
        with pytest.raises(error) as caught:
            function(alg, dims=dims)
        assert said in str(caught.value)

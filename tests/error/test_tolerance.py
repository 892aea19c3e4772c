"""Tolerances raise no alarm for right layers, catch wrong coefficients, and stay below what is certified."""

from __future__ import annotations

import doctest
import math
import subprocess
from dataclasses import replace
from fractions import Fraction
from shutil import which

import numpy as np
import pytest
from support import ROOT

import fastconv as fc
from fastconv.arithmetic import policy_named, round_to
from fastconv.error.bound.tolerance import quantile, tolerance


def layer(alg, channels, policy, seed, filters=4, tiles=16):
    """Return weights and tiles of a layer with normal data in the policy's data format."""
    rng = np.random.default_rng(seed)
    shapes = (filters, 1, channels, alg.r, alg.r), (1, tiles, channels, alg.n, alg.n)
    return [round_to(rng.normal(size=shape), policy_named(policy).data) for shape in shapes]


def mutants(alg, by):
    """Yield the algorithm with each entry of each matrix in turn wrong by a factor 1 + by."""
    for name in ("AT", "G", "BT"):
        matrix = getattr(alg, name)
        for i, row in enumerate(matrix):
            for j in (j for j, e in enumerate(row) if e):
                wrong = [list(r) for r in matrix]
                wrong[i][j] *= 1 + by
                matrices = (tuple(map(tuple, wrong)) if n == name else getattr(alg, n) for n in ("AT", "G", "BT"))
                yield f"{name}[{i}][{j}]", fc.BilinearAlgorithm(alg.m, alg.r, alg.points, *matrices)


def run(alg, w, x, policy):
    return fc.evaluate(alg, w, x, 2, policy, channels=True)


@pytest.mark.parametrize("points", ["barabasz2020", "best"])
@pytest.mark.parametrize(("name", "tiles"), [("F(2x2,3x3)", 16), ("F(4x4,3x3)", 16), ("F(6x6,3x3)", 24)])
def test_every_wrong_coefficient_is_caught_in_fp32(name, tiles, points):
    """One part in 1000 in any entry puts some output outside of atol + rtol |ref|, as numpy's allclose tests it."""
    alg = fc.algorithm(name, points)
    limits = tolerance(alg, 32)
    w, x = layer(alg, 32, "fp32", 1, tiles=tiles)
    truth = fc.reference(w, x, 2, True)
    by_position = np.reshape(limits.atol_of_outputs, (alg.m, alg.m))
    assert by_position.max() == limits.atol
    accepted = lambda y, atol: np.allclose(y, truth, rtol=limits.rtol, atol=atol)
    right = run(alg, w, x, "fp32")
    assert accepted(right, by_position)
    assert limits.check(right, truth).passed
    wrong = [(where, run(mutant, w, x, "fp32")) for where, mutant in mutants(alg, Fraction(1, 1000))]
    assert [where for where, y in wrong if accepted(y, by_position)] == []
    assert [where for where, y in wrong if not limits.check(y, truth).violations] == []
    # One number for all positions is that of the corners, where errors are largest: still enough but for the largest tile.
    missed = [where for where, y in wrong if accepted(y, limits.atol)]
    assert len(missed) <= (0 if alg.m < 6 else 0.05 * len(wrong))
    for c in (0, 31):
        w_less, x_less = np.delete(w, c, axis=2), np.delete(x, c, axis=2)
        assert not accepted(run(alg, w_less, x_less, "fp32"), limits.atol)


@pytest.mark.parametrize(
    ("policy", "name", "by"),
    [
        ("fp16-fp32", "F(2x2,3x3)", "1/300"),
        ("fp16-fp32", "F(4x4,3x3)", "3/100"),
        ("fp16", "F(2x2,3x3)", "1/100"),
        ("fp16", "F(4x4,3x3)", "1/10"),
        ("bf16-fp32", "F(2x2,3x3)", "3/100"),
        ("bf16-fp32", "F(4x4,3x3)", "3/10"),
        ("bf16", "F(2x2,3x3)", "1/10"),
    ],
)
def test_the_mean_square_catches_what_low_precision_hides(policy, name, by):
    """Below the noise of one output, above that of all: the check over the outputs sees every coefficient."""
    alg = fc.algorithm(name)
    limits = tolerance(alg, 32, policy=policy)
    w, x = layer(alg, 32, policy, 2, tiles=48)
    truth = fc.reference(w, x, 2, True)
    assert limits.check(run(alg, w, x, policy), truth).passed
    found = [limits.check(run(wrong, w, x, policy), truth) for _, wrong in mutants(alg, Fraction(by))]
    assert not any(c.passed for c in found)
    assert any(c.violations == 0 for c in found)
    dropped = limits.check(run(alg, w[:, :, 1:], x[:, :, 1:], policy), truth)
    assert not dropped.passed


@pytest.mark.parametrize("channels", [1, 3, 64])
@pytest.mark.parametrize("policy", ["fp32", "fp16", "bf16-fp32"])
def test_false_alarms_are_rarer_than_the_confidence_says(policy, channels):
    """At 99 % for one output: of N outputs at most 1 % may fail, and no more than that of any tile position."""
    alg = fc.algorithm("F(4x4,3x3)")
    limits = tolerance(alg, channels, policy=policy, confidence=0.99, outputs=1)
    w, x = layer(alg, channels, policy, channels, filters=20, tiles=20)
    error = np.abs(run(alg, w, x, policy) - fc.reference(w, x, 2, True))
    rate = (error > limits.atol).mean()
    assert rate <= 0.01
    assert limits.check(run(alg, w, x, policy), fc.reference(w, x, 2, True)).rms_ratio < limits.rms_limit
    # Nor is the factor idle: three binades below, more than 1 % are beyond (four with the tails of one channel).
    assert (error > limits.atol / (16 if channels == 1 else 8)).mean() > 0.01


@pytest.mark.parametrize(("name", "channels"), [("F(2x2,3x3)", 512), ("F(4x4,3x3)", 512), ("F(4x4,3x3)", 64), ("F(4x4,3x3)", 2)])
@pytest.mark.parametrize("policy", ["fp32", "fp16"])
def test_a_right_layer_of_few_outputs_raises_no_alarm(name, channels, policy):
    """One tile, of one filter: 150 tests of 4 to 16 outputs. Six standard deviations, whatever the outputs, alarmed in 2 to 8 %."""
    alg = fc.algorithm(name)
    limits = tolerance(alg, channels, policy=policy)
    rng = np.random.default_rng(0)
    data = policy_named(policy).data
    w, x = (round_to(rng.normal(size=(150, channels, *[n] * 2)), data) for n in (alg.r, alg.n))
    y, truth = run(alg, w, x, policy), fc.reference(w, x, 2, True)
    found = [limits.check(y[k], truth[k]) for k in range(150)]
    assert all(one.passed for one in found)
    assert min(one.rms_limit for one in found) > limits.check(np.tile(truth, (40, 1, 1)), np.tile(truth, (40, 1, 1))).rms_limit


def test_limits_of_a_check_follow_confidence_and_number_of_outputs():
    alg = fc.algorithm("F(4x4,3x3)")
    sure, bold = (tolerance(alg, 64, confidence=c).tails for c in (1 - 1e-9, 0.9))
    for tails in (sure, bold):
        assert tails.rms(1) > tails.rms(10) > tails.rms(1000) > 1.2
        assert tails.scaled_variance(1) > tails.scaled_variance(100) > tails.scaled_variance(10**7) > 1
    assert sure.rms(10) > bold.rms(10)
    assert sure.sigmas(16) > bold.sigmas(16) > bold.sigmas(1)
    assert sure.scaled_variance(10**8) < 1.01
    # A normal variable exceeds 6.5 standard deviations with 1e-10 on both sides together; a union over 16 positions.
    assert 6.4 < replace(sure, risk=16e-10).sigmas(16) < 7


def test_layers_of_different_tolerance_have_different_names():
    alg = fc.algorithm("F(4x4,3x3)")
    settings = [{}, {"policy": "fp16"}, {"order": "sequential"}, {"channel_sum": "pairwise"}, {"scale_w": 2.0}, {"inputs": "uniform"}]
    settings += [{"channels": 32}, {"dims": 1}, {"confidence": 0.9}, {"outputs": 5}]
    made = [tolerance(alg, **({"channels": 64} | one)) for one in settings]
    made += [tolerance(other, 64) for other in (fc.algorithm("F(4x4,3x3)", "lavin2016"), fc.algorithm("F(4x4,3x3)s2"))]
    guards = {next(line for line in one.to_c_header().splitlines() if line.startswith("#ifndef")) for one in made}
    assert len(guards) == len(made)
    assert tolerance(alg, 64).to_c_header() == made[0].to_c_header()


def test_the_quantile_bounds_its_own_model():
    """Products of normals, the variables that the factor is derived for: tails are below, and not by orders."""
    rng = np.random.default_rng(5)
    count = 400_000
    for channels, power in ((1, 3), (16, 2)):
        g = rng.normal(size=count) * rng.normal(size=count)
        g *= rng.normal(size=count) if power == 3 else np.sqrt(rng.chisquare(channels, count) / channels)
        for p in (1e-2, 1e-3, 1e-4):
            factor = quantile(p, channels, {"sum": 1.0}) / math.sqrt(8 * math.log(2) / 3)
            seen = np.quantile(np.abs(g), 1 - p)
            assert seen <= factor <= 2.5 * seen


def test_a_normal_error_needs_few_sigmas():
    """Very many channels, nothing rounded after their sum: the tail of a normal variable, at most 30 % above its quantile."""
    for p, sigmas in ((1e-3, 3.29), (1e-9, 6.11)):
        factor = quantile(p, 10**7, {}) / math.sqrt(8 * math.log(2) / 3)
        assert sigmas < factor < 1.3 * sigmas


def test_the_tolerance_follows_its_arguments():
    alg = fc.algorithm("F(4x4,3x3)")
    base = tolerance(alg, 16)
    assert base.confidence == 1 - 1e-9
    assert base.atol == tolerance(alg, 16, outputs=10**6).atol
    assert tolerance(alg, 16, confidence=0.9).atol < base.atol < tolerance(alg, 16, outputs=10**9).atol
    assert math.isclose(tolerance(alg, 16, scale_w=0.25, scale_x=8).atol, 2 * base.atol, rel_tol=1e-6)
    assert tolerance(alg, 16, channel_sum="pairwise").atol < base.atol < tolerance(alg, 64).atol
    assert tolerance(alg, 16, policy="fp16").atol > 1000 * base.atol
    assert tolerance(alg, 16, dims=1).atol < base.atol
    assert base.rms * base.factor <= base.atol < base.worst_case < math.inf


def test_never_above_the_certificate():
    """Few outputs and little confidence asked: still a tolerance. A certainty: the certificate takes over."""
    alg = fc.toom_cook(1, 1, [0])
    limits = tolerance(alg, dims=1, inputs="uniform", confidence=1 - 1e-15, outputs=10**12)
    assert limits.atol == limits.worst_case < limits.factor * limits.rms
    # One product of numbers below sqrt(3): at most 3, in the binade of half a unit 2**-23.
    assert math.isclose(limits.atol, 2.0**-23, rel_tol=1e-12)
    assert limits.rtol == 0
    wide = tolerance(fc.algorithm("F(4x4,3x3)"), channels=64, dims=2, policy="fp16")
    assert 0 < wide.atol <= wide.worst_case < math.inf
    assert wide.overflow
    assert "overflow" in wide.reasoning[4]


def test_small_inputs_underflow_in_fp16():
    """Halving weights far below the normal range no longer halves the tolerance."""
    alg = fc.algorithm("F(2x2,3x3)")
    small, smaller = (tolerance(alg, 4, policy="fp16", scale_w=2.0**-e).atol for e in (14, 18))
    assert smaller > small / 12


def test_emitted_constants_are_the_tolerance(tmp_path):
    limits = tolerance(fc.algorithm("F(4x4,3x3)"), 256, policy="fp16")
    assert len(limits.reasoning) == 5
    assert all("\n" not in line for line in limits.reasoning)
    scope: dict = {}
    exec(limits.to_python(), scope)
    assert (scope["ATOL"], scope["RTOL"], scope["WORST_CASE"]) == (limits.atol, limits.rtol, limits.worst_case)
    header = limits.to_c_header()
    values = {line.split()[1]: line.split()[-1] for line in header.splitlines() if line.startswith("#define") and len(line.split()) == 3}
    assert [float(value) for name, value in values.items() if name.endswith("_ATOL")] == [limits.atol]
    assert header.count("*/") == 2  # the reasoning does not end its comment
    if compiler := which("cc"):
        source = tmp_path / "t.c"
        atol = next(name for name in values if name.endswith("_ATOL"))
        source.write_text(f"{header}\n{header}\nint main(void) {{ return !({atol} > 0); }}\n")
        subprocess.run([compiler, "-Wall", "-Werror", "-o", tmp_path / "t", source], check=True)
        assert subprocess.run([tmp_path / "t"], check=False).returncode == 0


def test_the_check_counts_what_is_not_finite():
    alg = fc.algorithm("F(2x2,3x3)")
    limits = tolerance(alg, 1)
    y = np.zeros((5, 2, 2))
    assert limits.check(y, y).passed
    bad = y.copy()
    bad[0, 0, 0], bad[1, 0, 0] = np.nan, np.inf
    found = limits.check(bad, y)
    assert found.violations == 2
    assert not found.passed


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda a: tolerance(a, 0), ValueError, "channels"),
        (lambda a: tolerance(a, 1.5), TypeError, "channels"),
        (lambda a: tolerance(a, 1, dims=3), ValueError, "dims"),
        (lambda a: tolerance(a, 1, policy="fp31"), ValueError, "policies"),
        (lambda a: tolerance(a, 1, confidence=1.0), ValueError, "probability"),
        (lambda a: tolerance(a, 1, confidence="high"), TypeError, "confidence"),
        (lambda a: tolerance(a, 1, scale_w=-1.0), ValueError, "scale_w"),
        (lambda a: tolerance(a, 1, scale_x=math.nan), ValueError, "scale_x"),
        (lambda a: tolerance(a, 1, outputs=0), ValueError, "outputs"),
        (lambda a: tolerance(a, 1, inputs="cauchy"), ValueError, "normal"),
        (lambda a: tolerance(a, 1, order="best"), ValueError, "orders"),
        (lambda a: tolerance(4, 1), TypeError, "pass an algorithm, its name"),
        (lambda a: tolerance(a, 1).check(np.zeros((2, 4, 4)), np.zeros((2, 4, 5))), ValueError, "shape"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, kind, words):
    with pytest.raises(kind, match=words) as caught:
        call(fc.algorithm("F(4x4,3x3)"))
    assert "\n" not in str(caught.value)


def test_the_examples_of_the_page_on_bounds_run():
    page = ROOT / "docs" / "error-bounds.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert failed == 0
    assert tried > 8


def test_the_check_knows_positions_in_a_layer():
    """An error allowed in the corner of a tile is not in its middle, wherever the tile lies in the layer."""
    limits = tolerance(fc.algorithm("F(6x6,3x3)"), 8)
    by_position = np.reshape(limits.atol_of_outputs, (6, 6))
    truth = np.ones((2, 3, 20, 16))
    y = truth.copy()
    y[0, 0, 12, 6] += 0.9 * by_position[0, 0]
    assert by_position[3, 2] < 0.5 * by_position[0, 0]
    assert limits.check(y, truth).violations == 0
    y[1, 2, 15, 8] += 0.9 * by_position[0, 0]
    assert limits.check(y, truth).violations == 1


@pytest.mark.parametrize("shapes", [((2, 4, 4), (3, 4, 4)), ((4,), (4,)), ((0, 4, 4), (0, 4, 4)), ((2, 4, 4), (2, 4))])
def test_check_refuses_arrays_that_do_not_fit(shapes):
    limits = tolerance(fc.algorithm("F(4x4,3x3)"))
    with pytest.raises(ValueError, match="pass two arrays of one shape with the tile axes last"):
        limits.check(np.zeros(shapes[0]), np.zeros(shapes[1]))

import math
from fractions import Fraction

import numpy as np
import pytest

import fastconv as fc
from fastconv.error.predict.compiled.bulk import predict_errors
from fastconv.error.predict.nodes import nodes_of
from fastconv.error.predict.rounding import product_factor, spare_bits, sum_factor
from fastconv.exact import format_named
from fastconv.program import is_power_of_two, program_of


def close(alg, allowed, trials, **options):
    """Compare means: what is allowed, and three standard errors of the measurement."""
    measured = fc.measure_error(alg, trials=trials, seed=3, **options)
    assert not measured.overflows
    predicted = fc.predict_error(alg, **options)
    noise = 3 * measured.mean_abs_stderr / measured.mean_abs
    assert abs(predicted.mean_abs / measured.mean_abs - 1) < allowed + noise
    return predicted, measured


@pytest.mark.parametrize("n", [4, 5, 6, 8, 11, 14, 18])
@pytest.mark.parametrize("dims", [1, 2])
def test_published_sets_in_fp32(n, dims):
    alg = fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n, dims))
    close(alg, 0.08 if n <= 5 else 0.05, 3000 if dims == 1 else 1000, dims=dims, inputs="uniform")


@pytest.mark.parametrize("policy", ["bf16", "fp16", "mixed", "fp16-fp32", "tf32-fp32"])
@pytest.mark.parametrize(("dims", "n"), [(1, 6), (1, 9), (2, 6)])
def test_published_sets_in_other_policies(policy, dims, n):
    alg = fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n, dims))
    close(alg, 0.05, 2500, dims=dims, policy=policy, inputs="normal")


@pytest.mark.parametrize("channel_sum", ["linear", "pairwise", "blocked"])
@pytest.mark.parametrize(("policy", "dims", "channels"), [("fp32", 1, 64), ("bf16", 1, 256), ("fp16", 2, 64)])
def test_channels(channel_sum, policy, dims, channels):
    alg = fc.toom_cook(4, 3, fc.published_points("barabasz2020", 6, dims))
    close(alg, 0.05, 400, dims=dims, policy=policy, channels=channels, channel_sum=channel_sum)


@pytest.mark.parametrize("order", ["sequential", "pairwise", "huffman+shared", "huffman+fma", "pairwise+shared+fma"])
def test_orders(order):
    alg = fc.toom_cook(6, 3, fc.published_points("barabasz2020", 8, 1))
    close(alg, 0.05, 3000, order=order)


def test_gradual_underflow_in_fp16():
    # The rows of G at 4 reach 2e-5, their products 4e-10: far below 2**-14, and AT multiplies what is lost by 4**14.
    alg = fc.toom_cook(8, 3, fc.published_points("barabasz2020", 10, 2))
    predicted, measured = close(alg, 0.1, 800, dims=2, policy="fp16", inputs="normal")
    assert predicted.shares["kernel"] > 0.9
    assert predicted.rms > 30 * fc.predict_error(alg, dims=2, policy="tf32", inputs="normal").rms  # as many bits, no underflow


NEAR = [fc.toom_cook(2, 3, [1, 1 + Fraction(1, 2**bits), -1, "inf"]) for bits in (6, 10, 20)]
COARSE = [(alg, policy) for policy in ("fp8_e4m3", "fp8_e5m2", "bf16", "fp16") for alg in ("F(2x2,3x3)", "F(4x4,3x3)")]
COARSE += [(alg, policy) for policy in ("bf16", "bf16-fp32", "fp32") for alg in NEAR]


@pytest.mark.parametrize(("alg", "policy"), COARSE, ids=lambda one: one if isinstance(one, str) else f"near {one.points[1]}")
def test_a_prediction_is_right_wherever_it_says_that_errors_are_small(alg, policy):
    """Formats of three bits, and points so near each other that their constants are one: else the prediction is an upper estimate."""
    for channels in (1, 16, 64):
        options = {"dims": 2, "policy": policy, "channels": channels, "inputs": "normal"}
        predicted = fc.predict_error(alg, **options)
        assert predicted.small == (predicted.relative_l2 <= 0.25) == predicted.to_dict()["small"]
        assert ("upper estimate" in str(predicted)) != predicted.small
        measured = fc.measure_error(alg, trials=400, seed=1, **options)
        ratio = predicted.mean_abs / measured.mean_abs
        noise = 3 * measured.mean_abs_stderr / measured.mean_abs
        assert ratio > 0.9 - noise
        assert ratio < 1.1 + noise or not predicted.small


@pytest.mark.parametrize("seed", range(12))
def test_random_sets(seed):
    rng = np.random.default_rng(seed)
    n, r = int(rng.integers(4, 11)), int(rng.integers(2, 4))
    pool = sorted({Fraction(p, q) for p in range(-4, 5) for q in range(1, 5)})
    points = [pool[i] for i in rng.permutation(len(pool))[: n - seed % 2]] + ["inf"] * (seed % 2)
    close(fc.toom_cook(n - r + 1, r, points), 0.1, 1500, dims=1 + seed % 2, inputs=["uniform", "normal"][seed // 2 % 2])


def test_one_tap_and_one_output_only_round_the_product():
    # F(1,1) is one product: for uniform w and x, 0.541/3 (w x)**2 / 4**24 up to the phase of the product, and a ninth of that.
    predicted = fc.predict_error(fc.toom_cook(1, 1, [0]))
    assert predicted.shares["product"] == pytest.approx(1)
    assert predicted.rms == pytest.approx(math.sqrt(0.541 / 3 / 9) * 2.0**-24, rel=0.03)


def test_powers_of_two_add_no_error():
    alg = fc.toom_cook(2, 3, [0, 1, -1, "inf"])
    assert all(is_power_of_two(e) for matrix in (alg.AT, alg.G, alg.BT) for row in matrix for e in row if e)
    assert fc.predict_error(alg).shares["constants"] == 0
    third = fc.predict_error(fc.toom_cook(2, 3, [0, 1, -2, "inf"]))
    assert third.shares["constants"] > 0.01


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("channel_sum", ["linear", "pairwise", "blocked"])
def test_more_channels_more_error(dims, channel_sum):
    alg = fc.algorithm("F(4x4,3x3)")
    values = [fc.predict_error(alg, dims, channels=c, channel_sum=channel_sum) for c in (1, 2, 3, 10, 64, 100, 1024)]
    for field in ("rms", "mean_abs"):
        numbers = [getattr(v, field) for v in values]
        assert numbers == sorted(numbers)


def test_pairwise_sums_are_the_more_accurate():
    alg = fc.algorithm("F(4x4,3x3)")
    linear, pairwise, blocked = (fc.predict_error(alg, 2, channels=1024, channel_sum=s).rms for s in ("linear", "pairwise", "blocked"))
    assert pairwise < blocked < linear


def test_scaling_by_powers_of_two_changes_nothing_in_fp32():
    alg = fc.toom_cook(4, 3, fc.published_points("barabasz2020", 6, 2))
    scaled = alg.scaled(dB=[1, 2, "1/4", 1, 8, "1/2"], dA=["1/2", 1, 4, 2, 1, 1])
    for dims in (1, 2):
        one, other = (fc.predict_error(a, dims) for a in (alg, scaled))
        # equal but for the order of the leaves, whose weights in BT and G are not changed within a row
        assert other.rms == pytest.approx(one.rms, rel=0.02)
    loud = fc.Moments(2.0**20, 2.0**-8, -1.2, -1.2)
    quiet = fc.predict_error(alg, inputs=fc.Moments(1.0, 1.0, -1.2, -1.2))
    assert fc.predict_error(alg, inputs=loud).rms == pytest.approx(2.0**6 * quiet.rms, rel=1e-9)


def test_shares_add_up_and_outputs_agree_with_the_whole():
    predicted = fc.predict_error(fc.algorithm("F(4x4,3x3)"), 2, "bf16", channels=8)
    assert sum(predicted.shares.values()) == pytest.approx(1)
    assert math.sqrt(np.mean(np.square(predicted.rms_of_outputs))) == pytest.approx(predicted.rms)
    assert len(predicted.to_dict()["rms_of_outputs"]) == 16
    assert predicted.relative_l2 == pytest.approx(predicted.rms / math.sqrt(8 / 9 * 9))


def test_values_equal_up_to_powers_of_two_are_one():
    fp32 = format_named("fp32")
    nodes = nodes_of(program_of([[Fraction(1, 3), 1], [Fraction(-4, 3), -4]]), fp32, fp32)
    assert len(nodes.a) == 2  # x0 / 3, and its sum with x1
    assert nodes.gain[1] == pytest.approx(-4 * nodes.gain[0])
    assert nodes.matrix[1] == pytest.approx([-4 / 3, -4])


def test_few_bits_cut_off():
    # Cutting d bits, ties to even: the mean square of the residues, in units of ulp**2 / 12.
    for d in (1, 2, 3, 6):
        residues = np.arange(2**d) / 2**d
        residues = np.minimum(residues, 1 - residues)
        assert float(spare_bits(np.array(float(d)))) == pytest.approx(12 * np.mean(residues**2))
    assert product_factor(1.0, 0) == 0.0
    assert product_factor(1.7, 30) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("ratio", "correlation"), [(1, 0), (0.3, 0), (1, -0.9), (0.7, 0.6), (1, -0.99)])
def test_sums_of_normal_variables(ratio, correlation):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(200_000)
    b = ratio * (correlation * a + math.sqrt(1 - correlation**2) * rng.standard_normal(len(a)))
    for scale in (1.0, 1.19, 1.41, 1.68):  # phases within a factor of two
        x, y = (scale * v for v in (a, b))
        x, y = x.astype(np.float32), y.astype(np.float32)
        error = (x + y).astype(np.float64) - (x.astype(np.float64) + y)
        square = 0.75 / (2 * math.log(2)) * 4.0**-23 / 12 * np.mean((x + y).astype(np.float64) ** 2)
        expected = float(sum_factor(np.array(1.0), np.array(ratio**2), np.array(1 + ratio**2 + 2 * ratio * correlation)))
        # 200,000 samples of fourth-power-like values: one per cent each; the phase moves normal sums by half a per cent
        assert np.mean(error**2) / square == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize(
    ("policy", "inputs"),
    [("fp32", "uniform"), ("fp64", "normal"), ("tf32-fp32", "normal"), ("mixed", "uniform"), ("bf16", "normal"), ("tf32", "uniform")],
)
def test_bulk_agrees_with_single_predictions(dims, policy, inputs):
    sets = [[0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2)], [0, Fraction(2, 3), -1, 3, Fraction(-5, 4), Fraction(1, 3), 1]]
    mean, rms = predict_errors([[float(p) for p in s] for s in sets], 6, 3, dims, policy, inputs=inputs)
    for k, s in enumerate(sets):
        one = fc.predict_error(fc.toom_cook(6, 3, [*s, "inf"]), dims, policy, inputs=inputs)
        # interpolated modulation, products without it: below half a per cent; bits of sums that are stored, or in mixed policies
        allowed = {"mixed": 0.02, "tf32-fp32": 0.1}.get(policy, 0.005)
        assert rms[k] == pytest.approx(one.rms, rel=allowed)
        normal = np.sqrt(2 / np.pi) * np.mean(one.rms_of_outputs)  # of normal errors; the shape makes them smaller
        assert mean[k] == pytest.approx(normal, rel=allowed)
        assert one.mean_abs < mean[k]


def test_bulk_without_infinity_and_with_channels():
    points = [0, 1, -1, 2, Fraction(1, 2), -3]
    for policy in ("fp32", "bf16"):
        _, rms = predict_errors([[float(p) for p in points]], 4, 3, policy=policy, channels=64, channel_sum="pairwise")
        one = fc.predict_error(fc.toom_cook(4, 3, points), policy=policy, channels=64, channel_sum="pairwise")
        assert rms[0] == pytest.approx(one.rms, rel=0.005)
    twice, _ = predict_errors([[0, 1, 1, 2, 3, 4]], 4, 3)
    assert np.isinf(twice[0])


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"policy": "fp12"}, ValueError, "unknown policy 'fp12': the policies are"),
        ({"order": "random"}, ValueError, "unknown order"),
        ({"channels": 0}, ValueError, "pass a positive integer"),
        ({"channels": 2.5}, TypeError, "pass a positive integer"),
        ({"dims": 3}, ValueError, "pass 1 or 2"),
        ({"channel_sum": "tree"}, ValueError, "the sums are"),
        ({"inputs": "uniform-grid"}, ValueError, "pass one of uniform, normal"),
    ],
)
def test_bad_options(options, error, text):
    with pytest.raises(error, match=text):
        fc.predict_error(fc.algorithm("F(2,3)"), **options)


def test_bad_input():
    alg = fc.toom_cook(16, 3, fc.published_points("barabasz2020", 18, 1))
    with pytest.raises(ValueError, match=r"AT\[\d+\]\[\d+\] = \d+ is beyond the largest number of fp16, 65504"):
        fc.predict_error(alg, policy="fp16")
    with pytest.raises(ValueError, match="w_variance is -1"):
        fc.Moments(w_variance=-1)
    with pytest.raises(ValueError, match=r"takes rows of 4 points, or of 3 and infinity"):
        predict_errors([[0, 1]], 2, 3)
    with pytest.raises(ValueError, match="not finite"):
        predict_errors([[0, 1, -1, math.inf]], 2, 3)

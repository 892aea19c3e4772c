"""Networks in precision policies: values against the evaluation of tiles, rounding against numpy, scaling, overflow."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

import fastconv as fc
from fastconv.arithmetic import POLICIES, policy_named, round_to, setting_of
from fastconv.error.measure.evaluate import direct, stages
from fastconv.exact import FORMATS, rounded
from fastconv.network import FetchError, known_network
from fastconv.network.precision.emulated import Emulation, Extents, Shape, scales_of
from fastconv.network.precision.names import Scales, split_policy
from fastconv.network.precision.rounded import Contraction, Transform, carrier_of, converted
from fastconv.program import program_of

NAMES = ("fp16", "bf16", "tf32", "mixed", "fp16-fp32", "bf16-fp32", "tf32-fp32", "fp32", "fp8_e4m3", "fp8_e5m2")


def data(seed=0, channels=37, scale=1.0):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((3, channels, 3, 3)).astype(np.float32)
    return w, (rng.standard_normal((2, channels, 14, 18)) * scale).astype(np.float32)


def same(a, b):
    """Return whether arrays are equal bit for bit, except for NaN payloads and signs of zero; float64 represents both exactly."""
    return np.array_equal(a.astype(np.float64), b.astype(np.float64), equal_nan=True)


@pytest.mark.parametrize("channel_sum", ["linear", "pairwise", "blocked"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [2, 4, 6])
def test_layers_are_the_evaluation_of_their_tiles(name, size, channel_sum):
    alg, policy = fc.algorithm(f"F({size}x{size},3x3)"), policy_named(name)
    w, x = data(size, scale=40.0)
    got, reached = Emulation(w, None, Shape(), alg, policy, channel_sum)(x, threads=2)
    tiles = sliding_window_view(x, (alg.n, alg.n), (2, 3))[:, :, ::size, ::size]
    found = stages(
        (alg, alg), w[:, None, None, None], tiles.transpose(0, 2, 3, 1, 4, 5)[None], setting_of(policy, channel_sum=channel_sum), True
    )
    want = round_to(found["output"], policy.data).transpose(1, 0, 2, 4, 3, 5).reshape(2, 3, 12 // size * size, -1)
    assert same(got[:, :, : want.shape[2], : want.shape[3]], want)
    for stage in ("input", "sum"):
        wrong = int((~np.isfinite(found[stage])).sum())
        # An incomplete last tile is emulated too, so more values may overflow.
        assert reached.overflows.get(stage, 0) >= wrong
        assert bool(reached.overflows.get(stage)) == bool(wrong) or 16 % size


@pytest.mark.parametrize("channel_sum", ["linear", "pairwise", "blocked"])
@pytest.mark.parametrize("name", NAMES)
def test_direct_layers_are_direct_convolutions_of_their_windows(name, channel_sum):
    policy = policy_named(name)
    w, x = data(1)
    got, _ = Emulation(w, None, Shape((2, 1), (1, 2)), None, policy, channel_sum)(x)
    windows = sliding_window_view(x, (3, 5), (2, 3))[:, :, ::2, :, :, ::2].transpose(0, 2, 3, 1, 4, 5)
    want = direct(w[:, None, None, None], windows[None], (1, 1), setting_of(policy, channel_sum=channel_sum), True)[..., 0, 0]
    assert same(got, round_to(want, policy.data).transpose(1, 0, 2, 3))


def test_groups_are_convolutions_of_their_own():
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal((6, 2, 3, 3)).astype("f4"), rng.standard_normal((1, 4, 8, 8)).astype("f4")
    policy = policy_named("bf16")
    got, _ = Emulation(w, None, Shape(groups=2), None, policy, "linear")(x)
    parts = [Emulation(w[3 * g : 3 * g + 3], None, Shape(), None, policy, "linear")(x[:, 2 * g : 2 * g + 2])[0] for g in (0, 1)]
    assert same(got, np.concatenate(parts, axis=1))


def test_bias_is_added_in_the_format_of_the_result():
    w, x = data(2, channels=1)
    bias = np.array([100.03, -1e-3, 7.0], np.float32)
    plain, _ = Emulation(w, None, Shape(), None, policy_named("bf16"), "linear")(x)
    got, _ = Emulation(w, bias, Shape(), None, policy_named("bf16"), "linear")(x)
    bf16 = FORMATS["bf16"]
    assert same(got, round_to(plain + round_to(bias, bf16)[:, None, None], bf16))


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1), st.sampled_from(["fp16", "bf16"]))
def test_products_and_sums_in_float32_are_rounded_as_exact_ones(a, b, name):
    """Double rounding is innocuous: both formats against rational arithmetic, subnormal and overflowing numbers included."""
    fmt = FORMATS[name]
    assert carrier_of(fmt) is np.float32
    if name == "fp16":
        x, y = (np.array([v], np.uint16).view(np.float16).astype(np.float32) for v in (a, b))
    else:
        x, y = (np.array([v << 16], np.uint32).view(np.float32) for v in (a, b))
    if not (np.isfinite(x[0]) and np.isfinite(y[0])):
        return
    exact_x, exact_y = Fraction(float(x[0])), Fraction(float(y[0]))
    times = Contraction(fmt, fmt, fmt, "linear")(x.reshape(1, 1, 1), y.reshape(1, 1, 1))[0, 0]
    assert float(times) == rounded(exact_x * exact_y, fmt)
    plus, _ = Transform(program_of(((1, 1),), "sequential"), fmt, None)(np.stack([x, y])[None])
    assert float(plus[0, 0, 0]) == rounded(exact_x + exact_y, fmt)


def test_products_of_bf16_near_the_smallest_are_rounded_once():
    """All pairs of significands whose product falls where float32 itself rounds."""
    bf16 = FORMATS["bf16"]
    a = np.arange(128, 256, dtype=np.float64)
    for exponent in range(-152, -140):
        x, y = (a * 2.0**-70).astype(np.float32), (a * 2.0 ** (exponent + 70)).astype(np.float32)
        got = Contraction(bf16, bf16, bf16, "linear")(x[:, None, None], y[None, None, :])
        assert same(got, round_to(np.multiply.outer(x.astype(np.float64), y.astype(np.float64)), bf16))


@given(st.floats(width=32), st.sampled_from(["fp16", "bf16", "tf32", "fp8_e4m3", "fp8_e5m2"]))
def test_conversions_are_those_of_the_arrays(value, name):
    fmt = FORMATS[name]
    for hold in (np.float32, np.float64):
        x = np.array([value], hold)
        assert same(converted(x, FORMATS["fp32"], fmt), round_to(x, fmt))


def test_pairwise_sums_of_any_length():
    rng = np.random.default_rng(5)
    policy = policy_named("fp8_e5m2")
    for channels in (1, 2, 3, 5, 6, 7, 11, 64, 65):
        w = rng.standard_normal((2, channels, 1, 1)).astype("f4")
        x = rng.standard_normal((1, channels, 4, 4)).astype("f4")
        got, _ = Emulation(w, None, Shape(), None, policy, "pairwise")(x)
        want = direct(
            w[:, None, None, None], x.transpose(0, 2, 3, 1)[None, ..., None, None], (1, 1), setting_of(policy, channel_sum="pairwise"), True
        )
        assert same(got, round_to(want[..., 0, 0], policy.data).transpose(1, 0, 2, 3))


def test_fused_programs_are_refused():
    with pytest.raises(ValueError, match="has fused operations"):
        Transform(program_of(((1, 2),), "sequential+fma"), FORMATS["fp16"], None)


@pytest.mark.parametrize("policy", ["mixed", "tf32", "fp16", "bf16", "fp16-fp32"])
def test_networks_lose_what_their_formats_lose(net, x, policy):
    exact = net.run({"x": x}, policy="fp64")["y"]
    unit = 2.0 ** -POLICIES[policy].operands.p
    for algorithm, most in (("direct", 4), ("F(2x2,3x3)", 8), ("F(4x4,3x3)", 60)):
        y = net.run({"x": x}, algorithm, policy)["y"]
        assert y.dtype == np.float32
        # A layer has an error of a few units of its format; cancellation in the tiles amplifies it less than 60 times at F(4x4).
        assert unit / 50 < np.linalg.norm(y - exact) / np.linalg.norm(exact) < most * unit


def test_fp32_is_emulated_when_the_sum_is_named(net, x):
    by_kernels, linear, pairwise = (net.run({"x": x}, "F(4x4,3x3)", channel_sum=s)["y"] for s in (None, "linear", "pairwise"))
    assert not np.array_equal(linear, pairwise)
    np.testing.assert_allclose(linear, by_kernels, atol=1e-5 * np.abs(by_kernels).max())  # both errors are below 100 units of fp32
    assert net.prepare("direct", "fp16") is net.prepare("direct", "fp16")


def test_policies_of_ones_own_and_bad_ones(net, x):
    mine = fc.Policy("fp32", "fp32", "fp32", "fp32", "fp32", operands="bf16", data="bf16")
    assert np.array_equal(net.run({"x": x}, "F(2x2,3x3)", mine)["y"], net.run({"x": x}, "F(2x2,3x3)", "bf16-fp32")["y"])
    with pytest.raises(ValueError, match="keeps data in fp64"):
        net.run({"x": x}, policy=fc.Policy("fp64", "fp64", "fp64", "fp64", "fp64"))
    with pytest.raises(ValueError, match="unknown channel sum 'random'"):
        net.run({"x": x}, channel_sum="random")
    with pytest.raises(ValueError, match="unknown policy 'fp17'"):
        split_policy("fp17-balanced")


def test_overflow_is_counted_where_it_happens_and_scaling_prevents_it(net, x):
    wild = {"x": x * np.float32(9000)}
    exact = net.run(wild, policy="fp64")["y"]
    runner = net.prepare("F(6x6,3x3)", "fp16")
    out, extents = runner.counted(wild, ["dense.relu"])
    assert extents["dense"].overflows["input"] > 0
    assert not np.isfinite(out["dense.relu"]).all()
    balanced = net.prepare("F(6x6,3x3)", "fp16-balanced")
    out, extents = balanced.counted(wild)
    assert extents["dense"].overflows == {}
    assert balanced.scales["dense"].input < 0
    # fp16 has 2**-11; F(6x6) of three channels multiplies it by less than 100, later layers may amplify further.
    assert np.linalg.norm(out["y"] - exact) < 100 * 2**-11 * np.linalg.norm(exact)


def test_scales_use_the_room_of_the_formats():
    policy = policy_named("fp16")
    layer = Emulation(data()[0], None, Shape(), fc.algorithm("F(4x4,3x3)"), policy, "linear")
    free = scales_of(layer.policy, Extents({}, {"input": 1.0, "kernel": 1.0, "sum": 2.0**-20, "output": 2.0**-20}))
    assert free == Scales(13, 13)  # 2**13 = 65504 / 4, rounded down to a power of two
    bound = scales_of(layer.policy, Extents({}, {"input": 1.0, "kernel": 1.0, "sum": 2.0**3, "output": 2.0**9}))
    assert bound.input + bound.kernel == 4  # the output needs 2**13 / 2**9
    wide = Emulation(data()[0], None, Shape(), fc.algorithm("F(4x4,3x3)"), policy_named("bf16"), "linear")
    assert scales_of(wide.policy, Extents({}, {"input": 1.0, "kernel": 1.0, "sum": 1.0, "output": 1.0})).input > 50


@pytest.mark.parametrize("exponent", [-3, 4])
def test_scaling_undoes_itself(exponent):
    """In bf16, whose range is wide, scaling by powers of two changes nothing."""
    w, x = data(4)
    make = lambda scales: Emulation(w, np.ones(3, "f4"), Shape(), fc.algorithm("F(4x4,3x3)"), policy_named("bf16"), "linear", scales)(x)[0]
    assert np.array_equal(make(Scales()), make(Scales(exponent, -7)))


def test_squeezenet_in_fp16():
    """F(6x6) overflows in fp16; balanced and scaled it classifies as direct convolution does."""
    known = known_network("squeezenet")
    try:
        net, feeds = known.load(), {"image": known.inputs()["image"][[0, 3]]}
    except FetchError as error:
        pytest.skip(str(error))
    plain, extents = net.prepare("F(6x6,3x3)", "fp16").counted(feeds)
    assert not np.isfinite(plain["logits"]).all()
    assert sum(sum(e.overflows.values()) for e in extents.values()) > 1000
    direct_fp16 = net.run(feeds, "direct", "fp16")["logits"]
    exact = net.run(feeds, policy="fp64")["logits"]
    for algorithm, most in (("F(4x4,3x3)", 0.005), ("F(6x6,3x3)", 0.02)):
        got, extents = net.prepare(algorithm, "fp16-balanced").counted(feeds)
        assert not any(e.overflows for e in extents.values())
        assert (got["logits"].argmax(axis=1) == direct_fp16.argmax(axis=1)).all()
        assert np.linalg.norm(got["logits"] - exact) < most * np.linalg.norm(exact)  # measured 0.002 and 0.005


@pytest.mark.parametrize("policy", ["fp16", "bf16", "fp16-balanced"])
@pytest.mark.parametrize("algorithm", ["direct", "F(2x2,3x3)"])
def test_nothing_is_emulated_to_nothing(net, policy, algorithm):
    assert net.run({"x": np.zeros((0, 3, 16, 16), np.float32)}, algorithm, policy)["y"].shape == (0, 2)

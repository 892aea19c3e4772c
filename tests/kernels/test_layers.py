"""Layers against a direct convolution in float64, against their numpy twin, and in exact arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.twin import twin, windows

from fastconv import algorithm, best_points, conv1d, conv2d, plan_conv1d, plan_conv2d, toom_cook
from fastconv.kernels import Plan
from fastconv.kernels.choose.cut import CHANNEL_CHAIN, DIRECT_CHAIN
from fastconv.native import machine
from fastconv.program import programs_of

KERNELS = {
    "F(2x2,3x3)": (3, 3),
    "F(4x4,3x3)": (3, 3),
    "F(6x6,3x3)": (3, 3),
    "F(2x2,5x5)": (5, 5),
    "F(3x2,2x5)": (2, 5),
    "F(1x4,1x3)": (1, 3),
    "F(5x1,4x1)": (4, 1),
    "F(14x14,3x3)": (3, 3),
}


def naive(x, w, b, stride, padding, dilation, groups):
    """Return the direct convolution in the arrays' format, one matrix product per tap."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    (n, _, h, width), (k, c, rh, rw) = x.shape, w.shape
    oh, ow = (h - dilation[0] * (rh - 1) - 1) // stride[0] + 1, (width - dilation[1] * (rw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, groups, k // groups, oh * ow), x.dtype)
    for i, j in itertools.product(range(rh), range(rw)):
        top, left = i * dilation[0], j * dilation[1]
        part = x[:, :, top : top + (oh - 1) * stride[0] + 1 : stride[0], left : left + (ow - 1) * stride[1] + 1 : stride[1]]
        y += w[:, :, i, j].reshape(groups, k // groups, c) @ part.reshape(n, groups, c, oh * ow)
    return y.reshape(n, k, oh, ow) + b[:, None, None]


def worst_error(plan: Plan, x, w, b):
    """Bound every output's error: gamma_k times the program read on absolute values.

    Along any path from input to output there are at most k roundings: of the constants and operations of both
    programs and axes, one of U, a chain of products, the sum of chains, the bias; gamma_k = k u / (1 - k u).
    """
    layer, axes = plan.layer, plan.method.axes
    u = float(np.finfo(layer.dtype).eps) / 2
    x, w = np.abs(x.astype(float)), np.abs(w.astype(float))
    if axes is None:
        depth = w[0].size
        y = naive(x, w, np.abs(b), layer.stride, layer.padding, layer.dilation, layer.groups)
        k = min(depth, DIRECT_CHAIN) + depth // DIRECT_CHAIN + 3
        return k * u / (1 - k * u) * y
    (ah, gh, bh), (aw, gw, bw) = ([np.abs(matrix) for matrix in alg.matrices(float)] for alg in axes)
    n, m = [a.n for a in axes], [a.m for a in axes]
    count = tuple(-(-size // step) for size, step in zip(layer.output, m, strict=True))
    tiles = windows(layer, x, tuple(n), tuple(m), (1, 1), count)
    v = np.einsum("ia,jb,ncabpq->ncijpq", bh, bw, tiles)
    total = np.einsum("kcij,ncijpq->nkijpq", np.einsum("ia,jb,kcab->kcij", gh, gw, w), v, optimize=True)
    y = np.einsum("ai,bj,nkijpq->nkpaqb", ah, aw, total).reshape(layer.batch, layer.filters, count[0] * m[0], count[1] * m[1])
    steps = sum(2 * len(p.ops) for alg in axes for p in (programs_of(alg, plan.order).input, programs_of(alg, plan.order).output))
    k = steps + 3 + min(layer.channels, CHANNEL_CHAIN) + layer.channels // CHANNEL_CHAIN
    return k * u / (1 - k * u) * (y[:, :, : layer.output[0], : layer.output[1]] + np.abs(b)[:, None, None])


@st.composite
def layers(draw, names=tuple(KERNELS)):
    """Draw an algorithm and arrays for a layer that it fits."""
    name = draw(st.sampled_from(names))
    dtype = draw(st.sampled_from(["f4", "f8"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, c, k = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 7, 33, 70])), draw(st.sampled_from([1, 3, 4, 6, 17]))
    kernel, groups, stride, dilation = KERNELS.get(name), 1, (1, 1), (1, 1)
    if kernel is None:
        kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 5)))
        groups = draw(st.sampled_from([1, 1, 2, 3]))
        stride, dilation = (draw(st.tuples(st.integers(1, 3), st.integers(1, 2))) for _ in range(2))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    least = [max(1, d * (r - 1) + 1 - 2 * p) for r, d, p in zip(kernel, dilation, padding, strict=True)]
    h, w = (draw(st.integers(low, low + 40)) for low in least)
    x = rng.standard_normal((n, c * groups, h, w)).astype(dtype)
    weight = rng.standard_normal((k * groups, c, *kernel)).astype(dtype)
    bias = rng.standard_normal(k * groups).astype(dtype)
    return name, x, weight, bias, stride, padding, dilation, groups


@settings(max_examples=60)
@given(layer=layers((*KERNELS, "im2col", "direct")), threads=st.integers(1, 3))
def test_error_stays_within_its_bound(layer, threads):
    name, x, w, b, stride, padding, dilation, groups = layer
    plan = plan_conv2d(w, b, stride, padding, dilation, groups, input_shape=x.shape, algorithm=name, threads=threads)
    y = plan(x)
    wide = [a.astype(np.longdouble) for a in (x, w, b)]
    expected = naive(*wide, stride, [(p, p) for p in padding], dilation, groups)
    assert y.shape == expected.shape == plan.output_shape
    assert y.dtype == x.dtype
    assert (np.abs(y - expected) <= worst_error(plan, x, w, b)).all()


@settings(max_examples=40)
@given(layer=layers((*(name for name in KERNELS if "14" not in name), "im2col")), order=st.sampled_from(["huffman", "huffman+shared+fma"]))
def test_equals_its_numpy_twin_bit_for_bit(layer, order):
    name, x, w, b, stride, padding, dilation, groups = layer
    plan = plan_conv2d(w, b, stride, padding, dilation, groups, input_shape=x.shape, algorithm=name, order=order, threads=2)
    chain = CHANNEL_CHAIN if plan.method.axes else DIRECT_CHAIN
    np.testing.assert_array_equal(plan(x), twin(plan.layer, plan.method, x, w, b, plan.order, chain, machine().fma))


@settings(max_examples=15)
@given(layer=layers(("F(2x2,3x3)", "direct")))
def test_small_integers_come_out_exact(layer):
    """F(2x2,3x3) only divides by two: integers below 2^24 stay exact if the weights are multiples of four."""
    name, x, w, b, stride, padding, dilation, groups = layer
    x, w, b = np.rint(2 * x), 4 * np.rint(w), np.rint(b)
    expected = naive(*(a.astype(np.int64) for a in (x, w, b)), stride, [(p, p) for p in padding], dilation, groups)
    np.testing.assert_array_equal(conv2d(x, w, b, stride, padding, dilation, groups, algorithm=name), expected)


def test_other_points_come_out_exact_where_their_denominators_divide_the_weights():
    """At 0, 1, -1, 2, inf the kernel transform divides by 2 and 6 per axis; all else is integers, here below 2^24."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-2, 3, (2, 2, 11, 13)).astype("f4"), 36 * rng.integers(-2, 3, (5, 2, 3, 3)).astype("f4")
    y = conv2d(x, w, padding=1, algorithm=toom_cook(3, 3, [0, 1, -1, 2, "inf"]))
    np.testing.assert_array_equal(y, naive(x, w, np.zeros(5), (1, 1), [(1, 1)] * 2, (1, 1), 1))


@pytest.mark.parametrize("name", ["F(4x4,3x3)", "im2col"])
def test_shifting_the_input_by_a_tile_shifts_the_output(name):
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((1, 5, 30, 34)).astype("f4"), rng.standard_normal((6, 5, 3, 3)).astype("f4")
    y, moved = conv2d(x, w, algorithm=name), conv2d(x[:, :, 4:, 8:], w, algorithm=name)
    np.testing.assert_array_equal(y[:, :, 4:, 8:], moved)


@pytest.mark.parametrize("name", ["F(6x6,3x3)", "im2col", "fft"])
def test_scaling_by_a_power_of_two_scales_the_output(name):
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 40, 19, 9)).astype("f4"), rng.standard_normal((6, 40, 3, 3)).astype("f4")
    np.testing.assert_array_equal(conv2d(8 * x, w / 4, algorithm=name), 2 * conv2d(x, w, algorithm=name))


def test_fourier_layer_is_close_in_norm():
    """The relative error of a transform of size N is below c u log2 N; c = 8 covers both directions and the product."""
    rng = np.random.default_rng(3)
    for dtype, stride, dilation, groups in (("f4", (1, 1), (1, 1), 1), ("f4", (2, 3), (1, 2), 2), ("f8", (1, 2), (3, 1), 3)):
        x, w = rng.standard_normal((2, 6, 33, 20)).astype(dtype), rng.standard_normal((6, 6 // groups, 5, 4)).astype(dtype)
        b = rng.standard_normal(6).astype(dtype)
        y = conv2d(x, w, b, stride, (2, 1), dilation, groups, algorithm="fft")
        expected = naive(*(a.astype(float) for a in (x, w, b)), stride, [(2, 2), (1, 1)], dilation, groups)
        assert y.dtype == x.dtype
        assert np.linalg.norm(y - expected) <= 8 * np.finfo(dtype).eps / 2 * np.log2(33 * 20) * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["auto", "direct", "im2col", "fft", "F(4,3)"])
def test_one_dimension_is_two_with_a_height_of_one(name):
    rng = np.random.default_rng(4)
    x, w, b = (rng.standard_normal(s).astype("f4") for s in ((2, 20, 77), (17, 20, 3), (17,)))
    plan = plan_conv1d(w, b, padding="same", input_shape=x.shape, algorithm=name)
    y = plan(x)
    assert y.shape == plan.output_shape == (2, 17, 77)
    np.testing.assert_array_equal(y, conv1d(x, w, b, padding=1, algorithm=name))
    two = conv2d(x[:, :, None], w[:, :, None], b, padding=(0, 1), algorithm=name)
    np.testing.assert_array_equal(y, two[:, :, 0])
    turned = conv2d(x[..., None], w[..., None], b, padding=(1, 0), algorithm=name)
    np.testing.assert_allclose(turned[..., 0], y, atol=1e-4)


def test_names_pairs_and_objects_give_the_same_plan():
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((1, 3, 12, 12)).astype("f4"), rng.standard_normal((4, 3, 3, 3)).astype("f4")
    alg = algorithm("F(4x4,3x3)")
    results = [conv2d(x, w, algorithm=a) for a in ("F(4x4,3x3)", "f(4x4, 3x3)", "winograd43", "F(4,3)", alg, (alg, alg))]
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])
    assert not np.array_equal(conv2d(x, w, algorithm=toom_cook(4, 3, [0, 1, -1, 2, -2, "inf"])), results[0])


def test_same_padding_puts_the_odd_zero_last():
    x, w = np.arange(5, dtype=float).reshape(1, 1, 1, 5), np.array([[[[1.0, 10.0]]]])
    np.testing.assert_array_equal(conv2d(x, w, padding="same")[0, 0, 0], [10, 21, 32, 43, 4])


def test_plan_explains_itself():
    w = np.ones((64, 64, 3, 3), np.float32)
    plan = plan_conv2d(w, padding=1, input_shape=(1, 64, 56, 56), algorithm="F(4x4,3x3)", threads=2)
    text = plan.explain()
    assert "multiplications per output and channel: 2.25, direct 9: 4 times fewer" in text
    assert ", ".join(map(str, best_points(4, 3))) in text
    assert f"workspace {plan.workspace_bytes} bytes" in text
    # U of F(4x4,3x3) holds 36 numbers for 9.
    assert plan.weight_bytes == w.nbytes * 4
    assert plan_conv2d(w, dilation=2, input_shape=(1, 64, 56, 56)).algorithm == "direct"  # nothing else supports dilation


def test_planes_of_a_call_fill_whole_vectors():
    """scipy rounds leftover planes differently: with 16-byte to 64-byte vectors there must be none."""
    from fastconv.kernels.runners.fourier import _TOGETHER

    assert all(_TOGETHER % (bytes_ // size) == 0 for bytes_ in (16, 32, 64) for size in (4, 8))


def test_fourier_layers_give_the_same_bits_and_spread_nan_to_their_image_and_group():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 22, 19, 17)).astype("f4"), rng.standard_normal((10, 11, 5, 5)).astype("f4")
    plans = [plan_conv2d(w, groups=2, input_shape=x.shape, algorithm="fft", threads=t) for t in (1, 2, 3)]
    expected = plans[0](x)
    for plan in plans[1:]:
        np.testing.assert_array_equal(plan(x), expected)
    x[1, 15, 3, 3] = np.nan
    y = plans[0](x)
    assert np.isnan(y[1, 5:]).all()
    np.testing.assert_array_equal(y[0], expected[0])
    np.testing.assert_array_equal(y[1, :5], expected[1, :5])

"""Algorithms with complex points and with strides equal their numpy reading, and are chosen or rejected correctly."""

import numpy as np
import pytest
from support.twin import twin

import fastconv as fc
from fastconv.kernels.choose import estimated
from fastconv.kernels.choose.accuracy import order_of
from fastconv.kernels.choose.cut import CHANNEL_CHAIN
from fastconv.native import machine


def layer_arrays(channels, filters, shape, kernel, dtype="f4"):
    rng = np.random.default_rng([channels, *shape])
    return rng.standard_normal((2, channels, *shape)).astype(dtype), rng.standard_normal((filters, channels, *kernel)).astype(dtype)


@pytest.mark.parametrize(
    ("name", "shape", "kernel", "dtype"),
    [
        ("F(6x6,5x5)/13", (13, 17), (5, 5), "f4"),
        ("F(3x3,3x3)/6", (9, 4), (3, 3), "f8"),
        ("F(14x14,5x5)/25", (14, 30), (5, 5), "f4"),
        ("F(10,9)/25", (1, 64), (1, 9), "f4"),
        ("F(4,3)/7", (40, 3), (3, 1), "f4"),
    ],
)
def test_layers_equal_their_numpy_twin_bit_for_bit(name, shape, kernel, dtype):
    x, w = layer_arrays(5, 11, shape, kernel, dtype)
    pad = (kernel[0] // 2, kernel[1] // 2)
    plans = [fc.plan_conv2d(w, padding=pad, input_shape=x.shape, algorithm=name, threads=t) for t in (1, 3)]
    expected = twin(plans[0].layer, plans[0].method, x, w, None, plans[0].order, CHANNEL_CHAIN, machine().fma)
    for plan in plans:
        np.testing.assert_array_equal(plan(x), expected)
    assert name.split("/")[1] in plans[0].algorithm
    again = fc.plan_conv2d(w, padding=pad, input_shape=x.shape, algorithm=plans[0].algorithm)
    assert again.method.axes == plans[0].method.axes


@pytest.mark.parametrize(("size", "kernel", "dims"), [(56, 5, 2), (56, 7, 2), (2000, 9, 1), (1500, 15, 1)])
def test_auto_takes_complex_points_for_long_kernels(size, kernel, dims):
    """The error against float64 is within the limit, with a margin for one random draw."""
    x, w = layer_arrays(32, 32, (size,) * dims, (kernel,) * dims)
    make = fc.plan_conv1d if dims == 1 else fc.plan_conv2d
    plan = make(w, padding=kernel // 2, input_shape=x.shape)
    assert "/" in plan.algorithm
    assert plan.order == order_of(plan.method.axes[1])
    reference = make(w.astype("f8"), padding=kernel // 2, input_shape=x.shape, algorithm="fft")(x.astype("f8"))
    assert np.linalg.norm(plan(x) - reference) < 1e-6 * np.linalg.norm(reference)


def test_long_tiles_of_real_points_are_refused_with_a_remedy():
    x, w = layer_arrays(2, 2, (40, 40), (5, 5))
    with pytest.raises(ValueError, match="at most 16") as refusal:
        fc.plan_conv2d(w, input_shape=x.shape, algorithm="F(14x14,5x5)")
    remedy = str(refusal.value).split("'")[1]
    assert fc.plan_conv2d(w, input_shape=x.shape, algorithm=remedy).method.axes[0].products == 25


@pytest.mark.parametrize("name", ["F(4x4,3x3)/5", "F(14x14,5x5)/20", "F(80x80,5x5)/122"])
def test_impossible_numbers_of_products_are_refused(name):
    x, w = layer_arrays(2, 2, (40, 40), (3, 3) if "3x3" in name else (5, 5))
    with pytest.raises(ValueError, match=r"at least n|sets are known with|at most 66"):
        fc.plan_conv2d(w, input_shape=x.shape, algorithm=name)


STRIDED = [
    ("F(4x4,3x3)s2", (1, 35, 21, 18), 9, (3, 3), 2, 1),
    ("F(2x2,3x3)s2", (2, 3, 9, 9), 3, (3, 3), 2, 0),
    ("F(3x3,5x5)s2", (1, 4, 30, 41), 33, (5, 5), 2, 2),
    ("F(2x2,7x7)s3", (1, 4, 30, 41), 8, (7, 7), 3, 3),
    ("F(6,3)s2", (1, 4, 1, 57), 5, (1, 3), (1, 2), (0, 1)),
    ("F(4x3,3x5)s2", (1, 40, 17, 40), 12, (3, 5), 2, (1, 2)),
    ("F(5x5,3x3)s2", (1, 16, 56, 56), 24, (3, 3), 2, 1),
    ("F(4x4,3x3)s2", (1, 8, 3, 3), 8, (3, 3), 2, 0),
]


@pytest.mark.parametrize(("name", "shape", "filters", "kernel", "stride", "padding"), STRIDED, ids=lambda v: str(v))
def test_strided_layers_equal_their_numpy_twin(name, shape, filters, kernel, stride, padding):
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(shape).astype("f4"), rng.standard_normal((filters, shape[1], *kernel)).astype("f4")
    plans = [fc.plan_conv2d(w, None, stride, padding, input_shape=shape, algorithm=name, threads=t) for t in (1, 3)]
    y = plans[0](x)
    np.testing.assert_array_equal(y, plans[1](x))
    np.testing.assert_array_equal(y, twin(plans[0].layer, plans[0].method, x, w, None, plans[0].order, CHANNEL_CHAIN, machine().fma))
    truth = fc.conv2d(x.astype("f8"), w.astype("f8"), None, stride, padding, algorithm="direct")
    predicted = max(fc.predict_error(alg, 2, "fp32", channels=shape[1], inputs="normal").relative_l2 for alg in plans[0].method.axes)
    assert np.linalg.norm(y - truth) <= 2 * predicted * np.linalg.norm(truth)


def test_auto_weighs_strided_algorithms_against_direct_convolution():
    """The choice keeps the error limit in either case."""
    w = np.ones((128, 128, 3, 3), np.float32)
    for limit in (1e-6, 3e-7, 2e-7):
        plan = fc.plan_conv2d(w, None, 2, 1, input_shape=(1, 128, 56, 56), max_error=limit)
        assert plan.algorithm == "direct" or plan.algorithm.endswith("s2")
        assert estimated(plan.layer, plan.method.axes or ()).error <= limit
    one = fc.plan_conv2d(w, None, 2, 1, input_shape=(1, 128, 56, 56), algorithm="F(4x4,3x3)s2")
    assert "multiplications per output and channel: 5.0625, direct 9" in one.explain()


def test_another_stride_is_refused():
    w, shape = np.ones((4, 4, 3, 3), np.float32), (1, 4, 20, 20)
    with pytest.raises(ValueError, match=r"F\(4x4,3x3\) does not fit stride 2x2: it is for 1x1; pass 'F\(4x4,3x3\)s2', 'auto'"):
        fc.plan_conv2d(w, None, 2, input_shape=shape, algorithm="F(4x4,3x3)")
    with pytest.raises(ValueError, match=r"F\(4x4,3x3\)s2 does not fit stride 1x1"):
        fc.plan_conv2d(w, input_shape=shape, algorithm="F(4x4,3x3)s2")
    with pytest.raises(ValueError, match="does not fit dilation 2x2"):
        fc.plan_conv2d(w, None, 2, 0, 2, input_shape=shape, algorithm="F(4x4,3x3)s2")
    with pytest.raises(ValueError, match="has tiles of 17: layers run tiles of at most 16"):
        fc.plan_conv2d(w, None, 2, input_shape=shape, algorithm="F(8x8,3x3)s2")

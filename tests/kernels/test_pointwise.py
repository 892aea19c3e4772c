"""1x1 layers: the product of filters and pixels equals im2col in the block engine bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import plan_conv2d
from fastconv.kernels import RELU, Activation
from fastconv.kernels.runners.pointwise import PointwiseRunner

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("batch", "channels", "filters", "size", "stride", "groups"),
    [
        (1, 64, 64, (16, 15), 1, 1),
        (2, 3, 5, (1, 1), 1, 1),
        (1, 300, 24, (7, 7), 1, 1),
        (1, 129, 50, (4, 50), 1, 1),
        (3, 260, 14, (5, 5), 1, 2),
        (1, 40, 3, (57, 9), 1, 1),
        (1, 520, 31, (15, 14), 2, 1),
        (2, 12, 24, (9, 30), (3, 2), 4),
        (1, 1, 1, (2, 20), 1, 1),
    ],
)
def test_it_equals_im2col_bit_for_bit(dtype, threads, batch, channels, filters, size, stride, groups):
    x = RNG.standard_normal((batch, channels, *size)).astype(dtype)
    w, b = RNG.standard_normal((filters, channels // groups, 1, 1)).astype(dtype), RNG.standard_normal(filters).astype(dtype)
    for activation in (None, Activation(slope=RNG.random(filters), low=-1.0, high=2.0)):
        options = {"groups": groups, "input_shape": x.shape, "threads": threads, "activation": activation}
        plan = plan_conv2d(w, b, stride, algorithm="direct", **options)
        assert isinstance(plan._runner, PointwiseRunner)
        wanted = plan_conv2d(w, b, stride, algorithm="im2col", **options)(x)
        np.testing.assert_array_equal(plan(x), wanted)
        np.testing.assert_array_equal(plan(x), wanted)  # in a workspace that has been used


@pytest.mark.parametrize("size", [(7, 7), (8, 3), (13, 12)])
def test_it_adds_to_what_is_there(size):
    x, w = RNG.standard_normal((2, 200, *size)).astype("f4"), RNG.standard_normal((30, 200, 1, 1)).astype("f4")
    b, shortcut = RNG.standard_normal(30).astype("f4"), RNG.standard_normal((2, 30, *size)).astype("f4")
    plain = plan_conv2d(w, b, input_shape=x.shape)(x)
    for activation, wanted in ((None, plain + shortcut), (RELU, np.maximum(plain + shortcut, 0))):
        plan = plan_conv2d(w, b, input_shape=x.shape, threads=2, activation=activation)
        y = shortcut.copy()
        plan._runner.pool.run(plan._runner.job(x, y, adding=True))
        np.testing.assert_array_equal(y, wanted)

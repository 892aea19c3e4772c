"""A layer with a fused activation gives the same bits as the layer followed by numpy."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.kernels import RELU, Activation, plan_conv2d

SLOPES = np.array([0.25, -1.0, 0.0, 1.5, 0.1], np.float32)
KINDS = {
    "relu": RELU,
    "leaky": Activation(slope=0.1),
    "parametric": Activation(slope=SLOPES),
    "relu6": Activation(low=0, high=6),
    "inverted": Activation(low=2, high=-2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", ["direct", "F(2x2,3x3)", "F(4x4,3x3)", "fft"])
def test_it_is_what_numpy_makes_of_the_layer(kind, algorithm):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 11, 13)).astype(np.float32)
    if algorithm != "fft":
        x[0, 0, 3, 4], x[1, 1, 5, 5], x[1, 2, 9, 1] = np.nan, np.inf, -np.inf
    w, b = rng.standard_normal((5, 3, 3, 3)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    options = {"padding": 1, "input_shape": x.shape, "algorithm": algorithm}
    plain, shaped = plan_conv2d(w, b, **options)(x), plan_conv2d(w, b, **options, activation=KINDS[kind])(x)
    z = plain
    slope = np.float32(KINDS[kind].slope) if kind != "parametric" else SLOPES[:, None, None]
    with np.errstate(invalid="ignore"):  # zero times an infinity
        bent = np.where(z < 0, slope * z, z)
    wanted = np.minimum(np.maximum(bent, np.float32(KINDS[kind].low)), np.float32(KINDS[kind].high))
    np.testing.assert_array_equal(shaped, wanted)


def test_float64_and_groups():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((1, 4, 9, 9)), rng.standard_normal((6, 2, 3, 3))
    options = {"groups": 2, "stride": 2, "input_shape": x.shape}
    np.testing.assert_array_equal(plan_conv2d(w, **options, activation=RELU)(x), np.maximum(plan_conv2d(w, **options)(x), 0))


def test_the_result_can_go_into_an_array_that_is_there():
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((1, 4, 9, 9)).astype("f4"), rng.standard_normal((6, 4, 3, 3)).astype("f4")
    plan = plan_conv2d(w, input_shape=x.shape)
    out = np.full(plan.output_shape, np.nan, np.float32)
    assert plan(x, out) is out
    np.testing.assert_array_equal(out, plan(x))
    with pytest.raises(ValueError, match="the result"):
        plan(x, out[:, :3])
    with pytest.raises(TypeError, match="array of float32"):
        plan(x, out.astype(float))
    square = plan_conv2d(w[:4], padding=1, input_shape=x.shape)
    with pytest.raises(ValueError, match="shares memory"):
        square(x, x)


def test_bounds_are_numbers():
    with pytest.raises(ValueError, match="bounds of an activation"):
        Activation(low=float("nan"))

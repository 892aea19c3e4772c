"""Layers that add to their output equal, bit for bit, the layer, then the sum, then the activation."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import plan_conv2d
from fastconv.kernels import RELU, Activation
from fastconv.kernels.choose.cut import cut
from fastconv.kernels.runners import blocked

RNG = np.random.default_rng(0)
CASES = [
    # channels, filters, kernel, size, stride, groups, algorithm
    (5, 8, (3, 3), (16, 16), 1, 1, "F(4x4,3x3)"),
    (5, 19, (3, 3), (17, 30), 1, 1, "F(4x4,3x3)"),
    (3, 3, (3, 3), (40, 41), 1, 1, "F(2x2,3x3)"),
    (4, 16, (3, 3), (14, 14), 1, 1, "F(5x3,3x3)"),
    (40, 33, (3, 3), (7, 7), 1, 1, "F(4x2,3x3)"),
    (3, 9, (3, 3), (5, 200), 1, 1, "F(6x6,3x3)"),
    (2, 11, (5, 5), (20, 23), 1, 1, "F(8x8,5x5)/14"),
    (6, 16, (1, 3), (1, 333), 1, 1, "F(4,3)"),
    (7, 24, (3, 3), (19, 18), 2, 1, "direct"),
    (4, 2, (3, 3), (9, 9), 1, 1, "direct"),
    (8, 12, (3, 2), (13, 9), 1, 2, "direct"),
    (6, 10, (1, 1), (11, 11), 1, 1, "im2col"),
]


@pytest.mark.parametrize(("past", "lanes"), [(False, "tiles"), (False, "filters"), (True, "tiles"), (True, "filters")])
@pytest.mark.parametrize(
    ("dtype", "channels", "filters", "kernel", "size", "stride", "groups", "algorithm"),
    [("f4", *case) for case in CASES] + [("f8", *case) for case in CASES[1::3]],  # the programs are slow to compile
)
def test_the_sum_comes_before_the_activation(dtype, past, lanes, channels, filters, kernel, size, stride, groups, algorithm, monkeypatch):
    monkeypatch.setattr(blocked, "cut", lambda work, threads, _: cut(work, threads, lanes == "filters"))
    if past:
        monkeypatch.setattr(blocked, "PAST_BYTES", 0)
    x, w = (
        RNG.standard_normal((2, channels, *size)).astype(dtype),
        RNG.standard_normal((filters, channels // groups, *kernel)).astype(dtype),
    )
    b = RNG.standard_normal(filters).astype(dtype)
    given = {"stride": stride, "padding": [k // 2 for k in kernel], "groups": groups, "input_shape": x.shape, "algorithm": algorithm}
    plain = plan_conv2d(w, b, **given)(x)
    shortcut = RNG.standard_normal(plain.shape).astype(dtype)
    shortcut[0, filters // 2, -1, -1], shortcut[1, 0, 0, 0] = np.nan, np.inf
    for activation in (None, RELU, Activation(slope=RNG.random(filters), low=-1.0, high=2.0)):
        wanted = plain + shortcut if activation is None else activation(plain + shortcut)
        for threads in (1, 3):
            plan = plan_conv2d(w, b, **given, threads=threads, activation=activation)
            assert bool(plan._runner.parts.description["past"]) == past
            assert (plan._runner.parts.description["mt"] > 0) == (lanes == "filters")
            for _ in range(2):
                y = shortcut.copy()
                plan._runner.pool.run(plan.job(x, y, adding=True))
                np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(plan(x), plain if activation is None else activation(plain))  # one plan does both

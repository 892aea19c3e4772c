"""A layer gives the same bits with the channels-blocked layout as without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.twin import twin

from fastconv import plan_conv2d
from fastconv.kernels import RELU, Activation, How, Windows, blocks_of, layer_of, max_pool, plan_layer
from fastconv.kernels.choose.cut import CHANNEL_CHAIN, cut
from fastconv.kernels.runners import blocked
from fastconv.native import machine
from fastconv.native.threads import Pool
from fastconv.network.run.blocks import plain, plain_shape

RNG = np.random.default_rng(0)


def lanes_of(dtype):
    return machine().vector_bytes // np.dtype(dtype).itemsize


def in_blocks(array):
    batch, channels, height, width = array.shape
    lanes = lanes_of(array.dtype)
    return np.ascontiguousarray(np.moveaxis(array.reshape(batch, channels // lanes, lanes, height, width), 2, 4))


def random(*shape, dtype="f4"):
    return RNG.standard_normal(shape).astype(dtype)


def planned(blocks, weight, bias, geometry, shape, **how):
    """Plan a layer inside a network, of the given stride and padding."""
    layer = layer_of(weight, bias, *geometry, 1, 1, shape)
    return plan_layer(replace(layer, blocks=blocks), weight, bias, How(**how))


def both(x, weight, bias, stride=1, padding=1, activation=None, **given):
    """Return a layer's output, and those of the same layer with input, output or both channels-blocked."""
    wanted = plan_conv2d(weight, bias, stride, padding, input_shape=x.shape, activation=activation, **given)(x)
    found = {}
    for blocks in ((True, False), (False, True), (True, True)):
        plan = planned(blocks, weight, bias, (stride, padding), x.shape, activation=activation, **given)
        y = plan(in_blocks(x) if plan.layer.blocks[0] else x)
        found[blocks] = plan, plain(y) if plan.layer.blocks[1] else y
    return wanted, found


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("channels", "kernel", "size", "stride", "algorithm"),
    [
        (1, (3, 3), (40, 161), 1, "F(4x4,3x3)"),  # rows in several pieces, the last one short
        (5, (3, 3), (3, 3), 1, "F(2x2,3x3)"),  # fewer columns than a vector has lanes
        (2, (5, 5), (9, 31), 1, "F(3x3,5x5)"),
        (2, (3, 3), (21, 18), 2, "F(2x2,3x3)s2"),
        (1, (1, 9), (1, 300), 1, "F(1x10,1x9)/22"),
        (2, (1, 3), (6, 20), 1, "F(1x6,1x3)"),
    ],
)
def test_transposed_rows_give_what_the_twin_computes(dtype, channels, kernel, size, stride, algorithm, monkeypatch):
    lanes = lanes_of(dtype)
    x, w = random(2, channels * lanes, *size, dtype=dtype), random(3 * lanes, channels * lanes, *kernel, dtype=dtype)
    b = random(3 * lanes, dtype=dtype)
    # Rows are transposed with filters in the lanes: force the cheapest such cut, whatever this machine would choose.
    monkeypatch.setattr(blocked, "cut", lambda work, threads, _: cut(work, threads, True))
    plan = plan_conv2d(w, b, stride, [k // 2 + 1 for k in kernel], input_shape=x.shape, algorithm=algorithm, threads=2)
    assert plan._runner.parts.description["pixels"]
    np.testing.assert_array_equal(plan(x), twin(plan.layer, plan.method, x, w, b, plan.order, CHANNEL_CHAIN, machine().fma))


CASES = [
    # channels and filters in vectors, kernel, size, stride, algorithm; whether the input can be channels-blocked
    (2, 3, (3, 3), (16, 16), 1, "F(4x4,3x3)", True),
    (1, 5, (3, 3), (17, 30), 1, "F(4x4,3x3)", True),
    (9, 4, (3, 3), (7, 7), 1, "F(4x2,3x3)", True),
    (1, 1, (3, 3), (5, 200), 1, "F(6x6,3x3)", True),
    (2, 1, (3, 3), (1, 1), 1, "F(2x2,3x3)", True),
    (1, 2, (5, 5), (20, 23), 1, "F(8x8,5x5)/14", True),
    (2, 2, (3, 3), (21, 18), 2, "F(4x4,3x3)s2", True),
    (2, 2, (1, 3), (3, 40), 1, "F(1x4,1x3)", False),
    (2, 3, (3, 3), (19, 18), 2, "direct", False),
    (1, 2, (3, 2), (13, 9), 1, "im2col", False),
]


@pytest.mark.parametrize(
    ("dtype", "channels", "filters", "kernel", "size", "stride", "algorithm", "taken"),
    [("f4", *case) for case in CASES] + [("f8", *case) for case in CASES[::2]],  # the programs are slow to compile
)
def test_layers_are_the_same_bit_for_bit(dtype, channels, filters, kernel, size, stride, algorithm, taken):
    lanes = lanes_of(dtype)
    x, w = random(2, channels * lanes, *size, dtype=dtype), random(filters * lanes, channels * lanes, *kernel, dtype=dtype)
    x[1, -1, 0, 0] = np.nan
    b = random(filters * lanes, dtype=dtype)
    for activation in (None, RELU, Activation(slope=RNG.random(filters * lanes), low=-1.0, high=2.0)):
        for threads in (1, 3):
            settings = {"algorithm": algorithm, "threads": threads, "activation": activation}
            wanted, found = both(x, w, b, stride, [k // 2 for k in kernel], **settings)
            for blocks, (plan, y) in found.items():
                assert plan.layer.blocks == (blocks[0] and taken, blocks[1])
                np.testing.assert_array_equal(y, wanted)


@settings(max_examples=40)
@given(st.data())
def test_any_geometry(data):
    height, width, above, before = (data.draw(st.integers(*between)) for between in ((1, 40), (1, 40), (0, 3), (0, 3)))
    m, r = data.draw(st.sampled_from([(2, 3), (4, 3), (5, 3), (3, 2), (2, 5)]))
    height, width = max(height, r - 2 * above), max(width, r - 2 * before)
    lanes = lanes_of("f4")
    channels, filters, batch = (data.draw(st.integers(1, most)) for most in (5, 5, 2))
    x, w = random(batch, channels * lanes, height, width), random(filters * lanes, channels * lanes, r, r)
    wanted, found = both(x, w, None, 1, (above, before), algorithm=f"F({m}x{m},{r}x{r})")
    for plan, y in found.values():
        assert any(plan.layer.blocks)
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("activation", [None, RELU])
@pytest.mark.parametrize("size", [(16, 16), (13, 22)])
def test_a_layer_in_blocks_adds_to_what_is_there(size, activation):
    lanes = lanes_of("f4")
    x, w, b = random(1, 2 * lanes, *size), random(3 * lanes, 2 * lanes, 3, 3), random(3 * lanes)
    for algorithm in ("F(4x4,3x3)", "im2col"):
        plan = plan_conv2d(w, b, padding=1, input_shape=x.shape, algorithm=algorithm)
        shortcut = random(*plan.output_shape)
        wanted = plan(x) + shortcut
        wanted = wanted if activation is None else activation(wanted)
        for blocks in ((True, False), (False, True), (True, True)):
            made = planned(blocks, w, b, (1, 1), x.shape, algorithm=algorithm, threads=2, activation=activation)
            y = in_blocks(shortcut) if made.layer.blocks[1] else shortcut.copy()
            made._runner.pool.run(made.job(in_blocks(x) if made.layer.blocks[0] else x, y, adding=True))
            np.testing.assert_array_equal(plain(y) if made.layer.blocks[1] else y, wanted)


def test_what_cannot_lie_in_blocks_does_not():
    def blocks(channels, filters, kernel=3, algorithm="F(4x4,3x3)", groups=1, stride=1):
        layer = plan_conv2d(
            np.ones((filters, channels // groups, kernel, kernel), np.float32),
            stride=stride,
            groups=groups,
            input_shape=(1, channels, 20, 20),
            algorithm=algorithm,
        )
        return blocks_of(replace(layer.layer, blocks=(False, False)), layer.method)

    lanes = lanes_of("f4")
    assert blocks(2 * lanes, 3 * lanes) == (True, True)
    assert blocks(2 * lanes + 1, 3 * lanes) == (False, True)
    assert blocks(2 * lanes, 3) == (True, False)
    assert blocks(2 * lanes, lanes, algorithm="direct") == (False, True)
    assert blocks(lanes, lanes, 1, "direct") == (False, False)
    assert blocks(lanes, lanes, algorithm="fft") == (False, False)
    assert blocks(2 * lanes, 2 * lanes, algorithm="direct", groups=2) == (False, False)
    assert blocks(lanes, lanes, 7, "phases", stride=2) == (False, False)


def test_plans_say_where_channels_lie_in_blocks():
    lanes = lanes_of("f4")
    w = random(lanes, lanes, 3, 3)
    plan = planned((True, False), w, None, (1, 1), (1, lanes, 8, 8), algorithm="F(2x2,3x3)", threads=1)
    assert plan.input_shape == (1, 1, 8, 8, lanes)
    assert plan.output_shape == (1, lanes, 8, 8)
    assert f"channels of input in blocks of {lanes}" in plan.explain()
    assert "in blocks of channels" not in plan_conv2d(w, input_shape=(1, lanes, 8, 8)).explain()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("size", "out", "kernel", "strides", "dilations", "begin"),
    [
        ((112, 112), (56, 56), (3, 3), (2, 2), (1, 1), (1, 1)),
        ((12, 11), (6, 5), (2, 2), (2, 2), (1, 1), (0, 0)),
        ((20, 33), (9, 10), (3, 2), (2, 3), (2, 3), (0, 1)),
        ((4, 5), (8, 7), (2, 2), (1, 1), (1, 1), (3, 2)),  # some windows are entirely in the padding
    ],
)
def test_pools_are_the_same_bit_for_bit(dtype, size, out, kernel, strides, dilations, begin):
    lanes, windows = lanes_of(dtype), Windows(kernel, strides, dilations, begin)
    x = random(2, 3 * lanes, *size, dtype=dtype)
    x[RNG.random(x.shape) < 0.02] = np.nan
    wanted, y = np.empty((*x.shape[:2], *out), dtype), np.zeros((2, 3, *out, lanes), dtype)
    Pool().run(max_pool(x, wanted, windows))
    for threads in (1, 2):
        Pool().run(max_pool(in_blocks(x), y, windows, threads))
        assert plain_shape(y) == wanted.shape
        np.testing.assert_array_equal(plain(y), wanted)
        y[...] = 0

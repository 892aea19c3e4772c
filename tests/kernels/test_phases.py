"""Stride-2 layers on image phases equal, bit for bit, the stride-1 layer on phases cut in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.twin import twin

import fastconv as fc
from fastconv import plan_conv2d
from fastconv.kernels import RELU, Activation
from fastconv.kernels.choose.cut import CHANNEL_CHAIN
from fastconv.kernels.runners.phases import phase_weights
from fastconv.native import machine

RNG = np.random.default_rng(0)
CASES = [
    # channels, filters, kernel, size, stride, padding
    (3, 16, (7, 7), (40, 37), (2, 2), (3, 3)),
    (3, 5, (3, 3), (8, 9), (2, 2), (1, 1)),
    (5, 24, (5, 5), (33, 70), (2, 2), (2, 2)),
    (4, 8, (5, 3), (19, 12), (2, 1), (0, 2)),
    (6, 3, (3, 4), (11, 150), (1, 2), (1, 0)),
    (2, 9, (4, 4), (7, 8), (2, 2), (1, 1)),
    (40, 8, (3, 3), (5, 5), (2, 2), (0, 1)),
    (3, 8, (11, 11), (60, 23), (2, 2), (5, 4)),
]


def phases_of(layer, x):
    (sh, sw), inner = layer.stride, layer.phased
    out = np.zeros((layer.batch, sh, sw, layer.channels, inner.height, inner.width), x.dtype)
    for i, j in np.ndindex(inner.height * sh, inner.width * sw):
        row, column = i - layer.padding[0][0], j - layer.padding[1][0]
        if 0 <= row < layer.height and 0 <= column < layer.width:
            out[:, i % sh, j % sw, :, i // sh, j // sw] = x[:, :, row, column]
    return out.reshape(layer.batch, -1, inner.height, inner.width)


@pytest.mark.parametrize(
    ("dtype", "channels", "filters", "kernel", "size", "stride", "padding"),
    [("f4", *case) for case in CASES] + [("f8", *case) for case in CASES[::2]],  # the programs are slow to compile
)
def test_it_equals_the_layer_of_the_phases(dtype, channels, filters, kernel, size, stride, padding):
    x, w = RNG.standard_normal((2, channels, *size)).astype(dtype), RNG.standard_normal((filters, channels, *kernel)).astype(dtype)
    b = RNG.standard_normal(filters).astype(dtype)
    given = {"stride": stride, "padding": padding, "input_shape": x.shape, "algorithm": "phases"}
    plan = plan_conv2d(w, b, **given, threads=1)
    method = replace(plan.method, phases=False)
    inner, weights = plan.layer.phased, phase_weights(plan.layer, w)
    plain = twin(inner, method, phases_of(plan.layer, x), weights, b, plan.order, CHANNEL_CHAIN, machine().fma)
    np.testing.assert_array_equal(plan(x), plain)
    shortcut = RNG.standard_normal(plain.shape).astype(dtype)
    for activation in (RELU, Activation(slope=RNG.random(filters), low=-1.0, high=2.0)):
        for threads in (1, 3):
            plan = plan_conv2d(w, b, **given, threads=threads, activation=activation)
            for _ in range(2):  # the second time in a workspace that has been used
                np.testing.assert_array_equal(plan(x), activation(plain))
            y = shortcut.copy()
            plan._runner.pool.run(plan.job(x, y, adding=True))
            np.testing.assert_array_equal(y, activation(plain + shortcut))


def test_it_keeps_the_error_and_what_is_not_finite_stays_in_its_tiles():
    x, w = RNG.standard_normal((2, 3, 224, 224)).astype("f4"), RNG.standard_normal((64, 3, 7, 7)).astype("f4")
    plan = plan_conv2d(w, None, 2, 3, input_shape=x.shape)
    assert plan.algorithm == "phases"  # chosen, where it saves two thirds of the multiplications
    truth = plan_conv2d(w.astype("f8"), None, 2, 3, input_shape=x.shape, algorithm="direct")(x.astype("f8"))
    got = plan(x)
    assert np.linalg.norm(got - truth) <= 1e-6 * np.linalg.norm(truth)  # the limit of "auto"
    x[0, 1, 100, 50], x[1, 0, 0, 0] = np.nan, np.inf
    reach = 4 * 6 + 7  # outputs of a tile, and the taps
    wrong = plan(x) != got
    rows, columns = np.nonzero(wrong[0].any(axis=0))
    assert np.ptp(rows) <= reach
    assert np.ptp(columns) <= reach
    assert wrong[1, :, :reach, :reach].any()
    assert not wrong[1, :, reach:].any()
    assert not wrong[1, :, :, reach:].any()


@pytest.mark.parametrize(
    "options", [{"stride": 1}, {"stride": 3}, {"stride": 2, "dilation": 2}, {"stride": 2, "groups": 2}], ids=lambda o: str(o)
)
def test_what_has_no_phases_is_refused(options):
    w = np.ones((4, 4 // options.get("groups", 1), 3, 3), np.float32)
    with pytest.raises(ValueError, match="'phases' does not fit stride"):
        plan_conv2d(w, input_shape=(1, 4, 20, 20), algorithm="phases", **options)
    with pytest.raises(ValueError, match="'phases' does not fit stride"):
        plan_conv2d(w[:, :, :2, :2], input_shape=(1, 4, 20, 20), algorithm="phases", stride=2, groups=options.get("groups", 1))


def test_networks_run_it_from_their_tape():
    from onnx import TensorProto, helper, numpy_helper

    w = RNG.standard_normal((16, 3, 7, 7)).astype("f4")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c", strides=[2, 2], pads=[3] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="r"),
        helper.make_node("MaxPool", ["r"], ["y"], name="y", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 3, 96, 96]), ("y", None))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [numpy_helper.from_array(w, "w")])
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x = RNG.standard_normal((1, 3, 96, 96)).astype("f4")
    wanted = plan_conv2d(w, None, 2, 3, input_shape=x.shape, algorithm="phases")(x)
    for threads in (1, 2):
        for _ in range(3):
            run = net.prepare("phases", threads=threads)
            np.testing.assert_array_equal(run({"x": x}, ["c"])["c"], wanted)
            np.testing.assert_array_equal(run({"x": x})["y"].max(), wanted.max())
    truth = net.run({"x": x}, policy="fp64")["y"]
    assert np.linalg.norm(net.run({"x": x}, "phases")["y"] - truth) <= 2e-6 * np.linalg.norm(truth)
    for measure in (False, True):
        layer = net.explain({"x": x}, algorithm={"c": "phases"}, measure=measure).layers[0]
        assert layer.algorithm == "phases"
        chosen = next(option for option in layer.options if option.algorithm == "phases")
        direct = next(option for option in layer.options if option.algorithm == "direct")
        assert chosen.multiplications_per_output < direct.multiplications_per_output / 2
        assert direct.predicted_error < chosen.predicted_error < 2e-6

"""Transposed convolutions on the kernels: the definition's sums, in another order."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc
from fastconv.network.run.execute import Runner
from fastconv.network.run.tape import Placed

RNG = np.random.default_rng(0)


def network(attributes, w, b, follower=(), dtype=TensorProto.FLOAT):
    inputs = ["x", "w"] if b is None else ["x", "w", "b"]
    nodes = [helper.make_node("ConvTranspose", inputs, ["c" if follower else "y"], name="t", **attributes), *follower]
    infos = [helper.make_tensor_value_info(name, dtype, None) for name in ("x", "y")]
    weights = [numpy_helper.from_array(array, name) for array, name in ((w, "w"), (b, "b")) if array is not None]
    slope = numpy_helper.from_array(RNG.standard_normal((w.shape[1] * attributes.get("group", 1), 1, 1)).astype(w.dtype), "slope")
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [*weights, slope])
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


CASES = [
    ((5, 4), (3, 6, 3, 3), {}),
    ((5, 7), (4, 5, 2, 2), {"strides": [2, 2]}),
    ((6, 9), (8, 6, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((9, 5), (6, 3, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 6}),
    ((3, 12), (12, 1, 2, 2), {"strides": [2, 2], "group": 3}),
    ((5, 6), (4, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "group": 2}),
    ((4, 5), (3, 4, 2, 5), {"strides": [3, 2], "pads": [0, 1, 1, 2], "output_padding": [2, 0]}),
    ((5, 6), (3, 4, 4, 4), {"strides": [3, 4], "pads": [1, 1, 0, 2]}),
    ((4, 30), (3, 4, 3, 3), {"strides": [2, 3], "auto_pad": "SAME_UPPER"}),
    ((4, 5), (3, 4, 1, 1), {"strides": [3, 3], "output_shape": [10, 14]}),
    ((1, 1), (3, 4, 5, 5), {"strides": [2, 2], "pads": [2, 2, 2, 2]}),
    ((33,), (4, 6, 4), {"strides": [2], "pads": [1, 1]}),
    ((7, 6), (5, 2, 3, 3), {"strides": [7, 8]}),
]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("size", "shape", "attributes"), CASES)
def test_it_equals_the_definition(dtype, bias, size, shape, attributes):
    made, groups = shape[1] * attributes.get("group", 1), attributes.get("group", 1)
    x, w = RNG.standard_normal((2, shape[0], *size)).astype(dtype), RNG.standard_normal(shape).astype(dtype)
    b = RNG.standard_normal(made).astype(dtype) if bias else None
    kind = TensorProto.FLOAT if dtype == "f4" else TensorProto.DOUBLE
    net = network(attributes, w, b, dtype=kind)
    runner = net.prepare("direct", threads=1)
    got = runner({"x": x})["y"]
    assert all(isinstance(step, Placed) for step in runner._tapes.last()._steps)
    positive = network(attributes, np.abs(w), None if b is None else np.abs(b), dtype=kind)
    plain, reach = (Runner(n.graph, {}, optimise=False) for n in (net, positive))
    # Each output sums one product per tap and channel, in any order, and a bias: at most twice as many roundings on each side.
    terms = 2 * (shape[0] // groups * int(np.prod(shape[2:])) + 2)
    bound = terms * np.finfo(dtype).eps / 2 * by_definition(reach, np.abs(x))
    assert got.shape == bound.shape
    assert (np.abs(got - by_definition(plain, x)) <= 2 * bound).all()
    for threads in (1, 2):
        for _ in range(2):
            np.testing.assert_array_equal(net.prepare("direct", threads=threads)({"x": x})["y"], got)
    relu = network(attributes, w, b, [helper.make_node("Relu", ["c"], ["y"], name="r")], kind)
    np.testing.assert_array_equal(relu.run({"x": x}, "direct")["y"], np.maximum(got, 0))
    if len(size) == 2:
        leaky = network(attributes, w, b, [helper.make_node("PRelu", ["c", "slope"], ["y"], name="r")], kind)
        slope = leaky.graph.constants["slope"]
        np.testing.assert_array_equal(leaky.run({"x": x}, "direct")["y"], np.where(got < 0, slope * got, got))


def by_definition(runner, x):
    from fastconv.network.run import execute

    kept = execute.fast
    execute.fast = lambda *_: None
    try:
        return runner({"x": x})["y"]
    finally:
        execute.fast = kept


def test_what_is_not_finite_stays_where_it_is_read():
    w = RNG.standard_normal((4, 3, 4, 4)).astype("f4")
    net = network({"strides": [2, 2], "pads": [1] * 4}, w, None)
    x = RNG.standard_normal((1, 4, 9, 9)).astype("f4")
    clean = net.run({"x": x})["y"]
    x[0, 2, 4, 5] = np.nan
    rows, columns = np.nonzero((net.run({"x": x})["y"] != clean).any(axis=(0, 1)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 10, 9, 12)

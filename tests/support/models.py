"""Models shared by tests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc

OPSET = onnx.defs.onnx_opset_version()
OLD = OPSET < 24
"""Whether onnx is older than 1.19: it converts bfloat16 and narrower types to float32, and has bugs fixed since."""


def model(nodes, inputs, outputs, opset=17, initializers=()):
    """Return a model whose inputs match the given arrays, with outputs of the given kinds."""
    infos = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for name, a in inputs.items()]
    outs = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(nodes, "g", infos, outs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def chain(rng=None):
    """Return six convolutions, the first and last dense, 3x3 and of stride 1, followed by a mean."""
    rng = rng or np.random.default_rng(1)
    layers = {
        "dense": ((4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        "strided": ((4, 4, 3, 3), {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
        "dilated": ((4, 4, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        "grouped": ((4, 2, 3, 3), {"group": 2}),
        "pointwise": ((5, 4, 1, 1), {}),
        "lopsided": ((2, 5, 3, 3), {"pads": [2, 0, 1, 3]}),
    }
    nodes, weights, x = [], [], "x"
    for name, (shape, attributes) in layers.items():
        weights.append(numpy_helper.from_array((rng.standard_normal(shape) / 5).astype(np.float32), f"{name}.w"))
        weights.append(numpy_helper.from_array(rng.standard_normal(shape[0]).astype(np.float32), f"{name}.b"))
        nodes.append(helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [f"{name}.out"], name=name, **attributes))
        nodes.append(helper.make_node("Relu", [f"{name}.out"], [f"{name}.relu"]))
        x = f"{name}.relu" if name != "lopsided" else f"{name}.out"
    nodes.append(helper.make_node("ReduceMean", [x], ["y"], axes=[2, 3], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def dense_chain(shape=(2, 16, 20, 20), scale=1.0):
    """Return two dense layers with a strided one between them, each followed by an activation."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for name, stride in (("first", 1), ("strided", 2), ("last", 1)):
        weights.append(numpy_helper.from_array((rng.standard_normal((16, 16, 3, 3)) * (scale / 12)).astype(np.float32), f"{name}.w"))
        nodes.append(helper.make_node("Conv", [x, f"{name}.w"], [f"{name}.out"], name=name, pads=[1] * 4, strides=[stride] * 2))
        nodes.append(helper.make_node("Relu", [f"{name}.out"], [x := f"{name}.relu"]))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", shape), (x, None))]
    graph = helper.make_graph(nodes, "chain", infos[:1], infos[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def plain(layers=3, channels=16, scale=1.0):
    """Return convolutions of independent weights, with nothing between them, as the closed form assumes."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for k in range(layers):
        w = rng.standard_normal((channels, channels, 3, 3)) * (scale / 12)
        weights.append(numpy_helper.from_array(w.astype("f4"), f"w{k}"))
        nodes.append(helper.make_node("Conv", [x, f"w{k}"], [f"y{k}"], name=f"conv{k}"))
        x = f"y{k}"
    info = lambda name, count: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", count, "H", "W"])
    graph = helper.make_graph(nodes, "plain", [info("x", channels)], [info(x, channels)], weights)
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))

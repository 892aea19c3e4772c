"""Shapes are inferred node by node, through the arithmetic of shapes, and never from a shape that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.network import Graph, Node, Value
from fastconv.network.rewrite.shapes import kinds_of

X = np.zeros((2, 3, 8, 9), np.float32)
SHAPE = ("Shape", "x", "s", {})


def shape_of_last(*nodes, **constants):
    """Return the shape that is inferred for the first output of the last node; None if none is."""
    made = [Node(out.split()[0], op, tuple(ins.split()), tuple(out.split()), given, 17) for op, ins, out, given in nodes]
    last = made[-1].outputs[0]
    graph = Graph.build("g", [Value("x", None, None)], [Value(last, None, None)], constants, made)
    kind = kinds_of(graph, {"x": X}).get(last)
    return None if kind is None else kind.shape


@pytest.mark.parametrize(
    ("nodes", "constants", "shape"),
    [
        ([("Relu", "x", "y", {})], {}, (2, 3, 8, 9)),
        ([("Conv", "x w", "y", {"strides": (2, 2), "pads": (1, 1, 1, 1)})], {"w": np.zeros((5, 3, 3, 3), np.float32)}, (2, 5, 4, 5)),
        ([SHAPE, ("Gather", "s i", "y", {})], {"i": np.array([2, 3])}, (2,)),
        ([SHAPE, ("Gather", "s i", "g", {"axis": 0}), ("Expand", "one g", "y", {})], {"i": np.array([2, 3]), "one": np.ones(1)}, (8, 9)),
        ([SHAPE, ("ConstantOfShape", "s", "r", {}), ("Shape", "r", "y", {})], {}, (4,)),
        ([("Shape", "x", "s", {}), ("Size", "s", "n", {}), ("Cast", "n", "y", {"to": 1})], {}, ()),
        ([("NonZero", "x", "n", {}), ("Shape", "n", "y", {})], {}, None),
        ([("Compress", "x c", "y", {})], {"c": np.ones(2, bool)}, None),
        ([("Relu", "x", "a", {}), ("Reshape", "a t", "y", {})], {"t": np.array([0, -1])}, (2, 216)),
        # A pool that is larger than its input has no outputs: onnx makes that a negative length, and aborts on a slice of it.
        (
            [("AveragePool", "x", "p", {"kernel_shape": (40, 3)}), ("Slice", "p a b", "y", {})],
            {"a": np.array([0, 0, 1]), "b": np.array([1, 1, 2])},
            None,
        ),
    ],
)
def test_shapes_follow_from_the_input(nodes, constants, shape):
    assert shape_of_last(*nodes, **constants) == shape


def test_types_follow_too():
    graph = Graph.build("g", [Value("x", None, None)], [Value("y", None, None)], {}, [Node("c", "Cast", ("x",), ("y",), {"to": 10}, 17)])
    assert kinds_of(graph, {"x": X})["y"].dtype == np.float16
    assert kinds_of(graph, {"x": X})["y"].nbytes == X.size * 2

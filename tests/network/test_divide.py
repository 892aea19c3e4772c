"""Who runs which node: the minimum cut, against all divisions of small networks."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import fastconv as fc
from fastconv.network.graph.graph import Node
from fastconv.network.rewrite.cut import PART, cut
from fastconv.network.rewrite.divide import divided
from fastconv.network.rewrite.shapes import kinds_of, shapes_of
from fastconv.network.run.own import Wish, owned


@st.composite
def networks(draw):
    """Return up to seven nodes that read any two tensors before them, and what is gained at some of them."""
    nodes, gains = [], {}
    for k in range(draw(st.integers(1, 7))):
        before = ["x", *(node.name for node in nodes)]
        inputs = draw(st.lists(st.sampled_from(before), min_size=1, max_size=2, unique=True))
        nodes.append(Node(f"n{k}", "Conv", tuple(inputs), (f"n{k}",), {}, 17))
        if draw(st.integers(0, 3)):
            gains[f"n{k}"] = float(draw(st.integers(-6, 6)))
    return nodes, gains, float(draw(st.integers(0, 5)))


def worth(nodes, gains, price, ours):
    """Return what a division gains."""
    total = sum(gains[name] for name in ours)
    for node in nodes:
        readers = {other.name in ours for other in nodes if node.name in other.inputs}
        total -= price * ((node.name not in ours) in readers)
    return total


@given(networks())
def test_no_division_gains_more(network):
    nodes, gains, price = network
    found = divided(nodes, gains, price)
    assert found <= gains.keys()
    names = list(gains)
    every = [frozenset(name for name, is_ours in zip(names, sides, strict=True) if is_ours) for sides in product((0, 1), repeat=len(names))]
    best = max(worth(nodes, gains, price, ours) for ours in every)
    assert worth(nodes, gains, price, found) == best
    assert len(found) == min(len(ours) for ours in every if worth(nodes, gains, price, ours) == best)


def test_a_node_that_has_to_run_here_does():
    chain = [Node(name, "Conv", (x,), (name,), {}, 17) for name, x in (("a", "x"), ("b", "a"), ("c", "b"))]
    assert divided(chain, {"a": -9.0, "b": float("inf"), "c": -9.0}, 1.0) == {"b"}
    assert divided(chain, {"a": -0.5, "b": float("inf"), "c": float("inf")}, 1.0) == {"a", "b", "c"}


def residual(blocks, length=56, channels=64):
    """Return a chain of residual blocks of 1x1, 3x3 and 1x1, as in ResNet-50."""
    rng, nodes, held, x = np.random.default_rng(0), [], [], "x"
    for k in range(blocks):
        for at, taps in enumerate((1, 3, 1)):
            w = rng.standard_normal((channels, channels, taps, taps), np.float32) / np.float32(taps * channels**0.5)
            held.append(numpy_helper.from_array(w, f"w{k}{at}"))
            nodes.append(helper.make_node("Conv", [x if at == 0 else f"t{k}{at - 1}", f"w{k}{at}"], [f"t{k}{at}"], pads=[taps // 2] * 4))
        nodes.append(helper.make_node("Add", [f"t{k}2", x], [f"y{k}"]))
        x = f"y{k}"
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, length, length]) for name in ("x", x)]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], held)
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("threads", [1, 2])
def test_layers_run_here_where_they_pay_for_the_change_of_sides(threads, monkeypatch):
    net = residual(2)
    shapes = shapes_of(kinds_of(net.graph, {"x": np.zeros((1, 64, 56, 56), np.float32)}))
    sides = {}
    for price in (0.0, 1e12):
        monkeypatch.setattr("fastconv.network.run.own.SWITCH", price)
        monkeypatch.setattr("fastconv.network.run.own.CALL", price)
        ours = owned(net.graph, shapes, Wish({}, threads=threads))
        sides[price] = {node.name for node in net.graph.convolutions if node.name in ours}
        parts = [node for node in cut(net.graph, (), lambda node, ours=ours: node.name in ours).nodes if node.operator == PART]
        assert bool(parts)
    assert sides[1e12] == set()
    assert all(net.graph.constants[node.inputs[1]].shape[2:] == (3, 3) for node in net.graph.convolutions if node.name in sides[0.0])

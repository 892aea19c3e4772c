"""Networks in strips of rows: the same bits as the whole, within the memory limit, or a refusal that says why."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fastconv.network import Node, load_onnx
from fastconv.network.rewrite.rows import POINTWISE, Look, Rows, piece
from fastconv.network.rewrite.shapes import kinds_of
from fastconv.network.rewrite.strips import Cuts, strip


class Draft:
    """Collects nodes; each method adds one and returns the name and the shape of its result."""

    def __init__(self, rng):
        self.rng, self.nodes, self.weights, self.count = rng, [], [], 0

    def constant(self, value):
        self.count += 1
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"c{self.count}"))
        return f"c{self.count}"

    def add(self, operator, inputs, **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(operator, inputs, [f"t{self.count}"], name=f"n{self.count}", **attributes))
        return f"t{self.count}"

    def numbers(self, *shape):
        return self.constant((self.rng.standard_normal(shape) / 4).astype(np.float32))

    def model(self, channels, outputs, opset=17, axes=("N", "C", "H", "W")):
        infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [axes[0], channels, *axes[2:]])]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", infos, ends, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


KINDS = "conv conv same stride dilated depthwise pool up cubic transposed curve norm concat sum crop pad edge depth split".split()


def convolution(draft, data, kind, x, channels):
    filters = channels if kind == "depthwise" else data.draw(st.sampled_from([3, 16, 32]))
    pads = data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)) if kind in ("conv", "stride") else [1, 1, 1, 1]
    more = {"stride": {"strides": [2, 2]}, "dilated": {"dilations": [2, 2]}, "depthwise": {"group": channels}}.get(kind, {})
    weight, bias = draft.numbers(filters, 1 if kind == "depthwise" else channels, 3, 3), draft.numbers(filters)
    y = draft.add("Conv", [x, weight, bias], pads=pads, **more)
    return draft.add(data.draw(st.sampled_from(["Relu", "LeakyRelu", "Sigmoid", "Tanh"])), [y]), filters


def resized(draft, data, kind, x, channels):
    if kind == "transposed":
        k, p = data.draw(st.sampled_from([(2, 0), (3, 1), (4, 1)]))
        return draft.add("ConvTranspose", [x, draft.numbers(channels, 16, k, k)], strides=[2, 2], pads=[p] * 4), 16
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    scales = draft.constant(np.array([1, 1, 2, 2], np.float32))
    return draft.add("Resize", [x, "", scales], **(nearest if kind == "up" else {"mode": "cubic"})), channels


def moved(draft, data, kind, x, channels):
    if kind == "crop":
        ends = [draft.constant(np.array(v, np.int64)) for v in ([2, 1], [-1, -2], [2, 3])]
        return draft.add("Slice", [x, *ends]), channels
    if kind == "depth":
        return draft.add("DepthToSpace", [x], blocksize=2), channels // 4
    if kind == "split":
        draft.count += 1
        names = [f"s{draft.count}a", f"s{draft.count}b"]
        draft.nodes.append(helper.make_node("Split", [x], names, name=f"n{draft.count}", axis=1))
        return draft.add("Mul", names), channels // 2
    pads = draft.constant(np.array([0, 0, 3, 1, 0, 0, 2, 2], np.int64))
    return draft.add("Pad", [x, pads], mode="constant" if kind == "pad" else data.draw(st.sampled_from(["edge", "reflect"]))), channels


def step(draft, data, x, channels, others):
    """Add a step to a chain: its result, its channels, and the earlier tensors of the same size."""
    kind = data.draw(st.sampled_from(KINDS))
    alike = [name for name, count in others if count == channels]
    if kind in ("conv", "same", "stride", "dilated", "depthwise"):
        return *convolution(draft, data, kind, x, channels), [(x, channels), *others] if kind in ("same", "dilated", "depthwise") else []
    if kind == "pool":
        more = {"strides": [2, 2], "pads": [1, 0, 1, 0]} if data.draw(st.booleans()) else {"pads": [1, 1, 1, 1]}
        return draft.add("MaxPool", [x], kernel_shape=[3, 3], **more), channels, []
    if kind in ("up", "cubic", "transposed"):
        return *resized(draft, data, kind, x, channels), []
    if kind in ("crop", "pad", "edge") or kind == "depth" and channels % 4 == 0 or kind == "split" and channels % 2 == 0:
        return *moved(draft, data, kind, x, channels), others if kind == "split" else []
    if kind == "concat" and others:
        return draft.add("Concat", [x, others[0][0]], axis=1), channels + others[0][1], others
    if kind == "sum" and alike:
        return draft.add("Add", [x, alike[-1]]), channels, others
    if kind == "norm":
        rows = [*(draft.numbers(channels) for _ in range(3)), draft.constant(np.full(channels, 0.7, np.float32))]
        return draft.add("BatchNormalization", [x, *rows]), channels, others
    return draft.add("PRelu", [x, draft.numbers(channels, 1, 1)]), channels, [(x, channels), *others]


@st.composite
def networks(draw):
    data = draw(st.data())
    draft = Draft(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    x, channels, others = "x", 16, []
    for _ in range(draw(st.integers(1, 7))):
        x, channels, others = step(draft, data, x, channels, others)
    return draft, x


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


def same_bits(model, x, algorithm, policy, heights):
    """Compare strips of each height with the whole; return how many heights there were to compare."""
    whole = load_onnx(model).run({"x": x}, algorithm, policy)
    count = 0
    for rows in heights:
        runner = load_onnx(model).prepare(algorithm, policy)
        try:
            found = runner.in_strips({"x": x}, rows)
        except ValueError as error:
            if "needs the whole image" not in str(error):
                raise
            continue
        assert found.keys() == whole.keys()
        for name, array in whole.items():
            assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(bits(found[name]), bits(array), err_msg=f"{name} in strips of {rows}")
        count += 1
    return count


@pytest.mark.parametrize(("algorithm", "policy"), [("auto", "fp32"), ("F(4x4,3x3)", "fp32"), ("direct", "fp32"), ("auto", "fp64")])
@settings(max_examples=12, deadline=None)
@given(networks(), st.integers(1, 2), st.sampled_from([37, 48, 61]))
def test_strips_give_the_bits_of_the_whole(algorithm, policy, drawn, batch, height):
    draft, end = drawn
    model = draft.model(16, [end])
    x = np.random.default_rng(height).standard_normal((batch, 16, height, 33)).astype(np.float32)
    try:
        load_onnx(model).run({"x": x}, "direct")
    except ValueError:  # a kernel longer than what a crop leaves
        return
    same_bits(model, x, algorithm, policy, (1, 7, 16))


@pytest.mark.parametrize("operator", sorted(POINTWISE - set("And Not Or Xor Where Equal Greater GreaterOrEqual Less LessOrEqual".split())))
def test_pointwise_operators_round_alike_wherever_a_value_is(operator):
    draft = Draft(np.random.default_rng(0))
    second = {"PRelu": (3, 1, 1), "Pow": (1,), "Add": (3, 1, 1), "Sub": (1,), "Mul": (3, 1, 1), "Div": (3, 1, 1), "Max": (1,), "Min": (1,)}
    inputs = ["x", draft.numbers(*second[operator])] if operator in second else ["x", "x"] if operator in ("Mean", "Sum") else ["x"]
    end = draft.add(operator, inputs, **({"to": TensorProto.DOUBLE} if operator == "Cast" else {}))
    model = draft.model(3, [end], opset={"Gelu": 20, "Swish": 24}.get(operator, 17))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE if operator == "Cast" else TensorProto.FLOAT
    x = np.abs(np.random.default_rng(1).standard_normal((2, 3, 37, 67))).astype(np.float32) * np.float32(3)
    x *= np.float32(1) if operator in ("Pow", "Sqrt") else np.where(np.arange(67) % 3, 1, -1).astype(np.float32)
    assert same_bits(model, x, "auto", "fp32", (1, 3, 16)) == 3


@pytest.mark.parametrize("algorithm", ["onnxruntime", "F(4x4,3x3)"])
@pytest.mark.parametrize("mode", ["nearest", "cubic"])
def test_a_tensor_whose_readers_need_other_rows(algorithm, mode):
    draft = Draft(np.random.default_rng(0))
    x = draft.add("Relu", [draft.add("Conv", ["x", draft.numbers(32, 16, 3, 3), draft.numbers(32)], pads=[1] * 4)])
    scales = draft.constant(np.array([1, 1, 2, 2], np.float32))
    large = draft.add("Resize", [x, "", scales], mode=mode, coordinate_transformation_mode="half_pixel")
    y = draft.add("Conv", [x, draft.numbers(32, 32, 5, 5)], pads=[2] * 4)
    up = draft.add("ConvTranspose", [y, draft.numbers(32, 32, 2, 2)], strides=[2, 2])
    end = draft.add("Conv", [draft.add("Concat", [large, up], axis=1), draft.numbers(16, 64, 3, 3)], pads=[1] * 4)
    image = np.random.default_rng(1).standard_normal((1, 16, 50, 41)).astype(np.float32)
    assert same_bits(draft.model(16, [end]), image, algorithm, "fp32", (1, 8, 20)) == 3


def deep():
    """Return eight convolutions of 32 channels, with a shortcut, and two outputs, one of half the size."""
    draft = Draft(np.random.default_rng(0))
    x, before, channels = "x", "x", 3
    for k in range(8):
        y = draft.add("Conv", [x, draft.numbers(32, channels, 3, 3), draft.numbers(32)], pads=[1] * 4)
        before, x, channels = x, draft.add("Add", [draft.add("Relu", [y]), before]) if k == 4 else draft.add("Relu", [y]), 32
    half = draft.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    return draft.model(3, [x, half], axes=("N", "C", "H", "W")), x, half


@pytest.mark.parametrize("policy", ["fp32", "fp64"])
def test_a_network_over_its_limit_runs_in_strips(policy):
    model, full, half = deep()
    x = np.random.default_rng(0).standard_normal((2, 3, 640, 96)).astype(np.float32)
    whole = load_onnx(model).run({"x": x}, policy=policy)
    size = sum(array.nbytes for array in whole.values()) + x.nbytes
    limit = 2 * size
    runner = load_onnx(model, memory_limit=limit).prepare(policy=policy)
    first = runner({"x": x})
    again = runner({"x": x[::-1].copy()})
    for name in (full, half):
        np.testing.assert_array_equal(first[name].view(np.uint8), whole[name].view(np.uint8))
        np.testing.assert_array_equal(again[name].view(np.uint8), whole[name][::-1].copy().view(np.uint8))
    with pytest.raises(ValueError, match=r"memory_limit=\d+, or \d+ for strips of rows$") as error:
        load_onnx(model, memory_limit=size).run({"x": x}, policy=policy)
    needs, strips = (int(word) for word in str(error.value).split("memory_limit=")[1].removesuffix(" for strips of rows").split(", or "))
    assert size < strips < limit < needs
    if policy == "fp64":  # the lowest strips, of one row, are slow
        assert load_onnx(model, memory_limit=strips).run({"x": x}, policy=policy)[full].shape == whole[full].shape


def test_what_a_run_needs():
    model, _, _ = deep()
    x = np.ones((2, 3, 640, 96), np.float32)
    whole, one = load_onnx(model).prepare().needs({"x": x})
    limit = whole.total // 2
    need, strips = load_onnx(model, memory_limit=limit).prepare().needs({"x": x})
    assert (one, whole.ends) == (1, 32 * 2 * 640 * 96 * 4 * 5 // 4)  # the results
    assert strips > 1
    assert whole.total // 4 < need.total <= limit
    assert need.ends == whole.ends + x.nbytes
    with pytest.raises(ValueError, match="for strips of rows"):
        load_onnx(model, memory_limit=need.ends).prepare().needs({"x": x})


@pytest.mark.parametrize("rows", [7, 40])
def test_shapes_in_a_strip_follow_from_its_rows(rows):
    runner = load_onnx(deep()[0]).prepare("F(4x4,3x3)")
    x = np.ones((1, 3, 160, 96), np.float32)
    held, _ = runner._held(runner._formed(runner._ends, {"x": x}))
    for wanted in Cuts(held.front, held.look, rows):
        one = strip(held.front, held.look, wanted)
        found = one.kinds(held.kinds)
        entering = np.ones((1, 3, one.enters["x"].last - one.enters["x"].first, 96), np.float32)
        inferred = kinds_of(one.graph, {"x": entering})
        assert found == {name: inferred[name] for name in found}
        assert found.keys() >= {name for node in one.graph.nodes for name in node.outputs}


def test_results_of_strips_are_freed_with_the_last_reference():
    model, full, _ = deep()
    net, x = load_onnx(model, memory_limit=10_000_000), np.ones((1, 3, 320, 64), np.float32)
    gc.collect()
    gc.disable()
    try:
        results = [weakref.ref(net.run({"x": x})[full]) for _ in range(2)]
        assert [result() for result in results] == [None, None]
    finally:
        gc.enable()


def test_threads_take_turns_with_strips():
    model, full, _ = deep()
    images = np.random.default_rng(0).standard_normal((4, 1, 3, 320, 64)).astype(np.float32)
    whole = [load_onnx(model).run({"x": x})[full] for x in images]
    runner = load_onnx(model, memory_limit=10_000_000).prepare()
    assert runner.needs({"x": images[0]})[1] > 1
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(lambda x: runner({"x": x})[full], images), whole, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_what_follows_the_convolutions_runs_whole():
    draft = Draft(np.random.default_rng(0))
    x, channels = "x", 3
    for k in range(6):
        x, channels = draft.add("Relu", [draft.add("Conv", [x, draft.numbers(32, channels, 3, 3)], pads=[1] * 4)]), 32
        x = draft.add("MaxPool", [x], kernel_shape=[8, 8], strides=[8, 8]) if k == 3 else x
    end = draft.add("MatMul", [draft.add("Flatten", [draft.add("GlobalAveragePool", [x])]), draft.numbers(32, 10)])
    model, image = draft.model(3, [end]), np.random.default_rng(0).standard_normal((1, 3, 640, 96)).astype(np.float32)
    whole = load_onnx(model).run({"x": image}, "F(4x4,3x3)")[end]
    net = load_onnx(model, memory_limit=6_000_000)
    for _ in range(2):
        np.testing.assert_array_equal(net.run({"x": image}, "F(4x4,3x3)")[end], whole)
    with pytest.raises(ValueError, match=r"or \d+ for strips of rows; node '\w+' \(GlobalAveragePool\) needs the whole image"):
        load_onnx(model, memory_limit=800_000).run({"x": image}, "F(4x4,3x3)")


def test_other_networks_are_refused():
    draft = Draft(np.random.default_rng(0))
    y = draft.add("InstanceNormalization", ["x", draft.numbers(3), draft.numbers(3)])
    end = draft.add("Conv", [y, draft.numbers(32, 3, 3, 3)], pads=[1] * 4)
    net, x = load_onnx(draft.model(3, [end]), memory_limit=300_000), np.ones((1, 3, 64, 64), np.float32)
    with pytest.raises(ValueError, match=r"load it with memory_limit=\d+; node 'n3' \(InstanceNormalization\) needs the whole image"):
        net.run({"x": x})
    with pytest.raises(ValueError, match="the network does not run in strips of rows; node 'n3'"):
        net.prepare().in_strips({"x": x}, 8)


def test_a_transform_of_the_whole_image_is_refused():
    model, _, _ = deep()
    net, x = load_onnx(model, memory_limit=1_000_000), np.ones((1, 3, 160, 96), np.float32)
    with pytest.raises(ValueError, match="needs the whole image"):
        net.run({"x": x}, "fft")


def test_tiles_begin_where_those_of_the_whole_do():
    node = Node("c", "Conv", ("x", "w"), ("y",), {"strides": (2, 1), "pads": (3, 0, 2, 0), "group": 1}, 17)
    shapes = {"x": (1, 1, 100, 9), "w": (1, 1, 5, 1), "y": (1, 1, 51, 9)}
    look = Look(shapes, {"w": np.ones((1, 1, 5, 1))}, frozenset(["x"]), {"c": 6})
    for first in range(51):
        found = piece(node, look, Rows(first, min(first + 4, 51)))
        assert found.makes.first == first // 6 * 6
        assert found.makes.last in (51, -(-min(first + 4, 51) // 6) * 6)
        top, bottom = found.node.attributes["pads"][0], found.node.attributes["pads"][2]
        assert found.reads[0].first - top == 2 * found.makes.first - 3  # where its first window begins
        rows = found.reads[0].last - found.reads[0].first
        assert (rows + top + bottom - 5) // 2 + 1 == found.makes.last - found.makes.first


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("algorithm", ["auto", "onnxruntime"])
def test_the_limit_is_kept(algorithm):
    """Measured in a separate process: 160 MiB for the tensors, 4096 rows of 512 pixels."""
    script = dedent(
        """
        import re, sys
        from pathlib import Path
        import numpy as np
        from fastconv.network import load_onnx
        net = load_onnx(sys.stdin.buffer.read(), memory_limit=int(sys.argv[2]))
        small, x = (np.random.default_rng(0).random((1, 3, h, 512), dtype=np.float32) for h in (64, int(sys.argv[1])))
        net.run({"x": small}, sys.argv[3])  # code, sessions, weights
        peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
        before = peak()
        net.run({"x": x}, sys.argv[3])
        net.run({"x": x}, sys.argv[3])
        print(peak() - before)
        """
    )
    draft, x, channels = Draft(np.random.default_rng(0)), "x", 3
    for filters in (32, 32, 32, 32, 3):
        x, channels = draft.add("Conv", [x, draft.numbers(filters, channels, 3, 3)], pads=[1] * 4), filters
    model = draft.model(3, [x]).SerializeToString()

    def grown(limit):
        done = subprocess.run([sys.executable, "-c", script, "4096", str(limit), algorithm], input=model, capture_output=True, check=True)
        return int(done.stdout)

    image = 4096 * 512 * 4
    grown(20 * image)  # compiles the kernels of strips, which takes memory too
    assert grown(2**31) > 40 * image  # two tensors of 32 channels, less what was in use before
    assert grown(20 * image) < 20 * image + 2 * 3 * image  # the results of both runs

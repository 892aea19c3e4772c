"""A network's tape gives the same bits as the nodes run one by one, for any input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc
from fastconv.network.operators import OPERATORS
from fastconv.network.run.nchwc import Writer, shares_layout
from fastconv.network.run.tape import Part, Recorder, places


def network(nodes, weights, inputs=("x",), outputs=("y",), opset=17):
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*inputs, *outputs)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", infos[: len(inputs)], infos[len(inputs) :], tensors)
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def node(operator, inputs, *outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs, name=outputs[0], **attributes)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def step_by_step(net, feeds, algorithm="auto", **options):
    return net.prepare(algorithm, **options)(feeds, watch=lambda *_: None)


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def assert_near(got, wanted):
    """Compare as far as onnxruntime's order of summation depends on the layout: a few roundings, each up to half an epsilon."""
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(array))
        error = np.nan_to_num(got[name].astype(np.float64) - array)
        assert np.linalg.norm(error) <= 16 * np.finfo(np.float32).eps * np.linalg.norm(np.nan_to_num(array.astype(np.float64)))


def mixed(threads=None):
    """Return a network of all kinds of convolutions, views, numpy-only nodes, a late-read branch and a repeated output."""
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)).astype("f4"),
        "w2": rng.standard_normal((8, 8, 1, 1)).astype("f4"),
        "w3": rng.standard_normal((8, 1, 3, 3)).astype("f4"),
        "w4": rng.standard_normal((8, 3, 2, 2)).astype("f4"),
        "b": rng.standard_normal(8).astype("f4"),
        "starts": np.array([1]),
        "ends": np.array([1000]),
        "axes": np.array([2]),
        "d": rng.standard_normal((10, 8)).astype("f4"),
        "e": rng.standard_normal(10).astype("f4"),
        **{name: rng.uniform(0.5, 1, 8).astype("f4") for name in ("scale", "shift", "mean", "var")},
    }
    nodes = [
        node("Conv", "x w1 b", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 scale shift mean var", "n1"),
        node("Relu", "n1", "r1"),
        node("Conv", "x w4 b", "late", pads=[1, 0, 0, 1]),
        node("Conv", "r1 w2", "c2"),
        node("Conv", "c2 w3 b", "c3", pads=[1] * 4, group=8),
        node("Add", "c3 r1", "s"),
        node("Slice", "s starts ends axes", "cut"),
        node("Conv", "cut w2 b", "c4"),
        node("Split", "c4", "left", "right", axis=1),
        node("Mul", "left right", "m"),
        node("Concat", "m left", "both", axis=1),
        node("Sigmoid", "both", "sig"),
        node("MaxPool", "sig", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", "late", "q", kernel_shape=[3, 3], strides=[1, 1]),
        node("GlobalAveragePool", "p", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f d e", "dense", transB=1),
        node("Relu", "dense", "y"),
        node("Transpose", "q", "z", perm=[0, 2, 3, 1]),
    ]
    return network(nodes, weights, outputs=("y", "z", "s"))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("algorithm", ["auto", "fft"])
def test_a_tape_computes_what_the_nodes_do(threads, algorithm):
    net = mixed()
    for seed, shape in enumerate([(1, 3, 40, 41), (2, 3, 24, 70), (1, 3, 40, 41), (1, 3, 40, 41)]):
        feeds = {"x": random(*shape, seed=seed)}
        if seed == 3:
            feeds["x"][0, 1, 5, 5] = np.nan
        assert_same(net.run(feeds, algorithm, threads=threads), step_by_step(mixed(), feeds, algorithm, threads=threads))


def vgg(kernel=3, activation="Relu", **changes):
    """Return convolutions and max pools in sequence, a tensor with two readers, and tensors that are not blocked."""
    weights = {f"w{k}": random(*shape, seed=k) for k, shape in enumerate([(16, 3, 3, 3), (32, 16, 3, 3), (16, 32, kernel, kernel)])}
    weights |= {
        "w3": random(16, 16, 3, 3),
        "w4": random(5, 16, 3, 3),
        "b": random(32),
        "slope": random(32, 1, 1) / 4,
    }
    pad = {"pads": [1] * 4}
    nodes = [
        node("Conv", "x w0", "c0", **pad),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1 b", "c1", **pad),
        node(activation, "c1 slope" if activation == "PRelu" else "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Conv", "p1 w2", "c2", **{"pads": [kernel // 2] * 4} | changes),
        node("Conv", "c2 w3", "c3", **pad),
        node("Conv", "c3 w3", "c4", **pad),
        node("Add", "c4 c3", "s"),
        node("Relu", "s", "r4"),
        node("Conv", "r4 w3", "c5", **pad),
        node("Conv", "c5 w3", "c6", **pad),
        node("GlobalAveragePool", "r4", "one"),
        node("Add", "c6 one", "t"),  # looks like a shortcut, but is not one
        node("Conv", "t w4", "y", **pad),
    ]
    return network(nodes, weights)


def in_blocks(net, algorithm="auto"):
    """Return the tensors that convolutions write channels-blocked."""
    runner = net.prepare(algorithm)
    plans = {node.outputs[0]: runner.plan(node.name) for node in net.graph.convolutions}
    return {name for name, plan in plans.items() if plan is not None and plan.layer.blocks[1]}


def pinned(algorithm, **others):
    """Pin every convolution: what "auto" chooses depends on the machine."""
    return {f"c{k}": algorithm for k in range(7)} | {"y": algorithm} | others


@pytest.mark.parametrize(
    ("options", "algorithm", "inside", "parts"),
    [
        ({}, "F(4x4,3x3)", {"c0", "c1", "c2", "c5"}, {"c3", "c4"}),
        ({}, pinned("F(4x4,3x3)", c2="direct"), {"c0", "c2", "c5"}, {"c3", "c4"}),
        ({}, "direct", set(), {"c4"}),
        ({"activation": "PRelu"}, "F(2x2,3x3)", {"c0", "c1", "c2", "c5"}, {"c3", "c4"}),
        ({"activation": "Elu"}, "F(2x2,3x3)", {"c0", "c2", "c5"}, {"c1", "c3", "c4"}),
        ({"kernel": 1}, "F(2x2,3x3)", {"c0", "c5"}, {"c3", "c4"}),
        ({"strides": [2, 2]}, "F(2x2,3x3)", {"c0", "c2", "c5"}, {"c3", "c4"}),
        ({"pads": [1, 0, 0, 1]}, "F(2x2,3x3)", {"c0", "c1", "c2", "c5"}, {"c3", "c4"}),
        ({"kernel": 5, "pads": [2, 2, 2, 2]}, pinned("F(2x2,3x3)", c2="F(2x2,5x5)"), {"c0", "c1", "c2", "c5"}, {"c3", "c4"}),
    ],
)
def test_channels_lie_in_blocks_where_all_readers_take_them(options, algorithm, inside, parts):
    """`parts` are those that onnxruntime reads, where it has the same layout."""
    inside = inside | parts if shares_layout() else inside
    net = vgg(**options)
    for seed, shape in enumerate([(1, 3, 40, 41), (2, 3, 21, 24)]):
        feeds = {"x": random(*shape, seed=seed)}
        wanted = step_by_step(vgg(**options), feeds, algorithm)
        for _ in range(2):
            assert_near(net.run(feeds, algorithm), wanted)
        assert in_blocks(net, algorithm) == inside
    # Requested internal tensors have the model's layout.
    kept = net.prepare(algorithm)(feeds, ["c5"])
    assert "c5" not in in_blocks(net, algorithm)
    assert_near(kept, vgg(**options).prepare(algorithm)(feeds, ["c5"], watch=lambda *_: None))


@pytest.mark.parametrize("operator", [name for name, it in OPERATORS.items() if it.curve and not it.activation and not it.takes_activation])
def test_curves_run_in_blocks(operator):
    nodes = [node("Conv", "x w", "c0"), node(operator, "c0", "a"), node("Conv", "a w", "y")]
    opset = {"Gelu": 20, "Mish": 18, "Swish": 24}.get(operator, 17)
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip("this release of onnx lacks the operator")
    weights = {"w": np.abs(random(16, 16, 3, 3)) / 64}
    feeds = {"x": np.abs(random(1, 16, 21, 24))}
    net, algorithm = network(nodes, weights, opset=opset), {"c0": "F(2x2,3x3)", "y": "F(2x2,3x3)"}
    wanted = step_by_step(network(nodes, weights, opset=opset), feeds, algorithm)
    for _ in range(2):
        assert_near(net.run(feeds, algorithm), wanted)
    assert in_blocks(net, algorithm) == ({"c0"} if shares_layout() else set())


def test_a_part_that_is_refused_in_blocks_runs_in_the_layout_of_the_model(monkeypatch):
    """As in a release of onnxruntime that lacks one of its blocked operators."""
    feeds = {"x": random(1, 3, 40, 41)}
    wanted = step_by_step(vgg(activation="Elu"), feeds, "F(2x2,3x3)")
    add, tried = Writer._add, []

    def unknown(self, operator, *rest):
        tried.append(operator)
        add(self, f"No{operator}", *rest)

    monkeypatch.setattr(Writer, "_add", unknown)
    net = vgg(activation="Elu")
    for _ in range(3):
        assert_near(net.run(feeds, "F(2x2,3x3)"), wanted)
    assert bool(tried) == shares_layout()


def test_feeds_in_any_order_of_memory():
    net = mixed()
    x = random(1, 40, 41, 3)
    wanted = net.run({"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    for _ in range(2):
        assert_same(net.run({"x": x.transpose(0, 3, 1, 2)}), wanted)
        assert_same(mixed().run({"x": x.transpose(0, 3, 1, 2)}), wanted)


def test_results_and_feeds_are_nobody_elses():
    net, x = mixed(), random(1, 3, 40, 41)
    given_x = x.copy()
    first = net.run({"x": x})
    kept = {name: array.copy() for name, array in first.items()}
    for array in net.run({"x": x}).values():
        array[...] = 7
    net.run({"x": -x})
    assert_same(first, kept)
    np.testing.assert_array_equal(x, given_x)
    assert_same(net.run({"x": x}), kept)


def test_what_is_recorded_is_contiguous_and_owns_its_memory():
    """A result that is a view of an input would change with the memory that the tape assigns to that input."""
    x = random(4, 6)
    made = network([node("Abs", "x", "y")], {}).graph.nodes[0]  # any operator that is not one of the views
    other = random(4, 6, seed=1)
    for result in (x.T, x, x[1:3], x[:, ::2], other.T, other):
        recorder = Recorder()
        recorder.feed("x", x)
        (got,) = recorder.node(made, [x], [result], [], {})
        np.testing.assert_array_equal(got, result)
        assert got.flags.c_contiguous
        assert not np.shares_memory(got, x)
        assert (got is result) == (result is other)  # nothing is copied without need
        assert recorder.tensors["y"].strides == got.strides


VIEWS = {
    "Transpose": ("x", {"perm": [1, 0]}, lambda x: x.T),
    "Identity": ("x", {}, lambda x: x),
    "Dropout": ("x", {}, lambda x: x),
    "Flatten": ("x", {"axis": 0}, lambda x: x.reshape(1, -1)),
    "Cast": ("x", {"to": 1}, lambda x: x),
    "Expand": ("x sizes", {}, lambda x: np.broadcast_to(x, (3, *x.shape))),
    "Reshape": ("x flat", {}, lambda x: x.reshape(-1)),
    "Slice": ("x starts ends", {}, lambda x: x[1:3]),
    "Unsqueeze": ("x starts", {}, lambda x: x[:, None]),
}


@pytest.mark.parametrize("operator", VIEWS)
def test_outputs_share_no_memory_with_inputs(operator):
    inputs, attributes, right = VIEWS[operator]
    weights = {"sizes": np.array([3, 1, 1]), "flat": np.array([-1]), "starts": np.array([1]), "ends": np.array([3])}
    net = network([node(operator, inputs, "y", **attributes)], {name: weights[name] for name in inputs.split()[1:]})
    for turn in range(3):
        x = random(4, 6, seed=turn)
        wanted = right(x).copy()
        y = net.run({"x": x})["y"]
        assert not np.shares_memory(x, y)
        x[...] = np.nan
        np.testing.assert_array_equal(y, wanted)


def test_callers_at_once_have_memory_of_their_own():
    net = mixed()
    inputs = [random(1, 3, 40, 41, seed=k) for k in range(6)]
    wanted = [step_by_step(mixed(), {"x": x}) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, right in zip(pool.map(lambda x: net.run({"x": x}), inputs * 4), wanted * 4, strict=True):
            assert_same(got, right)


def test_shapes_that_depend_on_values_may_change():
    nodes = [
        node("Relu", "x", "r"),
        node("NonZero", "r", "at"),
        node("Cast", "at", "y", to=TensorProto.FLOAT),
        node("Reshape", "x shape", "v"),
        node("Relu", "v", "z"),
    ]
    net = fc.load_onnx(_with_shape_input(nodes))
    for count, shape in ((3, (2, 6)), (3, (2, 6)), (5, (2, 6)), (5, (3, 4)), (3, (12, 1))):
        x = np.full(12, -1, np.float32)
        x[:count] = 1
        got = net.run({"x": x, "shape": np.array(shape)})
        assert got["y"].ravel().tolist() == list(range(count))
        np.testing.assert_array_equal(got["z"], np.maximum(x, 0).reshape(shape))


def _with_shape_input(nodes):
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None), helper.make_tensor_value_info("shape", TensorProto.INT64, [2])]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")]
    return helper.make_model(helper.make_graph(nodes, "g", infos, outs), opset_imports=[helper.make_opsetid("", 17)])


def test_weights_that_are_computed_are_read_anew():
    nodes = [
        node("Gemm", "x v", "y"),
        node("BatchNormalization", "x4 s s s s", "z"),
    ]
    net = network(nodes, {}, ("x", "v", "x4", "s"), ("y", "z"))
    for seed in range(3):
        feeds = {"x": random(2, 5, seed=seed), "v": random(5, 7, seed=seed), "x4": random(1, 4, 3, 3, seed=seed)}
        feeds["s"] = np.abs(random(4, seed=seed)) + 1
        assert_same(net.run(feeds), step_by_step(network(nodes, {}, ("x", "v", "x4", "s"), ("y", "z")), feeds))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9), st.integers(0, 4)), max_size=14))
def test_parts_that_live_at_once_lie_apart(drawn):
    parts = [Part(size, first, first + length) for size, first, length in drawn]
    starts, whole = places(parts)
    for k, (part, start) in enumerate(zip(parts, starts, strict=True)):
        assert start % 64 == 0
        assert start + part.size <= whole
        for other, there in zip(parts[:k], starts[:k], strict=True):
            apart = start + part.size <= there or there + other.size <= start
            assert apart or part.last < other.first or other.last < part.first


def test_a_long_chain_is_placed_in_linear_work():
    """Work is counted in look-ups of live parts, not in seconds."""

    class Watched(Part):
        looks = 0

        def __getattribute__(self, name):
            Watched.looks += name in ("first", "last", "size")
            return super().__getattribute__(name)

    counts = []
    for length in (500, 2000):
        Watched.looks = 0
        places([Watched(1024, k, k + 1) for k in range(length)])
        counts.append(Watched.looks)
    assert counts[1] <= 4.5 * counts[0]


def test_a_chain_takes_two_places():
    parts = [Part(1024, k, k + 1) for k in range(8)]
    assert places(parts)[1] == 2048


@pytest.mark.parametrize("algorithm", ["onnxruntime", "F(4x4,3x3)"])
def test_inputs_are_read_where_they_are(algorithm):
    """Another array at each call, in any layout and freed after it: sessions read the caller's memory, which they never write."""
    weights = {"w": random(8, 8, 3, 3), "s": random(8, 1, 1)}
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4),
        node("Mul", "x s", "b"),
        node("Add", "a b", "c"),
        node("Relu", "c", "y"),
        node("Identity", "x", "z"),
    ]
    net = network(nodes, weights, outputs=("y", "z", "x2")[:2])
    run = net.prepare(algorithm)
    for seed in range(4):
        x = random(1, 8, 13, 16, seed=seed)
        for given_x in (x, np.asfortranarray(x), np.repeat(x, 2, axis=3)[..., ::2], x.copy()):
            kept = given_x.copy()
            got = run({"x": given_x})
            assert_near(got, step_by_step(net, {"x": x}, algorithm))
            np.testing.assert_array_equal(given_x, kept)
            assert not np.shares_memory(got["z"], given_x)


def test_a_tensor_of_five_axes_is_not_taken_for_blocks():
    """A part hands another one a tensor of rank five, beside an image in blocks (stacked branches, as in selective kernels)."""
    weights = {"w": random(64, 64, 3, 3) / 16, "axis": np.array([1]), "v": random(64, 64, 3, 3) / 16}
    nodes = [
        node("Unsqueeze", "x axis", "u"),
        node("Conv", "x w", "a", pads=[1] * 4),
        node("Unsqueeze", "a axis", "b"),
        node("Concat", "u b", "c", axis=1),
        node("ReduceSum", "c axis", "d", keepdims=0),
        node("Conv", "d v", "y", pads=[1] * 4),
    ]
    x = random(1, 64, 16, 16)
    net = network(nodes, weights)
    wanted = net.run({"x": x}, policy="fp64")["y"]
    for algorithm in ("F(4x4,3x3)", "auto", {"y": "onnxruntime", "a": "F(4x4,3x3)"}):
        for _ in range(2):
            np.testing.assert_allclose(net.run({"x": x}, algorithm)["y"], wanted, rtol=0, atol=1e-4)


def test_nodes_called_as_their_outputs_lie_in_blocks():
    nodes = [node("Conv", "x w", "a"), node("Add", "a a", "b"), node("Slice", "b from to axes", "c")]
    nodes += [node("Conv", "b w", "d"), node("Conv", "c w", "e")]
    weights = {"w": random(32, 32, 3, 3), "from": np.array([1]), "to": np.array([30]), "axes": np.array([2])}
    net = network(nodes, weights, outputs=("d", "e"))
    feeds = {"x": random(1, 32, 40, 40, seed=1)}
    runner = net.prepare("F(4x4,3x3)")
    assert_near(runner(feeds), step_by_step(net, feeds, "F(4x4,3x3)"))
    assert not any(session.plain_only for session in runner._sessions.values())

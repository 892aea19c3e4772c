"""Running networks: feeds, policies, choice of algorithms, cached plans, threads."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import chain

import fastconv as fc
from fastconv.network import Graph, Node, Value
from fastconv.network.rewrite.passes import widened
from fastconv.network.run import convolve, execute
from fastconv.network.run.assign import assigned, is_eligible, resolved
from fastconv.network.run.blocks import plain, plain_shape, readers_in_blocks
from fastconv.network.run.feeds import checked_feeds, converted_feeds
from fastconv.network.run.tape import Part, places


@pytest.fixture
def x():
    return np.random.default_rng(2).standard_normal((2, 3, 18, 21)).astype(np.float32)


def test_every_algorithm_agrees_with_onnx(net, x):
    from onnx.reference import ReferenceEvaluator

    wanted = ReferenceEvaluator(chain()).run(None, {"x": x})[0]
    for algorithm in ("auto", "direct", "im2col", "fft", "F(2x2,3x3)", "F(4x4,3x3)"):
        got = net.run({"x": x}, algorithm)["y"]
        assert got.dtype == np.float32
        # Six layers of at most 45 products each, amplified less than 100 times by F(4x4): 6 * 45 * 100 * 2^-24 < 2e-3 at worst.
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_fp64_is_the_network_in_float64(net, x):
    from onnx.reference import ReferenceEvaluator

    model = chain()
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    wanted = ReferenceEvaluator(model).run(None, {"x": x.astype(np.float64)})[0]
    got = net.run({"x": x}, policy="fp64")["y"]
    assert got.dtype == np.float64
    # Both sum the same products in float64, in another order: some 10^3 roundings.
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    np.testing.assert_array_equal(net.run({"x": x}, "F(4x4,3x3)", "fp64")["y"], got)


def test_widening_reaches_constants_casts_and_made_constants():
    nodes = [
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["c"], value_float=0.1),
        helper.make_node("ConstantOfShape", ["s"], ["o"]),
        helper.make_node("Mul", ["f", "c"], ["m"]),
        helper.make_node("Add", ["m", "o"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([1]), "s")],
    )
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    got = net.run({"n": np.array([3])}, policy="fp64")["y"]
    assert got.dtype == np.float64
    assert got[0] == 3 * float(np.float32(0.1))
    assert net.run({"n": np.array([3])})["y"].dtype == np.float32
    assert widened(net.graph).outputs[0].dtype == np.float64


def test_algorithms_go_to_the_layers_that_can_run_them(net):
    graph = net.graph
    assert [node.name for node in graph.convolutions if is_eligible(graph, node, 3)] == ["dense", "lopsided"]
    assert [node.name for node in graph.convolutions if is_eligible(graph, node)] == ["dense", "pointwise", "lopsided"]
    fast = fc.algorithm("F(2x2,3x3)")
    given = assigned(graph, fast)
    assert {name for name, choice in given.items() if choice == fast} == {"dense", "lopsided"}
    assert {choice for name, choice in given.items() if name not in ("dense", "lopsided")} == {"direct"}
    pinned = assigned(graph, {"dense": "F(4x4,3x3)"})
    assert pinned["dense"] == fc.algorithm("F(4x4,3x3)")
    assert pinned["lopsided"] == "auto"


@pytest.mark.parametrize(
    ("algorithm", "kind", "message"),
    [
        ("winograd", ValueError, "winograd"),
        ({"nowhere": "direct"}, ValueError, "no convolution 'nowhere'"),
        ({"strided": "F(2x2,3x3)"}, ValueError, r"'strided' \(Conv\) is not a dense 3x3"),
        (3, TypeError, "an algorithm is a name"),
        ({"dense": 3}, TypeError, "an algorithm is a name"),
    ],
)
def test_unusable_algorithms(net, x, algorithm, kind, message):
    with pytest.raises(kind, match=message):
        net.run({"x": x}, algorithm)


def test_unknown_policy(net, x):
    with pytest.raises(ValueError, match="unknown policy 'fp12': the policies are fp64, fp32"):
        net.run({"x": x}, policy="fp12")


@pytest.mark.parametrize(
    ("feeds", "kind", "message"),
    [
        ({}, ValueError, r"the input 'x' is missing; the network needs x: float32 \(N, 3, H, W\)"),
        ({"z": 1}, ValueError, "no input 'z'; its inputs are 'x'"),
        ({"x": [[1.0]]}, TypeError, "must be a numpy array, not list"),
        ([1], TypeError, "a mapping from names to arrays"),
        ({"x": np.zeros((1, 3, 9, 9))}, TypeError, "must have the type float32, not float64; convert it"),
        ({"x": np.zeros((3, 9, 9), np.float32)}, ValueError, r"shape \(3, 9, 9\); the network needs x: float32 \(N, 3, H, W\)"),
        ({"x": np.zeros((1, 4, 9, 9), np.float32)}, ValueError, r"shape \(1, 4, 9, 9\); the network needs"),
        ({"x": np.zeros((1, 3, 1, 9), np.float32)}, ValueError, r"node 'strided' \(Conv\): a kernel that reaches over 3"),
    ],
)
def test_unusable_feeds(net, feeds, kind, message):
    with pytest.raises(kind, match=message):
        net.run(feeds)


def test_lengths_of_one_name_must_agree():
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", infos, [helper.make_tensor_value_info("y", 1, ["N"])])
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    with pytest.raises(ValueError, match="the length N is 1 in the input 'a' and 3 in 'b'"):
        net.run({"a": np.zeros(1, np.float32), "b": np.zeros(3, np.float32)})


def test_empty_batches_give_empty_results(net):
    assert net.run({"x": np.zeros((0, 3, 18, 21), np.float32)})["y"].shape == (0, 2)


def test_weights_are_planned_once_per_layer_shape_and_algorithm(monkeypatch, x):
    made = []
    plan = convolve.plan_layer

    def counted(*args):
        made.append(args)
        return plan(*args)

    monkeypatch.setattr(convolve, "plan_layer", counted)
    net = fc.load_onnx(chain())
    for _ in range(3):
        net.run({"x": x}, "direct")
    assert len(made) == 6
    net.run({"x": x[:1]}, "direct")
    assert len(made) == 12
    net.run({"x": x}, "F(2x2,3x3)")
    assert len(made) == 18
    assert net.prepare("direct") is net.prepare("direct")


def test_auto_keeps_the_limit_that_a_network_is_given(x):
    net = fc.load_onnx(chain())
    exact = next(iter(net.run({"x": x}, policy="fp64").values()))
    runners = [net.prepare("auto", max_error=limit) for limit in (None, 1e-4)]
    assert runners[0] is net.prepare("auto")
    assert runners[1] is net.prepare("auto", max_error=1e-4)
    assert runners[0] is not runners[1]
    error = [np.linalg.norm(next(iter(runner({"x": x}).values())) - exact) / np.linalg.norm(exact) for runner in runners]
    assert max(error) < 1e-4
    for runner, limit in zip(runners, (1e-6, 1e-4), strict=True):
        plans = [plan for name in net.layers if (plan := runner.plan(name)) is not None]
        assert all(f"the limit is {limit:.1e}" in plan.method.why for plan in plans)
    pinned = net.prepare({net.layers[0]: "direct"}, max_error=1e-4)
    pinned({"x": x})
    assert pinned.plan(net.layers[0]).algorithm == "direct"


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"max_error": 0}, ValueError, "max_error is 0: pass a number above 0"),
        ({"max_error": "1e-5"}, TypeError, "max_error is '1e-5': pass a number"),
        ({"max_error": 1e-5, "algorithm": "direct"}, ValueError, "only 'auto' keeps a limit; pass algorithm='auto'"),
        ({"max_error": 1e-5, "policy": "bf16"}, ValueError, "max_error is 1e-05 and policy 'bf16': only policy 'fp32' takes a limit"),
        ({"max_error": 1e-9}, ValueError, "'dense' .Conv.: max_error is 1e-09: the error of a direct float32 convolution of this layer is"),
    ],
)
def test_limits_that_cannot_be_kept(net, x, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        net.run({"x": x}, **settings)


def test_outputs_are_the_callers_own(net, x):
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("same", "w")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["same"])], "g", [info], outs, [weight])
    twin = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    mine = np.zeros(2, np.float32)
    out = twin.run({"x": mine})
    out["same"][:] = out["w"][:] = 7
    assert mine.tolist() == [0, 0]
    assert twin.run({"x": mine})["w"].tolist() == [1, 1]


def test_tensors_inside_can_be_kept(net, x):
    got = net.prepare("direct")({"x": x}, ["dense.out", "dense.relu"])
    np.testing.assert_array_equal(got["dense.relu"], np.maximum(got["dense.out"], 0))
    with pytest.raises(ValueError, match="no tensor 'nothing'"):
        net.prepare("direct")({"x": x}, ["nothing"])


def test_threads_may_share_a_network(x):
    net = fc.load_onnx(chain())
    inputs = [x[:, :, : 10 + i] for i in range(8)]
    wanted = [fc.load_onnx(chain()).run({"x": part}, "F(2x2,3x3)")["y"] for part in inputs]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda part: net.run({"x": part}, "F(2x2,3x3)")["y"], inputs * 3))
    for i, result in enumerate(got):
        np.testing.assert_array_equal(result, wanted[i % 8])


def test_one_dimensional_convolutions_and_weights_that_are_computed():
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 3, 20)).astype(np.float32), rng.standard_normal((4, 3, 5)).astype(np.float32)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "v")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["fixed"], pads=[1, 2], strides=[2]),
        helper.make_node("Conv", ["x", "v"], ["fed"], pads=[1, 2], strides=[2]),
    ]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("fixed", "fed")]
    graph = helper.make_graph(nodes, "g", infos, outs, [numpy_helper.from_array(w, "w")])
    out = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])).run({"x": x, "v": w})
    padded = np.pad(x, [(0, 0), (0, 0), (1, 2)]).astype(np.float64)
    wanted = np.stack([np.tensordot(padded[:, :, i : i + 5], w, ([1, 2], [1, 2])) for i in range(0, 19, 2)], -1)
    for result in out.values():
        np.testing.assert_allclose(result, wanted, atol=15 * 2.0**-23 * 15)


def layer(kernel=(3, 3), operator="Conv", constant=True, **attributes):
    """Return a graph of one convolution, and the node."""
    given = {name: (value if isinstance(value, int) else tuple(value)) for name, value in attributes.items()}
    node = Node("n", operator, ("x", "w"), ("y",), given, 17)
    weights = {"w": np.ones((4, 4, *kernel), np.float32)} if constant else {}
    inputs = [Value(name, None, None) for name in ("x", *(() if constant else ("w",)))]
    return Graph.build("g", inputs, [Value("y", None, None)], weights, [node]), node


def test_layers_are_eligible_by_kernel_stride_dilation_and_groups():
    small, large, strided = (resolved(name) for name in ("F(2x2,3x3)", "F(2x2,5x5)", "F(2x2,3x3)s2"))
    wide = resolved("F(2x2,3x5)")
    assert is_eligible(*layer())
    assert [is_eligible(*layer(), choice) for choice in (small, large, strided, wide, 3, 5)] == [True, False, False, False, True, False]
    assert is_eligible(*layer((3, 5)), wide)
    assert not is_eligible(*layer((5, 3)), wide)
    assert [is_eligible(*layer(strides=(2, 2)), choice) for choice in ("auto", small, strided)] == [False, False, True]
    assert not is_eligible(*layer(strides=(1, 2)))
    assert not is_eligible(*layer(dilations=(1, 2)))
    assert not is_eligible(*layer(group=2))
    assert is_eligible(*layer(group=1, strides=(1, 1), dilations=(1, 1)))
    assert not is_eligible(*layer((3,)))
    assert is_eligible(*layer((2, 3, 3), strides=(2, 1, 1), dilations=(2, 1, 1)), small)
    assert not is_eligible(*layer(operator="ConvTranspose"))
    assert not is_eligible(*layer(constant=False))


def test_phases_take_dense_layers_of_stride_two():
    run = lambda *made: assigned(made[0], "phases")["n"]
    assert run(*layer(strides=(2, 2))) == "phases"
    assert run(*layer((3, 4), strides=(2, 2))) == "phases"
    assert run(*layer((2, 3, 3), strides=(1, 2, 2))) == "phases"
    for other in (layer(), layer((2, 3), strides=(2, 2)), layer(strides=(2, 1)), layer(strides=(3, 3)), layer((3,), strides=(2,))):
        assert run(*other) == "direct"
    assert run(*layer(strides=(2, 2), dilations=(1, 2))) == "direct"
    assert run(*layer(strides=(2, 2), group=2)) == "direct"
    assert run(*layer(strides=(2, 2), constant=False)) == "direct"
    assert [assigned(layer(group=2)[0], name)["n"] for name in ("auto", "direct", "im2col", "fft")] == [
        "auto",
        "direct",
        "direct",
        "direct",
    ]
    assert [assigned(layer()[0], name)["n"] for name in ("auto", "direct", "im2col", "fft")] == ["auto", "direct", "im2col", "fft"]


def test_what_a_layer_cannot_run_is_told():
    graph, _ = layer(group=2)
    for name, what in (("F(2x2,3x3)", "3x3 convolution of stride 1"), ("F(2x2,3x5)", "3x5 convolution of stride 1")):
        with pytest.raises(ValueError, match=f"is not a dense {what} and cannot run '{re.escape(name)}'"):
            assigned(graph, {"n": name})
    with pytest.raises(ValueError, match="the network has no convolution 'm'; it has n"):
        assigned(graph, {"m": "direct"})
    with pytest.raises(ValueError, match="the network has no convolution 'm'; it has none"):
        assigned(layer(operator="ConvTranspose")[0], {"m": "direct"})
    with pytest.raises(TypeError, match="an algorithm is a name, a BilinearAlgorithm or a mapping from layers to these, not int"):
        assigned(graph, 3)
    with pytest.raises(TypeError, match="not tuple"):
        assigned(graph, (resolved("F(2x2,3x3)"),))
    assert assigned(graph, {}) == {"n": "auto"}


def test_feeds_are_checked_one_by_one():
    f4 = np.dtype(np.float32)
    values = [Value("x", f4, ("N", 3)), Value("z", f4, ("N",)), Value("k", np.dtype(np.int64), None)]
    graph = Graph.build("g", values, [Value("x", None, None)], {}, [])
    x, z, k = np.ones((2, 3), f4), np.ones(2, f4), np.arange(2)
    given = checked_feeds(graph, {"k": k, "z": z, "x": x})
    assert list(given) == ["x", "z", "k"]
    assert given["x"] is x
    for feeds, kind, message in (
        ([x], TypeError, "inputs are a mapping from names to arrays, not list"),
        ({"x": x, "z": z}, ValueError, "the input 'k' is missing; the network needs k: int64"),
        ({"x": x, "z": z, "k": k, "q": x}, ValueError, "the network has no input 'q'; its inputs are 'x', 'z', 'k'"),
        ({"x": [1], "z": z, "k": k}, TypeError, "the input 'x' must be a numpy array, not list"),
        (
            {"x": x.astype("f8"), "z": z, "k": k},
            TypeError,
            "the input 'x' must have the type float32, not float64; convert it with .astype",
        ),
        ({"x": x[0], "z": z, "k": k}, ValueError, r"the input 'x' has the shape \(3,\); the network needs x: float32"),
        ({"x": x[:, :2], "z": z, "k": k}, ValueError, r"the input 'x' has the shape \(2, 2\); the network needs x: float32"),
        ({"x": x, "z": z[:1], "k": k}, ValueError, "the length N is 2 in the input 'x' and 1 in 'z'"),
    ):
        with pytest.raises(kind, match=message):
            checked_feeds(graph, feeds)
    with pytest.raises(ValueError, match="the network has no input 'q'; its inputs are none"):
        checked_feeds(Graph.build("g", [], [], {}, []), {"q": x})
    wide = Graph.build("g", [Value("x", np.dtype(np.float64), None)], [Value("x", None, None)], {}, [])
    assert checked_feeds(wide, {"x": x})["x"].dtype == np.float64
    assert checked_feeds(wide, {"x": np.float32(3)})["x"].shape == ()
    with pytest.raises(TypeError, match="must have the type float64, not int64"):
        checked_feeds(wide, {"x": k})
    half = Graph.build("g", [Value("x", np.dtype(np.float16), None), values[2]], [Value("x", None, None)], {}, [])
    converted = converted_feeds(half, {"x": np.float16([1, 2]), "k": k, "q": np.float16([3])})
    assert (converted["x"].dtype, converted["k"].dtype, converted["q"].dtype) == (np.float32, np.int64, np.float16)
    assert converted_feeds(half, {"x": x})["x"] is x
    assert converted_feeds(half, [x])[0] is x


def test_tensors_die_after_their_last_reader():
    value = lambda name: Value(name, None, None)
    nodes = [
        Node("a", "Relu", ("x",), ("a",), {}, 17),
        Node("b", "Dropout", ("a",), ("b", "mask"), {}, 17),
        Node("c", "Add", ("b", "a"), ("c",), {}, 17),
        Node("d", "Neg", ("c",), ("y",), {}, 17),
    ]
    graph = Graph.build("g", [value("x")], [value("y")], {}, nodes)
    dead = lambda wanted: [set(names) for names in execute.Program.of(graph, wanted, {}).dead]
    assert dead(()) == [{"x"}, {"mask"}, {"a", "b"}, {"c"}]
    assert dead(("b", "mask")) == [{"x"}, set(), {"a"}, {"c"}]


def test_what_is_kept_is_what_was_used_last():
    kept, made = execute.Kept(2), []
    get = lambda key: kept.get(key, lambda: made.append(key) or key * 2)
    assert kept.last() is None
    assert [get("a"), get("b"), get("a"), get("c"), get("a"), get("b")] == ["aa", "bb", "aa", "cc", "aa", "bb"]
    assert made == ["a", "b", "c", "b"]
    assert kept.last() == "bb"
    assert (kept.held("a"), kept.held("c")) == ("aa", None)


def test_parts_of_memory_lie_beside_those_that_live_with_them():
    assert places([]) == ([], 0)
    assert places([Part(1, 0, 0), Part(1, 1, 1)]) == ([0, 0], 64)
    assert places([Part(64, 0, 1), Part(65, 1, 1), Part(1, 1, 2)]) == ([128, 0, 192], 256)
    # The gap of a dead part is reused if it is large enough.
    assert places([Part(300, 0, 3), Part(200, 0, 1), Part(128, 2, 3), Part(64, 0, 3)]) == ([0, 320, 320, 576], 640)
    assert places([Part(300, 0, 0), Part(200, 0, 2), Part(192, 1, 1), Part(256, 2, 2)])[0] == [0, 320, 0, 0]


def test_tensors_between_nodes_that_serve_blocks_may_lie_in_them():
    value = lambda name: Value(name, None, None)
    conv = lambda name, x, *more: Node(name, "Conv", (x, "w", *more), (name,), {}, 17)
    weights = {"w": np.ones((4, 4, 3, 3), np.float32)}

    def found(*nodes, wanted=(), weights=weights, outputs=None):
        graph = Graph.build("g", [value("x")], [value(name) for name in outputs or [nodes[-1].outputs[0]]], weights, nodes)
        return {name: [node.name for node in readers] for name, readers in readers_in_blocks(graph, wanted, {}).items()}

    a, b = conv("a", "x"), conv("b", "a")
    assert found(a, b) == {"a": ["b"]}
    assert found(a, b, wanted=["a"]) == found(a, b, outputs=["a", "b"]) == {}
    assert found(a, Node("r", "Tanh", ("a",), ("r",), {}, 17)) == {}
    assert found(a, b, Node("r", "Add", ("a", "b"), ("r",), {}, 17)) == {}
    assert found(a, conv("b", "a", "", "a")) == {}
    pool = Node("p", "MaxPool", ("a",), ("p",), {"kernel_shape": (2, 2)}, 17)
    assert found(a, pool, conv("b", "p")) == {"a": ["p"], "p": ["b"]}
    assert found(a, b, pool, conv("c", "a"), outputs=["b", "p", "c"]) == {"a": ["b", "p", "c"]}
    two = Node("p", "MaxPool", ("a",), ("p", "i"), {"kernel_shape": (2, 2)}, 17)
    assert found(a, two, conv("b", "p")) == {}
    assert found(a, replace(two, outputs=("p", "")), conv("b", "p")) == {"a": ["p"], "p": ["b"]}
    assert found(a, replace(pool, attributes={"kernel_shape": (2, 2, 2)}), conv("b", "p")) == {}
    assert found(a, b, weights={"w": np.ones((4, 4, 3), np.float32)}) == {}
    array = np.arange(2 * 3 * 2 * 2 * 4).reshape(2, 3, 2, 2, 4)
    assert plain_shape(array) == (2, 12, 2, 2)
    np.testing.assert_array_equal(plain(array)[1, 6], array[1, 1, :, :, 2])

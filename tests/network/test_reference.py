"""The float64 reference computes in float64 what it can, inside If, Loop and Scan too, and names what it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import model

import fastconv as fc

FLOAT, BOOL, INT = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
MICROSOFT = helper.make_opsetid("com.microsoft", 1)
info = helper.make_tensor_value_info
RNG = np.random.default_rng(5)
W = (RNG.standard_normal((4, 4, 3, 3)) / 6).astype(np.float32)
X = RNG.standard_normal((2, 4, 9, 9)).astype(np.float32)


def loaded(nodes, inputs, outputs, constants=(), domains=()):
    made = model(nodes, inputs, outputs, initializers=[numpy_helper.from_array(a, n) for n, a in dict(constants).items()])
    made.opset_import.extend(domains)
    return fc.load_onnx(made)


def conv64(x, w):
    """Convolve with padding 1, in float64."""
    return fc.plan_conv2d(np.asarray(w, np.float64), padding=1, input_shape=x.shape, algorithm="im2col")(np.asarray(x, np.float64))


def looped(outputs=("y", "all")):
    """Return three convolutions in a Loop without condition, which also gives the largest value of each step."""
    nodes = [
        helper.make_node("Conv", ["s", "w"], ["t"], "inner", pads=[1] * 4),
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("ReduceMax", ["t"], ["largest"], axes=[1, 2, 3], keepdims=0),
    ]
    enter = [info("i", INT, []), info("go", BOOL, []), info("s", FLOAT, None)]
    leave = [info("on", BOOL, []), info("t", FLOAT, None), info("largest", FLOAT, None)]
    body = helper.make_graph(nodes, "body", enter, leave)
    loop = helper.make_node("Loop", ["count", "", "x"], list(outputs), "loop", body=body)
    return loaded([loop], {"x": X}, dict.fromkeys(outputs, FLOAT), {"w": W, "count": np.array(3)})


def test_a_loop_runs_its_body_in_float64():
    net, truth, largest = looped(), X, []
    for _ in range(3):
        truth = conv64(truth, W)
        largest.append(truth.max((1, 2, 3)))
    exact = net.run({"x": X}, policy="fp64")
    np.testing.assert_allclose(exact["y"], truth, rtol=0, atol=1e-13)
    np.testing.assert_allclose(exact["all"], largest, rtol=0, atol=1e-13)
    assert net.reference().own_precision == ()
    for name, value in net.run({"x": X}).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, exact[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("way", [True, False])
def test_branches_are_widened_with_what_they_hold(way, kind):
    """Constants and types inside a branch are converted too; onnxruntime refuses a mixture of types."""
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    held = {"then": W.astype(kind), "else": -2 * W.astype(kind)}
    branches = {}
    for name, w in held.items():
        nodes = [
            helper.make_node("Conv", ["x", f"{name}.w"], [f"{name}.c"], f"{name}.conv", pads=[1] * 4),
            helper.make_node("Cast", [f"{name}.c"], [f"{name}.y"], to=code),
        ]
        leave = [info(f"{name}.y", code, None)]
        branches[f"{name}_branch"] = helper.make_graph(nodes, name, [], leave, [numpy_helper.from_array(w, f"{name}.w")])
    feeds = {"x": X.astype(kind), "way": np.array(way)}
    net = loaded([helper.make_node("If", ["way"], ["y"], "if", **branches)], feeds, {"y": code})
    truth = conv64(feeds["x"], held["then" if way else "else"])
    exact = net.run(feeds, policy="fp64")["y"]
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact, truth, rtol=0, atol=1e-13)
    emulated = net.run(feeds, policy="bf16")["y"]  # all but convolutions of the network itself in float32
    assert emulated.dtype == np.float32
    np.testing.assert_allclose(emulated, truth, rtol=0, atol=1e-5)


def scanned(width, **attributes):
    nodes = [helper.make_node("Add", ["s", "row"], ["t"]), helper.make_node("Mul", ["t", "two"], ["twice"])]
    body = helper.make_graph(
        nodes, "body", [info("s", FLOAT, None), info("row", FLOAT, None)], [info("t", FLOAT, None), info("twice", FLOAT, None)]
    )
    scan = helper.make_node("Scan", ["start", "x"], ["last", "y"], "scan", body=body, num_scan_inputs=1, **attributes)
    feeds = {"start": np.zeros(width, np.float32), "x": np.arange(12, dtype=np.float32).reshape(4, 3)}
    return loaded([scan], feeds, {"last": FLOAT, "y": FLOAT}, {"two": np.float32(2)}), feeds


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_axes": [1]},
        {"scan_input_axes": [-1], "scan_input_directions": [1]},
        {"scan_input_directions": [1]},
        {"scan_output_directions": [1]},
        {"scan_output_axes": [1]},
        {"scan_output_axes": [-1]},
    ],
    ids=str,
)
def test_a_scan_is_that_of_onnxruntime(attributes):
    """Small integers are exact in every format."""
    net, feeds = scanned(4 if "scan_input_axes" in attributes else 3, **attributes)
    exact, got = net.run(feeds, policy="fp64"), net.run(feeds)
    for name, value in got.items():
        np.testing.assert_array_equal(exact[name], value)
        assert (exact[name].dtype, exact[name].shape) == (np.float64, value.shape)


def test_loops_that_never_run_give_empty_results():
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["s"], ["t"]), helper.make_node("Abs", ["s"], ["row"])]
    enter = [info("i", INT, []), info("go", BOOL, []), info("s", FLOAT, [3])]
    body = helper.make_graph(nodes, "body", enter, [info("on", BOOL, []), info("t", FLOAT, [3]), info("row", FLOAT, [3])])
    loop = helper.make_node("Loop", ["", "go", "x"], ["y", "rows"], "loop", body=body)
    feeds = {"x": np.ones(3, np.float32), "go": np.array(False)}
    net = loaded([loop], feeds, {"y": FLOAT, "rows": FLOAT})
    exact, got = net.run(feeds, policy="fp64"), net.run(feeds)
    np.testing.assert_array_equal(exact["y"], got["y"])
    assert exact["rows"].shape == got["rows"].shape == (0, 3)


def gelu(kind=np.float32):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1] * 4),
        helper.make_node("BiasGelu", ["c", "b"], ["y"], "gelu", domain="com.microsoft"),
    ]
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    constants = {"w": W.astype(kind), "b": np.linspace(-1, 1, 9).astype(kind)}
    return loaded(nodes, {"x": X.astype(kind)}, {"y": code}, constants, [MICROSOFT])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_what_nothing_computes_in_float64_is_named(kind):
    from math import erf, sqrt

    net, x = gelu(kind), X.astype(kind)
    with pytest.warns(UserWarning, match=r"^not in float64 but in the precision of the model: gelu \(BiasGelu\)$"):
        got = net.run({"x": x}, policy="fp64")["y"]
    assert got.dtype == np.float64
    z = conv64(x, net.graph.constants["w"]) + np.linspace(-1, 1, 9).astype(kind)
    truth = 0.5 * z * (1 + np.vectorize(erf)(z / sqrt(2)))
    error = np.linalg.norm(got - truth) / np.linalg.norm(truth)
    assert 1e-10 < error < 2 * float(np.finfo(kind).eps)  # in the precision of the model, no more and no less
    report = fc.compare(net, {"x": x}, ["direct"], repeats=1)
    assert report.own_precision == ("gelu (BiasGelu)",)
    assert report.to_dict()["own_precision"] == ["gelu (BiasGelu)"]
    assert "not in fp64 but in the precision of the model: gelu (BiasGelu)" in report.tables()[0].notes[0]


def test_what_is_in_float64_is_not_named():
    net = looped()
    report = fc.compare(net, {"x": X}, repeats=1)
    assert report.own_precision == ()
    assert "precision of the model" not in report.tables()[0].notes[0]
    assert report.rows[0].relative_l2 < 1e-6


def test_nodes_inside_a_loop_are_named():
    nodes = [helper.make_node("Gelu", ["s"], ["t"], "curve", domain="com.microsoft"), helper.make_node("Identity", ["go"], ["on"])]
    enter = [info("i", INT, []), info("go", BOOL, []), info("s", FLOAT, None)]
    body = helper.make_graph(nodes, "body", enter, [info("on", BOOL, []), info("t", FLOAT, None)])
    feeds = {"x": np.ones((2, 3), np.float32)}
    net = loaded(
        [helper.make_node("Loop", ["two", "", "x"], ["y"], "loop", body=body)], feeds, {"y": FLOAT}, {"two": np.array(2)}, [MICROSOFT]
    )
    with pytest.warns(UserWarning, match="curve \\(Gelu\\)"):
        exact = net.run(feeds, policy="fp64")["y"]
    np.testing.assert_allclose(net.run(feeds)["y"], exact, rtol=1e-6)


def test_an_operator_that_nothing_runs_is_an_error_that_names_it():
    net = loaded([helper.make_node("NotThere", ["x"], ["y"], "odd", domain="com.microsoft")], {"x": X}, {"y": FLOAT}, (), [MICROSOFT])
    for policy in ("fp32", "fp64"):
        with pytest.raises(ValueError, match=r"^node 'odd' \(NotThere\): onnxruntime: "):
            net.run({"x": X}, policy=policy)


def test_inputs_narrower_than_float16_are_converted():
    import ml_dtypes

    nodes = [helper.make_node("Cast", ["x"], ["h"], to=FLOAT), helper.make_node("Neg", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.BFLOAT16, [3])], [info("y", FLOAT, None)])
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x = np.array([1, -2, 0.5], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(net.run({"x": x}, policy="fp64")["y"], [-1.0, 2.0, -0.5])


def test_bodies_are_read_when_the_model_is_loaded():
    body = helper.make_graph([helper.make_node("NoSuchOperator", ["x"], ["z"], "bad")], "b", [], [info("z", FLOAT, None)])
    node = helper.make_node("If", ["c"], ["y"], "if", then_branch=body, else_branch=body)
    with pytest.raises(ValueError, match="node 'bad' \\(NoSuchOperator\\): opset 17 has no operator NoSuchOperator"):
        loaded([node], {"x": X, "c": np.array(True)}, {"y": FLOAT})


def test_convolutions_inside_are_counted_as_onnxruntimes():
    found = looped().explain({"x": X}, threads=1)
    assert (found.layers, found.inside, found.computed) == ((), ("inner",), ())
    assert found.to_dict()["inside"] == ["inner"]
    assert found.summary().endswith("; inside If, Loop and Scan, onnxruntime runs 1 convolution: inner")
    inner = looped().graph.nodes[0].proto
    branch = lambda name, nodes, y: helper.make_graph(nodes, name, [], [info(y, FLOAT, None)])
    inner.output[:] = ["deep", "rest"]
    nodes = [helper.make_node("Conv", ["x", "w"], ["flat"], "branch", pads=[1] * 4)]
    outer = helper.make_node("If", ["c"], ["y"], "if", then_branch=branch("t", [inner], "deep"), else_branch=branch("e", nodes, "flat"))
    feeds = {"x": X, "c": np.array(True)}
    net = loaded([outer], feeds, {"y": FLOAT}, {"w": W, "count": np.array(3)})
    assert net.explain(feeds, threads=1).inside == ("branch", "inner")
    np.testing.assert_allclose(net.run(feeds)["y"], net.run(feeds, policy="fp64")["y"], rtol=0, atol=1e-5)


def test_convolutions_of_computed_weights_are_counted():
    net = loaded([helper.make_node("Conv", ["x", "k"], ["y"], "conv")], {"x": X, "k": W}, {"y": FLOAT})
    found = net.explain({"x": X, "k": W}, threads=1)
    assert (found.layers, found.computed) == ((), ("conv",))
    assert found.summary().endswith("; onnxruntime runs 1 convolution of computed weights: conv")

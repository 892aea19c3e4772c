"""Networks take a bare array, a path, and random inputs; any network is compared and explained."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import dense_chain

import fastconv as fc
from fastconv.cli import main
from fastconv.network.graph.graph import Graph, Node, Value
from fastconv.network.operators import OPERATORS, Call
from fastconv.network.run.feeds import drawn_feeds
from fastconv.network.study import final_error
from fastconv.network.study.race import arrays_of

FLOAT = TensorProto.FLOAT
info = helper.make_tensor_value_info
W = numpy_helper.from_array((np.random.default_rng(0).standard_normal((4, 3, 3, 3)) / 5).astype(np.float32), "w")
CONV = helper.make_node("Conv", ["x", "w"], ["c"], "conv")


def made(nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def value(kind, *shape, name="x"):
    return Value(name, np.dtype(kind), shape)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_floats_are_normal_numbers_in_the_type_of_the_model(kind):
    (x,) = drawn_feeds([value(kind, 50, 40)], seed=3).values()
    assert (x.dtype, x.shape) == (np.dtype(kind), (50, 40))
    np.testing.assert_array_equal(x, np.random.default_rng(3).standard_normal((50, 40)).astype(kind))
    assert not np.array_equal(x, drawn_feeds([value(kind, 50, 40)], seed=4)["x"])


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(np.uint8, 0, 255), (np.int8, -128, 127), (np.int64, 0, 1), (np.uint16, 0, 1), (bool, 0, 1)]
)
def test_integers_are_pixels_or_valid_indices(kind, low, high):
    (x,) = drawn_feeds([value(kind, 5000)]).values()
    assert x.dtype == np.dtype(kind)
    assert (int(x.min()), int(x.max())) == (low, high)
    assert drawn_feeds([value(kind)])["x"].shape == ()


def test_open_lengths_are_images_or_given():
    inputs = [value("f4", "N", 3, "H", "W"), value("f4", None, "H", name="y"), value("i8", "N", "N", name="z")]
    shapes = lambda *a, **k: [array.shape for array in drawn_feeds(inputs, *a, **k).values()]
    assert shapes({"H": 5, "W": 6}) == [(1, 3, 5, 6), (1, 5), (1, 1)]
    assert shapes({"H": 5, "W": 6}, images=4) == [(4, 3, 5, 6), (4, 5), (4, 4)]
    assert shapes({"H": 5, "W": 6, "N": 2}, images=4) == [(2, 3, 5, 6), (4, 5), (2, 2)]
    assert shapes({"x": (2, 3, 7, 8), "H": 5}) == [(2, 3, 7, 8), (1, 5), (1, 1)]


@pytest.mark.parametrize(
    ("inputs", "lengths", "said"),
    [
        (
            [value("f4", "N", "H")],
            None,
            r"leaves a length of its input open \(x: float32 \(N, H\)\): .* random_inputs\(\{'H': 224\}\) \(--input random",
        ),
        ([value("f4", 1, None)], None, r"random_inputs\(\{'x': \(1, 224\)\}\) \(--input random --lengths x=1,224\)$"),
        ([Value("x", np.dtype("f4"), None)], None, r"leaves the shape of its input open \(x: float32 of any shape\): .*x=1,3,224,224\)$"),
        ([value("f4", "N", "H")], {"K": 3}, r"^lengths names 'K': name an open length of the model \(H, N\), or an input"),
        ([value("f4", "N", "H")], {"H": 0}, "^the length of 'H' is 0: pass a positive integer"),
        ([value("f4", "N", "H")], {"H": 2.5}, "^the length of 'H' is 2.5: pass a positive integer"),
        ([value("f4", "N", "H")], {"x": 5}, "^the shape of the input 'x' is 5: pass a tuple"),
        ([value(object, 3)], None, r"^random numbers do not fit the input x: object \(3\): pass inputs$"),
        ([Value("x", None, None)], {"x": (3,)}, "^random numbers do not fit the input x: any type"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(inputs, lengths, said):
    with pytest.raises(ValueError, match=said):
        drawn_feeds(inputs, lengths)


def test_images_are_counted():
    with pytest.raises(ValueError, match="the number of images is 0: pass a positive integer"):
        drawn_feeds([value("f4", "N")], images=0)


def test_a_bare_array_is_the_only_input(tmp_path):
    onnx.save(dense_chain(), tmp_path / "chain.onnx")
    net = fc.load_onnx(tmp_path / "chain.onnx")
    x = net.random_inputs()["x"]
    want = net.run({"x": x})["last.relu"]
    np.testing.assert_array_equal(net.run(x)["last.relu"], want)
    for policy in ("fp64", "fp16"):
        np.testing.assert_array_equal(net.run(x, policy=policy)["last.relu"], net.run({"x": x}, policy=policy)["last.relu"])
    assert net.explain(x, threads=1).inputs == "the given inputs"
    rows = [fc.compare(source, x, ["direct"], repeats=1).rows[0] for source in (net, str(tmp_path / "chain.onnx"), dense_chain())]
    assert len({(row.relative_l2, row.max_abs) for row in rows}) == 1
    assert 0 < rows[0].relative_l2 < 1e-6
    two = Graph.build(
        "g", [value("f4", 2), value("f4", 2, name="z")], [Value("y", None, None)], {}, [Node("n", "Add", ("x", "z"), ("y",), {}, 17)]
    )
    for call in (fc.network.Network(two).run, fc.network.Network(two).explain, lambda array: fc.compare(fc.network.Network(two), array)):
        with pytest.raises(ValueError, match="^one array is given, and the inputs of the network are 'x', 'z': pass a mapping"):
            call(np.ones(2, "f4"))


def lists():
    nodes = [CONV, helper.make_node("SplitToSequence", ["c"], ["y"], axis=1)]
    return made(nodes, [info("x", FLOAT, ["N", 3, 9, 9])], [helper.make_tensor_sequence_value_info("y", FLOAT, None)], [W])


def kept():
    """Return a model whose output's length depends on the values: those above zero."""
    nodes = [CONV, helper.make_node("Relu", ["c"], ["r"]), helper.make_node("NonZero", ["r"], ["y"])]
    return made(nodes, [info("x", FLOAT, [2, 3, 9, 9])], [info("y", TensorProto.INT64, None)], [W])


def branching():
    body = lambda name, x: helper.make_graph(
        [helper.make_node("Conv", [x, "w"], [name], f"{name}.conv")], name, [], [info(name, FLOAT, None)]
    )
    nodes = [helper.make_node("If", ["way"], ["y"], "if", then_branch=body("a", "x"), else_branch=body("b", "x"))]
    return made(nodes, [info("x", FLOAT, ["N", 3, 9, 9]), info("way", TensorProto.BOOL, [])], [info("y", FLOAT, None)], [W])


def recurrent():
    rng = np.random.default_rng(1)
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype("f2"), n) for n, s in (("W", (1, 15, 3)), ("R", (1, 15, 5)))]
    nodes = [helper.make_node("GRU", ["x", "W", "R"], ["", "y"], "gru", hidden_size=5)]
    return made(nodes, [info("x", TensorProto.FLOAT16, [4, "N", 3])], [info("y", TensorProto.FLOAT16, None)], weights)


def tokens():
    weights = [numpy_helper.from_array(np.random.default_rng(2).standard_normal((50, 6)).astype("f4"), "table")]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["g"]), helper.make_node("ReduceMean", ["g"], ["y"], axes=[1], keepdims=0)]
    return made(nodes, [info("ids", TensorProto.INT64, ["N", "L"])], [info("y", FLOAT, None)], weights)


def words():
    nodes = [CONV, helper.make_node("Sign", ["c"], ["s"]), helper.make_node("Cast", ["s"], ["i"], to=TensorProto.INT64)]
    nodes.append(helper.make_node("Cast", ["i"], ["y"], to=TensorProto.STRING))
    return made(nodes, [info("x", FLOAT, ["N", 3, 9, 9])], [info("y", TensorProto.STRING, None)], [W])


ANY = {  # lengths, convolutions with a row, those inside, largest error in fp32
    "lists": (lists, {}, 1, 0, 1e-6),
    "data-dependent shape": (kept, {}, 1, 0, 0),
    "branches": (branching, {}, 0, 2, 1e-6),
    "recurrent, float16": (recurrent, {"N": 2}, 0, 0, 1e-2),
    "tokens": (tokens, {"L": 7}, 0, 0, 1e-6),
    "text": (words, {}, 1, 0, 0),
}


@pytest.mark.parametrize("kind", ANY)
def test_any_network_is_compared_and_explained(kind, tmp_path, capsys):
    model, lengths, rows, inside, error = ANY[kind]
    net = fc.load_onnx(model())
    feeds = net.random_inputs(lengths, images=2)
    found = net.explain(feeds, threads=1)
    assert (len(found.layers), len(found.inside)) == (rows, inside)
    report = fc.compare(net, feeds, repeats=1, threads=1)
    assert len(report.rows) == (4 if rows else 1)
    assert len(report.layers) == rows
    assert report.own_precision == ()
    assert 0 <= report.rows[0].relative_l2 <= error
    assert (report.rows[0].relative_l2 > 0) is (error > 0)
    onnx.save(model(), tmp_path / "any.onnx")
    given = ["--input", "random", "--images", "2", "--threads", "1", "--output", str(tmp_path), "--json"]
    given += ["--lengths", ";".join(f"{name}={length}" for name, length in lengths.items())] if lengths else []
    assert main(["compare", str(tmp_path / "any.onnx"), "--repeats", "1", *given]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"][0]["relative_l2"] == pytest.approx(report.rows[0].relative_l2)
    assert main(["networks", str(tmp_path / "any.onnx"), "--explain", *given]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["layers"]), len(told["inside"])) == (rows, inside)


def test_the_command_line_draws_inputs_and_says_so(tmp_path, capsys):
    path = tmp_path / "chain.onnx"
    onnx.save(dense_chain(("N", 16, "H", 20)), path)
    common = ["--threads", "1", "--output", str(tmp_path)]
    for verb in (["compare", str(path), "--algorithms", "direct", "--repeats", "1"], ["networks", str(path), "--explain"]):
        assert main([*verb, *common, "--input", "random", "--lengths", "H=24", "--seed", "5", "--images", "3"]) == 0
        assert "random inputs of seed 5: x (3, 16, 24, 20)" in " ".join(capsys.readouterr().out.split())
        for wrong, said in (
            (["--input", "random"], "leaves a length of its input open"),
            (["--input", "random", "--lengths", "H:24"], "--lengths has 'H:24': write lengths as in 'H=224;W=224'"),
            (["--input", "random", "--lengths", "Q=24"], "lengths names 'Q'"),
            (["--lengths", "H=24"], "--lengths is H=24, but the inputs are not random: add --input random"),
        ):
            assert main([*verb, *common, *wrong]) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert said in err
    for verb in (["compare"], ["networks", "fashion", "--explain"]):
        assert main([*verb, "--input", "random"]) == 2
        assert "--input goes with a model file" in capsys.readouterr().err


def test_outputs_that_cannot_be_joined_are_said():
    net = fc.load_onnx(
        made(
            [CONV, helper.make_node("NonZero", ["c"], ["y"])], [info("x", FLOAT, ["N", 3, 9, 9])], [info("y", TensorProto.INT64, None)], [W]
        )
    )
    x = net.random_inputs(images=2)["x"]
    x[1] = 0
    with pytest.raises(
        ValueError, match=r"^the output 'y' differs in shape between batches \(\(4, 196\), \(4, 0\)\): pass one batch of images$"
    ):
        fc.compare(net, x, ["direct"], repeats=1, batch=1)
    assert fc.compare(net, x, ["direct"], repeats=1).rows[0].relative_l2 == 0


def test_errors_of_outputs_of_every_kind():
    text = lambda *words: np.array(words, object)
    assert final_error({"y": text("a", "b", "c", "d")}, {"y": text("a", "x", "c", "d")}) == (0.5, 1.0)
    assert final_error({"y": text("a"), "n": np.array([3])}, {"y": text("b"), "n": np.array([4])}) == (0.25, 1.0)
    assert final_error({}, {"y": np.ones(2)}) == (math.inf, math.inf)
    assert final_error({"y": np.ones(3)}, {"y": np.ones(2)}) == (math.inf, math.inf)
    assert final_error({}, {}) == (0.0, 0.0)
    assert list(arrays_of({"a": [np.ones(1), [np.ones(2)]], "b": None})) == ["a[0]", "a[1][0]"]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint8, bool])
def test_numbers_become_the_text_that_onnxruntime_writes(kind):
    values = [0, 1, 250] if kind in (np.uint8, bool) else [1, -5, 2**40] if kind is np.int64 else [1, 0.1, -1e-7, 3.14159265358979, 1e20]
    with np.errstate(over="ignore"):
        x = np.array(values + ([np.inf, -np.inf, np.nan, -0.0] if np.dtype(kind).kind == "f" else []), kind).reshape(-1, 1)
    code = helper.np_dtype_to_tensor_dtype(x.dtype)
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    net = fc.load_onnx(made([node], [info("x", code, x.shape)], [info("y", TensorProto.STRING, None)]))
    got, want = OPERATORS["Cast"].run(Call({"to": TensorProto.STRING}, 17), x), net.run(x)["y"]
    assert got.tolist() == want.tolist()
    assert got.dtype == want.dtype == object


def test_text_becomes_numbers_of_every_digit():
    cast = lambda kind, *words: OPERATORS["Cast"].run(Call({"to": kind}, 17), np.array(words, object)).tolist()
    assert cast(TensorProto.INT64, "16777217", "-9007199254740993") == [16777217, -9007199254740993]
    assert cast(TensorProto.DOUBLE, "0.1", "INF", "-2e3") == [0.1, math.inf, -2000]
    assert cast(TensorProto.STRING, "a") == ["a"]

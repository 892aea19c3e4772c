"""Models as exporters write them: external weights, Constant nodes, constant branches, quantised weights, unnamed lengths."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc
from fastconv.cli import main

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 12, 12)).astype("f4")
W = RNG.standard_normal((8, 3, 3, 3)).astype("f4")


def model(nodes, constants, shape=X.shape, opset=17, extra=()):
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *extra]
    graph = helper.make_graph(nodes, "g", ends, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


CONV = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
PLAIN = fc.load_onnx(model([CONV], {"w": W})).run({"x": X})["y"]


@pytest.mark.parametrize("together", [True, False])
def test_weights_in_other_files_are_read_from_the_models_folder(tmp_path, together, monkeypatch):
    place = tmp_path / "model.onnx"
    settings = {"save_as_external_data": True, "size_threshold": 0, "all_tensors_to_one_file": together}
    onnx.save(model([CONV], {"w": W}), place, **settings)
    monkeypatch.chdir("/")
    net = fc.load_onnx(place)
    np.testing.assert_array_equal(net.run({"x": X})["y"], PLAIN)
    with pytest.raises(ValueError, match="stored in another file: give the model by its path"):
        fc.load_onnx(place.read_bytes())
    for other in tmp_path.iterdir():
        if other != place:
            other.unlink()
    np.testing.assert_array_equal(net.run({"x": X})["y"], PLAIN)
    with pytest.raises(ValueError, match="weights in another file cannot be read"):
        fc.load_onnx(place)


def test_weights_outside_of_the_folder_are_refused(tmp_path):
    made = model([CONV], {"w": W})
    onnx.external_data_helper.convert_model_to_external_data(made, size_threshold=0, location="w.bin")
    (tmp_path / "inside").mkdir()
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    made.graph.initializer[0].external_data[0].value = "../w.bin"
    made.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "inside" / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ValueError, match="cannot be read"):
        fc.load_onnx(tmp_path / "inside" / "m.onnx")


def test_a_constant_node_is_a_constant_to_all_that_look_at_the_network():
    weights = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(W))
    two = helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array(2, "f4")))
    nodes = [weights, two, helper.make_node("Conv", ["x", "w"], ["t"], name="conv"), helper.make_node("Mul", ["t", "two"], ["y"])]
    net = fc.load_onnx(model(nodes, {}))
    np.testing.assert_array_equal(net.run({"x": X})["y"], 2 * PLAIN)
    report = fc.compare(net, {"x": X}, ["F(2x2,3x3)", "fitted F(4x4,3x3)"], repeats=1)
    assert [row.algorithm for row in report.rows] == ["direct", "F(2x2,3x3)", "F(4x4,3x3)"]
    assert report.rows[1].relative_l2 != report.rows[0].relative_l2
    assert fc.fitted(net, {"x": X}, 4).keys() == {"conv"}
    assert net.run({"x": X}, {"conv": "F(2x2,3x3)"}, "fp16")["y"].shape == PLAIN.shape


def test_explain_where_a_convolution_reads_constants_alone():
    nodes = [
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "w"], ["t"]),
        helper.make_node("Add", ["t", "x"], ["y"]),
    ]
    p = RNG.standard_normal((1, 3, 14, 14)).astype("f4")
    x = RNG.standard_normal((1, 8, 12, 12)).astype("f4")
    net = fc.load_onnx(model(nodes, {"p": p, "w": W}, x.shape))
    assert net.explain({"x": x}).layers == ()
    np.testing.assert_allclose(net.run({"x": x}, "direct")["y"] - x, fc.conv2d(np.maximum(p, 0), W), atol=1e-5)


@pytest.mark.parametrize("first", ["?", None, ""])
def test_lengths_without_a_name_need_not_be_equal(first):
    net = fc.load_onnx(model([CONV], {"w": W}, [first, 3, first, first]))
    assert net.run({"x": X[:1, :, :8]})["y"].shape == (1, 8, 6, 10)
    with pytest.raises(ValueError, match="the length n is"):
        fc.load_onnx(model([CONV], {"w": W}, ["n", 3, "n", 12])).run({"x": X})


@pytest.mark.parametrize("policy", ["fp32", "fp64", "bf16"])
@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("named", [True, False])
def test_outputs_of_a_normalisation_that_nothing_reads_are_not_asked_for(policy, opset, named):
    parts = {name: np.ones(8, "f4") for name in "sbmv"}
    outputs = ["y", *("acde" if named else [""] * 4)][: 5 if opset < 14 else 3]
    nodes = [helper.make_node("Conv", ["x", "w"], ["t"]), helper.make_node("BatchNormalization", ["t", *"sbmv"], outputs)]
    y = fc.load_onnx(model(nodes, {"w": W} | parts, opset=opset)).run({"x": X}, policy=policy)["y"]
    np.testing.assert_allclose(y, (PLAIN - 1) / np.sqrt(1 + 1e-5) + 1, rtol=0.05, atol=0.1 if policy == "bf16" else 1e-5)


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("node", [True, False])
def test_a_branch_that_a_constant_chooses_is_taken(truth, node):
    def branch(name, operator, *more):
        inner = [helper.make_node(operator, ["x"], [f"{name}.t"]), *more]
        return helper.make_graph(inner, name, [], [helper.make_tensor_value_info(f"{name}.t", TensorProto.FLOAT, None)])

    known = numpy_helper.from_array(np.array(truth), "c")
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg"))]
    nodes = [helper.make_node("Constant", [], ["c"], value=known), *nodes] if node else nodes
    net = fc.load_onnx(model(nodes, {} if node else {"c": truth}))
    np.testing.assert_array_equal(net.run({"x": X})["y"], np.maximum(X, 0) if truth else -X)
    outer = helper.make_graph([], "outer", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)])  # outputs an outer tensor
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=outer)]
    np.testing.assert_array_equal(fc.load_onnx(model(nodes, {"c": truth})).run({"x": X})["y"], X)


def test_branches_inside_one_another_are_taken_and_open_ones_refused():
    leaf = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "leaf", [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    )
    inner = helper.make_graph(
        [helper.make_node("If", ["c"], ["s"], then_branch=leaf, else_branch=leaf)],
        "inner",
        [],
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=leaf)]
    np.testing.assert_array_equal(fc.load_onnx(model(nodes, {"c": True})).run({"x": X})["y"], np.maximum(X, 0))
    given = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    net = fc.load_onnx(model(nodes, {}, extra=[given]))  # an open one runs in onnxruntime
    np.testing.assert_array_equal(net.run({"x": X, "c": np.array(True)})["y"], np.maximum(X, 0))


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_quantised_weights_are_constant_weights(axis, kind):
    q = RNG.integers(0, 100, W.shape).astype(kind)
    scale = np.float32(0.1) if axis is None else RNG.random(8).astype("f4")
    zero = np.full(np.shape(scale), 3, kind)
    attributes = {} if axis is None else {"axis": axis}
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes), CONV]
    net = fc.load_onnx(model(nodes, {"q": q, "s": scale, "z": zero}))
    weights = (q.astype("f4") - 3) * np.reshape(scale, (-1, 1, 1, 1))
    np.testing.assert_array_equal(net.run({"x": X}, "F(2x2,3x3)")["y"], fc.conv2d(X, weights, algorithm="F(2x2,3x3)"))
    assert [layer.name for layer in net.explain({"x": X}).layers] == ["conv"]


@pytest.mark.parametrize(("length", "scale"), [(10, 0.7), (10, 0.9), (10, 1.3), (10, 2.3), (7, 0.5), (100, 0.29)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resized_lengths_are_those_of_the_runtimes(length, scale, mode):
    """onnxruntime and PyTorch multiply in float32, then round down."""
    x = RNG.random((1, 1, 3, length)).astype("f4")
    net = fc.load_onnx(
        model([helper.make_node("Resize", ["x", "", "s"], ["y"], mode=mode)], {"s": np.array([1, 1, 1, scale], "f4")}, x.shape)
    )
    expected = int(np.float32(length) * np.float32(scale))
    for policy in ("fp32", "fp64"):
        assert net.run({"x": x}, policy=policy)["y"].shape == (1, 1, 3, expected)
    assert expected == {0.7: 7, 0.9: 9, 1.3: 13, 2.3: 23, 0.5: 3, 0.29: 29}[scale]


def test_an_empty_batch_is_resized_to_an_empty_batch():
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["y"])]
    net = fc.load_onnx(model(nodes, {"s": np.array([1, 1, 2, 2], "f4")}, [None, 3, 12, 12]))
    assert net.run({"x": X[:0]})["y"].shape == (0, 3, 24, 24)
    with pytest.raises(ValueError, match="cannot be resized to"):
        fc.load_onnx(model([helper.make_node("Resize", ["x", "", "", "z"], ["y"])], {"z": np.array([1, 3, 4, 4])}, [0, 3, 12, 12])).run(
            {"x": X[:0]}
        )


@pytest.fixture
def scaled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Mul", ["c", "s"], ["y"])]
    onnx.save(model(nodes, {"w": W}, [None, 3, 12, 12], extra=[helper.make_tensor_value_info("s", TensorProto.FLOAT, [])]), "m.onnx")

    def run(*options, **arrays):
        np.savez("in.npz", **arrays)
        return main(["compare", "m.onnx", "--input", "in.npz", "--repeats", "1", "--algorithms", "F(2x2,3x3)", *options])

    return run


def test_inputs_without_axes_are_alike_for_all_images(scaled, capsys):
    assert scaled(x=X, s=np.float32(2)) == 0
    assert "2 images" in capsys.readouterr().out
    assert scaled("--images", "1", x=X, s=np.float32(2)) == 0
    assert "1 image;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "arrays", "said"),
    [
        ((), {"x": X[:0], "s": np.float32(2)}, "the inputs hold no images"),
        ((), {"x": X.astype(np.uint8), "s": np.float32(2)}, "the input 'x' must have the type float32, not uint8"),
        (("--images", "0"), {"x": X, "s": np.float32(2)}, "the number of images is 0"),
        (("--images", "1"), {"x": X, "s": np.ones(7, "f4")}, "first lengths"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(scaled, capsys, options, arrays, said):
    assert scaled(*options, **arrays) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line

"""Policies, algorithms and explanations support convolutions of every rank and format and transposed ones, or say that they do not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc
from fastconv.network.operators.window import Call, planar, window

RNG = np.random.default_rng(0)
KINDS = {"f2": TensorProto.FLOAT16, "f4": TensorProto.FLOAT, "f8": TensorProto.DOUBLE}


def layer(operator, x_shape, w_shape, dtype="f4", bias=True, **attributes):
    x, w = RNG.standard_normal(x_shape).astype(dtype), RNG.standard_normal(w_shape).astype(dtype)
    filters = w_shape[0] if operator == "Conv" else w_shape[1] * attributes.get("group", 1)
    constants = {"w": w} | ({"b": RNG.standard_normal(filters).astype(dtype)} if bias else {})
    node = helper.make_node(operator, ["x", *constants], ["y"], name="layer", **attributes)
    ends = [helper.make_tensor_value_info(name, KINDS[dtype], shape) for name, shape in (("x", x_shape), ("y", None))]
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], values)
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])), {"x": x}


LAYERS = {
    "1-D": ("Conv", (2, 8, 40), (6, 8, 3), {}),
    "2-D": ("Conv", (2, 8, 14, 14), (6, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    "2-D in groups": ("Conv", (2, 8, 14, 14), (6, 4, 3, 3), {"group": 2}),
    "3-D": ("Conv", (2, 4, 6, 8, 8), (4, 4, 3, 3, 3), {"pads": [1, 1, 0, 0, 1, 2]}),
    "3-D with steps": ("Conv", (1, 4, 9, 8, 8), (6, 2, 2, 3, 3), {"group": 2, "strides": [2, 1, 1], "dilations": [3, 1, 1]}),
    "transposed": ("ConvTranspose", (2, 8, 9, 9), (8, 6, 3, 3), {"strides": [2, 2], "output_padding": [1, 0], "pads": [1, 0, 2, 1]}),
    "transposed in groups": ("ConvTranspose", (1, 8, 7, 9), (8, 3, 4, 2), {"group": 2, "dilations": [1, 2], "strides": [3, 1]}),
    "transposed 1-D": ("ConvTranspose", (2, 8, 20), (8, 6, 5), {"strides": [3]}),
    "transposed 3-D": ("ConvTranspose", (1, 4, 4, 5, 6), (4, 3, 3, 2, 3), {"strides": [2, 1, 2]}),
}


def distance(y, truth):
    return float(np.linalg.norm((y.astype(float) - truth).ravel()) / np.linalg.norm(truth.ravel()))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_policy_acts_on_every_convolution(name, dtype):
    """Operands of p bits, each rounded once, give a relative error of about 2^-p, within a factor of four."""
    operator, x_shape, w_shape, attributes = LAYERS[name]
    net, feeds = layer(operator, x_shape, w_shape, dtype, **attributes)
    truth = net.run(feeds, policy="fp64")["y"]
    for policy, bits in (("fp16-fp32", 11), ("bf16-fp32", 8)):
        y = net.run(feeds, "direct", policy)["y"]
        assert y.shape == truth.shape
        assert 2.0 ** -(bits + 2) < distance(y, truth) < 2.0 ** -(bits - 2)
    assert distance(net.run(feeds, "direct", "fp32", channel_sum="pairwise")["y"], truth) < 2.0**-11


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", ["2-D", "3-D"])
def test_an_algorithm_acts_on_every_convolution_that_it_fits(name, dtype):
    operator, x_shape, w_shape, attributes = LAYERS[name]
    net, feeds = layer(operator, x_shape, w_shape, dtype, **attributes)
    truth = net.run(feeds, policy="fp64")["y"]
    results = {how: net.run(feeds, {"layer": how})["y"] for how in ("direct", "F(2x2,3x3)", "F(4x4,3x3)")}
    unit = float(np.finfo(dtype).eps)
    for y in results.values():
        assert y.dtype == np.dtype(dtype)
        assert distance(y, truth) < 50 * unit
    if dtype != "f2":  # two results in float16 mostly round to the same
        assert not np.array_equal(results["direct"], results["F(4x4,3x3)"])
    assert net.prepare({"layer": "F(4x4,3x3)"})(feeds).keys() == {"y"}
    explained = net.explain(feeds, algorithm={"layer": "F(4x4,3x3)"})
    assert [(one.name, one.algorithm, one.kernel) for one in explained.layers] == [("layer", "F(4x4,3x3)", w_shape[2:])]
    assert explained.layers[0].input_shape == x_shape
    measured = net.explain(feeds, measure=True)
    chosen = measured.layers[0].chosen
    assert chosen.measured_error is not None
    assert chosen.measured_error < 100 * max(unit, 2.0**-23) if dtype != "f8" else chosen.measured_error < 1e-13


def test_an_algorithm_that_a_layer_cannot_run_is_refused_where_it_is_pinned():
    for name in ("1-D", "2-D in groups", "3-D with steps"):
        operator, x_shape, w_shape, attributes = LAYERS[name]
        net, feeds = layer(operator, x_shape, w_shape, **attributes)
        with pytest.raises(ValueError, match="is not a dense 3x3 convolution of stride 1 and cannot run 'F\\(4x4,3x3\\)'"):
            net.run(feeds, {"layer": "F(4x4,3x3)"})


@pytest.mark.parametrize("policies", [["fp32"], ["fp32", "bf16"]])
def test_a_row_says_how_many_layers_ran_its_algorithm(policies):
    nodes = [helper.make_node("Conv", ["x", "w"], ["t"], name="a"), helper.make_node("Conv", ["t", "v"], ["y"], name="b")]
    w, v = RNG.standard_normal((8, 3, 3, 3)).astype("f4"), RNG.standard_normal((4, 8, 5, 5)).astype("f4")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", (1, 3, 20, 20)), ("y", None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(w, "w"), numpy_helper.from_array(v, "v")])
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    feeds = {"x": RNG.standard_normal((1, 3, 20, 20)).astype("f4")}
    report = fc.compare(net, feeds, ["F(2x2,3x3)", "F(2x2,5x5)", "im2col", "auto"], policies=policies, repeats=1)
    assert [row.ran for row in report.rows] == [2, 1, 1, 2, 2] * len(policies)
    (table,) = report.tables()
    at = table.header.index("layers")
    assert [row[at] for row in table.rows] == ["2/2", "1/2", "1/2", "2/2", "2/2"] * len(policies)
    assert "layers" not in fc.compare(net, feeds, ["auto"], repeats=1).tables()[0].header
    assert report.to_dict()["rows"][1]["ran"] == 1
    with pytest.raises(ValueError, match=r"no convolution of the network can run F\(9x9,9x9\)"):
        fc.compare(net, feeds, ["F(9x9,9x9)"], policies=policies, repeats=1)
    assert [row.algorithm for row in fc.compare(net, feeds, repeats=1).rows][:2] == ["direct", "F(2x2,3x3)"]


def test_defaults_fit_the_kernels_of_the_network():
    net, feeds = layer("Conv", (1, 4, 20, 20), (6, 4, 5, 5))
    assert {row.algorithm for row in fc.compare(net, feeds, repeats=1).rows} >= {"direct", "F(2x2,5x5)", "F(4x4,5x5)"}
    net, feeds = layer("Conv", (1, 4, 20, 20), (6, 4, 1, 1))
    assert [row.algorithm for row in fc.compare(net, feeds, repeats=1).rows] == ["direct"]


def test_errors_are_predicted_in_three_dimensions():
    from fastconv.network.predict.propagate import predict_errors

    operator, x_shape, w_shape, attributes = LAYERS["3-D"]
    net, feeds = layer(operator, x_shape, w_shape, **attributes)
    for how in ("direct", "F(4x4,3x3)"):
        found = predict_errors(net, feeds, how, "bf16")
        assert found.predicted == pytest.approx(found.measured, rel=0.2)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_a_convolution_in_a_plane_gives_the_same(rank):
    """Compare with the definition in float64."""
    x, w = RNG.standard_normal((2, 3, *range(5, 5 + rank))), RNG.standard_normal((4, 3, *(2,) * rank))
    view = window(Call({"strides": (2,) * rank, "pads": (1,) * rank + (0,) * rank}, 17), x.shape[2:], w.shape[2:])
    flat = planar(view, x, w)
    got = fc.conv2d(np.pad(flat.x, flat.view.pads), flat.weight, None, flat.view.strides, algorithm="direct")
    wide, expected = np.pad(x, view.pads), 0.0
    for tap, slices in view.taps():
        expected = expected + np.einsum("kc,nc...->nk...", w[tap], wide[slices])
    np.testing.assert_allclose(flat.restored(got), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("Conv", {"pads": [2**30] * 4}), ("ConvTranspose", {"strides": [2**30] * 2}), ("ConvTranspose", {"output_padding": [2**30] * 2})],
)
def test_what_does_not_fit_is_refused_before_it_is_allocated(operator, attributes):
    net, feeds = layer(operator, (1, 2, 5, 5), (2, 2, 3, 3), **attributes)
    for policy in ("fp32", "bf16"):
        with pytest.raises(ValueError, match="would take .* GiB"):
            net.run(feeds, "direct", policy)

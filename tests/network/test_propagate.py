"""Predicted errors of networks are right if their assumptions hold, and rejected otherwise; propagation is linear."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import plain

import fastconv as fc
from fastconv.network.predict.propagate import predict_errors


@pytest.fixture(scope="module")
def net():
    return plain()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).standard_normal((2, 16, 26, 26)).astype("f4")


@pytest.mark.parametrize("policy", ["fp32", "mixed", "bf16", "fp16", "fp16-fp32"])
@pytest.mark.parametrize("algorithm", ["direct", "F(2x2,3x3)", "F(4x4,3x3)"])
def test_independent_numbers_err_as_predicted(net, x, algorithm, policy):
    found = predict_errors(net, {"x": x}, algorithm, policy)
    first = found.layers[0]
    # 18,432 outputs of 48 kernels: the closed form's 5 % and the spread of few kernels.
    assert first.predicted == pytest.approx(first.measured, rel=0.12)
    assert found.predicted == pytest.approx(found.measured, rel=0.25)
    assert found.layers[-1].gain == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("scale", [10.0, 0.1])
@pytest.mark.parametrize("policy", ["fp32", "bf16"])
@pytest.mark.parametrize("algorithm", ["direct", "F(4x4,3x3)"])
def test_relative_errors_do_not_depend_on_the_scale_of_weights(net, x, algorithm, policy, scale):
    """Nor on the scale of the input: only the roundings of the scaled weights differ."""
    one, other = predict_errors(net, {"x": x}, algorithm, policy), predict_errors(plain(scale=scale), {"x": x / scale}, algorithm, policy)
    for a, b in zip(one.layers, other.layers, strict=True):
        assert b.predicted == pytest.approx(a.predicted, rel=0.02)
        assert b.systematic == pytest.approx(a.systematic, rel=0.02)
        assert b.measured == pytest.approx(a.measured, rel=0.1)
        assert b.gain == pytest.approx(a.gain, rel=0.02)
        assert b.systematic_gain == pytest.approx(a.systematic_gain, rel=0.02)
    assert other.layers[0].predicted == pytest.approx(other.layers[0].measured, rel=0.12)
    assert other.predicted == pytest.approx(one.predicted, rel=0.02)


def test_errors_are_carried_as_independent_ones(net, x):
    found = predict_errors(net, {"x": x}, "F(4x4,3x3)", "mixed")
    assert [layer.algorithm for layer in found.layers] == ["F(4x4,3x3)"] * 3
    own = [(layer.predicted**2 - layer.systematic**2, layer.systematic**2, layer) for layer in found.layers]
    squares = sum(random * layer.gain**2 + alike * layer.systematic_gain**2 for random, alike, layer in own)
    assert found.predicted == pytest.approx(squares**0.5)
    assert found.layers[0].carried == pytest.approx(found.layers[0].predicted, rel=0.03)


def test_rounded_input_enters_where_the_data_are_narrow(net, x):
    exact_in_bf16 = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    wide, narrow = (predict_errors(net, {"x": v}, "direct", "bf16") for v in (x, exact_in_bf16))
    assert wide.predicted > narrow.predicted


def test_scaled_policies_are_not_predicted(net, x):
    with pytest.raises(ValueError, match="scales layers by what they meet"):
        predict_errors(net, {"x": x}, "F(4x4,3x3)", "fp16-balanced")


def test_what_is_alike_in_all_pixels_outlives_an_average():
    """A mean over the picture removes random errors, but not those of rounded kernels."""
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((16, 16, 3, 3)).astype("f4") / 12, "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv"), helper.make_node("GlobalAveragePool", ["y"], ["z"])]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 16, "H", "W"])
    graph = helper.make_graph(nodes, "averaged", [info("x")], [info("z")], [w])
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x = (1 + rng.standard_normal((2, 16, 66, 66)) / 10).astype("f4")
    found = predict_errors(net, {"x": x}, "F(4x4,3x3)", "tf32")  # whose errors are larger than those of a mean in float32
    (layer,) = found.layers
    # The mean of 4096 pixels makes random errors 64 times smaller.
    assert layer.gain < 0.1 < 0.5 < layer.systematic_gain
    assert 0 < layer.systematic < layer.predicted
    # The part that is alike in all pixels is one sum of few errors: right within a factor of two.
    assert 0.5 < found.predicted / found.measured < 2


def test_distances_are_relative_and_means_are_of_squares():
    from fastconv.network.predict import propagate

    assert propagate._distance(np.float32([3, 5]), np.float64([3, 4])) == 0.2
    assert propagate._distance(np.float32([3, 5]), np.zeros(2)) == 0
    assert propagate._joined(np.array([3.0, 4])) == pytest.approx(12.5**0.5)
    x = np.random.default_rng(1).standard_normal((200, 300)) * 5
    change = propagate.disturbed(x) - x
    # 60,000 numbers: three standard errors of their root mean square are 1 %.
    assert np.sqrt(np.mean(change**2)) == pytest.approx(5e-7, rel=0.02)
    assert abs(change.mean()) < 1e-8
    np.testing.assert_array_equal(propagate.disturbed(x), propagate.disturbed(x))


def test_some_groups_stand_for_all():
    from fastconv.network.predict.propagate import _groups

    weight, x = np.arange(12).reshape(12, 1, 1, 1), np.arange(6).reshape(1, 6, 1, 1)
    seen = [(w.reshape(-1).tolist(), part.reshape(-1).tolist()) for w, part in _groups(weight, x, 6)]
    assert seen == [([0, 1], [0]), ([2, 3], [1]), ([6, 7], [3]), ([10, 11], [5])]
    assert [w.reshape(-1).tolist() for w, _ in _groups(weight, x, 2)] == [list(range(6)), list(range(6, 12))]
    assert len(list(_groups(weight, x, 1))) == 1

"""Operators in float16 and bfloat16 compute in float32 and round once."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc

FORMATS = {"fp16": (np.dtype(np.float16), TensorProto.FLOAT16), "bf16": (np.dtype(ml_dtypes.bfloat16), TensorProto.BFLOAT16)}
RNG = np.random.default_rng(0)


def tensor(name, value):
    if value.dtype == ml_dtypes.bfloat16:  # `from_array` supports it since onnx 1.19
        return helper.make_tensor(name, TensorProto.BFLOAT16, value.shape, value.tobytes(), raw=True)
    return numpy_helper.from_array(value, name)


def loaded(kind, operator, x, constants=(), opset=17, **attributes):
    names = {f"c{k}": value for k, value in enumerate(constants)}
    node = helper.make_node(operator, ["x", *names], ["y"], name="layer", **attributes)
    values = [tensor(name, np.asarray(value)) for name, value in names.items()]
    ends = helper.make_tensor_value_info("x", kind, x.shape), helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], values)
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def is_rounded_once(net, x, dtype, slack=0.02, **options):
    """The result is within half a unit in the last place of the exact one, plus a little for float32 roundings."""
    y = net.run({"x": x}, **options)["y"]
    exact = net.run({"x": x.astype(np.float64)}, policy="fp64")["y"]
    assert y.dtype == dtype
    assert y.shape == exact.shape
    info = ml_dtypes.finfo(dtype)
    scale = np.maximum(np.abs(exact), float(info.smallest_normal))
    unit = float(info.eps) * 2.0 ** np.floor(np.log2(scale))
    assert np.all(np.abs(y.astype(np.float64) - exact) <= (0.5 + slack) * unit)


def small(shape, dtype, low=0.0, high=1.0):
    return (low + (high - low) * RNG.random(shape)).astype(dtype)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools_neither_stall_nor_overflow(kind, rank):
    dtype, number = FORMATS[kind]
    size = {1: 3136, 2: 56, 3: 15}[rank]
    x = small((1, 2, *(size,) * rank), dtype)
    large = np.full_like(x, 300)
    for image in (x, large):
        for operator, attributes in (
            ("AveragePool", {"kernel_shape": [size] * rank}),
            ("AveragePool", {"kernel_shape": [size - 1] * rank, "pads": [1, 0] * rank, "count_include_pad": 1}),
            ("AveragePool", {"kernel_shape": [size - 2] * rank, "strides": [2] * rank, "ceil_mode": 1}),
            ("GlobalAveragePool", {}),
            ("LpPool", {"kernel_shape": [4] * rank}),
            ("GlobalLpPool", {"p": 2}),
            ("MaxPool", {"kernel_shape": [3] * rank, "pads": [1] * (2 * rank)}),
            ("GlobalMaxPool", {}),
        ):
            is_rounded_once(loaded(number, operator, image, **attributes), image, dtype)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("operator", ["Mean", "Sum", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Max", "Min"])
def test_reductions_sum_in_float32(kind, operator):
    dtype, number = FORMATS[kind]
    x = small((2, 3, 40, 50), dtype, 0.0, 2.0**-4)
    is_rounded_once(loaded(number, f"Reduce{operator}", x, axes=[2, 3], opset=11), x, dtype)
    is_rounded_once(loaded(number, f"Reduce{operator}", x, axes=[0, 1, 2, 3], keepdims=0, opset=11), x, dtype)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_sum_that_leaves_the_range_comes_back(kind):
    """Means and norms whose sum or squares overflow float16, and a mean of more elements than float16 can count."""
    dtype, number = FORMATS[kind]
    many, large = np.ones(65520, dtype), np.where(np.arange(16) % 2, 600, -600).reshape(1, 1, 4, 4).repeat(2, 1).astype(dtype)
    is_rounded_once(loaded(number, "ReduceMean", many, axes=[0]), many, dtype)
    for operator, attributes in (("ReduceL2", {"axes": [2, 3]}), ("GlobalLpPool", {"p": 2}), ("LpPool", {"p": 2, "kernel_shape": [2, 2]})):
        is_rounded_once(loaded(number, operator, large, **attributes), large, dtype)
    ones, zeros = np.ones(2, dtype), np.zeros(2, dtype)
    is_rounded_once(loaded(number, "InstanceNormalization", large, [ones, zeros]), large, dtype)
    is_rounded_once(loaded(number, "MeanVarianceNormalization", large), large, dtype)
    is_rounded_once(loaded(number, "BatchNormalization", large, [ones, zeros, zeros, (ones * 300).astype(dtype)]), large, dtype)
    is_rounded_once(loaded(number, "LpNormalization", large, axis=3), large, dtype)
    is_rounded_once(loaded(number, "LRN", large, size=2), large, dtype)
    is_rounded_once(loaded(number, "Softmax", large, axis=3), large, dtype)
    is_rounded_once(loaded(number, "CumSum", large, [np.array(3)]), large, dtype)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_sum_products_in_float32(kind, rank):
    dtype, number = FORMATS[kind]
    x, w = small((2, 64, *(8,) * rank), dtype, -1, 1), small((5, 64, *(3,) * rank), dtype, -1, 1)
    b = small(5, dtype)
    size = np.abs(x.astype(float)).max() * 64 * 3**rank
    for operator, weight, extra in (
        ("Conv", w, {}),
        ("ConvTranspose", small((64, 5, *(3,) * rank), dtype, -1, 1), {"strides": [2] * rank}),
    ):
        net = loaded(number, operator, x, [weight, b], **extra)
        y = net.run({"x": x})["y"].astype(float)
        exact = net.run({"x": x.astype(float)}, policy="fp64")["y"]
        info = ml_dtypes.finfo(dtype)
        unit = float(info.eps) * np.maximum(np.abs(exact), float(info.smallest_normal))
        assert np.all(np.abs(y - exact) <= 0.5 * unit + 2.0**-24 * 20 * size)  # half a unit, and the float32 error of a sum


@pytest.mark.parametrize("kind", FORMATS)
def test_a_convolution_whose_terms_cancel_beyond_the_range(kind):
    dtype, number = FORMATS[kind]
    w = np.zeros((1, 64, 3, 3), dtype)
    w[:, :, 0], w[:, :, 2] = 60, -60
    x = np.full((1, 64, 6, 6), 60, dtype)
    net = loaded(number, "Conv", x, [w])
    assert not np.any(net.run({"x": x})["y"].astype(float))
    a, b = np.full((2, 64), 60, dtype), np.where(np.arange(64) % 2, 60, -60).reshape(64, 1).astype(dtype)
    for operator in ("MatMul", "Gemm"):
        assert not np.any(loaded(number, operator, a, [b]).run({"x": a})["y"].astype(float))
    assert not np.any(loaded(number, "Einsum", a, [b], equation="ij,jk->ik").run({"x": a})["y"].astype(float))


@pytest.mark.parametrize("kind", FORMATS)
def test_resizing_interpolates_in_float32(kind):
    dtype, number = FORMATS[kind]
    x = small((1, 2, 9, 9), dtype)
    for mode in ("linear", "cubic"):
        net = loaded(number, "Resize", x, [np.array([], np.float32), np.array([1, 1, 1.7, 0.6], np.float32)], mode=mode)
        is_rounded_once(net, x, dtype, slack=0.1)


def test_two_types_are_still_refused():
    x = np.ones((1, 4), np.float16)
    with pytest.raises(ValueError, match="the inputs must have one type, not float16, float32"):
        loaded(TensorProto.FLOAT16, "Add", x, [np.ones(4, np.float32)]).run({"x": x})


@pytest.mark.parametrize("kind", FORMATS)
def test_a_chain_runs_in_float32_and_is_rounded_where_it_leaves(kind):
    """The result is that of the same weights in float32, bit for bit; a value beyond float16 between two layers stays finite."""
    dtype, number = FORMATS[kind]
    first, last = small((16, 8, 3, 3), dtype, -300, 300), small((4, 16, 3, 3), dtype, -1e-3, 1e-3)
    x = small((1, 8, 20, 20), dtype, 0, 300)
    results = {}
    for form, code in ((dtype, number), (np.dtype(np.float32), TensorProto.FLOAT)):
        weights = [tensor(name, w.astype(form)) for name, w in (("w", first), ("v", last))]
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "v"], ["y"], name="last"),
        ]
        ends = helper.make_tensor_value_info("x", code, x.shape), helper.make_tensor_value_info("y", code, None)
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
        net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
        for algorithm in ("auto", "F(4x4,3x3)", "onnxruntime"):
            results[form, algorithm] = net.run({"x": x.astype(form)}, algorithm)["y"]
        inside = net.prepare()({"x": x.astype(form)}, keep=["b"])["b"]
        assert inside.max() > np.finfo(np.float16).max
    for (form, algorithm), y in results.items():
        assert y.dtype == form
        assert np.isfinite(y.astype(float)).all()
        np.testing.assert_array_equal(y.astype(dtype), results[np.dtype(np.float32), algorithm].astype(dtype))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cast_of_the_model_rounds(kind):
    dtype, number = FORMATS[kind]
    nodes = [helper.make_node("Cast", ["x"], ["a"], to=number), helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [5]) for name in "xy"]
    net = fc.load_onnx(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)]))
    x = np.array([1 / 3, 1e-9, 1e6, -np.inf, 257.0001], np.float32)
    with np.errstate(over="ignore"):
        rounded = x.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(net.run({"x": x})["y"], rounded)


def test_a_network_with_a_graph_inside_keeps_its_types():
    """Constants inside the branches have types of their own, which stay."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [3])
    branches = {}
    for name, number in (("then_branch", 2.0), ("else_branch", 3.0)):
        value = numpy_helper.from_array(np.array(number, np.float16), "two")
        out = helper.make_tensor_value_info("z", TensorProto.FLOAT16, [3])
        branches[name] = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["z"])], name, [], [out], [value])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [3])
    graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], **branches)], "g", [condition, x], [y])
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    for taken, factor in ((True, 2), (False, 3)):
        y = net.run({"c": np.array(taken), "x": np.arange(3, dtype=np.float16)})["y"]
        assert y.dtype == np.float16
        np.testing.assert_array_equal(y, factor * np.arange(3))

"""Values of single operator functions in corner cases that no test model reaches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.models import model

from fastconv.network import Node, load_onnx
from fastconv.network.operators.elementwise import bounds
from fastconv.network.operators.tensors.resize import positions


def clip(opset, inputs=("x",), **attributes):
    return Node("clip", "Clip", inputs, ("y",), attributes, opset)


@pytest.mark.parametrize("opset", [7, 10, 11, 13])
def test_clip_reads_its_bounds_as_its_opset_says(opset):
    """Bounds are attributes up to opset 10 and inputs from 11 on; the other form is ignored."""
    ends = {"low": np.array(-2.0, np.float32), "high": np.array([3.0], np.float32)}
    by_inputs = clip(opset, ("x", "low", "high"))
    by_attributes = clip(opset, min=-2.0, max=3.0)
    told, silent = (by_attributes, by_inputs) if opset < 11 else (by_inputs, by_attributes)
    assert bounds(told, ends, None) == (1.0, -2.0, 3.0)
    assert bounds(silent, ends, None) == (1.0, -math.inf, math.inf)


def test_clip_with_a_bound_left_out_or_not_constant():
    ends = {"low": np.array(-2.0, np.float32), "high": np.array(3.0, np.float32), "none": np.array(np.nan, np.float32)}
    assert bounds(clip(13, ("x", "low")), ends, None) == (1.0, -2.0, math.inf)
    assert bounds(clip(13, ("x", "", "high")), ends, None) == (1.0, -math.inf, 3.0)
    assert bounds(clip(13, ("x", "computed")), ends, None) is None
    assert bounds(clip(13, ("x", "low", "computed")), ends, None) is None
    assert bounds(clip(13, ("x", "none")), ends, None) is None
    assert bounds(clip(13, ("x", "two")), {"two": np.zeros(2, np.float32)}, None) is None


@pytest.mark.parametrize(
    ("mode", "out", "length", "roi", "expected"),
    [
        ("tf_crop_and_resize", 1, 9, (0.25, 0.5), [3.0]),
        ("tf_crop_and_resize", 3, 9, (0.25, 0.75), [2.0, 4.0, 6.0]),
        ("align_corners", 1, 4, (0, 1), [0.0]),
        ("align_corners", 3, 5, (0, 1), [0.0, 2.0, 4.0]),
        ("pytorch_half_pixel", 1, 4, (0, 1), [0.0]),
        ("pytorch_half_pixel", 2, 4, (0, 1), [0.5, 2.5]),
        ("half_pixel", 2, 4, (0, 1), [0.5, 2.5]),
        ("half_pixel_symmetric", 2, 4, (0, 1), [0.5, 2.5]),
        ("asymmetric", 2, 4, (0, 1), [0.0, 2.0]),
        ("tf_half_pixel_for_nn", 2, 4, (0, 1), [1.0, 3.0]),
    ],
)
def test_positions_that_a_resize_reads(mode, out, length, roi, expected):
    """Positions follow the formulas of ONNX's Resize."""
    assert positions(mode, out, length, out / length, roi).tolist() == expected


def alone(node, feeds, policy="fp32", opset=19):
    """Return the output of a network of one node."""
    return load_onnx(model([node], feeds, {"y": TensorProto.FLOAT}, opset)).run(feeds, policy=policy)["y"]


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]])
def test_unpooling_gives_the_size_that_was_pooled(pads):
    """Every value is where the pool found it, in a plane of ``(n - 1) s + k`` minus the pads."""
    value, place = np.array([[[[5.0, 7.0], [9.0, 4.0]]]], np.float32), np.array([[[[0, 2], [4, 5]]]], np.int64)
    height, width = 4 - pads[0] - pads[2], 4 - pads[1] - pads[3]
    node = helper.make_node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2], pads=pads)
    found = alone(node, {"x": value, "i": place})
    flat = np.zeros(height * width, np.float32)
    flat[place.ravel()] = value.ravel()
    assert found.tolist() == flat.reshape(1, 1, height, width).tolist()


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize(("pads", "ceil"), [([0, 0], 1), ([1, 0], 1), ([2, 1], 0), ([0, 2], 1), ([1, 1], 0)])
@pytest.mark.parametrize("length", [6, 7, 8])
def test_pools_along_one_axis_see_every_pad(operator, pads, ceil, length):
    """Windows that begin in the padding, end in it, or end past it where the length is rounded up."""
    x = np.arange(1.0, length + 1, dtype=np.float32)
    k, s = 3, 2
    total = length + sum(pads)
    out = (-(-(total - k) // s) if ceil else (total - k) // s) + 1
    if ceil and (out - 1) * s >= length + pads[0]:
        out -= 1
    windows = [[x[i] for i in range(o * s - pads[0], o * s - pads[0] + k) if 0 <= i < length] for o in range(out)]
    reading = {"MaxPool": max, "AveragePool": np.mean, "LpPool": lambda v: math.sqrt(sum(u * u for u in v))}[operator]
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=[k], strides=[s], pads=pads, ceil_mode=ceil)
    found = alone(node, {"x": x.reshape(1, 1, -1)}).ravel()
    assert found.tolist() == pytest.approx([float(reading(w)) for w in windows], rel=2**-22)


def test_a_channel_has_its_own_scale_and_bias_in_a_normalised_group():
    x = np.arange(12, dtype=np.float32).reshape(1, 6, 2) ** 2
    scale, bias = np.arange(1, 7, dtype=np.float32), 10 * np.arange(1, 7, dtype=np.float32)
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2, epsilon=0.0)
    rows = x.astype(np.float64).reshape(1, 2, 6)
    normal = ((rows - rows.mean(axis=2, keepdims=True)) / rows.std(axis=2, keepdims=True)).reshape(1, 6, 2)
    # Five roundings of numbers up to sixty.
    expected = pytest.approx(normal * scale[:, None] + bias[:, None], abs=5 * 64 * 2**-24)
    assert alone(node, {"x": x, "s": scale, "b": bias}, opset=21) == expected
    with pytest.raises(ValueError, match="scale"):
        alone(node, {"x": x, "s": scale[:2], "b": bias[:2]}, opset=21)


@pytest.mark.parametrize(("ratio", "training", "refused"), [(0.5, True, True), (0.0, True, False), (0.5, False, False)])
def test_dropout_is_refused_only_where_it_drops(ratio, training, refused):
    x = np.ones((1, 3), np.float32)
    node = helper.make_node("Dropout", ["x", "r", "t"], ["y"])
    feeds = {"x": x, "r": np.array(ratio, np.float32), "t": np.array(training)}
    if refused:
        with pytest.raises(ValueError, match="training mode"):
            alone(node, feeds, "fp64")  # onnxruntime draws
    else:
        assert alone(node, feeds).tolist() == x.tolist()


@pytest.mark.parametrize("batch", [0, 1])
def test_gather_nd_takes_a_slice_for_each_vector_of_indices(batch):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    index = np.array([[1], [0]], np.int64)
    node = helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=batch)
    expected = x[[1, 0]] if batch == 0 else np.stack([x[0, 1], x[1, 0]])
    assert alone(node, {"x": x, "i": index}).tolist() == expected.tolist()

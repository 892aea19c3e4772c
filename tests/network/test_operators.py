"""Operators against onnx: every node test that onnx ships, and random attributes against its reference evaluator."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.claims import run
from support.examples import Example, exact
from support.models import OLD, OPSET, model

from fastconv.network import Node, load_onnx
from fastconv.network.graph.types import dtype_of
from fastconv.network.operators import OPERATORS, Call, is_narrow
from fastconv.network.operators.table import FOREIGN, operator_of
from fastconv.network.operators.window import padded, window
from fastconv.network.run.execute import Runner

RECENT = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 20)
"""Whether onnxruntime reads the opsets of these cases, and pads and checks recurrent layers as the standard says."""
recent = pytest.mark.skipif(not RECENT, reason="onnxruntime is older than these opsets, or wrong")

OTHER_REASONS = {
    r"opset \d+ is not supported": "opsets before 7",
    r"imports no standard operator set": "operators outside of the standard set",
    r"\): onnxruntime: 1 : FAIL": "onnxruntime does not take it: previews, recurrent layers with the batch first, some of text",
}
"""What is rejected when a model is loaded or runs first."""

OTHERWISE = {
    "test_attention_4d_with_past_and_present_qk_matmul_bias_.*_mask_causal": "the mask of what is not attended",
    "test_bernoulli.*": "random",
    "test_(dft|stft).*": "sums in float32 of 1e-5 of their size",
    "test_resize_downsample_scales_.*_align_corners": "a length that is no integer",
    "test_maxunpool_export_with_output_shape": "places counted in the output",
    "test_training_dropout.*": "random",
}
"""Where onnxruntime gives other results than onnx."""

SKIPPED = {
    "test_cast_e8m0_FLOAT_to_FLOAT8E8M0": "a cast to powers of two",
    "test_cast_e8m0_FLOAT16_to_FLOAT8E8M0": "a cast to powers of two",
    "test_causal_conv_with_state_silu_fp16_expanded": "onnx rounds the sigmoid's steps to fp16 one by one, more coarsely than it tolerates",
    "test_training_dropout_default": "random",
    "test_training_dropout_default_mask": "random",
    "test_training_dropout": "random",
    "test_training_dropout_mask": "random",
}

NEW = 28
"""The opset of the release for the counts of cases and operators here."""
WRONG_IN_OLD = {
    *(f"test_{cast}" for cast in ("cast_FLOAT_to_STRING", "castlike_FLOAT_to_STRING", "castlike_FLOAT_to_STRING_expanded")),  # all digits
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",  # counts the padding that ceil_mode adds
    *(
        f"test_castlike_FLOAT8{kind}{fnuz}_to_FLOAT{expanded}"  # each input is declared with the type of another
        for kind, fnuz in (("E4M3FN", ""), ("E4M3FN", "UZ"), ("E5M2", ""), ("E5M2", "FNUZ"))
        for expanded in ("", "_expanded")
    ),
    *(f"test_cast_{source}_to_{target}" for source in ("FLOAT", "FLOAT16") for target in ("INT4", "UINT4")),  # saturates
}


@lru_cache(maxsize=1)
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return {case.name: case for case in collect_testcases(None)}


def as_value(info, value):
    kind = info.type.WhichOneof("value")
    if isinstance(value, list) or value is None:
        return [np.asarray(part) for part in value] if value is not None else None
    if kind != "tensor_type":
        return np.asarray(value)
    dtype = dtype_of(info.type.tensor_type.elem_type)
    if isinstance(value, TensorProto):
        return np.asarray(numpy_helper.to_array(value)).astype(dtype_of(value.data_type))
    return value.view(dtype) if OLD and dtype.name == "bfloat16" else np.asarray(value)  # there the bits, as uint16


def complaint(case, run):
    """Return what is wrong with the outputs of one node test, None if nothing is."""
    for inputs, outputs in case.data_sets:
        got = run({info.name: as_value(info, value) for info, value in zip(case.model.graph.input, inputs, strict=False)})
        for info, value in zip(case.model.graph.output, outputs, strict=False):
            result, wanted = got[info.name], as_value(info, value)
            if isinstance(wanted, list) != isinstance(result, list):
                return f"{type(result).__name__} instead of {type(wanted).__name__}"
            pairs = zip(result, wanted, strict=True) if isinstance(wanted, list) else [(result, wanted)]
            problem = next((text for pair in pairs if (text := difference(case, *pair))), None)
            if problem:
                return problem
    return None


def difference(case, result, wanted):
    if wanted is None or wanted.dtype.kind in "OSU":
        return None if np.array_equal(result, wanted) else f"{result} instead of {wanted}"
    if (result.dtype, result.shape) != (wanted.dtype, wanted.shape):
        return f"{result.dtype} {result.shape} instead of {wanted.dtype} {wanted.shape}"
    exact = wanted.dtype.kind in "biu"
    numbers = [a.astype(np.int64 if exact else np.float64) if a.dtype != np.uint64 else a for a in (result, wanted)]
    # The tolerances are those that onnx ships with each case; its float16 and bfloat16 results were rounded inside the
    # operators too, ours once, so they may be a unit in the last place of the largest apart.
    unit = (
        float(ml_dtypes.finfo(wanted.dtype).eps) * np.abs(numbers[1][np.isfinite(numbers[1])]).max(initial=0)
        if is_narrow(wanted.dtype)
        else 0.0
    )
    if not np.allclose(*numbers, rtol=0 if exact else case.rtol, atol=0 if exact else max(case.atol, unit), equal_nan=True):
        return f"differs by {np.nanmax(np.abs(numbers[0].astype(float) - numbers[1].astype(float)))}"
    return None


@pytest.mark.parametrize("by", ["definitions", pytest.param("onnxruntime", marks=recent)])
def test_every_node_test_of_onnx_passes_or_is_refused_for_a_listed_reason(by):
    wrong, count = [], Counter()
    for name, case in cases().items():
        if name in SKIPPED or OLD and name in WRONG_IN_OLD:
            continue
        try:
            net = load_onnx(case.model)
            known = all(operator_of(node) is not FOREIGN for node in net.graph.nodes) and all(value.dtype for value in net.inputs)
            if by == "definitions" and not known:
                continue
            problem = complaint(case, Runner(net.graph, {}, optimise=False) if by == "definitions" else net.run)
        except ValueError as error:
            count["refused"] += 1
            if not any(re.search(pattern, str(error)) for pattern in OTHER_REASONS):
                wrong.append(f"{name}: refused without need: {error}")
            continue
        count["passed"] += 1
        if problem and (by == "definitions" or not any(re.fullmatch(pattern, name) for pattern in OTHERWISE)):
            wrong.append(f"{name}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert count["passed"] >= ({"definitions": 1390, "onnxruntime": 1800}[by] if OPSET >= NEW else 959), count


@pytest.mark.parametrize("name", ["densenet121", "inception_v1"])
def test_whole_networks_that_onnx_ships(name):
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    net = load_onnx(folder / f"light_{name}.onnx")
    wanted = numpy_helper.to_array(TensorProto.FromString((folder / f"light_{name}_output_0.pb").read_bytes()))
    # Their weights are constants in the model, so their outputs hardly depend on the input.
    got = net.run({net.inputs[0].name: np.zeros(net.inputs[0].shape, np.float32)})[net.outputs[0].name]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.skipif(OPSET < NEW, reason="this release of onnx lacks some of the cases")
def test_what_is_skipped_exists():
    assert set(SKIPPED) <= set(cases())


def agrees(node, inputs, opset=17, rtol=1e-5, constant=()):
    """Run one node here and in onnx's reference evaluator; the tolerance covers another order of at most ~100 summands."""
    from onnx.reference import ReferenceEvaluator

    weights = [numpy_helper.from_array(inputs[name], name) for name in constant]
    feeds = {name: a for name, a in inputs.items() if name not in constant}
    made = model([node], feeds, dict.fromkeys(node.output, TensorProto.FLOAT), opset, weights)
    wanted = ReferenceEvaluator(made).run(None, feeds)
    got = load_onnx(made).run(feeds)
    for name, value in zip(node.output, wanted, strict=True):
        assert got[name].shape == value.shape
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=rtol)


@st.composite
def convolutions(draw):
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    spatial = [draw(st.integers(5, 9)) for _ in range(rank)]
    attributes = {"group": groups, "dilations": [draw(st.integers(1, 2)) for _ in range(rank)]}
    attributes["strides"] = [draw(st.integers(1, 3)) for _ in range(rank)]
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    else:
        attributes["auto_pad"] = auto
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    x = rng.standard_normal((draw(st.integers(1, 2)), 2 * groups, *spatial)).astype(np.float32)
    weight = rng.standard_normal((3 * groups, 2, *kernel)).astype(np.float32)
    bias = rng.standard_normal(3 * groups).astype(np.float32) if draw(st.booleans()) else None
    return attributes, x, weight, bias


@given(convolutions(), st.booleans())
@settings(max_examples=60)
def test_conv(case, constant):
    attributes, x, weight, bias = case
    # onnx's reference evaluator ignores dilations when it pads automatically.
    assume("auto_pad" not in attributes or set(attributes["dilations"]) == {1})
    # An old one also fails where it pads automatically for a stride.
    assume(not OLD or "auto_pad" not in attributes or set(attributes["strides"]) == {1})
    inputs = {"x": x, "w": weight} | ({} if bias is None else {"b": bias})
    agrees(helper.make_node("Conv", list(inputs), ["y"], **attributes), inputs, rtol=1e-4, constant=list(inputs)[1:] if constant else ())


@given(convolutions(), st.booleans())
@settings(max_examples=40)
def test_transposed_convolution_is_the_transpose_of_the_convolution(case, with_bias):
    attributes, x, weight, _ = case
    assume("auto_pad" not in attributes or attributes["auto_pad"] == "VALID")
    conv = model([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], {"x": x, "w": weight}, {"y": 1})
    y = load_onnx(conv).run({"x": x, "w": weight})["y"]
    u = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    rank = x.ndim - 2
    pads = attributes.get("pads", [0] * 2 * rank)
    # The part of the padded input after the last windows is output_padding of the transposed convolution.
    extra = []
    for i in range(rank):
        reach = (y.shape[2 + i] - 1) * attributes["strides"][i] + (weight.shape[2 + i] - 1) * attributes["dilations"][i] + 1
        extra.append(x.shape[2 + i] + pads[i] + pads[rank + i] - reach)
    attributes = {**attributes, "output_padding": extra}
    back = helper.make_node("ConvTranspose", ["u", "w"], ["z"], **attributes)
    z = load_onnx(model([back], {"u": u, "w": weight}, {"z": 1})).run({"u": u, "w": weight})["z"]
    assert z.shape == x.shape
    # <conv(x), u> = <x, transpose(u)>: two sums of the same few thousand products.
    scale = np.abs(x).sum() * np.abs(z).max()
    assert abs(np.vdot(y, u) - np.vdot(x, z)) <= 1e-5 * scale


@given(
    st.sampled_from(["MaxPool", "AveragePool"]),
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.lists(st.integers(0, 1), min_size=4, max_size=4),
    st.booleans(),
)
@settings(max_examples=60)
def test_pools(operator, kernel, strides, pads, include):
    assume(all(p < k for p, k in zip(pads, kernel * 2, strict=True)))
    extra = {"count_include_pad": int(include)} if operator == "AveragePool" else {}
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 7)).astype(np.float32)
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=kernel, strides=strides, pads=pads, **extra)
    got = load_onnx(model([node], {"x": x}, {"y": 1})).run({"x": x})["y"]
    # Window by window, since onnx's reference evaluator mixes up unequal pads.
    fill = 0 if include and operator == "AveragePool" else np.nan
    padded = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=fill)
    reduce = np.nanmax if operator == "MaxPool" else np.nanmean
    rows = range(0, padded.shape[2] - kernel[0] + 1, strides[0])
    columns = range(0, padded.shape[3] - kernel[1] + 1, strides[1])
    wanted = [[reduce(padded[:, :, i : i + kernel[0], j : j + kernel[1]], axis=(2, 3)) for j in columns] for i in rows]
    np.testing.assert_allclose(got, np.array(wanted).transpose(2, 3, 0, 1), rtol=1e-5, atol=1e-6)


@given(st.data())
@settings(max_examples=100)
def test_slice_clamps_as_the_standard_says(data):
    x = np.arange(5 * 4, dtype=np.float32).reshape(5, 4)
    step = data.draw(st.sampled_from([1, 2, 3, -1, -2, 2**40, -(2**40)]))
    start, end = (data.draw(st.one_of(st.integers(-9, 9), st.sampled_from([2**62, -(2**62)]))) for _ in range(2))
    values = [np.array([v], np.int64) for v in (start, end, 0, step)]
    names = ["s", "e", "a", "t"]
    made = model(
        [helper.make_node("Slice", ["x", *names], ["y"])],
        {"x": x},
        {"y": 1},
        initializers=[numpy_helper.from_array(v, n) for v, n in zip(values, names, strict=True)],
    )
    low = lambda v: v + 5 if v < 0 else v
    begin, stop = low(start), low(end)
    begin, stop = (min(max(begin, 0), 5), min(max(stop, 0), 5)) if step > 0 else (min(max(begin, 0), 4), min(max(stop, -1), 4))
    wanted = x[list(range(begin, stop, step))]
    np.testing.assert_array_equal(load_onnx(made).run({"x": x})["y"], wanted)


@recent
@given(st.sampled_from(["reflect", "edge", "wrap", "constant"]), st.lists(st.integers(-1, 7), min_size=4, max_size=4))
@settings(max_examples=60)
def test_pad_in_every_mode(mode, pads):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    made = model(
        [helper.make_node("Pad", ["x", "p"], ["y"], mode=mode)],
        {"x": x},
        {"y": 1},
        19,
        [numpy_helper.from_array(np.array(pads, np.int64), "p")],
    )
    got = load_onnx(made).run({"x": x})["y"]
    cut = x[max(0, -pads[0]) : 3 - max(0, -pads[2]), max(0, -pads[1]) : 4 - max(0, -pads[3])]
    wanted = np.pad(cut, [(max(0, pads[0]), max(0, pads[2])), (max(0, pads[1]), max(0, pads[3]))], mode=mode)
    np.testing.assert_array_equal(got, wanted)


@recent
def test_reflection_repeats_beyond_one_period():
    x = np.array([0, 1, 2], np.float32)
    made = model(
        [helper.make_node("Pad", ["x", "p"], ["y"], mode="reflect")],
        {"x": x},
        {"y": 1},
        initializers=[numpy_helper.from_array(np.array([5, 6]), "p")],
    )
    assert load_onnx(made).run({"x": x})["y"].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21])
def test_axes_of_reductions_and_softmax_follow_the_opset(opset):
    x = np.random.default_rng(2).standard_normal((2, 3, 4)).astype(np.float32)
    got = load_onnx(model([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {"x": x}, {"y": 1}, opset)).run({"x": x})["y"]
    # Before opset 13 everything from the axis on was one row; onnx's reference evaluator does not know that.
    axes = (1, 2) if opset < 13 else (1,)
    np.testing.assert_allclose(got, np.exp(x) / np.exp(x).sum(axis=axes, keepdims=True), rtol=1e-5)
    if opset < 18:
        agrees(helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, -1], keepdims=0), {"x": x}, opset)
    else:
        agrees(helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=0), {"x": x, "a": np.array([1, -1])}, opset)


def test_integer_division_goes_towards_zero():
    a, b = np.array([-7, 7, -7, 7], np.int32), np.array([2, 2, -2, -2], np.int32)
    made = model([helper.make_node("Div", ["a", "b"], ["y"])], {"a": a, "b": b}, {"y": TensorProto.INT32})
    assert load_onnx(made).run({"a": a, "b": b})["y"].tolist() == [-3, 3, 3, -3]


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
AT = lambda *shape: np.zeros(shape, np.int64)
MISFITS = [
    ("Gather", {"axis": 1}, [X, np.array([3])], "indices from 3 to 3 leave an axis of length 3"),
    ("Gather", {"axis": 0}, [X, np.array([0.5], np.float32)], "indices must be integers, not float32"),
    ("GatherElements", {"axis": 1}, [X, AT(2, 3)], r"indices of shape \(2, 3\) do not fit into a tensor of shape \(2, 3, 4\)"),
    ("GatherElements", {"axis": 1}, [X, AT(3, 3, 4)], r"indices of shape \(3, 3, 4\) do not fit"),
    ("GatherND", {"batch_dims": -1}, [X, AT(2, 1)], "with batch_dims -1"),
    ("GatherND", {"batch_dims": 1}, [X, AT(2)], "with batch_dims 1"),
    ("GatherND", {"batch_dims": 2}, [X, AT(2, 1)], "with batch_dims 2"),
    ("GatherND", {"batch_dims": 0}, [X, AT(2, 4)], r"indices of shape \(2, 4\) do not fit a tensor of shape \(2, 3, 4\) with batch_dims 0"),
    ("GatherND", {"batch_dims": 1}, [X, AT(2, 3)], "with batch_dims 1"),
    ("GatherND", {"batch_dims": 1}, [X, AT(3, 1)], r"indices of shape \(3, 1\) do not fit"),
    ("ScatterElements", {}, [X, AT(1, 3, 4), X], r"updates of shape \(2, 3, 4\) and type float32 do not fit the indices' \(1, 3, 4\)"),
    ("ScatterElements", {"reduction": "mean"}, [X, AT(2, 3, 4), X], "reduction must be none, add, mul, max, min, not 'mean'"),
    ("ScatterND", {}, [X, AT(1, 4), X], r"indices \(1, 4\) and updates float32"),
    ("ScatterND", {}, [X, AT(1, 2), X], r"indices \(1, 2\) and updates float32"),
    ("OneHot", {}, [AT(2), np.array([3]), np.zeros(3, np.float32)], r"values two, not of shapes \(1,\) and \(3,\)"),
    ("Compress", {"axis": 1}, [X, np.ones(4, bool)], r"a condition of shape \(4,\) does not fit an axis of length 3"),
    ("ReverseSequence", {}, [X, AT(2)], r"lengths of shape \(2,\) do not fit a tensor of shape \(2, 3, 4\)"),
]


@pytest.mark.parametrize(("operator", "attributes", "inputs", "message"), MISFITS)
def test_indices_that_do_not_fit_are_refused_by_name(operator, attributes, inputs, message):
    names = [f"x{k}" for k in range(len(inputs))]
    made = model([helper.make_node(operator, names, ["y"], **attributes)], dict(zip(names, inputs, strict=True)), {"y": 1})
    with pytest.raises(ValueError, match=message):
        Runner(load_onnx(made).graph, {}, optimise=False)(dict(zip(names, inputs, strict=True)))


@recent
def test_onnxruntime_runs_what_has_no_record():
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="memory", hidden_size=3)
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype("f4") for name, shape in (("x", (2, 1, 2)), ("w", (1, 12, 2)), ("r", (1, 12, 3)))}
    made = model([node], arrays, {"y": 1})
    narrow, wide = load_onnx(made).run(arrays)["y"], load_onnx(made).run(arrays, policy="fp64")["y"]
    assert (narrow.shape, narrow.dtype, wide.dtype) == ((2, 1, 1, 3), np.float32, np.float64)
    np.testing.assert_allclose(narrow, wide, rtol=1e-5)
    made.graph.node[0].attribute[0].i = 5
    with pytest.raises(ValueError, match=r"node 'memory' \(LSTM\): onnxruntime: "):
        load_onnx(made).run(arrays)


def test_operators_are_those_of_the_standard():
    assert OPSET < NEW or all(onnx.defs.has(name) for name in OPERATORS)


@pytest.mark.parametrize("operator", ["DepthToSpace", "SpaceToDepth"])
def test_blocks_of_one_pixel_move_nothing(operator):
    x = np.arange(24, dtype="f4").reshape(1, 2, 3, 4)
    agrees(helper.make_node(operator, ["x"], ["y"], blocksize=1), {"x": x}, 17)


def test_means_of_integers_go_towards_zero():
    """As in C, the reference and the runtimes: -7 over 2 is -3."""
    x = np.array([[-7, 0, 7], [0, 0, 6]], np.int32)
    agrees(helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0), {"x": x}, 17)


PARTS = tuple(np.float32([1, 2]) * k for k in (1, 2, 3)) + (np.float32([4, 16]),)
EMPTY = np.zeros((0, 3), np.float32)
EDGES = {
    "training": (
        "BatchNormalization",
        exact(np.float32([[1, 2], [3, 6]]), *PARTS, training_mode=1, epsilon=0.0, momentum=0.75, outputs=3),
        (np.float32([[1, 2], [3, 6]]), np.float32([2.75, 5.5]), np.float32([3.25, 13])),
    ),
    "training is told since opset 14": (
        "BatchNormalization",
        exact(np.float32([[7, 22]]), *PARTS, epsilon=0.0, opset=13),
        (np.float32([[4, 12]]),),
    ),
    "no axis is left": ("ReduceMax", exact(EMPTY, np.array([1])), (np.zeros((0, 1), np.float32),)),
    "nothing to sum": ("ReduceSum", exact(EMPTY, np.array([0])), (np.zeros((1, 3), np.float32),)),
    "nothing to bound": ("ReduceMax", exact(EMPTY, np.array([0])), (np.full((1, 3), -np.inf, np.float32),)),
    "nothing to bound from below": ("ReduceMin", exact(EMPTY, np.array([0])), (np.full((1, 3), np.inf, np.float32),)),
    "no integers": ("ReduceMax", exact(np.zeros((0, 2), np.int8), np.array([0])), (np.int8([[-128, -128]]),)),
    "no integers to bound": ("ReduceMin", exact(np.zeros((0, 2), np.int8), np.array([0])), (np.int8([[127, 127]]),)),
    "mean of no integers": ("ReduceMean", exact(np.zeros((0, 2), np.int32), np.array([0])), (np.int32([[0, 0]]),)),
    "truths": ("ReduceMax", exact(np.array([[True, False], [False, False]]), np.array([1])), (np.array([[True], [False]]),)),
    "all truths": ("ReduceMin", exact(np.array([[True, False], [True, True]]), np.array([1])), (np.array([[False], [True]]),)),
    "axes that are none": ("ReduceSum", exact(np.float32([[1, 2]]), np.zeros(0, np.int64)), (np.float32([[3]]),)),
    "infinite": ("ReduceLogSumExp", exact(np.float32([[-np.inf, -np.inf]]), np.array([1])), (np.float32([[-np.inf]]),)),
    "large": ("ReduceLogSumExp", exact(np.float32([[1000]]), np.array([1])), (np.float32([[1000]]),)),
    "softmax of nothing": ("Softmax", exact(EMPTY, axis=0), (EMPTY,)),
    "log of nothing": ("LogSoftmax", exact(EMPTY, axis=0), (EMPTY,)),
    "hardmax of nothing": ("Hardmax", exact(EMPTY, axis=0), (EMPTY,)),
    "softmax behind the last axis": ("Softmax", exact(np.float32([3, 4]), axis=1, opset=12), (np.float32([1, 1]),)),
    "large exponents": ("Softmax", exact(np.float32([1000, -1000])), (np.float32([1, 0]),)),
    "dropout of nothing": (
        "Dropout",
        exact(np.float32([1, 2]), np.float32(0), np.array(True), outputs=2),
        (np.float32([1, 2]), np.array([True] * 2)),
    ),
    "dropout in use": ("Dropout", exact(np.float32([1, 2]), np.float32(0.5), np.array(False)), (np.float32([1, 2]),)),
    "a length of zero": ("Reshape", exact(EMPTY, np.array([3, 0]), allowzero=1), (np.zeros((3, 0), np.float32),)),
    "zeros copied": ("Reshape", exact(EMPTY, np.array([0, 3, 1])), (np.zeros((0, 3, 1), np.float32),)),
    "nothing cut": ("Slice", exact(EMPTY, np.array([0]), np.array([9]), np.array([0]), np.array([-1])), (EMPTY,)),
    "nothing split": ("Split", exact(EMPTY, axis=0, num_outputs=1), (EMPTY,)),
    "a part that is shorter": ("Split", exact(np.arange(5), num_outputs=3, outputs=3), (np.arange(2), np.arange(2, 4), np.array([4]))),
    "a part that is empty": ("Split", exact(np.arange(4), num_outputs=3, outputs=3), (np.arange(2), np.arange(2, 4), np.arange(0))),
    "nothing in a range": ("Range", exact(np.array(3), np.array(1), np.array(1)), (np.zeros(0, np.int64),)),
    "a range that does not divide": ("Range", exact(np.array(1), np.array(6), np.array(2)), (np.array([1, 3, 5]),)),
    "shape of a number": ("Shape", exact(np.float32(3)), (np.zeros(0, np.int64),)),
    "positions in a number": ("NonZero", exact(np.float32(3)), (np.zeros((1, 1), np.int64),)),
    "all is kept": ("Compress", exact(np.arange(3), np.array([True] * 3), axis=0), (np.arange(3),)),
    "a filled shape": ("ConstantOfShape", exact(np.array([2, 0, 3]), value=np.int64([7])), (np.zeros((2, 0, 3), np.int64),)),
    "filled with a number": ("ConstantOfShape", exact(np.array([2]), value=np.int64([7])), (np.int64([7, 7]),)),
    "a diagonal outside": ("EyeLike", exact(np.ones((2, 3), np.float32), k=3), (np.zeros((2, 3), np.float32),)),
    "a far diagonal": ("EyeLike", exact(np.ones((2, 3), np.float32), k=2**40), (np.zeros((2, 3), np.float32),)),
    "a far triangle": ("Trilu", exact(np.ones((2, 3), np.float32), np.array(-(2**40))), (np.ones((2, 3), np.float32),)),
    "other than saturated": ("Cast", exact(np.float32([1e9, -1]), to=19, saturate=0), (np.array([np.inf, -1], ml_dtypes.float8_e5m2),)),
    "saturated": ("Cast", exact(np.float32([1e9, -1e9, 3]), to=17), (np.array([448, -448, 3], ml_dtypes.float8_e4m3fn),)),
    "narrow to whole": ("Cast", exact(np.array([2.5, -3], ml_dtypes.bfloat16), to=TensorProto.INT32), (np.int32([2, -3]),)),
    "power of integers by a negative one": ("Pow", exact(np.int32([2, 1]), np.int32([-1, -3])), (np.int32([0, 1]),)),
    "quotients of integers": ("Div", exact(np.int32([-7, 7, -6, 7]), np.int32([2, -2, 2, 2])), (np.int32([-3, -3, -3, 3]),)),
    "one word for each axis": ("Tile", exact(np.float32([1, 2]), np.array([0])), (np.zeros(0, np.float32),)),
    "a mean of one": ("Mean", exact(np.float32([1, 3])), (np.float32([1, 3]),)),
    "the maximum where it is first": (
        "MaxPool",
        exact(np.float32([[[3, 3, 1, 2]]]), kernel_shape=[2], pads=[1, 0], outputs=2),
        (np.float32([[[3, 3, 3, 2]]]), np.array([[[0, 0, 1, 3]]])),
    ),
    "places by columns, plane after plane": (
        "MaxPool",
        exact(np.float32([[[[1, 9], [3, 4]], [[5, 2], [8, 7]]]]), kernel_shape=[2, 1], storage_order=1, outputs=2),
        (np.float32([[[[3, 9]], [[8, 7]]]]), np.array([[[[1, 2]], [[5, 7]]]])),
    ),
    "places by rows": (
        "MaxPool",
        exact(np.float32([[[[1, 9], [3, 4]], [[5, 2], [8, 7]]]]), kernel_shape=[2, 1], outputs=2),
        (np.float32([[[[3, 9]], [[8, 7]]]]), np.array([[[[2, 1]], [[6, 7]]]])),
    ),
    "the least of whole numbers": (
        "MaxPool",
        exact(np.int8([[[-128, -128]]]), kernel_shape=[2], pads=[1, 1], outputs=2),
        (np.int8([[[-128] * 3]]), np.array([[[0, 0, 1]]])),
    ),
}


@pytest.mark.parametrize("case", EDGES)
def test_edge_cases_have_their_exact_values(case):
    name, example, wanted = EDGES[case]
    with np.errstate(all="ignore"):
        got = run(OPERATORS[name], example)
    assert len(got) >= len(wanted)
    for one, other in zip(got, wanted, strict=False):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one.astype(float), other.astype(float))


IMAGE, LINE = np.ones((1, 4, 5, 6), np.float32), np.ones((1, 4, 7), np.float32)
TAPS = np.ones((6, 2, 3, 3), np.float32)
WRONG = [
    ("Add", [X, X.astype(np.float64)], {}, "the inputs must have one type, not float32, float64"),
    ("Clip", [X, np.ones(2, np.float32)], {}, r"min must be one number, not of shape \(2,\)"),
    ("Clip", [X, None, np.ones(2, np.float32)], {}, r"max must be one number, not of shape \(2,\)"),
    ("BitShift", [np.uint8([1]), np.uint8([1])], {"direction": "UP"}, "direction must be LEFT or RIGHT, not 'UP'"),
    ("CumSum", [X, np.array([0, 1])], {}, r"axis must be one integer, not of shape \(2,\)"),
    ("CumSum", [X, np.array(3)], {}, "axis 3 does not exist in a tensor of rank 3"),
    ("CumSum", [X, np.array(-4)], {}, "axis -4 does not exist in a tensor of rank 3"),
    ("PRelu", [X[0], X], {}, r"a slope of shape \(2, 3, 4\) does not broadcast to the input's \(3, 4\)"),
    ("Gelu", [X], {"approximate": "cosh"}, "approximate must be 'none' or 'tanh', not 'cosh'"),
    ("Softmax", [X], {"axis": 3}, "axis 3 does not exist in a tensor of rank 3"),
    ("Conv", [IMAGE, TAPS[..., 0]], {"group": 2}, "input and weight must have one rank of at least 3"),
    ("Conv", [IMAGE[0, 0], TAPS[0, 0]], {}, "input and weight must have one rank of at least 3"),
    ("Conv", [IMAGE, TAPS.astype("f8")], {"group": 2}, "one floating-point type, not float32 and float64"),
    ("Conv", [IMAGE.astype("i4"), TAPS.astype("i4")], {"group": 2}, "one floating-point type, not int32 and int32"),
    ("Conv", [IMAGE, TAPS], {}, r"4 channels do not fit a weight of shape \(6, 2, 3, 3\) in 1 groups"),
    ("Conv", [IMAGE, TAPS], {"group": 0}, "in 0 groups"),
    ("Conv", [IMAGE, TAPS[:5]], {"group": 2}, r"4 channels do not fit a weight of shape \(5, 2, 3, 3\) in 2 groups"),
    ("Conv", [IMAGE, TAPS, np.ones(5, np.float32)], {"group": 2}, r"the bias must have the shape \(6,\), not \(5,\)"),
    ("Conv", [IMAGE, TAPS], {"group": 2, "kernel_shape": (3, 2)}, r"kernel_shape \[3, 2\] contradicts the weight's shape"),
    ("Conv", [IMAGE, TAPS], {"group": 2, "strides": (1, 0)}, r"strides must be 2 positive integers, not \[1, 0\]"),
    ("Conv", [IMAGE, TAPS], {"group": 2, "dilations": (1,)}, r"dilations must be 2 positive integers, not \[1\]"),
    ("Conv", [IMAGE, TAPS], {"group": 2, "pads": (1, 1, 1)}, r"pads must be 4 non-negative integers, not \[1, 1, 1\]"),
    ("Conv", [IMAGE, TAPS], {"group": 2, "pads": (1, 1, 1, -1)}, r"pads must be 4 non-negative integers"),
    ("Conv", [IMAGE, TAPS], {"group": 2, "auto_pad": "SAME"}, "auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, not 'SAME'"),
    (
        "Conv",
        [IMAGE, TAPS],
        {"group": 2, "dilations": (1, 3)},
        "a kernel that reaches over 7 elements is larger than the padded input of 6",
    ),
    ("ConvTranspose", [IMAGE, TAPS], {}, r"4 channels do not fit a weight of shape \(6, 2, 3, 3\) in 1 groups"),
    ("ConvTranspose", [IMAGE, TAPS[:4]], {"group": 3}, "in 3 groups"),
    ("ConvTranspose", [IMAGE, TAPS[:4]], {"group": 0}, "in 0 groups"),
    ("ConvTranspose", [IMAGE, TAPS[:4, ..., 0]], {}, "input and weight must agree in rank and type"),
    ("ConvTranspose", [IMAGE, TAPS[:4].astype("f8")], {}, "input and weight must agree in rank and type"),
    ("ConvTranspose", [IMAGE, TAPS[:4], np.ones(3, np.float32)], {"group": 2}, r"the bias must have the shape \(4,\), not \(3,\)"),
    ("ConvTranspose", [IMAGE, TAPS[:4]], {"output_padding": (1,)}, r"output_padding must be 2 non-negative integers, not \[1\]"),
    ("ConvTranspose", [IMAGE, TAPS[:4]], {"output_padding": (0, -1)}, r"output_padding must be 2 non-negative integers, not \[0, -1\]"),
    ("ConvTranspose", [IMAGE, TAPS[:4]], {"output_shape": (9,)}, "output_shape must have 2 entries, not 1"),
    (
        "MaxPool",
        [IMAGE[0, 0]],
        {"kernel_shape": (2,)},
        r"the input must have a batch, a channel and a spatial axis, not the shape \(5, 6\)",
    ),
    ("MaxPool", [IMAGE], {"kernel_shape": (2,)}, r"the kernel must have 2 positive lengths, not \[2\]"),
    ("MaxPool", [IMAGE], {"kernel_shape": (2, 0)}, r"the kernel must have 2 positive lengths, not \[2, 0\]"),
    ("MaxPool", [IMAGE], {"kernel_shape": (256, 257)}, r"a kernel of \[256, 257\] has more than 65536 taps"),
    ("MaxPool", [IMAGE], {"kernel_shape": (256, 256)}, "a kernel that reaches over 256 elements is larger than the padded input of 5"),
    ("GlobalMaxPool", [IMAGE[0, 0]], {}, "the input must have a batch, a channel and a spatial axis"),
    ("MaxUnpool", [LINE, AT(1, 4, 7)], {"kernel_shape": (2, 2)}, "kernel_shape, strides and pads must fit 1 spatial axes"),
    ("MaxUnpool", [LINE, AT(1, 4, 7)], {"kernel_shape": (2,), "pads": (0, 0, 0)}, "kernel_shape, strides and pads must fit 1 spatial axes"),
    ("MaxUnpool", [LINE, AT(1, 4, 6)], {"kernel_shape": (2,)}, r"indices of shape \(1, 4, 6\) and output shape \(1, 4, 8\) do not fit"),
    ("MaxUnpool", [LINE, AT(1, 4, 7) + 32], {"kernel_shape": (2,)}, r"indices must be in 0\.\.31"),
    ("MaxUnpool", [LINE, AT(1, 4, 7) - 1], {"kernel_shape": (2,)}, r"indices must be in 0\.\.31"),
    ("Gemm", [X, X[0]], {}, r"A and B must be matrices, not of shapes \(2, 3, 4\) and \(3, 4\)"),
    ("Gemm", [X[0], X], {}, r"A and B must be matrices, not of shapes \(3, 4\) and \(2, 3, 4\)"),
    ("Gemm", [X[0], X[0]], {}, r"shapes \(3, 4\) and \(3, 4\) cannot be multiplied"),
    ("Gemm", [X[0], X[0], X], {"transB": 1}, r"C of shape \(2, 3, 4\) does not broadcast|shape mismatch"),
    (
        "Gemm",
        [X[0], X[0], np.ones((2, 3, 3), np.float32)],
        {"transB": 1},
        r"C of shape \(2, 3, 3\) does not broadcast to the result's \(3, 3\)",
    ),
    ("MatMul", [X, np.float32(1)], {}, "a scalar cannot be multiplied as a matrix"),
    ("MatMul", [np.float32(1), X], {}, "a scalar cannot be multiplied as a matrix"),
    ("Einsum", [X], {"equation": "ij,jk"}, "the equation 'ij,jk' names 2 tensors, 1 were given"),
    ("BatchNormalization", [X[0, 0], *PARTS], {}, "the input must have a channel axis"),
    ("BatchNormalization", [X[:, :2], np.ones(3, np.float32), *PARTS[1:]], {}, r"scale must have the shape \(2,\), not \(3,\)"),
    ("InstanceNormalization", [X[0], PARTS[0], PARTS[1]], {}, "the input must have a spatial axis"),
    ("GroupNormalization", [X, *PARTS[:2]], {"num_groups": 2}, r"an input of shape \(2, 3, 4\) has no 2 equal groups of channels"),
    ("GroupNormalization", [X, *PARTS[:2]], {"num_groups": 0}, "has no 0 equal groups of channels"),
    ("LRN", [X], {"size": 0}, r"size 0 and an input of shape \(2, 3, 4\) do not fit"),
    ("LRN", [X[0, 0]], {"size": 1}, r"size 1 and an input of shape \(4,\) do not fit"),
    ("LpNormalization", [X], {"p": 3}, "p must be 1 or 2, not 3"),
    ("ArgMax", [EMPTY], {"axis": 0}, "axis 0 is empty and has no extreme"),
    ("TopK", [X, np.array([5])], {}, "k = 5 of an axis of length 4"),
    ("TopK", [X, np.array([-1])], {}, "k = -1 of an axis of length 4"),
    ("ReduceSum", [X, np.array([0, -3])], {}, r"axes \[0, -3\] name one axis twice"),
    ("Reshape", [X, np.array([6, 2, 2, 0])], {}, "copies axis 3 of a tensor of rank 3"),
    ("Reshape", [X, np.array([12, -2])], {}, "has a length below -1"),
    ("Reshape", [X, np.float32([24])], {}, r"shape must be a one-dimensional tensor of integers, not float32 of shape \(1,\)"),
    ("Reshape", [X, np.array([[24]])], {}, r"shape must be a one-dimensional tensor of integers, not int64 of shape \(1, 1\)"),
    ("Transpose", [X], {"perm": (0, 1, 1)}, r"perm \[0, 1, 1\] does not permute 3 axes"),
    ("Concat", [X, X.astype("f8")], {"axis": 0}, "the inputs must have one type, not "),
    ("Split", [X], {"axis": 2, "num_outputs": 5}, "an axis of length 4 cannot be cut into 5 parts"),
    ("Split", [X, np.array([1, 2])], {"axis": 2}, r"sizes \[1, 2\] do not add up to the axis of length 4"),
    ("Split", [X, np.array([5, -1])], {"axis": 2}, r"sizes \[5, -1\] do not add up to the axis of length 4"),
    ("Slice", [X, np.array([0]), np.array([1, 2])], {}, "starts, ends, axes and steps have 1, 2, 1 and 1 entries"),
    ("Slice", [X, np.array([0]), np.array([1]), np.array([0]), np.array([0])], {}, "steps must not be zero"),
    ("Slice", [X, np.zeros(4, int), np.ones(4, int)], {}, "starts, ends, axes and steps have 4, 4, 4 and 4 entries"),
    ("Tile", [X, np.array([1, 2])], {}, r"repeats must be 3 non-negative integers, not \[1, 2\]"),
    ("Tile", [X, np.array([1, 2, -1])], {}, r"repeats must be 3 non-negative integers, not \[1, 2, -1\]"),
    ("Pad", [X, np.array([1, 2])], {}, "pads must have 6 entries, not 2"),
    ("Pad", [X, np.zeros(6, int)], {"mode": "mirror"}, "mode must be constant, edge, reflect or wrap, not 'mirror'"),
    ("Pad", [EMPTY, np.array([1, 0, 0, 0])], {"mode": "edge"}, r"an empty axis of a tensor of shape \(0, 3\) has nothing to edge"),
    ("Pad", [EMPTY, np.array([0, 0, 1, 0])], {"mode": "wrap"}, r"an empty axis of a tensor of shape \(0, 3\) has nothing to wrap"),
    ("ConstantOfShape", [np.array([2])], {"value": np.float32([1, 2])}, "value must hold one element, not 2"),
    ("Range", [np.array([1, 2]), np.array(3), np.array(1)], {}, "start, limit and delta must be one number each"),
    ("Range", [np.array(1), np.array(3), np.array(0)], {}, "delta must not be zero"),
    ("EyeLike", [X], {}, r"the input must be a matrix, not of shape \(2, 3, 4\)"),
    ("DepthToSpace", [X], {"blocksize": 1}, r"the input must have four axes, not the shape \(2, 3, 4\)"),
    ("DepthToSpace", [IMAGE[:, :2]], {"blocksize": 2}, "2 channels do not fill blocks of 2 x 2"),
    ("DepthToSpace", [IMAGE], {"blocksize": 0}, "4 channels do not fill blocks of 0 x 0"),
    ("SpaceToDepth", [IMAGE], {"blocksize": 2}, "5 x 6 pixels have no whole blocks of 2 x 2"),
    ("SpaceToDepth", [IMAGE], {"blocksize": 5}, "5 x 6 pixels have no whole blocks of 5 x 5"),
    ("SpaceToDepth", [IMAGE], {"blocksize": 0}, "5 x 6 pixels have no whole blocks of 0 x 0"),
    ("Trilu", [X[0, 0]], {}, r"the input must have at least two axes, not the shape \(4,\)"),
    ("CenterCropPad", [X, np.array([1, 2])], {}, "shape must have 3 entries, not 2"),
    ("Dropout", [X, np.float32(0.5), np.array(True)], {}, "dropout in training mode is random"),
    ("Dropout", [X, None, np.array(True)], {}, "dropout in training mode is random"),
    ("Resize", [X], {}, "either scales or sizes must be given, with 3 entries"),
    ("Resize", [X, None, np.float32([1, 2])], {}, "either scales or sizes must be given, with 3 entries"),
    ("Resize", [X, None, np.float32([1, 2, 0])], {}, r"scales must be positive, not \[1.0, 2.0, 0.0\]"),
    ("Resize", [X, None, np.float32([1, 2, np.inf])], {}, r"scales must be positive, not \[1.0, 2.0, inf\]"),
    ("Resize", [X, None, None, np.array([2, 3, 0])], {}, r"sizes must be positive, not \[2, 3, 0\]"),
    ("Resize", [X, None, np.float32([1, 2, 2])], {"mode": "quintic"}, "mode must be nearest, linear or cubic, not 'quintic'"),
    ("Resize", [X, None, np.float32([1, 2, 2])], {"nearest_mode": "odd"}, "nearest_mode must be one of round_prefer_floor, .* not 'odd'"),
    ("Resize", [X, None, np.float32([1, 2, 2])], {"coordinate_transformation_mode": "odd"}, "unknown coordinate_transformation_mode 'odd'"),
    ("Resize", [EMPTY, None, None, np.array([2, 3])], {}, r"an empty tensor of shape \(0, 3\) cannot be resized to \(2, 3\)"),
    (
        "Resize",
        [X, np.float32([0, 1]), np.float32([1, 2, 2])],
        {"coordinate_transformation_mode": "tf_crop_and_resize"},
        "roi must have 6 entries, not 2",
    ),
    ("Resize", [X, None, np.float32([1, 1, 2**-12])], {"mode": "linear", "antialias": 1}, "would average thousands of elements for one"),
    ("DequantizeLinear", [np.int8([[1, 2]]), np.float32([1, 2, 3])], {"axis": 1}, r"scales of shape \(3,\) do not fit axis 1 of \(1, 2\)"),
    (
        "DequantizeLinear",
        [np.int8([[1, 2, 3]]), np.float32([[1, 2, 3]])],
        {"axis": 1, "block_size": 2},
        r"scales of shape \(1, 3\) do not fit blocks of 2 along axis 1 of \(1, 3\)",
    ),
]


@pytest.mark.parametrize(("operator", "inputs", "attributes", "message"), WRONG, ids=[f"{k}-{case[0]}" for k, case in enumerate(WRONG)])
def test_what_does_not_fit_is_refused_by_name(operator, inputs, attributes, message):
    with pytest.raises(ValueError, match=message):
        run(OPERATORS[operator], Example(tuple(inputs), attributes))


@pytest.mark.parametrize("pads", [(1, 0, 0, 2), (0, 0, 0, 0), (2, 1, 1, 0)])
def test_an_input_is_padded_as_far_as_its_windows_reach(pads):
    """Nothing is added after the last window, as the tensor would be larger than needed."""
    x = np.arange(1, 43, dtype=np.float32).reshape(1, 1, 6, 7)
    view = window(Call({"pads": pads, "strides": (2, 3), "dilations": (2, 1)}, 17), x.shape[2:], (2, 3))
    got = padded(Call({}, 17), x, view, -1)
    ends = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(view.out, (2, 3), (2, 1), (2, 3), strict=True)]
    sizes = [max(n + b, e) for n, b, e in zip((6, 7), pads[:2], ends, strict=True)]
    assert got.shape == (1, 1, *sizes)
    wide = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=-1)
    np.testing.assert_array_equal(got, wide[:, :, : sizes[0], : sizes[1]])
    assert (got is x) == (sum(pads) == 0)


def test_windows_of_ceil_mode_begin_inside():
    """A window that would begin after the input is dropped; one that begins on its last element is not."""
    sizes = {n: window(Call({"strides": (3,), "pads": (0, 2)}, 17), (n,), (2,), ceil_mode=True).out[0] for n in range(3, 9)}
    assert sizes == {3: 1, 4: 2, 5: 2, 6: 2, 7: 3, 8: 3}
    flat = {n: window(Call({"strides": (3,), "pads": (0, 2)}, 17), (n,), (2,)).out[0] for n in range(3, 9)}
    assert flat == {3: 2, 4: 2, 5: 2, 6: 3, 7: 3, 8: 3}
    for auto, begin, end in (("SAME_UPPER", (1, 0), (1, 1)), ("SAME_LOWER", (1, 1), (1, 0))):
        view = window(Call({"auto_pad": auto, "strides": (2, 2), "pads": (9,) * 4}, 17), (5, 6), (3, 3))
        assert (view.begin, view.end, view.out) == (begin, end, (3, 3))
    assert window(Call({"auto_pad": "SAME_UPPER", "strides": (4,)}, 17), (9,), (1,)).end == (0,)
    assert window(Call({"auto_pad": "VALID", "pads": (9, 9)}, 17), (9,), (2,)).out == (8,)
    assert window(Call({"auto_pad": ""}, 17), (9,), (2,)).out == (8,)


def test_activations_are_read_from_nodes_and_constants():
    def found(name, inputs, constants, channels=3, opset=17, **attributes):
        return OPERATORS[name].activation(Node("n", name, inputs, ("y",), attributes, opset), constants, channels)

    low, high = np.float32(-1), np.float32([2])
    assert found("Clip", ("x", "a", "b"), {"a": low, "b": high}) == (1.0, -1.0, 2.0)
    assert found("Clip", ("x", "a", "b"), {"a": low, "b": high}, opset=11) == (1.0, -1.0, 2.0)
    assert found("Clip", ("x", "", "b"), {"b": high}) == (1.0, -np.inf, 2.0)
    assert found("Clip", ("x", "a"), {"a": low}) == (1.0, -1.0, np.inf)
    assert found("Clip", ("x",), {}) == (1.0, -np.inf, np.inf)
    assert found("Clip", ("x", "a"), {}) is None
    assert found("Clip", ("x", "a", "b"), {"b": high}) is None
    assert found("Clip", ("x", "a"), {"a": np.float32([1, 2])}) is None
    assert found("Clip", ("x", "a"), {"a": np.float32(np.nan)}) is None
    assert found("Clip", ("x",), {}, opset=10, min=-1.0) == (1.0, -1.0, np.inf)
    assert found("Clip", ("x",), {}, opset=6, max=4.0) == (1.0, -np.inf, 4.0)
    assert found("Relu", ("x",), {}) == (1.0, 0.0, np.inf)
    assert found("LeakyRelu", ("x",), {}, alpha=0.25) == (0.25, -np.inf, np.inf)
    for shape in ((), (1,), (1, 1)):
        assert found("PRelu", ("x", "s"), {"s": np.full(shape, 0.25, np.float32)}) == (0.25, -np.inf, np.inf)
    slopes = np.float32([1, 2, 3])
    for shape in ((3, 1, 1), (1, 3, 1, 1)):
        slope, *ends = found("PRelu", ("x", "s"), {"s": slopes.reshape(shape)})
        np.testing.assert_array_equal(slope, slopes)
        assert ends == [-np.inf, np.inf]
    assert found("PRelu", ("x", "s"), {"s": slopes[:1].reshape(1, 1, 1)}, channels=1)[0].tolist() == [1]
    for shape in ((3, 1), (1, 3, 1), (1, 1, 3, 1, 1), (1, 1, 3)):
        assert found("PRelu", ("x", "s"), {"s": slopes.reshape(shape)}) is None
    assert found("PRelu", ("x", "s"), {"s": slopes.reshape(3, 1, 1)}, channels=4) is None
    assert found("PRelu", ("x", "s"), {"s": np.ones((2, 3, 1, 1), np.float32)}) is None
    assert found("PRelu", ("x", "s"), {}) is None


def test_weights_of_layers_are_told_without_attributes():
    """The node is made by hand, without the standard's defaults."""
    gemm, spread = OPERATORS["Gemm"].weights, OPERATORS["ConvTranspose"].weights
    bare = lambda name, **attributes: Node("n", name, ("x", "w"), ("y",), attributes, 17)
    matrix, kernel, factor = np.ones((2, 3)), np.ones((4, 2, 3, 3)), np.array([2.0, 5])
    assert [gemm.terms(bare("Gemm"), matrix), gemm.terms(bare("Gemm", transB=1), matrix)] == [2, 3]
    assert [gemm.channels(bare("Gemm"), matrix), gemm.channels(bare("Gemm", transB=1), matrix)] == [3, 2]
    assert gemm.scaled(bare("Gemm", transB=1), matrix, factor).tolist() == [[2] * 3, [5] * 3]
    assert gemm.scaled(bare("Gemm"), matrix.T, factor).tolist() == [[2, 5]] * 3
    assert spread.channels(bare("ConvTranspose"), kernel) == 2
    assert spread.channels(bare("ConvTranspose", group=2), kernel) == 4
    assert spread.terms(bare("ConvTranspose"), kernel) == 18
    np.testing.assert_array_equal(spread.scaled(bare("ConvTranspose"), kernel, factor), kernel * factor[:, None, None])
    two = spread.scaled(bare("ConvTranspose", group=2), kernel, np.array([2.0, 5, 7, 11]))
    assert two[:, :, 0, 0].tolist() == [[2, 5], [2, 5], [7, 11], [7, 11]]
    assert spread.scaled(bare("ConvTranspose", group=3), kernel, factor) is None
    assert spread.scaled(bare("ConvTranspose", group=0), kernel, factor) is None
    assert OPERATORS["MatMul"].weights.terms(bare("MatMul"), np.ones(5)) == 5
    assert OPERATORS["Conv"].weights.terms(bare("Conv"), kernel) == 18
    assert OPERATORS["Conv"].weights.terms(bare("Conv"), kernel[:0]) == 0


def test_memory_is_reserved_up_to_its_limit():
    call = Call({}, 17, 1, 64)
    assert call.reserve([4, 4], np.float32) == (4, 4)
    assert call.reserve((8,)) == (8,)
    with pytest.raises(ValueError, match=r"a tensor of shape \(17,\) would take 0.0 GiB; 0.0 GiB is left"):
        call.reserve((17,), np.float32)
    assert call.reserve((0, 2**40)) == (0, 2**40)
    with pytest.raises(ValueError, match=r"the result would have the shape \(2, -1\); lengths must not be negative"):
        call.reserve((2, -1))
    with pytest.raises(ValueError, match=r"would take 3.0 GiB; 1.5 GiB is left"):
        Call({}, 17, 1, 3 * 2**29).reserve((3 * 2**30,), np.int8)
    with pytest.raises(ValueError, match="the attribute 'axis' is missing"):
        call["axis"]
    assert Call({}, 17).limit == 2**30
    with pytest.raises(ValueError, match=r"a tensor of shape \(3, 2, 4\) would take"):
        run_within(OPERATORS["Einsum"], 64, np.ones((3, 2, 5), np.float32), np.ones((5, 4), np.float32), equation="...ij,jk->...ik")


def run_within(operator, limit, *inputs, **attributes):
    return operator.run(Call(attributes, 17, 1, limit), *inputs)


def test_formats_that_are_narrow():
    narrow = ["float16", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn]
    assert all(is_narrow(np.dtype(kind)) for kind in narrow)
    assert not any(is_narrow(np.dtype(kind)) for kind in ("float32", "float64", "int8", "bool", "uint16", ml_dtypes.int4))


CODES = {
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
}
CODES |= {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


def test_element_types_have_the_codes_of_the_standard():
    for code, name in CODES.items():
        if code < 16 or hasattr(ml_dtypes, name):
            assert dtype_of(code).name == name
    with pytest.raises(ValueError, match="99 is not a type of tensor elements"):
        dtype_of(99)
    assert dtype_of(TensorProto.STRING).kind == "O"

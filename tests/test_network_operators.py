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
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.models import OLD, OPSET, model

from fastconv.network import load_onnx
from fastconv.network.operators import is_narrow
from fastconv.network.operators.tensors.shape import dtype_of

REFUSED = {
    "recurrent": "GRU LSTM RNN",
    "quantised": "ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear",
    "control flow": "If Loop Scan",
    "random": "Bernoulli RandomUniformLike",
    "sequences, optionals and text": "OptionalGetElement OptionalHasElement SequenceEmpty SequenceMap SplitToSequence StringConcat "
    "StringNormalizer StringSplit RegexFullMatch TfIdfVectorizer",
    "losses and training": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    "attention": "Attention CausalConvWithState FlexAttention LinearAttention RotaryEmbedding SwiGLU TensorScatter",
    "signal and geometry, not yet": "AffineGrid BitCast BlackmanWindow Col2Im DFT DeformConv GridSample HammingWindow HannWindow "
    "ImageDecoder MelWeightMatrix RoiAlign STFT",
}
"""Operators that fastconv does not run; a model with one of them is refused when it is loaded."""

OTHER_REASONS = {
    r"opset \d+ is not supported": "opsets before 7",
    r"operators of the domain": "operators outside of the standard set",
    r"imports no standard operator set": "operators outside of the standard set",
    r"is a (sequence|optional)": "sequences and optionals",
    r"tensors of (object|str)": "text",
}

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
"""The opset of the release whose cases and operators are counted here."""
WRONG_IN_OLD = {
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


def as_array(info, value):
    dtype = dtype_of(info.type.tensor_type.elem_type)
    if isinstance(value, TensorProto):
        return np.asarray(numpy_helper.to_array(value)).astype(dtype_of(value.data_type))
    return value.view(dtype) if OLD and dtype.name == "bfloat16" else np.asarray(value)  # there the bits, as uint16


def complaint(case, net):
    """Return what is wrong with the outputs of one node test, None if nothing is."""
    for inputs, outputs in case.data_sets:
        got = net.run({info.name: as_array(info, value) for info, value in zip(case.model.graph.input, inputs, strict=False)})
        for info, value in zip(case.model.graph.output, outputs, strict=False):
            result, wanted = got[info.name], as_array(info, value)
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


def test_every_node_test_of_onnx_passes_or_is_refused_for_a_listed_reason():
    refused = {name for names in REFUSED.values() for name in names.split()}
    wrong, count = [], Counter()
    for name, case in cases().items():
        if name in SKIPPED or OLD and name in WRONG_IN_OLD:
            continue
        try:
            net = load_onnx(case.model)
        except ValueError as error:
            operator = re.search(r"the operator (\w+) is not supported", str(error))
            listed = operator and operator[1] in refused or any(re.search(pattern, str(error)) for pattern in OTHER_REASONS)
            count["refused"] += 1
            if not listed:
                wrong.append(f"{name}: refused without need: {error}")
            continue
        problem = complaint(case, net)
        count["passed"] += 1
        if problem:
            wrong.append(f"{name}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert count["passed"] >= (1390 if OPSET >= NEW else 959), count


@pytest.mark.parametrize("name", ["densenet121", "inception_v1"])
def test_whole_networks_that_onnx_ships(name):
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    net = load_onnx(folder / f"light_{name}.onnx")
    wanted = numpy_helper.to_array(TensorProto.FromString((folder / f"light_{name}_output_0.pb").read_bytes()))
    # Their weights are constants made inside, so that their outputs hardly depend on the input.
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
    # What the last windows leave uncovered of the padded input is output_padding on the way back.
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
        load_onnx(made).run(dict(zip(names, inputs, strict=True)))


def test_refused_operators_name_node_and_operator():
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="memory", hidden_size=3)
    arrays = {"x": np.zeros((1, 1, 2), np.float32), "w": np.zeros((1, 12, 2), np.float32), "r": np.zeros((1, 12, 3), np.float32)}
    with pytest.raises(ValueError, match=r"node 'memory' \(LSTM\)"):
        load_onnx(model([node], arrays, {"y": 1}))


def test_names_in_refused_are_not_in_the_table():
    from fastconv.network.operators import OPERATORS

    assert not set(" ".join(REFUSED.values()).split()) & set(OPERATORS)
    assert OPSET < NEW or all(onnx.defs.has(name) for name in OPERATORS)


@pytest.mark.parametrize("operator", ["DepthToSpace", "SpaceToDepth"])
def test_blocks_of_one_pixel_move_nothing(operator):
    x = np.arange(24, dtype="f4").reshape(1, 2, 3, 4)
    agrees(helper.make_node(operator, ["x"], ["y"], blocksize=1), {"x": x}, 17)


def test_means_of_integers_go_towards_zero():
    """As C does, the reference and the runtimes with it: -7 over 2 is -3."""
    x = np.array([[-7, 0, 7], [0, 0, 6]], np.int32)
    agrees(helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0), {"x": x}, 17)

"""The claims of every operator record hold, alone and in a network of one node."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import pytest
from support.claims import CLAIMS, assert_close, attributes_of, check, claims_of, compiled, examples_of, feeds_of, model_of, run
from support.examples import EXAMPLES
from support.models import OLD

import fastconv as fc
from fastconv.network import Graph, Node, Value
from fastconv.network.operators import OPERATORS, Call
from fastconv.network.operators.record import joined
from fastconv.network.rewrite.optimise import optimised
from fastconv.network.run.execute import Runner
from fastconv.network.study.count import multiply_adds

NAMES = sorted(name for name in OPERATORS if onnx.defs.has(name))
"""Examples that this release of onnx supports."""
WRONG_IN_OLD = {
    "CenterCropPad": "pads or crops, not both",
    "Conv": "pads otherwise for auto_pad",
    "CumSum": "widens int32",
    "OneHot": "sets an entry for an index outside the depth",
    "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMean ReduceProd ReduceSumSquare": "takes no axes for all, noop_with_empty_axes or not",
    "ReverseSequence": "has no sequences of length zero",
    "ScatterElements": "replaces where it should multiply",
}
"""Operators with wrong results in the reference evaluators of old onnx releases."""


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_has_an_example(name):
    assert examples_of(name, EXAMPLES)


def test_every_example_has_an_operator():
    assert set(EXAMPLES) <= set(OPERATORS)


@pytest.mark.parametrize(("name", "claim"), [(name, claim) for name in NAMES for claim in claims_of(OPERATORS[name])])
def test_records_keep_what_they_claim(name, claim):
    if OLD and claim == "standard" and name in " ".join(WRONG_IN_OLD).split():
        pytest.skip("the reference evaluator of this release of onnx is wrong")
    check(OPERATORS[name], claim, EXAMPLES)


TRAITS = {
    "follower": "BatchNormalization Celu Clip Elu Gelu HardSigmoid HardSwish LeakyRelu Mish PRelu Relu Selu Sigmoid Softplus Softsign "
    "Swish Tanh ThresholdedRelu",
    "curve": "Abs BatchNormalization Ceil Celu Clip Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg PRelu "
    "Reciprocal Relu Round Selu Sigmoid Sign Softplus Softsign Sqrt Swish Tanh ThresholdedRelu",
    "steady": "Abs Add And Cast Ceil Clip Div Dropout Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity "
    "LeakyRelu Less LessOrEqual Max Mean Min Mul Neg Not Or PRelu Pow Reciprocal Relu Round Sigmoid Sign Softsign Sqrt Sub Sum Swish "
    "Tanh ThresholdedRelu Where Xor",
    "takes_activation": "BatchNormalization Conv ConvTranspose",
    "activation": "Clip LeakyRelu PRelu Relu",
}
"""Traits for error measurement, views and fusion; without them a network is slower or its report less precise."""


@pytest.mark.parametrize("trait", TRAITS)
def test_what_networks_live_on_is_claimed(trait):
    assert {name for name in OPERATORS if getattr(OPERATORS[name], trait)} == {*TRAITS[trait].split()}


def constant_inputs(example):
    """Return the inputs to keep as constants: all but the first."""
    return tuple(f"x{k}" for k, a in enumerate(example.inputs) if k and a is not None)


def is_read_otherwise(example):
    """Tell whether onnxruntime reads an example of Resize otherwise than the standard: corners of a length that is no integer, crops."""
    return example.attributes.get("coordinate_transformation_mode") in ("align_corners", "tf_crop_and_resize")


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_one_node_gives_what_the_operator_gives_each_time(name):
    operator = OPERATORS[name]
    for example in examples_of(name, EXAMPLES):
        wanted = run(operator, example)
        for constant in ((), constant_inputs(example)):
            net, feeds = fc.load_onnx(model_of(operator, example, constant)), feeds_of(example, constant)
            first, again = net.run(feeds), net.run(feeds)
            for k, array in enumerate(wanted[: example.outputs]):
                np.testing.assert_array_equal(again[f"y{k}"], first[f"y{k}"])
                # onnxruntime and the layer kernels sum in another order. Without a bound, onnxruntime clips infinity to the largest number.
                got, array = (np.nan_to_num(a) if name == "Clip" else a for a in (first[f"y{k}"], array))
                if not is_read_otherwise(example):
                    assert_close(got, array, (example.terms or name == "DequantizeLinear") and max(example.terms, 4) + 8)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_network_in_float64(name):
    operator = OPERATORS[name]
    for example in examples_of(name, EXAMPLES):
        net = fc.load_onnx(model_of(operator, example))
        narrow, wide = net.run(feeds_of(example)), net.run(feeds_of(example), policy="fp64")
        for key, array in narrow.items():
            assert wide[key].dtype == (np.float64 if array.dtype.kind == "f" else array.dtype)
            got, array = (np.nan_to_num(a) if name == "Clip" else a for a in (wide[key].astype(array.dtype), array))
            if not is_read_otherwise(example):
                assert_close(got, array, (example.terms or name == "DequantizeLinear") and max(example.terms, 4) + 8)


def fused(net):
    return optimised(net.graph, ())


def as_written(net, feeds):
    return Runner(net.graph, {}, optimise=False)(feeds)


@dataclass(frozen=True)
class Asking(Call):
    """A call that records reserved shapes."""

    asked: list = field(default_factory=list)

    def reserve(self, shape, dtype=np.float64):
        self.asked.append(math.prod(map(int, shape)))
        return super().reserve(shape, dtype)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_reserved_is_what_is_allocated(name):
    """An operator that reserves memory reserves at least its result."""
    operator = OPERATORS[name]
    for example in examples_of(name, EXAMPLES):
        asking = Asking(attributes_of(operator, example), example.opset, example.outputs)
        with np.errstate(all="ignore"):
            given = operator.run(asking, *(None if a is None else np.array(a) for a in example.inputs))
        sizes = [np.asarray(a).size for a in (given if isinstance(given, tuple) else (given,))]
        assert not asking.asked or set(sizes) & set(asking.asked)


@pytest.mark.parametrize("name", [name for name in NAMES if OPERATORS[name].activation])
def test_activations_fuse_without_changing_bits(name):
    operator = OPERATORS[name]
    fuses = 0
    for example in examples_of(name, EXAMPLES):
        if example.inputs[0].ndim == 1:
            continue
        model = model_of(operator, example, constant_inputs(example))
        model.graph.node[0].input[0] = "scaled"
        channels = example.inputs[0].shape[1]
        for part in ("scale", "shift", "mean", "var"):
            values = np.full(channels, float(part in ("scale", "var")), np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, part))
        inputs = ["x0", "scale", "shift", "mean", "var"]
        model.graph.node.append(onnx.helper.make_node("BatchNormalization", inputs, ["scaled"], "norm", epsilon=0.0))
        net = fc.load_onnx(model)
        graph = fused(net)
        assert [node.operator for node in graph.nodes] == ["BatchNormalization"]
        assert [node.operator for node in graph.nodes[0].fused] == [name]
        fuses += 1
        got, wanted = net.run(feeds_of(example, constant_inputs(example)))["y0"], as_written(net, {"x0": example.inputs[0]})["y0"]
        np.testing.assert_array_equal(np.nan_to_num(got), np.nan_to_num(wanted))
    assert fuses


@pytest.mark.parametrize("name", [name for name in NAMES if OPERATORS[name].takes_activation])
def test_an_activation_fuses_into_what_takes_one(name):
    operator = OPERATORS[name]
    for example in examples_of(name, EXAMPLES):
        constant = constant_inputs(example)
        net, alone = (fc.load_onnx(model_of(operator, example, constant, then)) for then in (("Relu",), ()))
        graph, feeds = fused(net), feeds_of(example, constant)
        assert [(node.operator, [f.operator for f in node.fused]) for node in graph.nodes] == [(name, ["Relu"])]
        np.testing.assert_array_equal(net.run(feeds)["z"], np.maximum(alone.run(feeds)["y0"], 0))


@pytest.mark.parametrize("name", [name for name in NAMES if OPERATORS[name].stores])
def test_what_stores_numbers_is_computed_when_it_is_loaded(name):
    for example in examples_of(name, EXAMPLES):
        everything = tuple(f"x{k}" for k in range(len(example.inputs)))
        net = fc.load_onnx(model_of(OPERATORS[name], example, everything))
        assert not net.graph.nodes
        assert_close(net.run({})["y0"], run(OPERATORS[name], example)[0], 0)


@pytest.mark.parametrize("name", [name for name in NAMES if OPERATORS[name].weights])
def test_multiply_adds_are_counted_where_weights_are_constant(name):
    example = examples_of(name, EXAMPLES)[0]
    net = fc.load_onnx(model_of(OPERATORS[name], example, ("x1",)))
    ones = [np.ones_like(a) for a in example.inputs]
    assert list(multiply_adds(net, feeds_of(example, ("x1",))).values()) == [run(OPERATORS[name], example, *ones)[0].sum()]


@pytest.mark.parametrize("name", [name for name in NAMES if OPERATORS[name].plane])
def test_policies_emulate_what_lies_in_a_plane(name):
    for example in examples_of(name, EXAMPLES):
        net = fc.load_onnx(model_of(OPERATORS[name], example, constant_inputs(example)))
        got = net.run(feeds_of(example, constant_inputs(example)), "direct", "fp16")["y0"]
        wanted = run(OPERATORS[name], example)[0]
        assert_close(got, wanted, example.terms, np.float16)
        assert not np.array_equal(got, wanted), "nothing is rounded to fp16"


def forgetful(call, x):
    """Square the input in place."""
    x *= x
    return x


SERVED = {
    "ConvTranspose": "1 1 1 1 1 1 1 0 1 1",
    "MaxPool": "2 2 0 2 2 2 2 2 2 0",
}
"""Whether the compiled form supports each example: never, only with constant weights, always."""


@pytest.mark.parametrize("name", [name for name in NAMES if OPERATORS[name].compiled])
def test_compiled_forms_serve_what_they_are_for(name):
    served = [[compiled(OPERATORS[name], example, constant) is not None for constant in (True, False)] for example in EXAMPLES[name]]
    assert " ".join(str(sum(one)) for one in served) == SERVED[name]
    assert all(constant or not other for constant, other in served)


WRONG = [
    ("Softmax", "pointwise", {"pointwise": "follower"}),
    ("Greater", "pointwise", {"pointwise": "curve"}),
    ("MatMul", "pointwise", {"pointwise": "elements"}),
    ("ReduceL2", "narrow", {"narrow": "own"}),
    ("Relu", "activation", {"activation": OPERATORS["LeakyRelu"].activation}),
    ("LeakyRelu", "activation", {"activation": OPERATORS["Relu"].activation}),
    ("MaxPool", "compiled", {"definition": OPERATORS["AveragePool"].definition}),
    ("ConvTranspose", "compiled", {"same_bits": True}),
    ("Sigmoid", "standard", {"definition": OPERATORS["Tanh"].definition}),
    ("ArgMax", "standard", {"definition": lambda call, x: OPERATORS["ArgMax"].definition(call, x).astype(np.int32)}),
    ("Sinh", "inputs", {"definition": forgetful}),
    ("EyeLike", "wide", {"types": ()}),
    ("ConstantOfShape", "wide", {"retyped": None}),
    ("Conv", "terms", {"weights": OPERATORS["Gemm"].weights}),
    ("ConvTranspose", "scaled", {"weights": OPERATORS["Conv"].weights}),
    ("ConvTranspose", "plane", {"plane": OPERATORS["Conv"].plane}),
    ("MaxPool", "blocks", {"blocks": replace(OPERATORS["MaxPool"].blocks, shape=lambda call, shape: shape)}),
]


@pytest.mark.parametrize(("name", "claim", "traits"), WRONG, ids=[f"{name}-{claim}" for name, claim, _ in WRONG])
def test_a_wrong_record_is_found(name, claim, traits):
    with pytest.raises((AssertionError, ArithmeticError, LookupError, ValueError)):
        check(replace(OPERATORS[name], **traits), claim, EXAMPLES)


def test_every_claim_can_be_wrong():
    assert {claim for _, claim, _ in WRONG} == set(CLAIMS)


def test_an_operator_without_an_example_says_what_to_add():
    with pytest.raises(AssertionError, match=r"Relu has no example: add an entry 'Relu' to tests/support/examples.py"):
        check(OPERATORS["Relu"], "standard", {})
    with pytest.raises(AssertionError, match="no example of MaxPool reaches 'compiled'"):
        check(OPERATORS["MaxPool"], "compiled", {"MaxPool": [replace(EXAMPLES["MaxPool"][0], inputs=(np.zeros((1, 1, 9, 9), np.int8),))]})


def test_a_name_has_one_record():
    with pytest.raises(ValueError, match="the operator Relu has two records"):
        joined(OPERATORS.values(), [OPERATORS["Relu"]])


def test_nodes_of_unknown_operators_are_named():
    graph = Graph.build("g", [Value("x", None, None)], [Value("y", None, None)], {}, [Node("n", "Nothing", ("x",), ("y",), {}, 17)])
    with pytest.raises(ValueError, match=r"node 'n' \(Nothing\): onnxruntime: .*Nothing"):
        Runner(graph, {})({"x": np.zeros(1, np.float32)})

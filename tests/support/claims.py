"""The claims of operator records, each with a check of one record on one example.

`CLAIMS` maps a claim to the records that make it and to its check. A check returns False if the claim does not apply to the
example, and fails if the claim is wrong.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from fastconv.kernels import Activation
from fastconv.native import Pool, machine
from fastconv.network import Node
from fastconv.network.operators import Call
from fastconv.network.operators.convolution import convolution
from fastconv.network.operators.record import Place
from support.models import OPSET


def attributes_of(operator, example):
    """Return the attributes of a call: the standard's defaults, overridden by the example's."""
    plain = lambda v: v.decode() if isinstance(v, bytes) else tuple(v) if isinstance(v, list) else v
    schema = onnx.defs.get_schema(operator.name, example.opset, "")
    defaults = {name: known.default_value for name, known in schema.attributes.items() if known.default_value.name}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in example.attributes.items()}
    return {name: plain(helper.get_attribute_value(value)) for name, value in defaults.items()} | given


def call_of(operator, example):
    return Call(attributes_of(operator, example), example.opset, example.outputs)


def names_of(example):
    return tuple("" if a is None else f"x{k}" for k, a in enumerate(example.inputs))


def node_of(operator, example):
    outputs = tuple(f"y{k}" for k in range(example.outputs))
    return Node("n", operator.name, names_of(example), outputs, attributes_of(operator, example), example.opset)


def model_of(operator, example, constant=(), then=()):
    """Return a model of one node, with inputs as constants where named, and nodes that follow."""
    outputs = [f"y{k}" for k in range(example.outputs)]
    node = helper.make_node(operator.name, names_of(example), outputs, **example.attributes)
    given = {name: np.asarray(a) for name, a in zip(names_of(example), example.inputs, strict=True) if name}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in given.items()
        if name not in constant
    ]
    weights = [onnx.numpy_helper.from_array(given[name], name) for name in constant if name]
    nodes = [node, *(helper.make_node(other, [outputs[0]], ["z"]) for other in then)]
    leaves = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in (["z"] if then else outputs)]
    graph = helper.make_graph(nodes, "g", infos, leaves, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", example.opset)])


def feeds_of(example, constant=()):
    return {n: np.asarray(a) for n, a in zip(names_of(example), example.inputs, strict=True) if n and n not in constant}


def results(value):
    return tuple(np.asarray(part) for part in (value if isinstance(value, tuple) else (value,)))


def run(operator, example, *inputs):
    """Run the definition as the network does, on read-only arrays."""
    given = [None if a is None else np.array(a) for a in (inputs or example.inputs)]
    for array in given:
        if array is not None:
            array.flags.writeable = False
    with np.errstate(all="ignore"):
        return results(operator.run(call_of(operator, example), *given))


def assert_close(got, wanted, terms, kind=None):
    """Compare with a bound from the sums: each side rounds `terms` times, plus 4 for an elementary function."""
    assert got.dtype == wanted.dtype, f"{got.dtype} instead of {wanted.dtype}"
    assert got.shape == wanted.shape, f"{got.shape} instead of {wanted.shape}"
    if terms == 0 or wanted.dtype.kind in "biu":
        np.testing.assert_array_equal(got, wanted)
        return
    size = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
    unit = float(np.finfo(kind or wanted.dtype).eps) / 2
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2 * (terms + 4) * unit * size)


def is_what_the_standard_says(operator, example):
    """The result equals that of onnx's reference evaluator, with the types that onnx infers."""
    from onnx.reference import ReferenceEvaluator

    model = model_of(operator, example)
    if example.wanted is None:
        with np.errstate(all="ignore"):
            wanted = ReferenceEvaluator(model).run(None, feeds_of(example))
    else:
        wanted = results(example.wanted(*example.inputs))
    got = run(operator, example)
    inferred = onnx.shape_inference.infer_shapes(model).graph.output
    for one, other, value in zip(got, wanted, inferred, strict=False):
        assert_close(one, np.asarray(other), example.terms)
        kind = value.type.tensor_type.elem_type
        assert kind in (TensorProto.UNDEFINED, helper.np_dtype_to_tensor_dtype(one.dtype))
    assert len(got) >= example.outputs


def rounds_narrow_formats_once(operator, example):
    """The float16 result is the rounded float32 result; a definition with "own" rounding rounds a quotient, product, sum."""
    floats = [a is not None and np.asarray(a).dtype == np.float32 for a in example.inputs]
    first = run(operator, example)[0]
    if not any(floats) or first.dtype != np.float32 or operator.types:
        return False
    narrow = [np.asarray(a, np.float16) if f else a for a, f in zip(example.inputs, floats, strict=True)]
    wide = [np.asarray(a, np.float32) if f else a for a, f in zip(narrow, floats, strict=True)]
    with np.errstate(all="ignore"):
        got, wanted = run(operator, example, *narrow)[0], run(operator, example, *wide)[0].astype(np.float16)
    assert got.dtype == np.float16
    if operator.narrow == "own":
        size = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        np.testing.assert_allclose(got.astype(float), wanted.astype(float), rtol=0, atol=3 * 2.0**-11 * size if example.terms else 0)
    else:
        np.testing.assert_array_equal(got, wanted)
    return True


def writes_no_input(operator, example):
    given = [None if a is None else np.array(a) for a in example.inputs]
    before = [None if a is None else a.copy() for a in given]
    with np.errstate(all="ignore"):
        operator.run(call_of(operator, example), *given)
    for array, old in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, old)


def acts_place_by_place(operator, example):
    """A change of one value of an input changes only the results at its position; a curve keeps the shape and type of its first input."""
    before = run(operator, example)[0]
    if operator.curve:
        x = example.inputs[0]
        assert (before.shape, before.dtype) == (x.shape, x.dtype)
    for k, x in enumerate(example.inputs[: 1 if operator.curve else None]):
        if x is None:
            continue
        places = np.broadcast_to(np.arange(np.size(x)).reshape(np.shape(x)), before.shape)
        for place in (0, np.size(x) // 2, np.size(x) - 1):
            other = np.array(x)
            values = other.reshape(-1)
            values[place] = not values[place] if other.dtype == bool else 3.25 if values[place] != 3.25 else 1.5
            after = run(operator, example, *example.inputs[:k], other, *example.inputs[k + 1 :])[0]
            same = (before == after) | (before != before) & (after != after)  # NaN is not itself
            assert set(places[~same]) <= {place}, "the change of one value changes others"
    return True


def activation_of(operator, example):
    """Return the record's activation for an example with constant further inputs, or None."""
    x = example.inputs[0]
    constants = {n: np.asarray(a) for n, a in zip(names_of(example)[1:], example.inputs[1:], strict=True) if n}
    found = operator.activation(node_of(operator, example), constants, x.shape[1] if x.ndim == 4 else None)
    return None if found is None else Activation(*found)


def is_its_activation(operator, example):
    """Slope and bounds give the bits of the definition."""
    activation = activation_of(operator, example)
    if activation is None or example.inputs[0].ndim != 4 and np.ndim(activation.slope):
        return False
    np.testing.assert_array_equal(activation(example.inputs[0]), run(operator, example)[0])
    return True


def place_of(operator, node, constants, **options):
    """Return a context in which a record's compiled form runs, on one thread, with new plans."""

    def activation(nodes, shape):
        if len(nodes) != 1 or operator.activation is None:
            return None
        found = operator.activation(nodes[0], constants, shape[1] if len(shape) == 4 else None)
        return None if found is None else Activation(*found)

    pool = Pool()
    return Place(constants, np.empty, 1, lambda key, make: make(), pool.run, pool.run, activation, **options)


def compiled(operator, example, constant):
    """Run the compiled form with the further inputs constant or not; None if it declines."""
    node, call = node_of(operator, example), call_of(operator, example)
    given = [None if a is None else np.array(a) for a in example.inputs]
    if given[0].dtype.kind != "f":
        return None
    constants = {n: a for n, a in zip(node.inputs[1:], given[1:], strict=True) if n} if constant else {}
    with np.errstate(all="ignore"):
        return operator.compiled(node, call, given, place_of(operator, node, constants))


def compiled_form_agrees(operator, example):
    """The compiled form gives the bits of the definition, or a result within rounding, in a new array."""
    served = [y for y in (compiled(operator, example, constant) for constant in (True, False)) if y is not None]
    wanted = run(operator, example)[0]
    for got in served:
        assert got.flags.c_contiguous
        assert_close(got, wanted, 0 if operator.same_bits else max(example.terms, 4) + 8)
    return bool(served)


def counts_terms(operator, example):
    """With ones everywhere and no padding the results add up to the multiply-adds."""
    x, weight, *_ = example.inputs
    if {"pads", "auto_pad", "output_shape", "output_padding", "alpha", "transA"} & set(example.attributes):
        return False
    ones = [np.ones_like(x), np.ones_like(weight)]
    y = run(operator, example, *ones)[0]
    terms = operator.weights.terms(node_of(operator, example), weight)
    assert y.sum(dtype=float) == terms * (x.size if operator.weights.per_input else y.size)
    return True


def scales_channels(operator, example):
    """Weights scaled by a power of two per output channel scale the channels, bit for bit."""
    x, weight, *_ = example.inputs
    node = node_of(operator, example)
    if operator.weights.scaled is None:
        return True
    y = run(operator, example, x, weight)[0]
    assert operator.weights.channels(node, weight) == y.shape[1]
    factor = 2.0 ** np.arange(y.shape[1])
    scaled = operator.weights.scaled(node, weight, factor).astype(weight.dtype)
    after = run(operator, example, x, scaled)[0]
    np.testing.assert_array_equal(after, y * factor.reshape(-1, *(1,) * (y.ndim - 2)).astype(y.dtype))
    return True


def lies_in_a_plane(operator, example):
    """The convolution of padded images is the operator without its bias."""
    x, weight, bias = (*example.inputs, None)[:3]
    call = call_of(operator, example)
    flat = operator.plane(call, x, weight, bias)
    view = flat.view
    group = {"group": call["group"], "strides": view.strides, "dilations": view.dilations}
    y = flat.restored(convolution(Call(group, example.opset), flat.x, flat.weight))
    assert_close(y, run(operator, example, x, weight)[0], example.terms)
    return True


def runs_on_blocks(operator, example):
    """With the channels-blocked layout the compiled form gives the same values, in the predicted shape."""
    x, node, call = example.inputs[0], node_of(operator, example), call_of(operator, example)
    constants = {n: a for n, a in zip(node.inputs[1:], example.inputs[1:], strict=True) if n}
    if not operator.blocks.serves(node, constants):
        return False
    assert x.ndim == 4
    if operator.blocks.shape is None:
        return True  # the layer's method decides: tests/kernels/test_blocks.py
    wanted = run(operator, example)[0]
    assert operator.blocks.shape(call, x.shape) == wanted.shape
    lanes = machine().vector_bytes // x.itemsize
    batch, channels, height, width = x.shape
    if channels % lanes:
        return False
    blocked = np.ascontiguousarray(np.moveaxis(x.reshape(batch, channels // lanes, lanes, height, width), 2, 4))
    y = operator.compiled(node, call, [blocked], place_of(operator, node, {}, blocks={node.inputs[0]: ()}))
    np.testing.assert_array_equal(np.moveaxis(y, 4, 2).reshape(wanted.shape), wanted)
    return True


def types_become_wide(operator, example):
    """With its types and attributes rewritten the node returns float64 instead of float32."""
    before = run(operator, example)
    attributes = attributes_of(operator, example)
    attributes |= {name: TensorProto.DOUBLE for name in operator.types if attributes.get(name) == TensorProto.FLOAT}
    if operator.retyped is not None:
        attributes = operator.retyped(attributes, np.dtype(np.float64))
    wide = [a.astype(np.float64) if a is not None and np.asarray(a).dtype == np.float32 else a for a in example.inputs]
    with np.errstate(all="ignore"):
        after = results(operator.run(Call(attributes, example.opset, example.outputs), *wide))
    for one, other in zip(before, after, strict=True):
        assert other.dtype == (np.float64 if one.dtype == np.float32 else one.dtype)
        if one.dtype == np.float32:
            assert_close(other.astype(np.float32), one, example.terms)
    return True


always = lambda operator: True
has = lambda trait: lambda operator: bool(getattr(operator, trait))

CLAIMS = {
    "standard": (always, is_what_the_standard_says),
    "inputs": (always, writes_no_input),
    "narrow": (always, rounds_narrow_formats_once),
    "wide": (always, types_become_wide),
    "pointwise": (has("pointwise"), acts_place_by_place),
    "activation": (has("activation"), is_its_activation),
    "compiled": (has("compiled"), compiled_form_agrees),
    "terms": (has("weights"), counts_terms),
    "scaled": (has("weights"), scales_channels),
    "plane": (has("plane"), lies_in_a_plane),
    "blocks": (has("blocks"), runs_on_blocks),
}
OPTIONAL = ("standard", "inputs", "narrow", "wide")
"""Claims of every record, for which some operators have no example: integers have no narrow format."""


def examples_of(name, examples):
    """Return the examples of an operator, or fail with a message that says what to add."""
    assert name in examples, f"{name} has no example: add an entry {name!r} to tests/support/examples.py (see CONTRIBUTING.md)"
    return [example for example in examples[name] if is_known(name, example)]


def is_known(name, example):
    """Return whether this release of onnx has the opset of an example and all its attributes."""
    return example.opset <= OPSET and set(example.attributes) <= set(onnx.defs.get_schema(name, example.opset, "").attributes)


def check(operator, claim, examples):
    """Check a claim of a record on all its examples."""
    reached = [CLAIMS[claim][1](operator, example) for example in examples_of(operator.name, examples)]
    assert claim in OPTIONAL or any(reached), f"no example of {operator.name} reaches {claim!r}: add one to tests/support/examples.py"


def claims_of(operator):
    return [claim for claim, (made, _) in CLAIMS.items() if made(operator)]

"""Infer types and shapes of the tensors of a network from those of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.graph.types import dtype_of, schema_of
from fastconv.network.operators.call import Call
from fastconv.network.operators.table import OPERATORS, STANDARD
from fastconv.network.operators.window import CROPPED, window
from fastconv.network.rewrite.export import Kind, info_of, leaves_of, proto_of

_SMALL = 2**10
"""Largest tensor in bytes whose values are followed: arithmetic of shapes is smaller."""


def kinds_of(graph: Graph, given: Mapping[str, Any]) -> dict[str, Kind]:
    """Return types and shapes of the tensors of a network, as far as they follow from its inputs.

    Node by node, and never from a shape that cannot be: the inference in onnx aborts on some of those.

    Examples
    --------
    >>> from fastconv.network.graph.graph import Value
    >>> nodes = [Node("s", "Shape", ("x",), ("s",), {}, 17), Node("r", "Expand", ("one", "s"), ("y",), {}, 17)]
    >>> ends = [Value("x", None, None)], [Value("y", None, None)]
    >>> graph = Graph.build("g", *ends, {"one": np.ones(1, np.float32)}, nodes)
    >>> kinds_of(graph, {"x": np.ones((2, 3))})["y"].shape
    (2, 3)
    """
    return known_of(graph, given)[0]


def shapes_of(kinds: Mapping[str, Kind]) -> dict[str, tuple[int, ...]]:
    """Return the shapes among kinds, as far as they are known.

    Examples
    --------
    >>> shapes_of({"x": Kind(np.dtype(np.float32), (2, 3)), "y": Kind(np.dtype(np.float32))})
    {'x': (2, 3)}
    """
    return {name: tuple(n for n in kind.shape if n is not None) for name, kind in kinds.items() if kind.shape is not None}


def known_of(
    graph: Graph, given: Mapping[str, Any], before: tuple[Mapping[str, Kind], Mapping[str, Array]] = ({}, {})
) -> tuple[dict[str, Kind], dict[str, Array]]:
    """Return the kinds of tensors as `kinds_of`, and the values of small ones, constants included, that follow from shapes.

    `before` is what is known of the network before it was rewritten: only tensors that are new are inferred.
    """
    kinds = {name: Kind.of(value, lengths=True) for name, value in given.items() if value is not None}
    kinds |= {name: Kind.of(array, lengths=True) for name, array in graph.constants.items()}
    values = {name: array for name, array in graph.constants.items() if array.nbytes <= _SMALL}
    for node in graph.nodes:
        for leaf in leaves_of(node, graph.constants):
            if leaf.outputs and all(name in before[0] for name in leaf.outputs if name):
                kinds |= {name: before[0][name] for name in leaf.outputs if name}
                values |= {name: before[1][name] for name in leaf.outputs if name in before[1]}
                continue
            found = _computed(leaf, kinds, values)
            values |= found
            kinds |= {name: Kind.of(array, lengths=True) for name, array in found.items()} or _inferred(leaf, kinds, values)
    return {name: kind for name, kind in kinds.items() if name not in graph.constants}, values


def _computed(node: Node, kinds: Mapping[str, Kind], values: Mapping[str, Array]) -> dict[str, Array]:
    """Return the results of a node whose inputs, or their shapes if it asks for no more, are known."""
    if node.domain not in STANDARD or node.operator not in OPERATORS:
        return {}
    inputs: list[Array | None] = [values.get(name) for name in node.inputs]
    if node.operator in ("Shape", "Size") and node.inputs[0] in kinds:
        kind = kinds[node.inputs[0]]
        inputs = [np.broadcast_to(np.zeros((), kind.dtype), _lengths(kind))]
    elif any(name and name not in values for name in node.inputs):
        return {}
    try:
        with np.errstate(all="ignore"):
            result = OPERATORS[node.operator].run(Call(node.attributes, node.opset, len(node.outputs), _SMALL), *inputs)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError):
        return {}  # it is too large, or will fail again when the network runs
    arrays = [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]
    if any(array.nbytes > _SMALL for array in arrays):
        return {}
    return {name: array for name, array in zip(node.outputs, arrays, strict=False) if name}


def _inferred(node: Node, kinds: Mapping[str, Kind], values: Mapping[str, Array]) -> dict[str, Kind]:
    """Return what onnx infers of the results of a node; nothing if it knows not all inputs."""
    from onnx import numpy_helper, shape_inference

    names = [name for name in node.inputs if name]
    if node.domain not in STANDARD or any(name not in kinds or kinds[name].is_list for name in names):
        return {}
    if CROPPED in node.attributes:  # of which onnx knows nothing
        x, weight = (kinds[name] for name in node.inputs[:2])
        view = window(Call(node.attributes, node.opset), _lengths(x)[2:], _lengths(weight)[2:])
        return {node.outputs[0]: Kind(x.dtype, (_lengths(x)[0], _lengths(weight)[0], *view.out))}
    proto = proto_of(node)
    if any(attribute.HasField("g") or attribute.graphs for attribute in proto.attribute):
        return {}
    types = {name: _type_of(kinds[name]) for name in names}
    data = {name: numpy_helper.from_array(values[name], name) for name in names if name in values and values[name].dtype.kind in "biuf"}
    try:
        schema = schema_of(node.operator, node.opset).record
        found = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=[_opset(node.opset)])
    except Exception:  # the inference is C++ and raises what it likes; the run will say what is wrong
        return {}
    kinds = {}
    for name, kind in found.items():
        tensor = kind.tensor_type
        lengths = tuple(length.dim_value if length.HasField("dim_value") else -1 for length in tensor.shape.dim)
        if name and tensor.elem_type and tensor.HasField("shape") and min(lengths, default=0) >= 0:
            kinds[name] = Kind(dtype_of(tensor.elem_type), lengths)
    return kinds


@lru_cache(maxsize=1024)
def _type_of(kind: Kind) -> Any:
    return info_of("", kind).type


@cache
def _opset(version: int) -> Any:
    from onnx import helper

    return helper.make_opsetid("", version)


def _lengths(kind: Kind) -> tuple[int, ...]:
    return tuple(length or 0 for length in kind.shape or ())

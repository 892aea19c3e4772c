"""Rewrites of a network: pure functions from graph to graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Attribute, Graph, Node, Value
from fastconv.network.graph.types import code_of, dtype_of, schema_of
from fastconv.network.operators.call import is_narrow
from fastconv.network.operators.table import STANDARD, operator_of
from fastconv.network.rewrite.export import with_graphs

_NUMBERS = {np.dtype(np.float32): 1, np.dtype(np.float64): 11}
"""Formats and their ONNX element types."""


def is_float(dtype: np.dtype[Any] | None) -> bool:
    """Tell whether a type is a floating-point format."""
    return dtype is not None and (dtype.kind == "f" or is_narrow(dtype))


def retyped(graph: Graph, kind: Any) -> Graph:
    """Return the same network in float32 or float64, with constants and casts to floats converted.

    Examples
    --------
    >>> graph = Graph.build("g", [Value("x", np.dtype(np.float32), (2,))], [Value("x", np.dtype(np.float32), (2,))], {}, [])
    >>> str(retyped(graph, np.float64).inputs[0])
    'x: float64 (2)'
    """
    kind = np.dtype(kind)

    def wide(array: Array) -> Array:
        return array.astype(kind, copy=False) if is_float(array.dtype) else array

    def value(v: Value) -> Value:
        return replace(v, dtype=kind) if is_float(v.dtype) else v

    def node(n: Node) -> Node:
        operator, attributes = operator_of(n), dict[str, Attribute]()
        for name, attribute in n.attributes.items():
            if isinstance(attribute, np.ndarray):
                attributes[name] = wide(attribute)
            elif name in operator.types and attribute and is_float(dtype_of(int(attribute))):  # type: ignore[arg-type]
                attributes[name] = _NUMBERS[kind]
            else:
                attributes[name] = attribute
        graphs = {name: retyped(inner, kind) for name, inner in n.graphs.items()}
        proto = with_graphs(n.proto, graphs) if graphs else n.proto
        return replace(n, attributes=operator.retyped(attributes, kind) if operator.retyped else attributes, graphs=graphs, proto=proto)

    return Graph.build(
        graph.name,
        map(value, graph.inputs),
        map(value, graph.outputs),
        {name: wide(array) for name, array in graph.constants.items()},
        map(node, graph.nodes),
    )


def widened(graph: Graph) -> Graph:
    """Return the same network in float64."""
    return retyped(graph, np.float64)


def narrowed(graph: Graph) -> Graph:
    """Return the same network in float32, unchanged if it is already."""
    floats = [array.dtype for array in graph.constants.values()] + [value.dtype for value in graph.inputs if value.dtype is not None]
    return graph if all(dtype == np.float32 for dtype in floats if is_float(dtype)) else retyped(graph, np.float32)


def singled(graph: Graph) -> Graph:
    """Return the same network with float16 and bfloat16 computed in float32, and rounded where the model casts and at its outputs.

    onnxruntime does the same with float16: a chain of operators runs in float32, without a rounding between them. A network
    with graphs inside its nodes, or with inputs or outputs whose type is not known, is returned unchanged, as is one that its types
    make invalid.

    Examples
    --------
    >>> half, relu = np.dtype(np.float16), Node("r", "Relu", ("x",), ("y",), {}, 17)
    >>> graph = singled(Graph.build("g", [Value("x", half, (2,))], [Value("y", half, (2,))], {}, [relu]))
    >>> [(node.operator, node.inputs, node.outputs) for node in graph.nodes]
    [('Cast', ('x',), ('x, single',)), ('Relu', ('x, single',), ('y, single',)), ('Cast', ('y, single',), ('y',))]
    """
    taken = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    ends = {value.name: value for value in (*graph.inputs, *graph.outputs) if _is_half(value.dtype)}
    single = {name: f"{name}, single" for name in ends}
    halves = single or any(_is_half(array.dtype) for array in graph.constants.values()) or any(map(_casts_to_half, graph.nodes))
    if not halves or not taken.isdisjoint(single.values()) or not all(map(_is_retypable, graph.nodes)):
        return graph
    if any(value.dtype is None for value in (*graph.inputs, *graph.outputs)) or _mixes(graph):
        return graph
    opset = max((node.opset for node in graph.nodes if node.domain in STANDARD), default=21)

    def cast(before: str, after: str, dtype: Any) -> Node:
        return Node(f"cast to {after}", "Cast", (before,), (after,), {"to": code_of(np.dtype(dtype))}, opset)

    def names(given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(single.get(name, name) for name in given)

    nodes = [cast(value.name, single[value.name], np.float32) for value in graph.inputs if value.name in single]
    for node in graph.nodes:
        attributes = {name: _single(value) for name, value in node.attributes.items()}
        proto = None if node.proto is None else _renamed(node.proto, names)
        made = replace(node, inputs=names(node.inputs), outputs=names(node.outputs), attributes=attributes, proto=proto)
        if _casts_to_half(node):
            rounded = f"{node.outputs[0]}, rounded"
            nodes += [replace(made, outputs=(rounded,)), cast(rounded, made.outputs[0], np.float32)]
        else:
            nodes.append(made)
    given = {value.name for value in graph.inputs}
    nodes += [cast(single[v.name], v.name, v.dtype) for v in graph.outputs if v.name in single and v.name not in given]
    constants = {single.get(name, name): _single(array) for name, array in graph.constants.items()}
    return Graph.build(graph.name, graph.inputs, graph.outputs, constants, nodes)


def _is_half(dtype: np.dtype[Any] | None) -> bool:
    return dtype is not None and dtype.itemsize == 2 and is_float(dtype)


def _single(value: Any) -> Any:
    """Return an array of halves in float32, and anything else as it is."""
    return value.astype(np.float32) if isinstance(value, np.ndarray) and _is_half(value.dtype) else value


def _casts_to_half(node: Node) -> bool:
    return node.operator == "Cast" and _is_half(dtype_of(int(node.attributes["to"])))  # type: ignore[arg-type]


def _is_retypable(node: Node) -> bool:
    """Tell whether a node computes in the types of its inputs: none stands in a graph inside it, or in its attributes."""
    types = [] if node.operator == "Cast" else [node.attributes[name] for name in operator_of(node).types if node.attributes.get(name)]
    if any(_is_half(dtype_of(int(code))) for code in types):  # type: ignore[arg-type]
        return False
    return node.proto is None or not any(a.HasField("g") or a.graphs or a.HasField("t") or a.name == "dtype" for a in node.proto.attribute)


def _renamed(proto: Any, names: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Any:
    """Return a node of a model file with other names of its tensors."""
    made = type(proto)()
    made.CopyFrom(proto)
    del made.input[:], made.output[:]
    made.input.extend(names(tuple(proto.input)))
    made.output.extend(names(tuple(proto.output)))
    return made


def _mixes(graph: Graph) -> bool:
    """Tell whether a node that takes one type is given two, as far as types follow without an inference."""
    types = {value.name: value.dtype for value in graph.inputs} | {name: array.dtype for name, array in graph.constants.items()}
    for node in graph.nodes:
        if node.operator == "Cast":
            types[node.outputs[0]] = dtype_of(int(node.attributes["to"]))  # type: ignore[arg-type]
        elif operator_of(node).narrow == "uniform":
            given = {types[name] for name in node.inputs if name in types}
            if len(given) > 1:
                return True
            schema = schema_of(node.operator, node.opset).record
            if given and schema.inputs[0].type_str == schema.outputs[0].type_str:  # a comparison gives another
                types[node.outputs[0]] = given.pop()
    return False


POLICIES: Mapping[str, Callable[[Graph], Graph]] = {"fp32": singled, "fp64": widened}
"""The policies of `Network.run` without emulation, and the rewrite of each."""

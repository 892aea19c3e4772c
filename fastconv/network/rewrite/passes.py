"""Rewrites of a network: pure functions from graph to graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Attribute, Graph, Node, Value
from fastconv.network.graph.types import dtype_of
from fastconv.network.operators.call import is_narrow
from fastconv.network.operators.table import operator_of
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


def unchanged(graph: Graph) -> Graph:
    """Return the network unchanged, with every tensor in the model's type."""
    return graph


POLICIES: Mapping[str, Callable[[Graph], Graph]] = {"fp32": unchanged, "fp64": widened}
"""The policies of `Network.run` without emulation, and the rewrite of each."""

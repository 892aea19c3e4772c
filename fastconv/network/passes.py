"""Rewrites of a network: pure functions from graph to graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.network.graph import Array, Attribute, Graph, Node, Value
from fastconv.network.operators.shape import dtype_of

_DOUBLE = 11
"""float64 in ONNX's numbering of element types."""


def _is_float(dtype: np.dtype[Any] | None) -> bool:
    # The small formats of ml_dtypes have kind "V"; they are floating-point unless their name says integer.
    return dtype is not None and (dtype.kind == "f" or dtype.kind == "V" and "float" in dtype.name)


def widened(graph: Graph) -> Graph:
    """Return the same network in float64: constants converted exactly, casts to any float made casts to float64.

    Examples
    --------
    >>> graph = Graph.build("g", [Value("x", np.dtype(np.float32), (2,))], [Value("x", np.dtype(np.float32), (2,))], {}, [])
    >>> str(widened(graph).inputs[0])
    'x: float64 (2)'
    """

    def wide(array: Array) -> Array:
        return array.astype(np.float64) if _is_float(array.dtype) else array

    def value(v: Value) -> Value:
        return replace(v, dtype=np.dtype(np.float64)) if _is_float(v.dtype) else v

    def node(n: Node) -> Node:
        attributes: dict[str, Attribute] = {}
        for name, attribute in n.attributes.items():
            if isinstance(attribute, np.ndarray):
                attributes[name] = wide(attribute)
            elif (n.operator, name) in (("Cast", "to"), ("EyeLike", "dtype")) and _is_float(dtype_of(int(attribute))):  # type: ignore[arg-type]
                attributes[name] = _DOUBLE
            elif n.operator == "Constant" and name in ("value_float", "value_floats"):
                attributes["value"] = np.asarray(attribute, np.float64)
            else:
                attributes[name] = attribute
        if n.operator == "ConstantOfShape":
            attributes.setdefault("value", np.zeros(1))  # the standard's default is a float32 zero
        return replace(n, attributes=attributes)

    return Graph.build(
        graph.name,
        map(value, graph.inputs),
        map(value, graph.outputs),
        {name: wide(array) for name, array in graph.constants.items()},
        map(node, graph.nodes),
    )


def unchanged(graph: Graph) -> Graph:
    """Return the network as it is: every tensor in the type that the model gives it."""
    return graph


POLICIES: Mapping[str, Callable[[Graph], Graph]] = {"fp32": unchanged, "fp64": widened}
"""What `Network.run` accepts as policy, and the rewrite that each stands for."""

"""The table of operator records, joined from the modules that define them."""

from __future__ import annotations

from collections.abc import Mapping

from fastconv.network.graph.graph import Node
from fastconv.network.operators import activation, convolution, elementwise, linear, normalization, pool, reduction
from fastconv.network.operators.record import Operator, joined
from fastconv.network.operators.tensors import indexing, quantization, resize, shape

_MODULES = (activation, convolution, elementwise, indexing, linear, normalization, pool, quantization, reduction, resize, shape)

OPERATORS: Mapping[str, Operator] = joined(*(module.OPERATORS for module in _MODULES))


def operator_of(node: Node) -> Operator:
    """Return the record of a node's operator, or raise ValueError with the node's name."""
    if node.operator not in OPERATORS:
        raise ValueError(f"{node}: the operator {node.operator} is not supported")
    return OPERATORS[node.operator]

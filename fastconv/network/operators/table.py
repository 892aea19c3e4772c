"""The table of operator records, joined from the modules that define them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastconv.network.graph.graph import Node
from fastconv.network.operators import activation, convolution, elementwise, linear, normalization, pool, reduction
from fastconv.network.operators.call import Call
from fastconv.network.operators.record import Operator, joined
from fastconv.network.operators.tensors import indexing, quantization, resize, shape

_MODULES = (activation, convolution, elementwise, indexing, linear, normalization, pool, quantization, reduction, resize, shape)

STANDARD = ("", "ai.onnx")
"""Names of the domain of the operators that have records."""

OPERATORS: Mapping[str, Operator] = joined(*(module.OPERATORS for module in _MODULES))


def _refused(call: Call, *inputs: Any) -> Any:
    raise ValueError("only onnxruntime runs this operator")


FOREIGN = Operator("", _refused, narrow="own")
"""The record of what only onnxruntime runs."""


def operator_of(node: Node) -> Operator:
    """Return the record of a node's operator; one that claims nothing if only onnxruntime runs it."""
    return OPERATORS.get(node.operator, FOREIGN) if node.domain in STANDARD else FOREIGN

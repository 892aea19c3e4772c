"""The operators of a network: a table from the standard's names to pure functions ``operator(call, *inputs)``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fastconv.network.operators import activation, convolution, elementwise, linear, normalization, pool, reduction
from fastconv.network.operators.call import Operator, rounded_once
from fastconv.network.operators.tensors import indexing, quantization, resize, shape

_ARITHMETIC = (activation, convolution, elementwise, linear, normalization, pool, reduction, resize)
_MOVING = (indexing, quantization, shape)
"""Modules whose operators move what they are given, or know themselves in what format they compute."""
_UNIFORM = (convolution, elementwise, linear)
"""Modules whose operators take numbers of one type."""
_STASHING = frozenset({"GroupNormalization", "LayerNormalization", "RMSNormalization"})
"""Operators of which the standard says where they round: they compute in float32 themselves."""

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {name: op for module in _MOVING for name, op in module.OPERATORS.items()}
    | {
        name: op if name in _STASHING else rounded_once(op, module in _UNIFORM and name != "Pow")
        for module in _ARITHMETIC
        for name, op in module.OPERATORS.items()
    }
)

"""The operators of a network: a table from the standard's names to pure functions ``operator(call, *inputs)``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fastconv.network.operators import (
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pool,
    reduction,
    resize,
    shape,
)
from fastconv.network.operators.call import MEMORY_LIMIT, Call, Operator

_MODULES = (activation, convolution, elementwise, indexing, linear, normalization, pool, reduction, resize, shape)

OPERATORS: Mapping[str, Operator] = MappingProxyType({name: op for module in _MODULES for name, op in module.OPERATORS.items()})

__all__ = ["MEMORY_LIMIT", "OPERATORS", "Call", "Operator"]

"""The operators of a network: a table from the standard's names to pure functions ``operator(call, *inputs)``."""

from fastconv.network.operators.call import MEMORY_LIMIT, Call, Operator, is_narrow
from fastconv.network.operators.convolution import in_a_plane
from fastconv.network.operators.table import OPERATORS

__all__ = ["MEMORY_LIMIT", "OPERATORS", "Call", "Operator", "in_a_plane", "is_narrow"]

"""The operators of a network: a table from ONNX names to records."""

from fastconv.network.operators.call import MEMORY_LIMIT, Call, is_narrow
from fastconv.network.operators.convolution import in_a_plane
from fastconv.network.operators.record import Operator
from fastconv.network.operators.table import OPERATORS, operator_of

__all__ = ["MEMORY_LIMIT", "OPERATORS", "Call", "Operator", "in_a_plane", "is_narrow", "operator_of"]

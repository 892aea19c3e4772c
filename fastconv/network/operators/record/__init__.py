"""The record of an operator, which all other parts of the network read."""

from fastconv.network.operators.record.operator import Blocks, Operator, Weights, joined
from fastconv.network.operators.record.place import Allocate, Compiled, Place, Readers

__all__ = ["Allocate", "Blocks", "Compiled", "Operator", "Place", "Readers", "Weights", "joined"]

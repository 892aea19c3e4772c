"""Predict the error of an algorithm in closed form."""

from fastconv.error.predict.nodes import nodes_of
from fastconv.error.predict.rounding import unit

__all__ = ["nodes_of", "unit"]

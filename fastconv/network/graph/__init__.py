"""A network as a graph, and the ONNX files that store it."""

from fastconv.network.graph.graph import Array

__all__ = ["Array"]

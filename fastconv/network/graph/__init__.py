"""A network as a graph, and the ONNX files that it is read from."""

from fastconv.network.graph.graph import Array

__all__ = ["Array"]

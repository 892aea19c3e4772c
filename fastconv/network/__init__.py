"""Networks: a graph read from ONNX, run with any convolution algorithm, compared with the same network in float64."""

from fastconv.network.graph import Graph, Node, Value
from fastconv.network.onnx_import import read_onnx
from fastconv.network.run import Network, Runner, load_onnx

__all__ = ["Graph", "Network", "Node", "Runner", "Value", "load_onnx", "read_onnx"]

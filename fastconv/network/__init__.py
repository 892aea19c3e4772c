"""Networks: a graph read from ONNX, run with any convolution algorithm, compared with the same network in float64."""

from fastconv.network.compare import Comparison, Contender, Row, compare, first_images, published_contenders, usual_contenders
from fastconv.network.explain import Explanation, LayerChoice, Option
from fastconv.network.fetch import FetchError
from fastconv.network.fit import fitted, fitted_contenders, known_algorithms
from fastconv.network.graph import Graph, Node, Value
from fastconv.network.onnx_import import read_onnx
from fastconv.network.pretrained import KnownNetwork, known_network, known_networks
from fastconv.network.run import Network, Runner, load_onnx

__all__ = [
    "Comparison",
    "Contender",
    "Explanation",
    "FetchError",
    "Graph",
    "KnownNetwork",
    "LayerChoice",
    "Network",
    "Node",
    "Option",
    "Row",
    "Runner",
    "Value",
    "compare",
    "first_images",
    "fitted",
    "fitted_contenders",
    "known_algorithms",
    "known_network",
    "known_networks",
    "load_onnx",
    "published_contenders",
    "read_onnx",
    "usual_contenders",
]

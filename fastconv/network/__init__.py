"""Read networks from ONNX, run them with any algorithm, compare with float64."""

from fastconv.network.explain import Explanation, LayerChoice, Option
from fastconv.network.graph.graph import Graph, Node, Value
from fastconv.network.load.onnx_import import read_onnx
from fastconv.network.network import Network, load_onnx
from fastconv.network.predict.fit import fitted, known_algorithms
from fastconv.network.run.execute import Runner
from fastconv.network.study.compare import Comparison, Contender, Row, compare, first_images, published_contenders, usual_contenders
from fastconv.network.study.contenders import fitted_contenders
from fastconv.network.zoo.fetch import FetchError
from fastconv.network.zoo.pretrained import KnownNetwork, known_network, known_networks

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

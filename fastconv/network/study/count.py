"""Count the multiply-adds of a network, and the share in convolutions that fast algorithms run."""

from __future__ import annotations

from collections.abc import Mapping

from fastconv.network.graph.graph import Array
from fastconv.network.network import Network
from fastconv.network.operators.table import operator_of
from fastconv.network.run.assign import is_eligible


def multiply_adds(net: Network, feeds: Mapping[str, Array]) -> dict[str, int]:
    """Return the multiply-adds of each layer with constant weights, for these inputs.

    Parameters
    ----------
    net : Network
        The network.
    feeds : mapping
        Input name to array.

    Returns
    -------
    dict
        Name of each Conv, ConvTranspose, Gemm and MatMul node to its multiply-adds, paddings included.
    """
    graph = net.graph
    pairs = [(node, operator_of(node).weights) for node in graph.nodes if len(node.inputs) > 1 and node.inputs[1] in graph.constants]
    layers = [(node, weights) for node, weights in pairs if weights is not None]
    at = {node.name: node.inputs[0] if weights.per_input else node.outputs[0] for node, weights in layers}
    values = net.prepare("direct")(feeds, dict.fromkeys(at.values()))
    return {node.name: values[at[node.name]].size * weights.terms(node, graph.constants[node.inputs[1]]) for node, weights in layers}


def fast_share(net: Network, feeds: Mapping[str, Array]) -> float:
    """Return the share of multiply-adds in dense convolutions of stride 1 with kernels of 3x3 or more.

    Examples
    --------
    >>> from fastconv.network import known_network
    >>> fashion = known_network("fashion")
    >>> round(fast_share(fashion.load(), {"image": fashion.inputs()["image"][:1]}), 3)
    1.0
    """
    counts = multiply_adds(net, feeds)
    fast = sum(
        counts[node.name]
        for node in net.graph.convolutions
        if node.name in counts and is_eligible(net.graph, node) and min(net.graph.constants[node.inputs[1]].shape[2:]) >= 3
    )
    return fast / max(sum(counts.values()), 1)

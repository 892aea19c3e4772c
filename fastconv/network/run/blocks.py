"""Find the tensors of a network that may be channels-blocked.

The layout exists only inside a network, between layers that support it: (batch, channels / lanes, height, width, lanes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.operators.table import operator_of
from fastconv.network.rewrite.cut import PART


def readers_in_blocks(graph: Graph, wanted: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Node, ...]]:
    """Return the images whose writer and readers all support the layout, with readers.

    What onnxruntime writes is taken for an image if its shape is known to have four lengths: five are those of blocks, but also of
    other tensors. Shapes and methods determine later which of them are blocked: a writer checks that its readers accept the layout.
    """
    readers: dict[str, list[Node]] = {}
    spared = {value.name for value in graph.outputs} | set(wanted)
    for node in graph.nodes:
        for part in (node, *node.fused):
            for k, name in enumerate(part.inputs):
                readers.setdefault(name, []).append(node)
                if node.operator != PART and (k > 0 or part is not node or not _serves(graph, node)):
                    spared.add(name)
    written = {
        name for node in graph.nodes if _serves(graph, node) and len(node.inputs) < 4 or node.operator == PART for name in node.outputs
    }
    images = {name for name, shape in shapes.items() if len(shape) == 4}
    parts = {name for node in graph.nodes if node.operator == PART for name in node.outputs}
    return {name: tuple(nodes) for name, nodes in readers.items() if name in written - spared - (parts - images)}


def _serves(graph: Graph, node: Node) -> bool:
    blocks = operator_of(node).blocks
    return blocks is not None and blocks.serves(node, graph.constants)


def plain_shape(array: Array) -> tuple[int, int, int, int]:
    """Return the shape of a channels-blocked tensor in the model's layout."""
    batch, blocks, height, width, lanes = array.shape
    return batch, blocks * lanes, height, width


def plain(array: Array) -> Array:
    """Return a channels-blocked tensor in the model's layout."""
    return np.ascontiguousarray(np.moveaxis(array, 4, 2)).reshape(plain_shape(array))

"""Which tensors may lie in blocks of channels, a pixel a vector: transforms and pools then run on vectors as they lie.

The layout is inside a network only, between layers that read and write it: (batch, channels / lanes, height, width, lanes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Node

Readers = Mapping[str, tuple[Node, ...]]


def readers_in_blocks(graph: Graph, wanted: Iterable[str]) -> dict[str, tuple[Node, ...]]:
    """Return the tensors that only convolutions and max pools write and read, with those that read them.

    Shapes and methods tell later which of them do lie in blocks: a writer looks whether its readers take them.
    """
    readers: dict[str, list[Node]] = {}
    spared = {value.name for value in graph.outputs} | set(wanted)
    for node in graph.nodes:
        for part in (node, *node.fused):
            for k, name in enumerate(part.inputs):
                readers.setdefault(name, []).append(node)
                if k > 0 or part is not node or not _serves(graph, node):
                    spared.add(name)
    written = {node.outputs[0] for node in graph.nodes if _serves(graph, node) and len(node.inputs) < 4}
    return {name: tuple(nodes) for name, nodes in readers.items() if name in written - spared}


def _serves(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution or a max pool with one result, of images."""
    if node.operator == "MaxPool":
        return len([name for name in node.outputs if name]) == 1 and not node.fused and len(node.attributes.get("kernel_shape", ())) == 2  # type: ignore[arg-type]
    weight = graph.constants.get(node.inputs[1]) if node.operator == "Conv" else None
    return weight is not None and weight.ndim == 4


def lies_in_blocks(name: str, array: Array | None, readers: Readers) -> bool:
    """Whether a tensor, which may, does lie in blocks."""
    return array is not None and name in readers and array.ndim == 5


def plain_shape(array: Array) -> tuple[int, int, int, int]:
    """Return the shape of a tensor in blocks as the model has it."""
    batch, blocks, height, width, lanes = array.shape
    return batch, blocks * lanes, height, width


def plain(array: Array) -> Array:
    """Return a tensor in blocks as the model has it."""
    return np.ascontiguousarray(np.moveaxis(array, 4, 2)).reshape(plain_shape(array))

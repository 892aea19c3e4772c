"""Run operators on compiled kernels where supported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastconv.kernels import Activation
from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call
from fastconv.network.operators.record import Place
from fastconv.network.operators.table import operator_of


def fast(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    """Run a node and its fused nodes on a compiled kernel, or return None if none supports it."""
    compiled = operator_of(node).compiled
    if compiled is None or not inputs or inputs[0] is None or inputs[0].size == 0 or inputs[0].dtype.kind != "f":
        return None
    return compiled(node, call, inputs, place)


def activation_of(nodes: tuple[Node, ...], constants: Mapping[str, Array], shape: tuple[int, ...]) -> Any:
    """Return fused nodes as an activation on a tensor of that shape, or None."""
    slopes = operator_of(nodes[0]).activation if len(nodes) == 1 else None
    found = None if slopes is None else slopes(nodes[0], constants, shape[1] if len(shape) == 4 else None)
    return None if found is None else Activation(*found)

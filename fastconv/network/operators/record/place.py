"""The execution context that a compiled form gets with node, call and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call

Allocate = Callable[[tuple[int, ...], Any], Array]
Readers = Mapping[str, tuple[Node, ...]]


class Place(NamedTuple):
    """The execution context of an operator: constants of the network, allocation of results, threads."""

    constants: Mapping[str, Array]
    allocate: Allocate
    threads: int
    plan: Callable[[Any, Callable[[], Any]], Any]
    """``plan(key, make)`` returns the node's cached plan for a key."""
    do: Callable[[Any], None]
    """Run a job and record it: it reads its inputs only through arrays, so the tape can replay it."""
    now: Callable[[Any], None]
    """Run any other job."""
    activation: Callable[[tuple[Node, ...], tuple[int, ...]], Any]
    """``activation(nodes, shape)`` returns fused nodes as an activation; None for no node, or for other operators."""
    dying: frozenset[str] = frozenset()
    """Inputs that no later node reads: this node may overwrite them."""
    blocks: Readers = MappingProxyType({})
    """Tensors that may be channels-blocked, with the nodes that read them."""
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Shapes of tensors, as far as they follow from those of the inputs."""

    def is_blocked(self, name: str, array: Array | None) -> bool:
        """Return whether a tensor is channels-blocked."""
        return array is not None and name in self.blocks and array.ndim == 5


Compiled = Callable[[Node, Call, "list[Array | None]", Place], "Array | None"]
"""``compiled(node, call, inputs, place)`` runs a node and its fused nodes on a compiled kernel, or returns None if it cannot."""

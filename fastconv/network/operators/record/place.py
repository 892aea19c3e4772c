"""Where an operator computes: what a compiled form is given besides node, call and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call

Allocate = Callable[[tuple[int, ...], Any], Array]
Readers = Mapping[str, tuple[Node, ...]]


class Place(NamedTuple):
    """Where an operator computes: the network's constants, where results go, threads."""

    constants: Mapping[str, Array]
    allocate: Allocate
    threads: int
    plan: Callable[[Any, Callable[[], Any]], Any]
    """``plan(key, make)`` returns the node's plan for a key, made once."""
    do: Callable[[Any], None]
    """Run a job and record it: it reads its inputs only through arrays, so the tape can replay it."""
    now: Callable[[Any], None]
    """Run any other job."""
    activation: Callable[[tuple[Node, ...], tuple[int, ...]], Any]
    """``activation(nodes, shape)`` returns the activation that fused nodes are; None for no node, or where they are no such."""
    dying: frozenset[str] = frozenset()
    """Inputs that nobody reads after this node: it may write over them."""
    blocks: Readers = MappingProxyType({})
    """Tensors that may have the channels-blocked layout, with the nodes that read them."""

    def is_blocked(self, name: str, array: Array | None) -> bool:
        """Tell whether a tensor has the channels-blocked layout."""
        return array is not None and name in self.blocks and array.ndim == 5


Compiled = Callable[[Node, Call, "list[Array | None]", Place], "Array | None"]
"""``compiled(node, call, inputs, place)`` runs a node, with what is fused to it, on a compiled kernel; None where none serves it."""

"""A network as a frozen graph: nodes in topological order, constants, typed inputs and outputs.

Every rewrite is a pure function ``Graph -> Graph`` that ends in `Graph.build`, which orders and checks the nodes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attribute = int | float | str | Array | tuple[Any, ...]
Dimension = int | str | None
"""A length, the name of a length that the input sets (equal names mean equal lengths), or None for any length."""


@dataclass(frozen=True)
class Value:
    """An input or output of a network: its name, element type and shape (None if unknown).

    Examples
    --------
    >>> str(Value("image", np.dtype(np.float32), ("N", 1, 28, 28)))
    'image: float32 (N, 1, 28, 28)'
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[Dimension, ...] | None

    def __str__(self) -> str:
        kind = "any type" if self.dtype is None else str(self.dtype)
        shape = "of any shape" if self.shape is None else f"({', '.join('?' if d is None else str(d) for d in self.shape)})"
        return f"{self.name}: {kind} {shape}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operator: ``outputs = operator(inputs)``; an omitted input has an empty name.

    `opset` is the version of the operator set by which the operator and its `attributes` are read. `fused` are nodes that
    run on its result at once, each on that of the one before; the last one's outputs are those of the node. `body` are the
    nodes that a node stands for, in the tensors of the network. `proto` is the node as the model file has it, of an operator
    that has no record here: its `inputs` are also those of the graphs inside it. `graphs` are these graphs by attribute, such as
    the branches of an If: the inputs of each are its own, then those that it reads from outside.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    opset: int
    fused: tuple[Node, ...] = ()
    body: tuple[Node, ...] = ()
    domain: str = ""
    proto: Any = None
    graphs: Mapping[str, Graph] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.operator})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: inputs, constants, nodes in execution order, outputs.

    Use `Graph.build`, which orders and checks the nodes; the constructor does not.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]

    @staticmethod
    def build(name: str, inputs: Iterable[Value], outputs: Iterable[Value], constants: Mapping[str, Array], nodes: Iterable[Node]) -> Graph:
        """Order the nodes, freeze the constants and check that every name has exactly one source.

        Raises
        ------
        ValueError
            If two sources have the same name, an input or output has no source, or there is a cycle.

        Examples
        --------
        >>> relu = Node("a", "Relu", ("x",), ("y",), {}, 17)
        >>> graph = Graph.build("tiny", [Value("x", None, None)], [Value("y", None, None)], {}, [relu])
        >>> [str(node) for node in graph.nodes]
        ["node 'a' (Relu)"]
        >>> Graph.build("tiny", [], [Value("y", None, None)], {}, [relu])
        Traceback (most recent call last):
        ValueError: node 'a' (Relu) reads 'x', which nothing in the model produces
        """
        inputs, outputs, nodes = tuple(inputs), tuple(outputs), tuple(nodes)
        frozen = {}
        for key, array in constants.items():
            frozen[key] = array.view()
            frozen[key].flags.writeable = False
        _check_sources(inputs, outputs, frozen, nodes)
        ordered = _topological(nodes, {value.name for value in inputs} | set(frozen))
        return Graph(name, inputs, outputs, MappingProxyType(frozen), ordered)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that read the tensor `name`."""
        return tuple(node for node in self.nodes if name in node.inputs)

    @property
    def convolutions(self) -> tuple[Node, ...]:
        """The Conv nodes, in the order in which they run."""
        return tuple(node for node in self.nodes if node.operator == "Conv")

    @property
    def inner_convolutions(self) -> tuple[Node, ...]:
        """The Conv nodes inside If, Loop and Scan, at any depth."""
        bodies = [graph for node in self.nodes for graph in node.graphs.values()]
        return tuple(node for graph in bodies for node in (*graph.convolutions, *graph.inner_convolutions))


def _check_sources(inputs: tuple[Value, ...], outputs: tuple[Value, ...], constants: Mapping[str, Array], nodes: tuple[Node, ...]) -> None:
    sources = Counter(value.name for value in inputs)
    sources.update(constants.keys())
    sources.update(name for node in nodes for name in node.outputs if name)
    for name, count in sources.items():
        if count > 1:
            raise ValueError(f"{name!r} has {count} sources in the model; each tensor must have exactly one")
    for node in nodes:
        for name in node.inputs:
            if name and name not in sources:
                raise ValueError(f"{node} reads {name!r}, which nothing in the model produces")
    for value in outputs:
        if value.name not in sources:
            raise ValueError(f"the output {value.name!r} is produced by nothing in the model")


def _topological(nodes: tuple[Node, ...], known: set[str]) -> tuple[Node, ...]:
    """Return the nodes in topological order (Kahn's algorithm), unchanged if they are already."""
    there = known | {""}
    for node in nodes:
        if not there.issuperset(node.inputs):
            break
        there.update(node.outputs)
    else:
        return nodes
    waits = [len({name for name in node.inputs if name and name not in known}) for node in nodes]
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in {name for name in node.inputs if name and name not in known}:
            readers.setdefault(name, []).append(index)
    ready = deque(index for index, count in enumerate(waits) if count == 0)
    ordered = []
    while ready:
        index = ready.popleft()
        ordered.append(nodes[index])
        for name in nodes[index].outputs:
            for reader in readers.get(name, ()):
                waits[reader] -= 1
                if waits[reader] == 0:
                    ready.append(reader)
    if len(ordered) < len(nodes):
        stuck = next(node for node, count in zip(nodes, waits, strict=True) if count)
        raise ValueError(f"the model has a cycle: {stuck} waits for its own result")
    return tuple(ordered)

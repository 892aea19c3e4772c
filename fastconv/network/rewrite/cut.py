"""Cut a network into the nodes that run on fastconv's kernels and the parts that onnxruntime runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from fastconv.network.graph.graph import Graph, Node

PART = "Part"
"""Operator of a node whose `body` is a part of the network for onnxruntime."""


def cut(graph: Graph, kept: Collection[str], own: Callable[[Node], bool]) -> Graph:
    """Return the network with the nodes that fastconv does not run collected into as few parts as possible.

    A part never waits for a node that waits for the part: every node has a level, which rises where a part follows a node of
    ours, and a part holds all nodes of onnxruntime's on one level.

    Parameters
    ----------
    graph : Graph
    kept : collection of str
        Tensors that must be available besides the outputs.
    own : callable
        ``own(node)`` tells whether a node runs on fastconv's kernels.

    Examples
    --------
    >>> from fastconv.network.graph.graph import Value
    >>> names = (("Abs", "x", "a"), ("Conv", "a", "b"), ("Exp", "b", "c"), ("Cos", "c", "y"))
    >>> chain = [Node(operator, operator, (x,), (y,), {}, 17) for operator, x, y in names]
    >>> graph = Graph.build("g", [Value("x", None, None)], [Value("y", None, None)], {}, chain)
    >>> [[inner.name for inner in node.body] or node.name for node in cut(graph, (), lambda node: node.name == "Conv").nodes]
    [['Abs'], 'Conv', ['Exp', 'Cos']]
    """
    mine = {node.name for node in graph.nodes if own(node)}
    level: dict[str, int] = {}
    steps: dict[tuple[int, bool], list[Node]] = {}
    ours: dict[str, bool] = {}
    for node in graph.nodes:
        here, at = node.name in mine, 0
        for name in reads(node):
            if name in level:
                at = max(at, level[name] + (ours[name] and not here))
        steps.setdefault((at, here), []).append(node)
        for name in node.outputs:
            level[name], ours[name] = at, here
    readers = _readers(graph, kept)
    sources = {value.name for value in graph.inputs} | {name for node in graph.nodes for name in node.outputs} | set(graph.constants)
    nodes: list[Node] = []
    for (at, here), found in sorted(steps.items()):  # on one level, the part runs first
        nodes += found if here else [_part(f"part {at}", found, readers, sources)]
    return Graph.build(graph.name, graph.inputs, graph.outputs, graph.constants, nodes)


def reads(node: Node) -> list[str]:
    """Return the tensors that a node reads, with what is fused to it."""
    return [name for part in (node, *node.fused) for name in part.inputs if name]


def connected(nodes: Iterable[Node]) -> list[list[Node]]:
    """Group nodes that are linked by tensors.

    Examples
    --------
    >>> a, b, c = (Node(n, "Abs", (x,), (n,), {}, 17) for n, x in (("a", "x"), ("b", "a"), ("c", "x")))
    >>> [[node.name for node in group] for group in connected([a, b, c])]
    [['a', 'b'], ['c']]
    """
    nodes = list(nodes)
    group = list(range(len(nodes)))

    def first(k: int) -> int:
        while group[k] != k:
            group[k] = k = group[group[k]]
        return k

    maker = {name: k for k, node in enumerate(nodes) for name in node.outputs}
    for k, node in enumerate(nodes):
        for name in reads(node):
            if name in maker:
                ends = sorted((first(k), first(maker[name])))
                group[ends[1]] = ends[0]
    groups: dict[int, list[Node]] = {}
    for k, node in enumerate(nodes):
        groups.setdefault(first(k), []).append(node)
    return list(groups.values())


def _readers(graph: Graph, kept: Collection[str]) -> dict[str, set[str]]:
    """Return who reads each tensor, by name; the caller, who reads outputs and kept tensors, has no name."""
    readers: dict[str, set[str]] = {name: {""} for name in (*(value.name for value in graph.outputs), *kept)}
    for node in graph.nodes:
        for name in reads(node):
            readers.setdefault(name, set()).add(node.name)
    return readers


def _part(name: str, nodes: list[Node], readers: Mapping[str, set[str]], sources: Collection[str]) -> Node:
    """Collect nodes; what is handed on within a fused node is no tensor of the network."""
    inside = {node.name for node in nodes}
    made = dict.fromkeys(name for node in nodes for name in node.outputs if name)
    inputs = dict.fromkeys(name for node in nodes for name in reads(node) if name not in made and name in sources)
    outputs = tuple(name for name in made if readers.get(name, set()) - inside)
    return Node(name, PART, tuple(inputs), outputs, {}, 0, body=tuple(nodes))

"""Divide the nodes of a network between fastconv and onnxruntime at the least cost: a minimum cut.

Every node has a gain if fastconv runs it, and every tensor that crosses from one side to the other has a price. The division of
the largest sum is a minimum cut of a network of flows, found by Dinic's algorithm (1970).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from fastconv.network.graph.graph import Node
from fastconv.network.rewrite.cut import reads

_OURS, _THEIRS = 0, 1
_ENDLESS = float("inf")


def divided(nodes: Iterable[Node], gains: Mapping[str, float], price: float) -> frozenset[str]:
    """Return the names of the nodes that fastconv runs.

    Parameters
    ----------
    nodes : iterable of Node
        All nodes of the network, in order.
    gains : mapping
        What is gained if fastconv runs a node, by name: negative for a loss, infinite where it has to. onnxruntime runs the others.
    price : float
        What a tensor costs that crosses, once for all readers on the other side. Inputs and constants cost nothing.

    Examples
    --------
    A convolution that is a little slower here joins two that are faster:

    >>> names = (("a", "x"), ("b", "a"), ("c", "b"), ("d", "c"))
    >>> chain = [Node(name, "Conv", (x,), (name,), {}, 17) for name, x in names]
    >>> sorted(divided(chain, {"a": 5.0, "b": -1.0, "c": 5.0, "d": -4.0}, 2.0))
    ['a', 'b', 'c']
    >>> sorted(divided(chain, {"a": 5.0, "b": -5.0, "c": 3.0, "d": -4.0}, 2.0))
    ['a']
    """
    nodes = list(nodes)
    if sum(max(gain, 0.0) for gain in gains.values()) <= 0.0:
        return frozenset()
    flows = _Flows()
    at = {node.name: flows.vertex() if node.name in gains else _THEIRS for node in nodes}
    for name, gain in gains.items():
        if gain > 0:
            flows.arc(_OURS, at[name], gain)
        elif gain < 0:
            flows.arc(at[name], _THEIRS, -gain)
    makers = {name: at[node.name] for node in nodes for name in node.outputs if name}
    readers: dict[str, set[int]] = {}
    for node in nodes:
        for name in reads(node):
            if name in makers:
                readers.setdefault(name, set()).add(at[node.name])
    for name, found in readers.items():
        _crossing(flows, makers[name], found - {makers[name]}, price)
    ours = flows.cut()
    return frozenset(name for name in gains if at[name] in ours)


def _crossing(flows: _Flows, maker: int, readers: Collection[int], price: float) -> None:
    """Let a tensor cost its price if a reader is on the other side than its maker."""
    if len(readers) == 1:
        (reader,) = readers
        flows.arc(maker, reader, price, price)
    elif readers:
        leaves, enters = flows.vertex(), flows.vertex()
        flows.arc(maker, leaves, price)
        flows.arc(enters, maker, price)
        for reader in readers:
            flows.arc(leaves, reader, _ENDLESS)
            flows.arc(reader, enters, _ENDLESS)


class _Flows:
    """A network of flows from vertex 0 to vertex 1."""

    def __init__(self) -> None:
        self._arcs: list[list[int]] = [[], []]  # of each vertex, by number
        self._ends: list[int] = []  # of each arc; its reverse has the number with the last bit flipped
        self._room: list[float] = []

    def vertex(self) -> int:
        """Add a vertex."""
        self._arcs.append([])
        return len(self._arcs) - 1

    def arc(self, start: int, end: int, room: float, back: float = 0.0) -> None:
        """Add an arc, and its reverse."""
        for a, b, capacity in ((start, end, room), (end, start, back)):
            self._arcs[a].append(len(self._ends))
            self._ends.append(b)
            self._room.append(capacity)

    def cut(self) -> frozenset[int]:
        """Return the vertices on the side of vertex 0 of the minimum cut that has the fewest."""
        while _THEIRS in (levels := self._levels()):
            left = [iter(arcs) for arcs in self._arcs]
            while self._push(levels, left):
                pass
        return frozenset(levels)

    def _levels(self) -> dict[int, int]:
        levels, queue = {_OURS: 0}, deque([_OURS])
        while queue:
            vertex = queue.popleft()
            for arc in self._arcs[vertex]:
                end = self._ends[arc]
                if self._room[arc] > 0 and end not in levels:
                    levels[end] = levels[vertex] + 1
                    queue.append(end)
        return levels

    def _push(self, levels: Mapping[int, int], left: list[Iterator[int]]) -> bool:
        """Send what fits along one path of rising levels, trying each arc only as long as it leads on."""
        path: list[int] = []
        vertex = _OURS
        while vertex != _THEIRS:
            for arc in left[vertex]:
                if self._room[arc] > 0 and levels.get(self._ends[arc], -1) == levels[vertex] + 1:
                    path.append(arc)
                    vertex = self._ends[arc]
                    break
            else:
                if not path:
                    return False
                vertex = self._ends[path.pop() ^ 1]
        sent = min(self._room[arc] for arc in path)
        for arc in path:
            self._room[arc] -= sent
            self._room[arc ^ 1] += sent
        for start in {self._ends[arc ^ 1] for arc in path}:
            left[start] = iter(self._arcs[start])
        return True

"""Cut a network into strips of rows: the part that is fully convolutional, from the inputs on.

A strip is a network like any other, for some rows of the outputs. It reads the rows of the inputs that these need, with the
halos of all layers between, and computes the same numbers as the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Node, Value
from fastconv.network.rewrite.cut import reads
from fastconv.network.rewrite.export import Kind
from fastconv.network.rewrite.rows import EVEN, ROWS, Look, Piece, Rows, piece, step_of


@dataclass(frozen=True)
class Strip:
    """A network for some rows.

    Attributes
    ----------
    graph : Graph
    enters : mapping
        Rows of each input that is cut.
    wanted : mapping
        Rows asked for of each output that is cut.
    rows : mapping
        Rows of each image that the network computes or reads: of the outputs, at least those asked for.
    signature : tuple
        Equal for strips whose networks differ in nothing but where they begin.
    """

    graph: Graph
    enters: Mapping[str, Rows]
    wanted: Mapping[str, Rows]
    rows: Mapping[str, Rows]
    signature: tuple[object, ...]

    def kinds(self, whole: Mapping[str, Kind]) -> dict[str, Kind]:
        """Return the kinds of its tensors, from those of the whole network."""
        kinds = {value.name: whole[value.name] for value in self.graph.inputs}
        for node in self.graph.nodes:
            for name in filter(None, node.outputs):
                if name in whole:
                    kinds[name] = whole[name]
                elif name in self.rows:  # a slice before a node
                    kinds[name] = kinds[node.inputs[0]]
        return {name: _with_rows(kind, self.rows[name]) if name in self.rows else kind for name, kind in kinds.items()}


class Parts(NamedTuple):
    """A network in two parts: what runs in strips, and what follows and runs whole; and the first node that does not fit strips."""

    front: Graph
    rest: Graph | None
    first: Node | None


def look_of(
    graph: Graph, kinds: Mapping[str, Kind], values: Mapping[str, Array], grids: Mapping[str, int], crops: frozenset[str] = frozenset()
) -> Look:
    """Return what the rules need to know of a network (`Look`): its images are all tensors that depend on an input image."""
    shapes = {name: tuple(int(n or 0) for n in kind.shape) for name, kind in kinds.items() if kind.shape is not None and not kind.is_list}
    shapes |= {name: array.shape for name, array in graph.constants.items()}
    tall = {value.name for value in graph.inputs if len(shapes.get(value.name, ())) == 4 and shapes[value.name][ROWS] > 1}
    known = {**values, **graph.constants}
    for node in graph.nodes:
        if not tall.isdisjoint(reads(node)) and not known.keys() >= set(filter(None, node.outputs)):
            tall.update(name for name in node.outputs if name)
    steps: dict[str, int] = {}
    for node in graph.nodes:
        step = grids.get(node.name, 1) if node.operator == "Conv" else step_of(node, steps) if node.operator in EVEN else 1
        steps.update((name, max(step, 1)) for name in node.outputs)
    return Look(shapes, known, frozenset(tall), grids, crops, steps)


def parted(graph: Graph, look: Look, kinds: Mapping[str, Kind], together: Sequence[tuple[frozenset[str], frozenset[str]]] = ()) -> Parts:
    """Divide a network: a node runs in strips if it and all before it need no more than some rows for some rows.

    Parameters
    ----------
    graph : Graph
    look : Look
    kinds : mapping
        Kinds of the tensors.
    together : sequence of (names, names)
        Nodes that are not divided, and those that follow with them where they run whole.
    """
    whole, first = set[str](), None
    nodes = [node for node in graph.nodes if not look.values.keys() >= set(filter(None, node.outputs))]  # others follow from shapes
    for node in nodes:
        if not _fits(node, look):
            first = first or node
            whole.add(node.name)
    count = -1
    while len(whole) > count:
        count = len(whole)
        for members, before in together:
            whole |= set() if whole.isdisjoint(members) else members | before
        late = {name for node in nodes if node.name in whole for name in node.outputs}
        for node in nodes:
            if not late.isdisjoint(reads(node)):
                whole.add(node.name)
                late.update(node.outputs)
    front, rest = [node for node in nodes if node.name not in whole], [node for node in nodes if node.name in whole]
    made = {name for node in front for name in node.outputs if name}
    read = {name for node in rest for name in reads(node)}
    ends = [value.name for value in graph.outputs]
    values = {value.name: value for value in (*graph.inputs, *graph.outputs)}

    def value(name: str) -> Value:
        kind = kinds[name]
        return values.get(name) or Value(name, kind.dtype, tuple(kind.shape or ()))

    constants = {name: array for name, array in look.values.items() if name not in made and name not in values}
    given = [*(v.name for v in graph.inputs), *sorted(made)]
    back = None
    if rest:
        enter = [value(name) for name in given if name in read]
        outputs = [values[name] for name in ends if name not in made]
        back = Graph.build(graph.name, enter, outputs, _used(constants, rest), rest)
    leave = [value(name) for name in dict.fromkeys([*(n for n in ends if n in made), *(n for n in sorted(made) if n in read)])]
    return Parts(Graph.build(graph.name, graph.inputs, leave, _used(constants, front), front), back, first)


def _used(constants: Mapping[str, Array], nodes: list[Node]) -> dict[str, Array]:
    names = {name for node in nodes for name in reads(node)}
    return {name: array for name, array in constants.items() if name in names}


def _fits(node: Node, look: Look) -> bool:
    """Tell whether a node runs in strips; one that reads no image runs whole in each."""
    if look.tall.isdisjoint(reads(node)):
        return True
    height = look.shapes.get(node.outputs[0], (0,) * 4)[ROWS:][:1]
    return bool(height) and height[0] > 0 and piece(node, look, Rows(0, height[0])) is not None


def strip(graph: Graph, look: Look, wanted: Mapping[str, Rows]) -> Strip:
    """Return the network for some rows of its outputs; an output that is not in `wanted` is left out, if it is an image."""
    needs: dict[str, Rows] = dict(wanted)
    pieces: dict[str, Piece] = {}
    for node in reversed(graph.nodes):
        asked = [needs[name] for name in node.outputs if name in needs]
        if look.tall.isdisjoint(node.outputs) or not asked:
            continue
        rows = asked[0]
        for other in asked[1:]:
            rows = rows.hull(other)
        found = piece(node, look, rows)
        assert found is not None  # `parted` has asked
        pieces[node.name] = found
        for name in node.outputs:
            needs[name] = found.makes
        for at, some in found.reads.items():
            needs[node.inputs[at]] = some.hull(needs.get(node.inputs[at]))
    nodes: list[Node] = []
    constants = dict(graph.constants)
    slices: dict[str, Rows] = {}
    for node in graph.nodes:
        if look.tall.isdisjoint(node.outputs):
            nodes.append(node)
        elif node.name in pieces:
            nodes += _cut(node, pieces[node.name], needs, look, constants, slices)
    enter = [_lower(value, needs.get(value.name)) for value in graph.inputs if value.name in needs or value.name not in look.tall]
    leave = [_lower(value, needs.get(value.name)) for value in graph.outputs if value.name in wanted or value.name not in look.tall]
    result = Graph.build(graph.name, enter, leave, _used(constants, nodes), nodes)
    enters = {value.name: needs[value.name] for value in graph.inputs if value.name in needs}
    told = tuple((node.name, node.operator, *(str(node.attributes.get(name)) for name in ("pads", "output_padding"))) for node in nodes)
    lengths = tuple((name, rows.last - rows.first) for name, rows in needs.items())
    given = tuple(tuple(array.tolist()) for name, array in constants.items() if name not in graph.constants)
    return Strip(result, enters, wanted, {**needs, **slices}, (told, lengths, given))


def _cut(
    node: Node, found: Piece, needs: Mapping[str, Rows], look: Look, constants: dict[str, Array], slices: dict[str, Rows]
) -> list[Node]:
    """Return the node of a piece, after slices of the images of which it reads fewer rows than there are."""
    if node.operator == "Slice" or node.name in look.crops:  # which cuts them itself
        found = piece(node, look, found.makes, needs[node.inputs[0]]) or found
    constants.update(found.constants)
    before, inputs = [], list(found.node.inputs)
    for at, rows in found.reads.items():
        there = needs[node.inputs[at]]
        if rows != there:
            ends = np.array([rows.first - there.first]), np.array([rows.last - there.first]), np.array([ROWS])
            inputs[at] = f"{node.inputs[at]} for {node.name}, {at}"
            names = tuple(f"{inputs[at]}, {what}" for what in ("from", "to", "axes"))
            constants.update(zip(names, ends, strict=True))
            slices[inputs[at]] = rows
            before.append(Node(inputs[at], "Slice", (node.inputs[at], *names), (inputs[at],), {}, 13))
    fused = found.node.fused
    if len(inputs) > 3 and inputs[3] != node.inputs[3]:
        fused = tuple(replace(part, inputs=tuple(inputs[3] if name == node.inputs[3] else name for name in part.inputs)) for part in fused)
    return [*before, replace(found.node, inputs=tuple(inputs), fused=fused)]


def _with_rows(kind: Kind, rows: Rows) -> Kind:
    height = rows.last - rows.first
    return kind if kind.shape is None else replace(kind, shape=tuple(height if axis == ROWS else n for axis, n in enumerate(kind.shape)))


def _lower(value: Value, rows: Rows | None) -> Value:
    """Return an input or output with its rows of the strip."""
    if rows is None or value.shape is None:
        return value
    return replace(value, shape=tuple(rows.last - rows.first if axis == ROWS else n for axis, n in enumerate(value.shape)))


def stride_of(graph: Graph, look: Look) -> int:
    """Return rows of the outputs from one strip to the next for which tiles begin alike in all strips."""
    tiles, growth = 1, 1
    for node in graph.nodes:
        if node.outputs[0] in look.tall and node.inputs[0] in look.tall:
            tiles = math.lcm(tiles, max(look.grids.get(node.name, 1), 1))
            growth *= max(1, round(look.height(node.outputs[0]) / look.height(node.inputs[0])))
    return tiles * growth


class Cuts(Sequence[Mapping[str, Rows]]):
    """The rows of each output in each strip, for strips of some rows of the lowest output.

    Examples
    --------
    >>> values = [Value("y", None, None)]
    >>> look = Look({"y": (1, 1, 100, 9)}, {}, frozenset(["y"]), {})
    >>> [tuple(one["y"]) for one in Cuts(Graph("g", (), tuple(values), {}, ()), look, 40)]
    [(0, 40), (40, 80), (80, 100)]
    """

    def __init__(self, graph: Graph, look: Look, rows: int) -> None:
        self._heights = {value.name: look.height(value.name) for value in graph.outputs if value.name in look.tall}
        self._least, self._rows = min(self._heights.values()), rows
        self._times = {name: max(1, round(height / self._least)) for name, height in self._heights.items()}

    def __len__(self) -> int:
        return -(-self._least // self._rows)

    def __getitem__(self, at: Any) -> Any:
        """Return the rows in one strip; an output that ended before is left out."""
        if not 0 <= at < len(self):
            raise IndexError(at)
        found = {}
        for name, height in self._heights.items():
            first, last = (min((at + k) * self._rows * self._times[name], height) for k in (0, 1))
            last = height if at == len(self) - 1 else last
            if last > first:
                found[name] = Rows(first, last)
        return found

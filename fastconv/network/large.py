"""Run a network whose tensors exceed the memory limit: in strips of rows, as far as it is fully convolutional."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastconv.kernels.choose import Method, method_of
from fastconv.native import Kept, flushes
from fastconv.network.graph.graph import Array, Graph
from fastconv.network.operators.table import operator_of
from fastconv.network.rewrite.cut import PART, cut
from fastconv.network.rewrite.export import Kind
from fastconv.network.rewrite.optimise import optimised
from fastconv.network.rewrite.rows import ROWS, Look, Rows
from fastconv.network.rewrite.shapes import kinds_of, known_of, shapes_of
from fastconv.network.rewrite.strips import Cuts, Strip, look_of, parted, stride_of, strip
from fastconv.network.run.arena import RoomError, needed
from fastconv.network.run.blocks import readers_in_blocks
from fastconv.network.run.convolve import layer_at
from fastconv.network.run.execute import Program, Runner, Watch
from fastconv.network.run.feeds import checked_feeds, named_feeds
from fastconv.network.run.own import Wish, owned

_PLANS = 4
"""Most input shapes for which the division into strips is cached."""


class LargeRunner(Runner):
    """A network ready to run; inputs for which it exceeds the memory limit run in strips of rows.

    The results are those of the whole network, bit for bit: each convolution keeps the algorithm that the whole would use, and
    strips begin and end between its tiles. The part from the first node on that needs the whole image runs whole. Internal
    tensors are available only where the whole network fits. Parameters as for `Runner`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._large, self._resident = Kept(_PLANS), Kept(1)

    def _called(self, named: Mapping[str, Array], keep: tuple[str, ...], watch: Watch | None) -> dict[str, Array]:
        if watch is not None or keep:
            return super()._called(named, keep, watch)
        given = checked_feeds(self.graph, named)
        key = self._key((), given)
        plan: _Plan | None = self._large.held(key)
        if plan is None and not self.optimise:  # of which the whole does not ask before it runs
            plan = self._large.get(key, lambda: self._planned(given, None))
        if plan is None or plan.held is None:
            try:
                return super()._called(named, (), None)
            except RoomError as error:
                why = error
            plan = self._large.get(key, lambda: self._planned(given, why))
        return self._run_strips(plan, given)

    def in_strips(self, feeds: Mapping[str, Array] | Array, rows: int) -> dict[str, Array]:
        """Run the network in strips, whatever its memory limit.

        Parameters
        ----------
        feeds : mapping or array
            Input name to array; one array for a network of one input.
        rows : int
            Rows of a strip, in the lowest output of the part that runs in strips.

        Returns
        -------
        dict
            Output name to array.

        Raises
        ------
        ValueError
            If no part of the network runs in strips.
        """
        given = checked_feeds(self.graph, named_feeds(self.graph.inputs, feeds))
        held, blocked = self._held(given)
        if held is None:
            raise ValueError(f"the network does not run in strips of rows{blocked}")
        return self._run_strips(_Plan(held, _strips(held, rows)), given)

    def _planned(self, given: Mapping[str, Array], error: RoomError | None) -> _Plan:
        """Return how the network runs in strips; raise `error` if it does not."""
        if error is None:
            kinds = kinds_of(self.graph, given)
            needs = needed(self.graph, kinds, ())
            if needs <= self.memory_limit:
                return _Plan()
            remedy = f"give it smaller inputs, or load it with memory_limit={needs}"
            error = RoomError(f"the tensors of the network take more than {self.memory_limit} bytes; {remedy}")
        try:
            held, blocked = self._held(given)
        except ValueError:  # a layer that no kernel takes
            raise error from None
        if held is None:
            raise RoomError(f"{error}{blocked}") from error
        strips, least = _fitting(held, self.memory_limit)
        if not strips:
            raise RoomError(f"{error}, or {least} for strips of rows{blocked}") from error
        return _Plan(held, strips)

    def _held(self, given: Mapping[str, Array]) -> tuple[_Held | None, str]:
        """Return the parts of the network, if one runs in strips, and what does not."""
        wanted = [value.name for value in self.graph.outputs]
        graph, mine = self.graph, frozenset(node.name for node in self.graph.nodes)
        if self.optimise:
            graph = optimised(graph, wanted, shapes_of(kinds_of(graph, given)))
        kinds, values = known_of(graph, given)
        shapes = shapes_of(kinds)
        if self.optimise:
            mine = owned(graph, shapes, Wish(self.algorithms, self.max_error, self.threads, flushes()))
        methods = self._methods(graph, shapes, mine)
        crops = frozenset(name for name, method in methods.items() if method.axes is not None and not method.phases)
        look = look_of(graph, kinds, values, {name: _grid(method) for name, method in methods.items()}, crops)
        front, rest, first = parted(graph, look, kinds, _together(graph, shapes, wanted, mine))
        blocked = "" if first is None else f"; {first} needs the whole image"
        cutting = any(value.name in look.tall for value in front.outputs)
        return _Held(front, rest, look, kinds, mine, {**self.algorithms, **methods}) if cutting else None, blocked

    def _methods(self, graph: Graph, shapes: Mapping[str, tuple[int, ...]], mine: Iterable[str]) -> dict[str, Method]:
        """Return what the kernels run each convolution with in the whole network."""
        found, ours = {}, set(mine)
        for node in graph.convolutions:
            weight = graph.constants.get(node.inputs[1])
            if node.name in ours and weight is not None and weight.ndim == 4 and len(shapes.get(node.inputs[0], ())) == 4:
                how = self._how(node)
                found[node.name] = method_of(how.algorithm, layer_at(node, shapes[node.inputs[0]], weight), how.max_error)
        return found

    def _run_strips(self, plan: _Plan, given: Mapping[str, Array]) -> dict[str, Array]:
        held = plan.held
        assert held is not None
        results: dict[str, Array] = {}
        for value in held.front.outputs:
            kind = held.kinds[value.name]
            results[value.name] = np.empty([n or 0 for n in kind.shape or ()], kind.dtype)
        signatures = [one.signature for one in plan.strips]
        common = max(signatures, key=signatures.count)
        # The others first, and what runs them is dropped: memory for one strip is enough.
        for one in sorted(plan.strips, key=lambda one: one.signature == common):
            make = partial(self._settled, held, one.graph)
            runner: _Settled = self._resident.get(plan, make) if one.signature == common else make()
            feeds = {value.name: _rows(given[value.name], one.enters.get(value.name)) for value in one.graph.inputs}
            for name, found in runner(feeds).items():
                if name in one.wanted:
                    first, asked = one.gives[name].first, one.wanted[name]
                    _rows(results[name], asked)[...] = _rows(found, Rows(asked.first - first, asked.last - first))
                else:
                    results[name] = found
            del runner, feeds, make
        resident: _Settled | None = self._resident.held(plan)
        if resident is not None:
            resident.release()
        if held.rest is not None:
            inputs = {value.name: results[value.name] if value.name in results else given[value.name] for value in held.rest.inputs}
            results |= self._settled(held, held.rest)(inputs)
        return {value.name: results[value.name] for value in self.graph.outputs}

    def _settled(self, held: _Held, graph: Graph) -> _Settled:
        runner = _Settled(graph, held.algorithms, self.threads, self.memory_limit, optimise=self.optimise)
        runner.mine = held.mine
        return runner


class _Settled(Runner):
    """Runs a part of a network of which it is settled who runs what; nothing is rewritten again."""

    keeps = False
    mine: frozenset[str] = frozenset()

    def _rewritten(self, wanted: list[str], given: Mapping[str, Any]) -> Program:
        shapes = shapes_of(kinds_of(self.graph, given)) if self.optimise else {}
        graph = cut(self.graph, wanted, lambda node: node.name in self.mine) if self.optimise else self.graph
        return Program.of(graph, wanted, shapes)


class _Held(NamedTuple):
    """What is known of a network that is cut: its parts, and who runs what with which algorithm."""

    front: Graph
    rest: Graph | None
    look: Look
    kinds: Mapping[str, Kind]
    mine: frozenset[str]
    algorithms: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Plan:
    """The strips of a network; none if it fits as a whole."""

    held: _Held | None = None
    strips: tuple[Strip, ...] = ()


def _fitting(held: _Held, limit: int) -> tuple[tuple[Strip, ...], int]:
    """Return the highest strips that fit the limit, and the bytes that the lowest need; no strips if none fit."""
    front, look, ends = held.front, held.look, {value.name for value in (*held.front.inputs, *held.front.outputs)}
    whole = sum(held.kinds[name].nbytes for name in ends)
    behind = 0 if held.rest is None else _needed(held.rest, held.kinds, held.mine)
    least = min(look.height(value.name) for value in front.outputs if value.name in look.tall)

    def needs(rows: int) -> int:
        each = Cuts(front, look, rows)
        return max(behind, max(whole + _bytes(strip(front, look, each[k]), held) for k in {0, len(each) // 2}))

    if (lowest := needs(1)) > limit:
        return (), lowest
    step = stride_of(front, look)
    if step >= least or needs(step) > limit:
        step = 1
    low, high = 1, -(-least // step)  # strips of `low` steps fit, of `high` steps do not or are the whole
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle * step) <= limit else (low, middle)
    count = -(-least // (low * step))
    rows = -(-least // (count * step)) * step  # of about equal height
    return _strips(held, rows), 0


def _together(
    graph: Graph, shapes: Mapping[str, tuple[int, ...]], wanted: list[str], mine: frozenset[str]
) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Return the nodes of each part of onnxruntime, and who hands it blocks of channels: another layout may round otherwise."""
    divided = cut(graph, wanted, lambda node: node.name in mine)
    blocks = readers_in_blocks(divided, wanted, shapes)
    writers = {name: node for node in divided.nodes for name in node.outputs if name in blocks and node.operator != PART}

    def before(names: Iterable[str]) -> Iterator[str]:
        for node in (writers[name] for name in names if name in writers):
            yield node.name
            layout = operator_of(node).blocks
            if layout is not None and layout.shape is not None:  # it hands on the layout of its input
                yield from before(node.inputs)

    parts = [node for node in divided.nodes if node.operator == PART]
    return [(frozenset(node.name for node in part.body), frozenset(before(part.inputs))) for part in parts]


def _strips(held: _Held, rows: int) -> tuple[Strip, ...]:
    return tuple(strip(held.front, held.look, wanted) for wanted in Cuts(held.front, held.look, rows))


def _needed(graph: Graph, kinds: Mapping[str, Kind], mine: frozenset[str]) -> int:
    """Return the most bytes that live together, with the tensors inside a part of onnxruntime and a copy in another layout."""
    divided = cut(graph, (), lambda node: node.name in mine)
    inside = [0]
    for part in (node for node in divided.nodes if node.operator == PART):
        sizes = {name: kinds[name].nbytes for node in part.body for name in node.outputs if name in kinds}
        inside.append(sum(size for name, size in sizes.items() if name not in part.outputs) + max(sizes.values(), default=0))
    return needed(divided, kinds, ()) + max(inside)


def _bytes(one: Strip, held: _Held) -> int:
    """Return the bytes of the tensors of a strip that live together, and of the copy of its results."""
    given, kinds = {}, held.kinds
    for value in one.graph.inputs:
        shape = list(kinds[value.name].shape or ())
        if value.name in one.enters:
            shape[ROWS] = one.enters[value.name].last - one.enters[value.name].first
        given[value.name] = np.broadcast_to(np.zeros((), kinds[value.name].dtype), [n or 0 for n in shape])
    found = kinds_of(one.graph, given)
    return _needed(one.graph, found, held.mine) + sum(found[value.name].nbytes for value in one.graph.outputs if value.name in found)


def _grid(method: Method) -> int:
    """Return the rows of a tile of a method; zero if it needs the whole image."""
    return 0 if method.name == "fft" else 1 if method.axes is None else method.axes[0].m


def _rows(array: Array, rows: Rows | None) -> Array:
    return array if rows is None else array[:, :, rows.first : rows.last]

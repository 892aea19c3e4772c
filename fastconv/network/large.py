"""Run a network whose tensors exceed the memory limit: in strips of rows, as far as it is fully convolutional."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv.kernels.choose import Method, method_of
from fastconv.native import Kept, memory
from fastconv.network.graph.graph import Array, Graph
from fastconv.network.operators.table import operator_of
from fastconv.network.rewrite.cut import PART, cut
from fastconv.network.rewrite.export import Kind
from fastconv.network.rewrite.room import Counted, Need, RoomError, check_room, needed, results_of
from fastconv.network.rewrite.rows import Look, Rows
from fastconv.network.rewrite.shapes import shapes_of
from fastconv.network.rewrite.strips import Cuts, Strip, look_of, parted, stride_of, strip
from fastconv.network.run.blocks import readers_in_blocks
from fastconv.network.run.convolve import layer_at
from fastconv.network.run.execute import Program, Runner, Watch
from fastconv.network.run.feeds import checked_feeds, named_feeds
from fastconv.network.run.nchwc import block_length, reserve
from fastconv.network.run.own import Form
from fastconv.network.run.tape import Deliver, Tape

_PLANS = 4
"""Most input shapes for which the division into strips is cached."""


class LargeRunner(Runner):
    """A network ready to run; inputs for which it exceeds the memory limit run in strips of rows.

    The results are those of the whole network, bit for bit: each convolution keeps the algorithm that the whole would use, and
    strips begin and end between its tiles. The part from the first node on that needs the whole image runs whole. Internal
    tensors are available only where the whole network fits. Threads that share a runner take turns with strips. Parameters as
    for `Runner`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._large, self._resident = Kept(_PLANS), Kept(1)

    def _called(
        self, named: Mapping[str, Array], keep: tuple[str, ...], watch: Watch | None, deliver: Deliver | None = None
    ) -> dict[str, Array]:
        if watch is not None or keep:
            return super()._called(named, keep, watch, deliver)
        given = checked_feeds(self.graph, named)
        key = self._key((), given)
        plan: _Plan | None = self._large.held(key)
        if plan is None and not self.optimise:  # of which the whole does not ask before it runs
            plan = self._large.get(key, lambda: self._asked(given))
        if plan is None or plan.held is None:
            try:
                return super()._called(named, (), None, deliver)
            except RoomError as error:  # not kept: its frames hold the caller's results
                planned = self._planned(error.form or self._formed(self._ends, given), error)
            plan = self._large.get(key, lambda: planned)
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
        held, blocked = self._held(self._formed(self._ends, given))
        if held is None:
            raise ValueError(f"the network does not run in strips of rows{blocked}")
        return self._run_strips(_Plan(held, _strips(held, rows)), given)

    def needs(self, feeds: Mapping[str, Array] | Array) -> tuple[Need, int]:
        """Return the bytes that a run with such inputs needs, and the number of its strips: 1 if it runs whole.

        Weights and the workspace of the kernels, some MiB per thread, are not counted.

        Parameters
        ----------
        feeds : mapping or array
            Input name to array; one array for a network of one input.

        Returns
        -------
        Need, int

        Raises
        ------
        ValueError
            If the network does not fit its memory limit.
        """
        form = self._formed(self._ends, checked_feeds(self.graph, named_feeds(self.graph.inputs, feeds)))
        try:
            return check_room(Counted(form.divided(), form.kinds), self.memory_limit, block_length, form.graph), 1
        except RoomError as error:
            held, rows, need = self._fitted(form, error)
            return need, len(Cuts(held.front, held.look, rows))

    @property
    def _ends(self) -> list[str]:
        return [value.name for value in self.graph.outputs]

    def _asked(self, given: Mapping[str, Array]) -> _Plan:
        """Return how a network runs that is not rewritten."""
        form = self._formed(self._ends, given)
        try:
            check_room(Counted(form.graph, form.kinds), self.memory_limit, block_length)
        except RoomError as error:
            return self._planned(form, error)
        return _Plan()

    def _planned(self, form: Form, error: RoomError) -> _Plan:
        """Return how the network runs in strips; raise `error` if it does not."""
        held, rows, need = self._fitted(form, error)
        return _Plan(held, _strips(held, rows), need.first)

    def _fitted(self, form: Form, error: RoomError) -> tuple[_Held, int, Need]:
        """Return the parts of the network, the rows of its strips and what they need; raise `error` if it does not run so."""
        try:
            held, blocked = self._held(form)
        except ValueError:  # a layer that no kernel takes
            raise error from None
        if held is None:
            raise RoomError(f"{error}{blocked}") from error
        rows, need = _fitting(held, self.memory_limit)
        if not rows:
            raise RoomError(f"{error}, or {need.total} for strips of rows{blocked}") from error
        return held, rows, need

    def _held(self, form: Form) -> tuple[_Held | None, str]:
        """Return the parts of the network, if one runs in strips, and what does not."""
        graph, kinds, values, mine = form
        shapes = shapes_of(kinds)
        methods = self._methods(graph, shapes, mine)
        crops = frozenset(name for name, method in methods.items() if method.axes is not None and not method.phases)
        look = look_of(graph, kinds, values, {name: _grid(method) for name, method in methods.items()}, crops)
        front, rest, first = parted(graph, look, kinds, _together(graph, shapes, self._ends, mine))
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
        lane: _Lane = self._resident.get(plan, lambda: _Lane(plan, self))
        results = lane(given)
        return {value.name: results[value.name] for value in self.graph.outputs}


class _Held(NamedTuple):
    """What is known of a network that is cut: its parts, and who runs what with which algorithm."""

    front: Graph
    rest: Graph | None
    look: Look
    kinds: Mapping[str, Kind]
    mine: frozenset[str]
    algorithms: Mapping[str, Any]

    @property
    def ends(self) -> int:
        """The bytes of the whole inputs and results."""
        names = {value.name for value in (*self.front.inputs, *self.front.outputs)}
        return sum(self.kinds[name].nbytes for name in names)

    def counted(self, graph: Graph, kinds: Mapping[str, Kind]) -> Counted:
        """Return a part of it to count."""
        return Counted(cut(graph, (), lambda node: node.name in self.mine), kinds)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The strips of a network, none if it fits as a whole; and the bytes that onnxruntime takes at once."""

    held: _Held | None = None
    strips: tuple[Strip, ...] = ()
    first: int = 0


class _Lane:
    """What runs the strips of a plan, one after the other in the same memory, which it keeps between calls."""

    def __init__(self, plan: _Plan, whole: Runner) -> None:
        assert plan.held is not None
        self._held, self._whole, self._lock, self._block = plan.held, whole, threading.Lock(), _Block()
        self._runners: dict[Any, _Settled] = {}
        # One strip of each kind comes first: its first run takes memory of its own, before that of the others is there.
        firsts = {one.signature: one for one in reversed(plan.strips)}
        self._strips = sorted(plan.strips, key=lambda one: firsts[one.signature] is not one)
        reserve(plan.first)

    def __call__(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """Run all strips, and what follows them."""
        held = self._held
        with self._lock:
            results: dict[str, Array] = {}
            for value in held.front.outputs:
                kind = held.kinds[value.name]
                results[value.name] = np.empty([n or 0 for n in kind.shape or ()], kind.dtype)
            for one in self._strips:
                feeds = {value.name: _rows(given[value.name], one.enters.get(value.name)) for value in one.graph.inputs}
                self._run(one.signature, one.graph, one.kinds(held.kinds), feeds, _Joined(results, one))
            if held.rest is not None:
                feeds = {value.name: results[value.name] if value.name in results else given[value.name] for value in held.rest.inputs}
                results |= self._run(None, held.rest, held.kinds, feeds, None)
        return results

    def _run(
        self, key: Any, graph: Graph, kinds: Mapping[str, Kind], feeds: Mapping[str, Array], deliver: Deliver | None
    ) -> dict[str, Array]:
        """Run a part of the network, by the runner of its kind."""
        if key not in self._runners:
            for other in self._runners.values():
                other.release()
            self._block.clear()
            self._runners[key] = _Settled(graph, self._held, kinds, self._whole, self._block)
        return self._runners[key].run(feeds, deliver)


class _Joined:
    """Joins the results of strips."""

    def __init__(self, results: dict[str, Array], one: Strip) -> None:
        self._results, self._strip = results, one

    def __call__(self, name: str, array: Array) -> Array:
        """Copy the rows asked for of a result to their place."""
        if name not in self._strip.wanted:
            self._results[name] = array.copy()
            return self._results[name]
        first, asked = self._strip.rows[name].first, self._strip.wanted[name]
        place = _rows(self._results[name], asked)
        place[...] = _rows(array, Rows(asked.first - first, asked.last - first))
        return place


class _Block:
    """Memory that is lent to one at a time: in one piece for all that are known to need some."""

    def __init__(self) -> None:
        self._size = 0
        self._memory: Array | None = None

    def note(self, size: int) -> None:
        """Take no less from now on."""
        self._size = max(self._size, size)

    def clear(self) -> None:
        """Free the memory, which nothing may use any more."""
        self._memory = None

    def __call__(self, size: int) -> Array:
        """Lend memory."""
        self.note(size)
        if self._memory is None or self._memory.size < size:
            self._memory = memory(self._size)
        return self._memory[:size]


class _Settled(Runner):
    """Runs a part of a network of which it is settled who runs what; nothing is rewritten again."""

    def __init__(self, graph: Graph, held: _Held, kinds: Mapping[str, Kind], whole: Runner, block: _Block) -> None:
        limit, arena = whole.memory_limit, whole._arena
        super().__init__(graph, held.algorithms, whole.threads, limit, optimise=whole.optimise, arena=arena)
        self._mine, self._kinds, self._lend = held.mine, kinds, block
        self._block = block

    def run(self, feeds: Mapping[str, Array], deliver: Deliver | None) -> dict[str, Array]:
        """Run the part; its next run takes the memory of the block."""
        found = self._called(feeds, (), None, deliver)
        tape: Tape | None = self._tapes.last()
        if tape is not None:
            self._block.note(tape.nbytes)
        return found

    def _rewritten(self, wanted: list[str], given: Mapping[str, Any]) -> Program:
        shapes = shapes_of(self._kinds) if self.optimise else {}
        graph = cut(self.graph, wanted, lambda node: node.name in self._mine) if self.optimise else self.graph
        return Program.of(graph, wanted, shapes)


def _fitting(held: _Held, limit: int) -> tuple[int, Need]:
    """Return the rows of the highest strips that fit the limit and what they need; no rows, and what the lowest need, if none fit."""
    front, look = held.front, held.look
    behind = 0
    if held.rest is not None:
        rest = held.counted(held.rest, held.kinds)
        behind = needed([rest], held.ends + results_of(rest), block_length).total
    least = min(look.height(value.name) for value in front.outputs if value.name in look.tall)

    def needs(rows: int) -> Need:
        each = Cuts(front, look, rows)
        strips = [strip(front, look, each[k]) for k in sorted({0, len(each) // 2, len(each) - 1})]
        need = needed([held.counted(one.graph, one.kinds(held.kinds)) for one in strips], held.ends, block_length)
        return need if need.total >= behind else need._replace(ends=need.ends + behind - need.total)

    if (lowest := needs(1)).total > limit:
        return 0, lowest
    step = stride_of(front, look)
    if step >= least or needs(step).total > limit:
        step = 1
    low, high = 1, -(-least // step)  # strips of `low` steps fit, of `high` steps do not or are the whole
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle * step).total <= limit else (low, middle)
    count = -(-least // (low * step))
    rows = -(-least // (count * step)) * step  # of about equal height
    return rows, needs(rows)


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


def _grid(method: Method) -> int:
    """Return the rows of a tile of a method; zero if it needs the whole image."""
    return 0 if method.name == "fft" else 1 if method.axes is None else method.axes[0].m


def _rows(array: Array, rows: Rows | None) -> Array:
    return array if rows is None else array[:, :, rows.first : rows.last]

"""Run a network: one pass over the nodes, with cached plans for its convolutions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from fastconv.kernels import How, blocks_of
from fastconv.kernels.choose import method_of
from fastconv.native import Kept, Pool, flushes, memory, processors
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.graph.weights_file import check_unchanged, files_of, let_go
from fastconv.network.operators.call import MEMORY_LIMIT, Call
from fastconv.network.operators.record import Allocate, Place, Readers
from fastconv.network.operators.table import FOREIGN, operator_of
from fastconv.network.rewrite.cut import PART
from fastconv.network.rewrite.export import Kind
from fastconv.network.rewrite.room import Counted, RoomError, check_room, last_readers
from fastconv.network.rewrite.shapes import shapes_of
from fastconv.network.run.arena import Arena, too_large
from fastconv.network.run.assign import Choice
from fastconv.network.run.blocks import plain, readers_in_blocks
from fastconv.network.run.convolve import activation_of, convolve, convolve_in_a_plane, fast, layer_at
from fastconv.network.run.feeds import checked_feeds, named_feeds
from fastconv.network.run.nchwc import Terms, block_length, reserve, shares_layout
from fastconv.network.run.own import Form, Wish, formed
from fastconv.network.run.session import Bound, Session, by_reference
from fastconv.network.run.tape import Deliver, NoTensorError, Recorder, Tape, is_tensor

_PLANS = 4
"""Most input shapes for which a convolution caches transformed weights; the least recently used is dropped first."""
_PROGRAMS = 4
"""Most combinations of kept tensors and input shapes for which a network caches its rewritten form."""

_NONE: Readers = {}

Watch = Callable[[Node, list[Array | None], tuple[Array, ...], float], None]
"""``watch(node, inputs, results, seconds)`` is called after each node."""


class Course(NamedTuple):
    """Nodes, each with the tensors that die after it; who reads tensors that may have the channels-blocked layout."""

    steps: Sequence[tuple[Node, tuple[str, ...]]]
    blocks: Readers
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Program:
    """A network as it is run: the rewritten graph, and what dies after each node."""

    graph: Graph
    dead: tuple[tuple[str, ...], ...]
    blocks: Readers
    shapes: Mapping[str, tuple[int, ...]]
    inside: int = 0
    """Bytes that onnxruntime takes at once for its parts."""

    @property
    def course(self) -> Course:
        """The steps of a run, without references to constants."""
        return Course(list(zip(self.graph.nodes, self.dead, strict=True)), self.blocks, self.shapes)

    @staticmethod
    def of(graph: Graph, wanted: Iterable[str], shapes: Mapping[str, tuple[int, ...]], inside: int = 0) -> Program:
        """Return the program of a graph, with the node after which each tensor dies."""
        spared = {value.name for value in graph.outputs} | set(wanted)
        return Program(graph, last_readers(graph, spared), readers_in_blocks(graph, spared, shapes), shapes, inside)


class _Last(NamedTuple):
    """What the last call was given, and its tape."""

    kinds: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    flushes: bool
    tape: Tape


class Runner:
    """A network ready to run with one choice of algorithms and one precision policy.

    The first run with an input shape makes the plans and caches them, so weights are transformed once. Threads may share a
    runner.

    Parameters
    ----------
    graph : Graph
        The network, in the types of the run.
    algorithms : mapping
        Algorithm of each convolution, by layer name (`assigned`).
    threads : int, optional
        Threads per operator; None leaves it to the kernels.
    memory_limit : int
        Most bytes for all tensors of one run together.
    optimise : bool
        Whether the graph may be rewritten (`optimise.optimised`).
    arena : Arena, optional
        Memory for internal tensors; a new arena by default.
    max_error : float, optional
        Error limit of "auto" in each layer.
    """

    def __init__(
        self,
        graph: Graph,
        algorithms: Mapping[str, Choice],
        threads: int | None = None,
        memory_limit: int = MEMORY_LIMIT,
        *,
        optimise: bool = True,
        arena: Arena | None = None,
        max_error: float | None = None,
    ) -> None:
        self.graph, self.algorithms, self.threads, self.memory_limit = graph, dict(algorithms), threads, memory_limit
        self.optimise, self.max_error, self._arena = optimise, max_error, arena or Arena()
        self._lend: Callable[[int], Array] = memory
        self._plans = {node.name: Kept(_PLANS) for node in graph.nodes if operator_of(node).weights is not None}
        self._programs, self._tapes = Kept(_PROGRAMS), Kept(_PLANS)
        self._sessions: WeakKeyDictionary[Node, Session] = WeakKeyDictionary()
        self._alone: WeakSet[Node] = WeakSet()
        self._last: _Last | None = None
        self._pool = Pool()
        self._files = files_of(self.graph.constants.values())

    def __call__(self, feeds: Mapping[str, Array] | Array, keep: Iterable[str] = (), *, watch: Watch | None = None) -> dict[str, Array]:
        """Run the network.

        Parameters
        ----------
        feeds : mapping or array
            Input name to array; one array for a network of one input.
        keep : iterable of str
            Internal tensors to return in addition to the outputs.
        watch : callable, optional
            ``watch(node, inputs, results, seconds)`` is called after each node of the rewritten network.

        Returns
        -------
        dict
            Output name to array.

        Raises
        ------
        TypeError, ValueError
            If the feeds do not fit the inputs, or a node does not fit its inputs: the message names it.
        """
        if watch is None and not keep and isinstance(feeds, dict) and (values := self._repeated(feeds)) is not None:
            return values
        return self._called(named_feeds(self.graph.inputs, feeds), tuple(keep), watch)

    def _called(
        self, named: Mapping[str, Array], keep: tuple[str, ...], watch: Watch | None, deliver: Deliver | None = None
    ) -> dict[str, Array]:
        """Run the network on feeds that are not known to be those of the last call; `deliver` copies the results."""
        wanted = list(dict.fromkeys([value.name for value in self.graph.outputs] + list(keep)))
        given = checked_feeds(self.graph, named)
        tape: Tape | None = None
        first: dict[str, Array] = {}
        if self.optimise and watch is None and all(is_tensor(value) for value in given.values()):
            tape = self._tapes.get(self._key(wanted, given), lambda: self._recorded(wanted, given, first))
        if first:
            return first if deliver is None else {name: deliver(name, array) for name, array in first.items()}
        if tape is not None and not tape.changed:
            check_unchanged(tape.files)
            values = tape(given, deliver)
            if values is not None:
                if not keep:
                    self._last = _Last({name: (array.dtype, array.shape) for name, array in given.items()}, flushes(), tape)
                return values
        found = self._run_once(named, given, wanted, watch)
        if tape is not None:
            tape.changed = True
        return found if deliver is None else {name: deliver(name, array) for name, array in found.items()}

    def _repeated(self, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
        """Run the tape of the last call again, if the feeds are of the same types and shapes, which then need no other check."""
        last = self._last
        if last is None or last.tape.changed or last.flushes != flushes() or len(feeds) != len(last.kinds):
            return None
        for name, array in feeds.items():
            if type(array) is not np.ndarray or last.kinds.get(name) != (array.dtype, array.shape):
                return None
        check_unchanged(last.tape.files)
        return last.tape(feeds)

    def _recorded(self, wanted: list[str], given: Mapping[str, Array], first: dict[str, Array]) -> Tape | None:
        """Run the network once, and return the tape of it; None where it has values that are no tensors. `first` gets the results."""
        key = frozenset(wanted)
        shared = self._programs.held(self._key(wanted, given))
        program = shared or self._rewritten(wanted, given)
        course, constants = program.course, dict(program.graph.constants)
        recorder = Recorder(alone=shared is None)
        reserve(program.inside)
        del program, shared
        let_go(self.graph.constants.values())
        check_unchanged(self._files)
        theirs = {id(array) for array in given.values()}
        given = {name: array if array.flags.c_contiguous else array.copy() for name, array in given.items()}
        theirs.update(map(id, given.values()))
        for name, array in given.items():
            recorder.feed(name, array)
        try:
            values = self._run(course, constants, given, key, recorder=recorder)
        except NoTensorError:
            return None
        for name in set(wanted).difference(recorder.tensors, recorder.fixed):
            recorder.fixed[name] = self._constant(name, constants)
        check_unchanged(self._files)  # also not during the read
        for name in wanted:
            value = values[name] if name in values else recorder.fixed[name]
            first[name] = _own(value) if name in recorder.fixed or id(value) in theirs or _is_view(value) else value
        del values
        self._arena.clear()
        self._pool.free.clear()
        let_go(self.graph.constants.values())

        def apply(node: Node, inputs: list[Array | None], constants: Mapping[str, Array]) -> tuple[Array, ...]:
            return self._apply(
                node, inputs, self.memory_limit, self._place(node, constants, np.empty, blocks=course.blocks, shapes=course.shapes)
            )

        def bind(node: Node, inputs: Sequence[Any], outputs: Sequence[Any]) -> Bound | None:
            session = self._bindable(node)
            if session is None:
                return None
            pairs = zip((*node.inputs, *node.outputs), (*inputs, *outputs), strict=True)
            blocked = frozenset(name for name, value in pairs if name in course.blocks and value is not None and value.ndim == 5)
            return session.bound(inputs, outputs, blocked)

        return Tape(recorder, wanted, (apply, bind), self._lend)

    def _bindable(self, node: Node) -> Session | None:
        """Return the session that has run a node, if it can also run it in place."""
        session = self._sessions.get(node)
        return None if session is None or session.refused or session.plain_only else session

    def _constant(self, name: str, constants: Mapping[str, Array]) -> Array:
        for place in (constants, self.graph.constants):
            if name in place:
                return place[name]
        raise ValueError(f"the network has no tensor {name!r}")

    def _run_once(self, feeds: Mapping[str, Array], given: Mapping[str, Array], wanted: list[str], watch: Watch | None) -> dict[str, Array]:
        check_unchanged(self._files)
        program: Program = self._programs.get(self._key(wanted, given), lambda: self._rewritten(wanted, given))
        constants = program.graph.constants
        values = self._run(program.course._replace(blocks=_NONE), constants, given, frozenset(wanted), watch)
        found = {name: values[name] if name in values else self._constant(name, constants) for name in wanted}
        check_unchanged(self._files)
        # Never hand out a view of the model's weights, of a tensor inside, or of the caller's own arrays.
        theirs = {id(array) for place in (feeds, constants, self.graph.constants) for array in place.values()}
        return {name: _own(value) if id(value) in theirs or _is_view(value) else value for name, value in found.items()}

    @staticmethod
    def _key(wanted: Iterable[str], given: Mapping[str, Any]) -> Any:
        return frozenset(wanted), flushes(), tuple(Kind.of(value, lengths=True) for value in given.values())

    def _rewritten(self, wanted: list[str], given: Mapping[str, Any]) -> Program:
        if not self.optimise:
            return Program.of(self.graph, wanted, {})
        form = self._formed(wanted, given)
        graph = form.divided(wanted)
        try:
            need = check_room(Counted(graph, form.kinds, wanted), self.memory_limit, block_length, form.graph)
        except RoomError as error:
            error.form = form
            raise
        if len(graph.nodes) == 1:
            self._alone.update(graph.nodes)
        return Program.of(graph, wanted, shapes_of(form.kinds), need.first)

    def _formed(self, wanted: list[str], given: Mapping[str, Any]) -> Form:
        wish = Wish(self.algorithms, self.max_error, self.threads, flushes()) if self.optimise else None
        return formed(self.graph, wanted, given, wish)

    def _run(
        self,
        course: Course,
        constants: Mapping[str, Array],
        given: Mapping[str, Array],
        wanted: frozenset[str],
        watch: Watch | None = None,
        recorder: Recorder | None = None,
    ) -> dict[str, Array]:
        """Run nodes in order; with a `recorder`, each constant is released after its last use."""
        steps, blocks, shapes = course
        values = dict(given)
        used = sum(map(_bytes, values.values()))
        for node, dead in steps:
            inputs = [(values[name] if name in values else constants[name]) if name else None for name in node.inputs]
            # Outputs belong to the caller and are not lent.
            allocate: Allocate = np.empty if wanted.intersection(node.outputs) else self._arena.lease
            begun = time.perf_counter()
            jobs: list[Any] = []
            dying = frozenset(dead if watch is None else ()).difference(given)
            results = self._apply(
                node, inputs, self.memory_limit - used, self._place(node, constants, allocate, jobs, dying, blocks, shapes)
            )
            if watch is not None:
                watch(node, inputs, results, time.perf_counter() - begun)
            if recorder is not None:
                session = self._bindable(node)
                results = recorder.node(node, inputs, results, jobs, constants if session is None else {})
                if session is not None and recorder.alone:
                    session.settle()
            used += sum(map(_bytes, results[: len(node.outputs)]))
            if used > self.memory_limit:
                raise RoomError(f"{node}: {too_large(self.memory_limit)}")
            values.update(zip(node.outputs, results, strict=False))
            for name in dead:
                if name in values:
                    used -= _bytes(values.pop(name))
                elif recorder is not None and isinstance(constants, dict):
                    constants.pop(name, None)
            del inputs, results, jobs  # dead tensors free their memory for the next node
        return values

    def _place(
        self,
        node: Node,
        constants: Mapping[str, Array],
        allocate: Allocate,
        jobs: list[Any] | None = None,
        dying: frozenset[str] = frozenset(),
        blocks: Readers = _NONE,
        shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    ) -> Place:
        """Return a node's execution context; `jobs` collects its replayable jobs."""
        threads = processors() if self.threads is None else self.threads

        def do(job: Any) -> None:
            self._pool.run(job)
            if jobs is not None:
                jobs.append(job)

        plan = lambda key, make: self._plans[node.name].get(key, make)
        activation = lambda nodes, shape: activation_of(nodes, constants, shape)
        return Place(constants, allocate, threads, plan, do, self._pool.run, activation, dying, blocks, shapes)

    def _apply(self, node: Node, inputs: list[Array | None], left: int, place: Place) -> tuple[Array, ...]:
        """Run a node and its fused nodes: compiled if possible, else one by one."""
        if operator_of(node) is FOREIGN:
            return self._run_part(node, inputs, left, place)
        call = Call(node.attributes, node.opset, len(node.outputs), left)
        at = node
        try:
            with np.errstate(all="ignore"):
                result = self._convolve(node, call, inputs, place) if node.operator == "Conv" else fast(node, call, inputs, place)
                if result is None:
                    inside = (place.is_blocked(name, array) for name, array in zip(node.inputs, inputs, strict=True))
                    inputs = [plain(array) if lies and array is not None else array for lies, array in zip(inside, inputs, strict=True)]
                    if node.operator == "Conv":
                        result = convolve_in_a_plane(node, call, (*inputs, None)[:3], place, self._how(node))
                    if result is None:
                        result = operator_of(node).run(call, *(inputs[:3] if node.operator == "Conv" else inputs))
                    given = dict(zip(node.inputs, inputs, strict=True)) | {"": None}
                    for at in node.fused:
                        first = np.asarray(result[0] if isinstance(result, tuple) else result)
                        operands = [given[n] if n in given else place.constants[n] if n in place.constants else first for n in at.inputs]
                        result = operator_of(at).run(Call(at.attributes, at.opset, len(at.outputs), left), *operands)
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{at}: {text[0]}") from error
        outputs = result if isinstance(result, tuple) else (result,)
        if len(outputs) < len(node.outputs):
            raise ValueError(f"{node}: gives {len(outputs)} outputs, the model names {len(node.outputs)}")
        return tuple(np.asarray(output) for output in outputs)

    def _run_part(self, node: Node, inputs: list[Array | None], left: int, place: Place) -> tuple[Array, ...]:
        """Run a part of the network in onnxruntime; what it refuses runs node by node, by the definitions where there are any."""
        session, given = self._session(node, place), inputs
        blocked = frozenset(name for name, value in zip(node.inputs, inputs, strict=True) if place.is_blocked(name, value))
        wished = self._wished(node, place)
        if (blocked or wished) and not session.refused and not session.plain_only:
            with suppress(ValueError):
                return session(inputs, blocked, wished, place.allocate)
        if blocked:
            pairs = zip(node.inputs, inputs, strict=True)
            given = [plain(value) if name in blocked and value is not None else value for name, value in pairs]
        reason = session.refused
        if not reason:
            try:
                return session(given, allocate=place.allocate)
            except ValueError as error:
                reason = str(error)
        if node.operator != PART:
            with suppress(ValueError):
                if session.is_lacking:
                    return by_reference(node, inputs, place.constants)
            raise ValueError(f"{node}: {reason}")
        values = dict(zip(node.inputs, given, strict=True)) | {"": None}
        for inner in node.body:
            alone = self._place(inner, place.constants, np.empty)
            found = self._apply(inner, [values[name] for name in inner.inputs], left, alone)
            values.update(zip(inner.outputs, found, strict=False))
        return tuple(_own(values[name]) for name in node.outputs)  # never a view of an input

    def _session(self, node: Node, place: Place) -> Session:
        if node not in self._sessions:
            terms = Terms(place.threads, node in self._alone)
            self._sessions[node] = Session(node, place.constants, place.shapes, terms)
        return self._sessions[node]

    def _wished(self, node: Node, place: Place) -> frozenset[str]:
        """Return the outputs of a part that all readers take in blocks of channels."""
        single = np.dtype(np.float32)
        if not shares_layout():
            return frozenset()
        known = {name: place.shapes[name] for name in node.outputs if name in place.blocks and len(place.shapes.get(name, ())) == 4}
        return frozenset(name for name, shape in known.items() if self._takes(name, shape, single, place))

    def _convolve(self, node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
        takes = lambda shape, dtype: self._takes(node.outputs[0], shape, dtype, place)
        return convolve(node, call, inputs, place, self._how(node), takes)

    def _how(self, node: Node) -> How:
        algorithm = self.algorithms.get(node.name, "direct")
        return How(algorithm, self.threads, max_error=self.max_error if algorithm == "auto" else None)

    def _takes(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], place: Place) -> bool:
        """Return whether all readers of a tensor accept it channels-blocked."""
        try:
            readers = place.blocks.get(name, ())
            return bool(readers) and all(self._takes_one(node, name, shape, dtype, place) for node in readers)
        except (LookupError, TypeError, ValueError):  # which the reader will say of itself
            return False

    def _takes_one(self, node: Node, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], place: Place) -> bool:
        if node.operator == PART:
            return dtype == np.float32 and shares_layout() and self._session(node, place).takes(name)
        call, blocks = Call(node.attributes, node.opset), operator_of(node).blocks
        if blocks is not None and blocks.shape is not None:
            return self._takes(node.outputs[0], blocks.shape(call, shape), dtype, place)
        weight = place.constants[node.inputs[1]]
        layer, how = layer_at(node, shape, weight), self._how(node)
        finish = node.fused if len(node.inputs) < 4 else node.fused[1:]
        if weight.dtype != dtype or finish and place.activation(finish, (shape[0], weight.shape[0], *layer.output)) is None:
            return False
        return blocks_of(layer, method_of(how.algorithm, layer, how.max_error))[0]

    def release(self) -> None:
        """Free the memory between runs; the next run allocates it again."""
        for tape in self._tapes.all():
            if tape is not None:
                tape.release()
        self._arena.clear()

    def plan(self, layer: str) -> Any:
        """Return the plan that a convolution used last, or None if it has not run on the kernels."""
        return self._plans[layer].last()


def _bytes(value: Any) -> int:
    """Return the bytes of an array, or of a list of arrays."""
    return int(value.nbytes) if isinstance(value, np.ndarray) else 0 if not isinstance(value, list) else sum(map(_bytes, value))


def _is_view(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.base is not None


def _own(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value

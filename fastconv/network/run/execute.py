"""Run a network: one pass over the nodes, with cached plans for its convolutions."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv.kernels import blocks_of, layer_of, plan_conv2d, plan_in_blocks
from fastconv.kernels.choose import method_of
from fastconv.kernels.operators import kind_of, planewise
from fastconv.native import Pool, processors
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.graph.weights_file import check_unchanged, files_of, let_go
from fastconv.network.operators.call import MEMORY_LIMIT, Call, is_narrow
from fastconv.network.operators.convolution import check_convolution
from fastconv.network.operators.record import Allocate, Place, Readers
from fastconv.network.operators.table import operator_of
from fastconv.network.operators.window import planar, window
from fastconv.network.rewrite.optimise import known_from_shapes, optimised, with_known
from fastconv.network.run.arena import Arena
from fastconv.network.run.assign import Choice
from fastconv.network.run.blocks import plain, plain_shape, readers_in_blocks
from fastconv.network.run.fast import activation_of, fast
from fastconv.network.run.feeds import checked_feeds
from fastconv.network.run.tape import Recorder, Tape

_PLANS = 4
"""Most input shapes for which a convolution caches transformed weights; the least recently used is dropped first."""
_PROGRAMS = 4
"""Most combinations of kept tensors and input shapes for which a network caches its rewritten form."""
_KNOWN_BYTES = 2**20
"""Most bytes of a result of shape arithmetic; real ones are small."""

_NONE: Readers = {}

Watch = Callable[[Node, list[Array | None], tuple[Array, ...], float], None]
"""``watch(node, inputs, results, seconds)`` is called after each node."""


class Kept:
    """A thread-safe LRU cache; two threads may make an entry twice, but get the same."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._things: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the entry of a key, made if missing."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
                return self._things[key]
        thing = make()
        with self._lock:
            thing = self._things.setdefault(key, thing)
            while len(self._things) > self._size:
                self._things.popitem(last=False)
        return thing

    def last(self) -> Any:
        """Return the entry used last, or None if there is none."""
        with self._lock:
            return next(reversed(self._things.values()), None)

    def held(self, key: Any) -> Any:
        """Return the entry of a key, or None."""
        with self._lock:
            return self._things.get(key)


class Course(NamedTuple):
    """The steps of a run: nodes with dying tensors, known tensors, blocked tensors."""

    steps: Sequence[tuple[Node, tuple[str, ...]]]
    shaped: frozenset[str]
    blocks: Readers


@dataclass(frozen=True, eq=False)
class Program:
    """A network ready to run: rewritten graph, dying tensors, known tensors."""

    graph: Graph
    dead: tuple[tuple[str, ...], ...]
    shaped: frozenset[str]
    blocks: Readers

    @property
    def course(self) -> Course:
        """The steps of a run, without references to constants."""
        return Course(list(zip(self.graph.nodes, self.dead, strict=True)), self.shaped, self.blocks)

    @staticmethod
    def of(graph: Graph, wanted: Iterable[str], shaped: frozenset[str]) -> Program:
        """Return the program of a graph, with the node after which each tensor dies."""
        last = {name: k for k, node in enumerate(graph.nodes) for part in (node, *node.fused) for name in part.inputs}
        spared = {value.name for value in graph.outputs} | set(wanted)
        dead = []
        for k, node in enumerate(graph.nodes):
            # A result without readers dies after its own node.
            names = {name for name in (*node.inputs, *node.outputs) if name and last.get(name, k) == k}
            dead.append(tuple(names - spared))
        return Program(graph, tuple(dead), shaped, readers_in_blocks(graph, spared))


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
        self._plans = {node.name: Kept(_PLANS) for node in graph.nodes if operator_of(node).weights is not None}
        self._programs, self._special, self._tapes = Kept(_PROGRAMS), Kept(_PROGRAMS), Kept(_PLANS)
        self._pool = Pool()
        self._files = files_of(self.graph.constants.values())

    def __call__(self, feeds: Mapping[str, Array], keep: Iterable[str] = (), *, watch: Watch | None = None) -> dict[str, Array]:
        """Run the network.

        Parameters
        ----------
        feeds : mapping
            Input name to array.
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
        wanted = list(dict.fromkeys([value.name for value in self.graph.outputs] + list(keep)))
        given = checked_feeds(self.graph, feeds)
        if self.optimise and watch is None:
            tape: Tape = self._tapes.get(self._key(wanted, given), lambda: self._recorded(wanted, given))
            check_unchanged(tape.files)
            found: dict[str, Array] | None = None if tape.changed else tape(given)
            if found is not None:
                return found
        return self._run_once(feeds, given, wanted, watch)

    def _recorded(self, wanted: list[str], given: Mapping[str, Array]) -> Tape:
        """Run the network once to make its plans, and return its tape."""
        key = frozenset(wanted)
        program = self._special.held(self._key(wanted, given)) or self._programs.held(key) or self._rewritten(wanted)
        course, constants = program.course, dict(program.graph.constants)
        del program
        let_go(self.graph.constants.values())
        check_unchanged(self._files)
        recorder = Recorder()
        given = {name: array if array.flags.c_contiguous else array.copy() for name, array in given.items()}
        for name, array in given.items():
            recorder.feed(name, array)
        self._run(course, constants, given, key, recorder=recorder)
        for name in set(wanted).difference(recorder.tensors, recorder.fixed):
            recorder.fixed[name] = self._constant(name, constants)
        check_unchanged(self._files)  # also not during the read
        self._arena.clear()
        self._pool.free.clear()
        let_go(self.graph.constants.values())

        def apply(node: Node, inputs: list[Array | None], constants: Mapping[str, Array]) -> tuple[Array, ...]:
            return self._apply(node, inputs, self.memory_limit, self._place(node, constants, np.empty, blocks=course.blocks))

        return Tape(recorder, wanted, apply)

    def _constant(self, name: str, constants: Mapping[str, Array]) -> Array:
        for place in (constants, self.graph.constants):
            if name in place:
                return place[name]
        raise ValueError(f"the network has no tensor {name!r}")

    def _run_once(self, feeds: Mapping[str, Array], given: Mapping[str, Array], wanted: list[str], watch: Watch | None) -> dict[str, Array]:
        check_unchanged(self._files)
        program, record = self._program(wanted, given)
        constants = program.graph.constants
        values = self._run(program.course._replace(blocks=_NONE), constants, given, frozenset(wanted), record, watch)
        if record is not None:
            self._special.get(self._key(wanted, given), lambda: self._specialised(program, wanted, record))
        found = {name: values[name] if name in values else self._constant(name, constants) for name in wanted}
        check_unchanged(self._files)
        # Never hand out a view of the model's weights, of a tensor inside, or of the caller's own arrays.
        theirs = {id(array) for place in (feeds, constants, self.graph.constants) for array in place.values()}
        return {name: array.copy() if array.base is not None or id(array) in theirs else array for name, array in found.items()}

    @staticmethod
    def _key(wanted: Iterable[str], given: Mapping[str, Array]) -> Any:
        return frozenset(wanted), tuple((array.shape, array.dtype) for array in given.values())

    def _program(self, wanted: list[str], given: Mapping[str, Array]) -> tuple[Program, dict[str, Array] | None]:
        """Return the program, and a dict for tensors known from shapes if not recorded yet."""
        program: Program = self._programs.get(frozenset(wanted), lambda: self._rewritten(wanted))
        if not program.shaped:
            return program, None
        special: Program | None = self._special.held(self._key(wanted, given))
        return (program, {}) if special is None else (special, None)

    def _rewritten(self, wanted: list[str]) -> Program:
        graph = optimised(self.graph, wanted) if self.optimise else self.graph
        return Program.of(graph, wanted, known_from_shapes(graph) if self.optimise else frozenset())

    @staticmethod
    def _specialised(program: Program, wanted: list[str], record: Mapping[str, Array]) -> Program:
        return Program.of(with_known(program.graph, record), wanted, frozenset())

    def _run(
        self,
        course: Course,
        constants: Mapping[str, Array],
        given: Mapping[str, Array],
        wanted: frozenset[str],
        record: dict[str, Array] | None = None,
        watch: Watch | None = None,
        recorder: Recorder | None = None,
    ) -> dict[str, Array]:
        """Run nodes in order; with a `recorder`, each constant is released after its last use."""
        steps, shaped, blocks = course
        values = dict(given)
        used = sum(array.nbytes for array in values.values())
        for node, dead in steps:
            inputs = [(values[name] if name in values else constants[name]) if name else None for name in node.inputs]
            # Outputs belong to the caller and are not lent.
            allocate: Allocate = np.empty if wanted.intersection(node.outputs) else self._arena.lease
            begun = time.perf_counter()
            jobs: list[Any] = []
            dying = frozenset(dead if watch is None else ()).difference(given)
            results = self._apply(node, inputs, self.memory_limit - used, self._place(node, constants, allocate, jobs, dying, blocks))
            if watch is not None:
                watch(node, inputs, results, time.perf_counter() - begun)
            if recorder is not None:
                known = shaped.issuperset(name for name in node.outputs if name)
                results = recorder.node(node, inputs, results, jobs, constants, known)
            used += sum(array.nbytes for array in results[: len(node.outputs)])
            if used > self.memory_limit:
                raise ValueError(f"{node}: {_too_large(self.memory_limit)}")
            values.update(zip(node.outputs, results, strict=False))
            if record is not None:
                record.update((name, values[name]) for name in shaped.intersection(node.outputs) if values[name].nbytes <= _KNOWN_BYTES)
            for name in dead:
                if name in values:
                    used -= values.pop(name).nbytes
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
    ) -> Place:
        """Return a node's execution context; `jobs` collects its replayable jobs."""
        threads = processors() if self.threads is None else self.threads

        def do(job: Any) -> None:
            self._pool.run(job)
            if jobs is not None:
                jobs.append(job)

        plan = lambda key, make: self._plans[node.name].get(key, make)
        activation = lambda nodes, shape: activation_of(nodes, constants, shape)
        return Place(constants, allocate, threads, plan, do, self._pool.run, activation, dying, blocks)

    def _apply(self, node: Node, inputs: list[Array | None], left: int, place: Place) -> tuple[Array, ...]:
        """Run a node and its fused nodes: compiled if possible, else one by one."""
        call = Call(node.attributes, node.opset, len(node.outputs), left)
        at = node
        try:
            with np.errstate(all="ignore"):
                result = self._convolve(node, call, inputs, place) if node.operator == "Conv" else fast(node, call, inputs, place)
                if result is None:
                    inside = (place.is_blocked(name, array) for name, array in zip(node.inputs, inputs, strict=True))
                    inputs = [plain(array) if lies and array is not None else array for lies, array in zip(inside, inputs, strict=True)]
                    if node.operator == "Conv":
                        result = self._convolve_in_a_plane(node, call, (*inputs, None)[:3], place)
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

    def _convolve_in_a_plane(self, node: Node, call: Call, inputs: Sequence[Array | None], place: Place) -> Array | None:
        """Run a convolution of any rank on the layer kernels, narrow formats in float32."""
        x, weight, bias = inputs
        constant = all(not name or name in place.constants for name in node.inputs[1:3])
        if x is None or weight is None or not constant or not (x.dtype in (np.float32, np.float64) or is_narrow(x.dtype)):
            return None
        check_convolution(call, x, weight, bias)
        view = window(call, x.shape[2:], weight.shape[2:])
        call.reserve((x.shape[0], weight.shape[0], *view.out), x.dtype)
        kind = np.dtype(np.float32) if is_narrow(x.dtype) else x.dtype
        taps = math.prod(weight.shape[2:-2])
        call.reserve((taps, x.shape[0], x.shape[1], *(n + b + e for n, b, e in zip(x.shape[2:], view.begin, view.end, strict=True))), kind)
        flat = planar(view, x.astype(kind, copy=False), weight)
        if flat.x.size == 0:
            return None
        image = np.ascontiguousarray(np.pad(flat.x, flat.view.pads))

        def make() -> Any:
            return plan_conv2d(
                flat.weight.astype(kind, copy=False),
                None if bias is None else bias.astype(kind, copy=False),
                flat.view.strides,
                0,
                flat.view.dilations,
                int(node.attributes.get("group", 1)),  # type: ignore[arg-type]
                input_shape=image.shape,
                algorithm=self.algorithms.get(node.name, "direct"),
                threads=self.threads,
                max_error=self._limit(node.name),
            )

        plan = place.plan((image.shape, x.shape, node.inputs[1:3]), make)
        return flat.restored(plan(image)).astype(x.dtype, copy=False)

    def _convolve(self, node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
        """Run a convolution on the layer kernels, or return None if its inputs need conversion first."""
        x, weight, bias, other = (*inputs, None, None)[:4]
        constant = all(not name or name in place.constants for name in node.inputs[1:3])
        if x is None or weight is None or not constant or x.dtype not in (np.float32, np.float64):
            return None
        inside = place.is_blocked(node.inputs[0], x)
        given = plain_shape(x) if inside else x.shape
        if len(given) not in (3, 4):
            return None
        check_convolution(call, np.broadcast_to(np.empty((), x.dtype), given) if inside else x, weight, bias)
        view = window(call, given[2:], weight.shape[2:])
        shape = call.reserve((given[0], weight.shape[0], *view.out), x.dtype)
        finish = node.fused if other is None else node.fused[1:]
        activation = place.activation(finish, shape)
        if finish and activation is None or other is not None and (other.shape != shape or not kind_of(x, other)):
            return None
        begin, end, strides, dilations = view.begin, view.end, view.strides, view.dilations
        flat = len(given) == 3
        if flat:  # a 1-D layer is a 2-D layer of height one
            x, weight, given = x[:, :, None], weight[:, :, None], (*given[:2], 1, given[2])
            begin, end, strides, dilations = (0, *begin), (0, *end), (1, *strides), (1, *dilations)
        if begin != end:
            padded = call.reserve((*given[:2], *(n + b + e for n, b, e in zip(given[2:], begin, end, strict=True))), x.dtype)
            x, begin, given = np.pad(x, [(0, 0), (0, 0), *zip(begin, end, strict=True)]), (0, 0), padded
            place = place._replace(do=place.now)
        if x.size == 0:
            return None

        image = np.ascontiguousarray(x)

        def make() -> Any:
            plan = plan_in_blocks(
                (inside, wish and self._takes(place.blocks[node.outputs[0]], shape, image.dtype, place)),
                weight,
                bias,
                strides,
                begin,
                dilations,
                int(node.attributes.get("group", 1)),  # type: ignore[arg-type]
                input_shape=given,
                algorithm=self.algorithms.get(node.name, "direct"),
                threads=self.threads,
                activation=None if apart else activation,
                max_error=self._limit(node.name),
            )
            let_go([weight])
            return plan

        # If a plan cannot add the shortcut, a separate sum follows.
        apart = other is not None and (self.algorithms.get(node.name) == "fft" or node.attributes.get("group", 1) != 1)
        wish = node.outputs[0] in place.blocks and other is None and not flat
        plan = place.plan((image.shape, node.inputs[1:3], tuple(part.name for part in node.fused), apart, wish), make)
        do = place.do if image is x else place.now
        if other is not None and not apart:
            y = other
            if image is not x or node.inputs[3] not in place.dying or node.inputs[3] == node.inputs[0]:
                y = place.allocate(other.shape, image.dtype)
                do(planewise(other, y, threads=place.threads))
            do(plan.job(image, y, adding=True))
            return y
        y = place.allocate(plan.output_shape, image.dtype)
        job = plan.job(image, y) if kind_of(image) and other is None else None
        if job is None:
            plan(image, y)
        else:
            do(job)
        if other is not None:
            np.add(y, other.reshape(y.shape), out=y)
            y = y if activation is None else activation(y)
        return y[:, :, 0] if flat else y

    def _takes(self, readers: tuple[Node, ...], shape: tuple[int, ...], dtype: np.dtype[Any], place: Place) -> bool:
        """Return whether all readers of a tensor accept it channels-blocked."""
        try:
            return all(self._takes_one(node, shape, dtype, place) for node in readers)
        except (LookupError, TypeError, ValueError):  # the reader raises it again when it runs
            return False

    def _takes_one(self, node: Node, shape: tuple[int, ...], dtype: np.dtype[Any], place: Place) -> bool:
        call, blocks = Call(node.attributes, node.opset), operator_of(node).blocks
        if blocks is not None and blocks.shape is not None:
            following = place.blocks.get(node.outputs[0], ())
            return bool(following) and self._takes(following, blocks.shape(call, shape), dtype, place)
        weight, *_ = (place.constants[name] for name in node.inputs[1:3] if name)
        view = window(call, shape[2:], weight.shape[2:])
        finish = node.fused if len(node.inputs) < 4 else node.fused[1:]
        output = (shape[0], weight.shape[0], *view.out)
        if view.begin != view.end or weight.dtype != dtype or finish and place.activation(finish, output) is None:
            return False
        layer = layer_of(weight, None, view.strides, view.begin, view.dilations, int(call["group"]), shape)
        return blocks_of(layer, method_of(self.algorithms.get(node.name, "direct"), layer, self._limit(node.name)))[0]

    def _limit(self, layer: str) -> float | None:
        return self.max_error if self.algorithms.get(layer) == "auto" else None

    def plan(self, layer: str) -> Any:
        """Return the plan that a convolution used last, or None if it has not run on the kernels."""
        return self._plans[layer].last()


def _too_large(limit: int) -> str:
    needs = f"the network needs more than {limit / 2**30:.2g} GiB for these inputs"
    return f"{needs}; give it smaller ones, or load it with a higher memory_limit"

"""Record a network's first run as a list of jobs, and replay it for inputs of the same shape.

During the first run, a `Recorder` records the compiled jobs of each node and their tensors. A `Tape` then assigns each
tensor an offset in one block of memory, from the time it is first written and last read, and runs the jobs in order without
Python between them. Nodes without a compiled kernel run in Python, between two lists of jobs.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastconv.native import memory, round_up, run_all
from fastconv.network.graph.graph import Array, Node
from fastconv.network.graph.weights_file import files_of
from fastconv.network.run.session import Bound

_ALIGNED = 64

Apply = Callable[[Node, "list[Array | None]", Mapping[str, Array]], tuple[Array, ...]]
"""``apply(node, inputs, constants)`` computes a node."""


class Tensor(NamedTuple):
    """A tensor's location: its part of the memory, offset, shape and strides."""

    part: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def within(self, memory: Array, start: int) -> Array:
        """Return the tensor as an array in memory, with its part at `start`."""
        return np.ndarray(self.shape, self.dtype, memory.data, start + self.offset, self.strides)


@dataclass
class Part:
    """A part of the memory: its size, the first step that writes it and the last that reads it."""

    size: int
    first: int
    last: int


class Placed(NamedTuple):
    """A job with its arrays as offsets in parts of the memory; constants stay arrays."""

    job: Any
    where: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """A node that runs in Python, and the names of its results."""

    node: Node
    inputs: tuple[str | Array | None, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]


Bind = Callable[[Node, Sequence[Any], Sequence[Any]], "Bound | None"]
"""``bind(node, inputs, outputs)`` returns a call that computes a node from and to these arrays; None where there is none."""


Deliver = Callable[[str, Array], Array]
"""``deliver(name, array)`` copies a result, and returns the copy."""


class ChangedError(Exception):
    """A result has another shape than in the first run."""


class NoTensorError(Exception):
    """A result is no tensor of numbers: it has no place in memory that is laid out before."""


def is_tensor(value: Any) -> bool:
    """Tell whether a value is an array of numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind != "O"


@dataclass
class Recorder:
    """Records the jobs and tensors of a run.

    `alone` tells that no other run uses the nodes: sessions let go of their constants.
    """

    alone: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)
    fixed: dict[str, Array] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    steps: list[Placed | Step] = field(default_factory=list)

    def feed(self, name: str, array: Array) -> None:
        """Record an input."""
        self._new(name, array, -1)

    def node(
        self,
        node: Node,
        inputs: Sequence[Array | None],
        results: Sequence[Array],
        jobs: Sequence[Any],
        constants: Mapping[str, Array],
    ) -> tuple[Array, ...]:
        """Note a node that has run, and the jobs that were all it did, if that is so; return what to take for its results.

        `constants` are those that it reads when it runs again.
        """
        if not all(map(is_tensor, results)):
            raise NoTensorError
        named = [(name, array) for name, array in zip(node.outputs, results, strict=False) if name]
        told = {id(array): at for job in jobs for array, at in zip(job.arrays, job.addresses, strict=True)}

        def address(array: Array) -> int:
            at = told.get(id(array))
            return array.ctypes.data if at is None else at

        given = zip(node.inputs, inputs, strict=True)
        here = [self._placed(name, address(array)) for name, array in given if name in self.tensors and array is not None]
        views: dict[str, Any] = {name: self._view(array, address(array), here) for name, array in named}
        if not jobs:  # in C order and in memory that nothing shares, as it will be on the tape
            results = [a if a.flags.c_contiguous and self._where(a, a.ctypes.data, here) is None else a.copy() for a in results]
        for name, array in zip(node.outputs, results, strict=False):
            if name and jobs and views[name] is not None:
                self.tensors[name] = views[name]
            elif name:
                self._new(name, array, len(self.steps))
        here += [self._placed(name, address(array)) for name, array in zip(node.outputs, results, strict=False) if name]
        if jobs:
            for job in jobs:
                where = tuple(self._where(array, at, here) for array, at in zip(job.arrays, job.addresses, strict=True))
                rest = tuple(array if place is None else None for array, place in zip(job.arrays, where, strict=True))
                self.steps.append(Placed(job.keeping(rest), where))  # keeps only the constant arrays
        else:
            read = tuple(name if name in self.tensors else constants.get(name) for name in node.inputs)
            held = {name: constants[name] for part in (node, *node.fused) for name in part.inputs if name in constants}
            self.steps.append(Step(node, read, node.outputs, held))
        for tensor, _ in here:
            part = self.parts[tensor.part]
            part.last = max(part.last, len(self.steps) - 1)
        return tuple(results)

    def _new(self, name: str, array: Array, first: int) -> None:
        strides = tuple(math.prod(array.shape[k + 1 :]) * array.dtype.itemsize for k in range(array.ndim))
        self.tensors[name] = Tensor(len(self.parts), 0, array.shape, strides, array.dtype)
        self.parts.append(Part(array.nbytes, first, first))

    def _placed(self, name: str, at: int) -> tuple[Tensor, int]:
        """Return a tensor, and the address at which its part would begin, from the address of its array."""
        tensor = self.tensors[name]
        return tensor, at - tensor.offset

    def _view(self, array: Array, at: int, here: Iterable[tuple[Tensor, int]]) -> Tensor | None:
        where = self._where(array, at, here)
        return None if where is None else Tensor(*where, array.shape, array.strides, array.dtype)

    def _where(self, array: Array | None, at: int, here: Iterable[tuple[Tensor, int]]) -> tuple[int, int] | None:
        """Return part and offset of an array whose address is inside one of the given tensors, or None."""
        if array is None or not array.size:
            return None
        for tensor, begin in here:
            if begin <= at < begin + self.parts[tensor.part].size:
                return tensor.part, at - begin
        return None


class Tape:
    """A recorded network to run on other values; concurrent calls each get separate memory.

    Parameters
    ----------
    recorder : Recorder
        Record of the first run.
    wanted : sequence of str
        Tensors to return.
    ways : pair of callables
        Compute the nodes between the jobs (`Apply`, `Bind`).
    lend : callable
        ``lend(size)`` returns memory.
    """

    def __init__(self, recorder: Recorder, wanted: Sequence[str], ways: tuple[Apply, Bind], lend: Callable[[int], Array] = memory) -> None:
        self._tensors, self._fixed, self._steps, self._ways = recorder.tensors, recorder.fixed, recorder.steps, ways
        self._lend = lend
        self._wanted = tuple(wanted)
        for name in wanted:
            if name in self._tensors:
                recorder.parts[self._tensors[name].part].last = len(self._steps)
        placed, self.tensor_bytes = places(recorder.parts)
        self._places = placed
        jobs = [step.job for step in self._steps if isinstance(step, Placed)]
        self.workspace_bytes = max((job.room for job in jobs if not job.clean), default=0)
        self._free: deque[_Memory] = deque()
        self.changed = False
        read = [a for step in self._steps for a in (step.constants.values() if isinstance(step, Step) else step.job.arrays)]
        self.files = files_of(read)
        """Files of weights that every run reads, not only the plans."""

    @property
    def nbytes(self) -> int:
        """Bytes of the memory of one call."""
        return self.tensor_bytes + self.workspace_bytes + _ALIGNED

    def __call__(self, given: Mapping[str, Array], deliver: Deliver | None = None) -> dict[str, Array] | None:
        """Run the tape, or return None if internal shapes depend on values and have changed.

        `deliver` copies each result from the tape's memory; by default to a new array.
        """
        try:
            memory = self._free.pop()
        except IndexError:
            memory = _Memory(self._tensors, self._places, self._steps, (self.tensor_bytes, self._lend(self.nbytes)), self._ways)
            memory.lends.difference_update(self._wanted)
        try:
            held = [memory.give(name, array) for name, array in given.items()]
            for step in memory.steps:
                step()
            del held  # the sessions read these until here
            found = ((name, memory.arrays[name] if name in memory.arrays else self._fixed[name]) for name in self._wanted)
            return {name: array.copy() if deliver is None else deliver(name, array) for name, array in found}
        except ChangedError:
            return None
        finally:
            self._free.append(memory)

    def release(self) -> None:
        """Free the memory that no call uses."""
        self._free.clear()


class _Memory:
    """The memory of one call, with the steps bound to it."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        starts: Sequence[int],
        steps: Sequence[Placed | Step],
        held: tuple[int, Array],
        ways: tuple[Apply, Bind],
    ) -> None:
        size, self._memory = held
        self._clean: list[Array] = []
        base = self._memory.ctypes.data
        self.arrays = {name: tensor.within(self._memory, starts[tensor.part]) for name, tensor in tensors.items()}
        self.steps: list[Callable[[], None]] = []
        self._sessions: dict[str, list[Bound]] = {}
        self.lends = _unmoved(tensors, steps)
        """Inputs that only sessions read: in the caller's memory."""
        words: list[tuple[int, ...]] = []
        for step in steps:
            if isinstance(step, Placed):
                addresses = [
                    (0 if a is None else a.ctypes.data) if where is None else base + starts[where[0]] + where[1]
                    for a, where in zip(step.job.arrays, step.where, strict=True)
                ]
                at = base + size
                if step.job.clean:
                    self._clean.append(memory(step.job.room))
                    at = self._clean[-1].ctypes.data
                words.append(step.job.words(at, addresses))
            else:
                self._flush(words)
                self.steps.append(self._bound(step, *ways))
        self._flush(words)

    def give(self, name: str, array: Array) -> Array:
        """Take an input: a copy, or for sessions the array itself, which is returned."""
        if name not in self.lends:
            np.copyto(self.arrays[name], array)
            return array
        if not (array.flags.c_contiguous and array.flags.aligned):
            array = np.require(array, requirements=["C", "A"])
        for session in self._sessions.get(name, ()):
            session.give(name, array)
        return array

    def _flush(self, words: list[tuple[int, ...]]) -> None:
        if words:
            jobs = np.array([word for job in words for word in job], np.int64)
            self.steps.append(lambda: run_all(jobs))
            words.clear()

    @staticmethod
    def _checked(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                call()
            except ValueError as error:
                raise ChangedError from error

        return run

    def _bound(self, step: Step, apply: Apply, bind: Bind) -> Callable[[], None]:
        inputs = [self.arrays[a] if isinstance(a, str) else a for a in step.inputs]
        outputs = [self.arrays[name] if name else None for name in step.outputs]
        call = bind(step.node, inputs, outputs)
        if call is not None:
            for name in step.inputs:
                if isinstance(name, str):
                    self._sessions.setdefault(name, []).append(call)
            return self._checked(call)
        self.lends.difference_update(name for name in step.inputs if isinstance(name, str))

        def run() -> None:
            for result, place in zip(apply(step.node, inputs, step.constants), outputs, strict=False):
                if place is not None:
                    if result.shape != place.shape or result.dtype != place.dtype:
                        raise ChangedError
                    np.copyto(place, result)

        return run


def _unmoved(tensors: Mapping[str, Tensor], steps: Sequence[Placed | Step]) -> set[str]:
    """Return the tensors that no job reads or writes, and that share their part of the memory with no other."""
    moved = {where[0] for step in steps if isinstance(step, Placed) for where in step.where if where is not None}
    count = Counter(tensor.part for tensor in tensors.values())
    return {name for name, tensor in tensors.items() if tensor.part not in moved and count[tensor.part] == 1}


def places(parts: Sequence[Part]) -> tuple[list[int], int]:
    """Return the starts of parts in one block, and its size.

    The largest part comes first, each as low as the parts that live at the same time allow.

    Examples
    --------
    >>> places([Part(100, 0, 1), Part(64, 1, 2), Part(100, 2, 3)])
    ([0, 128, 0], 192)
    """
    starts = [0] * len(parts)
    living: dict[int, list[int]] = {}  # by step, so the cost per node does not grow with the network
    for k in sorted(range(len(parts)), key=lambda k: -parts[k].size):
        part, at = parts[k], 0
        alive = {j for step in range(part.first, part.last + 1) for j in living.get(step, ())}
        for j in sorted(alive, key=lambda j: starts[j]):
            if at + part.size <= starts[j]:
                break
            at = max(at, _end(starts[j], parts[j].size))
        starts[k] = at
        for step in range(part.first, part.last + 1):
            living.setdefault(step, []).append(k)
    return starts, max((_end(start, part.size) for start, part in zip(starts, parts, strict=True)), default=0)


def _end(start: int, size: int) -> int:
    return start + round_up(size, _ALIGNED)

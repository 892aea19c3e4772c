"""Count the memory of a run before it begins: the tensors of a divided network, and those inside onnxruntime's parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from fastconv.native import round_up
from fastconv.network.graph.graph import Graph, Node
from fastconv.network.operators.call import Call
from fastconv.network.rewrite.cut import PART, reads
from fastconv.network.rewrite.export import Kind

_ALIGNED = 256
"""onnxruntime rounds the bytes of a tensor up to a multiple of this."""

_UNSPLIT = 2**27
"""Bytes that onnxruntime leaves unused at the end of a piece of memory, if that is less than half of it."""


class RoomError(ValueError):
    """A network needs more memory than its limit; `form` is what is known of the network."""

    form: Any = None


class Counted(NamedTuple):
    """A divided network to count: the kinds of its tensors, and the tensors available at the end besides the outputs."""

    graph: Graph
    kinds: Mapping[str, Kind]
    wanted: Collection[str] = ()


class Need(NamedTuple):
    """Bytes that a run needs.

    Attributes
    ----------
    tensors : int
        Of the tensors between the nodes that live together.
    inside : int
        Of onnxruntime's memory, which it keeps.
    first : int
        Of the memory to take for onnxruntime before it runs: what its parts need takes pieces of that.
    ends : int
        Of the inputs and results outside of the run.
    """

    tensors: int
    inside: int
    first: int
    ends: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.tensors + self.inside + self.ends


def needed(runs: Sequence[Counted], ends: int, lanes: Callable[[], int]) -> Need:
    """Return the bytes that runs need which follow one another in the same memory, as far as kinds are known.

    Parameters
    ----------
    runs : sequence of Counted
        A network, or its strips.
    ends : int
        Bytes of inputs and results outside of the runs.
    lanes : callable
        ``lanes()`` returns the channels of a block in onnxruntime.
    """
    tensors = max(map(_living, runs), default=0)
    parts = [
        [one for one in _requests(part, run, lanes()) if one.size] for run in runs for part in run.graph.nodes if part.operator == PART
    ]
    first = max(map(_most, parts), default=0)
    return Need(tensors, max(_kept(parts, first), first), first, ends)


def results_of(run: Counted) -> int:
    """Return the bytes of the results of a run, which the caller gets as copies."""
    names = {value.name for value in run.graph.outputs} | set(run.wanted)
    return sum(run.kinds[name].nbytes for name in names if name in run.kinds)


def check_room(run: Counted, limit: int, lanes: Callable[[], int], whole: Graph | None = None) -> Need:
    """Return what a network needs; reject inputs for which that is more than the limit.

    `whole` is the network before it was divided, whose nodes the message names rather than the parts.

    Raises
    ------
    RoomError
        The message names the node whose tensors exceed it, if they do, and the limit that would do.
    """
    need = needed([run], results_of(run), lanes)
    if need.total <= limit:
        return need
    remedy = f"give it smaller inputs, or load it with memory_limit={need.total}"
    undivided = () if whole is None else _made(run._replace(graph=whole))
    for node, kind, used in chain(undivided, _made(run)):
        try:
            Call({}, 0, 1, limit - used).reserve([length or 0 for length in kind.shape or ()], kind.dtype)
        except ValueError as error:
            raise RoomError(f"{node}: {error}; {remedy}") from error
    inside = f", {need.inside} of them inside onnxruntime" if need.inside else ""
    raise RoomError(f"the network needs {need.total} bytes{inside}, and memory_limit is {limit}; {remedy}")


def last_readers(graph: Graph, spared: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return the tensors that die after each node, without those spared."""
    last = {name: k for k, node in enumerate(graph.nodes) for part in (node, *node.fused) for name in part.inputs}
    dead = []
    for k, node in enumerate(graph.nodes):
        # A result without readers dies after its own node.
        names = {name for name in (*node.inputs, *node.outputs) if name and last.get(name, k) == k}
        dead.append(tuple(names.difference(spared)))
    return tuple(dead)


def _living(run: Counted) -> int:
    enter = sum(run.kinds[value.name].nbytes for value in run.graph.inputs if value.name in run.kinds)
    return max((used + kind.nbytes for _, kind, used in _made(run)), default=enter)


def _made(run: Counted) -> Iterator[tuple[Node, Kind, int]]:
    """Yield each tensor as it is made: its node, its kind, and the bytes of those that live then."""
    spared = {value.name for value in run.graph.outputs} | set(run.wanted)
    sizes = {name: kind.nbytes for name, kind in run.kinds.items()}
    total = sum(sizes.get(value.name, 0) for value in run.graph.inputs)
    for node, dead in zip(run.graph.nodes, last_readers(run.graph, spared), strict=True):
        for name in node.outputs:
            if name in run.kinds:
                yield node, run.kinds[name], total
                total += sizes[name]
        total -= sum(sizes.get(name, 0) for name in dead)


class _Request(NamedTuple):
    """A piece of memory that a node inside a part needs: its bytes, and the first and last node that use it."""

    size: int
    first: int
    last: int


def _requests(part: Node, run: Counted, lanes: int) -> Iterator[_Request]:
    """Yield what a part needs inside: the tensors that do not leave it, and copies in the other layout.

    onnxruntime runs convolutions on blocks of channels, padded to whole blocks, and all else in the layout of the model.
    """
    kinds, body = run.kinds, part.body
    last = {name: k for k, node in enumerate(body) for name in (*reads(node), *node.outputs)}
    plain = {name: k for k, node in enumerate(body) if node.operator != "Conv" for name in reads(node)}
    ours = {name for node in run.graph.nodes if node.operator == "Conv" for name in node.outputs}
    takers = {name for node in run.graph.nodes if node.operator != "Conv" for name in reads(node)}
    takers |= {value.name for value in run.graph.outputs} | set(run.wanted)
    blocked: set[str] = set()
    for name in part.inputs:
        if name in ours and name in kinds and _is_image(kinds[name]) and not _padded(kinds[name], lanes) - kinds[name].nbytes:
            blocked.add(name)
            if name in plain:
                yield _Request(kinds[name].nbytes, 0, plain[name])
    for k, node in enumerate(body):
        blocks = node.operator == "Conv" and lanes > 1
        for name in filter(kinds.get, node.outputs):
            kind, stays = kinds[name], name not in part.outputs
            if blocks and _is_image(kind):
                size = _padded(kind, lanes)
                blocked.add(name)
                if stays or size > kind.nbytes or name in takers or name in plain:
                    yield _Request(size, k, last[name])
                if stays and name in plain:
                    yield _Request(kind.nbytes, k, plain[name])
            elif stays:
                yield _Request(kind.nbytes, k, last[name])
        x = kinds.get(node.inputs[0]) if node.inputs else None
        if blocks and x is not None and node.inputs[0] not in blocked and _is_image(x) and (x.shape or ())[1] >= lanes:  # type: ignore[operator]
            yield _Request(_padded(x, lanes), k, k)
        if node.operator == "ConvTranspose" and x is not None and _is_image(x) and len(node.inputs) > 1:
            yield _Request(_columns(x, run.graph, node), k, k)


def _columns(x: Kind, graph: Graph, node: Node) -> int:
    """Return the bytes of the matrix from which onnxruntime adds up a transposed convolution."""
    weight = graph.constants.get(node.inputs[1])
    channels = (x.shape or (1, 1))[1] or 1
    return 0 if weight is None else x.nbytes // channels * (weight.size // max(weight.shape[0], 1))


def _is_image(kind: Kind) -> bool:
    return kind.shape is not None and len(kind.shape) == 4 and all(kind.shape)


def _padded(kind: Kind, lanes: int) -> int:
    """Return the bytes of an image in whole blocks of channels."""
    channels = (kind.shape or (1, 1))[1] or 1
    return kind.nbytes // channels * round_up(channels, lanes)


def _events(requests: Sequence[_Request]) -> Iterator[tuple[int, int]]:
    """Yield requests in the order in which they are made (their number, bytes) and given back (their number, 0)."""
    begin, end = sorted(range(len(requests)), key=lambda k: requests[k].first), sorted(range(len(requests)), key=lambda k: requests[k].last)
    at = 0
    for k in begin:
        while requests[end[at]].last < requests[k].first:
            yield end[at], 0
            at += 1
        yield k, requests[k].size
    yield from ((k, 0) for k in end[at:])


def _most(requests: Sequence[_Request]) -> int:
    """Return the most bytes that are in use at a time."""
    most = used = 0
    for k, size in _events(requests):
        used += round_up(size, _ALIGNED) if size else -round_up(requests[k].size, _ALIGNED)
        most = max(most, used)
    return most


def _kept(parts: Sequence[Sequence[_Request]], first: int) -> int:
    """Return the bytes of onnxruntime's memory after all parts, if it begins with one piece of `first` bytes."""
    memory = Pieces(first)
    for requests in parts:
        held = {}
        for k, size in _events(requests):
            if size:
                held[k] = memory.take(round_up(size, _ALIGNED))
            else:
                memory.give(*held.pop(k))
    return memory.size


class Pieces:
    """Lends pieces of memory as onnxruntime does: the smallest that fits, cut to size; else new memory, which it keeps.

    Examples
    --------
    >>> memory = Pieces(1000)
    >>> first, second = memory.take(400), memory.take(700)
    >>> memory.size
    1700
    >>> memory.give(*first)
    >>> memory.take(900), memory.size
    ((0, 1000), 1700)
    """

    def __init__(self, first: int) -> None:
        self.size = first
        """Bytes taken from the system."""
        self._end = first
        self._free = [(0, first)] if first else []

    def take(self, size: int) -> tuple[int, int]:
        """Return the start and the bytes of a piece."""
        fits = [piece for piece in self._free if piece[1] >= size]
        if not fits:
            self._end += size + 1  # next to no other
            self.size += size
            return self._end - size, size
        start, there = min(fits, key=lambda piece: (piece[1], piece[0]))
        self._free.remove((start, there))
        if there < 2 * size and there - size < _UNSPLIT:
            return start, there
        self._free.append((start + size, there - size))
        return start, size

    def give(self, start: int, size: int) -> None:
        """Take a piece back, and join it to free ones next to it."""
        for piece in [p for p in self._free if p[0] + p[1] == start or p[0] == start + size]:
            self._free.remove(piece)
            start, size = min(start, piece[0]), size + piece[1]
        self._free.append((start, size))

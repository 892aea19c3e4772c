"""Run a compiled function on a thread pool whose members claim work items one by one.

A team with a barrier waits for its latest member, which on a busy machine may still be asleep. Here any member with
time computes, and a late one finds the job closed. Between jobs members spin for a tenth of a millisecond, so that
they are awake for the next layer of a network, and then sleep. On a system without POSIX threads, Python threads do
the same jobs, one call per thread.
"""

from __future__ import annotations

import ctypes
import operator
import os
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import cache, cached_property
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.native.memory import lasting, round_up
from fastconv.native.objects import Compiled, compiled
from fastconv.native.records import record

SPIN = 100_000
"""Nanoseconds that an idle thread spins."""

MOST_THREADS = 4096
"""Largest number of threads; more is rejected as a mistake."""

JOB = record(
    "function",  # its address
    "members",
    "each",  # bytes of one member's workspace
    "description",  # the function's arguments from here on
    "counter",  # zero if there is none
    "items",
    "x",
    "u",
    "bias",
    "y",
    "workspace",  # of the first member
)
"""A job for a team."""

WORDS = JOB.itemsize // 8
"""Integers of a job."""

_MEMBERS, _COUNTED = ((JOB.names or ()).index(name) for name in ("members", "counter"))
_in_order: Callable[[dict[str, int]], tuple[int, ...]] = operator.itemgetter(*(JOB.names or ()))
"""The same as `described` in a fifth of the time, for each call of a plan; a missing name is a KeyError."""

APART = 128
"""Bytes between data of two threads, against false sharing: the largest cache line, or the pair of lines that Intel fetches."""

COUNTER = APART
"""Bytes before the workspaces: the number of the next work item."""

Array = npt.NDArray[Any]

NOTHING: Array = np.empty(0, np.float32)
"""Placeholder for the arrays of a job made before they exist."""


class Word(IntEnum):
    """Offsets of words in the members' shared block, in integers; they are `APART` bytes apart."""

    def _generate_next_value_(name, start, count, last_values):  # type: ignore[no-untyped-def,override] # noqa: N805
        return APART // 8 * count

    NUMBER = auto()  # of the newest job
    OPEN = auto()  # number of the job that may be entered
    INSIDE = auto()  # members working on it
    SLEEPING = auto()
    STOP = auto()
    STATE = auto()  # floating-point state
    JOB = auto()
    MUTEX = auto()  # pthread object, at most 64 bytes
    CONDITION = auto()
    END = auto()


@dataclass(frozen=True, eq=False)
class Job:
    """A compiled function with its data.

    Attributes
    ----------
    function : Compiled
        Takes description, counter, items, x, u, bias, y and a workspace address, and claims items until none is left.
    description : array
        Record that describes the work to the function.
    items : int
        Work items; all are independent.
    arrays : tuple of arrays
        x, u, bias and y; None for an unused one.
    members : int
        Most threads to use.
    each : int
        Bytes of one member's workspace.
    clean : bool
        Whether it needs a workspace that starts as zeros and that no other kind of job uses.
    first : Job, optional
        A job to run before: it reads x, and this job reads its output instead.
    between : int
        Bytes of that output, at the end of the workspace.
    """

    function: Compiled
    description: Array
    items: int
    arrays: tuple[Array | None, Array | None, Array | None, Array | None]
    members: int = 1
    each: int = 0
    clean: bool = False
    first: Job | None = None
    between: int = 0

    @property
    def room(self) -> int:
        """Bytes of workspace: the counter, a part for each member, and the output of `first`."""
        return self._middle + self.between

    @cached_property
    def _middle(self) -> int:
        own = COUNTER + self.each * self.members
        return round_up(max(own, self.first.room), COUNTER) if self.first else own

    def words(self, workspace: int, addresses: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the job as integers for the team; `addresses` replace those of the arrays."""
        x, u, bias, y = addresses or self.addresses
        before: tuple[int, ...] = ()
        if self.first is not None:
            middle = workspace + self._middle
            before, x = self.first.words(workspace, (x, *self.first.addresses[1:3], middle)), middle
        members = min(self.members, self.items, processors())
        given = {
            "function": self.function.address,
            "members": members,
            "each": self.each,
            "description": self.about,
            "counter": workspace,
            "items": self.items,
            "x": x,
            "u": u,
            "bias": bias,
            "y": y,
            "workspace": workspace + COUNTER,
        }
        return before + _in_order(given)

    def keeping(self, arrays: tuple[Array | None, Array | None, Array | None, Array | None]) -> Job:
        """Return the same job on these arrays; `dataclasses.replace` takes three times as long."""
        other: Job = object.__new__(Job)
        other.__dict__.update(self.__dict__, arrays=arrays)
        other.__dict__.pop("addresses", None)
        return other

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """Addresses of the arrays."""
        return tuple(0 if a is None else a.ctypes.data for a in self.arrays)

    @cached_property
    def about(self) -> int:
        """Address of the description."""
        return self.description.ctypes.data


def run(job: Job, workspace: Array, x: Array | None = None, y: Array | None = None) -> None:
    """Run a job in a workspace of at least its `room`, on other arrays `x` and `y` if given."""
    addresses = job.addresses
    if x is not None and y is not None:
        addresses = (x.ctypes.data, addresses[1], addresses[2], y.ctypes.data)
    given = job.words(workspace.ctypes.data, addresses)
    words = array("q", given)
    _run(words.buffer_info()[0], len(given) // WORDS, max(given[_MEMBERS::WORDS]))


def run_all(words: Array) -> None:
    """Run jobs in order, each given by its words: in the team, or on this thread if the team is busy."""
    _run(words.ctypes.data, words.size // WORDS, int(words[_MEMBERS::WORDS].max(initial=1)))


def _run(words: int, count: int, members: int) -> None:
    flush = int(_FLUSHED.get())
    if members <= 1 or not team().run(words, count, members, flush):
        alone()(words, count, flush)


@cache
def alone() -> Callable[..., None]:
    """Return ``run(words, count, flush)``, which runs jobs on this thread."""
    return compiled("native.members.alone").ctypes


_FLUSHED = ContextVar("flushed", default=False)


@contextmanager
def flush_subnormals() -> Iterator[None]:
    """Treat subnormal inputs and results as zero in compiled layers.

    Arithmetic on subnormal numbers (in float32 below 1.2e-38) takes up to a hundred times longer. `Plan.explain` says whether
    a layer has subnormal weights. The context manager affects layers and networks that run within it, in this thread and
    its worker threads, but not the computations of numpy, scipy (``algorithm="fft"``) and onnxruntime. Convolutions of a
    network run here then, except those given to onnxruntime by name.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv as fc
    >>> x, w = np.full((1, 1, 1, 1), 1e-20, np.float32), np.full((1, 1, 1, 1), 1e-20, np.float32)
    >>> float(fc.conv2d(x, w)[0, 0, 0, 0]) > 0
    True
    >>> with fc.flush_subnormals():
    ...     float(fc.conv2d(x, w)[0, 0, 0, 0])
    0.0
    """
    token = _FLUSHED.set(True)
    try:
        yield
    finally:
        _FLUSHED.reset(token)


def flushes() -> bool:
    """Return whether subnormal numbers are treated as zero: inside `flush_subnormals`."""
    return _FLUSHED.get()


class Pool:
    """Workspaces that jobs borrow: allocated when none is free or large enough, then kept.

    Jobs that need a clean workspace share a `clean` pool only if they leave the same bytes untouched.
    """

    def __init__(self, clean: bool = False) -> None:
        self.free: deque[Array] = deque()
        self.clean = clean

    def run(self, job: Job, x: Array | None = None, y: Array | None = None) -> None:
        """Run a job in a free workspace, on other arrays `x` and `y` if given."""
        if job.clean and not self.clean:
            return run(job, memory(job.room), x, y)
        try:
            workspace = self.free.pop()
        except IndexError:
            workspace = memory(job.room)
        if workspace.size < job.room:
            workspace = memory(job.room)
        try:
            run(job, workspace, x, y)
        finally:
            self.free.append(workspace)


def memory(size: int) -> Array:
    """Return new zeroed memory whose start shares no cache line with other memory."""
    whole = lasting((size + APART,), np.uint8)
    start = -whole.ctypes.data % APART
    return whole[start : start + size]


@cache
def processors() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(threads: int | None) -> int:
    """Return the given number of threads, or the number of CPUs for None.

    Raises
    ------
    TypeError, ValueError
        If it is not an integer, or out of range.
    """
    if threads is None:
        return processors()
    try:
        count = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads is {threads!r}: pass an integer, or None for as many as there are processors") from None
    if count < 1:
        raise ValueError(f"threads is {count}: at least one thread runs")
    if count > MOST_THREADS:
        raise ValueError(f"threads is {count}: pass at most {MOST_THREADS}, or None for as many as there are processors")
    return count


class Team:
    """Threads that wait for jobs, started when a job needs them."""

    def __init__(self) -> None:
        self.words = memory(8 * int(Word.END)).view(np.int64)
        self.at = self.words.ctypes.data
        for make, word in (("pthread_mutex_init", Word.MUTEX), ("pthread_cond_init", Word.CONDITION)):
            if ctypes.CDLL(None)[make](ctypes.c_void_p(self.at + 8 * word), None):
                raise OSError(f"{make} failed: the system has no room for another lock")
        self.busy = threading.Lock()
        self.threads: list[threading.Thread] = []
        self.lead, self.serve = compiled("native.members.lead").ctypes, compiled("native.members.serve").ctypes

    def run(self, words: int, count: int, members: int, flush: int = 0) -> bool:
        """Run jobs, whose words are at an address, or return False if the team is busy."""
        if not self.busy.acquire(blocking=False):
            return False
        try:
            while len(self.threads) < members - 1:
                self.threads.append(_thread(self.serve, self.at, len(self.threads) + 1))
            self.lead(self.at, words, count, flush)
        finally:
            self.busy.release()
        return True

    def stop(self) -> None:
        """Stop the threads, before the interpreter frees their memory."""
        with self.busy:
            self.words[Word.STOP] = 1
            nothing = np.zeros((), JOB)
            nothing["members"] = len(self.threads) + 1
            self.lead(self.at, nothing.ctypes.data, 1, 0)
            for thread in self.threads:
                thread.join()


class PortableTeam:
    """The same with Python threads, one call per thread and job, for systems without POSIX threads."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.threads: list[threading.Thread] = []
        self.given: list[SimpleQueue[tuple[int, ...]]] = []
        self.done: SimpleQueue[None] = SimpleQueue()
        self.member = compiled("native.members.member").ctypes

    def run(self, words: int, count: int, members: int, flush: int = 0) -> bool:
        """Run jobs, whose words are at an address, or return False if the team is busy."""
        if not self.busy.acquire(blocking=False):
            return False
        try:
            while len(self.threads) < members - 1:
                self.given.append(SimpleQueue())
                self.threads.append(_thread(self._serve, self.given[-1], len(self.given)))
            for job in range(words, words + JOB.itemsize * count, JOB.itemsize):
                self._lead(job, flush)
        finally:
            self.busy.release()
        return True

    def _lead(self, job: int, flush: int) -> None:
        members, counter = (ctypes.c_int64.from_address(job + 8 * k).value for k in (_MEMBERS, _COUNTED))
        if members <= 1:
            return alone()(job, 1, flush)
        if counter:
            ctypes.c_int64.from_address(counter).value = 0
        for queue in self.given[: members - 1]:
            queue.put((job, flush))
        self.member(job, 0, flush)
        for _ in range(members - 1):
            self.done.get()

    def _serve(self, given: SimpleQueue[tuple[int, ...]], index: int) -> None:
        while job := given.get():
            self.member(job[0], index, job[1])
            self.done.put(None)

    def stop(self) -> None:
        """Stop the threads."""
        with self.busy:
            for queue in self.given:
                queue.put(())
            for thread in self.threads:
                thread.join()


def _thread(function: Callable[..., None], *given: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=given, name=f"fastconv-{given[-1]}", daemon=True)
    thread.start()
    return thread


@cache
def team() -> Team | PortableTeam:
    """Return this process's team."""
    import atexit

    made = Team() if os.name == "posix" else PortableTeam()
    atexit.register(made.stop)
    return made


if hasattr(os, "register_at_fork"):  # a child process has its parent's memory, but not its threads
    os.register_at_fork(after_in_child=team.cache_clear)

"""Compiled code of a team of threads: members wait for jobs, the leader publishes them.

Correctness depends on the order of the steps, all of which are sequentially consistent. A member enters (INSIDE + 1)
before it checks that its job is still open; the leader closes the job before it checks for members inside. So either
the member sees the job closed and skips it, or the leader sees the member and waits. A member increments SLEEPING
before it checks, under the lock, for a new job; the leader publishes the job before it checks for sleepers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import types
from numba.extending import intrinsic

from fastconv.native.machine import machine
from fastconv.native.source.emit import part
from fastconv.native.source.instructions import FLUSH, calling, control, pause, set_control
from fastconv.native.source.vectors import call, external, integers, pointer
from fastconv.native.threads import JOB, SPIN, WORDS, Word

I64, I32 = ir.IntType(64), ir.IntType(32)
_CLOCK = {"linux": 1, "darwin": 6}.get(machine().system, getattr(time, "CLOCK_MONOTONIC", 1))
"""Number of the monotonic clock in C."""
_LOOKS = 16
"""Polls of a waiting thread between two readings of the clock."""
BYTES = JOB.itemsize
NUMBER, OPEN, INSIDE, SLEEPING, STOP, STATE, FIRST, MUTEX, CONDITION = (8 * int(word) for word in Word if word is not Word.END)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, I64.as_pointer())


@intrinsic
def load(typingctx: Any, address: Any) -> Any:
    """Return a word that other threads write."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "seq_cst", 8)

    return types.int64(address), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a word that other threads read."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(address, types.int64), codegen


@intrinsic
def add(typingctx: Any, address: Any, value: Any) -> Any:
    """Add to a word that other threads write, and return its old value."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(address, types.int64), codegen


yield_processor = calling("sched_yield", None)
lock, unlock = calling("pthread_mutex_lock", None, 1), calling("pthread_mutex_unlock", None, 1)
wait, wake = calling("pthread_cond_wait", None, 2), calling("pthread_cond_broadcast", None, 1)


@intrinsic
def nanoseconds(typingctx: Any) -> Any:
    """Return the time of the monotonic clock."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            place = builder.alloca(ir.ArrayType(I64, 2))
        address = builder.ptrtoint(place, I64)
        builder.call(external(builder, "clock_gettime", ir.FunctionType(I32, [I32, I64])), [I32(_CLOCK), address])
        seconds, rest = (builder.load(builder.inttoptr(builder.add(address, I64(k)), I64.as_pointer())) for k in (0, 8))
        return builder.add(builder.mul(seconds, I64(1_000_000_000)), rest)

    return types.int64(), codegen


@part
def _wanted(flush):  # type: ignore[no-untyped-def]
    """Return the floating-point state of the calling thread, for all members."""
    return control(()) | (FLUSH if flush else 0)


@part
def _one(todo, index, state):  # type: ignore[no-untyped-def]
    """Do one member's part of a job."""
    job = carray(pointer(todo), (1,), JOB)[0]
    before = control(())
    if state != before:
        set_control((state,))
    workspace = job.workspace + index * job.each
    call(job.function, (job.description, job.counter, job.items, job.x, job.u, job.bias, job.y, workspace))
    if state != before:
        set_control((before,))


@part
def _begin(todo):  # type: ignore[no-untyped-def]
    """Set the number of the next work item to zero."""
    job = carray(pointer(todo), (1,), JOB)[0]
    if job.counter:
        store(job.counter, 0)


def _member(todo, index, flush):  # type: ignore[no-untyped-def]
    _one(todo, index, _wanted(flush))


def _alone(jobs, count, flush):  # type: ignore[no-untyped-def]
    state = _wanted(flush)
    for k in range(count):
        todo = jobs + k * BYTES
        _begin(todo)
        _one(todo, 0, state)


def _serve(at, index):  # type: ignore[no-untyped-def]
    job = carray(pointer(at + FIRST), (1,), JOB)[0]
    last = 0
    while True:
        until = nanoseconds() + SPIN
        while load(at + NUMBER) == last and nanoseconds() < until:
            for _ in range(_LOOKS):
                if load(at + NUMBER) != last:
                    break
                pause(())
        if load(at + NUMBER) == last:
            add(at + SLEEPING, 1)
            lock((at + MUTEX,))
            while load(at + NUMBER) == last:
                wait((at + CONDITION, at + MUTEX))
            unlock((at + MUTEX,))
            add(at + SLEEPING, -1)
        last = load(at + NUMBER)
        if load(at + STOP):
            return
        add(at + INSIDE, 1)
        if load(at + OPEN) == last and index < job.members:
            _one(at + FIRST, index, load(at + STATE))
        add(at + INSIDE, -1)


def _lead(at, jobs, count, flush):  # type: ignore[no-untyped-def]
    words = carray(integers(at + FIRST), (WORDS,), np.int64)
    state = _wanted(flush)
    store(at + STATE, state)
    for k in range(count):
        todo = jobs + k * BYTES
        job = carray(pointer(todo), (1,), JOB)[0]
        _begin(todo)
        team = job.members > 1
        if team:
            given = carray(integers(todo), (WORDS,), np.int64)
            for i in range(WORDS):
                words[i] = given[i]
            number = load(at + NUMBER) + 1
            store(at + OPEN, number)
            store(at + NUMBER, number)
            if load(at + SLEEPING):
                lock((at + MUTEX,))  # a member about to wait has seen the job, or waits now
                unlock((at + MUTEX,))
                wake((at + CONDITION,))
        if job.function:
            _one(todo, 0, state)
        if team:
            store(at + OPEN, 0)
            until = nanoseconds() + SPIN
            while load(at + INSIDE):
                if nanoseconds() < until:
                    pause(())
                else:
                    yield_processor(())


def member() -> Callable[..., None]:
    """Return the function that does one member's part of a job."""
    return _member


def alone() -> Callable[..., None]:
    """Return the function that does jobs in order on this thread."""
    return _alone


def serve() -> Callable[..., None]:
    """Return the function in which a member waits for jobs."""
    return _serve


def lead() -> Callable[..., None]:
    """Return the function that publishes jobs in order and takes part in them."""
    return _lead

"""What the members of a team run: compiled code that waits for jobs, and the code that gives them out.

The order of the steps is what keeps it right, and all of them are sequentially consistent. A member enters (INSIDE + 1)
before it looks whether its job is still open; the leader closes the job before it looks whether anybody is inside. So
either the member sees it closed and leaves the job alone, or the leader sees the member and waits.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.source.simd import call, external, integers
from fastconv.kernels.threads import JOB, SPIN, WAITS, Word

_I64, _I32 = ir.IntType(64), ir.IntType(32)
_FUTEX = {"x86_64": 202, "AMD64": 202, "aarch64": 98, "arm64": 98}.get(platform.machine(), 0) if WAITS else 0
_WAIT, _WAKE = 128, 129  # private to the process

NUMBER, OPEN, INSIDE, SLEEPING, STOP, FIRST = (
    8 * int(w) for w in (Word.NUMBER, Word.OPEN, Word.INSIDE, Word.SLEEPING, Word.STOP, Word.JOB)
)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def load(typingctx: Any, address: Any) -> Any:
    """Read a word that others write."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "seq_cst", 8)

    return types.int64(address), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a word that others read."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(address, types.int64), codegen


@intrinsic
def add(typingctx: Any, address: Any, value: Any) -> Any:
    """Add to a word that others write."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(address, types.int64), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tell the processor that this thread is waiting."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            builder.call(external(builder, "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def cycles(typingctx: Any) -> Any:
    """Return the processor's clock."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.call(external(builder, "llvm.readcyclecounter", ir.FunctionType(_I64, [])), [])

    return types.int64(), codegen


@intrinsic
def yield_processor(typingctx: Any) -> Any:
    """Let another thread run on this processor."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.call(external(builder, "sched_yield", ir.FunctionType(_I32, [])), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def futex(typingctx: Any, address: Any, what: Any, value: Any) -> Any:
    """Sleep while the low half of a word holds a value, or wake that many sleepers; without futexes, yield."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not _FUTEX:
            builder.call(external(builder, "sched_yield", ir.FunctionType(_I32, [])), [])
            return context.get_dummy_value()
        zero = _I64(0)
        function = external(builder, "syscall", ir.FunctionType(_I64, [_I64], var_arg=True))
        builder.call(function, [_I64(_FUTEX), args[0], args[1], args[2], zero, zero, zero])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _serve(at, index):  # type: ignore[no-untyped-def]
    job = carray(integers(at + FIRST), (JOB,), np.int64)
    last = 0
    while True:
        begun = cycles()
        while load(at + NUMBER) == last and cycles() - begun < SPIN:
            pause()
        if load(at + NUMBER) == last:
            add(at + SLEEPING, 1)
            futex(at + NUMBER, _WAIT, last)  # returns at once if a job came meanwhile
            add(at + SLEEPING, -1)
            continue
        last = load(at + NUMBER)
        if load(at + STOP):
            return
        add(at + INSIDE, 1)
        if load(at + OPEN) == last and index < job[1]:
            call(job[0], (job[3], job[4], job[5], job[6], job[7], job[8], job[9], job[10] + index * job[2]))
        add(at + INSIDE, -1)


def _lead(at, jobs, count):  # type: ignore[no-untyped-def]
    """Do jobs one after the other; with no team, or where a job is for one, alone."""
    for k in range(count):
        todo = carray(integers(jobs + k * JOB * 8), (JOB,), np.int64)
        if todo[4]:
            store(todo[4], 0)
        team = at != 0 and todo[1] > 1
        if team:
            job = carray(integers(at + FIRST), (JOB,), np.int64)
            for i in range(JOB):
                job[i] = todo[i]
            number = load(at + NUMBER) + 1
            store(at + OPEN, number)
            store(at + NUMBER, number)
            if load(at + SLEEPING):
                futex(at + NUMBER, _WAKE, 1 << 30)
        if todo[0]:
            call(todo[0], (todo[3], todo[4], todo[5], todo[6], todo[7], todo[8], todo[9], todo[10]))
        if team:
            store(at + OPEN, 0)
            begun = cycles()
            while load(at + INSIDE):
                if cycles() - begun < SPIN:
                    pause()
                else:
                    yield_processor()


def serve() -> Callable[..., None]:
    """Make what a member runs: it waits for jobs, given the address of the shared block and its own number."""
    return _serve


def lead() -> Callable[..., None]:
    """Make what gives a number of jobs out, one after the other, and takes part."""
    return _lead

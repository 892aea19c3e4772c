"""Compile with numba to object code."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from llvmlite import binding
from numba import types

from fastconv.native.link import ROOM, undefined
from fastconv.native.machine import machine, target_machine
from fastconv.native.source.instructions import defined
from fastconv.native.source.jit import bare

OUTSIDE = frozenset(
    "fma fmaf memcpy memset bzero __chkstk clock_gettime sched_yield "
    "pthread_mutex_lock pthread_mutex_unlock pthread_cond_wait pthread_cond_broadcast".split()
)
"""Functions of the process that code may call: those that the compiler emits, and those of the team of threads."""
_FREE = re.compile(r"^(define [^\n]*@NRT_decref\([^\n]*{\n).*?^}", re.MULTILINE | re.DOTALL)
"""numba's release of array memory. Arrays in kernels are views of addresses and own no memory."""


def part(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of the functions that call it."""
    return bare()(function)


def emitted(name: str, function: Callable[..., Any]) -> bytes:
    """Return a function's object code, after one byte with its number of arguments.

    numba's functions take two more addresses, for a result and an exception, and return a status. The function `name` drops
    these: kernels have no error to report.
    """
    count = function.__code__.co_argcount
    compiled = bare(types.void(*[types.intp] * count))(function)
    (found,) = compiled.overloads.values()
    text = _FREE.sub(r"\1  ret void\n}", found.library.get_llvm_str())
    inner = found.fndesc.llvm_func_name
    kinds = [str(argument.type) for argument in binding.parse_assembly(text).get_function(inner).arguments]
    opaque = kinds[0] == "ptr"
    place = "ptr" if opaque else "[64 x i8]*"
    text = defined(text, opaque)
    given = [f"i64 %a{k}" for k in range(count)]
    module = binding.parse_assembly(
        f"{text}\ndefine void @{name}({', '.join(given)}) {{\n"
        f"  %place = alloca [64 x i8], align 16\n"
        f"  %result = bitcast {place} %place to {kinds[0]}\n  %error = bitcast {place} %place to {kinds[1]}\n"
        f'  %status = call i32 @"{inner}"({kinds[0]} %result, {kinds[1]} %error{"".join(", " + one for one in given)})\n'
        f"  ret void\n}}\n{ROOM.format(name)}\n"
    )
    here = machine()
    target = target_machine(here)
    module.triple, module.data_layout = here.triple, str(target.target_data)
    module.verify()
    code: bytes = target.emit_object(module)
    called = undefined(code) - OUTSIDE
    if called:
        raise RuntimeError(f"kernel {name} calls {', '.join(sorted(called))}: kernels call nothing that may raise")
    return bytes([count]) + code

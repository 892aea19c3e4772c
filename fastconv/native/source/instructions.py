"""Instructions specific to an architecture, by name.

numba compiles for the CPU that it runs on, not for the target machine, so their definitions are inserted after it.
"""

from __future__ import annotations

import re
from typing import Any

from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.native.machine import machine
from fastconv.native.source.vectors import external

I64 = ir.IntType(64)

_BODIES = {
    ("x86_64", "pause"): "  call void @llvm.x86.sse2.pause()",
    ("x86_64", "control"): """
  %at = alloca i64
  store i64 0, i64* %at
  %as = bitcast i64* %at to i8*
  call void @llvm.x86.sse.stmxcsr(i8* %as)
  %result = load i64, i64* %at""",
    ("x86_64", "set_control"): """
  %at = alloca i64
  store i64 %value, i64* %at
  %as = bitcast i64* %at to i8*
  call void @llvm.x86.sse.ldmxcsr(i8* %as)""",
    ("aarch64", "pause"): "  call void @llvm.aarch64.isb(i32 15)",
    ("aarch64", "control"): "  %result = call i64 @llvm.aarch64.get.fpcr()",
    ("aarch64", "set_control"): "  call void @llvm.aarch64.set.fpcr(i64 %value)",
}
"""LLVM IR to pause, and to read and set the register that controls subnormal numbers."""

_DECLARATIONS = {
    "x86_64": """declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(i8*)
declare void @llvm.x86.sse.ldmxcsr(i8*)
""",
    "aarch64": """declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
""",
}

_HEADS = {"pause": ("void", ""), "control": ("i64", ""), "set_control": ("void", "i64 %value")}
_DECLARED = re.compile(r"^declare [^@\n]*@fastconv_(\w+)\(.*$", re.MULTILINE)
_POINTER = re.compile(r"\b(i64|i8)\*")

FLUSH = {"x86_64": 0x8040, "aarch64": 1 << 24}.get(machine().architecture, 0)
"""Bits of the control register that make subnormal inputs and results zero: DAZ and FTZ of x86, FZ of ARM."""

for _name in _HEADS:
    binding.add_symbol(f"fastconv_{_name}", 1)  # numba also loads the code that it compiles here, but never runs it


def calling(name: str, result: Any, count: int = 0) -> Any:
    """Return an intrinsic that calls an external function with a tuple of integers."""
    given, kind = (types.void, ir.VoidType()) if result is None else (types.int64, result)

    @intrinsic
    def called(typingctx: Any, values: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            function = external(builder, name, ir.FunctionType(kind, [I64] * count))
            value = builder.call(function, [builder.extract_value(args[0], k) for k in range(count)])
            return context.get_dummy_value() if result is None else value

        return given(values), codegen

    return called


pause = calling("fastconv_pause", None)
control = calling("fastconv_control", I64)
set_control = calling("fastconv_set_control", None, 1)


def defined(text: str, opaque: bool) -> str:
    """Return a module's LLVM IR with the instructions that it declares defined for the target machine.

    Parameters
    ----------
    text : str
        The module.
    opaque : bool
        Whether this LLVM uses opaque pointers.
    """
    names = set(_DECLARED.findall(text))
    if not names:
        return text
    own = _DECLARATIONS.get(machine().architecture, "")
    for name in sorted(names):
        result, given = _HEADS[name]
        body = _BODIES.get((machine().architecture, name), "  %result = add i64 0, 0")
        own += f"define internal {result} @fastconv_{name}({given}) {{\n{body}\n  ret {result}{' %result' * (result != 'void')}\n}}\n"
    return _DECLARED.sub("", text) + (_POINTER.sub("ptr", own) if opaque else own)

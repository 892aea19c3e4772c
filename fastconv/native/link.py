"""Load object code into the process, after its undefined symbols are looked up by name."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from fastconv.native.machine import Machine, machine, target_machine

_ELF, _MACHO = b"\x7fELF", b"\xcf\xfa\xed\xfe"

ROOM = "@{}_room = global [64 x i64] zeroinitializer"
"""Data that each object must contain, in LLVM IR. The loader stores addresses of external functions in an object's data section,
but does not reserve space for all of them."""


def undefined(code: bytes) -> frozenset[str]:
    """Return the undefined symbols of object code, by their names in C.

    Parameters
    ----------
    code : bytes
        An ELF or Mach-O object of 64 bits, little-endian.

    Raises
    ------
    ValueError
        If it is neither, or cut short.
    """
    read = {_ELF: _of_elf, _MACHO: _of_macho}.get(code[:4])
    if read is None:
        raise ValueError(f"object code begins with {code[:4].hex()!r}: it must be ELF or Mach-O of 64 bits")
    try:
        return frozenset(read(code))
    except (struct.error, IndexError) as wrong:
        raise ValueError("object code is cut short") from wrong


def _of_elf(code: bytes) -> Iterator[str]:
    (sections,) = struct.unpack_from("<Q", code, 0x28)
    size, count = struct.unpack_from("<HH", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQII", code, sections + k * size) for k in range(count)]
    for _, kind, _, _, at, length, link, _ in headers:
        if kind == 2:  # SHT_SYMTAB
            for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", code[at : at + length]):
                if name and section == 0:
                    yield _text(code, headers[link][4] + name)


def _of_macho(code: bytes) -> Iterator[str]:
    (commands,) = struct.unpack_from("<I", code, 16)
    at = 32
    for _ in range(commands):
        kind, size = struct.unpack_from("<II", code, at)
        if kind == 2:  # LC_SYMTAB
            symbols, count, texts, _ = struct.unpack_from("<4I", code, at + 8)
            for name, flags, _, _, value in struct.iter_unpack("<IBBHQ", code[symbols : symbols + 16 * count]):
                if flags & 0x0F == 1 and not value:  # external, in no section, and not a common block of that size
                    yield _text(code, texts + name).removeprefix("_")
        at += size


def _text(code: bytes, at: int) -> str:
    return code[at : code.index(b"\0", at)].decode()


def load(name: str, code: bytes, here: Machine | None = None) -> int:
    """Load object code that defines a function, and return the function's address.

    Parameters
    ----------
    name : str
        Name of the function.
    code : bytes
        An object that `undefined` reads, with `ROOM` for the addresses of external functions.
    here : Machine, optional
        Machine that the code was compiled for, by default `machine()`. It has this architecture; code for another system may
        run only if that system has the same calling convention.

    Raises
    ------
    RuntimeError
        If the process lacks one of the code's symbols; nothing is loaded then.
    """
    from llvmlite import binding

    loader = _loader(here or machine())  # from here on LLVM finds the symbols of the process
    found = {plain: _address_of(plain) for plain in undefined(code)}
    missing = sorted(plain for plain, address in found.items() if not address)
    if missing:
        raise RuntimeError(f"compiled code {name} calls {', '.join(missing)}, which this process does not have")
    for plain, address in found.items():
        symbol = "_" * code.startswith(_MACHO) + plain
        if not binding.address_of_symbol(symbol):
            binding.add_symbol(symbol, address)
    loader.add_object_file(binding.ObjectFileRef.from_data(code))
    loader.finalize_object()
    return int(loader.get_function_address(name))


def _address_of(name: str) -> int:
    """Return the address of a function of the process, or 0 if it has none of that name."""
    from llvmlite import binding

    if name == "__chkstk" and sys.platform == "win32":  # called where a stack frame is larger than a page
        return ctypes.cast(ctypes.WinDLL("ntdll")[name], ctypes.c_void_p).value or 0
    return int(binding.address_of_symbol(name) or 0)


@cache
def _loader(here: Machine) -> Any:
    """Return an LLVM loader that keeps all sections of an object in one block of memory.

    LLVM's default memory manager allocates code and constants separately. In a fragmented address space their
    distance may exceed the 2 GiB that the small code model reaches, and LLVM aborts the process. llvmlite's memory
    manager reserves one block per object before it places the sections.
    """
    from llvmlite import binding

    return binding.create_mcjit_compiler(binding.parse_assembly(""), target_machine(here), use_lmm=True)

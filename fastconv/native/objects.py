"""Return compiled functions by name, from disk if possible, else by numba.

The name of an object file depends on all that its code depends on: the function and its parameters, the sources, the versions of
the compilers and the machine. Processes that compile at the same time write equivalent code to the same name, atomically.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from fastconv.files import cache_folder
from fastconv.native.digests import digest_of
from fastconv.native.link import load
from fastconv.native.own import read_own, write_own

_DIGEST = hashlib.sha256().digest_size
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Compiled:
    """A compiled function of integers, by name and address."""

    name: str
    address: int
    count: int
    """Number of arguments."""

    @cached_property
    def ctypes(self) -> Callable[..., None]:
        """The function, callable from Python; it releases the GIL."""
        return ctypes.CFUNCTYPE(None, *[ctypes.c_ssize_t] * self.count)(self.address)


def compiled(source: str, *parameters: object) -> Compiled:
    """Return a compiled function.

    Parameters
    ----------
    source : str
        ``"package.module.function"``: this function of ``fastconv.package.source.module`` builds the code from the parameters.
    *parameters
        Strings, numbers and tuples of them.
    """
    with _LOCK:
        return _compiled(source, parameters)


@cache
def _compiled(source: str, parameters: tuple[object, ...]) -> Compiled:
    floor, module, maker = source.split(".")
    name = f"{module}_{maker}_{digest_of(f'{floor}.source.{module}', source, parameters)}"
    path = folder() / f"{name}.o"
    code = _read(path)
    if code is None:
        from fastconv.native.source.emit import emitted

        code = emitted(name, getattr(importlib.import_module(f"fastconv.{floor}.source.{module}"), maker)(*parameters))
        with suppress(OSError):  # without a writable folder nothing is cached
            _write(path, code)
    return Compiled(name, load(name, code[1:]), code[0])


def folder() -> Path:
    """Return the folder of cached object code, in the user's cache."""
    return cache_folder() / "kernels"


def _read(path: Path) -> bytes | None:
    """Return the code in a file, or None if it is missing, damaged or writable by others."""
    whole = read_own(path)
    if whole is None:
        return None
    digest, code = whole[:_DIGEST], whole[_DIGEST:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    write_own(path, hashlib.sha256(code).digest() + code)

"""Compiled functions by name: from disk where they have been compiled before; only what has not been imports numba.

A file of object code is named by all that it depends on: which function with which parameters, the sources that it is made from,
the versions of the compilers and the machine. Processes that compile at once write what does the same to the same name, whole.
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
    """A compiled function of integers, by address: ``name`` says what it is."""

    name: str
    address: int
    count: int
    """Arguments that it takes."""

    @cached_property
    def ctypes(self) -> Callable[..., None]:
        """The function, to be called from Python; it does not hold Python's lock."""
        return ctypes.CFUNCTYPE(None, *[ctypes.c_ssize_t] * self.count)(self.address)


def compiled(source: str, *parameters: object) -> Compiled:
    """Return a compiled function.

    Parameters
    ----------
    source : str
        ``"floor.module.function"``: the function of ``fastconv.floor.source.module`` that makes, from the parameters, what is compiled.
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
        with suppress(OSError):  # a folder that cannot be written keeps nothing
            _write(path, code)
    return Compiled(name, load(name, code[1:]), code[0])


def folder() -> Path:
    """Return the folder in which object code is kept, part of the user's cache."""
    return cache_folder() / "kernels"


def _read(path: Path) -> bytes | None:
    """Return what was written, None if there is nothing, it is damaged, or others could have written it."""
    whole = read_own(path)
    if whole is None:
        return None
    digest, code = whole[:_DIGEST], whole[_DIGEST:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    write_own(path, hashlib.sha256(code).digest() + code)

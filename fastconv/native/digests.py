"""Name compiled code by digests of its sources, the compilers and the machine."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from fastconv.native.machine import machine

_PACKAGE = Path(__file__).parents[1]
_IMPORTED = re.compile(r"^\s*from fastconv\.([\w.]+) import", re.MULTILINE)
"""Imports from this package in a source: modules and whole folders."""


def digest_of(module: str, *parameters: object) -> str:
    """Return a digest that names code compiled for this machine from a module and its imports.

    Parameters
    ----------
    module : str
        Module that makes the code, without ``fastconv.``; a folder means all its modules.
    *parameters
        Further values that the code depends on; `repr` must show them completely.
    """
    return hashlib.sha256(sources_of(module) + _compiler() + repr(parameters).encode()).hexdigest()[:16]


def sources_of(module: str) -> bytes:
    """Return a digest of the sources of compiled code: a module, all its imports, and `fastconv.native`."""
    return _digest(module) + _digest("native")


@cache
def _digest(module: str) -> bytes:
    """Return a digest of a module and its imports from this package, or of all modules of a folder."""
    path = _PACKAGE.joinpath(*module.split("."))
    if path.is_dir():
        return hashlib.sha256(b"".join(one.read_bytes() for one in sorted(path.rglob("*.py")))).digest()
    text = path.with_suffix(".py").read_bytes()
    imported = sorted({*_IMPORTED.findall(text.decode())})
    return hashlib.sha256(text + b"".join(_digest(one) for one in imported)).digest()


@cache
def _compiler() -> bytes:
    from importlib.metadata import version

    return repr((version("numba"), version("llvmlite"), machine())).encode()

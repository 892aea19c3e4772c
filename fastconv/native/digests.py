"""What names compiled code: digests of the sources that it is made from, of the compilers and of the machine."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from fastconv.native.machine import machine

_PACKAGE = Path(__file__).parents[1]
_IMPORTED = re.compile(r"^\s*from fastconv\.([\w.]+) import", re.MULTILINE)
"""What a source imports from this package: modules, and whole folders."""


def digest_of(module: str, *parameters: object) -> str:
    """Return what names code compiled for this machine from a module and all that it imports.

    Parameters
    ----------
    module : str
        Where the code is made, without ``fastconv.``; a folder stands for all its modules.
    *parameters
        What else the code depends on, in a form whose `repr` says it all.
    """
    return hashlib.sha256(sources_of(module) + _compiler() + repr(parameters).encode()).hexdigest()[:16]


def sources_of(module: str) -> bytes:
    """Return a digest of the sources that code is compiled from: a module, all that it imports, and what every function is compiled by."""
    return _digest(module) + _digest("native")


@cache
def _digest(module: str) -> bytes:
    """Return a digest of a module's text and of those that it imports from here; of a folder, of the text of all its modules."""
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

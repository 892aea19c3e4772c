"""The compiler, numba, with the options that all compiled code shares: no fast-math, and 1 / 0 is infinite as in numpy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit

from fastconv.native.digests import sources_of

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile a function at its first call, and keep its code on disk; while it runs, other threads of Python may."""
    return kept(function, True)


def inlined(function: F) -> F:
    """Compile a function into those that call it."""
    made: F = njit(cache=True, nogil=True, error_model="numpy", inline="always")(function)
    return made


def kept(function: F, keep: bool) -> F:
    """Compile a function at its first call, and keep its code on disk if it is to be kept."""
    made: Any = njit(cache=keep, nogil=True, error_model="numpy")(function)
    if keep:
        # numba compiles a kept function again when its own file changes, not for the files of those that it calls. Where another
        # numba keeps its stamp elsewhere, that stamp holds.
        with suppress(AttributeError):
            made._cache._cache_file._source_stamp = sources_of(function.__module__.removeprefix("fastconv."))
    return cast(F, made)


def bare(*signature: Any) -> Any:
    """Return numba's compiler for functions that no Python calls."""
    return njit(*signature, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

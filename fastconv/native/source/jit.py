"""Wrap numba's compiler with common options: no fast-math, 1 / 0 is infinite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit

from fastconv.native.digests import sources_of

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile a function at its first call and cache its code on disk; it releases the GIL."""
    return kept(function, True)


def inlined(function: F) -> F:
    """Compile a function inlined into its callers."""
    made: F = njit(cache=True, nogil=True, error_model="numpy", inline="always")(function)
    return made


def kept(function: F, keep: bool) -> F:
    """Compile a function at its first call, and cache its code on disk if `keep`."""
    made: Any = njit(cache=keep, nogil=True, error_model="numpy")(function)
    if keep:
        # numba recompiles a cached function if its file changes, but not if the file of a function that it calls changes. A numba
        # that stores the stamp elsewhere uses its own stamp.
        with suppress(AttributeError):
            made._cache._cache_file._source_stamp = sources_of(function.__module__.removeprefix("fastconv."))
    return cast(F, made)


def bare(*signature: Any) -> Any:
    """Return numba's compiler for functions that Python does not call."""
    return njit(*signature, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

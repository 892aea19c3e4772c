"""Memory for the internal tensors of a network, reused once nothing refers to it."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.native import lasting
from fastconv.network.graph.graph import Array

_SMALL = 2**16
"""Bytes below which numpy's allocator is as fast."""


class Arena:
    """Lends arrays; the memory of one returns when it and all views of it are gone.

    New memory costs a page fault every 4 KiB, as much time as a layer takes to write it. Threads may share an arena.

    Examples
    --------
    >>> arena = Arena()
    >>> first = arena.lease((2**20,), np.float32)
    >>> place = first.ctypes.data
    >>> view = first[5:9]
    >>> del first
    >>> arena.lease((2**20,), np.float32).ctypes.data == place
    False
    >>> del view
    >>> arena.lease((2**20,), np.float32).ctypes.data == place
    True
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._free: list[Array] = []
        self._lent: dict[int, tuple[weakref.ref[Any], Array]] = {}

    def lease(self, shape: Sequence[int], dtype: Any) -> Array:
        """Return an uninitialised array."""
        dtype = np.dtype(dtype)
        count = math.prod(shape)
        size = count * dtype.itemsize
        if size < _SMALL:
            return np.empty(shape, dtype)
        memory = self._memory(size)
        # An array from a buffer ends the chain of bases: views keep it alive, and with it the lease.
        lease = np.frombuffer(memory.data, dtype, count)
        key = id(memory)
        with self._lock:
            self._lent[key] = weakref.ref(lease, lambda _: self._back(key)), memory
        return lease.reshape(shape)

    def clear(self) -> None:
        """Free all memory that is not lent."""
        with self._lock:
            self._free.clear()

    def _memory(self, size: int) -> Array:
        with self._lock:
            fits = [k for k, memory in enumerate(self._free) if memory.nbytes >= size]
            if fits:  # of the smallest, the last returned: it is the most likely to be in a cache
                return self._free.pop(min(fits, key=lambda k: (self._free[k].nbytes, -k)))
            self._free.clear()  # all are too small: free them before the allocation
        return lasting((size,), np.uint8)

    def _back(self, key: int) -> None:
        with self._lock:
            self._free.append(self._lent.pop(key)[1])


def too_large(limit: int) -> str:
    """Say that a network needs more than the limit."""
    needs = f"the network needs more than {limit / 2**30:.2g} GiB for these inputs"
    return f"{needs}; give it smaller ones, or load it with a higher memory_limit=, which is {limit} now"

"""Memory of arrays that last."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

OWN_PAGES = 1 << 16
"""Bytes from which an array that lasts has pages of its own."""

HUGE_PAGES = 4 << 20
"""Bytes from which those pages may be large ones."""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple that is no less than the value."""
    return -(-value // multiple) * multiple


def lasting(shape: Sequence[int], dtype: Any) -> npt.NDArray[Any]:
    """Return zeros in pages of their own, which go back to the system with the array; the allocator would keep holes between arrays."""
    count, dtype = math.prod(shape), np.dtype(dtype)
    if count * dtype.itemsize < OWN_PAGES:
        return np.zeros(shape, dtype)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    pages = mmap.mmap(-1, count * dtype.itemsize, **private)
    if hasattr(mmap, "MADV_HUGEPAGE") and count * dtype.itemsize >= HUGE_PAGES:
        with suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype, count).reshape(shape)

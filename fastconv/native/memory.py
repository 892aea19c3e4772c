"""Allocate memory for long-lived arrays."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

OWN_PAGES = 1 << 16
"""Smallest long-lived array, in bytes, with separate pages."""

HUGE_PAGES = 4 << 20
"""Smallest such array, in bytes, that may use huge pages."""


def round_up(value: int, multiple: int) -> int:
    """Return the value rounded up to a multiple."""
    return -(-value // multiple) * multiple


def lasting(shape: Sequence[int], dtype: Any) -> npt.NDArray[Any]:
    """Return zeros in separate pages, which are freed with the array."""
    count, dtype = math.prod(shape), np.dtype(dtype)
    if count * dtype.itemsize < OWN_PAGES:
        return np.zeros(shape, dtype)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    pages = mmap.mmap(-1, count * dtype.itemsize, **private)
    if hasattr(mmap, "MADV_HUGEPAGE") and count * dtype.itemsize >= HUGE_PAGES:
        with suppress(OSError):  # a system without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype, count).reshape(shape)

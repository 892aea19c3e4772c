"""Allocate memory for long-lived arrays, and ask how much is free."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
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


def free_memory() -> int | None:
    """Return the bytes that this process may still use without swapping, or None if the system does not tell.

    On Linux this is the memory that the kernel counts as available, or what the control groups of a container leave if that is
    less. On macOS it is the whole memory.

    Examples
    --------
    >>> free_memory() is None or free_memory() > 0
    True
    """
    read = {"Linux": _free_on_linux, "Darwin": _all_of_macos, "Windows": _free_on_windows}.get(platform.system(), _free_elsewhere)
    with suppress(OSError, ValueError, AttributeError, KeyError):
        return max(read(), 1)
    return None


def _free_on_linux() -> int:
    free = _numbers(Path("/proc/meminfo").read_text())["MemAvailable"] << 10
    with suppress(OSError):
        free = min((free, *left_in_groups(Path("/proc/self/cgroup").read_text(), Path("/sys/fs/cgroup"))))
    return free


def left_in_groups(groups: str, root: Path) -> Iterator[int]:
    """Yield the bytes that each limited control group leaves: `groups` is /proc/self/cgroup, `root` where they are mounted.

    Both versions count files that the kernel keeps in memory; those not used recently are free.

    Examples
    --------
    >>> list(left_in_groups("0::/none", Path("/nowhere")))
    []
    """
    for line in groups.splitlines():
        _, names, path = line.split(":", 2)
        if names in ("", "memory"):
            limit, used, cached = ("max", "current", "inactive_file") if not names else _VERSION_1
            top = root / names
            inner = top / path.lstrip("/")
            for folder in (inner, *inner.parents):
                with suppress(OSError, ValueError):  # no such group here, or the word "max"
                    most, now = (int((folder / f"memory.{name}").read_text()) for name in (limit, used))
                    yield most - now + _numbers((folder / "memory.stat").read_text()).get(cached, 0)
                if folder == top:
                    break


_VERSION_1 = ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")


def _numbers(text: str) -> Mapping[str, int]:
    """Return the numbers of a file of lines such as ``MemFree:  123 kB``."""
    words = (line.replace(":", " ").split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}


def _all_of_macos() -> int:
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    if ctypes.CDLL(None).sysctlbyname(b"hw.memsize", ctypes.byref(value), ctypes.byref(size), None, 0):
        raise OSError("hw.memsize is unknown")
    return value.value


def _free_on_windows() -> int:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32), *((f"_{k}", ctypes.c_uint64) for k in range(7))]

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        raise OSError("GlobalMemoryStatusEx failed")
    return int(status._1)  # ullAvailPhys, after ullTotalPhys


def _free_elsewhere() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

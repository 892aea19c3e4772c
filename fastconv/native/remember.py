"""Keep what is slow to make: things in memory, the results of pure functions on disk for the processes to come."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fastconv.files import cache_folder
from fastconv.native.digests import sources_of
from fastconv.native.own import read_own, write_own

_LOCK = threading.Lock()

Numbers = tuple[float, ...]


class Kept:
    """A thread-safe LRU cache; two threads may make an entry twice, but get the same."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._things: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the entry of a key, made if missing."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
                return self._things[key]
        thing = make()
        with self._lock:
            thing = self._things.setdefault(key, thing)
            while len(self._things) > self._size:
                self._things.popitem(last=False)
        return thing

    def last(self) -> Any:
        """Return the entry used last, or None if there is none."""
        with self._lock:
            return next(reversed(self._things.values()), None)

    def all(self) -> list[Any]:
        """Return all entries."""
        with self._lock:
            return list(self._things.values())

    def held(self, key: Any) -> Any:
        """Return the entry of a key, or None."""
        with self._lock:
            return self._things.get(key)


def remembered(function: Callable[..., Numbers]) -> Callable[..., Numbers]:
    """Return a function that returns numbers, with its results kept in memory and in the user's cache.

    The file's name depends on the sources of the function's module, so that it is never out of date. The `repr` of the arguments must
    show them completely; what else the result depends on, such as the machine, must be an argument.
    """
    module = function.__module__.removeprefix("fastconv.")

    def numbers(*given: object) -> Numbers:
        place, lines, known = _known(module, function.__name__)
        key = hashlib.sha256(repr(given).encode()).hexdigest()[:24]
        if key not in known and (held := _numbers(lines.get(key.encode(), b""))) is not None:
            known[key] = held
        if key not in known:
            found = function(*given)
            known[key] = found
            with suppress(OSError):  # without a writable folder nothing is kept
                _add(place, json.dumps([key, list(found)]))
        return known[key]

    return numbers


@cache
def _known(module: str, name: str) -> tuple[Path, dict[bytes, bytes], dict[str, Numbers]]:
    """Return the file of a function, its lines by key, and the results that are read from them when they are asked for."""
    place = cache_folder() / "choices" / f"{name.strip('_')}_{hashlib.sha256(sources_of(module)).hexdigest()[:16]}.jsonl"
    return place, {line[2:26]: line for line in (read_own(place) or b"").splitlines()}, {}


def _numbers(line: bytes) -> Numbers | None:
    """Return the numbers of a line, or None if it is damaged, such as one that another process had not finished."""
    with suppress(ValueError, TypeError):
        _, numbers = json.loads(line)
        if all(isinstance(number, int | float) for number in numbers):
            return tuple(numbers)
    return None


def _add(place: Path, line: str) -> None:
    with _LOCK:
        if not place.exists():
            write_own(place, b"")
        file = os.open(place, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(file, "ab") as opened:  # one write, which other processes' do not interrupt
            opened.write(f"{line}\n".encode())

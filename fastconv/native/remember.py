"""Keep the results of slow pure functions on disk, for the processes to come."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from fastconv.files import cache_folder
from fastconv.native.digests import sources_of
from fastconv.native.own import read_own, write_own

_LOCK = threading.Lock()

Numbers = tuple[float, ...]


def remembered(function: Callable[..., Numbers]) -> Callable[..., Numbers]:
    """Return a function that returns numbers, with its results kept in memory and in the user's cache.

    The file's name depends on the sources of the function's module, so that it is never out of date. The `repr` of the arguments must
    show them completely; what else the result depends on, such as the machine, must be an argument.
    """
    module = function.__module__.removeprefix("fastconv.")

    def numbers(*given: object) -> Numbers:
        place, known = _known(module, function.__name__)
        key = hashlib.sha256(repr(given).encode()).hexdigest()[:24]
        if key not in known:
            found = function(*given)
            known[key] = found
            with suppress(OSError):  # without a writable folder nothing is kept
                _add(place, json.dumps([key, list(found)]))
        return known[key]

    return numbers


@cache
def _known(module: str, name: str) -> tuple[Path, dict[str, Numbers]]:
    """Return the file of a function, and what it holds; a line that another process had not finished is left out."""
    place = cache_folder() / "choices" / f"{name.strip('_')}_{hashlib.sha256(sources_of(module)).hexdigest()[:16]}.jsonl"
    known: dict[str, Numbers] = {}
    for line in (read_own(place) or b"").splitlines():
        with suppress(ValueError, TypeError):
            key, numbers = json.loads(line)
            if all(isinstance(number, int | float) for number in numbers):
                known[key] = tuple(numbers)
    return place, known


def _add(place: Path, line: str) -> None:
    with _LOCK:
        if not place.exists():
            write_own(place, b"")
        file = os.open(place, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(file, "ab") as opened:  # one write, which other processes' do not interrupt
            opened.write(f"{line}\n".encode())

"""Leave the weights of a model in its file: mapped into memory, read where they are, and let go when they have been packed.

Of an ONNX file nearly all bytes are those of weights. A parser of protocol buffers holds them twice more, in the message and in
the array; here the bulk is cut out before the message is parsed, and arrays are made on the mapped file.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array

_BULK = 1 << 16
"""Bytes from which weights stay in the file."""
_GRAPH, _INITIALIZER, _RAW = 7, 5, 9
"""Fields of ModelProto, GraphProto and TensorProto."""
_DIMS, _TYPE, _NAME = 1, 2, 8
_MOST_DIMS = 32
"""More than numpy's arrays have had for long."""
_FLOAT = 1
"""float32 in ONNX's numbering of element types."""

Bulk = dict[str, Array]


class File(mmap.mmap):
    """A file that is mapped, told from memory that is."""

    path: Path
    descriptor: int
    stamp: tuple[int, ...]

    @classmethod
    def mapped(cls, path: Path) -> File:
        """Map a file, and note what tells whether somebody writes to it later."""
        with path.open("rb") as file:
            made = cls(file.fileno(), 0, access=mmap.ACCESS_READ)
            made.path, made.descriptor = path, os.dup(file.fileno())
            made.stamp = _stamp(made.descriptor)
            return made

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    @property
    def changed(self) -> bool:
        """Whether somebody has written to the file since. One that takes its name does not change it."""
        return _stamp(self.descriptor) != self.stamp


def _stamp(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns


def files_of(arrays: Iterable[Array]) -> tuple[File, ...]:
    """Return the mapped files that arrays lie in."""
    return tuple({id(base): base for base in map(_mapped, arrays) if base is not None}.values())


def check_unchanged(files: Iterable[File]) -> None:
    """Refuse to read weights from a file that somebody has written to: they would be others, or not there at all.

    Raises
    ------
    ValueError
        If a file has changed since it was mapped.
    """
    for file in files:
        if file.changed:
            raise ValueError(f"the model file {str(file.path)!r} has been changed since it was loaded: load it again")


class _OddError(Exception):
    """The file is not laid out as every exporter does it: it is left to the parser whole."""


def split_weights(path: Path) -> tuple[bytes, Bulk]:
    """Return the bytes of a model without the bulk of its float32 weights, and those as arrays on the file, by name.

    What is not understood stays in the bytes, whole: the parser then says what is wrong with it.
    """
    if path.stat().st_size < _BULK:
        return path.read_bytes(), {}
    mapped = File.mapped(path)
    bulk: Bulk = {}
    try:
        slim = _model(mapped, bulk)
    except (_OddError, IndexError):
        slim, bulk = mapped[:], {}
    let_go(bulk.values())
    return slim, bulk


def let_go(arrays: Iterable[Array]) -> None:
    """Tell the system that arrays on mapped files need no memory for now: they are read from the file when they are asked for."""
    for base in files_of(arrays):
        if hasattr(base, "madvise"):
            base.madvise(mmap.MADV_DONTNEED)


def _mapped(array: Any) -> File | None:
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    return array if isinstance(array, File) else None


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise _OddError
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _fields(data: mmap.mmap, at: int, end: int) -> Iterable[tuple[int, int, int, int, int]]:
    """Yield (number, kind, start of the field, start and end of its value) of a message; of a varint its value is where it starts."""
    while at < end:
        begin = at
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, after = _varint(data, at, end)
        elif kind in (1, 5):
            after = at + (8 if kind == 1 else 4)
        elif kind == 2:
            size, at = _varint(data, at, end)
            after = at + size
        else:
            raise _OddError
        if number == 0 or after > end:
            raise _OddError
        yield number, kind, begin, at, after
        at = after


def _encoded(number: int, value: bytes) -> bytes:
    """Return a field of bytes."""
    return _number((number << 3) | 2) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _model(data: mmap.mmap, bulk: Bulk) -> bytes:
    parts, graphs = [], 0
    for number, kind, begin, at, end in _fields(data, 0, len(data)):
        if number == _GRAPH and kind == 2:
            graphs += 1
            parts.append(_encoded(_GRAPH, _graph(data, at, end, bulk)))
        else:
            parts.append(data[begin:end])
    if graphs != 1:
        raise _OddError
    return b"".join(parts)


def _graph(data: mmap.mmap, at: int, end: int, bulk: Bulk) -> bytes:
    parts, names = [], set()
    for number, kind, begin, start, stop in _fields(data, at, end):
        tensor = _tensor(data, start, stop) if number == _INITIALIZER and kind == 2 and stop - start >= _BULK else None
        if tensor is None:
            parts.append(data[begin:stop])
            continue
        name, array, rest = tensor
        if name in names:
            raise _OddError
        names.add(name)
        bulk[name] = array
        parts.append(_encoded(_INITIALIZER, rest))
    return b"".join(parts)


def _tensor(data: mmap.mmap, at: int, end: int) -> tuple[str, Array, bytes] | None:
    """Return name, array and the rest of a tensor whose raw bytes are float32 of its shape; None for any other."""
    dims: list[int] = []
    found: dict[int, tuple[int, int, int]] = {}
    rest = []
    for number, kind, begin, start, stop in _fields(data, at, end):
        if number == _DIMS:
            dims += [_varint(data, start, stop)[0]] if kind == 0 else _varints(data, start, stop)
        elif number in found or number not in (_TYPE, _NAME, _RAW, 12):
            return None
        found[number] = kind, start, stop
        if number != _RAW:
            rest.append(data[begin:stop])
    if not {_DIMS, _TYPE, _NAME, _RAW} <= found.keys() or found[_TYPE][0] != 0 or _varint(data, *found[_TYPE][1:])[0] != _FLOAT:
        return None
    _, start, stop = found[_RAW]
    count = 1
    for length in dims:
        count *= length
    if found[_RAW][0] != 2 or found[_NAME][0] != 2 or 4 * count != stop - start or len(dims) > _MOST_DIMS:
        return None
    try:
        name = data[found[_NAME][1] : found[_NAME][2]].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return name, np.frombuffer(data, "<f4", count, start).reshape(dims), b"".join(rest)


def _varints(data: mmap.mmap, at: int, end: int) -> list[int]:
    values = []
    while at < end:
        value, at = _varint(data, at, end)
        values.append(value)
    return values

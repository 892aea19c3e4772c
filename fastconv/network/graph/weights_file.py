"""Leave the weights of a model in its memory-mapped file, to read in place.

Nearly all bytes of an ONNX file are weights. A protocol buffer parser makes two more copies, in the message and in the array.
Here the weights are removed before the message is parsed, and arrays are views of the mapped file. Weights that the model leaves
in other files are views of these.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array

_BULK = 1 << 16
"""Smallest tensor, in bytes, that stays in the file."""
_GRAPH, _INITIALIZER, _RAW = 7, 5, 9
"""Fields of ModelProto, GraphProto and TensorProto."""
_DIMS, _TYPE, _NAME = 1, 2, 8
_MOST_DIMS = 32
"""Most axes of a tensor here, the limit of numpy before version 2."""
_PAUSE = 0.01
"""Seconds between two releases of memory."""
_FLOAT = 1
"""float32 in ONNX's numbering of element types."""

Bulk = dict[str, Array]


class File(mmap.mmap):
    """A memory-mapped file, distinct from other mapped memory."""

    path: Path
    descriptor: int
    stamp: tuple[int, ...]

    @classmethod
    def mapped(cls, path: Path) -> File:
        """Return a mapped file with a stamp that shows later writes."""
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
        """Whether the file has been written to since. Another file of the same name does not count."""
        return _stamp(self.descriptor) != self.stamp


def _stamp(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns


def files_of(arrays: Iterable[Array]) -> tuple[File, ...]:
    """Return the mapped files of which arrays are views."""
    return tuple({id(base): base for base in map(_mapped, arrays) if base is not None}.values())


def check_unchanged(files: Iterable[File]) -> None:
    """Reject weights from a file that has been written to: they may differ or be missing.

    Raises
    ------
    ValueError
        If a file has changed since it was mapped.
    """
    for file in files:
        if file.changed:
            raise ValueError(f"the model file {str(file.path)!r} has been changed since it was loaded: load it again")


class _OddError(Exception):
    """The file has an unusual layout: the parser gets it whole."""


def split_weights(path: Path) -> tuple[bytes, Bulk]:
    """Return a model's bytes without large float32 weights, and these as arrays on the file, by name.

    If the layout is not understood, the bytes are complete, and the parser reports any error.
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


def outside_weights(tensors: Iterable[Any], folder: Path) -> Bulk:
    """Return large float32 weights of other files as arrays on these files, and declare them in the model as read.

    What is not plainly laid out, or not in a file of the folder, stays as it is.

    Parameters
    ----------
    tensors : iterable of onnx.TensorProto
    folder : Path
        The folder of the model.
    """
    mapped: dict[Path, File] = {}
    bulk: Bulk = {}
    for tensor in tensors:
        told = {entry.key: entry.value for entry in tensor.external_data}
        where, size = Path(told.get("location", "")), 4 * math.prod(tensor.dims)
        large = tensor.data_type == _FLOAT and size >= _BULK and 0 < len(tensor.dims) <= _MOST_DIMS
        if not large or told.keys() - {"location", "offset", "length"} or tensor.name in bulk or not _is_within(where, folder):
            continue
        path = folder / where
        try:
            start, length = int(told.get("offset", 0)), int(told.get("length", size))
        except ValueError:
            continue
        if start < 0 or length != size or start + size > path.stat().st_size:
            continue
        if path not in mapped:
            mapped[path] = File.mapped(path)
        bulk[tensor.name] = np.frombuffer(mapped[path], "<f4", size // 4, start).reshape(tuple(tensor.dims))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return bulk


def _is_within(where: Path, folder: Path) -> bool:
    """Tell whether a relative path leads to a file in a folder, without links on the way."""
    path = folder / where
    return not where.is_absolute() and path.is_file() and path.resolve() == folder.resolve() / where and path.stat().st_nlink == 1


def let_go(arrays: Iterable[Array]) -> None:
    """Release the memory of arrays on mapped files until they are accessed again."""
    _release(files_of(arrays))


@contextmanager
def letting_go(arrays: Iterable[Array]) -> Iterator[None]:
    """Release the memory of arrays on mapped files every now and then: for what reads each of them once, but does not tell when."""
    held = list(files_of(arrays))
    if not held:
        yield
        return
    done = threading.Event()

    def release() -> None:
        while not done.wait(_PAUSE):
            _release(held)

    worker = threading.Thread(target=release, daemon=True)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()
        _release(held)


def _release(files: Iterable[File]) -> None:
    for file in files:
        if hasattr(file, "madvise"):
            file.madvise(mmap.MADV_DONTNEED)


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
    """Yield (number, kind, start, value start, value end) of each field of a message."""
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
    """Return an encoded field of bytes."""
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
    """Return name, array and remaining bytes of a raw float32 tensor, else None."""
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

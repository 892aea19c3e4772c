"""Read the tensors of a PyTorch weight file without torch or code execution.

A ``.pth`` file is a pickle that names storages, with the raw bytes of these storages: after the pickle in the format before
torch 1.6, in a zip archive since. The reader accepts only the names that torch uses for a tensor.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.zoo.unpickle import Unpickler, refused_unless

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    sizes = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or not all(type(v) is int and v >= 0 for v in sizes):
        raise ValueError("a tensor is described by something other than a storage, an offset, a shape and strides")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): name for name in _STORAGES},
}


class _Reader(Unpickler):
    """An unpickler that accepts only ordered dictionaries, storages and tensors."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, _KNOWN, "tensors")

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or pid[1] not in _STORAGES:
            raise ValueError("the file refers to something that is not a storage")
        if not isinstance(pid[2], str) or type(pid[4]) is not int or (len(pid) > 5 and pid[5] is not None):
            raise ValueError("the file describes a storage in an unknown way")
        return _Storage(pid[2], _STORAGES[pid[1]], pid[4])


def read_tensors(data: bytes) -> dict[str, Array]:
    """Read the tensors of a PyTorch file with a state dictionary.

    Parameters
    ----------
    data : bytes
        The file, in either of torch's formats.

    Returns
    -------
    dict
        Tensor name to a new array.

    Raises
    ------
    ValueError
        If the file is damaged, or contains or calls anything but tensors.

    Examples
    --------
    >>> read_tensors(b"nothing of the kind")
    Traceback (most recent call last):
    ValueError: not a PyTorch weight file: ...
    """
    with refused_unless("a PyTorch weight file"):
        found, storage_of = _read_zip(data) if data[:2] == b"PK" else _read_legacy(data)
        if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in found.items()):
            raise ValueError("it holds something other than named tensors")
        return {name: _materialised(tensor, storage_of) for name, tensor in found.items()}


def _materialised(tensor: _Tensor, storage_of: Callable[[_Storage], Array]) -> Array:
    storage = storage_of(tensor.storage)
    reach = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)) + 1
    if math.prod(tensor.shape) and reach > len(storage) or math.prod(tensor.shape) > max(len(storage), 1):
        raise ValueError("a tensor reaches beyond its storage")
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, storage.dtype)
    step = tuple(s * storage.itemsize for s in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, step, writeable=False).copy()


def _read_legacy(data: bytes) -> tuple[Any, Callable[[_Storage], Array]]:
    stream = io.BytesIO(data)
    if _Reader(stream).load() != _MAGIC:
        raise ValueError("it does not begin with the number that torch writes")
    _Reader(stream).load()  # the version of the format
    system = _Reader(stream).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was not written on a little-endian machine")
    found = _Reader(stream).load()
    keys = _Reader(stream).load()
    blocks: dict[str, tuple[int, int]] = {}
    declared = {t.storage.key: t.storage for t in found.values() if isinstance(t, _Tensor)} if isinstance(found, dict) else {}
    for key in keys:
        length = int.from_bytes(stream.read(8), "little", signed=True)
        if key not in declared or declared[key].length != length or length < 0:
            raise ValueError("its storages are not those that its tensors name")
        start = stream.tell()
        stream.seek(start + length * np.dtype(declared[key].dtype).itemsize)
        blocks[key] = (start, length)

    def storage_of(storage: _Storage) -> Array:
        start, length = blocks[storage.key]
        return np.frombuffer(data, storage.dtype, length, start)

    return found, storage_of


def _read_zip(data: bytes) -> tuple[Any, Callable[[_Storage], Array]]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError("the archive does not hold exactly one data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if folder + "byteorder" in archive.namelist() and _member(archive, folder + "byteorder", 16) != b"little":
        raise ValueError("it was not written on a little-endian machine")
    found = _Reader(io.BytesIO(_member(archive, pickles[0], len(data)))).load()

    def storage_of(storage: _Storage) -> Array:
        size = storage.length * np.dtype(storage.dtype).itemsize
        return np.frombuffer(_member(archive, f"{folder}data/{storage.key}", size), storage.dtype, storage.length)

    return found, storage_of


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    # torch stores without compression, so no member is larger than the file; a zip bomb is.
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise ValueError(f"{name} is larger than it can be")
    return archive.read(info)

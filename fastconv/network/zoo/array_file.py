"""Read the arrays of a numpy pickle, accepting only numpy's names for an array."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.zoo.unpickle import Unpickler, refused_unless

_DTYPES = frozenset("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split())


class _Dtype:
    """An element type as pickled: a name, then a byte order."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        if name not in _DTYPES:
            raise ValueError(f"the file holds elements of the type {str(name)[:20]!r}; only numbers are read")
        self.dtype = np.dtype(name).newbyteorder("<")

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise ValueError("an element type is described by something other than a byte order")


class _Array:
    """An array as pickled: empty, then its state."""

    array: Array | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array is described by something other than its version, shape, type, order and bytes")
        _, shape, kind, fortran, data = state
        sizes = shape if isinstance(shape, tuple) else ()
        whole = all(type(n) is int and n >= 0 for n in sizes) and isinstance(kind, _Dtype) and isinstance(data, bytes)
        if not whole or len(data) != kind.dtype.itemsize * int(np.prod([float(n) for n in sizes])):
            raise ValueError("the bytes of an array do not fit its shape")
        self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C").copy()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


def read_arrays(data: bytes) -> dict[str, Array]:
    """Read a pickled dictionary of arrays, or of lists of arrays.

    Parameters
    ----------
    data : bytes
        The file.

    Returns
    -------
    dict
        Name to array; the arrays of a list are ``name.0``, ``name.1`` and so on.

    Raises
    ------
    ValueError
        If the file is damaged, or contains or calls anything but arrays.

    Examples
    --------
    >>> read_arrays(b"nothing of the kind")
    Traceback (most recent call last):
    ValueError: not a file of arrays: ...
    """
    with refused_unless("a file of arrays"):
        found = Unpickler(io.BytesIO(data), _KNOWN, "arrays").load()
        if not isinstance(found, dict):
            raise ValueError("it holds something other than named arrays")
        named = {
            name if not isinstance(thing, list) else f"{name}.{k}": one
            for name, thing in found.items()
            for k, one in enumerate(thing if isinstance(thing, list) else [thing])
        }
        if not all(isinstance(name, str) and isinstance(thing, _Array) and thing.array is not None for name, thing in named.items()):
            raise ValueError("it holds something other than named arrays")
        return {name: thing.array for name, thing in named.items()}

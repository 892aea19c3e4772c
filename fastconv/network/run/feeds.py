"""Check the feeds of a network against its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Value
from fastconv.network.rewrite.passes import is_float


def converted_feeds(graph: Graph, feeds: Any) -> Any:
    """Return the feeds with the model's floating-point types converted to float32."""
    if not isinstance(feeds, Mapping):
        return feeds
    floats = {value.name: value.dtype for value in graph.inputs if value.dtype is not None and value.dtype.kind not in "biu"}
    return {
        name: array.astype(np.float32) if isinstance(array, np.ndarray) and array.dtype == floats.get(name) else array
        for name, array in feeds.items()
    }


def checked_feeds(graph: Graph, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the feeds in the types of the inputs, or raise an error for a mismatch.

    Raises
    ------
    TypeError
        For a feed that is not an array, or has another element type.
    ValueError
        For a missing or unknown name, a wrong rank or length, or different lengths of one name.
    """
    if not isinstance(feeds, Mapping):
        raise TypeError(f"inputs are a mapping from names to arrays, not {type(feeds).__name__}")
    names = [value.name for value in graph.inputs]
    for name in feeds:
        if name not in names:
            raise ValueError(f"the network has no input {name!r}; its inputs are {', '.join(map(repr, names)) or 'none'}")
    lengths: dict[str, tuple[int, str]] = {}
    return {value.name: _checked(value, feeds, lengths) for value in graph.inputs}


def _checked(value: Value, feeds: Mapping[str, Array], lengths: dict[str, tuple[int, str]]) -> Array:
    if value.name not in feeds:
        raise ValueError(f"the input {value.name!r} is missing; the network needs {value}")
    given: Any = feeds[value.name]
    if value.dtype is None and (given is None or isinstance(given, list)):
        return given  # type: ignore[return-value]  # a sequence or an optional, which onnxruntime checks
    if not isinstance(given, np.ndarray | np.generic):
        raise TypeError(f"the input {value.name!r} must be a numpy array, not {type(given).__name__}")
    array = np.asarray(given)
    if value.dtype == np.dtype(object) and array.dtype.kind in "US":
        array = array.astype(object)
    # The float64 reference accepts the network's own inputs: the conversion to float64 is exact.
    if value.dtype == np.float64 and is_float(array.dtype) and array.dtype.itemsize < 8:
        array = array.astype(np.float64)
    if value.dtype is not None and array.dtype != value.dtype:
        raise TypeError(f"the input {value.name!r} must have the type {value.dtype}, not {array.dtype}; convert it with .astype")
    if value.shape is None:
        return array
    if array.ndim != len(value.shape):
        raise ValueError(f"the input {value.name!r} has the shape {array.shape}; the network needs {value}")
    for length, wanted in zip(array.shape, value.shape, strict=True):
        if isinstance(wanted, int) and length != wanted:
            raise ValueError(f"the input {value.name!r} has the shape {array.shape}; the network needs {value}")
        if isinstance(wanted, str) and lengths.setdefault(wanted, (length, value.name))[0] != length:
            first, other = lengths[wanted]
            raise ValueError(f"the length {wanted} is {first} in the input {other!r} and {length} in {value.name!r}")
    return array

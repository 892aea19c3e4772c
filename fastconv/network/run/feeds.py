"""Check the feeds of a network against its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Value
from fastconv.network.rewrite.passes import is_float

Lengths = Mapping[str, int | tuple[int, ...]]
"""Lengths of a model by their names, and whole shapes by the names of inputs."""


def named_feeds(inputs: Sequence[Value], feeds: Any) -> Any:
    """Return feeds by name: a bare array is that of the only input.

    Examples
    --------
    >>> list(named_feeds([Value("x", None, None)], np.zeros(3)))
    ['x']
    """
    if not isinstance(feeds, np.ndarray | np.generic):
        return feeds
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise ValueError(f"one array is given, and the inputs of the network are {names}: pass a mapping from names to arrays")
    return {inputs[0].name: feeds}


def drawn_feeds(inputs: Sequence[Value], lengths: Lengths | None = None, seed: int = 0, images: int = 1) -> dict[str, Array]:
    """Return random arrays for the inputs of a network; see `Network.random_inputs`.

    Examples
    --------
    >>> image = Value("image", np.dtype(np.float32), ("N", 3, "H", "H"))
    >>> drawn_feeds([image], {"H": 8})["image"].shape
    (1, 3, 8, 8)
    """
    given = {} if lengths is None else dict(lengths)
    named = {length for value in inputs for length in value.shape or () if isinstance(length, str)}
    for name, wanted in given.items():
        if name not in named and name not in {value.name for value in inputs}:
            known = ", ".join(sorted(named)) or "none"
            raise ValueError(f"lengths names {name!r}: name an open length of the model ({known}), or an input with its whole shape")
        parts = wanted if isinstance(wanted, tuple) else (wanted,)
        if any(isinstance(part, bool) or not isinstance(part, int) or part < 1 for part in parts):
            raise ValueError(f"the length of {name!r} is {wanted!r}: pass a positive integer, or a tuple of them for an input")
        if isinstance(wanted, int) and name not in named:
            raise ValueError(f"the shape of the input {name!r} is {wanted}: pass a tuple, such as (1, 3, 224, 224)")
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise ValueError(f"the number of images is {images!r}: pass a positive integer")
    firsts = {value.shape[0] for value in inputs if value.shape}
    known_lengths = {length: images for length in firsts if isinstance(length, str)}
    known_lengths |= {name: wanted for name, wanted in given.items() if name in named and isinstance(wanted, int)}
    rng = np.random.default_rng(seed)
    return {value.name: _drawn(rng, value, _shape(value, given.get(value.name), known_lengths, images)) for value in inputs}


def _shape(value: Value, given: Any, known: Mapping[str, int], images: int) -> tuple[int, ...]:
    """Return the shape of an input: open lengths are those that are known, the first one is the number of images."""
    if isinstance(given, tuple):
        return given
    if value.shape is None:
        raise ValueError(f"the model leaves the shape of its input open ({value}): pass inputs, or those of {_example(value)}")
    shape = []
    for axis, length in enumerate(value.shape):
        found = length if isinstance(length, int) else known.get(length or "", images if axis == 0 else 0)
        if not found and not isinstance(length, int):
            example = f"random_inputs({{{length!r}: 224}}) (--input random --lengths {length}=224)" if length else _example(value)
            raise ValueError(f"the model leaves a length of its input open ({value}): pass inputs, or those of {example}")
        shape.append(found)
    return tuple(shape)


def _example(value: Value) -> str:
    """Return an option that states the shape of an input."""
    shape = tuple(
        length if isinstance(length, int) else 224 if axis else 1 for axis, length in enumerate(value.shape or (1, 3, None, None))
    )
    return f"random_inputs({{{value.name!r}: {shape}}}) (--input random --lengths {value.name}={','.join(map(str, shape))})"


def _drawn(rng: np.random.Generator, value: Value, shape: tuple[int, ...]) -> Array:
    """Return normal numbers, all values of a type of 8 bits, or zeros and ones, which are valid indices."""
    kind = value.dtype
    if kind is None or not (is_float(kind) or kind.kind in "biu"):
        raise ValueError(f"random numbers do not fit the input {value}: pass inputs")
    if is_float(kind):
        return np.asarray(rng.standard_normal(shape)).astype(kind)
    if kind in (np.uint8, np.int8):
        return np.asarray(rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, endpoint=True)).astype(kind)
    return np.asarray(rng.integers(0, 2, shape)).astype(kind)


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

"""A call of an operator: attributes and opset, and the limit on its allocations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.native import free_memory
from fastconv.network.graph.graph import Array

MEMORY_LIMIT = 2**30
"""Limit of the bytes of all tensors of a running network where the free memory is unknown."""

MEMORY_SHARE = 0.5
"""Default limit relative to the free memory: weights, workspaces and what onnxruntime holds between runs are not counted."""


def limit_of(given: int | None) -> int:
    """Return a memory limit in bytes, by default `MEMORY_SHARE` of the free memory.

    Raises
    ------
    TypeError, ValueError
        If it is not a whole number above zero.

    Examples
    --------
    >>> limit_of(2**20)
    1048576
    >>> limit_of(-1)
    Traceback (most recent call last):
    ValueError: memory_limit is -1: pass the bytes that the tensors of a run may take together, above 0, or None for half the free memory
    """
    if given is None:
        free = free_memory()
        return MEMORY_LIMIT if free is None else max(1, int(MEMORY_SHARE * free))
    remedy = "pass the bytes that the tensors of a run may take together, above 0, or None for half the free memory"
    try:
        limit = operator.index(given)
    except TypeError as error:
        raise TypeError(f"memory_limit is {given!r}: {remedy}") from error
    if limit < 1:
        raise ValueError(f"memory_limit is {limit}: {remedy}")
    return limit


@dataclass(frozen=True)
class Call:
    """One call of an operator: attributes (with defaults), opset, requested outputs.

    Examples
    --------
    >>> call = Call({"axis": 1}, 17, 1)
    >>> call["axis"]
    1
    >>> call.reserve((2**40,), np.float32)
    Traceback (most recent call last):
    ValueError: a tensor of shape (1099511627776,) would take 4096.0 GiB; 1.0 GiB is left
    """

    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1
    limit: int = MEMORY_LIMIT
    """Most bytes of the result: those left of the network's limit."""

    def __getitem__(self, name: str) -> Any:
        """Return an attribute, or the standard's default for it."""
        if name not in self.attributes:
            raise ValueError(f"the attribute {name!r} is missing")
        return self.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default` if neither the model nor the standard has a value."""
        return self.attributes.get(name, default)

    def reserve(self, shape: Sequence[int], dtype: Any = np.float64) -> tuple[int, ...]:
        """Return `shape`, or raise ValueError if a tensor of this shape exceeds the limit."""
        shape = tuple(int(length) for length in shape)
        if any(length < 0 for length in shape):
            raise ValueError(f"the result would have the shape {shape}; lengths must not be negative")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self.limit:
            left = max(self.limit, 0)
            raise ValueError(f"a tensor of shape {shape} would take {size / 2**30:.1f} GiB; {left / 2**30:.1f} GiB is left")
        return shape


Definition = Callable[..., Any]
"""``operator(call, *inputs)`` returns an array or a tuple of arrays; an omitted input is None."""


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is floating-point with less than 32 bits."""
    # The formats of ml_dtypes have kind "V" or "f"; they are floating-point unless their name says integer.
    return dtype.itemsize < 4 and (dtype.kind == "f" or dtype.kind == "V" and "float" in dtype.name)


def rounded_once(operation: Definition, uniform: bool = False) -> Definition:
    """Return an operator that computes narrower formats in float32 and rounds its results once.

    Sums, counts and squares inside an operator would overflow or stagnate in such a format. Other runtimes accumulate in
    float32 as well. An operator is `uniform` if its floating-point inputs must have one type.

    Examples
    --------
    >>> mean = rounded_once(lambda call, x: x.sum() / np.asarray(x.size, x.dtype))
    >>> mean(Call({}, 17), np.full(1024, 100, np.float16))
    array(100., dtype=float16)
    """

    def wide(call: Call, *inputs: Array | None) -> Any:
        narrow = next((a.dtype for a in inputs if a is not None and is_narrow(a.dtype)), None)
        if narrow is None or uniform and len({a.dtype for a in inputs if a is not None and a.dtype.kind not in "biu"}) > 1:
            return operation(call, *inputs)  # which rejects several types
        result = operation(call, *(a if a is None or not is_narrow(a.dtype) else a.astype(np.float32) for a in inputs))
        parts = tuple(np.asarray(part) for part in (result if isinstance(result, tuple) else (result,)))
        parts = tuple(part.astype(narrow) if part.dtype == np.float32 else part for part in parts)
        return parts if isinstance(result, tuple) else parts[0]

    return wide


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the front, or raise ValueError if it does not exist.

    Examples
    --------
    >>> axis_of(-1, 4)
    3
    """
    axis = int(axis)
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} does not exist in a tensor of rank {rank}")
    return axis % rank


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """Return axes counted from the front, or raise ValueError for a missing or repeated one.

    Examples
    --------
    >>> axes_of([-1, 0], 3)
    (2, 0)
    """
    result = tuple(axis_of(axis, rank) for axis in np.asarray(axes).reshape(-1))
    if len(set(result)) < len(result):
        raise ValueError(f"axes {[int(a) for a in np.asarray(axes).reshape(-1)]} name one axis twice")
    return result


def integers(value: Array, what: str) -> tuple[int, ...]:
    """Return a 1-D tensor of integers as Python integers; raise ValueError for anything else."""
    array = np.asarray(value)
    if array.ndim > 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be a one-dimensional tensor of integers, not {array.dtype} of shape {array.shape}")
    return tuple(int(v) for v in array.reshape(-1))

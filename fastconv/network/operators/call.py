"""What an operator is told besides its inputs, and the limit on what it may allocate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array

MEMORY_LIMIT = 2**30
"""Bytes that the tensors of a running network may take together unless the caller says otherwise."""


@dataclass(frozen=True)
class Call:
    """One use of an operator: attributes (the standard's defaults filled in), opset, number of outputs asked for.

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
    """Bytes that the result may take: what the limit of the network leaves."""

    def __getitem__(self, name: str) -> Any:
        """Return an attribute that has a value, be it the default of the standard."""
        if name not in self.attributes:
            raise ValueError(f"the attribute {name!r} is missing")
        return self.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default` where the model leaves it out and the standard has no value for it."""
        return self.attributes.get(name, default)

    def reserve(self, shape: Sequence[int], dtype: Any = np.float64) -> tuple[int, ...]:
        """Return `shape` if a tensor of it may be allocated; ValueError otherwise."""
        shape = tuple(int(length) for length in shape)
        if any(length < 0 for length in shape):
            raise ValueError(f"the result would have the shape {shape}; lengths must not be negative")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self.limit:
            left = max(self.limit, 0)
            raise ValueError(f"a tensor of shape {shape} would take {size / 2**30:.1f} GiB; {left / 2**30:.1f} GiB is left")
        return shape


Definition = Callable[..., Any]
"""``operator(call, *inputs)`` returns an array or a tuple of arrays; an input that is left out is None."""


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Tell whether a type is a floating-point format of less than 32 bits: float16, bfloat16, or one of 8 bits."""
    # The formats of ml_dtypes have kind "V" or "f"; they are floating-point unless their name says integer.
    return dtype.itemsize < 4 and (dtype.kind == "f" or dtype.kind == "V" and "float" in dtype.name)


def rounded_once(operator: Definition, uniform: bool = False) -> Definition:
    """Let an operator compute in float32 what it is given in a narrower format, and round its results once.

    Sums, counts and squares inside an operator would leave the range of such a format, or stall in it. The runtimes that
    users compare with accumulate in float32 as well. An operator is `uniform` if its numbers must have one type.

    Examples
    --------
    >>> mean = rounded_once(lambda call, x: x.sum() / np.asarray(x.size, x.dtype))
    >>> mean(Call({}, 17), np.full(1024, 100, np.float16))
    array(100., dtype=float16)
    """

    def wide(call: Call, *inputs: Array | None) -> Any:
        narrow = next((a.dtype for a in inputs if a is not None and is_narrow(a.dtype)), None)
        if narrow is None or uniform and len({a.dtype for a in inputs if a is not None and a.dtype.kind not in "biu"}) > 1:
            return operator(call, *inputs)  # which refuses several types
        result = operator(call, *(a if a is None or not is_narrow(a.dtype) else a.astype(np.float32) for a in inputs))
        parts = tuple(np.asarray(part) for part in (result if isinstance(result, tuple) else (result,)))
        parts = tuple(part.astype(narrow) if part.dtype == np.float32 else part for part in parts)
        return parts if isinstance(result, tuple) else parts[0]

    return wide


def axis_of(axis: int, rank: int) -> int:
    """Count a negative axis from the end; ValueError when there is no such axis.

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
    """Count negative axes from the end; ValueError for an axis that does not exist or comes twice.

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
    """Return a one-dimensional tensor of integers as Python integers; ValueError for anything else."""
    array = np.asarray(value)
    if array.ndim > 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be a one-dimensional tensor of integers, not {array.dtype} of shape {array.shape}")
    return tuple(int(v) for v in array.reshape(-1))

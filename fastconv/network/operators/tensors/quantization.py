"""Numbers stored as integers with a scale."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.graph.types import dtype_of
from fastconv.network.operators.call import Call, axis_of
from fastconv.network.operators.record import Operator


def dequantize(call: Call, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    """Return ``(x - zero_point) * scale``, with scales per tensor, slice or block."""
    kind = dtype_of(int(call["output_dtype"])) if call.get("output_dtype", 0) else scale.dtype
    call.reserve(x.shape, np.float32)
    factor, shift = _along(call, x, scale), None if zero_point is None else _along(call, x, zero_point)
    # Integers of 16 bits and less are exact in float32, and 32-bit integers have zero point 0.
    wide = np.float64 if x.dtype == np.int32 else np.float32
    whole = x.astype(wide) if shift is None else x.astype(wide) - shift.astype(wide)
    return np.asarray(whole * factor.astype(wide)).astype(kind)


def _along(call: Call, x: Array, value: Array) -> Array:
    """Return scales or zero points in a shape that broadcasts to that of `x`."""
    size = int(call.get("block_size", 0))
    if value.size == 1 and not size:
        return value.reshape(())
    axis = axis_of(call.get("axis", 1), x.ndim)
    if size:
        blocks = -(-x.shape[axis] // size)
        if value.shape != (*x.shape[:axis], blocks, *x.shape[axis + 1 :]):
            raise ValueError(f"scales of shape {value.shape} do not fit blocks of {size} along axis {axis} of {x.shape}")
        return np.asarray(np.repeat(value, size, axis=axis).take(range(x.shape[axis]), axis=axis))
    if value.shape != (x.shape[axis],):
        raise ValueError(f"scales of shape {value.shape} do not fit axis {axis} of {x.shape}")
    shape: list[Any] = [1] * x.ndim
    shape[axis] = -1
    return value.reshape(shape)


OPERATORS: tuple[Operator, ...] = (Operator("DequantizeLinear", dequantize, narrow="own", stores=True, types=("output_dtype",)),)

"""Operators that only move data, and constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Attribute
from fastconv.network.graph.types import dtype_of
from fastconv.network.operators.call import Call, axes_of, axis_of, integers
from fastconv.network.operators.record import Operator


def identity(call: Call, x: Array) -> Array:
    """Return the input."""
    return x


def dropout(call: Call, x: Array, ratio: Array | None = None, training: Array | None = None) -> Any:
    """Return the input: dropout has no effect at inference."""
    if training is not None and bool(training) and (ratio is None or float(ratio) != 0):
        raise ValueError("dropout in training mode is random and cannot be reproduced")
    return (x, np.ones(x.shape, bool)) if call.outputs > 1 else x


def cast(call: Call, x: Array) -> Array:
    """Convert the element type."""
    return convert(x, dtype_of(call["to"]), bool(call.get("saturate", 1)))


def cast_like(call: Call, x: Array, like: Array) -> Array:
    """Convert the element type to that of another tensor."""
    return convert(x, like.dtype, bool(call.get("saturate", 1)))


def convert(x: Array, dtype: np.dtype[Any], saturate: bool) -> Array:
    """Return x in another element type, through float32 only if numpy has no direct conversion."""
    import ml_dtypes

    if dtype.kind == "O":
        return _texts(x)
    if x.dtype.kind in "OUS":
        number: Any = float if dtype.kind == "f" else int
        x = np.array([number(text) for text in x.ravel().tolist()], np.float64 if dtype.kind == "f" else np.int64).reshape(x.shape)
    if dtype.name == "float8_e8m0fnu":
        raise ValueError("casts to FLOAT8E8M0 are not supported")
    if x.dtype.kind not in "biufc" and dtype.kind not in "f":
        x = x.astype(np.float32)
    if saturate and dtype.name.startswith("float8"):
        # Values beyond the format's range become its largest value instead of infinity or NaN; NaN stays NaN.
        limits = ml_dtypes.finfo(dtype)
        x = np.clip(x.astype(np.float32), np.float32(limits.min), np.float32(limits.max))
    return x.astype(dtype)


def _texts(x: Array) -> Array:
    """Return numbers as text, as onnxruntime writes it: eight digits, INF, NaN, 1 for true."""
    special = {"inf": "INF", "-inf": "-INF", "nan": "NaN"}
    if x.dtype.kind in "OUS":
        return x.astype(object)
    if x.dtype.kind in "biu":
        texts = [str(int(number)) for number in x.ravel().tolist()]
    else:
        texts = [special.get(text, text) for text in (f"{number:.8g}" for number in x.astype(np.float64).ravel().tolist())]
    return np.array(texts, object).reshape(x.shape)


def reshape(call: Call, x: Array, shape: Array) -> Array:
    """Reshape; a length 0 is copied from the input unless allowzero is set, a length -1 is inferred."""
    wanted = list(integers(shape, "shape"))
    if not call.get("allowzero", 0):
        for i, length in enumerate(wanted):
            if length == 0:
                if i >= x.ndim:
                    raise ValueError(f"shape {wanted} copies axis {i} of a tensor of rank {x.ndim}")
                wanted[i] = x.shape[i]
    if min(wanted, default=0) < -1:
        raise ValueError(f"shape {wanted} has a length below -1")
    return x.reshape(wanted)


def flatten(call: Call, x: Array) -> Array:
    """Flatten to a matrix at an axis, which may equal the rank."""
    axis = int(call["axis"])
    axis = axis if axis == x.ndim else axis_of(axis, x.ndim)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), int(np.prod(x.shape[axis:], dtype=np.int64)))


def squeeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    """Remove axes of length one: the given ones, or all."""
    given = call.get("axes") if axes is None else axes
    return x.squeeze() if given is None else x.squeeze(axes_of(given, x.ndim))


def unsqueeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    """Insert axes of length one."""
    given = call["axes"] if axes is None else axes
    return np.expand_dims(x, axes_of(given, x.ndim + len(given)))


def transpose(call: Call, x: Array) -> Array:
    """Permute the axes; reverse them if no order is given."""
    order = call.get("perm")
    if order is not None and sorted(order) != list(range(x.ndim)):
        raise ValueError(f"perm {list(order)} does not permute {x.ndim} axes")
    return x.transpose(order)


def concat(call: Call, *arrays: Array) -> Array:
    """Concatenate along an axis."""
    axis = axis_of(call["axis"], arrays[0].ndim)
    if len({array.dtype for array in arrays}) > 1:
        raise ValueError(f"the inputs must have one type, not {', '.join(str(array.dtype) for array in arrays)}")
    return np.concatenate(arrays, axis)


def split(call: Call, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    """Split along an axis into given sizes or equal parts (opset 18: a shorter last)."""
    axis = axis_of(call["axis"], x.ndim)
    given = call.get("split") if sizes is None else integers(sizes, "split")
    if given is None:
        parts = int(call.get("num_outputs") or call.outputs)
        if not 1 <= parts <= max(x.shape[axis], 1):
            raise ValueError(f"an axis of length {x.shape[axis]} cannot be cut into {parts} parts")
        if call.opset < 18 and x.shape[axis] % parts:
            raise ValueError(f"an axis of length {x.shape[axis]} has no {parts} equal parts")
        size = -(-x.shape[axis] // parts)
        given = [max(0, min(size, x.shape[axis] - i * size)) for i in range(parts)]
    if sum(given) != x.shape[axis] or min(given, default=0) < 0:
        raise ValueError(f"sizes {list(given)} do not add up to the axis of length {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(given)[:-1], axis))


def slice_(
    call: Call, x: Array, starts: Array | None = None, ends: Array | None = None, axes: Array | None = None, steps: Array | None = None
) -> Array:
    """Slice each axis as in Python; bounds beyond the ends are clipped."""
    begin = integers(np.asarray(call["starts"] if starts is None else starts), "starts")
    end = integers(np.asarray(call["ends"] if ends is None else ends), "ends")
    given = call.get("axes") if axes is None else axes
    along = tuple(range(len(begin))) if given is None else axes_of(given, x.ndim)
    step = (1,) * len(begin) if steps is None else integers(steps, "steps")
    if not len(begin) == len(end) == len(along) == len(step) or len(begin) > x.ndim:
        raise ValueError(f"starts, ends, axes and steps have {len(begin)}, {len(end)}, {len(along)} and {len(step)} entries")
    cut = [slice(None)] * x.ndim
    for axis, b, e, s in zip(along, begin, end, step, strict=True):
        if s == 0:
            raise ValueError("steps must not be zero")
        n = x.shape[axis]
        b, e = (b + n if b < 0 else b), (e + n if e < 0 else e)
        # With a negative step, a start before the first element means the first element, unlike in Python.
        low, high = (0, n) if s > 0 else (-1, n - 1)
        b, e = min(max(b, 0), high), min(max(e, low), high)
        cut[axis] = slice(b, None if e < 0 else e, s) if n else slice(0, 0)
    return x[tuple(cut)]


def expand(call: Call, x: Array, shape: Array) -> Array:
    """Broadcast to a shape; a length of one in the shape keeps the input's."""
    wanted = integers(shape, "shape")
    result = np.broadcast_shapes(x.shape, call.reserve(wanted, x.dtype))
    return np.broadcast_to(x, call.reserve(result, x.dtype))


def tile(call: Call, x: Array, repeats: Array) -> Array:
    """Repeat along each axis."""
    counts = integers(repeats, "repeats")
    if len(counts) != x.ndim or min(counts, default=0) < 0:
        raise ValueError(f"repeats must be {x.ndim} non-negative integers, not {list(counts)}")
    call.reserve([n * c for n, c in zip(x.shape, counts, strict=True)], x.dtype)
    return np.tile(x, counts)


def pad(call: Call, x: Array, pads: Array | None = None, value: Array | None = None, axes: Array | None = None) -> Array:
    """Pad with a constant, the edge, a reflection or a wrap-around; negative pads crop."""
    amounts = tuple(call["pads"]) if pads is None else integers(pads, "pads")
    along = tuple(range(x.ndim)) if axes is None else axes_of(axes, x.ndim)
    if len(amounts) != 2 * len(along):
        raise ValueError(f"pads must have {2 * len(along)} entries, not {len(amounts)}")
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(along):
        before[axis], after[axis] = int(amounts[i]), int(amounts[len(along) + i])
    call.reserve([n + b + a for n, b, a in zip(x.shape, before, after, strict=True)], x.dtype)
    x = x[tuple(slice(max(0, -b), n - max(0, -a)) for n, b, a in zip(x.shape, before, after, strict=True))]
    width = [(max(0, b), max(0, a)) for b, a in zip(before, after, strict=True)]
    call.reserve([n + b + a for n, (b, a) in zip(x.shape, width, strict=True)], x.dtype)
    mode = call["mode"]
    if mode == "constant":
        fill = call.get("value", 0) if value is None else np.asarray(value).reshape(())
        return np.pad(x, width, constant_values=np.asarray(fill).astype(x.dtype))
    if mode not in ("edge", "reflect", "wrap"):
        raise ValueError(f"mode must be constant, edge, reflect or wrap, not {mode!r}")
    if any(n == 0 and (b or a) for n, (b, a) in zip(x.shape, width, strict=True)):
        raise ValueError(f"an empty axis of a tensor of shape {x.shape} has nothing to {mode}")
    for axis, (b, a) in enumerate(width):
        if b or a:
            x = x.take(_beyond(mode, np.arange(-b, x.shape[axis] + a), x.shape[axis]), axis=axis)
    return x


def _beyond(mode: str, index: Array, length: int) -> Array:
    """Return positions beyond the ends of an axis, mapped into it."""
    if mode == "edge" or length == 1:
        return np.clip(index, 0, length - 1)
    if mode == "wrap":
        return np.asarray(index % length)
    # A reflection has the period 2 (n - 1) and is even about 0.
    index = index % (2 * length - 2)
    return np.asarray(np.minimum(index, 2 * length - 2 - index))


def constant(call: Call) -> Array:
    """Return the given attribute as a tensor."""
    kinds = {"value": None, "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    given = [name for name in kinds if name in call.attributes]
    if len(given) != 1:
        raise ValueError("a constant needs exactly one of the attributes value, value_float(s) and value_int(s)")
    value = call[given[0]]
    return np.asarray(value) if given[0] == "value" else np.asarray(value, kinds[given[0]])


def shape(call: Call, x: Array) -> Array:
    """Return the shape, or a slice of it."""
    return np.asarray(x.shape[call.get("start", 0) : call.get("end")], np.int64)


def size(call: Call, x: Array) -> Array:
    """Return the number of elements."""
    return np.asarray(x.size, np.int64)


def constant_of_shape(call: Call, shape: Array) -> Array:
    """Return a tensor of a shape filled with one value, by default zero."""
    value = np.asarray(call.get("value", np.zeros(1, np.float32)))
    if value.size != 1:
        raise ValueError(f"value must hold one element, not {value.size}")
    return np.full(call.reserve(integers(shape, "shape"), value.dtype), value.reshape(()), value.dtype)


def range_(call: Call, start: Array, limit: Array, delta: Array) -> Array:
    """Return start, start + delta, ... before limit."""
    if not start.size == limit.size == delta.size == 1:
        raise ValueError("start, limit and delta must be one number each")
    first, last, step = (v.reshape(()).item() for v in (start, limit, delta))
    if step == 0:
        raise ValueError("delta must not be zero")
    count = int(max(0, np.ceil((last - first) / step)))
    call.reserve((count,), np.float64)
    return np.asarray(first + np.arange(count) * step).astype(start.dtype)


def eye_like(call: Call, x: Array) -> Array:
    """Return a matrix of the input's shape with ones on one diagonal."""
    if x.ndim != 2:
        raise ValueError(f"the input must be a matrix, not of shape {x.shape}")
    dtype = x.dtype if call.get("dtype") is None else dtype_of(call["dtype"])
    return np.eye(x.shape[0], x.shape[1], k=max(-(2**31), min(2**31, int(call["k"]))), dtype=dtype)


def depth_to_space(call: Call, x: Array) -> Array:
    """Move channels into blocks of pixels."""
    n, c, h, w = _picture(x)
    b = int(call["blocksize"])
    if b < 1 or c % (b * b):
        raise ValueError(f"{c} channels do not fill blocks of {b} x {b}")
    if call.get("mode", "DCR") == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


def space_to_depth(call: Call, x: Array) -> Array:
    """Move blocks of pixels into channels."""
    n, c, h, w = _picture(x)
    b = int(call["blocksize"])
    if b < 1 or h % b or w % b:
        raise ValueError(f"{h} x {w} pixels have no whole blocks of {b} x {b}")
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if call.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.transpose(order).reshape(n, c * b * b, h // b, w // b)


def _picture(x: Array) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise ValueError(f"the input must have four axes, not the shape {x.shape}")
    return x.shape


def trilu(call: Call, x: Array, k: Array | None = None) -> Array:
    """Keep the upper or the lower triangle of the last two axes."""
    if x.ndim < 2:
        raise ValueError(f"the input must have at least two axes, not the shape {x.shape}")
    diagonal = 0 if k is None else max(-(2**31), min(2**31, int(np.asarray(k).reshape(()))))
    return np.triu(x, diagonal) if call["upper"] else np.tril(x, diagonal)


def center_crop_pad(call: Call, x: Array, shape: Array) -> Array:
    """Crop or zero-pad about the centre to a shape."""
    along = axes_of(call.get("axes", range(x.ndim)), x.ndim)
    wanted = integers(shape, "shape")
    if len(wanted) != len(along):
        raise ValueError(f"shape must have {len(along)} entries, not {len(wanted)}")
    target = list(x.shape)
    for axis, length in zip(along, wanted, strict=True):
        target[axis] = length
    call.reserve(target, x.dtype)
    y = np.zeros(target, x.dtype)
    source, sink = [slice(None)] * x.ndim, [slice(None)] * x.ndim
    for axis, (old, new) in enumerate(zip(x.shape, target, strict=True)):
        if old > new:
            source[axis] = slice((old - new) // 2, (old - new) // 2 + new)
        else:
            sink[axis] = slice((new - old) // 2, (new - old) // 2 + old)
    y[tuple(sink)] = x[tuple(source)]
    return y


def constant_retyped(attributes: Mapping[str, Attribute], kind: np.dtype[Any]) -> Mapping[str, Attribute]:
    """Return the attributes of a constant in another format."""
    numbers = ("value_float", "value_floats")
    return {"value" if name in numbers else name: np.asarray(v, kind) if name in numbers else v for name, v in attributes.items()}


def filled_retyped(attributes: Mapping[str, Attribute], kind: np.dtype[Any]) -> Mapping[str, Attribute]:
    """Return the attributes of ConstantOfShape in another format."""
    return {"value": np.zeros(1, kind), **attributes}


OPERATORS: tuple[Operator, ...] = (
    Operator("Cast", cast, narrow="own", types=("to",), pointwise="elements", steady=True),
    Operator("CastLike", cast_like, narrow="own"),
    Operator("CenterCropPad", center_crop_pad, narrow="own"),
    Operator("Concat", concat, narrow="own"),
    Operator("Constant", constant, narrow="own", stores=True, retyped=constant_retyped),
    Operator("ConstantOfShape", constant_of_shape, narrow="own", retyped=filled_retyped),
    Operator("DepthToSpace", depth_to_space, narrow="own"),
    Operator("Dropout", dropout, narrow="own", pointwise="elements", steady=True),
    Operator("Expand", expand, narrow="own"),
    Operator("EyeLike", eye_like, narrow="own", types=("dtype",)),
    Operator("Flatten", flatten, narrow="own"),
    Operator("Identity", identity, narrow="own", pointwise="curve", steady=True),
    Operator("Pad", pad, narrow="own"),
    Operator("Range", range_, narrow="own"),
    Operator("Reshape", reshape, narrow="own"),
    Operator("Shape", shape, narrow="own"),
    Operator("Size", size, narrow="own"),
    Operator("Slice", slice_, narrow="own"),
    Operator("SpaceToDepth", space_to_depth, narrow="own"),
    Operator("Split", split, narrow="own"),
    Operator("Squeeze", squeeze, narrow="own"),
    Operator("Tile", tile, narrow="own"),
    Operator("Transpose", transpose, narrow="own"),
    Operator("Trilu", trilu, narrow="own"),
    Operator("Unsqueeze", unsqueeze, narrow="own"),
)

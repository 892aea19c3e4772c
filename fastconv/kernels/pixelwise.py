"""What stands between convolutions, compiled: sums, per-channel affine maps, activations and pools, plane by plane.

Each equals its definition in numpy bit for bit (zeros may differ in sign): the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.layer import Array
from fastconv.kernels.threads import Job

ALONE = 2**15
"""Elements below which a second thread costs more than it brings."""
_CHUNK = 2**13
"""Elements that one claim of work should hold at least."""


def kind_of(*arrays: Array) -> str:
    """Return the kernels' name of the arrays' common format, "" where they do not serve it."""
    kinds = {(a.dtype.kind, a.dtype.itemsize, a.dtype.isnative) for a in arrays}
    plain = all(a.flags.c_contiguous and a.flags.aligned for a in arrays)
    return {("f", 4, True): "f4", ("f", 8, True): "f8"}.get(next(iter(kinds)), "") if plain and len(kinds) == 1 else ""


def planewise(
    x: Array,
    out: Array,
    other: Array | None = None,
    affine: tuple[Array, Array, Array] | None = None,
    activation: Activation | None = None,
    threads: int = 1,
) -> Job:
    """Return the job that writes ``activation((x - mean) * factor + shift)`` or ``activation(x + other)`` to `out`.

    Parameters
    ----------
    x, other, out : arrays
        Of one shape and one format that `kind_of` knows, in C order; the channels are the second axis. `out` may be none
        of the others.
    affine : (mean, factor, shift), optional
        One number a channel each.
    activation : Activation, optional
        What comes last.
    threads : int
        Threads, at most.
    """
    shape = activation or Activation()
    parts = [np.asarray(part, x.dtype) for part in (*(affine or (0, 1, 0)), shape.slope)]
    channels = max((part.size for part in parts), default=1)
    record = np.empty((channels, 6), x.dtype)
    with np.errstate(over="ignore"):  # bounds past the format bound nothing
        for k, part in enumerate((*parts, shape.low, shape.high)):
            record[:, k] = part
    if channels == 1:  # no plane differs from another: cut where it suits
        size = _CHUNK
        count = -(-x.size // size)
    else:
        size = int(np.prod(x.shape[2:], dtype=np.int64))
        count = x.shape[0] * x.shape[1]
    group = max(1, _CHUNK // max(size, 1))
    description = np.array([x.size, size, count, group, channels, other is not None], np.int64)
    arrays = (x, other, record, out)
    return Job(_planes(kind_of(x)), description, -(-count // group), arrays, threads if x.size > ALONE else 1)


def pool(x: Array, out: Array, kernel: Any, strides: Any, dilations: Any, begin: Any, count: Array | None = None, threads: int = 1) -> Job:
    """Return the job that writes the maximum of each window, or its sum divided by `count`: arrays (batch, channels, height, width)."""
    (h, w), (oh, ow) = x.shape[2:], out.shape[2:]
    description = np.array([h, w, oh, ow, *kernel, *strides, *dilations, *begin, count is not None], np.int64)
    planes = x.shape[0] * x.shape[1]
    row = -(-w * x.itemsize // 64) * 64
    return Job(_pool(kind_of(x)), description, planes, (x, count, None, out), threads if x.size > ALONE else 1, row)


@cache
def types_of(kind: str) -> tuple[Any, Callable[..., Any], int]:
    """Return a kind's type, the intrinsic that turns an address into a pointer to it, and its bytes."""
    from numba import types
    from numba.extending import intrinsic

    number = {"f4": types.float32, "f8": types.float64}[kind]

    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        """Return the address as a pointer to numbers."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return types.CPointer(number)(address), codegen

    return {"f4": np.float32, "f8": np.float64}[kind], pointer, {"f4": 4, "f8": 8}[kind]


@cache
def _planes(kind: str) -> Any:
    from numba import carray

    from fastconv.kernels.compiled import compiled
    from fastconv.kernels.simd import claim, integers

    number, pointer, width = types_of(kind)

    # Arrays are made to begin where each loop begins: an index that may be negative would keep the loop from vectors.
    def planes(description, counter, items, x, other, table, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(integers(description), (6,), np.int64)
        total, size, count, group, channels = d[0], d[1], d[2], d[3], d[4]
        zero = number(0)
        item = claim(counter)
        while item < items:
            for plane in range(item * group, min(count, (item + 1) * group)):
                r = carray(pointer(table + plane % channels * 6 * width), (6,), number)
                mean, factor, shift, slope, low, high = r[0], r[1], r[2], r[3], r[4], r[5]
                at, length = plane * size * width, min(size, total - plane * size)
                a, out = carray(pointer(x + at), (length,), number), carray(pointer(y + at), (length,), number)
                if d[5]:
                    b = carray(pointer(other + at), (length,), number)
                    for i in range(length):
                        z = a[i] + b[i]
                        z = slope * z if z < zero else z
                        z = low if z < low else z
                        out[i] = high if z > high else z
                else:
                    for i in range(length):
                        z = (a[i] - mean) * factor + shift
                        z = slope * z if z < zero else z
                        z = low if z < low else z
                        out[i] = high if z > high else z
            item = claim(counter)

    return compiled(planes, kind)


@cache
def _pool(kind: str) -> Any:
    from numba import carray

    from fastconv.kernels.compiled import compiled
    from fastconv.kernels.simd import claim, integers

    number, pointer, width = types_of(kind)

    def pool(description, counter, items, x, counts, unused, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(integers(description), (13,), np.int64)
        h, w, oh, ow, kh, kw, sh, sw, dh, dw, top, left = d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11]
        plane = claim(counter)
        while plane < items:
            for i in range(oh):
                to = y + (plane * oh + i) * ow * width
                out = carray(pointer(to), (ow,), number)
                start = number(0) if d[12] else number(-np.inf)
                for j in range(ow):
                    out[j] = start
                if not d[12]:  # the maximum of the rows, then of its columns: which comes first does not matter
                    whole = carray(pointer(workspace), (w,), number)
                    for j in range(w):
                        whole[j] = start
                    for p in range(kh):
                        at = i * sh + p * dh - top
                        if at >= 0 and at < h:
                            row = carray(pointer(x + (plane * h + at) * w * width), (w,), number)
                            for j in range(w):
                                best, value = whole[j], row[j]
                                # NaN wins, as with numpy's maximum.
                                whole[j] = best if best >= value or best != best else value
                for p in range(kh if d[12] else 1):
                    at = i * sh + p * dh - top
                    if d[12] and (at < 0 or at >= h):
                        continue
                    source = x + (plane * h + at) * w * width if d[12] else workspace
                    for q in range(kw):
                        offset = q * dw - left
                        low = (max(0, -offset) + sw - 1) // sw
                        length = min(ow, (w - 1 - offset) // sw + 1) - low
                        some = carray(pointer(to + low * width), (length,), number)
                        a = carray(pointer(source + (offset + low * sw) * width), (length * sw,), number)
                        if d[12]:
                            for j in range(length):
                                some[j] += a[j * sw]
                        elif sw == 2:
                            for j in range(length):
                                best, value = some[j], a[j * 2]
                                some[j] = best if best >= value or best != best else value
                        else:
                            for j in range(length):
                                best, value = some[j], a[j * sw]
                                some[j] = best if best >= value or best != best else value
                if d[12]:
                    count = carray(pointer(counts + i * ow * width), (ow,), number)
                    for j in range(ow):
                        out[j] /= count[j]
            plane = claim(counter)

    return compiled(pool, kind)

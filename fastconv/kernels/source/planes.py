"""Build the element-wise and averaging kernels, see `fastconv.kernels.operators.pixelwise`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from fastconv.kernels.records import AVERAGE, MEAN, PLANES
from fastconv.native.source import claim, pointer


@cache
def types_of(kind: str) -> tuple[Any, Callable[..., Any], int]:
    """Return a kind's type, the intrinsic that converts an address to a pointer to it, and its bytes."""
    number = {"f4": types.float32, "f8": types.float64}[kind]

    @intrinsic
    def numbers(typingctx: Any, address: Any) -> Any:
        """Return the address as a pointer to numbers."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return types.CPointer(number)(address), codegen

    return {"f4": np.float32, "f8": np.float64}[kind], numbers, {"f4": 4, "f8": 8}[kind]


def planes(kind: str) -> Callable[..., None]:
    """Return a kernel that adds, scales, shifts and activates, plane by plane."""
    number, numbers, width = types_of(kind)

    # Arrays begin where each loop begins: a possibly negative index would prevent vectorisation.
    def planes(description, counter, items, x, other, table, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), PLANES)[0]
        total, size, count, group, channels = d.total, d.size, d.count, d.group, d.channels
        zero = number(0)
        item = claim(counter)
        while item < items:
            for plane in range(item * group, min(count, (item + 1) * group)):
                r = carray(numbers(table + plane % channels * 6 * width), (6,), number)
                mean, factor, shift, slope, low, high = r[0], r[1], r[2], r[3], r[4], r[5]
                at, length = plane * size * width, min(size, total - plane * size)
                a, out = carray(numbers(x + at), (length,), number), carray(numbers(y + at), (length,), number)
                if d.sums:
                    b = carray(numbers(other + at), (length,), number)
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

    return planes


def average(kind: str) -> Callable[..., None]:
    """Return a kernel that computes the mean of each window."""
    number, numbers, width = types_of(kind)

    def average(description, counter, items, x, counts, unused, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), AVERAGE)[0]
        h, w, oh, ow, kh, kw = d.height, d.width, d.out_height, d.out_width, d.kernel_h, d.kernel_w
        sh, sw, dh, dw, top, left = d.stride_h, d.stride_w, d.dilation_h, d.dilation_w, d.top, d.left
        plane = claim(counter)
        while plane < items:
            for i in range(oh):
                to = y + (plane * oh + i) * ow * width
                out = carray(numbers(to), (ow,), number)
                for j in range(ow):
                    out[j] = number(0)
                for p in range(kh):
                    at = i * sh + p * dh - top
                    if at < 0 or at >= h:
                        continue
                    source = x + (plane * h + at) * w * width
                    for q in range(kw):
                        offset = q * dw - left
                        low = (max(0, -offset) + sw - 1) // sw
                        length = min(ow, (w - 1 - offset) // sw + 1) - low
                        some = carray(numbers(to + low * width), (length,), number)
                        a = carray(numbers(source + (offset + low * sw) * width), (length * sw,), number)
                        for j in range(length):
                            some[j] += a[j * sw]
                count = carray(numbers(counts + i * ow * width), (ow,), number)
                for j in range(ow):
                    out[j] /= count[j]
            plane = claim(counter)

    return average


def mean(kind: str) -> Callable[..., None]:
    """Return a kernel that computes the mean of each plane."""
    number, numbers, width = types_of(kind)

    def mean(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), MEAN)[0]
        planes, size, group = d.planes, d.size, d.group
        item = claim(counter)
        while item < items:
            for plane in range(item * group, min(planes, (item + 1) * group)):
                total = number(0)
                for begin in range(0, size, 128):
                    length = min(128, size - begin)
                    a = carray(numbers(x + (plane * size + begin) * width), (length,), number)
                    part, k = number(0), 0
                    if length >= 8:
                        s0, s1, s2, s3, s4, s5, s6, s7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
                        k = 8
                        while k + 8 <= length:
                            s0, s1, s2, s3 = s0 + a[k], s1 + a[k + 1], s2 + a[k + 2], s3 + a[k + 3]
                            s4, s5, s6, s7 = s4 + a[k + 4], s5 + a[k + 5], s6 + a[k + 6], s7 + a[k + 7]
                            k += 8
                        part = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
                    while k < length:
                        part += a[k]
                        k += 1
                    total += part
                carray(numbers(y + plane * width), (1,), number)[0] = total / number(size)
            item = claim(counter)

    return mean

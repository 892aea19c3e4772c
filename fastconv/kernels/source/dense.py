"""Build the kernel of a dense layer on few rows, see `fastconv.kernels.operators.dense`."""

from __future__ import annotations

from collections.abc import Callable

from numba import carray, njit

from fastconv.kernels.records import DENSE
from fastconv.kernels.source.planes import types_of
from fastconv.native.source import claim, pointer


def dense(kind: str) -> Callable[..., None]:
    """Return a kernel that computes a dense layer."""
    number, numbers, width = types_of(kind)

    @njit(fastmath={"reassoc", "nsz", "contract"}, error_model="numpy", nogil=True)
    def dot(a, b, length):  # type: ignore[no-untyped-def]
        total = number(0)
        for i in range(length):
            total += a[i] * b[i]
        return total

    @njit(fastmath={"contract"}, error_model="numpy", nogil=True)
    def add(factor, b, out, length):  # type: ignore[no-untyped-def]
        for i in range(length):
            out[i] += factor * b[i]

    def dense(description, counter, items, x, weight, table, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), DENSE)[0]
        zero = number(0)
        rows, inputs, outputs, group = d.rows, d.inputs, d.outputs, d.group
        item = claim(counter)
        while item < items:
            first, last = item * group, min(outputs, (item + 1) * group)
            if d.transposed:
                for k in range(first, last):
                    w = carray(numbers(weight + k * inputs * width), (inputs,), number)
                    for row in range(rows):
                        a = carray(numbers(x + row * inputs * width), (inputs,), number)
                        carray(numbers(y + (row * outputs + k) * width), (1,), number)[0] = dot(a, w, inputs)
            else:
                for row in range(rows):
                    out = carray(numbers(y + (row * outputs + first) * width), (last - first,), number)
                    a = carray(numbers(x + row * inputs * width), (inputs,), number)
                    for k in range(last - first):
                        out[k] = number(0)
                    for c in range(inputs):
                        w = carray(numbers(weight + (c * outputs + first) * width), (last - first,), number)
                        add(a[c], w, out, last - first)
            if d.finished:
                for row in range(rows):
                    out = carray(numbers(y + (row * outputs + first) * width), (last - first,), number)
                    for k in range(last - first):
                        r = carray(numbers(table + (first + k) * 4 * width), (4,), number)
                        z = out[k] + r[0]
                        z = r[1] * z if z < zero else z
                        z = r[2] if z < r[2] else z
                        out[k] = r[3] if z > r[3] else z
            item = claim(counter)

    return dense

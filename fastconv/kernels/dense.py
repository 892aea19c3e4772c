"""A dense layer on few rows: bound by reading its weights once, so it reads them where they are, on our own threads.

The threads of a BLAS spin for milliseconds after each call and take the cores from the layers that follow.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.layer import Array
from fastconv.kernels.pixelwise import ALONE, kind_of, types_of
from fastconv.kernels.threads import Job

FEW = 8
"""Rows up to which the weights' way from memory is all that counts."""
_ROWS = 16
"""Rows or columns of the weights in one claim of work."""


def dense(
    x: Array,
    weight: Array,
    out: Array,
    transposed: bool,
    bias: Array | None = None,
    activation: Activation | None = None,
    threads: int = 1,
) -> Job:
    """Return the job that writes ``activation(x weight.T + bias)`` to `out`, or ``x weight`` if the weight is not `transposed`.

    A `transposed` weight is (outputs, inputs), another (inputs, outputs). Sums of the first are made in lanes, as vectors
    allow, and those of the other in order, with fused multiply-adds where the CPU has them. All arrays are in C order and
    of one format that `kind_of` knows.
    """
    outputs = out.shape[1]
    group = _ROWS if transposed else 8 * _ROWS
    table = None
    if bias is not None or activation is not None:
        table = (activation or Activation()).table(np.zeros(outputs, x.dtype) if bias is None else bias)
    description = np.array([x.shape[0], x.shape[1], outputs, group, transposed, table is not None], np.int64)
    return Job(_dense(kind_of(x)), description, -(-outputs // group), (x, weight, table, out), threads if weight.size > ALONE else 1)


@cache
def _dense(kind: str) -> Any:
    from numba import carray, njit

    from fastconv.kernels.compiled import compiled
    from fastconv.kernels.simd import claim, integers

    number, pointer, width = types_of(kind)

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
        d = carray(integers(description), (6,), np.int64)
        zero = number(0)
        rows, inputs, outputs, group = d[0], d[1], d[2], d[3]
        item = claim(counter)
        while item < items:
            first, last = item * group, min(outputs, (item + 1) * group)
            if d[4]:
                for k in range(first, last):
                    w = carray(pointer(weight + k * inputs * width), (inputs,), number)
                    for row in range(rows):
                        a = carray(pointer(x + row * inputs * width), (inputs,), number)
                        carray(pointer(y + (row * outputs + k) * width), (1,), number)[0] = dot(a, w, inputs)
            else:
                for row in range(rows):
                    out = carray(pointer(y + (row * outputs + first) * width), (last - first,), number)
                    a = carray(pointer(x + row * inputs * width), (inputs,), number)
                    for k in range(last - first):
                        out[k] = number(0)
                    for c in range(inputs):
                        w = carray(pointer(weight + (c * outputs + first) * width), (last - first,), number)
                        add(a[c], w, out, last - first)
            if d[5]:
                for row in range(rows):
                    out = carray(pointer(y + (row * outputs + first) * width), (last - first,), number)
                    for k in range(last - first):
                        r = carray(pointer(table + (first + k) * 4 * width), (4,), number)
                        z = out[k] + r[0]
                        z = r[1] * z if z < zero else z
                        z = r[2] if z < r[2] else z
                        out[k] = r[3] if z > r[3] else z
            item = claim(counter)

    return compiled(dense, kind)

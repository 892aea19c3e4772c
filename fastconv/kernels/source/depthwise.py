"""Build the kernel of depthwise layers, see `fastconv.kernels.runners.depthwise`."""

from __future__ import annotations

from collections.abc import Callable

from numba import carray

from fastconv.kernels.records import DEPTHWISE
from fastconv.kernels.source.engine import copy
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import claim, depthwise_summer, pointer


def planes(kind: str, step: int, rows: int, offsets: tuple[int, ...], shaped: int) -> Callable[..., None]:
    """Return a kernel for a depthwise layer; an item is an input plane and its filters."""
    lanes, size = lanes_of(kind), SIZE[kind]
    vector = depthwise_summer(kind, step, rows, offsets, machine().fma, shaped)
    taps, fields = rows * len(offsets), 4 if shaped else 1

    def planes(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), DEPTHWISE)[0]
        channels, made, height, width, out_height, out_width = d.channels, d.filters, d.height, d.width, d.out_height, d.out_width
        top, left, pitch, down, apart, spill = d.top, d.left, d.pitch, d.down, d.apart, workspace + d.spill
        item = claim(counter)
        while item < items:
            src, dst = x + item * height * width * size, workspace + top * pitch + left * size
            for _ in range(height):
                copy(dst, src, width * size)
                src += width * size
                dst += pitch
            for filter in range(item % channels * made, (item % channels + 1) * made):
                w, record = u + filter * taps * size, bias + filter * fields * size
                out = y + (item // channels * channels * made + filter) * out_height * out_width * size
                for i in range(out_height):
                    row = workspace + i * down * pitch
                    if out_width >= lanes:
                        for j in range(0, out_width - lanes + 1, lanes):
                            vector((row + j * step * size, apart * pitch), w, record, out + j * size)
                        j = out_width - lanes  # the last vector overlaps the one before and writes the same values
                        vector((row + j * step * size, apart * pitch), w, record, out + j * size)
                    else:
                        vector((row, apart * pitch), w, record, spill)
                        copy(out, spill, out_width * size)
                    out += out_width * size
            item = claim(counter)

    return planes

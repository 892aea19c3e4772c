"""Build the kernels that split images into phases and interleave phases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import carray
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.records import PHASES, ROWS, TOGETHER
from fastconv.kernels.source.engine import copy, zero
from fastconv.kernels.source.programs import lane_joiner
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import claim, clear, load_every, pointer, store_at

V = machine().vector_bytes


@intrinsic(prefer_literal=True)
def every(typingctx: Any, kind: Any, lanes: Any, step: Any, dst: Any, src: Any) -> Any:
    """Write a vector of every `step`-th number."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        store_at(builder, load_every(builder, args[4], kind.literal_value, lanes.literal_value, step.literal_value), args[3])
        return context.get_dummy_value()

    return types.void(kind, lanes, step, dst, src), codegen


def phases(kind: str, step: int) -> Callable[..., None]:
    """Return a kernel that splits images into phases; an item is one row phase of a plane."""
    lanes, size = lanes_of(kind), SIZE[kind]

    def phases(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), PHASES)[0]
        channels, h, w, top, left = d.channels, d.height, d.width, d.top, d.left
        sh, rows, columns, pitch = d.stride, d.rows, d.columns, d.pitch
        result, row, out = workspace + d.result, w * size, columns * size
        zero(workspace, ROWS * pitch)
        item = claim(counter)
        while item < items:
            plane, p = item // sh, item % sh
            source, image, channel = x + plane * h * row, plane // channels, plane % channels
            for first in range(0, rows, ROWS):
                last = min(first + ROWS, rows)
                for i in range(first, last):
                    at, line = i * sh + p - top, workspace + (i - first) * pitch + left * size
                    if at >= 0 and at < h:
                        copy(line, source + at * row, row)
                    else:
                        for k in range(0, row, 4):
                            clear(4, line + k)
                for q in range(step):
                    target = y + ((image * sh * step + p * step + q) * channels + channel) * rows * out
                    for i in range(first, last):
                        line = workspace + (i - first) * pitch + q * size
                        for k in range(0, out, V):
                            every(kind, lanes, step, result + k, line + k * step)
                        copy(target + i * out, result, out)
            item = claim(counter)

    return phases


def together(kind: str, step: int) -> Callable[..., None]:
    """Return a kernel that interleaves the phases of images. An item is an output channel."""
    size, join = SIZE[kind], lane_joiner(kind, step, 0, 0)

    def together(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), TOGETHER)[0]
        groups, made, sh, sw, top, left = d.groups, d.filters, d.stride_h, d.stride_w, d.top, d.left
        out_rows, out_columns, rows, columns = d.out_height, d.out_width, d.rows, d.columns
        none, line, row, out = workspace + d.none, workspace, columns * size, out_columns * size
        plane = rows * row
        clear(4, none)
        clear(4, none + 4)
        item = claim(counter)
        while item < items:
            image, channel = item // (groups * made), item % (groups * made)
            group, filter = channel // made, channel % made
            source = x + ((image * groups + group) * sh * sw * made + filter) * plane
            for i in range(out_rows):
                src = source + (i + top) % sh * sw * made * plane + (i + top) // sh * row
                for k in range(0, row, V):
                    join((src + k, made * plane), line + k * step, none)
                copy(y + (item * out_rows + i) * out, line + left * size, out)
            item = claim(counter)

    return together

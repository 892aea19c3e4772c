"""Layers whose groups are single channels: no channels to sum over, so the vectors run along the rows of a plane.

A product of matrices of one row and one column has nothing to keep in registers; here the taps stay there, and each
output is the same chain of multiply-adds over the taps that im2col makes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from fastconv.kernels.activation import Activation
from fastconv.kernels.compiled import SIZE, compiled, lanes_of
from fastconv.kernels.cut import DIRECT_CHAIN
from fastconv.kernels.engine import copy
from fastconv.kernels.layer import Array, Layer, check_bytes
from fastconv.kernels.simd import claim, depthwise_vector, has_fma, integers
from fastconv.kernels.threads import COUNTER, Job, Pool

FIELDS = 12


def fits(layer: Layer) -> bool:
    """Whether each group is one channel, with taps that one chain sums and strides that vectors are made for."""
    taps = layer.kernel[0] * layer.kernel[1]
    return 1 < layer.groups == layer.channels and taps <= DIRECT_CHAIN and layer.stride[1] in (1, 2)


@cache
def _planes(kind: str, step: int, rows: int, offsets: tuple[int, ...], shaped: int) -> Any:
    """Compile the layer: an item is a plane of the input, copied between zeros, and the filters that read it."""
    lanes, size, text, fused = lanes_of(kind), SIZE[kind], ",".join(map(str, offsets)), has_fma()
    taps, fields = rows * len(offsets), 4 if shaped else 1

    def planes(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(integers(description), (FIELDS,), np.int64)
        channels, made, height, width, out_height, out_width = d[0], d[1], d[2], d[3], d[4], d[5]
        top, left, pitch, down, apart, spill = d[6], d[7], d[8], d[9], d[10], workspace + d[11]
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
                            depthwise_vector(
                                kind,
                                lanes,
                                step,
                                rows,
                                text,
                                fused,
                                shaped,
                                row + j * step * size,
                                apart * pitch,
                                w,
                                record,
                                out + j * size,
                            )
                        j = out_width - lanes  # the last vector: what it shares with the one before is written twice, alike
                        depthwise_vector(
                            kind, lanes, step, rows, text, fused, shaped, row + j * step * size, apart * pitch, w, record, out + j * size
                        )
                    else:
                        depthwise_vector(kind, lanes, step, rows, text, fused, shaped, row, apart * pitch, w, record, spill)
                        copy(out, spill, out_width * size)
                    out += out_width * size
            item = claim(counter)

    return compiled(planes, kind, lanes, step, rows, offsets, shaped, fused)


class DepthwiseRunner:
    """Runs a layer of single channels, plane by plane."""

    adds = False

    def __init__(self, layer: Layer, weight: Array, bias: Array | None, threads: int, activation: Activation | None = None) -> None:
        kind = {4: "f4", 8: "f8"}[layer.dtype.itemsize]
        lanes, size = lanes_of(kind), layer.dtype.itemsize
        (top, bottom), (left, right) = layer.padding
        offsets = tuple(k * layer.dilation[1] for k in range(layer.kernel[1]))
        pitch = -(-(left + layer.width + right + lanes * (layer.stride[1] + 1)) * size // 64) * 64
        plane = (top + layer.height + bottom) * pitch + pitch
        self.items = layer.batch * layer.channels
        self.members, self.each = max(1, min(threads, self.items)), plane + 64
        check_bytes("a workspace", self.each * self.members)
        bias = np.zeros(layer.filters, layer.dtype) if bias is None else bias.copy()
        self.record = bias if activation is None else activation.table(bias)
        self.weights = np.ascontiguousarray(weight).reshape(layer.filters, -1)
        made = layer.filters // layer.groups
        numbers = (
            layer.channels,
            made,
            layer.height,
            layer.width,
            *layer.output,
            top,
            left,
            pitch,
            layer.stride[0],
            layer.dilation[0],
            plane,
        )
        self.description = np.array(numbers, np.int64)
        self.function = _planes(kind, layer.stride[1], layer.kernel[0], offsets, int(activation is not None))
        self.pool = Pool(clean=True)
        self.workspace_bytes = COUNTER + self.members * self.each
        self.weight_bytes = self.weights.nbytes

    def __call__(self, x: Array, y: Array) -> None:
        """Run all planes."""
        self.pool.run(self.job(x, y))

    def job(self, x: Array, y: Array, adding: bool = False) -> Job:
        """Return the planes as items. What lies around a plane is never written, so the workspace is clean."""
        arrays = (x, self.weights, self.record, y)
        return Job(self.function, self.description, self.items, arrays, self.members, self.each, clean=True)

    def details(self) -> list[str]:
        """Say how the layer is cut."""
        return [f"{self.items} planes, the taps in registers"]

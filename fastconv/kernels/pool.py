"""Run maximum pools plane by plane: over rows of a window in vectors, then columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastconv.kernels.layer import Array
from fastconv.kernels.records import POOL, ROWS
from fastconv.native import KIND, Job, compiled, described, machine, round_up

STEPS = (1, 2)
"""Strides along a row with a vector path; others run number by number."""

ALONE = 2**15
"""Most elements for which a second thread costs more than it saves."""


class Windows(NamedTuple):
    """The windows of a pool along rows and columns; `begin` is the padding before them."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    begin: Sequence[int]

    def fields(self, x: Array, out: Array) -> dict[str, int]:
        """Return the fields that the record of a pool has, by name."""
        given = {"kernel": self.kernel, "stride": self.strides, "dilation": self.dilations}
        pairs = {f"{name}_{axis}": int(value) for name, pair in given.items() for axis, value in zip("hw", pair, strict=True)}
        (height, width), (out_height, out_width), (top, left) = x.shape[2:4], out.shape[2:4], self.begin
        return pairs | {"height": height, "width": width, "out_height": out_height, "out_width": out_width, "top": top, "left": left}


def max_pool(x: Array, out: Array, windows: Windows, threads: int = 1) -> Job:
    """Return the job that writes the maximum of each window, NaN if it holds one.

    Arrays are (batch, channels, height, width), or channels-blocked: (batch, channels / lanes, height, width, lanes).
    """
    kernel, strides, dilations, begin = windows
    w, ow, size, v = x.shape[3], out.shape[3], x.itemsize, machine().vector_bytes
    reach = max(begin[1] + w, (ow - 1) * strides[1] + (kernel[1] - 1) * dilations[1] + 1)
    held, pitch = round_up(ow * size + v, 64), round_up(reach * size + 2 * v * strides[1], 64)
    description = described(POOL, **windows.fields(x, out), held=held, pitch=pitch)
    room = held + ROWS * pitch + held * kernel[1] + v * kernel[0]
    kind, members = KIND[size], threads if x.size > ALONE else 1
    planes, step = x.shape[0] * x.shape[1], strides[1] if strides[1] in STEPS else 1
    if x.ndim == 5:
        return Job(compiled("kernels.pool.pool_blocks", kind), description, planes, (x, None, None, out), members, w * v)
    return Job(compiled("kernels.pool.pool", kind, step), description, planes, (x, None, None, out), members, room)

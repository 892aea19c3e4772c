"""Run sums, per-channel affine maps, activations and average pools plane by plane.

All except `mean` equal their definitions in numpy bit for bit (zeros may differ in sign): the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.layer import Array
from fastconv.kernels.records import AVERAGE, MEAN, PLANES
from fastconv.native import Job, compiled, described

ALONE = 2**15
"""Most elements for which a second thread costs more than it saves."""
_KINDS = {np.dtype(np.float32): "f4", np.dtype(np.float64): "f8"}
_PLAIN = 0x101
"""Required numpy flags: C order, aligned."""
_CHUNK = 2**13
"""Least elements per work item."""


def kind_of(*arrays: Array) -> str:
    """Return the kernels' name of the arrays' common format, or "" if they do not support it."""
    kind = arrays[0].dtype
    for a in arrays:
        if a.dtype != kind or a.flags.num & _PLAIN != _PLAIN:
            return ""
    return _KINDS.get(kind, "")


def members(x: Array, threads: int) -> int:
    """Return how many of the threads a pass over an array should use."""
    return threads if x.size > ALONE else 1


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
        Arrays of one shape and one format that `kind_of` supports, in C order; the channels are the second axis. `out`
        is a separate array.
    affine : (mean, factor, shift), optional
        One number per channel each.
    activation : Activation, optional
        Applied last.
    threads : int
        Most threads to use.
    """
    shape = activation or Activation()
    if affine is None and not isinstance(shape.slope, np.ndarray):
        record, description, items = _alike(x.dtype, x.size, other is not None, shape.slope, shape.low, shape.high)
    else:
        record, description, items = _planes(x, (*(affine or (0, 1, 0)), shape.slope, shape.low, shape.high), other is not None)
    return Job(compiled("kernels.planes.planes", kind_of(x)), description, items, (x, other, record, out), members(x, threads))


@lru_cache(maxsize=256)
def _alike(dtype: np.dtype[Any], total: int, sums: bool, *activation: float) -> tuple[Array, Array, int]:
    """Return the cached input of a job over planes whose channels are all alike."""
    return _planes(np.broadcast_to(np.zeros((), dtype), (1, total)), (0, 1, 0, *activation), sums)


def _planes(x: Array, numbers: Sequence[float | Array], sums: bool) -> tuple[Array, Array, int]:
    """Return the input of a job over planes: six numbers per channel, description, items."""
    parts = [np.asarray(part, x.dtype) for part in numbers[:4]]
    channels = max(part.size for part in parts)
    record = np.empty((channels, 6), x.dtype)
    with np.errstate(over="ignore"):  # bounds that overflow the format become infinite
        for k, part in enumerate((*parts, *numbers[4:])):
            record[:, k] = part
    if channels == 1:  # all planes are alike: cut anywhere
        size = _CHUNK
        count = -(-x.size // size)
    else:
        size = int(np.prod(x.shape[2:], dtype=np.int64))
        count = x.shape[0] * x.shape[1]
    group = max(1, _CHUNK // max(size, 1))
    description = described(PLANES, total=x.size, size=size, count=count, group=group, channels=channels, sums=sums)
    return record, description, -(-count // group)


class Windows(NamedTuple):
    """The windows of a pool along rows and columns; `begin` is the padding before them."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    begin: Sequence[int]

    def fields(self, x: Array, out: Array) -> dict[str, int]:
        """Return the fields that the records of pools have, by name."""
        given = {"kernel": self.kernel, "stride": self.strides, "dilation": self.dilations}
        pairs = {f"{name}_{axis}": int(value) for name, pair in given.items() for axis, value in zip("hw", pair, strict=True)}
        (height, width), (out_height, out_width), (top, left) = x.shape[2:4], out.shape[2:4], self.begin
        return pairs | {"height": height, "width": width, "out_height": out_height, "out_width": out_width, "top": top, "left": left}


def average_pool(x: Array, out: Array, windows: Windows, count: Array, threads: int = 1) -> Job:
    """Return the job that writes the sum of each window divided by `count`: arrays (batch, channels, height, width)."""
    description = described(AVERAGE, **windows.fields(x, out))
    planes = x.shape[0] * x.shape[1]
    return Job(compiled("kernels.planes.average", kind_of(x)), description, planes, (x, count, None, out), members(x, threads))


def mean(x: Array, out: Array, threads: int = 1) -> Job:
    """Return the job that writes the mean of each plane: arrays (batch, channels, ...) and (batch, channels, 1, ...).

    In each piece of 128 numbers, eight chains sum every eighth number, and the eight sums are added pairwise. The remainder
    is added one by one, and the sums of the pieces in a chain.
    """
    planes = x.shape[0] * x.shape[1]
    size = x.size // planes
    group = max(1, _CHUNK // size)
    description = described(MEAN, planes=planes, size=size, group=group)
    return Job(compiled("kernels.planes.mean", kind_of(x)), description, -(-planes // group), (x, None, None, out), members(x, threads))

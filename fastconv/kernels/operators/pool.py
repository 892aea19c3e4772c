"""Run maximum pools plane by plane: over rows of a window in vectors, then columns."""

from __future__ import annotations

from fastconv.kernels.layer import Array
from fastconv.kernels.operators.pixelwise import Windows, kind_of, members
from fastconv.kernels.records import POOL, ROWS
from fastconv.native import Job, compiled, described, machine, round_up

STEPS = (1, 2)
"""Strides along a row with a vector path; others run number by number."""


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
    planes, step = x.shape[0] * x.shape[1], strides[1] if strides[1] in STEPS else 1
    if x.ndim == 5:
        return Job(compiled("kernels.pool.pool_blocks", kind_of(x)), description, planes, (x, None, None, out), members(x, threads), w * v)
    return Job(compiled("kernels.pool.pool", kind_of(x), step), description, planes, (x, None, None, out), members(x, threads), room)

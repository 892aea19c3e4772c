"""The layer engine: for a block of tiles, rows to lanes, transform, product, transform back, lanes to rows.

It moves bytes and calls compiled functions by address, so that one compilation serves every algorithm and both
formats. A work item is (group, block of tiles, share of the output channels); an output belongs to one item and
its operations do not depend on how the items are cut, so results do not depend on the number of threads.
"""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np
from numba import carray, prange

from fastconv.kernels.compiled import compiled, parallel, part
from fastconv.kernels.simd import call, clear, integers, move, vector_bytes

V = vector_bytes()


class Field(IntEnum):
    """Places in the description of a layer, an array of integers. Strides, pitches and offsets are in bytes."""

    def _generate_next_value_(name, start, count, last_values):  # type: ignore[no-untyped-def,override] # noqa: N805
        return count

    SIZE = auto()  # of a number
    LANES = auto()
    GROUPS = auto()
    CHANNELS = auto()  # of a group
    HEIGHT = auto()
    WIDTH = auto()
    OUT_CHANNELS = auto()  # of a group
    OUT_HEIGHT = auto()
    OUT_WIDTH = auto()
    PAD_TOP = auto()
    PAD_LEFT = auto()
    TILES = auto()  # of all images
    TILES_H = auto()
    TILES_W = auto()
    STEP_H = auto()  # input rows from a tile to the next
    STEP_W = auto()
    OUT_H = auto()  # output rows of a tile
    OUT_W = auto()
    ROWS = auto()  # input rows that a tile reads
    ROW_STEP = auto()  # from one of them to the next
    TAPS = auto()  # vectors that a row is split into
    SPAN = auto()  # input columns that a tile reads
    BLOCK = auto()  # tiles of a block
    BLOCKS = auto()
    SHARES = auto()  # of the output channels
    KBLOCK = auto()  # output channels transformed back at once
    KBLOCKS = auto()
    DEPTH = auto()  # summed products per output of the inner product
    CHANNEL_BLOCK = auto()
    XIS = auto()  # independent inner products
    MR = auto()  # output channels of a panel
    PITCH = auto()  # of a row in the band
    LANE_PITCH = auto()  # of a vector of tiles
    LDV = auto()
    V_XI = auto()
    V_ROW = auto()  # where split writes straight into V
    V_TAP = auto()
    V_CHANNEL = auto()
    M_XI = auto()
    U_XI = auto()
    U_KBLOCK = auto()
    U_GROUP = auto()
    BAND = auto()  # places in a thread's workspace
    COLUMN = auto()
    SPLIT = auto()
    INPUT = auto()
    OUTPUT = auto()
    HALF = auto()
    WHOLE = auto()
    LINES = auto()
    WORKSPACE = auto()  # of a thread
    INPUT_H = auto()  # compiled functions; zero where the axis has no transform
    INPUT_W = auto()
    OUTPUT_H = auto()
    OUTPUT_W = auto()
    SPLITTER = auto()
    JOINER = auto()
    PRODUCT = auto()
    INPUT_H_CONSTANTS = auto()
    INPUT_W_CONSTANTS = auto()
    OUTPUT_H_CONSTANTS = auto()
    OUTPUT_W_CONSTANTS = auto()


F = Field
FIELDS = len(Field)


@part
def copy(dst, src, size):  # type: ignore[no-untyped-def]
    """Copy exactly `size` bytes, a multiple of four."""
    if size >= V:
        k = 0
        while k + V <= size:
            move(V, dst + k, src + k)
            k += V
        if k < size:
            move(V, dst + size - V, src + size - V)
    else:
        for k in range(0, size, 4):
            move(4, dst + k, src + k)


@part
def zero(dst, size):  # type: ignore[no-untyped-def]
    """Clear at least `size` bytes, in whole vectors."""
    for k in range(0, size, V):
        clear(V, dst + k)


@part
def read_band(d, band, image, top, left, width):  # type: ignore[no-untyped-def]
    """Copy the rows that a run of tiles reads, zeros in the place of the padding."""
    size, columns = d[F.SIZE], d[F.WIDTH]
    before = min(max(-left, 0), width)
    inside = min(columns, left + width) - max(left, 0)
    for i in range(d[F.ROWS]):
        row, to = top + i * d[F.ROW_STEP], band + i * d[F.PITCH]
        if row < 0 or row >= d[F.HEIGHT] or inside <= 0:
            zero(to, width * size)
        else:
            zero(to, before * size)
            copy(to + before * size, image + (row * columns + max(left, 0)) * size, inside * size)
            zero(to + (before + inside) * size, (width - before - inside) * size)


@part
def gather(d, group, first, count, x, at):  # type: ignore[no-untyped-def]
    """Transform the input of a block of tiles: V (xi, channel, tile)."""
    size, lanes = d[F.SIZE], d[F.LANES]
    vectors = (count + lanes - 1) // lanes
    plane = d[F.HEIGHT] * d[F.WIDTH] * size
    for c in range(d[F.CHANNELS]):
        lane = 0
        while lane < count:
            tile = first + lane
            strip, tx = tile // d[F.TILES_W], tile % d[F.TILES_W]
            n, ty = strip // d[F.TILES_H], strip % d[F.TILES_H]
            run = min(count - lane, d[F.TILES_W] - tx)
            width = (run - 1) * d[F.STEP_W] + d[F.SPAN]
            image = x + ((n * d[F.GROUPS] + group) * d[F.CHANNELS] + c) * plane
            rows = at + d[F.BAND]
            read_band(d, rows, image, ty * d[F.STEP_H] - d[F.PAD_TOP], tx * d[F.STEP_W] - d[F.PAD_LEFT], width)
            if d[F.INPUT_H]:
                pitch, columns = d[F.PITCH], at + d[F.COLUMN]
                inner = (width + lanes - 1) // lanes
                call(d[F.INPUT_H], (rows, pitch, 0, lanes * size, columns, pitch, 0, lanes * size, 1, inner, d[F.INPUT_H_CONSTANTS]))
                rows = columns
            if d[F.INPUT_W]:
                to, row, tap = at + d[F.SPLIT], d[F.TAPS] * d[F.LANE_PITCH], d[F.LANE_PITCH]
            else:
                to, row, tap = at + d[F.INPUT] + c * d[F.V_CHANNEL], d[F.V_ROW], d[F.V_TAP]
            call(d[F.SPLITTER], (rows, d[F.PITCH], to + lane * size, row, tap, d[F.ROWS], (run + lanes - 1) // lanes))
            lane += run
        if d[F.INPUT_W]:
            pitch, xi, taps, step = d[F.LANE_PITCH], d[F.V_XI], d[F.TAPS], lanes * size
            src, to = at + d[F.SPLIT], at + d[F.INPUT] + c * d[F.V_CHANNEL]
            call(d[F.INPUT_W], (src, pitch, taps * pitch, step, to, xi, taps * xi, step, d[F.ROWS], vectors, d[F.INPUT_W_CONSTANTS]))


@part
def scatter(d, group, first, count, k, m, bias, y, at):  # type: ignore[no-untyped-def]
    """Transform one output channel of a block of tiles back, add the bias, and write its rows."""
    size, lanes = d[F.SIZE], d[F.LANES]
    vectors, step, pitch = (count + lanes - 1) // lanes, lanes * size, d[F.LANE_PITCH]
    src, row, tap = m, d[F.TAPS] * d[F.M_XI], d[F.M_XI]
    if d[F.OUTPUT_H]:
        to = at + d[F.HALF]
        call(d[F.OUTPUT_H], (src, row, tap, step, to, d[F.TAPS] * pitch, pitch, step, d[F.TAPS], vectors, d[F.OUTPUT_H_CONSTANTS]))
        src, row, tap = to, d[F.TAPS] * pitch, pitch
    if d[F.OUTPUT_W]:
        to = at + d[F.WHOLE]
        call(d[F.OUTPUT_W], (src, tap, row, step, to, pitch, d[F.OUT_W] * pitch, step, d[F.OUT_H], vectors, d[F.OUTPUT_W_CONSTANTS]))
        src, row, tap = to, d[F.OUT_W] * pitch, pitch
    line = d[F.OUT_W] * pitch
    channel = group * d[F.OUT_CHANNELS] + k
    call(d[F.JOINER], (src, row, tap, at + d[F.LINES], line, d[F.OUT_H], vectors, bias + channel * size))
    lane = 0
    while lane < count:
        tile = first + lane
        strip, tx = tile // d[F.TILES_W], tile % d[F.TILES_W]
        n, ty = strip // d[F.TILES_H], strip % d[F.TILES_H]
        run = min(count - lane, d[F.TILES_W] - tx)
        top, left = ty * d[F.OUT_H], tx * d[F.OUT_W]
        width = min(run * d[F.OUT_W], d[F.OUT_WIDTH] - left)
        image = y + (n * d[F.GROUPS] * d[F.OUT_CHANNELS] + channel) * d[F.OUT_HEIGHT] * d[F.OUT_WIDTH] * size
        for a in range(min(d[F.OUT_H], d[F.OUT_HEIGHT] - top)):
            src = at + d[F.LINES] + a * line + lane * d[F.OUT_W] * size
            copy(image + ((top + a) * d[F.OUT_WIDTH] + left) * size, src, width * size)
        lane += run


@part
def run_item(d, item, x, u, bias, y, at):  # type: ignore[no-untyped-def]
    """Compute one work item in the workspace at `at`."""
    lanes = d[F.LANES]
    group, rest = item // (d[F.BLOCKS] * d[F.SHARES]), item % (d[F.BLOCKS] * d[F.SHARES])
    block, share = rest // d[F.SHARES], rest % d[F.SHARES]
    first = block * d[F.BLOCK]
    count = min(d[F.BLOCK], d[F.TILES] - first)
    gather(d, group, first, count, x, at)
    tiles = (count + lanes - 1) // lanes * lanes
    channels, pitch = d[F.OUT_CHANNELS], d[F.LANE_PITCH]
    for kblock in range(share * d[F.KBLOCKS] // d[F.SHARES], (share + 1) * d[F.KBLOCKS] // d[F.SHARES]):
        k0 = kblock * d[F.KBLOCK]
        here = min(d[F.KBLOCK], channels - k0)
        panels, tails = here // d[F.MR], here % d[F.MR]
        weights, out = u + group * d[F.U_GROUP] + kblock * d[F.U_KBLOCK], at + d[F.OUTPUT]
        shape = (d[F.XIS], panels, tails, tiles, d[F.DEPTH], d[F.CHANNEL_BLOCK])
        v, xi = at + d[F.INPUT], d[F.V_XI]
        call(d[F.PRODUCT], (*shape, weights, d[F.U_XI], v, xi, d[F.LDV], out, d[F.M_XI], pitch))
        for k in range(here):
            scatter(d, group, first, count, k0 + k, out + k * pitch, bias, y, at)


def _run_items(description, start, stop, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
    d = carray(integers(description), (FIELDS,), np.int64)
    for item in range(start, stop):
        run_item(d, item, x, u, bias, y, workspace)


def _run_chunks(run, description, chunks, items, x, u, bias, y, workspace, size):  # type: ignore[no-untyped-def]
    for k in prange(chunks):
        call(run, (description, k * items // chunks, (k + 1) * items // chunks, x, u, bias, y, workspace + k * size))


run_items = compiled(_run_items)
"""Computes the work items from `start` to `stop`, one after the other."""

run_chunks = parallel(_run_chunks)
"""Calls `run` for all work items, cut into chunks that run at once, each in a workspace of `size` bytes."""

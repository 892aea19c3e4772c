"""The layer engine: for a block of tiles, rows to lanes, transform, product, transform back, lanes to rows.

It moves bytes and calls compiled functions by address, so that one compilation serves every algorithm and both
formats. A work item is (group, block of tiles, share of the output channels); an output belongs to one item and
its operations do not depend on how the items are cut, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections import namedtuple
from enum import IntEnum, auto
from typing import Any

import numpy as np
from numba import carray

from fastconv.kernels.compiled import compiled, part
from fastconv.kernels.simd import call, claim, clear, integers, move, move_past, vector_bytes

V = vector_bytes()


class Field(IntEnum):
    """Places in the description of a layer, an array of integers. Strides, pitches and offsets are in bytes."""

    def _generate_next_value_(name, start, count, last_values):  # type: ignore[no-untyped-def,override] # noqa: N805
        return count

    SIZE = auto()  # of a number
    BIAS = auto()  # of the bias of a filter and what follows it
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
    PRODUCTS_H = auto()  # of an algorithm along each axis; the rows and taps of a direct convolution
    PRODUCTS_W = auto()
    SPAN = auto()  # input columns that a tile reads
    BLOCK = auto()  # tiles of a block
    BLOCKS = auto()
    SHARES = auto()  # of the output channels
    KBLOCK = auto()  # output channels transformed back at once
    KBLOCKS = auto()
    DEPTH = auto()  # summed products per output of the inner product
    CHANNEL_BLOCK = auto()
    XIS = auto()  # independent inner products
    MR = auto()  # output channels of a panel, with tiles in the lanes
    MT = auto()  # tiles of a panel, with filters in the lanes; zero otherwise
    NK = auto()  # vectors of filters of such a panel
    CHUNK = auto()  # tiles that are transformed back at once, with filters in the lanes
    PITCH = auto()  # of a row in the band
    LANE_PITCH = auto()  # of a vector of tiles
    LDV = auto()
    V_XI = auto()
    V_ROW = auto()  # where split writes straight into V
    V_TAP = auto()
    V_CHANNEL = auto()
    M_XI = auto()
    M_TILE = auto()  # of a tile, with filters in the lanes
    LINE = auto()  # of a row of results
    U_KBLOCK = auto()
    U_GROUP = auto()
    STRIPS = auto()  # places in a thread's workspace
    BAND = auto()
    COLUMN = auto()
    SPLIT = auto()
    INPUT = auto()
    OUTPUT = auto()
    HALF = auto()
    WHOLE = auto()
    LINES = auto()
    STRAIGHT = auto()  # whether planes of the input are rows of V
    PAST = auto()  # whether the output goes past the caches
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


class Strip(IntEnum):
    """What is known of a strip of tiles: a run of one row of them."""

    def _generate_next_value_(name, start, count, last_values):  # type: ignore[no-untyped-def,override] # noqa: N805
        return count

    LANE = auto()  # of its first tile in the block
    RUN = auto()  # tiles
    FROM = auto()  # offset of its input from that of the first channel
    TO = auto()  # address in the band that it is copied to
    ROWS = auto()  # rows of the image that are copied
    BYTES = auto()  # of each
    READ = auto()  # address of its first tile in the band
    OUT = auto()  # offset of its output from that of the first channel
    OUT_ROWS = auto()
    OUT_BYTES = auto()


def _constants(places: type[IntEnum]) -> Any:
    """Return the places as a named tuple: its fields are constants to numba, which before 0.68 takes no IntEnum as an index."""
    make: Any = namedtuple  # the type checker wants the names as a literal
    return make("Places", [place.name for place in places])(*(int(place) for place in places))


F = _constants(Field)
S = _constants(Strip)
FIELDS, STRIP = len(Field), len(Strip)


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
def copy_past(dst, src, size):  # type: ignore[no-untyped-def]
    """Copy exactly `size` bytes past the caches: nobody reads them before they would have left the caches again."""
    k = 0
    while k < size and (dst + k) % V:
        move_past(4, dst + k, src + k)
        k += 4
    while k + V <= size:
        move_past(V, dst + k, src + k)
        k += V
    while k < size:
        move_past(4, dst + k, src + k)
        k += 4


@part
def zero(dst, size):  # type: ignore[no-untyped-def]
    """Clear at least `size` bytes, in whole vectors."""
    for k in range(0, size, V):
        clear(V, dst + k)


@part
def cut(d, first, count, group, at, strips):  # type: ignore[no-untyped-def]
    """Cut a block of tiles into strips, one a row of tiles, and write down where each lies. Clears the band.

    A block of many strips reads the rows that two of them share once; then every row of the band is a whole row
    of the image. The zeros of the padding are written here, once for all channels.
    """
    size, rows, wide = d[F.SIZE], d[F.ROWS], d[F.TILES_W]
    shared = count >= 2 * wide and d[F.ROW_STEP] == 1 and d[F.STEP_H] < rows
    lane, q, base, before = 0, 0, 0, -1
    while lane < count:
        tile = first + lane
        n, ty, tx = tile // wide // d[F.TILES_H], tile // wide % d[F.TILES_H], tile % wide
        run = min(count - lane, wide - tx)
        skip = rows - d[F.STEP_H] if shared and n == before else 0
        base += 0 if q == 0 else rows - skip
        top, left = ty * d[F.STEP_H] - d[F.PAD_TOP], (0 if shared else tx) * d[F.STEP_W] - d[F.PAD_LEFT]
        width = ((wide if shared else run) - 1) * d[F.STEP_W] + d[F.SPAN]
        low = max(skip, (max(-top, 0) + d[F.ROW_STEP] - 1) // d[F.ROW_STEP])
        high = min(rows, (d[F.HEIGHT] - 1 - top + d[F.ROW_STEP]) // d[F.ROW_STEP])
        column = max(left, 0)
        inside = min(d[F.WIDTH], left + width) - column
        strip = strips[q]
        strip[S.LANE], strip[S.RUN] = lane, run
        strip[S.TO] = at + d[F.BAND] + (base + low) * d[F.PITCH] + (column - left) * size
        strip[S.ROWS] = high - low if inside > 0 else 0
        strip[S.BYTES] = inside * size
        image = n * d[F.GROUPS] * d[F.CHANNELS] + group * d[F.CHANNELS]
        strip[S.FROM] = ((image * d[F.HEIGHT] + top + low * d[F.ROW_STEP]) * d[F.WIDTH] + column) * size
        strip[S.READ] = at + d[F.BAND] + base * d[F.PITCH] + (tx * d[F.STEP_W] * size if shared else 0)
        top, left = ty * d[F.OUT_H], tx * d[F.OUT_W]
        image = n * d[F.GROUPS] * d[F.OUT_CHANNELS] + group * d[F.OUT_CHANNELS]
        strip[S.OUT] = ((image * d[F.OUT_HEIGHT] + top) * d[F.OUT_WIDTH] + left) * size
        strip[S.OUT_ROWS] = min(d[F.OUT_H], d[F.OUT_HEIGHT] - top)
        strip[S.OUT_BYTES] = min(run * d[F.OUT_W], d[F.OUT_WIDTH] - left) * size
        for i in range(skip, rows):
            zero(at + d[F.BAND] + (base + i) * d[F.PITCH], width * size)
        lane, q, before = lane + run, q + 1, n
    return q


@part
def gather(d, count, x, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform the input of a block of tiles: V (xi, channel, tile)."""
    size, lanes, pitch = d[F.SIZE], d[F.LANES], d[F.PITCH]
    step, row_step = lanes * size, d[F.ROW_STEP] * d[F.WIDTH] * size
    vectors, columns = (count + lanes - 1) // lanes, at + d[F.COLUMN]
    for c in range(d[F.CHANNELS]):
        if d[F.INPUT_W]:
            to, row, tap = at + d[F.SPLIT], d[F.TAPS] * d[F.LANE_PITCH], d[F.LANE_PITCH]
        else:
            to, row, tap = at + d[F.INPUT] + c * d[F.V_CHANNEL], d[F.V_ROW], d[F.V_TAP]
        for q in range(used):
            strip = strips[q]
            src, dst = x + strip[S.FROM] + c * d[F.HEIGHT] * d[F.WIDTH] * size, strip[S.TO]
            for _ in range(strip[S.ROWS]):
                copy(dst, src, strip[S.BYTES])
                src += row_step
                dst += pitch
            rows, run = strip[S.READ], strip[S.RUN]
            if d[F.INPUT_H]:
                inner = ((run - 1) * d[F.STEP_W] + d[F.SPAN] + lanes - 1) // lanes
                call(d[F.INPUT_H], (rows, pitch, 0, step, columns, pitch, 0, step, 1, inner, d[F.INPUT_H_CONSTANTS]))
                rows = columns
            call(d[F.SPLITTER], (rows, pitch, to + strip[S.LANE] * size, row, tap, d[F.PRODUCTS_H], (run + lanes - 1) // lanes))
        if d[F.INPUT_W]:
            xi, dst = d[F.V_XI], at + d[F.INPUT] + c * d[F.V_CHANNEL]
            call(d[F.INPUT_W], (to, tap, row, step, dst, xi, d[F.PRODUCTS_W] * xi, step, d[F.PRODUCTS_H], vectors, d[F.INPUT_W_CONSTANTS]))


@part
def write(d, k, lines, line, y, strips, used):  # type: ignore[no-untyped-def]
    """Write the rows of one output channel, `line` bytes apart at `lines`, to where the strips belong."""
    row_bytes = d[F.OUT_WIDTH] * d[F.SIZE]
    for q in range(used):
        strip = strips[q]
        src, dst = lines + strip[S.LANE] * d[F.OUT_W] * d[F.SIZE], y + strip[S.OUT] + k * d[F.OUT_HEIGHT] * row_bytes
        for _ in range(strip[S.OUT_ROWS]):
            if d[F.PAST]:
                copy_past(dst, src, strip[S.OUT_BYTES])
            else:
                copy(dst, src, strip[S.OUT_BYTES])
            src += line
            dst += row_bytes


@part
def scatter(d, count, k, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform one output channel of a block of tiles back, add the bias, and write its rows."""
    size, lanes = d[F.SIZE], d[F.LANES]
    vectors, step, pitch = (count + lanes - 1) // lanes, lanes * size, d[F.LANE_PITCH]
    src, row, tap = m, d[F.PRODUCTS_W] * d[F.M_XI], d[F.M_XI]
    if d[F.OUTPUT_H]:
        to = at + d[F.HALF]
        call(
            d[F.OUTPUT_H],
            (src, row, tap, step, to, d[F.PRODUCTS_W] * pitch, pitch, step, d[F.PRODUCTS_W], vectors, d[F.OUTPUT_H_CONSTANTS]),
        )
        src, row, tap = to, d[F.PRODUCTS_W] * pitch, pitch
    if d[F.OUTPUT_W]:
        to = at + d[F.WHOLE]
        call(d[F.OUTPUT_W], (src, tap, row, step, to, pitch, d[F.OUT_W] * pitch, step, d[F.OUT_H], vectors, d[F.OUTPUT_W_CONSTANTS]))
        src, row, tap = to, d[F.OUT_W] * pitch, pitch
    line, lines = d[F.OUT_W] * pitch, at + d[F.LINES]
    call(d[F.JOINER], (src, row, tap, lines, line, d[F.OUT_H], vectors, bias))
    write(d, k, lines, line, y, strips, used)


@part
def scatter_filters(d, count, k, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform a vector of output channels of a block of tiles back, add the bias, and write its rows."""
    vector, columns, rows = d[F.LANES] * d[F.SIZE], d[F.OUT_W], d[F.OUT_H]
    lines, line = at + d[F.LINES], d[F.LINE]
    for first in range(0, count, d[F.CHUNK]):
        here = min(d[F.CHUNK], count - first)
        src, tile, row, tap = m + first * d[F.M_TILE], d[F.M_TILE], d[F.PRODUCTS_W] * d[F.M_XI], d[F.M_XI]
        if d[F.OUTPUT_H]:
            to, out = at + d[F.HALF], d[F.PRODUCTS_W] * vector
            call(d[F.OUTPUT_H], (src, row, tile, tap, to, out, rows * out, vector, here, d[F.PRODUCTS_W], d[F.OUTPUT_H_CONSTANTS]))
            src, tile, row, tap = to, rows * out, out, vector
        if d[F.OUTPUT_W]:
            to, out = at + d[F.WHOLE], d[F.CHUNK] * columns * vector
            call(d[F.OUTPUT_W], (src, tap, tile, row, to, vector, columns * vector, out, here, rows, d[F.OUTPUT_W_CONSTANTS]))
            src, tile, row = to, vector, out
        call(d[F.JOINER], (src, row, tile, lines + first * columns * d[F.SIZE], line, rows * line, rows, here * columns, bias))
    for l in range(min(d[F.LANES], d[F.OUT_CHANNELS] - k)):  # noqa: E741
        write(d, k + l, lines + l * rows * line, line, y, strips, used)


@part
def run_item(d, item, x, u, bias, y, at):  # type: ignore[no-untyped-def]
    """Compute one work item in the workspace at `at`."""
    lanes = d[F.LANES]
    group, rest = item // (d[F.BLOCKS] * d[F.SHARES]), item % (d[F.BLOCKS] * d[F.SHARES])
    block, share = rest // d[F.SHARES], rest % d[F.SHARES]
    first = block * d[F.BLOCK]
    count = min(d[F.BLOCK], d[F.TILES] - first)
    strips = carray(integers(at + d[F.STRIPS]), (count, STRIP), np.int64)
    used = cut(d, first, count, group, at, strips)
    tiles = (count + lanes - 1) // lanes * lanes
    read = (count + d[F.MT] - 1) // d[F.MT] * d[F.MT] if d[F.MT] else tiles
    v, ldv, plane = at + d[F.INPUT], d[F.LDV], d[F.HEIGHT] * d[F.WIDTH]
    if d[F.STRAIGHT] and first // plane == (first + read - 1) // plane:
        # A pixel is a tile and a plane a row of V: nothing to gather.
        v = x + ((first // plane * d[F.GROUPS] + group) * d[F.CHANNELS] * plane + first % plane) * d[F.SIZE]
        ldv = plane * d[F.SIZE]
    else:
        gather(d, count, x, at, strips, used)
    channels, pitch = d[F.OUT_CHANNELS], d[F.LANE_PITCH]
    for kblock in range(share * d[F.KBLOCKS] // d[F.SHARES], (share + 1) * d[F.KBLOCKS] // d[F.SHARES]):
        k0 = kblock * d[F.KBLOCK]
        here = min(d[F.KBLOCK], channels - k0)
        weights, out = u + group * d[F.U_GROUP] + kblock * d[F.U_KBLOCK], at + d[F.OUTPUT]
        xi = d[F.V_XI]
        if d[F.MT]:
            panel = d[F.NK] * lanes
            padded = (channels + panel - 1) // panel * panel  # the filters of a group, in the weights and in the biases
            panels, turns = (here + panel - 1) // panel, (count + d[F.MT] - 1) // d[F.MT]
            sizes = (d[F.XIS], panels, turns, d[F.DEPTH], d[F.CHANNEL_BLOCK])
            call(d[F.PRODUCT], (*sizes, weights, v, xi, ldv, out, d[F.M_XI], d[F.M_TILE]))
            for k in range(0, here, lanes):
                record = bias + (group * padded + k0 + k) * d[F.BIAS]
                scatter_filters(d, count, k0 + k, out + k * d[F.SIZE], record, y, at, strips, used)
        else:
            panels, tails = here // d[F.MR], here % d[F.MR]
            shape = (d[F.XIS], panels, tails, tiles, d[F.DEPTH], d[F.CHANNEL_BLOCK])
            call(d[F.PRODUCT], (*shape, weights, v, xi, ldv, out, d[F.M_XI], pitch))
            for k in range(here):
                scatter(d, count, k0 + k, out + k * pitch, bias + (group * channels + k0 + k) * d[F.BIAS], y, at, strips, used)


def _run_items(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
    d = carray(integers(description), (FIELDS,), np.int64)
    item = claim(counter)
    while item < items:
        run_item(d, item, x, u, bias, y, workspace)
        item = claim(counter)


run_items = compiled(_run_items, V)
"""Computes work items, taking the next that nobody has taken from `counter`, until all `items` are taken."""

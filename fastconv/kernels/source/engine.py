"""The layer engine: for a block of tiles, rows to lanes, transform, product, transform back, lanes to rows.

It moves bytes and calls compiled functions by address, so that one compilation serves every algorithm and both
formats. A work item is (group, block of tiles, share of the output channels); an output belongs to one item and
its operations do not depend on how the items are cut, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import carray

from fastconv.kernels.runners.fields import FIELDS, STRIP
from fastconv.native import machine
from fastconv.native.source import call, claim, clear, fetch, move, move_past, part, pointer

V, LINE = machine().vector_bytes, machine().line


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
    of the image. The zeros of the padding are written here, once for all channels. Strips whose rows are all rows of the
    image are not copied at all where the next step reads them as they are.
    """
    size, rows, wide, out_size = d.PIXEL * d.SIZE, d.ROWS, d.TILES_W, d.OUT_PIXEL * d.SIZE
    blocks = d.PIXEL > 1
    direct = d.INPUT_H != 0
    images = d.TILES // (d.TILES_H * wide)
    end = images * d.GROUPS * d.CHANNELS * d.HEIGHT * d.WIDTH * d.SIZE
    shared = count >= 2 * wide and d.ROW_STEP == 1 and d.STEP_H < rows and not direct
    lane, q, base, before = 0, 0, 0, -1
    while lane < count:
        tile = first + lane
        n, ty, tx = tile // wide // d.TILES_H, tile // wide % d.TILES_H, tile % wide
        run = min(count - lane, wide - tx)
        skip = rows - d.STEP_H if shared and n == before else 0
        base += 0 if q == 0 else rows - skip
        top, left = ty * d.STEP_H - d.PAD_TOP, (0 if shared else tx) * d.STEP_W - d.PAD_LEFT
        width = ((wide if shared else run) - 1) * d.STEP_W + d.SPAN
        low = max(skip, (max(-top, 0) + d.ROW_STEP - 1) // d.ROW_STEP)
        high = min(rows, (d.HEIGHT - 1 - top + d.ROW_STEP) // d.ROW_STEP)
        column = max(left, 0)
        inside = min(d.WIDTH, left + width) - column
        strip = strips[q]
        strip.LANE, strip.RUN = lane, run
        strip.TO = at + d.BAND + (base + low) * d.PITCH + (column - left) * size
        strip.ROWS = high - low if inside > 0 else 0
        strip.BYTES = inside * size
        image = n * d.GROUPS * d.CHANNELS + group * d.CHANNELS
        strip.FROM = image * d.HEIGHT * d.WIDTH * d.SIZE + ((top + low * d.ROW_STEP) * d.WIDTH + column) * size
        strip.LEFT, strip.RIGHT = (column - left) * size, (left + width - column - inside) * size
        strip.COLUMNS = (run - 1) * d.STEP_W + d.SPAN
        if blocks:
            place = True
        elif direct:
            # Whole vectors are read, from before the first column to behind the last.
            before_it, over = (column - left) * size, (width + d.LANES) * size
            last = strip.FROM + ((d.CHANNELS - 1) * d.HEIGHT + (rows - 1) * d.ROW_STEP) * d.WIDTH * size
            place = strip.FROM >= before_it and last + over <= end
        else:
            reach = (run + d.LANES - 1) // d.LANES * d.LANES * d.STEP_W + d.STEP_W + d.SPAN + d.LANES
            place = not shared and left >= 0 and left + reach <= d.WIDTH
        strip.PLACE = place and high - low == rows and inside > 0
        strip.LEFT = (column - left) * size if strip.PLACE else 0
        strip.RIGHT = (left + width - column - inside) * size if strip.PLACE else 0
        strip.READ = at + d.BAND + base * d.PITCH + (tx * d.STEP_W * size if shared else 0)
        top, left = ty * d.OUT_H, tx * d.OUT_W
        image = n * d.GROUPS * d.OUT_CHANNELS + group * d.OUT_CHANNELS
        strip.OUT = image * d.OUT_HEIGHT * d.OUT_WIDTH * d.SIZE + (top * d.OUT_WIDTH + left) * out_size
        strip.OUT_ROWS = min(d.OUT_H, d.OUT_HEIGHT - top)
        strip.OUT_BYTES = min(run * d.OUT_W, d.OUT_WIDTH - left) * out_size
        if not (blocks and strip.PLACE):
            for i in range(skip, rows):
                zero(at + d.BAND + (base + i) * d.PITCH, width * size)
        lane, q, before = lane + run, q + 1, n
    return q


@part
def gather(d, first, count, x, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform the input of a block of tiles: V (xi, channel, tile)."""
    size, lanes, pitch, columns = d.SIZE, d.LANES, d.PITCH, at + d.COLUMN
    step, row_step = lanes * size, d.ROW_STEP * d.WIDTH * size
    for c in range(d.CHANNELS):
        # Strips write whole vectors: what is too much at the end of one is overwritten by the next strip, or channel.
        to = at + d.INPUT + c * d.V_CHANNEL
        for q in range(used):
            strip = strips[q]
            rows, between, run = x + strip.FROM + c * d.HEIGHT * d.WIDTH * size, row_step, strip.RUN
            if strip.PLACE:
                for i in range(d.ROWS):
                    for k in range(0, strip.BYTES, LINE):
                        fetch(rows + i * row_step + k + d.HEIGHT * d.WIDTH * size)
            else:
                dst = strip.TO
                for _ in range(strip.ROWS):
                    copy(dst, rows, strip.BYTES)
                    rows += row_step
                    dst += pitch
                rows, between = strip.READ, pitch
            if d.INPUT_H:
                inner, rows = (strip.COLUMNS + lanes - 1) // lanes, rows - strip.LEFT
                call(d.INPUT_H, (rows, between, 0, step, columns, pitch, 0, step, 1, inner, d.INPUT_H_CONSTANTS))
                for i in range(d.PRODUCTS_H):
                    for k in range(0, strip.LEFT, 4):
                        clear(4, columns + i * pitch + k)
                    zero(columns + i * pitch + strip.COLUMNS * size - strip.RIGHT, strip.RIGHT)
                rows, between = columns, pitch
            dst, vectors = to + strip.LANE * size, (run + lanes - 1) // lanes
            call(d.SPLITTER, (rows, between, dst, d.V_ROW, d.V_TAP, d.PRODUCTS_H, vectors, d.INPUT_W_CONSTANTS))


@part
def gather_pixels(d, first, count, x, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform the input of a block of tiles, channels in blocks: V (xi, block of channels, tile, channel).

    A pixel is a vector, so that both transforms run on vectors as they lie, and nothing is turned.
    """
    pixel, pitch, columns = d.PIXEL * d.SIZE, d.TAKE_PITCH, at + d.COLUMN
    plane, row_step = d.HEIGHT * d.WIDTH * pixel, d.ROW_STEP * d.WIDTH * pixel
    for block in range(d.CHANNELS // d.PIXEL):
        to = at + d.INPUT + block * d.LDV
        for q in range(used):
            strip = strips[q]
            rows, between = x + strip.FROM + block * plane, row_step
            if not strip.PLACE:
                dst = strip.TO
                for _ in range(strip.ROWS):
                    copy(dst, rows, strip.BYTES)
                    rows += row_step
                    dst += d.PITCH
                rows, between = strip.READ, d.PITCH
            rows -= strip.LEFT
            whole = strip.COLUMNS * pixel
            for first in range(0, strip.RUN, d.TAKE):
                here = min(d.TAKE, strip.RUN - first)
                begin = first * d.STEP_W * pixel
                end = begin + ((here - 1) * d.STEP_W + d.SPAN) * pixel
                low, high = max(begin, strip.LEFT), max(min(end, whole - strip.RIGHT), begin)
                inner = max(high - low, 0) // pixel
                call(d.INPUT_H, (rows + low, between, 0, pixel, columns + low - begin, pitch, 0, pixel, 1, inner, d.INPUT_H_CONSTANTS))
                for i in range(d.PRODUCTS_H):
                    zero(columns + i * pitch, low - begin)
                    zero(columns + i * pitch + high - begin, end - high)
                dst = to + (strip.LANE + first) * pixel
                call(
                    d.SPLITTER,
                    (columns, pixel, pitch, d.STEP_W * pixel, dst, d.V_TAP, d.V_ROW, pixel, d.PRODUCTS_H, here, d.INPUT_W_CONSTANTS),
                )


@part
def gather_turned(d, first, count, x, at, strips, used):  # type: ignore[no-untyped-def]
    """Do what `gather_pixels` does, from planes: rows of as many channels as a vector has lanes are turned into pixels."""
    size, pixel, pitch, columns, turned = d.SIZE, d.LANES * d.SIZE, d.TAKE_PITCH, at + d.COLUMN, at + d.TURNED
    plane, row, wide = d.HEIGHT * d.WIDTH * size, d.WIDTH * size, d.TILES_W
    for block in range(d.CHANNELS // d.LANES):
        to = at + d.INPUT + block * d.LDV
        for q in range(used):
            strip = strips[q]
            tile = first + strip.LANE
            image = x + (tile // wide // d.TILES_H * d.CHANNELS + block * d.LANES) * plane
            top, begin = tile // wide % d.TILES_H * d.STEP_H - d.PAD_TOP, tile % wide * d.STEP_W - d.PAD_LEFT
            for k in range(0, strip.RUN, d.TAKE):
                here = min(d.TAKE, strip.RUN - k)
                left, taken = begin + k * d.STEP_W, (here - 1) * d.STEP_W + d.SPAN
                low = max(left, 0)
                high = max(min(left + taken, d.WIDTH), low)
                for i in range(d.ROWS):
                    dst = turned + i * pitch
                    if 0 <= top + i < d.HEIGHT and high > low:
                        zero(dst, (low - left) * pixel)
                        call(d.PIXELS, (image + (top + i) * row + low * size, plane, dst + (low - left) * pixel, high - low))
                        zero(dst + (high - left) * pixel, (left + taken - high) * pixel)
                    else:
                        zero(dst, taken * pixel)
                src = turned
                if d.INPUT_H:
                    call(d.INPUT_H, (src, pitch, 0, pixel, columns, pitch, 0, pixel, 1, taken, d.INPUT_H_CONSTANTS))
                    src = columns
                dst = to + (strip.LANE + k) * pixel
                call(
                    d.SPLITTER,
                    (src, pixel, pitch, d.STEP_W * pixel, dst, d.V_TAP, d.V_ROW, pixel, d.PRODUCTS_H, here, d.INPUT_W_CONSTANTS),
                )


@part
def write(d, strip, filters, src, dst, size):  # type: ignore[no-untyped-def]
    """Write `size` bytes of each row of a strip, of several filters, to their places."""
    row_bytes = d.OUT_WIDTH * d.SIZE
    for l in range(filters):  # noqa: E741
        for i in range(strip.OUT_ROWS):
            at, to = src + (l * d.OUT_H + i) * d.LINE, dst + (l * d.OUT_HEIGHT + i) * row_bytes
            if d.PAST:
                copy_past(to, at, size)
            else:
                copy(to, at, size)


@part
def read(d, strip, filters, dst, src, size):  # type: ignore[no-untyped-def]
    """Copy what is where `write` would write, to where it would write it from."""
    row_bytes = d.OUT_WIDTH * d.SIZE
    for l in range(filters):  # noqa: E741
        for i in range(strip.OUT_ROWS):
            copy(dst + (l * d.OUT_H + i) * d.LINE, src + (l * d.OUT_HEIGHT + i) * row_bytes, size)


@part
def scatter(d, count, k, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform one output channel of a block of tiles back, add the bias, and write its rows."""
    size, lanes = d.SIZE, d.LANES
    vectors, step, pitch = (count + lanes - 1) // lanes, lanes * size, d.LANE_PITCH
    src, row, tap = m, d.PRODUCTS_W * d.M_XI, d.M_XI
    if d.OUTPUT_H:
        to = at + d.HALF
        call(
            d.OUTPUT_H,
            (src, row, tap, step, to, d.PRODUCTS_W * pitch, pitch, step, d.PRODUCTS_W, vectors, d.OUTPUT_H_CONSTANTS),
        )
        src, row, tap = to, d.PRODUCTS_W * pitch, pitch
    if d.OUTPUT_W:
        to = at + d.WHOLE
        call(d.OUTPUT_W, (src, tap, row, step, to, pitch, d.OUT_W * pitch, step, d.OUT_H, vectors, d.OUTPUT_W_CONSTANTS))
        src, row, tap = to, d.OUT_W * pitch, pitch
    lines, plane = at + d.LINES, d.OUT_HEIGHT * d.OUT_WIDTH * size
    if d.ADDS:
        for q in range(used):
            strip = strips[q]
            read(d, strip, 1, lines + strip.LANE * d.OUT_W * size, y + strip.OUT + k * plane, strip.OUT_BYTES)
    call(d.JOINER, (src, row, tap, lines, d.LINE, d.OUT_H, vectors, bias))
    for q in range(used):
        strip = strips[q]
        write(d, strip, 1, lines + strip.LANE * d.OUT_W * size, y + strip.OUT + k * plane, strip.OUT_BYTES)


@part
def scatter_filters(d, k0, filters, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform a block of output channels of a block of tiles back, add the bias, and write its rows.

    Whole vectors of columns go straight to where they belong; what is cut off, or goes past the caches, by way of rows of
    its own.
    """
    size, lanes, columns, rows = d.SIZE, d.LANES, d.OUT_W, d.OUT_H
    vector, tile_bytes, row_bytes = lanes * size, columns * size, d.OUT_WIDTH * size
    plane, wide, lines, line = d.OUT_HEIGHT * row_bytes, d.TURN * tile_bytes, at + d.LINES, d.LINE
    half, panel = d.PRODUCTS_W * vector, d.NK * lanes
    for q in range(used):
        strip = strips[q]
        for base in range(0, strip.RUN, d.PIECE):
            stop = min(base + d.PIECE, strip.RUN)
            for k in range(0, filters, lanes):
                there = min(lanes, d.OUT_CHANNELS - k0 - k)
                straight = not d.PAST and strip.OUT_ROWS == rows and there == lanes
                record, place = bias + k * d.BIAS, y + strip.OUT + (k0 + k) * plane
                for first in range(base, stop, d.CHUNK):
                    here = min(d.CHUNK, stop - first)
                    tile, row, tap = d.M_TILE, d.PRODUCTS_W * d.M_XI, d.M_XI
                    src = m + k // panel * d.M_PANEL + k % panel * size + (strip.LANE + first) * tile
                    if d.OUTPUT_H:
                        to, taps = at + d.HALF, d.PRODUCTS_W
                        call(d.OUTPUT_H, (src, row, tile, tap, to, half, rows * half, vector, here, taps, d.OUTPUT_H_CONSTANTS))
                        src, tile, row, tap = to, rows * half, half, vector
                    begin = first * tile_bytes
                    left = min(here * tile_bytes, strip.OUT_BYTES - begin)
                    turns, constants = left // wide if straight else 0, d.OUTPUT_W_CONSTANTS
                    if turns:
                        call(d.JOINER, (src, row, tap, tile, place + begin, row_bytes, plane, rows, turns, record, constants))
                        begin += turns * wide
                        left -= turns * wide
                        src += turns * d.TURN * tile
                    if left > 0:
                        turns, to = (left + wide - 1) // wide, lines + begin - base * tile_bytes
                        if d.ADDS:
                            read(d, strip, there, to, place + begin, left)
                        call(d.JOINER, (src, row, tap, tile, to, line, rows * line, rows, turns, record, constants))
                        if not d.PAST:
                            write(d, strip, there, to, place + begin, left)
                if d.PAST:
                    begin = base * tile_bytes
                    write(d, strip, there, lines, place + begin, min(stop * tile_bytes, strip.OUT_BYTES) - begin)


@part
def scatter_pixels(d, k0, filters, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform a block of output channels of a block of tiles back, and write each pixel of the output as a vector."""
    pixel = d.OUT_PIXEL * d.SIZE
    tile_bytes, row_bytes, rest = d.OUT_W * pixel, d.OUT_WIDTH * pixel, at + d.LINES
    plane, half, panel = d.OUT_HEIGHT * row_bytes, d.PRODUCTS_W * pixel, d.NK * d.LANES
    for q in range(used):
        strip = strips[q]
        rows = strip.OUT_ROWS
        for first in range(0, strip.RUN, d.CHUNK):
            here = min(d.CHUNK, strip.RUN - first)
            for k in range(0, min(filters, d.OUT_CHANNELS - k0), d.LANES):
                record, place = bias + k * d.BIAS, y + strip.OUT + (k0 + k) // d.LANES * plane
                src, row, tap, step = m + k // panel * d.M_PANEL + k % panel * d.SIZE, d.PRODUCTS_W * d.M_XI, d.M_XI, d.M_TILE
                src += (strip.LANE + first) * step
                if d.OUTPUT_H:
                    to, sizes = at + d.HALF, (here, d.PRODUCTS_W, d.OUTPUT_H_CONSTANTS)
                    call(d.OUTPUT_H, (src, row, step, tap, to, half, d.OUT_H * half, pixel, *sizes))
                    src, row, tap, step = to, half, pixel, d.OUT_H * half
                begin = first * tile_bytes
                left = min(here * tile_bytes, strip.OUT_BYTES - begin)
                tiles, over = left // tile_bytes, left % tile_bytes
                dst, constants = place + begin, d.OUTPUT_W_CONSTANTS
                call(d.JOINER, (src, row, tap, step, dst, row_bytes, tile_bytes, rows, tiles, record, constants))
                if over:  # the part of a tile that the output has
                    src += tiles * step
                    dst += tiles * tile_bytes
                    if d.ADDS:
                        for i in range(rows):
                            copy(rest + i * tile_bytes, dst + i * row_bytes, over)
                    call(d.JOINER, (src, row, tap, step, rest, tile_bytes, tile_bytes, rows, 1, record, constants))
                    for i in range(rows):
                        copy(dst + i * row_bytes, rest + i * tile_bytes, over)


@part
def run_item(d, item, x, u, bias, y, at):  # type: ignore[no-untyped-def]
    """Compute one work item in the workspace at `at`."""
    lanes = d.LANES
    group, rest = item // (d.BLOCKS * d.SHARES), item % (d.BLOCKS * d.SHARES)
    block, share = rest // d.SHARES, rest % d.SHARES
    first = block * d.BLOCK
    count = min(d.BLOCK, d.TILES - first)
    strips = carray(pointer(at + d.STRIPS), (count,), STRIP)
    used = cut(d, first, count, group, at, strips)
    tiles = (count + lanes - 1) // lanes * lanes
    read = (count + d.MT - 1) // d.MT * d.MT if d.MT else tiles
    v, ldv, plane = at + d.INPUT, d.LDV, d.HEIGHT * d.WIDTH
    if d.STRAIGHT and first // plane == (first + read - 1) // plane:
        # A pixel is a tile and a plane a row of V: nothing to gather.
        v = x + ((first // plane * d.GROUPS + group) * d.CHANNELS * plane + first % plane) * d.SIZE
        ldv = plane * d.SIZE
    else:
        gather(d, first, count, x, at, strips, used)
    channels, pitch = d.OUT_CHANNELS, d.LANE_PITCH
    for kblock in range(share * d.KBLOCKS // d.SHARES, (share + 1) * d.KBLOCKS // d.SHARES):
        k0 = kblock * d.KBLOCK
        here = min(d.KBLOCK, channels - k0)
        weights, out = u + group * d.U_GROUP + kblock * d.U_KBLOCK, at + d.OUTPUT
        xi = d.V_XI
        if d.MT:
            panel = d.NK * lanes
            padded = (channels + panel - 1) // panel * panel  # the filters of a group, in the weights and in the biases
            panels, turns = (here + panel - 1) // panel, (count + d.MT - 1) // d.MT
            sizes = (d.XIS, panels, turns, d.DEPTH, d.CHANNEL_BLOCK)
            call(d.PRODUCT, (*sizes, weights, v, xi, ldv, out, d.M_XI, d.M_PANEL, d.M_TILE))
            records = bias + (group * padded + k0) * d.BIAS
            scatter_filters(d, k0, here, out, records, y, at, strips, used)
        else:
            panels, tails = here // d.MR, here % d.MR
            shape = (d.XIS, panels, tails, tiles, d.DEPTH, d.CHANNEL_BLOCK)
            call(d.PRODUCT, (*shape, weights, v, xi, ldv, out, d.M_XI, pitch))
            for k in range(here):
                scatter(d, count, k0 + k, out + k * pitch, bias + (group * channels + k0 + k) * d.BIAS, y, at, strips, used)


def _in_blocks(take: Any, give: Any) -> Any:
    """Return `run_item` for fast algorithms whose channels lie in blocks before, in or after it, the filters in the lanes."""

    @part
    def run_item(d, item, x, u, bias, y, at):  # type: ignore[no-untyped-def]
        block, share = item // d.SHARES, item % d.SHARES
        first = block * d.BLOCK
        count = min(d.BLOCK, d.TILES - first)
        strips = carray(pointer(at + d.STRIPS), (count,), STRIP)
        used = cut(d, first, count, 0, at, strips)
        take(d, first, count, x, at, strips, used)
        panel = d.NK * d.LANES
        for kblock in range(share * d.KBLOCKS // d.SHARES, (share + 1) * d.KBLOCKS // d.SHARES):
            k0 = kblock * d.KBLOCK
            here = min(d.KBLOCK, d.OUT_CHANNELS - k0)
            sizes = (d.XIS, (here + panel - 1) // panel, (count + d.MT - 1) // d.MT, d.DEPTH, d.CHANNEL_BLOCK)
            weights, out = u + kblock * d.U_KBLOCK, at + d.OUTPUT
            call(d.PRODUCT, (*sizes, weights, at + d.INPUT, d.V_XI, d.LDV, out, d.M_XI, d.M_PANEL, d.M_TILE))
            give(d, k0, here, out, bias + k0 * d.BIAS, y, at, strips, used)

    return run_item


def run_items(taken: str = "planes", given: str = "planes") -> Callable[..., None]:
    """Make what computes work items: it takes the next that nobody has taken from `counter`, until all `items` are taken.

    The input is `taken` from planes, turned into pixels or in blocks of channels, the output `given` in planes or in blocks: a function
    for each, as one that does all would take as long to compile as they together, where most need but one.
    """
    takes, gives = (
        {"planes": gather, "turned": gather_turned, "blocks": gather_pixels},
        {"planes": scatter_filters, "blocks": scatter_pixels},
    )
    one = run_item if taken == given == "planes" else _in_blocks(takes[taken], gives[given])

    def run_items(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), FIELDS)[0]
        item = claim(counter)
        while item < items:
            one(d, item, x, u, bias, y, workspace)
            item = claim(counter)

    return run_items

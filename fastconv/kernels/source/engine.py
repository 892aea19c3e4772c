"""The layer engine: transforms, inner product and output, block by block of tiles.

It moves bytes and calls compiled functions by address, so one compilation serves every algorithm and both
formats. A work item is (group, block of tiles, share of the output channels). One item computes each output, with
operations that do not depend on the cut into items, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import carray

from fastconv.kernels.records import LAYER, STRIP
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
    """Copy exactly `size` bytes past the caches, which would drop them before anything reads them."""
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
    """Cut a block of tiles into strips, one per row of tiles, and clear the band.

    A block of many strips reads rows that two strips share only once; then every row of the band is a whole row
    of the image. This writes the zeros of the padding, once for all channels. A strip whose rows all lie inside the
    image is not copied if the next step can read it in place.
    """
    size, rows, wide, out_size = d.pixel * d.size, d.rows, d.tiles_w, d.out_pixel * d.size
    blocks = d.pixel > 1
    direct = d.input_h != 0
    images = d.tiles // (d.tiles_h * wide)
    end = images * d.groups * d.channels * d.height * d.width * d.size
    shared = count >= 2 * wide and d.row_step == 1 and d.step_h < rows and not direct
    lane, q, base, before = 0, 0, 0, -1
    while lane < count:
        tile = first + lane
        n, ty, tx = tile // wide // d.tiles_h, tile // wide % d.tiles_h, tile % wide
        run = min(count - lane, wide - tx)
        skip = rows - d.step_h if shared and n == before else 0
        base += 0 if q == 0 else rows - skip
        top, left = ty * d.step_h - d.pad_top, (0 if shared else tx) * d.step_w - d.pad_left
        width = ((wide if shared else run) - 1) * d.step_w + d.span
        low = max(skip, (max(-top, 0) + d.row_step - 1) // d.row_step)
        high = min(rows, (d.height - 1 - top + d.row_step) // d.row_step)
        column = max(left, 0)
        inside = min(d.width, left + width) - column
        strip = strips[q]
        strip.lane, strip.run = lane, run
        strip.to = at + d.band + (base + low) * d.pitch + (column - left) * size
        strip.rows = high - low if inside > 0 else 0
        strip.bytes = inside * size
        image = n * d.groups * d.channels + group * d.channels
        strip.source = image * d.height * d.width * d.size + ((top + low * d.row_step) * d.width + column) * size
        strip.left, strip.right = (column - left) * size, (left + width - column - inside) * size
        strip.columns = (run - 1) * d.step_w + d.span
        if blocks:
            place = True
        elif direct:
            # The next step reads whole vectors, from before the first column to after the last.
            before_it, over = (column - left) * size, (width + d.lanes) * size
            last = strip.source + ((d.channels - 1) * d.height + (rows - 1) * d.row_step) * d.width * size
            place = strip.source >= before_it and last + over <= end
        else:
            reach = (run + d.lanes - 1) // d.lanes * d.lanes * d.step_w + d.step_w + d.span + d.lanes
            place = not shared and left >= 0 and left + reach <= d.width
        strip.place = place and high - low == rows and inside > 0
        strip.left = (column - left) * size if strip.place else 0
        strip.right = (left + width - column - inside) * size if strip.place else 0
        strip.read = at + d.band + base * d.pitch + (tx * d.step_w * size if shared else 0)
        top, left = ty * d.out_h, tx * d.out_w
        image = n * d.groups * d.out_channels + group * d.out_channels
        strip.out = image * d.out_height * d.out_width * d.size + (top * d.out_width + left) * out_size
        strip.out_rows = min(d.out_h, d.out_height - top)
        strip.out_bytes = min(run * d.out_w, d.out_width - left) * out_size
        if not (blocks and strip.place):
            for i in range(skip, rows):
                zero(at + d.band + (base + i) * d.pitch, width * size)
        lane, q, before = lane + run, q + 1, n
    return q


@part
def gather(d, first, count, x, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform the input of a block of tiles: V (xi, channel, tile)."""
    size, lanes, pitch, columns = d.size, d.lanes, d.pitch, at + d.column
    step, row_step = lanes * size, d.row_step * d.width * size
    for c in range(d.channels):
        # Strips write whole vectors; the next strip or channel overwrites the excess at the end.
        to = at + d.input + c * d.v_channel
        for q in range(used):
            strip = strips[q]
            rows, between, run = x + strip.source + c * d.height * d.width * size, row_step, strip.run
            if strip.place:
                for i in range(d.rows):
                    for k in range(0, strip.bytes, LINE):
                        fetch(rows + i * row_step + k + d.height * d.width * size)
            else:
                dst = strip.to
                for _ in range(strip.rows):
                    copy(dst, rows, strip.bytes)
                    rows += row_step
                    dst += pitch
                rows, between = strip.read, pitch
            if d.input_h:
                inner, rows = (strip.columns + lanes - 1) // lanes, rows - strip.left
                call(d.input_h, (rows, between, 0, step, columns, pitch, 0, step, 1, inner, d.input_h_constants))
                for i in range(d.products_h):
                    for k in range(0, strip.left, 4):
                        clear(4, columns + i * pitch + k)
                    zero(columns + i * pitch + strip.columns * size - strip.right, strip.right)
                rows, between = columns, pitch
            dst, vectors = to + strip.lane * size, (run + lanes - 1) // lanes
            call(d.splitter, (rows, between, dst, d.v_row, d.v_tap, d.products_h, vectors, d.input_w_constants))


@part
def gather_pixels(d, first, count, x, at, strips, used):  # type: ignore[no-untyped-def]
    """Transform the channels-blocked input of a block: V (xi, channels, tile, channel).

    A pixel is one vector, so both transforms run on vectors as they are stored, without a transposition.
    """
    pixel, pitch, columns = d.pixel * d.size, d.take_pitch, at + d.column
    plane, row_step = d.height * d.width * pixel, d.row_step * d.width * pixel
    for block in range(d.channels // d.pixel):
        to = at + d.input + block * d.ldv
        for q in range(used):
            strip = strips[q]
            rows, between = x + strip.source + block * plane, row_step
            if not strip.place:
                dst = strip.to
                for _ in range(strip.rows):
                    copy(dst, rows, strip.bytes)
                    rows += row_step
                    dst += d.pitch
                rows, between = strip.read, d.pitch
            rows -= strip.left
            whole = strip.columns * pixel
            for first in range(0, strip.run, d.take):
                here = min(d.take, strip.run - first)
                begin = first * d.step_w * pixel
                end = begin + ((here - 1) * d.step_w + d.span) * pixel
                low, high = max(begin, strip.left), max(min(end, whole - strip.right), begin)
                inner = max(high - low, 0) // pixel
                call(d.input_h, (rows + low, between, 0, pixel, columns + low - begin, pitch, 0, pixel, 1, inner, d.input_h_constants))
                for i in range(d.products_h):
                    zero(columns + i * pitch, low - begin)
                    zero(columns + i * pitch + high - begin, end - high)
                dst = to + (strip.lane + first) * pixel
                call(
                    d.splitter,
                    (columns, pixel, pitch, d.step_w * pixel, dst, d.v_tap, d.v_row, pixel, d.products_h, here, d.input_w_constants),
                )


@part
def gather_transposed(d, first, count, x, at, strips, used):  # type: ignore[no-untyped-def]
    """Do the same as `gather_pixels` from planes, transposed to one vector per pixel."""
    size, pixel, pitch, columns, transposed = d.size, d.lanes * d.size, d.take_pitch, at + d.column, at + d.transposed
    plane, row, wide = d.height * d.width * size, d.width * size, d.tiles_w
    for block in range(d.channels // d.lanes):
        to = at + d.input + block * d.ldv
        for q in range(used):
            strip = strips[q]
            tile = first + strip.lane
            image = x + (tile // wide // d.tiles_h * d.channels + block * d.lanes) * plane
            top, begin = tile // wide % d.tiles_h * d.step_h - d.pad_top, tile % wide * d.step_w - d.pad_left
            for k in range(0, strip.run, d.take):
                here = min(d.take, strip.run - k)
                left, taken = begin + k * d.step_w, (here - 1) * d.step_w + d.span
                low = max(left, 0)
                high = max(min(left + taken, d.width), low)
                for i in range(d.rows):
                    dst = transposed + i * pitch
                    if 0 <= top + i < d.height and high > low:
                        zero(dst, (low - left) * pixel)
                        call(d.pixels, (image + (top + i) * row + low * size, plane, dst + (low - left) * pixel, high - low))
                        zero(dst + (high - left) * pixel, (left + taken - high) * pixel)
                    else:
                        zero(dst, taken * pixel)
                src = transposed
                if d.input_h:
                    call(d.input_h, (src, pitch, 0, pixel, columns, pitch, 0, pixel, 1, taken, d.input_h_constants))
                    src = columns
                dst = to + (strip.lane + k) * pixel
                call(
                    d.splitter,
                    (src, pixel, pitch, d.step_w * pixel, dst, d.v_tap, d.v_row, pixel, d.products_h, here, d.input_w_constants),
                )


@part
def write(d, strip, filters, src, dst, size):  # type: ignore[no-untyped-def]
    """Write `size` bytes of each row of a strip to the output, for several filters."""
    row_bytes = d.out_width * d.size
    for l in range(filters):  # noqa: E741
        for i in range(strip.out_rows):
            at, to = src + (l * d.out_h + i) * d.line, dst + (l * d.out_height + i) * row_bytes
            if d.past:
                copy_past(to, at, size)
            else:
                copy(to, at, size)


@part
def read(d, strip, filters, dst, src, size):  # type: ignore[no-untyped-def]
    """Copy the output values that `write` would overwrite to its source."""
    row_bytes = d.out_width * d.size
    for l in range(filters):  # noqa: E741
        for i in range(strip.out_rows):
            copy(dst + (l * d.out_h + i) * d.line, src + (l * d.out_height + i) * row_bytes, size)


@part
def scatter(d, count, k, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Apply the output transform to one channel of a block, add the bias, write rows."""
    size, lanes = d.size, d.lanes
    vectors, step, pitch = (count + lanes - 1) // lanes, lanes * size, d.lane_pitch
    src, row, tap = m, d.products_w * d.m_xi, d.m_xi
    if d.output_h:
        to = at + d.half
        call(
            d.output_h,
            (src, row, tap, step, to, d.products_w * pitch, pitch, step, d.products_w, vectors, d.output_h_constants),
        )
        src, row, tap = to, d.products_w * pitch, pitch
    if d.output_w:
        to = at + d.whole
        call(d.output_w, (src, tap, row, step, to, pitch, d.out_w * pitch, step, d.out_h, vectors, d.output_w_constants))
        src, row, tap = to, d.out_w * pitch, pitch
    lines, plane = at + d.lines, d.out_height * d.out_width * size
    if d.adds:
        for q in range(used):
            strip = strips[q]
            read(d, strip, 1, lines + strip.lane * d.out_w * size, y + strip.out + k * plane, strip.out_bytes)
    call(d.joiner, (src, row, tap, lines, d.line, d.out_h, vectors, bias))
    for q in range(used):
        strip = strips[q]
        write(d, strip, 1, lines + strip.lane * d.out_w * size, y + strip.out + k * plane, strip.out_bytes)


@part
def scatter_filters(d, k0, filters, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Apply the output transform to a block of channels, add the bias, write rows.

    Whole vectors of columns are written directly to the output. Partial ones, and writes past the caches, go through
    rows in the workspace.
    """
    size, lanes, columns, rows = d.size, d.lanes, d.out_w, d.out_h
    vector, tile_bytes, row_bytes = lanes * size, columns * size, d.out_width * size
    plane, wide, lines, line = d.out_height * row_bytes, d.turn * tile_bytes, at + d.lines, d.line
    half, panel = d.products_w * vector, d.nk * lanes
    for q in range(used):
        strip = strips[q]
        for base in range(0, strip.run, d.piece):
            stop = min(base + d.piece, strip.run)
            for k in range(0, filters, lanes):
                there = min(lanes, d.out_channels - k0 - k)
                straight = not d.past and strip.out_rows == rows and there == lanes
                record, place = bias + k * d.bias, y + strip.out + (k0 + k) * plane
                for first in range(base, stop, d.chunk):
                    here = min(d.chunk, stop - first)
                    tile, row, tap = d.m_tile, d.products_w * d.m_xi, d.m_xi
                    src = m + k // panel * d.m_panel + k % panel * size + (strip.lane + first) * tile
                    if d.output_h:
                        to, taps = at + d.half, d.products_w
                        call(d.output_h, (src, row, tile, tap, to, half, rows * half, vector, here, taps, d.output_h_constants))
                        src, tile, row, tap = to, rows * half, half, vector
                    begin = first * tile_bytes
                    left = min(here * tile_bytes, strip.out_bytes - begin)
                    turns, constants = left // wide if straight else 0, d.output_w_constants
                    if turns:
                        call(d.joiner, (src, row, tap, tile, place + begin, row_bytes, plane, rows, turns, record, constants))
                        begin += turns * wide
                        left -= turns * wide
                        src += turns * d.turn * tile
                    if left > 0:
                        turns, to = (left + wide - 1) // wide, lines + begin - base * tile_bytes
                        if d.adds:
                            read(d, strip, there, to, place + begin, left)
                        call(d.joiner, (src, row, tap, tile, to, line, rows * line, rows, turns, record, constants))
                        if not d.past:
                            write(d, strip, there, to, place + begin, left)
                if d.past:
                    begin = base * tile_bytes
                    write(d, strip, there, lines, place + begin, min(stop * tile_bytes, strip.out_bytes) - begin)


@part
def scatter_pixels(d, k0, filters, m, bias, y, at, strips, used):  # type: ignore[no-untyped-def]
    """Apply the output transform to a block of channels, write one vector per pixel."""
    pixel = d.out_pixel * d.size
    tile_bytes, row_bytes, rest = d.out_w * pixel, d.out_width * pixel, at + d.lines
    plane, half, panel = d.out_height * row_bytes, d.products_w * pixel, d.nk * d.lanes
    for q in range(used):
        strip = strips[q]
        rows = strip.out_rows
        for first in range(0, strip.run, d.chunk):
            here = min(d.chunk, strip.run - first)
            for k in range(0, min(filters, d.out_channels - k0), d.lanes):
                record, place = bias + k * d.bias, y + strip.out + (k0 + k) // d.lanes * plane
                src, row, tap, step = m + k // panel * d.m_panel + k % panel * d.size, d.products_w * d.m_xi, d.m_xi, d.m_tile
                src += (strip.lane + first) * step
                if d.output_h:
                    to, sizes = at + d.half, (here, d.products_w, d.output_h_constants)
                    call(d.output_h, (src, row, step, tap, to, half, d.out_h * half, pixel, *sizes))
                    src, row, tap, step = to, half, pixel, d.out_h * half
                begin = first * tile_bytes
                left = min(here * tile_bytes, strip.out_bytes - begin)
                tiles, over = left // tile_bytes, left % tile_bytes
                dst, constants = place + begin, d.output_w_constants
                call(d.joiner, (src, row, tap, step, dst, row_bytes, tile_bytes, rows, tiles, record, constants))
                if over:  # the part of a tile inside the output
                    src += tiles * step
                    dst += tiles * tile_bytes
                    if d.adds:
                        for i in range(rows):
                            copy(rest + i * tile_bytes, dst + i * row_bytes, over)
                    call(d.joiner, (src, row, tap, step, rest, tile_bytes, tile_bytes, rows, 1, record, constants))
                    for i in range(rows):
                        copy(dst + i * row_bytes, rest + i * tile_bytes, over)


@part
def run_item(d, item, x, u, bias, y, at):  # type: ignore[no-untyped-def]
    """Compute one work item in the workspace at `at`."""
    lanes = d.lanes
    group, rest = item // (d.blocks * d.shares), item % (d.blocks * d.shares)
    block, share = rest // d.shares, rest % d.shares
    first = block * d.block
    count = min(d.block, d.tiles - first)
    strips = carray(pointer(at + d.strips), (count,), STRIP)
    used = cut(d, first, count, group, at, strips)
    tiles = (count + lanes - 1) // lanes * lanes
    read = (count + d.mt - 1) // d.mt * d.mt if d.mt else tiles
    v, ldv, plane = at + d.input, d.ldv, d.height * d.width
    if d.straight and first // plane == (first + read - 1) // plane:
        # A pixel is a tile and a plane is a row of V: there is nothing to gather.
        v = x + ((first // plane * d.groups + group) * d.channels * plane + first % plane) * d.size
        ldv = plane * d.size
    else:
        gather(d, first, count, x, at, strips, used)
    channels, pitch = d.out_channels, d.lane_pitch
    for kblock in range(share * d.kblocks // d.shares, (share + 1) * d.kblocks // d.shares):
        k0 = kblock * d.kblock
        here = min(d.kblock, channels - k0)
        weights, out = u + group * d.u_group + kblock * d.u_kblock, at + d.output
        xi = d.v_xi
        if d.mt:
            panel = d.nk * lanes
            padded = (channels + panel - 1) // panel * panel  # filters per group, in the weights and in the biases
            panels, turns = (here + panel - 1) // panel, (count + d.mt - 1) // d.mt
            sizes = (d.xis, panels, turns, d.depth, d.channel_block)
            call(d.product, (*sizes, weights, v, xi, ldv, out, d.m_xi, d.m_panel, d.m_tile))
            records = bias + (group * padded + k0) * d.bias
            scatter_filters(d, k0, here, out, records, y, at, strips, used)
        else:
            panels, tails = here // d.mr, here % d.mr
            shape = (d.xis, panels, tails, tiles, d.depth, d.channel_block)
            call(d.product, (*shape, weights, v, xi, ldv, out, d.m_xi, pitch))
            for k in range(here):
                scatter(d, count, k0 + k, out + k * pitch, bias + (group * channels + k0 + k) * d.bias, y, at, strips, used)


def _in_blocks(take: Any, give: Any) -> Any:
    """Return `run_item` for fast algorithms with channels-blocked input, V or output."""

    @part
    def run_item(d, item, x, u, bias, y, at):  # type: ignore[no-untyped-def]
        block, share = item // d.shares, item % d.shares
        first = block * d.block
        count = min(d.block, d.tiles - first)
        strips = carray(pointer(at + d.strips), (count,), STRIP)
        used = cut(d, first, count, 0, at, strips)
        take(d, first, count, x, at, strips, used)
        panel = d.nk * d.lanes
        for kblock in range(share * d.kblocks // d.shares, (share + 1) * d.kblocks // d.shares):
            k0 = kblock * d.kblock
            here = min(d.kblock, d.out_channels - k0)
            sizes = (d.xis, (here + panel - 1) // panel, (count + d.mt - 1) // d.mt, d.depth, d.channel_block)
            weights, out = u + kblock * d.u_kblock, at + d.output
            call(d.product, (*sizes, weights, at + d.input, d.v_xi, d.ldv, out, d.m_xi, d.m_panel, d.m_tile))
            give(d, k0, here, out, bias + k0 * d.bias, y, at, strips, used)

    return run_item


def run_items(taken: str = "planes", given: str = "planes") -> Callable[..., None]:
    """Return a kernel that claims and computes work items until all are claimed.

    `taken` is the input: planes, planes transposed to pixels, or channels-blocked. `given` is the output: planes or
    channels-blocked. Each pair is a separate function, as most programs need only one and all together take long to compile.
    """
    takes, gives = (
        {"planes": gather, "transposed": gather_transposed, "blocks": gather_pixels},
        {"planes": scatter_filters, "blocks": scatter_pixels},
    )
    one = run_item if taken == given == "planes" else _in_blocks(takes[taken], gives[given])

    def run_items(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), LAYER)[0]
        item = claim(counter)
        while item < items:
            one(d, item, x, u, bias, y, workspace)
            item = claim(counter)

    return run_items

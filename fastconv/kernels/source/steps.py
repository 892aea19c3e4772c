"""The steps of a layer that the engine calls: transforms, rows to lanes, products, lanes to rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.kernels.records import tiles_turned
from fastconv.kernels.source.programs import filter_turner, lane_joiner, lane_splitter, program_runner, tile_finisher, turn_square
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import Panel, inlined, move, panel_multiplier

AHEAD = 2048
"""Bytes from a factor of the inner product to the one that is fetched meanwhile, weights as vectors: one panel of two vectors."""

AHEAD_SCALARS = 1024
"""The same for weights as scalars: two panels of four filters."""


def transform(kind: str, text: str) -> Callable[..., None]:
    """Make a program that runs over two nested loops of vectors; strides and steps are in bytes."""
    run = program_runner(kind, text)

    def transform(  # type: ignore[no-untyped-def]
        src, src_stride, src_outer, src_inner, dst, dst_stride, dst_outer, dst_inner, outer, inner, constants
    ):
        for i in range(outer):
            for k in range(inner):
                at, to = src + i * src_outer + k * src_inner, dst + i * dst_outer + k * dst_inner
                run((at, src_stride), (to, dst_stride), constants)

    return transform


def split(kind: str, step: int, offsets: tuple[int, ...], text: str) -> Callable[..., None]:
    """Make the step that turns rows of an image into lanes, one lane a tile, and runs a program on them."""
    lanes, size, take_apart = lanes_of(kind), SIZE[kind], lane_splitter(kind, step, offsets, text)
    advance = lanes * step * size

    def split(src, src_row, dst, dst_row, dst_stride, rows, vectors, constants):  # type: ignore[no-untyped-def]
        for i in range(rows):
            for k in range(vectors):
                at, to = src + i * src_row + k * advance, dst + i * dst_row + k * lanes * size
                take_apart(at, (to, dst_stride), constants)

    return split


def join(kind: str, step: int, shaped: int, adds: int = 0) -> Callable[..., None]:
    """Make the step that turns lanes into rows of an image, adds the bias and what `adds` says, and, where `shaped`, activates."""
    lanes, size, put_together = lanes_of(kind), SIZE[kind], lane_joiner(kind, step, shaped, adds)
    advance = lanes * step * size

    def join(src, src_row, src_stride, dst, dst_row, rows, vectors, bias):  # type: ignore[no-untyped-def]
        for i in range(rows):
            for k in range(vectors):
                at, to = src + i * src_row + k * lanes * size, dst + i * dst_row + k * advance
                put_together((at, src_stride), to, bias)

    return join


def pixels(kind: str) -> Callable[..., None]:
    """Make the step that turns rows of as many channels as a vector has lanes into pixels that are vectors."""
    lanes, size = lanes_of(kind), SIZE[kind]
    square = lanes * lanes * size

    def pixels(src, src_channel, dst, count):  # type: ignore[no-untyped-def]
        for k in range(count // lanes):
            turn_square(kind, lanes, src + k * lanes * size, src_channel, dst + k * square)
        if count % lanes:
            if count >= lanes:  # the last square overlaps the one before
                turn_square(kind, lanes, src + (count - lanes) * size, src_channel, dst + (count - lanes) * lanes * size)
            else:
                for k in range(count):
                    for l in range(lanes):  # noqa: E741
                        for b in range(0, size, 4):
                            move(4, dst + (k * lanes + l) * size + b, src + l * src_channel + k * size + b)

    return pixels


def _panel(kind: str, rows: int, nv: int, ahead: int) -> Any:
    """Make the product of one panel: as many vectors of tiles at once as fit, then fewer. It becomes a part of what calls it."""
    lanes, size, fused, less = lanes_of(kind), SIZE[kind], machine().fma, max(nv - 1, 1)
    whole, narrow, single = (panel_multiplier(Panel(kind, rows, columns, fused, ahead)) for columns in (nv, less, 1))

    def panel(count, a, v, out, add, tiles):  # type: ignore[no-untyped-def]
        t, (b, ldv), (to, ldm) = 0, v, out
        while t + nv * lanes <= tiles:
            whole(count, (a, rows * size), (b + t * size, ldv), (to + t * size, ldm), add)
            t += nv * lanes
        if t + less * lanes <= tiles:
            narrow(count, (a, rows * size), (b + t * size, ldv), (to + t * size, ldm), add)
            t += less * lanes
        if t < tiles:
            single(count, (a, rows * size), (b + t * size, ldv), (to + t * size, ldm), add)

    return inlined(panel)


def product(kind: str, mr: int, nv: int, tail: int, ahead: int = AHEAD_SCALARS) -> Callable[..., None]:
    """Make the batched product of a block: for each xi, ``M = U V``, channels summed in blocks.

    A panel holds `mr` output channels, the last one `tail`; `nv` vectors of tiles go at once.
    """
    size, last = SIZE[kind], tail or mr
    panel, last_panel = _panel(kind, mr, nv, ahead), _panel(kind, last, nv, ahead)

    def product(xis, panels, tails, tiles, depth, block, u, v, v_xi, ldv, m, m_xi, ldm):  # type: ignore[no-untyped-def]
        a = u
        for xi in range(xis):
            for c in range(0, depth, block):
                count = min(block, depth - c)
                b = v + xi * v_xi + c * ldv
                to = m + xi * m_xi
                for _ in range(panels):
                    panel(count, a, (b, ldv), (to, ldm), c, tiles)
                    a += count * mr * size
                    to += mr * ldm
                if tails:
                    last_panel(count, a, (b, ldv), (to, ldm), c, tiles)
                    a += count * last * size

    return product


def product_filters(kind: str, mt: int, nk: int, together: int = 1, ahead: int = AHEAD) -> Callable[..., None]:
    """Make the batched product of a block with filters in the lanes: ``M = V' U``, `mt` tiles and `nk` vectors at once.

    Small images leave few lanes idle this way; the tiles are padded to a multiple of `mt`, the filters to one of
    `nk` vectors. In V as many channels of a tile as go `together` follow each other, then those of the next tile. Each output is
    the same chain of multiply-adds as in `product`.
    """
    lanes, size = lanes_of(kind), SIZE[kind]
    multiply = panel_multiplier(Panel(kind, mt, nk, machine().fma, 0, ahead, together))
    row, wide = mt * together * size, nk * lanes * together * size

    def product_filters(xis, panels, turns, depth, block, u, v, v_xi, ldv, m, m_xi, m_panel, ldm):  # type: ignore[no-untyped-def]
        a = u
        for xi in range(xis):
            for c in range(0, depth, block):
                count, to = min(block, depth - c) // together, m + xi * m_xi
                for _ in range(panels):
                    b, at = v + xi * v_xi + c // together * ldv, to
                    for _ in range(turns):
                        multiply(count, (b, ldv), (a, wide), (at, ldm), c)
                        b += row
                        at += mt * ldm
                    a += count * wide
                    to += m_panel

    return product_filters


def join_filters(kind: str, m: int, text: str, shaped: int, adds: int = 0) -> Callable[..., None]:
    """Make the step that runs a program on filters in lanes, turns them into rows of an image, adds the bias and activates."""
    turn, tiles = filter_turner(kind, text, shaped, adds), tiles_turned(m, lanes_of(kind))
    wide = tiles * m * SIZE[kind]

    def join_filters(  # type: ignore[no-untyped-def]
        src, src_row, src_tap, src_tile, dst, dst_row, dst_filter, rows, turns, bias, constants
    ):
        for i in range(rows):
            for k in range(turns):
                at, to = src + i * src_row + k * tiles * src_tile, dst + i * dst_row + k * wide
                turn((at, src_tap, src_tile), (to, dst_filter), bias, constants)

    return join_filters


def finish_pixels(kind: str, text: str, shaped: int, adds: int = 0) -> Callable[..., None]:
    """Make the step that runs a program on filters in lanes, adds the bias and activates: each output is a vector of a pixel."""
    finish = tile_finisher(kind, text, shaped, adds)

    def finish_pixels(  # type: ignore[no-untyped-def]
        src, src_row, src_tap, src_tile, dst, dst_row, dst_tile, rows, tiles, bias, constants
    ):
        for i in range(rows):
            for k in range(tiles):
                at, to = src + i * src_row + k * src_tile, dst + i * dst_row + k * dst_tile
                finish((at, src_tap), to, bias, constants)

    return finish_pixels

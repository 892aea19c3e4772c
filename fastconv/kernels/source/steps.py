"""Build the steps that the engine calls: transforms, lanes, products, rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.kernels.records import tiles_transposed
from fastconv.kernels.source.programs import filter_turner, lane_joiner, lane_splitter, program_runner, tile_finisher, turn_square
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import Panel, inlined, move, panel_multiplier

AHEAD = 2048
"""Prefetch distance of the inner product in bytes, with weights as vectors: one panel of two vectors."""

AHEAD_SCALARS = 1024
"""The same for weights as scalars: two panels of four filters."""


def transform(kind: str, text: str) -> Callable[..., None]:
    """Return a step that runs a program over two nested loops of vectors, in bytes."""
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
    """Return the step that converts rows to lanes, one per tile, and runs a program."""
    lanes, size, take_apart = lanes_of(kind), SIZE[kind], lane_splitter(kind, step, offsets, text)
    advance = lanes * step * size

    def split(src, src_row, dst, dst_row, dst_stride, rows, vectors, constants):  # type: ignore[no-untyped-def]
        for i in range(rows):
            for k in range(vectors):
                at, to = src + i * src_row + k * advance, dst + i * dst_row + k * lanes * size
                take_apart(at, (to, dst_stride), constants)

    return split


def join(kind: str, step: int, shaped: int, adds: int = 0) -> Callable[..., None]:
    """Return the step that converts lanes to rows, adds bias (and output), activates."""
    lanes, size, put_together = lanes_of(kind), SIZE[kind], lane_joiner(kind, step, shaped, adds)
    advance = lanes * step * size

    def join(src, src_row, src_stride, dst, dst_row, rows, vectors, bias):  # type: ignore[no-untyped-def]
        for i in range(rows):
            for k in range(vectors):
                at, to = src + i * src_row + k * lanes * size, dst + i * dst_row + k * advance
                put_together((at, src_stride), to, bias)

    return join


def pixels(kind: str) -> Callable[..., None]:
    """Return the step that transposes rows of a vector of channels to one vector per pixel."""
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
    """Return the product of one panel for its caller, `nv` vectors of tiles at a time."""
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
    """Return the batched product ``M = U V`` of a block, channels summed in blocks.

    A panel holds `mr` output channels, the last one `tail`, by `nv` vectors of tiles.
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
    """Return the batched product ``M = V' U`` with filters in the lanes.

    A panel is `mt` tiles by `nk` vectors. This leaves few lanes idle on small images. The tiles are padded to a multiple
    of `mt`, the filters to a multiple of `nk` vectors. In V, `together` channels of a tile are contiguous, followed by
    those of the next tile. Each output is the same chain of multiply-adds as in `product`.
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
    """Return the step that transforms filters in lanes to rows, adds bias, activates."""
    turn, tiles = filter_turner(kind, text, shaped, adds), tiles_transposed(m, lanes_of(kind))
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
    """Return the step that transforms filters in lanes to one vector per pixel."""
    finish = tile_finisher(kind, text, shaped, adds)

    def finish_pixels(  # type: ignore[no-untyped-def]
        src, src_row, src_tap, src_tile, dst, dst_row, dst_tile, rows, tiles, bias, constants
    ):
        for i in range(rows):
            for k in range(tiles):
                at, to = src + i * src_row + k * src_tile, dst + i * dst_row + k * dst_tile
                finish((at, src_tap), to, bias, constants)

    return finish_pixels

"""Build the kernel of 1x1 layers, see `fastconv.kernels.runners.pointwise`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray

from fastconv.kernels.records import POINTWISE
from fastconv.kernels.source.engine import copy
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import Panel, claim, integers, move, panel_finisher, part, pointer

V = machine().vector_bytes
AHEAD = 2048
"""Prefetch distance of the weights, in bytes."""


def pixels(kind: str, mr: int, nv: int, shaped: int) -> Callable[..., None]:
    """Return a kernel that computes a 1x1 layer; a panel is `mr` filters by `nv` vectors of pixels."""
    size, wide, fields = SIZE[kind], nv * lanes_of(kind), 4 if shaped else 1
    line = wide * size
    pack, filters_of = _packer(size, wide), _filters(kind, mr, nv, shaped)

    def pixels(description, counter, items, x, u, table, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), POINTWISE)[0]
        row, places = d.outputs * size, workspace + d.places
        spare = places + d.group * wide * 8
        item = claim(counter)
        while item < items:
            share, rest = item % d.shares, item // d.shares
            block, image = rest % d.blocks, rest // d.blocks
            begin, end = block * d.group, min(d.panels, (block + 1) * d.group)
            low, high = share * d.part, min(d.held, (share + 1) * d.part)
            source, target = x + image * d.channels * d.plane * size, y + image * d.filters * row
            of_group = image % d.groups
            record = table + of_group * d.held * mr * fields * size
            for first in range(0, d.channels, d.chunk):
                depth = min(d.chunk, d.channels - first)
                weights = u + (of_group * d.channels + first) * d.held * mr * size + low * depth * mr * size
                many = min(d.outputs, end * wide) - begin * wide
                pack(d, source + first * d.plane * size, workspace, begin * wide, many, depth, places)
                for p in range(begin, end):
                    at = p * wide
                    v = workspace + (p - begin) * depth * line
                    total = workspace + d.sums + (p - begin) * d.part * mr * line
                    out = (target + at * size, spare, min(wide, d.outputs - at))
                    filters_of(d, (first, depth), (low, high), v, (weights, record), total, out)
            item = claim(counter)

    return pixels


def _packer(size: int, wide: int) -> Any:
    """Return ``pack(d, src, dst, at, many, depth, places)``: copy `many` pixels from `at` on, channel by channel, in panels."""
    line = wide * size

    @part
    def straight(d, src, dst, many, depth):  # type: ignore[no-untyped-def]
        full, spill, sheet = many // wide, many % wide * size, depth * line
        for _ in range(depth):
            for p in range(full):
                for k in range(0, line, V):
                    move(V, dst + p * sheet + k, src + p * line + k)
            copy(dst + full * sheet, src + full * line, spill)
            src += d.plane * size
            dst += line

    @part
    def pack(d, src, dst, at, many, depth, places):  # type: ignore[no-untyped-def]
        if d.straight:
            straight(d, src + at * size, dst, many, depth)
            return
        offsets, sheet = carray(integers(places), (many,), np.int64), depth * line
        for k in range(many):
            offsets[k] = ((at + k) // d.width * d.row_step + (at + k) % d.width * d.column_step) * size
        for _ in range(depth):
            for k in range(many):
                for b in range(0, size, 4):
                    move(4, dst + k // wide * sheet + k % wide * size + b, src + offsets[k] + b)
            src += d.plane * size
            dst += line

    return pack


def _filters(kind: str, mr: int, nv: int, shaped: int) -> Any:
    """Return ``filters_of(d, (first, depth), (low, high), v, (weights, record), total, (target, spare, here))``.

    It adds `depth` channels from `first` on to the sums, at `total`, of the panels `low` to `high` of filters and one panel of
    pixels at `v`. After the last channel it writes `here` pixels at `target`; what fills no panel passes through `spare`.
    """
    lanes, size, fields, multiply = lanes_of(kind), SIZE[kind], 4 if shaped else 1, _multiplier(kind, mr, nv, shaped)
    line = nv * lanes * size

    @part
    def filters_of(d, channels, panels, v, tables, total, out):  # type: ignore[no-untyped-def]
        (first, depth), (k, high), (a, record), (target, spare, here) = channels, panels, tables, out
        row, vectors, ends = d.outputs * size, (here + lanes - 1) // lanes, first + depth == d.channels
        while k < high:
            count = nv if vectors == 1 and high - k >= nv else 1
            made = min(count * mr, d.filters - k * mr)
            whole = here == vectors * lanes and made == count * mr
            final = target + k * mr * row
            to, ldo = (final, row) if whole else (spare, line)
            if d.adds and not whole and ends:
                for i in range(made):
                    copy(spare + i * line, final + i * row, here * size)
            other, r, far = to if d.adds else 0, record + k * mr * fields * size, depth * mr * size
            for c in range(0, depth, d.chain):
                terms = min(d.chain, depth - c)
                last = 1 if first + c + terms == d.channels else 0
                u, which = (a + c * mr * size, far), (first + c, last)
                multiply((terms, vectors, count), u, (v + c * line, line), (total, line), which, r, (other, to, ldo))
            if not whole and ends:
                for i in range(made):
                    copy(final + i * row, spare + i * line, here * size)
            total += count * mr * line
            a += count * depth * mr * size
            k += count

    return filters_of


def _multiplier(kind: str, mr: int, nv: int, shaped: int) -> Any:
    """Return ``multiply((terms, vectors, count), u, v, sums, which, table, out)``: the panel for some vectors and filters."""
    sizes = ((mr, nv), (mr, max(nv - 1, 1)), (nv * mr, 1), (mr, 1))
    panels = (Panel(kind, rows, columns, machine().fma, AHEAD) for rows, columns in sizes)
    whole_panel, narrow_panel, tall_panel, single_panel = (panel_finisher(panel, mr, shaped) for panel in panels)

    @part
    def multiply(shape, u, v, sums, which, table, out):  # type: ignore[no-untyped-def]
        terms, vectors, count = shape
        if vectors == nv:
            whole_panel(terms, u, v, sums, which, table, out)
        elif vectors > 1:
            narrow_panel(terms, u, v, sums, which, table, out)
        elif count == nv:
            tall_panel(terms, u, v, sums, which, table, out)
        else:
            single_panel(terms, u, v, sums, which, table, out)

    return multiply

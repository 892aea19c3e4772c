"""Build the kernel of 1x1 layers, see `fastconv.kernels.runners.pointwise`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import carray

from fastconv.kernels.records import POINTWISE
from fastconv.kernels.source.engine import copy
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import Panel, claim, integers, move, panel_finisher, pointer

V = machine().vector_bytes
AHEAD = 2048
"""Prefetch distance of the weights, in bytes."""


def pixels(kind: str, mr: int, nv: int, shaped: int) -> Callable[..., None]:
    """Return a kernel that computes a 1x1 layer; a panel is `mr` filters by `nv` vectors of pixels."""
    lanes, size, fused = lanes_of(kind), SIZE[kind], machine().fma
    sizes = ((mr, nv), (mr, max(nv - 1, 1)), (nv * mr, 1), (mr, 1))
    panels = (Panel(kind, rows, columns, fused, AHEAD) for rows, columns in sizes)
    whole_panel, narrow_panel, tall_panel, single_panel = (panel_finisher(panel, mr, shaped) for panel in panels)
    wide = nv * lanes
    line, fields = wide * size, 4 if shaped else 1

    def pixels(description, counter, items, x, u, table, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), POINTWISE)[0]
        channels, filters, groups, plane, outputs = d.channels, d.filters, d.groups, d.plane, d.outputs
        width, row_step, column_step, straight = d.width, d.row_step, d.column_step, d.straight
        panels, group, blocks, shares, part, chunk, chain = d.panels, d.group, d.blocks, d.shares, d.part, d.chunk, d.chain
        held, adds = d.held, d.adds
        packed, sums, row = workspace, workspace + d.sums, outputs * size
        places = carray(integers(workspace + d.places), (group * wide,), np.int64)
        spare = workspace + d.places + group * wide * 8
        item = claim(counter)
        while item < items:
            share, rest = item % shares, item // shares
            block, image = rest % blocks, rest // blocks
            begin, end = block * group, min(panels, (block + 1) * group)
            low, high = share * part, min(held, (share + 1) * part)
            source, target = x + image * channels * plane * size, y + image * filters * row
            of_group = image % groups
            record = table + of_group * held * mr * fields * size
            for first in range(0, channels, chunk):
                depth = min(chunk, channels - first)
                weights = u + (of_group * channels + first) * held * mr * size + low * depth * mr * size
                at, many = begin * wide, min(outputs, end * wide) - begin * wide
                src, dst, sheet = source + first * plane * size, packed, depth * line
                if straight:
                    src += at * size
                    full, spill = many // wide, many % wide * size
                    for _ in range(depth):
                        for p in range(full):
                            for k in range(0, line, V):
                                move(V, dst + p * sheet + k, src + p * line + k)
                        copy(dst + full * sheet, src + full * line, spill)
                        src += plane * size
                        dst += line
                else:
                    for k in range(many):
                        places[k] = ((at + k) // width * row_step + (at + k) % width * column_step) * size
                    for _ in range(depth):
                        for k in range(many):
                            for b in range(0, size, 4):
                                move(4, dst + k // wide * sheet + k % wide * size + b, src + places[k] + b)
                        src += plane * size
                        dst += line
                for p in range(begin, end):
                    at, here = p * wide, min(wide, outputs - p * wide)
                    vectors = (here + lanes - 1) // lanes
                    total, a, k = sums + (p - begin) * part * mr * line, weights, low
                    while k < high:
                        count = nv if vectors == 1 and high - k >= nv else 1
                        made = min(count * mr, filters - k * mr)
                        whole = here == vectors * lanes and made == count * mr
                        final = target + k * mr * row + at * size
                        out, ldo = (final, row) if whole else (spare, line)
                        if adds and not whole and first + depth == channels:
                            for i in range(made):
                                copy(spare + i * line, final + i * row, here * size)
                        other = out if adds else 0
                        for c in range(0, depth, chain):
                            terms = min(chain, depth - c)
                            last = 1 if first + c + terms == channels else 0
                            b, factors, add = packed + (p - begin) * sheet + c * line, a + c * mr * size, first + c
                            r, far = record + k * mr * fields * size, depth * mr * size
                            v, to, which = (b, line), (total, line), (add, last)
                            if vectors == nv:
                                whole_panel(terms, (factors, far), v, to, which, r, (other, out, ldo))
                            elif vectors > 1:
                                narrow_panel(terms, (factors, far), v, to, which, r, (other, out, ldo))
                            elif count == nv:
                                tall_panel(terms, (factors, far), v, to, which, r, (other, out, ldo))
                            else:
                                single_panel(terms, (factors, far), v, to, which, r, (other, out, ldo))
                        if not whole and first + depth == channels:
                            for i in range(made):
                                copy(final + i * row, spare + i * line, here * size)
                        total += count * mr * line
                        a += count * depth * mr * size
                        k += count
            item = claim(counter)

    return pixels

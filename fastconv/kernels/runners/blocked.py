"""Describe a layer to the engine: block sizes, workspace layout, compiled parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.kernels.choose.cut import OUTPUT_BYTES, cut, parts, tile_panel, work_of
from fastconv.kernels.choose.method import Method
from fastconv.kernels.layer import Layer, check_bytes
from fastconv.kernels.records import LAYER, STRIP, tiles_transposed
from fastconv.kernels.runners.pack import packed, transformed_weights
from fastconv.native import KIND, SIZE, Compiled, compiled, described, lanes_of, machine, round_up
from fastconv.program import Shape, programs_of, shape_of

Array = npt.NDArray[Any]


STRAIGHT_BYTES = 1024
"""Largest plane, in bytes, that a 1x1 layer reads in place: such channels are close together in memory."""

LONGEST_CHUNK = 64
"""Most tiles transformed back at once, for eight filters: it writes long pieces of rows, which suits the prefetcher."""

TAKE_BYTES = 1 << 14
"""Most bytes of a channel block's rows between the transforms along the height and the width."""

HALF_BYTES = 1 << 16
"""The same for the output transform: these rows stay in the cache."""

PAST_BYTES = 16 << 20
"""Smallest output, in bytes, written past the caches: it would leave them before anything reads it."""


@dataclass(frozen=True)
class Blocked:
    """A layer ready for the engine.

    Attributes
    ----------
    description : array
        The engine's fields.
    weights : array
        U, packed.
    tables : tuple of arrays
        The programs' constants; kept alive here, the description holds their addresses.
    items : int
        Work items; all are independent.
    held : int
        Filters per group in the weights, padded to whole panels, with filters in the lanes; otherwise zero.
    joiner : tuple
        The step that writes the output, by name and parameters.
    """

    description: Array
    weights: Array
    tables: tuple[Array, ...]
    items: int
    held: int
    joiner: tuple[Any, ...]

    @cached_property
    def adding(self) -> Array:
        """The engine's fields for adding the result to the output."""
        description = self.description.copy()
        description["adds"], description["joiner"] = 1, compiled(*self.joiner, 1).address
        return description

    @property
    def engine(self) -> Compiled:
        """The compiled function that computes the items."""
        d = self.description
        taken = "transposed" if d["pixels"] else "blocks" if d["pixel"] > 1 else "planes"
        given = "blocks" if d["out_pixel"] > 1 else "planes"
        return compiled("kernels.engine.run_items", *((taken, given) if (taken, given) != ("planes", "planes") else ()))

    @property
    def workspace(self) -> int:
        """Bytes of one thread's workspace."""
        return int(self.description["workspace"])


def blocked(layer: Layer, method: Method, weight: Array, order: str, threads: int, shaped: bool = False) -> Blocked:
    """Return a layer's description for a fast algorithm or im2col; `shaped`: with activation."""
    form = _Form(layer, method, threads)
    fields = _sizes(form, shaped)
    fields |= _memory(form, bool(fields["past"]))
    check_bytes("a workspace", fields["workspace"] * threads)
    check_bytes("packed weights", layer.groups * fields["u_group"])
    programs, tables = _programs(form, order)
    joiner = _joiner(form, programs["output_w"], shaped)
    description = described(LAYER, **fields, **_steps(form, programs, tables), joiner=compiled(*joiner).address)
    if method.axes is None:
        u = weight.reshape(layer.groups, 1, form.made, -1)
    else:
        u = transformed_weights(method.axes, weight, order)[None]
    if form.mt:
        u = np.pad(u, ((0, 0), (0, 0), (0, form.held - form.made), (0, 0)))
    items = layer.groups * form.blocks * form.shares
    u = packed(u, form.kblock, form.panel, form.work.chain)
    return Blocked(description, u, tuple(tables.values()), items, form.held if form.mt else 0, joiner)


class _Form:
    """Sizes that determine a layer's fields: its tiles, the cut of tiles and filters, and the lanes.

    Attributes
    ----------
    kind, size, lanes : str, int, int
        Format of the layer's numbers, bytes of one, and numbers per vector.
    taken, made : int
        Channels and filters per group.
    m, step, products, tiles : pairs of int
        Outputs of a tile, inputs from one tile to the next, products, and number of tiles, along height and width.
    rows, offsets : int, tuple of int
        Input rows of a tile, and offsets of its columns.
    has_h, has_w : bool
        Whether there is a transform along that axis.
    block, blocks, shares : int
        Tiles per item, number of such blocks, and number of items that share the filters.
    mt, nk, panel : int
        Tiles and vectors of filters of the inner product (`mt` is 0 with tiles in the lanes), and filters per panel.
    kblock, kblocks, held : int
        Filters transformed back at once, number of such blocks, and filters in memory.
    transposed, pixels : bool
        Whether rows are transposed to one vector per pixel; whether V is channels-blocked.
    """

    def __init__(self, layer: Layer, method: Method, threads: int) -> None:
        self.layer, self.method = layer, method
        self.kind = KIND[layer.dtype.itemsize]
        self.size, self.lanes = SIZE[self.kind], lanes_of(self.kind)
        self.taken, self.made = layer.channels // layer.groups, layer.filters // layer.groups
        if method.axes is None:
            self.m, self.step, self.products = (1, 1), layer.stride, layer.kernel
            self.rows, self.offsets = layer.kernel[0], tuple(k * layer.dilation[1] for k in range(layer.kernel[1]))
        else:
            alg_h, alg_w = method.axes
            self.m, self.products = (alg_h.m, alg_w.m), (alg_h.products, alg_w.products)
            self.step = (alg_h.m * alg_h.stride, alg_w.m * alg_w.stride)
            self.rows, self.offsets = alg_h.n, tuple(range(alg_w.n))
        self.tiles = (-(-layer.output[0] // self.m[0]), -(-layer.output[1] // self.m[1]))
        self.has_h, self.has_w = (method.axes is not None and method.axes[k].n != 1 for k in (0, 1))
        self.work = work_of(layer, method.sizes)
        best = cut(self.work, threads, any(layer.blocks) or None)
        self.block, self.shares, self.mt, self.nk = best.block, best.shares, best.mt, best.nk
        self.transposed = bool(self.mt and self.has_w and layer.groups == 1 and self.taken % self.lanes == 0 and not layer.blocks[0])
        self.pixels = layer.blocks[0] or self.transposed
        self.blocks = parts(self.work.tiles, self.block)
        self.panel = self.nk * self.lanes if self.mt else tile_panel()[0]
        self.held = round_up(self.made, self.panel) if self.mt else self.made
        panels = parts(self.made, self.panel)
        least = parts(panels, max(1, OUTPUT_BYTES // (self.work.xis * self.block * self.size * self.panel)))
        self.kblock = parts(panels, round_up(least, self.shares)) * self.panel
        self.kblocks = parts(self.made, self.kblock)


def _sizes(form: _Form, shaped: bool) -> dict[str, int]:
    """Return the fields that say what to compute."""
    layer, work, into, back = form.layer, form.work, *form.layer.blocks
    pointwise = form.method.axes is None and layer.kernel == layer.stride == (1, 1) and layer.padding == ((0, 0), (0, 0))
    written = layer.batch * layer.filters * layer.output[0] * layer.output[1] * form.size
    return {
        "size": form.size,
        "bias": form.size * (4 if shaped else 1),
        "lanes": form.lanes,
        "pixel": form.lanes if into else 1,
        "out_pixel": form.lanes if back else 1,
        "groups": layer.groups,
        "channels": form.taken,
        "height": layer.height,
        "width": layer.width,
        "out_channels": form.made,
        "out_height": layer.output[0],
        "out_width": layer.output[1],
        "pad_top": layer.padding[0][0],
        "pad_left": layer.padding[1][0],
        "tiles": work.tiles,
        "tiles_h": form.tiles[0],
        "tiles_w": form.tiles[1],
        "step_h": form.step[0],
        "step_w": form.step[1],
        "out_h": form.m[0],
        "out_w": form.m[1],
        "rows": form.rows,
        "row_step": layer.dilation[0] if form.method.axes is None else 1,
        "taps": len(form.offsets),
        "span": form.offsets[-1] + 1,
        "products_h": form.products[0],
        "products_w": form.products[1],
        "block": form.block,
        "blocks": form.blocks,
        "shares": form.shares,
        "kblock": form.kblock,
        "kblocks": form.kblocks,
        "depth": work.depth,
        "channel_block": work.chain,
        "xis": work.xis,
        "mr": tile_panel()[0],
        "mt": form.mt,
        "nk": form.nk,
        "straight": pointwise and layer.height * layer.width * form.size <= STRAIGHT_BYTES,
        "past": written >= PAST_BYTES and not back,
        "adds": 0,
        "u_kblock": work.xis * form.kblock * work.depth * form.size,
        "u_group": work.xis * form.held * work.depth * form.size,
    }


def _memory(form: _Form, past: bool) -> dict[str, int]:
    """Return the fields of a thread's workspace: offsets and pitches."""
    size, lanes, block, mt, pixels, vector = form.size, form.lanes, form.block, form.mt, form.pixels, machine().vector_bytes
    (out_h, out_w), (_, step_w), (products_h, products_w), span = form.m, form.step, form.products, form.offsets[-1] + 1
    depth, xis, taps, tiles_w = form.work.depth, form.work.xis, len(form.offsets), form.tiles[1]
    run = round_up(min(block, tiles_w), lanes)
    # Splitting loads whole vectors of `step` numbers per lane; clearing and transforming write whole vectors.
    pitch = round_up((run * step_w + span + lanes) * size * (lanes if form.layer.blocks[0] else 1), vector) + vector
    take = max(1, (TAKE_BYTES // (products_h * vector) - span) // step_w)
    take_pitch = _odd_lines((take * step_w + span) * vector)
    strips = (block + tiles_w - 2) // tiles_w + 1
    line = round_up(block, lanes) * size
    lane_pitch = line + vector
    ldv = round_up(block, mt) * vector if pixels else line if form.has_w else lane_pitch
    padded = 0 if form.has_w else 64  # an odd number of cache lines between the xi keeps them out of the same cache set
    v_xi = _odd_lines(depth // (lanes if pixels else 1) * ldv + vector) + padded
    m_tile = form.nk * lanes * size  # the tiles of a panel's filters are contiguous, so they are written as a stream
    m_panel = (round_up(block, mt) + lanes) * m_tile if mt else 0
    m_xi = _odd_lines(form.kblock // form.panel * m_panel if mt else form.kblock * lane_pitch)
    chunk = _chunk(form)
    piece = block if past else chunk
    if mt:
        half, whole = out_h * products_w * (chunk + lanes) * vector, 0
        out_line = _odd_lines((piece + 2 * lanes) * out_w * size)
        square = lanes * out_h * out_line
    else:
        half, out_line = out_h * products_w * lane_pitch, out_w * lane_pitch
        whole = square = out_h * out_w * lane_pitch
    if form.method.axes is None:
        into_v = {"v_row": taps * ldv, "v_tap": ldv, "v_channel": form.rows * taps * ldv}
    else:
        into_v = {"v_row": products_w * v_xi, "v_tap": v_xi, "v_channel": ldv}
    places = _places(
        {
            "strips": block * STRIP.itemsize,
            "band": strips * form.rows * pitch + vector,
            "transposed": form.rows * take_pitch * form.transposed,
            "column": products_h * (take_pitch if pixels else pitch) * form.has_h + vector,
            "input": xis * v_xi + vector * (1 + mt),
            "output": xis * m_xi + vector,
            "half": half * form.has_h + vector,
            "whole": whole * form.has_w + vector,
            "lines": square + vector * out_w,
        }
    )
    apart = {"take_pitch": take_pitch, "pitch": pitch, "lane_pitch": lane_pitch, "ldv": ldv, "v_xi": v_xi, "line": out_line}
    apart |= {"m_xi": m_xi, "m_tile": m_tile, "m_panel": m_panel}
    return places | into_v | apart | {"take": take, "chunk": chunk, "piece": piece, "turn": tiles_transposed(out_w, lanes)}


def _chunk(form: _Form) -> int:
    """Return the number of tiles transformed back at once."""
    whole = round_up(form.block, form.lanes)
    if form.method.axes is None:
        return whole
    most = LONGEST_CHUNK
    if form.has_h:
        row = form.m[0] * form.products[1] * machine().vector_bytes
        most = min(most, HALF_BYTES // row // form.lanes * form.lanes - form.lanes)
    return max(form.lanes, min(whole, most))


def _programs(form: _Form, order: str) -> tuple[dict[str, Shape], dict[str, Array]]:
    """Return the programs of the transforms along each axis, and their constants.

    An axis without a transform has the identity program along the width, and none along the height.
    """
    taps = len(form.offsets)
    found = {"input_w": Shape(f"{taps}||{','.join(map(str, range(taps)))}", ()), "output_w": Shape("1||0", ())}
    for along, has, axis in (("h", form.has_h, 0), ("w", form.has_w, 1)):
        if form.method.axes is not None and has:
            programs = programs_of(form.method.axes[axis], order)
            found |= {f"input_{along}": shape_of(programs.input), f"output_{along}": shape_of(programs.output)}
    return found, {name: shape.table(form.layer.dtype) for name, shape in found.items()}


def _steps(form: _Form, programs: Mapping[str, Shape], tables: Mapping[str, Array]) -> dict[str, int]:
    """Return the fields with the addresses of the compiled parts and their constants."""
    kind = form.kind

    def transform(name: str) -> int:
        return compiled("kernels.steps.transform", kind, programs[name].text).address

    if form.pixels:
        splitter = transform("input_w")
    else:
        splitter = compiled("kernels.steps.split", kind, form.step[1], form.offsets, programs["input_w"].text).address
    if form.mt:
        product = compiled("kernels.steps.product_filters", kind, form.mt, form.nk, form.lanes if form.pixels else 1)
    else:
        product = compiled("kernels.steps.product", kind, *tile_panel(), form.made % tile_panel()[0])
    along_h = {name: transform(name) if form.has_h else 0 for name in ("input_h", "output_h")}
    constants = {f"{name}_constants": tables[name].ctypes.data if name in tables else 0 for name in (*along_h, "input_w", "output_w")}
    return {
        **along_h,
        **constants,
        "output_w": transform("output_w") if form.has_w and not form.mt else 0,
        "pixels": compiled("kernels.steps.pixels", kind).address if form.transposed else 0,
        "splitter": splitter,
        "product": product.address,
    }


def _joiner(form: _Form, back: Shape, shaped: bool) -> tuple[Any, ...]:
    """Return the step that writes the output, by name and parameters."""
    if form.mt and form.layer.blocks[1]:
        return "kernels.steps.finish_pixels", form.kind, back.text, int(shaped)
    if form.mt:
        return "kernels.steps.join_filters", form.kind, form.m[1], back.text, int(shaped)
    return "kernels.steps.join", form.kind, form.m[1], int(shaped)


def in_lanes(table: Array, groups: int, parts: Blocked) -> Array:
    """Return records (filters, fields) as one vector per field, with padded groups."""
    lanes = int(parts.description["lanes"])
    records = table.reshape(groups, -1, table.shape[1])
    records = np.pad(records, ((0, 0), (0, parts.held - records.shape[1]), (0, 0)))
    return np.ascontiguousarray(records.reshape(groups, -1, lanes, table.shape[1]).swapaxes(2, 3))


def _odd_lines(size: int) -> int:
    return (-(-size // 64) | 1) * 64


def _places(sizes: dict[str, int]) -> dict[str, int]:
    at, places = 0, {}
    for field, size in sizes.items():
        places[field] = at
        at = round_up(at + size, 64)
    return places | {"workspace": at}

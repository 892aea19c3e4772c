"""Describe a layer to the engine: block sizes, where everything lies in a thread's workspace, the compiled parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.kernels.choose.cut import OUTPUT_BYTES, cut, parts, rounded, tile_panel, work_of
from fastconv.kernels.choose.method import Method
from fastconv.kernels.layer import Layer, check_bytes
from fastconv.kernels.runners.fields import Field, Strip
from fastconv.kernels.runners.pack import packed, transformed_weights
from fastconv.kernels.runners.shape import Shape, shape_of, tiles_turned
from fastconv.native import KIND, SIZE, Compiled, compiled, lanes_of, machine
from fastconv.program import programs_of

Array = npt.NDArray[Any]


STRAIGHT_BYTES = 1024
"""Planes that small are read where they are by a layer of one tap: channels lie close together as they are."""

LONGEST_CHUNK = 64
"""Tiles that are transformed back at once, for eight filters: long pieces of their rows, which the hardware foresees, are written."""

TAKE_BYTES = 1 << 14
"""What the rows of a channel block may take between the transforms along the height and the width."""

HALF_BYTES = 1 << 16
"""What these may take after the transform along the height, before that along the width: they stay in the cache."""

PAST_BYTES = 16 << 20
"""Outputs that large leave the caches before anybody reads them: they are written past the caches, not read into them first."""


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
        Work items; any of them can run at once.
    held : int
        Filters of a group in the weights, padded to whole panels, where filters are in the lanes; otherwise zero.
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
        """The engine's fields to add to what the output holds."""
        description = self.description.copy()
        description[Field.ADDS], description[Field.JOINER] = 1, compiled(*self.joiner, 1).address
        return description

    @property
    def engine(self) -> Compiled:
        """What computes the items."""
        d = self.description
        taken = "turned" if d[Field.PIXELS] else "blocks" if d[Field.PIXEL] > 1 else "planes"
        given = "blocks" if d[Field.OUT_PIXEL] > 1 else "planes"
        return compiled("kernels.engine.run_items", *((taken, given) if (taken, given) != ("planes", "planes") else ()))

    @property
    def workspace(self) -> int:
        """Bytes of one thread's workspace."""
        return int(self.description[Field.WORKSPACE])


def blocked(layer: Layer, method: Method, weight: Array, order: str, threads: int, shaped: bool = False) -> Blocked:
    """Describe a layer; `method` is a fast algorithm or ``im2col``; an activation follows if it is `shaped`."""
    kind = KIND[layer.dtype.itemsize]
    size, lanes = SIZE[kind], lanes_of(kind)
    mr, nv = tile_panel()
    taken, made = layer.channels // layer.groups, layer.filters // layer.groups
    (rh, rw), (dh, dw) = layer.kernel, layer.dilation
    out_h, out_w = layer.output
    if method.axes is None:
        m, step, rows, offsets = (1, 1), layer.stride, rh, tuple(k * dw for k in range(rw))
        products = (rh, rw)
    else:
        alg_h, alg_w = method.axes
        m = (alg_h.m, alg_w.m)
        step = (alg_h.m * alg_h.stride, alg_w.m * alg_w.stride)
        rows, offsets, products = alg_h.n, tuple(range(alg_w.n)), (alg_h.products, alg_w.products)
    tiles_h, tiles_w = -(-out_h // m[0]), -(-out_w // m[1])
    taps, span = len(offsets), offsets[-1] + 1
    work = work_of(layer, method.sizes)
    tiles, xis, depth = work.tiles, work.xis, work.depth

    blocks_in, blocks_out = layer.blocks
    best = cut(work, threads, any(layer.blocks) or None)
    block, shares, mt, nk = best.block, best.shares, best.mt, best.nk
    has_h, has_w = (method.axes is not None and not _trivial(method.axes[k]) for k in (0, 1))
    turned = bool(mt and has_w and layer.groups == 1 and taken % lanes == 0 and not blocks_in)
    pixels = blocks_in or turned  # in V the channels of a tile lie in blocks
    blocks = parts(tiles, block)
    panel = nk * lanes if mt else mr
    held = rounded(made, panel) if mt else made  # filters in memory
    panels = parts(made, panel)
    kblocks = rounded(parts(panels, max(1, OUTPUT_BYTES // (xis * block * size * panel))), shares)
    kblock = parts(panels, kblocks) * panel
    kblocks = parts(made, kblock)

    d: dict[Field, int] = {}
    F = Field
    d |= {
        F.SIZE: size,
        F.BIAS: size * (4 if shaped else 1),
        F.LANES: lanes,
        F.PIXEL: lanes if blocks_in else 1,
        F.OUT_PIXEL: lanes if blocks_out else 1,
        F.GROUPS: layer.groups,
        F.CHANNELS: taken,
        F.HEIGHT: layer.height,
        F.WIDTH: layer.width,
    }
    d |= {F.OUT_CHANNELS: made, F.OUT_HEIGHT: out_h, F.OUT_WIDTH: out_w, F.PAD_TOP: layer.padding[0][0], F.PAD_LEFT: layer.padding[1][0]}
    d |= {F.TILES: tiles, F.TILES_H: tiles_h, F.TILES_W: tiles_w, F.STEP_H: step[0], F.STEP_W: step[1], F.OUT_H: m[0], F.OUT_W: m[1]}
    d |= {F.ROWS: rows, F.ROW_STEP: dh if method.axes is None else 1, F.TAPS: taps, F.SPAN: span}
    d |= {F.PRODUCTS_H: products[0], F.PRODUCTS_W: products[1]}
    d |= {F.BLOCK: block, F.BLOCKS: blocks, F.SHARES: shares, F.KBLOCK: kblock, F.KBLOCKS: kblocks}
    d |= {F.DEPTH: depth, F.CHANNEL_BLOCK: work.chain, F.XIS: xis, F.MR: mr, F.MT: mt, F.NK: nk}

    plane = layer.height * layer.width * size
    pointwise = method.axes is None and layer.kernel == layer.stride == (1, 1) and layer.padding == ((0, 0), (0, 0))
    d |= {F.STRAIGHT: pointwise and plane <= STRAIGHT_BYTES}
    d |= {F.PAST: layer.batch * layer.filters * out_h * out_w * size >= PAST_BYTES and not blocks_out}
    vector = machine().vector_bytes
    run = -(-min(block, tiles_w) // lanes) * lanes
    # Splitting loads whole vectors of `step` numbers a lane, and clearing and transforming write whole vectors.
    pitch = rounded((run * step[1] + span + lanes) * size * d[F.PIXEL], vector) + vector
    take = max(1, (TAKE_BYTES // (products[0] * vector) - span) // step[1])
    take_pitch = _odd_lines((take * step[1] + span) * vector)
    strips = (block + tiles_w - 2) // tiles_w + 1
    line = rounded(block, lanes) * size
    lane_pitch = line + vector
    padded = 64  # an odd number of cache lines between the xi, so that they do not fall into the same cache set
    ldv = line if has_w else lane_pitch
    if pixels:
        ldv = rounded(block, mt) * vector
    v_xi = _odd_lines(depth // (lanes if pixels else 1) * ldv + vector) + (0 if has_w else padded)
    m_tile = nk * lanes * size  # the tiles of a panel's filters follow each other, so that they are written as a stream
    m_panel = (rounded(block, mt) + lanes) * m_tile if mt else 0
    m_xi = _odd_lines(kblock // panel * m_panel if mt else kblock * lane_pitch)
    chunk = rounded(block, lanes)
    if method.axes is not None:
        most = LONGEST_CHUNK
        if has_h:
            most = min(most, HALF_BYTES // (m[0] * products[1] * vector) // lanes * lanes - lanes)
        chunk = max(lanes, min(chunk, most))
    square = m[0] * m[1] * lane_pitch
    whole, half, out_line = square, m[0] * products[1] * lane_pitch, m[1] * lane_pitch
    piece = block if d[F.PAST] else chunk
    if mt:
        half, whole = m[0] * products[1] * (chunk + lanes) * vector, 0
        out_line = _odd_lines((piece + 2 * lanes) * m[1] * size)
        square = lanes * m[0] * out_line
    if method.axes is None:
        into_v = {F.V_ROW: taps * ldv, F.V_TAP: ldv, F.V_CHANNEL: rows * taps * ldv}
    else:
        into_v = {F.V_ROW: products[1] * v_xi, F.V_TAP: v_xi, F.V_CHANNEL: ldv}
    d |= {
        F.TAKE: take,
        F.TAKE_PITCH: take_pitch,
        F.PITCH: pitch,
        F.LANE_PITCH: lane_pitch,
        F.LDV: ldv,
        F.V_XI: v_xi,
        **into_v,
        F.M_XI: m_xi,
    }
    d |= {F.M_TILE: m_tile, F.M_PANEL: m_panel, F.LINE: out_line, F.CHUNK: chunk, F.PIECE: piece, F.TURN: tiles_turned(m[1], lanes)}
    d |= {F.U_KBLOCK: xis * kblock * depth * size, F.U_GROUP: xis * held * depth * size}
    d |= _places(
        {
            F.STRIPS: block * len(Strip) * 8,
            F.BAND: strips * rows * pitch + vector,
            F.TURNED: rows * take_pitch * turned,
            F.COLUMN: products[0] * (take_pitch if pixels else pitch) * has_h + vector,
            F.INPUT: xis * v_xi + vector * (1 + mt),
            F.OUTPUT: xis * m_xi + vector,
            F.HALF: half * has_h + vector,
            F.WHOLE: whole * has_w + vector,
            F.LINES: square + vector * m[1],
        }
    )
    check_bytes("a workspace", d[F.WORKSPACE] * threads)
    check_bytes("packed weights", layer.groups * d[F.U_GROUP])

    # An axis without a transform has the program of the identity where one is read along the width, and none along the height.
    tables: list[Array] = []
    texts = {"input": (",".join(map(str, range(taps))), taps), "output": ("0", 1)}
    into, back = (Shape(f"{count}||{names}", ()) for names, count in texts.values())
    if method.axes is not None and has_w:
        programs = programs_of(method.axes[1], order)
        into, back = shape_of(programs.input), shape_of(programs.output)
    if method.axes is not None and has_h:
        programs = programs_of(method.axes[0], order)
        for function, constants, shape in (
            (F.INPUT_H, F.INPUT_H_CONSTANTS, shape_of(programs.input)),
            (F.OUTPUT_H, F.OUTPUT_H_CONSTANTS, shape_of(programs.output)),
        ):
            tables.append(shape.table(layer.dtype))
            d |= {function: compiled("kernels.steps.transform", kind, shape.text).address, constants: tables[-1].ctypes.data}
    tables += [into.table(layer.dtype), back.table(layer.dtype)]
    d |= {F.INPUT_W_CONSTANTS: tables[-2].ctypes.data, F.OUTPUT_W_CONSTANTS: tables[-1].ctypes.data}
    splitter = ("kernels.steps.transform", kind, into.text) if pixels else ("kernels.steps.split", kind, step[1], offsets, into.text)
    d |= {F.PIXELS: compiled("kernels.steps.pixels", kind).address if turned else 0}
    d |= {F.SPLITTER: compiled(*splitter).address}
    if mt:
        d |= {F.PRODUCT: compiled("kernels.steps.product_filters", kind, mt, nk, lanes if pixels else 1).address}
        joiner: tuple[Any, ...] = ("kernels.steps.join_filters", kind, m[1], back.text, int(shaped))
        if blocks_out:
            joiner = ("kernels.steps.finish_pixels", kind, back.text, int(shaped))
    else:
        d |= {F.PRODUCT: compiled("kernels.steps.product", kind, mr, nv, made % mr).address}
        joiner = ("kernels.steps.join", kind, m[1], int(shaped))
        d |= {F.OUTPUT_W: compiled("kernels.steps.transform", kind, back.text).address if has_w else 0}
    d |= {F.JOINER: compiled(*joiner).address}

    description = np.zeros(len(Field), np.int64)
    for field, value in d.items():
        description[field] = value
    u = weight.reshape(layer.groups, 1, made, -1) if method.axes is None else transformed_weights(method.axes, weight, order)[None]
    if mt:
        u = np.pad(u, ((0, 0), (0, 0), (0, held - made), (0, 0)))
    items = layer.groups * blocks * shares
    return Blocked(description, packed(u, kblock, panel, work.chain), tuple(tables), items, held if mt else 0, joiner)


def in_lanes(table: Array, groups: int, parts: Blocked) -> Array:
    """Lay out the records of the filters (filters, fields) as vectors of each field, the filters of a group padded."""
    lanes = int(parts.description[Field.LANES])
    records = table.reshape(groups, -1, table.shape[1])
    records = np.pad(records, ((0, 0), (0, parts.held - records.shape[1]), (0, 0)))
    return np.ascontiguousarray(records.reshape(groups, -1, lanes, table.shape[1]).swapaxes(2, 3))


def _trivial(alg: Any) -> bool:
    return bool(alg.n == 1)


def _odd_lines(size: int) -> int:
    return (-(-size // 64) | 1) * 64


def _places(sizes: dict[Field, int]) -> dict[Field, int]:
    at, places = 0, {}
    for field, size in sizes.items():
        places[field] = at
        at = rounded(at + size, 64)
    return places | {Field.WORKSPACE: at}

"""Describe a layer to the engine: block sizes, where everything lies in a thread's workspace, the compiled parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.kernels.compiled import SIZE, join, lanes_of, product, split, transform
from fastconv.kernels.engine import Field, Strip
from fastconv.kernels.layer import Layer, check_bytes
from fastconv.kernels.method import Method
from fastconv.kernels.pack import packed, transformed_weights
from fastconv.kernels.shape import Shape, shape_of
from fastconv.kernels.simd import vector_bytes
from fastconv.program import programs_of

Array = npt.NDArray[Any]

CHANNEL_BLOCK = 32
"""Channels that a fast algorithm sums in one chain; the sums of blocks are then added up."""

DIRECT_BLOCK = 128
"""The same for a direct convolution, in products."""

INPUT_BYTES = 256 * 1024
"""What V of a block may take: half of a level-2 cache of 512 KiB."""

TRANSFORM_COST = 24
"""Filters whose products take the time of the input transform."""

TURN_COST = 0.75
"""What a block costs besides, in vectors of tiles: U comes from afar."""

OUTPUT_BYTES = 192 * 1024
"""What M of a block may take."""


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
    """

    description: Array
    weights: Array
    tables: tuple[Array, ...]
    items: int

    @property
    def workspace(self) -> int:
        """Bytes of one thread's workspace."""
        return int(self.description[Field.WORKSPACE])


def panel_shape() -> tuple[int, int]:
    """Return how many filters and vectors the inner product keeps in registers: 12 to 24 accumulators."""
    return {64: (8, 3), 32: (4, 3), 16: (4, 2)}[vector_bytes()]


def blocked(layer: Layer, method: Method, weight: Array, order: str, threads: int, shaped: bool = False) -> Blocked:
    """Describe a layer; `method` is a fast algorithm or ``im2col``; an activation follows if it is `shaped`."""
    kind = {4: "f4", 8: "f8"}[layer.dtype.itemsize]
    size, lanes = SIZE[kind], lanes_of(kind)
    mr, nv = panel_shape()
    taken, made = layer.channels // layer.groups, layer.filters // layer.groups
    (rh, rw), (dh, dw) = layer.kernel, layer.dilation
    out_h, out_w = layer.output
    if method.axes is None:
        m, step, rows, offsets, xis = (1, 1), layer.stride, rh, tuple(k * dw for k in range(rw)), 1
        depth, chain = taken * rh * rw, DIRECT_BLOCK
    else:
        alg_h, alg_w = method.axes
        m = step = (alg_h.m, alg_w.m)
        rows, offsets, xis = alg_h.n, tuple(range(alg_w.n)), alg_h.n * alg_w.n
        depth, chain = taken, CHANNEL_BLOCK
    tiles_h, tiles_w = -(-out_h // m[0]), -(-out_w // m[1])
    tiles, taps, span = max(layer.batch, 1) * tiles_h * tiles_w, len(offsets), offsets[-1] + 1

    block, shares = _block(tiles, xis * depth * size, lanes, (mr, nv), made, threads)
    blocks = -(-tiles // block)
    panels = _parts(made, mr)
    kblocks = _rounded(_parts(panels, max(1, OUTPUT_BYTES // (xis * block * size * mr))), shares)
    kblock = _parts(panels, kblocks) * mr
    kblocks = _parts(made, kblock)

    d: dict[Field, int] = {}
    F = Field
    d |= {
        F.SIZE: size,
        F.BIAS: size * (4 if shaped else 1),
        F.LANES: lanes,
        F.GROUPS: layer.groups,
        F.CHANNELS: taken,
        F.HEIGHT: layer.height,
        F.WIDTH: layer.width,
    }
    d |= {F.OUT_CHANNELS: made, F.OUT_HEIGHT: out_h, F.OUT_WIDTH: out_w, F.PAD_TOP: layer.padding[0][0], F.PAD_LEFT: layer.padding[1][0]}
    d |= {F.TILES: tiles, F.TILES_H: tiles_h, F.TILES_W: tiles_w, F.STEP_H: step[0], F.STEP_W: step[1], F.OUT_H: m[0], F.OUT_W: m[1]}
    d |= {F.ROWS: rows, F.ROW_STEP: dh if method.axes is None else 1, F.TAPS: taps, F.SPAN: span}
    d |= {F.BLOCK: block, F.BLOCKS: blocks, F.SHARES: shares, F.KBLOCK: kblock, F.KBLOCKS: kblocks}
    d |= {F.DEPTH: depth, F.CHANNEL_BLOCK: chain, F.XIS: xis, F.MR: mr}

    vector = vector_bytes()
    run = -(-min(block, tiles_w) // lanes) * lanes
    # Splitting loads whole vectors of `step` numbers a lane, and clearing and transforming write whole vectors.
    pitch = _rounded((run * step[1] + span + lanes) * size, vector) + vector
    strips = (block + tiles_w - 2) // tiles_w + 1
    line = block * size
    lane_pitch = line + vector
    padded = 64  # an odd number of cache lines between the xi, so that they do not fall into the same cache set
    has_w = method.axes is not None and not _trivial(method.axes[1])
    has_h = method.axes is not None and not _trivial(method.axes[0])
    ldv = line if has_w else lane_pitch
    v_xi = _odd_lines(depth * ldv) + (0 if has_w else padded)
    m_xi = _odd_lines(kblock * lane_pitch)
    if method.axes is None:
        into_v = {F.V_ROW: taps * ldv, F.V_TAP: ldv, F.V_CHANNEL: rows * taps * ldv}
    else:
        into_v = {F.V_ROW: taps * v_xi, F.V_TAP: v_xi, F.V_CHANNEL: ldv}
    d |= {F.PITCH: pitch, F.LANE_PITCH: lane_pitch, F.LDV: ldv, F.V_XI: v_xi, **into_v, F.M_XI: m_xi}
    d |= {F.U_XI: made * depth * size, F.U_KBLOCK: kblock * depth * size, F.U_GROUP: xis * made * depth * size}
    d |= _places(
        {
            F.STRIPS: block * len(Strip) * 8,
            F.BAND: strips * rows * pitch + vector,
            F.COLUMN: rows * pitch * has_h + vector,
            F.SPLIT: rows * taps * lane_pitch * has_w + vector,
            F.INPUT: xis * v_xi + vector,
            F.OUTPUT: xis * m_xi + vector,
            F.HALF: m[0] * taps * lane_pitch * has_h + vector,
            F.WHOLE: m[0] * m[1] * lane_pitch * has_w + vector,
            F.LINES: m[0] * m[1] * lane_pitch + vector * m[1],
        }
    )
    check_bytes("a workspace", d[F.WORKSPACE] * threads)
    check_bytes("packed weights", layer.groups * d[F.U_GROUP])

    d |= {F.SPLITTER: split(kind, step[1], offsets).address, F.JOINER: join(kind, m[1], int(shaped)).address}
    d |= {F.PRODUCT: product(kind, mr, nv, made % mr).address}
    tables: list[Array] = []

    def compiled(shape: Shape, function: Field, constants: Field) -> None:
        tables.append(shape.table(layer.dtype))
        d.update({function: transform(kind, shape.text).address, constants: tables[-1].ctypes.data})

    for axis, there, into, back, into_c, back_c in (
        (0, has_h, F.INPUT_H, F.OUTPUT_H, F.INPUT_H_CONSTANTS, F.OUTPUT_H_CONSTANTS),
        (1, has_w, F.INPUT_W, F.OUTPUT_W, F.INPUT_W_CONSTANTS, F.OUTPUT_W_CONSTANTS),
    ):
        if there and method.axes is not None:
            programs = programs_of(method.axes[axis], order)
            compiled(shape_of(programs.input), into, into_c)
            compiled(shape_of(programs.output), back, back_c)

    description = np.zeros(len(Field), np.int64)
    for field, value in d.items():
        description[field] = value
    u = weight.reshape(layer.groups, 1, made, -1) if method.axes is None else transformed_weights(method.axes, weight, order)[None]
    return Blocked(description, packed(u, mr), tuple(tables), layer.groups * blocks * shares)


def _trivial(alg: Any) -> bool:
    return bool(alg.n == 1)


def _block(tiles: int, bytes_per_tile: int, lanes: int, panel: tuple[int, int], filters: int, threads: int) -> tuple[int, int]:
    """Return tiles a block and shares of the filters: V stays in cache, threads are busy, few lanes idle.

    Counted in vectors of tiles. The inner product takes `nv` of them at once; one or two left over cost as much as
    two, because few accumulators do not hide the latency of an addition. The input transform costs as much as the
    products of some `TRANSFORM_COST` filters, and threads that share the filters of a block each do all of it.
    """
    mr, nv = panel
    largest = max(3 * nv * lanes, min(6 * nv * lanes, INPUT_BYTES // bytes_per_tile))

    def cost(choice: tuple[int, int]) -> tuple[float, int]:
        block, shares = choice
        vectors = _parts(block, lanes)
        rest = vectors % nv
        product = vectors - rest + (max(rest, 2) if rest else 0)
        turns = _parts(_parts(tiles, block) * shares, threads)
        return turns * (product / shares + vectors * TRANSFORM_COST / filters + TURN_COST), block

    blocks = range(lanes, min(_rounded(largest, lanes), _rounded(tiles, lanes)) + 1, lanes)
    choices = [(block, shares) for shares in {1, min(threads, _parts(filters, mr))} for block in blocks]
    return min(choices, key=cost)


def _parts(whole: int, size: int) -> int:
    return -(-whole // size)


def _rounded(value: int, multiple: int) -> int:
    return _parts(value, multiple) * multiple


def _odd_lines(size: int) -> int:
    return (-(-size // 64) | 1) * 64


def _places(sizes: dict[Field, int]) -> dict[Field, int]:
    at, places = 0, {}
    for field, size in sizes.items():
        places[field] = at
        at = _rounded(at + size, 64)
    return places | {Field.WORKSPACE: at}

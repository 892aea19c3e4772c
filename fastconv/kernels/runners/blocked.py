"""Describe a layer to the engine: block sizes, where everything lies in a thread's workspace, the compiled parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.kernels.choose.cut import OUTPUT_BYTES, cut, parts, tile_panel, work_of
from fastconv.kernels.choose.method import Method
from fastconv.kernels.layer import Layer, check_bytes
from fastconv.kernels.records import LAYER, STRIP, tiles_turned
from fastconv.kernels.runners.pack import packed, transformed_weights
from fastconv.native import KIND, SIZE, Compiled, compiled, described, lanes_of, machine, round_up
from fastconv.program import Shape, programs_of, shape_of

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
        description["adds"], description["joiner"] = 1, compiled(*self.joiner, 1).address
        return description

    @property
    def engine(self) -> Compiled:
        """What computes the items."""
        d = self.description
        taken = "turned" if d["pixels"] else "blocks" if d["pixel"] > 1 else "planes"
        given = "blocks" if d["out_pixel"] > 1 else "planes"
        return compiled("kernels.engine.run_items", *((taken, given) if (taken, given) != ("planes", "planes") else ()))

    @property
    def workspace(self) -> int:
        """Bytes of one thread's workspace."""
        return int(self.description["workspace"])


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
    held = round_up(made, panel) if mt else made  # filters in memory
    panels = parts(made, panel)
    kblocks = round_up(parts(panels, max(1, OUTPUT_BYTES // (xis * block * size * panel))), shares)
    kblock = parts(panels, kblocks) * panel
    kblocks = parts(made, kblock)

    d: dict[str, int] = {}
    d |= dict.fromkeys(("input_h", "input_h_constants", "output_h", "output_h_constants", "output_w", "adds"), 0)  # unless set below
    d |= {
        "size": size,
        "bias": size * (4 if shaped else 1),
        "lanes": lanes,
        "pixel": lanes if blocks_in else 1,
        "out_pixel": lanes if blocks_out else 1,
        "groups": layer.groups,
        "channels": taken,
        "height": layer.height,
        "width": layer.width,
    }
    d |= {"out_channels": made, "out_height": out_h, "out_width": out_w, "pad_top": layer.padding[0][0], "pad_left": layer.padding[1][0]}
    d |= {"tiles": tiles, "tiles_h": tiles_h, "tiles_w": tiles_w, "step_h": step[0], "step_w": step[1], "out_h": m[0], "out_w": m[1]}
    d |= {"rows": rows, "row_step": dh if method.axes is None else 1, "taps": taps, "span": span}
    d |= {"products_h": products[0], "products_w": products[1]}
    d |= {"block": block, "blocks": blocks, "shares": shares, "kblock": kblock, "kblocks": kblocks}
    d |= {"depth": depth, "channel_block": work.chain, "xis": xis, "mr": mr, "mt": mt, "nk": nk}

    plane = layer.height * layer.width * size
    pointwise = method.axes is None and layer.kernel == layer.stride == (1, 1) and layer.padding == ((0, 0), (0, 0))
    d |= {"straight": pointwise and plane <= STRAIGHT_BYTES}
    d |= {"past": layer.batch * layer.filters * out_h * out_w * size >= PAST_BYTES and not blocks_out}
    vector = machine().vector_bytes
    run = round_up(min(block, tiles_w), lanes)
    # Splitting loads whole vectors of `step` numbers a lane, and clearing and transforming write whole vectors.
    pitch = round_up((run * step[1] + span + lanes) * size * d["pixel"], vector) + vector
    take = max(1, (TAKE_BYTES // (products[0] * vector) - span) // step[1])
    take_pitch = _odd_lines((take * step[1] + span) * vector)
    strips = (block + tiles_w - 2) // tiles_w + 1
    line = round_up(block, lanes) * size
    lane_pitch = line + vector
    padded = 64  # an odd number of cache lines between the xi, so that they do not fall into the same cache set
    ldv = line if has_w else lane_pitch
    if pixels:
        ldv = round_up(block, mt) * vector
    v_xi = _odd_lines(depth // (lanes if pixels else 1) * ldv + vector) + (0 if has_w else padded)
    m_tile = nk * lanes * size  # the tiles of a panel's filters follow each other, so that they are written as a stream
    m_panel = (round_up(block, mt) + lanes) * m_tile if mt else 0
    m_xi = _odd_lines(kblock // panel * m_panel if mt else kblock * lane_pitch)
    chunk = round_up(block, lanes)
    if method.axes is not None:
        most = LONGEST_CHUNK
        if has_h:
            most = min(most, HALF_BYTES // (m[0] * products[1] * vector) // lanes * lanes - lanes)
        chunk = max(lanes, min(chunk, most))
    square = m[0] * m[1] * lane_pitch
    whole, half, out_line = square, m[0] * products[1] * lane_pitch, m[1] * lane_pitch
    piece = block if d["past"] else chunk
    if mt:
        half, whole = m[0] * products[1] * (chunk + lanes) * vector, 0
        out_line = _odd_lines((piece + 2 * lanes) * m[1] * size)
        square = lanes * m[0] * out_line
    if method.axes is None:
        into_v = {"v_row": taps * ldv, "v_tap": ldv, "v_channel": rows * taps * ldv}
    else:
        into_v = {"v_row": products[1] * v_xi, "v_tap": v_xi, "v_channel": ldv}
    d |= {
        "take": take,
        "take_pitch": take_pitch,
        "pitch": pitch,
        "lane_pitch": lane_pitch,
        "ldv": ldv,
        "v_xi": v_xi,
        **into_v,
        "m_xi": m_xi,
    }
    d |= {"m_tile": m_tile, "m_panel": m_panel, "line": out_line, "chunk": chunk, "piece": piece, "turn": tiles_turned(m[1], lanes)}
    d |= {"u_kblock": xis * kblock * depth * size, "u_group": xis * held * depth * size}
    d |= _places(
        {
            "strips": block * STRIP.itemsize,
            "band": strips * rows * pitch + vector,
            "turned": rows * take_pitch * turned,
            "column": products[0] * (take_pitch if pixels else pitch) * has_h + vector,
            "input": xis * v_xi + vector * (1 + mt),
            "output": xis * m_xi + vector,
            "half": half * has_h + vector,
            "whole": whole * has_w + vector,
            "lines": square + vector * m[1],
        }
    )
    check_bytes("a workspace", d["workspace"] * threads)
    check_bytes("packed weights", layer.groups * d["u_group"])

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
            ("input_h", "input_h_constants", shape_of(programs.input)),
            ("output_h", "output_h_constants", shape_of(programs.output)),
        ):
            tables.append(shape.table(layer.dtype))
            d |= {function: compiled("kernels.steps.transform", kind, shape.text).address, constants: tables[-1].ctypes.data}
    tables += [into.table(layer.dtype), back.table(layer.dtype)]
    d |= {"input_w_constants": tables[-2].ctypes.data, "output_w_constants": tables[-1].ctypes.data}
    splitter = ("kernels.steps.transform", kind, into.text) if pixels else ("kernels.steps.split", kind, step[1], offsets, into.text)
    d |= {"pixels": compiled("kernels.steps.pixels", kind).address if turned else 0}
    d |= {"splitter": compiled(*splitter).address}
    if mt:
        d |= {"product": compiled("kernels.steps.product_filters", kind, mt, nk, lanes if pixels else 1).address}
        joiner: tuple[Any, ...] = ("kernels.steps.join_filters", kind, m[1], back.text, int(shaped))
        if blocks_out:
            joiner = ("kernels.steps.finish_pixels", kind, back.text, int(shaped))
    else:
        d |= {"product": compiled("kernels.steps.product", kind, mr, nv, made % mr).address}
        joiner = ("kernels.steps.join", kind, m[1], int(shaped))
        d |= {"output_w": compiled("kernels.steps.transform", kind, back.text).address if has_w else 0}
    d |= {"joiner": compiled(*joiner).address}

    description = described(LAYER, **d)
    u = weight.reshape(layer.groups, 1, made, -1) if method.axes is None else transformed_weights(method.axes, weight, order)[None]
    if mt:
        u = np.pad(u, ((0, 0), (0, 0), (0, held - made), (0, 0)))
    items = layer.groups * blocks * shares
    return Blocked(description, packed(u, kblock, panel, work.chain), tuple(tables), items, held if mt else 0, joiner)


def in_lanes(table: Array, groups: int, parts: Blocked) -> Array:
    """Lay out the records of the filters (filters, fields) as vectors of each field, the filters of a group padded."""
    lanes = int(parts.description["lanes"])
    records = table.reshape(groups, -1, table.shape[1])
    records = np.pad(records, ((0, 0), (0, parts.held - records.shape[1]), (0, 0)))
    return np.ascontiguousarray(records.reshape(groups, -1, lanes, table.shape[1]).swapaxes(2, 3))


def _trivial(alg: Any) -> bool:
    return bool(alg.n == 1)


def _odd_lines(size: int) -> int:
    return (-(-size // 64) | 1) * 64


def _places(sizes: dict[str, int]) -> dict[str, int]:
    at, places = 0, {}
    for field, size in sizes.items():
        places[field] = at
        at = round_up(at + size, 64)
    return places | {"workspace": at}

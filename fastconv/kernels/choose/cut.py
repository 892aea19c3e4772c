"""Cut a layer into work items and estimate their cost in cycles of one core, to compare methods.

The inner product keeps a panel of sums in registers. With tiles in the lanes, a panel is some filters by some vectors
of tiles. With filters in the lanes, a panel is some tiles by some vectors of filters. The second leaves no lane idle on
an image of 49 or 9 tiles, the first none on a layer of three filters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from fastconv.algebra import BilinearAlgorithm, phase_taps
from fastconv.kernels.layer import Layer
from fastconv.native import Machine, machine, remembered, round_up

CHANNEL_CHAIN = 32
"""Channels that a fast algorithm sums in one chain; the sums of the chains are then added."""

DIRECT_CHAIN = 128
"""The same for a direct convolution, in products."""

COPY = 2.0
"""Cycles to copy a vector of V or M from or to the image, on top of the product and the transforms."""

WINDOW = 8.0
"""The same for a direct convolution, whose windows are cut from rows."""

OPERATION = 0.6
"""Cycles per vector operation of a transform: most of its values are in the cache, not in registers."""

UNFUSED = 1.3
"""Cost factor of a vector of M with tiles in the lanes, where a separate step assembles the rows."""

SPILL = 2.0
"""Extra cycles per vector of V or M for each doubling of a block's V beyond `ROOM`."""

CACHE = 3 << 17
"""Bytes of V, M and weights of a block that all stay in the L2 cache; of twice as many almost nothing stays."""

HELD = 2.5
"""Cycles saved per vector of V or M in such a block. Used to compare blocks, not algorithms: `COPY` is from small layers."""

ROOM = 1 << 20
"""Bytes of V that mostly stay in the L2 cache between writing and reading."""

SMALL = 0.6
"""Cycles saved per vector in a block whose V is half of `ROOM`. Used only to compare blocks."""

BEGIN = 6.0
"""Cost, in terms, of starting a chain and storing its sums; in full chains it is part of the cost of a term."""

DENSITY = 0.7
"""Operations of a transform per entry of its matrix."""

ITEM = 20_000.0
"""Overhead of a work item, in cycles."""

UNEVEN = 0.15
"""Average delay of the last of several threads, in items: cores are not equally fast at all times."""

NEAR = 12 << 20
"""Bytes of weights that stay cached between calls."""

NEAR_COST, FAR_COST = 0.02, 0.05
"""Cycles per byte of weights, from a cache and from memory, where every thread reads."""

COLD_COST = 0.12
"""The same between other layers: nothing of the weights is in a cache (measured on Sapphire Rapids, 53 microseconds a MiB)."""

INPUT_BYTES = 8 << 20
"""Largest V of a block, in bytes: the workspaces of all threads stay small."""

STRIP_BYTES = 5 << 19
"""The same for a direct convolution: its V is written from few rows and read again for each panel of filters."""

OUTPUT_BYTES = 1 << 20
"""Largest M of a block of filters, in bytes."""

LEAST_SUMS = 8
"""Sums in flight that hide the latency of a multiply-add: fewer take as long as eight."""

LARGEST_BLOCK = 192
"""Most tiles of a block; more only make the workspace larger."""

LARGEST_STRIP = 400
"""The same for outputs of a direct convolution, which share their input rows."""

SMALLEST_BLOCK = 24
STEPS = 8


@dataclass(frozen=True)
class Work:
    """The work of one group of a layer, however it is cut.

    Attributes
    ----------
    tiles : int
        Tiles of all images.
    xis : int
        Independent products.
    depth : int
        Terms of each sum.
    chain : int
        Terms summed before the sum is added to the total.
    filters, groups : int
        Filters per group, and groups.
    size : int
        Bytes of a number.
    into, back : float
        Cycles per vector of V and of M, without the product.
    row : int
        Tiles of a row of the image.
    cold : bool
        Whether the weights come from memory.
    """

    tiles: int
    xis: int
    depth: int
    chain: int
    filters: int
    groups: int
    size: int
    into: float
    back: float
    row: int
    cold: bool = False


@dataclass(frozen=True)
class Cut:
    """How the work is cut.

    Attributes
    ----------
    block : int
        Tiles of a block.
    shares : int
        Shares of the filters.
    mt, nk : int
        Tiles and vectors of filters of a panel, with filters in the lanes; zero with tiles in the lanes.
    cycles : float
        Estimated cycles of the busiest thread, by which algorithms are compared.
    held : float
        Cycles saved where the L2 cache holds a block.
    """

    block: int
    shares: int
    mt: int
    nk: int
    cycles: float = 0.0
    held: float = 0.0


class Size(NamedTuple):
    """Sizes of an algorithm along one axis, which determine its cost."""

    m: int
    r: int
    products: int
    stride: int = 1

    @property
    def into(self) -> float:
        """Operations of the input transform, one vector per tile; a phase of one tap has none."""
        if self.stride == 1:
            return _operations(self.products, self.m + self.r - 1)
        return sum(_operations(self.m + taps - 1, self.m + taps - 1) for taps in phase_taps(self.r, self.stride) if taps > 1)

    @property
    def back(self) -> float:
        """Operations of the output transform, which also adds the phases."""
        if self.stride == 1:
            return _operations(self.products, self.m)
        phases = phase_taps(self.r, self.stride)
        return sum(_operations(self.m + taps - 1, self.m) for taps in phases if taps > 1) + self.m * (self.stride - 1)


def size_of(alg: BilinearAlgorithm) -> Size:
    """Return the size of an algorithm."""
    return Size(alg.m, alg.r, alg.products, alg.stride)


def work_of(layer: Layer, sizes: tuple[Size, Size] | None) -> Work:
    """Return the work of a layer with fast algorithms along both axes, or with im2col."""
    taken, made, common = layer.channels // layer.groups, layer.filters // layer.groups, (layer.groups, layer.dtype.itemsize)
    if sizes is None:
        depth = taken * layer.kernel[0] * layer.kernel[1]
        return Work(_tiles(layer, (1, 1)), 1, depth, DIRECT_CHAIN, made, *common, WINDOW, WINDOW, layer.output[1], layer.cold)
    h, w = sizes
    xis = h.products * w.products
    # The height comes first, on columns that neighbouring tiles share; then the width, for each product of the height.
    into = (w.m * w.stride * h.into + h.products * w.into) / xis
    back = (w.products * h.back + h.m * w.back) / xis
    costs = COPY + OPERATION * into, COPY + OPERATION * back
    return Work(_tiles(layer, (h.m, w.m)), xis, taken, CHANNEL_CHAIN, made, *common, *costs, parts(layer.output[1], w.m), layer.cold)


def _tiles(layer: Layer, m: tuple[int, int]) -> int:
    return max(layer.batch, 1) * parts(layer.output[0], m[0]) * parts(layer.output[1], m[1])


def _operations(products: int, values: int) -> float:
    return 0.0 if products == 1 else DENSITY * products * values


def tile_panel() -> tuple[int, int]:
    """Return the filters and vectors of a panel with tiles in the lanes: 8 to 24 sums."""
    if machine().registers >= 32:
        return 8, 3
    return (4, 3) if machine().vector_bytes >= 32 else (4, 2)


def filter_panels() -> Iterator[tuple[int, int]]:
    """Yield the tiles and vectors of panels that fit the registers, filters in the lanes."""
    for nk in (1, 2, 3):
        for mt in range(2, 15):
            if mt * nk >= LEAST_SUMS and mt * nk + nk + 1 <= machine().registers:
                yield mt, nk


def panel_cycles(sums: int, loads: int) -> float:
    """Return the cycles of one step of a panel, at two multiply-adds or loads per cycle.

    Ten sums and more take up to sixteen extra cycles per chain of 32 steps, eight or nine almost none (measured on Zen 3).
    """
    return max(sums / 2, loads / 2, LEAST_SUMS / 2) * (1 + 0.02 * max(loads - 7, 0)) + 0.05 + 0.13 * min(max(sums - 9, 0), 3)


@lru_cache(maxsize=1024)
def cut(work: Work, threads: int, filters: bool | None = None) -> Cut:
    """Return the cut with the fewest estimated cycles; it depends on `threads`, the results do not.

    `filters` puts filters in the lanes, or tiles, or the faster of both (None). The channels-blocked layout requires filters.
    """
    block, shares, mt, nk, cycles, held = _best(work, threads, filters, machine())
    return Cut(int(block), int(shares), int(mt), int(nk), cycles, held)


@remembered
def _best(work: Work, threads: int, filters: bool | None, here: Machine) -> tuple[float, ...]:
    """Return the numbers of the cut."""
    cuts = [c for c in _cuts(work, here.vector_bytes // work.size, threads) if filters in (None, c.mt > 0)]
    best = min(cuts, key=lambda c: (c.cycles - c.held, c.block, c.mt, c.nk))
    return best.block, best.shares, best.mt, best.nk, min(c.cycles for c in cuts), best.held


def _cuts(work: Work, lanes: int, threads: int) -> Iterator[Cut]:
    tile_bytes = work.xis * work.depth * work.size
    most, room = (LARGEST_BLOCK, INPUT_BYTES) if work.xis > 1 else (LARGEST_STRIP, STRIP_BYTES)
    largest = max(lanes, min(most, room // tile_bytes // max(1, threads // 4)))
    most = round_up(parts(work.tiles, SMALLEST_BLOCK), threads)
    fewest = parts(work.tiles, largest)
    counts = {
        fewest,
        most,
        *(round_up(round(fewest * (most / fewest) ** (k / STEPS)), turn) for k in range(STEPS) for turn in (1, threads)),
    }
    blocks = {parts(work.tiles, min(count, work.tiles)) for count in counts if count >= fewest}
    if work.xis > 1:
        blocks |= {k * work.row for k in range(1, min(largest, work.tiles) // work.row + 1) if k * work.row >= SMALLEST_BLOCK}
    rows, columns = tile_panel()
    for block in sorted(blocks):
        for shares in {1, threads}:
            for mt, nk in filter_panels():
                panels, turns = parts(work.filters, nk * lanes), parts(block, mt)
                if panels >= shares:
                    product = parts(panels, shares) * turns * panel_cycles(mt * nk, mt + nk)
                    filters = round_up(parts(work.filters, shares), lanes)
                    back = block * filters / lanes
                    yield _costed(work, lanes, threads, Cut(block, shares, mt, nk), product, back, filters)
            if parts(work.filters, rows) >= shares:
                filters = parts(work.filters, shares)
                whole, rest = divmod(parts(block, lanes), columns)
                panel = whole * panel_cycles(rows * columns, rows + columns)
                panel += panel_cycles(rows * rest, rows + rest) if rest else 0.0
                back = UNFUSED * filters * parts(block, lanes)
                yield _costed(work, lanes, threads, Cut(block, shares, 0, 0), parts(filters, rows) * panel, back, filters)


def _costed(work: Work, lanes: int, threads: int, way: Cut, product: float, back: float, filters: int) -> Cut:
    """Return the cut with its cycles: `product` per step of the depth, `back` vectors per product."""
    block = way.block
    weights = work.xis * work.depth * work.size
    far = max(0.0, 1.0 - NEAR / (weights * work.filters * work.groups))
    stream = weights * filters * (COLD_COST if work.cold else NEAR_COST + (FAR_COST * min(threads, 4) - NEAR_COST) * far)
    turns = parts(parts(work.tiles, block) * way.shares * work.groups, threads) + UNEVEN * (threads > 1)
    spill = SPILL * max(0.0, math.log2(weights * block / ROOM)) if work.xis > 1 else 0.0
    split = _vectors(work, lanes, block) * work.depth
    vectors = (work.into + spill) * split + (work.back + spill) * back
    terms = work.depth + BEGIN * (parts(work.depth, work.chain) - work.depth / work.chain)
    whole = weights * (filters + block) + work.xis * work.size * block * filters
    held = 0.0
    if work.xis > 1:
        held = HELD * _share(1.0 - math.log2(whole / CACHE)) + SMALL * _share(math.log2(ROOM / (weights * block)))
    cycles = turns * (work.xis * (terms * product + vectors) + stream + ITEM)
    return replace(way, cycles=cycles, held=turns * work.xis * held * (split + back))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _vectors(work: Work, lanes: int, block: int) -> float:
    """Return the vectors of one channel of a block: each run of tiles within a row has its own.

    A block of a fraction of a row spans two rows in that fraction of the cases.
    """
    if work.xis == 1 or work.row % block == 0:
        return parts(block, lanes)
    whole, rest = divmod(block, work.row)
    return whole * parts(work.row, lanes) + (parts(rest, lanes) + (1.0 if whole else rest / work.row) if rest else 0)


def parts(whole: int, size: int) -> int:
    """Return how many parts of a given size hold the whole."""
    return -(-whole // size)

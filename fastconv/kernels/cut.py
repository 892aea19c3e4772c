"""Cut a layer into work items, and estimate what they cost: a count of cycles of one core, to compare ways with.

The inner product keeps a panel of sums in registers. Either tiles are the lanes of its vectors and a panel is some
filters by some vectors of tiles, or filters are the lanes and a panel is some tiles by some vectors of filters. The
second way wastes nothing on an image of 49 or 9 tiles, the first nothing on a layer of three filters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from fastconv.algebra import BilinearAlgorithm
from fastconv.kernels.layer import Layer
from fastconv.kernels.simd import vector_bytes

CHANNEL_CHAIN = 32
"""Channels that a fast algorithm sums in one chain; the sums of chains are then added up."""

DIRECT_CHAIN = 128
"""The same for a direct convolution, in products."""

TRANSFORM = 8.0
"""Cycles that a vector of V or of M costs besides the product: transform, copies, its way to and from the image."""

ITEM = 20_000.0
"""Cycles that an item costs besides."""

NEAR = 12 << 20
"""Weights that large are still in a cache when the next call comes."""

NEAR_COST, FAR_COST = 0.06, 0.12
"""Cycles that a byte of the weights costs, from a cache or from memory, where every thread reads."""

INPUT_BYTES = 8 << 20
"""The most that V of a block takes: the workspaces of all threads stay small."""

STRIP_BYTES = 5 << 19
"""The same for a direct convolution, whose V is written from few rows and read again for each panel of filters."""

OUTPUT_BYTES = 1 << 20
"""The most that M of a block of filters takes."""

LEAST_SUMS = 8
"""Fewer do not hide the latency of a multiply-add: they take as long as eight."""

LARGEST_BLOCK = 192
"""Tiles of a block; more only make the workspace larger."""

LARGEST_STRIP = 400
"""The same for outputs of a direct convolution, which share the rows that are read."""

SMALLEST_BLOCK = 24
STEPS = 8


@dataclass(frozen=True)
class Work:
    """What a group of a layer asks for, however it is cut.

    Attributes
    ----------
    tiles : int
        Of all images.
    xis : int
        Independent products.
    depth : int
        Terms of each of their sums.
    chain : int
        Terms that are summed before the sum is added to the total.
    filters, groups : int
        Filters of a group, and groups.
    size : int
        Bytes of a number.
    """

    tiles: int
    xis: int
    depth: int
    chain: int
    filters: int
    groups: int
    size: int


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
        With filters in the lanes, the tiles and the vectors of filters of a panel; with tiles in the lanes, zero.
    cycles : float
        Estimated, for the busiest thread.
    """

    block: int
    shares: int
    mt: int
    nk: int
    cycles: float


def work_of(layer: Layer, axes: tuple[BilinearAlgorithm, BilinearAlgorithm] | None) -> Work:
    """Count what a layer asks for, of a fast algorithm along height and width or, without, of im2col."""
    taken, made = layer.channels // layer.groups, layer.filters // layer.groups
    m, xis, depth, chain = (1, 1), 1, taken * layer.kernel[0] * layer.kernel[1], DIRECT_CHAIN
    if axes is not None:
        m, xis, depth, chain = (axes[0].m, axes[1].m), axes[0].products * axes[1].products, taken, CHANNEL_CHAIN
    tiles = max(layer.batch, 1) * parts(layer.output[0], m[0]) * parts(layer.output[1], m[1])
    return Work(tiles, xis, depth, chain, made, layer.groups, layer.dtype.itemsize)


def tile_panel() -> tuple[int, int]:
    """Return the filters and the vectors of a panel with tiles in the lanes: 8 to 24 sums."""
    return {64: (8, 3), 32: (4, 3), 16: (4, 2)}[vector_bytes()]


def filter_panels() -> Iterator[tuple[int, int]]:
    """Return the tiles and vectors of panels with filters in the lanes that the registers hold: sums, vectors, one factor."""
    registers = 32 if vector_bytes() == 64 else 16
    for nk in (1, 2, 3):
        for mt in range(2, 15):
            if mt * nk >= LEAST_SUMS and mt * nk + nk + 1 <= registers:
                yield mt, nk


def panel_cycles(sums: int, loads: int) -> float:
    """Return the cycles of one step of a panel: two multiply-adds or loads a cycle, and eight sums to hide their latency."""
    return max(sums / 2, loads / 2, LEAST_SUMS / 2) * (1 + 0.02 * max(loads - 6, 0)) + 0.1


@lru_cache(maxsize=1024)
def cut(work: Work, threads: int) -> Cut:
    """Return the cut that is estimated to take the fewest cycles; it depends on the threads, the results do not."""
    lanes = vector_bytes() // work.size
    return min(_cuts(work, lanes, threads), key=lambda c: (c.cycles, c.block, c.mt, c.nk))


def _cuts(work: Work, lanes: int, threads: int) -> Iterator[Cut]:
    tile_bytes = work.xis * work.depth * work.size
    most, room = (LARGEST_BLOCK, INPUT_BYTES) if work.xis > 1 else (LARGEST_STRIP, STRIP_BYTES)
    largest = max(lanes, min(most, room // tile_bytes // max(1, threads // 4)))
    most = rounded(parts(work.tiles, SMALLEST_BLOCK), threads)
    fewest = parts(work.tiles, largest)
    counts = {fewest, most, *(rounded(round(fewest * (most / fewest) ** (k / STEPS)), turn) for k in range(STEPS) for turn in (1, threads))}
    blocks = sorted({parts(work.tiles, min(count, work.tiles)) for count in counts if count >= fewest})
    rows, columns = tile_panel()
    for block in blocks:
        for shares in {1, threads}:
            for mt, nk in filter_panels():
                panels, turns = parts(work.filters, nk * lanes), parts(block, mt)
                if panels >= shares:
                    product = parts(panels, shares) * turns * panel_cycles(mt * nk, mt + nk)
                    filters = rounded(parts(work.filters, shares), lanes)
                    back = block * filters / lanes
                    yield Cut(block, shares, mt, nk, _cycles(work, lanes, threads, block, shares, product, back, filters))
            if parts(work.filters, rows) >= shares:
                filters = parts(work.filters, shares)
                whole, rest = divmod(parts(block, lanes), columns)
                panel = whole * panel_cycles(rows * columns, rows + columns)
                panel += panel_cycles(rows * rest, rows + rest) if rest else 0.0
                back = filters * parts(block, lanes)
                yield Cut(block, shares, 0, 0, _cycles(work, lanes, threads, block, shares, parts(filters, rows) * panel, back, filters))


def _cycles(work: Work, lanes: int, threads: int, block: int, shares: int, product: float, back: float, filters: int) -> float:
    """Add up an item, `product` cycles a step of the depth and `back` vectors a product, and multiply by the items of a thread."""
    weights = work.xis * work.depth * work.size
    far = weights * work.filters * work.groups > NEAR
    stream = weights * filters * (FAR_COST * min(threads, 4) if far else NEAR_COST)
    turns = parts(parts(work.tiles, block) * shares * work.groups, threads)
    vectors = parts(block, lanes) * work.depth + back
    return turns * (work.xis * (work.depth * product + TRANSFORM * vectors) + stream + ITEM)


def parts(whole: int, size: int) -> int:
    """Return how many parts of a size hold the whole."""
    return -(-whole // size)


def rounded(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return parts(value, multiple) * multiple

"""The counts of a layer and the cost of a cut equal counts by loops, for given machines."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import fastconv as fc
from fastconv.kernels.choose import cut as estimate
from fastconv.kernels.choose import method as choice
from fastconv.kernels.choose.cut import Cut, _costed, _cuts, _vectors, cut, panel_cycles, size_of, work_of
from fastconv.kernels.layer import layer_of
from fastconv.kernels.runners.blocked import blocked
from fastconv.kernels.runners.pack import packed
from fastconv.kernels.runners.pointwise import PointwiseRunner, packed_filters
from fastconv.native import COUNTER, machine, round_up
from fastconv.native.machine import VARIABLE


def layer(channels=16, filters=24, kernel=(3, 3), size=(30, 41), stride=1, groups=1, batch=1, dtype="f4", dilation=1):
    weight = np.broadcast_to(np.zeros((), dtype), (filters, channels // groups, *kernel))
    padding = [k // 2 for k in kernel]
    return layer_of(weight, None, stride, padding, dilation, groups, (batch, channels, *size))


def with_vectors(vector_bytes):
    """Return this machine with another vector width."""
    return replace(machine(), vector_bytes=vector_bytes)


def names(ways):
    """Return the candidates of a layer: outputs, taps, complex pairs and strides along both axes; None for direct."""
    return [None if way.pair is None else tuple((c.m, c.r, c.pairs, c.stride) for c in way.pair) for way in ways]


ALGORITHMS = [
    fc.toom_cook(2, 3, [0, 1, -1, "inf"]),
    fc.toom_cook(4, 3, [0, 1, -1, 2, -2, "inf"]),
    fc.toom_cook(3, 1, [0, 1, -1]),
    fc.toom_cook(1, 5, [0, 1, -1, 2, "inf"]),
    fc.algorithms("F(8x8,3x3)/13")[0],
]


@pytest.mark.parametrize("alg", ALGORITHMS, ids=lambda alg: alg.name())
def test_a_transform_is_counted_by_the_entries_of_its_matrix(alg):
    size = size_of(alg)
    entries = lambda matrix: estimate.DENSITY * len(matrix) * len(matrix[0]) * (alg.products > 1)
    assert size.into == pytest.approx(entries(alg.BT))
    assert size.back == pytest.approx(entries(alg.AT))


@pytest.mark.parametrize(("m", "r", "taps"), [(2, 3, (2, 1)), (4, 3, (2, 1)), (2, 7, (4, 3)), (3, 2, (1, 1)), (3, 4, (2, 2))])
def test_a_transform_of_a_stride_is_that_of_its_phases(m, r, taps):
    size = estimate.Size(m, r, 0, 2)
    own = [estimate.Size(m, t, m + t - 1) for t in taps if t > 1]
    assert size.into == pytest.approx(sum(one.into for one in own))
    assert size.back == pytest.approx(sum(one.back for one in own) + m)  # one phase is added to the other


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_the_work_of_a_direct_layer_is_a_product_of_all_terms(stride, groups):
    one = layer(kernel=(3, 5), size=(20, 33), stride=stride, groups=groups, batch=3)
    work = work_of(one, None)
    assert work.tiles == 3 * math.prod(one.output)
    assert (work.xis, work.depth) == (1, 16 // groups * 3 * 5)
    assert (work.filters, work.groups, work.size, work.row) == (24 // groups, groups, 4, one.output[1])
    assert work.chain == estimate.DIRECT_CHAIN
    assert work.into == work.back == estimate.WINDOW


def test_the_work_of_a_fast_layer_is_counted_by_its_tiles():
    one = layer(size=(30, 41), dtype="f8", batch=2)
    height, width = estimate.Size(4, 3, 6), estimate.Size(2, 3, 4)
    work = work_of(one, (height, width))
    tiles = sum(1 for _ in range(2) for _ in range(0, 30, 4) for _ in range(0, 41, 2))
    assert (work.tiles, work.xis, work.depth, work.row) == (tiles, 24, 16, len(range(0, 41, 2)))
    assert (work.filters, work.groups, work.size, work.chain) == (24, 1, 8, estimate.CHANNEL_CHAIN)
    # Per tile: the two columns that its neighbour did not transform, then a row for each product of the height.
    into = sum(height.into for _ in range(2)) + sum(width.into for _ in range(6))
    back = sum(height.back for _ in range(4)) + sum(width.back for _ in range(4))
    assert work.into == pytest.approx(estimate.COPY + estimate.OPERATION * into / 24)
    assert work.back == pytest.approx(estimate.COPY + estimate.OPERATION * back / 24)
    assert work_of(layer(batch=0), None).tiles == work_of(layer(batch=1), None).tiles


def test_a_panel_takes_as_long_as_what_it_has_most_of():
    extra = 0.05
    assert panel_cycles(8, 4) == pytest.approx(4 + extra)  # two multiply-adds per cycle
    assert panel_cycles(2, 3) == pytest.approx(4 + extra)  # fewer than eight sums wait for each other
    assert panel_cycles(8, 12) == pytest.approx(6 * 1.1 + extra)  # two loads per cycle; more than seven slow each other down
    assert panel_cycles(12, 7) == pytest.approx(6 + extra + 0.13 * 3)
    assert panel_cycles(10, 7) == pytest.approx(5 + extra + 0.13)
    assert panel_cycles(9, 7) == pytest.approx(4.5 + extra)
    assert panel_cycles(24, 7) == pytest.approx(12 + extra + 0.13 * 3)


@pytest.mark.parametrize(("row", "block"), [(7, 21), (7, 30), (7, 5), (50, 24), (8, 8), (3, 2), (50, 100), (50, 130)])
def test_runs_of_tiles_are_split_into_whole_vectors(row, block):
    """A block begins at any tile of a row, all equally likely unless it is a whole number of rows."""
    work = estimate.Work(10 * row, 16, 32, 32, 16, 1, 4, 1.0, 1.0, row)
    found, lanes = _vectors(work, 8, block), 8

    def vectors(begin):
        ends = [*range((begin // row + 1) * row, begin + block, row), begin + block]
        starts = [begin, *ends[:-1]]
        return sum(-(-(end - start) // lanes) for start, end in zip(starts, ends, strict=True))

    if row % block == 0 or block % row == 0:
        assert found == vectors(0)
    elif block < row:  # a rest in one row, or cut by the end of one
        assert found == pytest.approx(-(-block // lanes) + block / row)
    else:
        assert found == block // row * -(-row // lanes) + -(-(block % row) // lanes) + 1
    assert min(map(vectors, range(row))) - 1 <= found <= max(map(vectors, range(row))) + 1
    direct = estimate.Work(10 * row, 1, 32, 32, 16, 1, 4, 1.0, 1.0, row)
    assert _vectors(direct, lanes, block) == -(-block // lanes)


def _small(**changes):
    given = {"tiles": 64, "xis": 16, "depth": 64, "chain": 32, "filters": 32, "groups": 1, "size": 4, "into": 3.0, "back": 5.0, "row": 8}
    return estimate.Work(**(given | changes))


def _cycles(work, lanes, threads, block, shares, product, back, filters):
    found = _costed(work, lanes, threads, Cut(block, shares, 0, 0), product, back, filters)
    return found.cycles, found.held


def test_cycles_are_those_of_the_items_of_the_busiest_thread():
    work, block, product, back = _small(), 16, 100.0, 60.0
    cycles, held = _cycles(work, 8, 1, block, 1, product, back, 32)
    weights = 16 * 64 * 4 * 32
    item = 16 * (64 * product + 3.0 * (16 // 8) * 64 + 5.0 * back)  # the product, V, M: of 16 xis
    item += weights * estimate.NEAR_COST + estimate.ITEM
    assert cycles == pytest.approx(4 * item)  # 64 tiles in blocks of 16
    assert _cycles(work, 8, 2, block, 1, product, back, 32)[0] == pytest.approx((2 + estimate.UNEVEN) * item)
    assert _cycles(_small(groups=3), 8, 1, block, 1, product, back, 32)[0] == pytest.approx(12 * item)
    half = 16 * (64 * product + 3.0 * 2 * 64 + 5.0 * back) + weights / 2 * estimate.NEAR_COST + estimate.ITEM
    assert _cycles(work, 8, 1, block, 2, product, back, 16)[0] == pytest.approx(8 * half)
    assert 0 < held < cycles


def test_a_depth_that_fills_no_chain_costs_what_it_takes_to_begin_one():
    cycles = lambda depth: _cycles(_small(depth=depth, into=0.0), 8, 1, 64, 1, 100.0, 0.0, 32)[0]
    per_term = 16 * 100.0 + 16 * 4 * 32 * estimate.NEAR_COST
    assert cycles(64) - cycles(32) == pytest.approx(32 * per_term)
    # one chain more, of which 31 terms are missing
    assert cycles(33) - cycles(32) == pytest.approx(per_term + estimate.BEGIN * (1 - 1 / 32) * 16 * 100.0)


def test_weights_that_no_cache_holds_cost_more():
    near = _small(into=0.0, back=0.0)
    far = _small(filters=32 << 10, into=0.0, back=0.0)
    whole = 16 * 64 * 4 * (32 << 10)
    share = 1 - estimate.NEAR / whole
    assert 0 < share < 1
    for threads, turns in ((1, 1), (2, 1 + estimate.UNEVEN), (8, 1 + estimate.UNEVEN)):
        of = lambda work, threads=threads: _cycles(work, 8, threads, 64, 1, 0.0, 0.0, 32)[0]
        byte = (of(far) - of(near)) / (turns * 16 * 64 * 4 * 32)
        assert byte == pytest.approx((estimate.FAR_COST * min(threads, 4) - estimate.NEAR_COST) * share)


def test_blocks_that_the_second_cache_does_not_hold_cost_more():
    depth = 64
    of = lambda block: _cycles(_small(tiles=block, row=block, depth=depth), 8, 1, block, 1, 0.0, 0.0, 32)
    fits, twice = estimate.ROOM // (16 * depth * 4), 2 * estimate.ROOM // (16 * depth * 4)
    spilled = of(twice)[0] - 2 * of(fits)[0] + estimate.ITEM + 16 * depth * 4 * 32 * estimate.NEAR_COST
    assert spilled == pytest.approx(16 * estimate.SPILL * twice / 8 * depth)
    assert of(twice)[1] == 0.0
    half = fits // 2
    assert of(half)[1] == pytest.approx(16 * estimate.SMALL * half / 8 * depth)  # too large for the rest to be held
    some, whole = 64, 16 * depth * 4 * (32 + 64) + 16 * 4 * 64 * 32  # V, weights and M
    share = 1 - math.log2(whole / estimate.CACHE)
    assert 0 < share < 1
    assert of(some)[1] == pytest.approx(16 * (estimate.HELD * share + estimate.SMALL) * some / 8 * depth)
    assert of(8)[1] == pytest.approx(16 * (estimate.HELD + estimate.SMALL) * depth)


LAYERS = [
    layer(),
    layer(kernel=(1, 1)),
    layer(filters=3),
    layer(channels=512, filters=512, size=(7, 7)),
    layer(groups=8),
    layer(dtype="f8"),
]


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("threads", [1, 3, 16])
@pytest.mark.parametrize("one", LAYERS, ids=range(len(LAYERS)))
def test_a_cut_is_the_best_of_what_is_allowed(one, threads, lanes, monkeypatch):
    monkeypatch.setattr(estimate, "machine", lambda: with_vectors(lanes * one.dtype.itemsize))
    for sizes in (None, (estimate.Size(4, 3, 6),) * 2) if one.kernel == (3, 3) and one.groups == 1 else (None,):
        work = work_of(one, sizes)
        found = list(_cuts(work, lanes, threads))
        most = estimate.LARGEST_BLOCK if work.xis > 1 else estimate.LARGEST_STRIP
        room = estimate.INPUT_BYTES if work.xis > 1 else estimate.STRIP_BYTES
        for option in found:
            assert 1 <= option.block <= max(lanes, most, work.row)
            assert option.block <= work.tiles
            assert option.block * work.xis * work.depth * work.size <= max(room, lanes * work.xis * work.depth * work.size)
            assert option.shares in (1, threads)
            if option.mt:
                sums = option.mt * option.nk
                assert estimate.LEAST_SUMS <= sums
                assert sums + option.nk + 1 <= estimate.machine().registers
                assert -(-work.filters // (option.nk * lanes)) >= option.shares  # every share has filters
        estimate.cut.cache_clear()
        for lying, options in ((None, found), (True, [o for o in found if o.mt]), (False, [o for o in found if not o.mt])):
            if options:
                best = cut(work, threads, lying)
                assert best.cycles == min(o.cycles for o in options)
                assert any((o.block, o.shares, o.mt, o.nk) == (best.block, best.shares, best.mt, best.nk) for o in options)
                chosen = min(o.cycles - o.held for o in options)
                assert any(
                    (o.block, o.mt, o.nk, o.held) == (best.block, best.mt, best.nk, best.held) and o.cycles - o.held == chosen
                    for o in options
                )
        estimate.cut.cache_clear()


@pytest.mark.parametrize("lanes", [4, 8])
def test_the_product_of_a_cut_is_the_sum_of_its_panels(lanes, monkeypatch):
    monkeypatch.setattr(estimate, "machine", lambda: with_vectors(lanes * 4))
    told = []
    monkeypatch.setattr(estimate, "_costed", lambda work, lanes, threads, way, *rest: told.append((way.block, way.shares, *rest)) or way)
    work = _small(filters=70, tiles=90, row=9)
    cuts = list(_cuts(work, lanes, 2))
    rows, columns = estimate.tile_panel()
    for one, (block, shares, product, back, filters) in zip(cuts, told, strict=True):
        assert (one.block, one.shares) == (block, shares)
        if one.mt:
            panels = len(range(0, len(range(0, 70, one.nk * lanes)), shares))  # of the busiest share
            assert product == pytest.approx(
                sum(panel_cycles(one.mt * one.nk, one.mt + one.nk) for _ in range(panels) for _ in range(0, block, one.mt))
            )
            assert filters == round_up(len(range(0, 70, shares)), lanes)
            assert back == block * filters / lanes
        else:
            vectors = len(range(0, block, lanes))
            filters_of_share = len(range(0, 70, shares))
            a_panel = sum(
                panel_cycles(rows * min(columns, vectors - at), rows + min(columns, vectors - at)) for at in range(0, vectors, columns)
            )
            assert filters == filters_of_share
            assert product == pytest.approx(sum(a_panel for _ in range(0, filters_of_share, rows)))
            assert back == pytest.approx(estimate.UNFUSED * filters_of_share * vectors)


def test_registers_hold_what_a_panel_needs(monkeypatch):
    for registers, vector_bytes in ((16, 16), (16, 32), (32, 16), (32, 64)):
        here = replace(with_vectors(vector_bytes), registers=registers)
        monkeypatch.setattr(estimate, "machine", lambda here=here: here)
        rows, columns = estimate.tile_panel()
        assert 8 <= rows * columns <= 24
        assert rows * columns + columns + 1 <= registers
        panels = list(estimate.filter_panels())
        assert len(set(panels)) == len(panels) >= 4
        assert all(mt >= 2 and mt * nk + nk + 1 <= registers for mt, nk in panels)
        assert max(mt * nk + nk + 1 for mt, nk in panels) > registers - 3  # the registers are used


def test_what_is_tried_of_a_layer_of_three_taps():
    plain = names(choice._ways(layer(), False, False))
    assert plain[0] is None
    real = {((m, 3, 0, 1),) * 2 for m in (2, 3, 4, 5, 6)}
    mixed = {((a, 3, 0, 1), (b, 3, 0, 1)) for a in range(2, 7) for b in range(2, 7) if 0 < abs(a - b) <= 2}
    assert {pair for pair in plain[1:] if pair[0][2] == 0} == real | mixed
    circles = {pair for pair in plain[1:] if pair[0][2]}
    assert all(one == other and one[0] >= 2 for one, other in circles)
    for n in (10, 14, 18):
        assert ((n - 2, 3, (n - 3) // 2, 1),) * 2 in circles
    for m, pairs in choice.complex_sizes(3, 2):
        assert ((m, 3, pairs, 1),) * 2 in circles
    loose = set(names(choice._ways(layer(), False, True)))
    assert loose - set(plain) >= {((7, 3, 0, 1),) * 2, ((8, 3, 0, 1),) * 2}
    assert len(names(choice._ways(layer(), False, True))) == len(loose)  # nothing twice


def test_what_is_tried_of_other_layers():
    for other in (layer(kernel=(1, 1)), layer(dilation=2), layer(groups=4), layer(channels=1), layer(filters=1)):
        assert names(choice._ways(other, False, False)) == [None]
    row = names(choice._ways(layer(kernel=(1, 5), size=(1, 60)), False, False))
    assert {pair[0] for pair in row[1:]} == {(1, 1, 0, 1)}
    assert {pair[1][0] for pair in row[1:] if not pair[1][2]} == set(choice.OUTPUTS[1])
    column = names(choice._ways(layer(kernel=(5, 1), size=(60, 1)), False, False))
    assert [pair and pair[::-1] for pair in column] == row
    uneven = names(choice._ways(layer(kernel=(3, 5)), False, False))
    assert all(pair[0][1:3] == (3, 0) and pair[1][1:3] == (5, 0) for pair in uneven[1:])
    wide = names(choice._ways(layer(kernel=(13, 13)), False, True))
    assert max(pair[0][0] for pair in wide[1:] if not pair[0][2]) + 12 == choice.LARGEST_TILE


def test_what_is_tried_of_a_stride():
    ways = choice._ways(layer(stride=2), False, False)
    assert not any(way.phased for way in ways)  # two taps per axis save too little
    assert {pair for pair in names(ways)[1:]} == {((a, 3, 0, 2), (b, 3, 0, 2)) for a in range(2, 7) for b in range(2, 7) if abs(a - b) <= 1}
    seven = choice._ways(layer(kernel=(7, 7), stride=2), False, False)
    assert {way.layer.kernel for way in seven if way.phased} == {(4, 4)}
    assert all(2 * (way.pair[0].m - 1) + 7 <= choice.LARGEST_TILE for way in seven if way.pair and not way.phased)
    asked = choice._ways(layer(stride=2), True, False)
    assert [way.phased for way in asked] == [False] + [True] * (len(asked) - 1)
    assert {way.layer.kernel for way in asked[1:]} == {(2, 2)}
    assert names(choice._ways(layer(kernel=(1, 3), size=(1, 60), stride=[1, 2]), False, False))[1][0] == (1, 1, 0, 1)
    assert names(choice._ways(layer(kernel=(2, 2), stride=4), False, False)) == [None]  # taps that fewer strides reach


def test_phases_cost_their_way_besides():
    ways = [way for way in choice._ways(layer(kernel=(7, 7), stride=2, batch=2, size=(40, 50)), True, False) if way.phased]
    way = ways[0]
    inner = way.layer
    plain = cut(work_of(inner, (way.pair[0].size, way.pair[1].size)), choice.THREADS).cycles
    vectors = 2 * inner.channels * inner.height * inner.width * 4 / machine().vector_bytes
    assert way.cycles == pytest.approx((plain + choice.PHASE * vectors) / choice.PAYS)


def test_a_method_says_what_its_cost_depends_on():
    one = choice.method_of("F(4x6,3x3)", layer())
    assert one.sizes == (estimate.Size(4, 3, 6, 1), estimate.Size(6, 3, 8, 1))
    assert choice.method_of("direct", layer()).sizes is None
    assert choice.Candidate(4, 3, 0, 2, 2).size == estimate.Size(4, 3, 9, 2)
    assert choice.Candidate(8, 3, 3, 2).size == estimate.Size(8, 3, 13)
    assert choice.Candidate(1, 1, 0, 2).algorithm() == fc.algebra.identity()
    for candidate in (choice.Candidate(4, 3, 0, 2, 2), choice.Candidate(8, 3, 3, 2), choice.Candidate(3, 3, 0, 1)):
        assert size_of(candidate.algorithm()) == candidate.size or candidate.stride > 1
        assert candidate.algorithm().n == candidate.n


@pytest.fixture
def given_machine(monkeypatch):
    """A machine with 32-byte vectors and 16 registers; kernels are named, not compiled."""
    monkeypatch.setenv(VARIABLE, "vector_bytes=32 registers=16 fma=1 line=64")
    machine.cache_clear()
    told = {}
    for name in ("blocked", "pointwise"):
        stub = lambda *what: told.setdefault(what, SimpleNamespace(address=len(told) + 1, name=str(what)))
        monkeypatch.setattr(f"fastconv.kernels.runners.{name}.compiled", stub)
    estimate.cut.cache_clear()
    yield told
    monkeypatch.undo()
    machine.cache_clear()
    estimate.cut.cache_clear()


def described_as(monkeypatch, one, algorithm, cut_, threads=2):
    """Return the engine's parts of a layer that is cut as given: block, shares, and the panel with filters in the lanes."""
    monkeypatch.setattr("fastconv.kernels.runners.blocked.cut", lambda *_: estimate.Cut(*cut_, 0.0))
    method = choice.method_of(algorithm, replace(one, blocks=(False, False)))
    weight = np.zeros((one.filters, one.channels // one.groups, *one.kernel), one.dtype)
    return blocked(one, method, weight, "huffman", threads), method


SIZES = "blocks kblock kblocks pitch take take_pitch lane_pitch ldv v_xi v_row v_tap v_channel m_xi m_tile m_panel line chunk piece turn"
SIZES = [*SIZES.split(), "u_kblock", "u_group", "band", "transposed", "column", "input", "output", "half", "whole", "lines", "workspace"]
CUTS = {
    "tiles": (layer(20, 30, size=(37, 29), batch=2), "F(4x4,3x3)", (40, 2, 0, 0)),
    "filters": (layer(20, 30, size=(37, 29), batch=2), "F(4x4,3x3)", (40, 2, 4, 2)),
    "transposed": (layer(16, 30, size=(37, 29)), "F(4x2,3x3)", (31, 1, 5, 2)),
    "float64": (layer(12, 7, size=(20, 50), dtype="f8"), "F(2x6,3x3)", (24, 1, 4, 1)),
    "a large block": (layer(40, 300, size=(60, 110)), "F(6x6,3x3)", (192, 2, 0, 0)),
    "direct": (layer(20, 30, (3, 5), size=(37, 29), stride=2, groups=2), "im2col", (50, 1, 0, 0)),
    "dilated": (layer(20, 30, (3, 5), size=(37, 29), dilation=2), "im2col", (50, 1, 6, 2)),
    "one tap": (layer(20, 30, (1, 1), size=(14, 18)), "im2col", (48, 2, 0, 0)),
    "one tap, a large plane": (layer(20, 30, (1, 1), size=(34, 38)), "im2col", (48, 2, 4, 3)),
    "a row": (layer(20, 30, (1, 3), size=(1, 300)), "F(4,3)", (75, 1, 0, 0)),
    "a column": (layer(20, 30, (3, 1), size=(300, 1)), "F(4,3)", (25, 1, 0, 0)),
    "a column, filters": (layer(20, 30, (3, 1), size=(300, 5)), "F(4,3)", (25, 1, 6, 2)),
    "blocks": (replace(layer(16, 32, size=(37, 29)), blocks=(True, True)), "F(4x4,3x3)", (42, 2, 4, 2)),
    "blocks read": (replace(layer(16, 30, size=(37, 29)), blocks=(True, False)), "F(4x4,3x3)", (40, 1, 4, 2)),
    "blocks written": (replace(layer(20, 32, size=(37, 29)), blocks=(False, True)), "im2col", (40, 1, 4, 2)),
    "past the caches": (layer(2, 64, size=(256, 256)), "F(4x4,3x3)", (100, 1, 4, 2)),
    "a stride": (layer(20, 30, size=(37, 29), stride=2), "F(4x4,3x3)s2", (40, 2, 4, 2)),
}
SIZES_OF_CUTS = {
    "tiles": "4 16 2 224 19 2624 192 160 3264 19584 3264 160 3136 "
    "0 0 768 40 40 2 46080 86400 4480 12608 12608 14016 131584 244544 249216 252352 255552",
    "filters": "4 16 2 224 19 2624 192 160 3264 19584 3264 160 3136 "
    "64 3072 960 40 40 2 46080 92160 4480 12608 12608 14016 131712 244672 281600 281664 312512",
    "transposed": "5 32 1 224 40 2752 160 1120 2368 9472 2368 1120 5568 "
    "64 2752 448 32 32 4 49152 49152 3520 7616 24128 40704 97728 231424 251968 252032 266432",
    "float64": "4 8 1 704 20 4160 224 768 2368 18944 2368 768 1856 "
    "32 896 1600 24 24 2 24576 24576 2688 14016 30656 47360 123328 182784 197184 197248 210240",
    "a large block": "1 20 15 672 9 1984 800 768 30784 246272 30784 768 16064 "
    "0 0 4800 32 32 4 204800 3072000 21504 86080 86080 91520 2061760 3089920 3128384 3157248 3186240",
    "direct": "6 16 1 224 82 5440 256 256 38528 1280 256 3840 4160 "
    "0 0 256 56 56 8 9600 9000 5632 9024 9024 9088 47680 51904 51968 52032 52352",
    "dilated": "18 32 1 256 161 5440 256 256 76928 1280 256 3840 8000 "
    "64 3968 320 56 56 8 38400 38400 5632 8000 8000 8064 85248 93312 93376 93440 96064",
    "one tap": "6 16 2 192 511 16448 224 224 4608 224 224 224 3648 "
    "0 0 224 48 48 8 1280 2400 5376 6208 6208 6272 10944 14656 14720 14784 15040",
    "one tap, a large plane": "27 24 2 256 511 16448 224 224 4608 224 224 224 5440 "
    "96 5376 320 48 48 8 1920 3840 5376 6208 6208 6272 11072 16576 16640 16704 19328",
    "a row": "1 32 1 1376 126 16320 352 320 6464 38784 6464 320 11328 "
    "0 0 1408 64 64 2 15360 14400 8448 11264 11264 11328 50176 118208 118272 119744 121280",
    "a column": "3 32 1 128 84 2752 160 160 3328 3328 3328 160 5184 "
    "0 0 160 32 32 8 15360 14400 2816 22080 22080 22912 42944 74112 74816 74880 75584",
    "a column, filters": "15 32 1 128 84 2752 160 160 3328 3328 3328 160 4928 "
    "64 2432 192 32 32 8 15360 15360 2816 7488 7488 8320 28544 58176 63360 63424 69632",
    "blocks": "2 16 2 1504 19 2624 224 1408 2880 17280 2880 1408 3392 "
    "64 3328 1088 48 48 2 36864 73728 4736 67968 67968 83776 187648 309824 352896 352960 387904",
    "blocks read": "2 32 1 1504 19 2624 192 1280 2624 15744 2624 1280 6208 "
    "64 3072 960 40 40 2 73728 73728 4480 58688 58688 74496 169152 392704 429632 429696 460544",
    "blocks written": "27 32 1 224 167 5440 192 192 34688 576 192 1728 6208 "
    "64 3072 320 40 40 8 23040 23040 4480 6528 6528 6592 41472 47744 47808 47872 50496",
    "past the caches": "41 64 1 1120 19 2624 448 416 960 5760 960 416 27712 "
    "64 6912 1856 64 100 2 18432 18432 11200 31424 31424 38208 72960 1070656 1126016 1126080 1185600",
    "a stride": "1 16 2 384 5 1600 192 160 3264 29376 3264 160 3136 "
    "64 3072 960 40 40 2 103680 207360 4480 42560 42560 46080 310656 564736 620096 620160 651008",
}
"""Bytes of one thread's workspace by part, in the order of `SIZES`, on a machine with 32-byte vectors."""


@pytest.mark.parametrize("name", CUTS)
def test_what_a_thread_works_in_is_as_large_as_it_was(name, given_machine, monkeypatch):
    """More wastes memory; with less, writes pass the end."""
    parts, _ = described_as(monkeypatch, *CUTS[name])
    found = {field: int(parts.description[field]) for field in SIZES}
    assert found == dict(zip(SIZES, map(int, SIZES_OF_CUTS[name].split()), strict=True))
    assert parts.workspace == found["workspace"]


def blocks_of(filters, size):
    return [range(at, min(at + size, filters)) for at in range(0, filters, size)]


@pytest.mark.parametrize("name", CUTS)
def test_the_engine_is_told_the_layer_and_its_cut(name, given_machine, monkeypatch):
    one, algorithm, (block, shares, mt, nk) = CUTS[name]
    parts, method = described_as(monkeypatch, *CUTS[name])
    d = {field: int(parts.description[field]) for field in parts.description.dtype.names}
    lanes, size, (mr, nv) = 32 // one.dtype.itemsize, one.dtype.itemsize, (4, 3)
    m = (1, 1) if method.axes is None else tuple(alg.m for alg in method.axes)
    fast = [method.axes is not None and alg.n > 1 for alg in method.axes or (None, None)]
    made, taken = one.filters // one.groups, one.channels // one.groups
    tiles = [len(range(0, out, step)) for out, step in zip(one.output, m, strict=True)]
    transposed = bool(mt and fast[1] and one.groups == 1 and taken % lanes == 0 and not one.blocks[0])
    panel = nk * lanes if mt else mr
    depth, xis = (taken, d["products_h"] * d["products_w"]) if method.axes else (taken * math.prod(one.kernel), 1)
    expected = {"size": size, "bias": size, "lanes": lanes, "groups": one.groups, "channels": taken, "out_channels": made}
    expected |= {"pixel": lanes if one.blocks[0] else 1, "out_pixel": lanes if one.blocks[1] else 1, "adds": 0}
    expected |= {"height": one.height, "width": one.width, "out_height": one.output[0], "out_width": one.output[1]}
    expected |= {"pad_top": one.padding[0][0], "pad_left": one.padding[1][0], "out_h": m[0], "out_w": m[1]}
    expected |= {"tiles_h": tiles[0], "tiles_w": tiles[1], "tiles": one.batch * math.prod(tiles)}
    expected |= {"block": block, "shares": shares, "mt": mt, "nk": nk, "mr": mr, "depth": depth, "xis": xis}
    expected |= {"channel_block": estimate.CHANNEL_CHAIN if method.axes else estimate.DIRECT_CHAIN}
    if method.axes:
        expected |= {"step_h": m[0] * one.stride[0], "step_w": m[1] * one.stride[1], "row_step": 1}
        expected |= {"rows": method.axes[0].n, "taps": method.axes[1].n, "span": method.axes[1].n}
        expected |= {"products_h": method.axes[0].products, "products_w": method.axes[1].products}
    else:
        expected |= {"step_h": one.stride[0], "step_w": one.stride[1], "row_step": one.dilation[0], "rows": one.kernel[0]}
        expected |= {"taps": one.kernel[1], "span": (one.kernel[1] - 1) * one.dilation[1] + 1}
        expected |= {"products_h": one.kernel[0], "products_w": one.kernel[1]}
    expected |= {"straight": one.kernel == (1, 1) and method.axes is None and one.height * one.width * size <= 1024}
    expected |= {"past": one.batch * one.filters * math.prod(one.output) * size >= 16 << 20 and not one.blocks[1]}
    assert {field: d[field] for field in expected} == expected
    assert d["blocks"] == len(range(0, d["tiles"], block))
    assert d["kblock"] % panel == 0
    assert d["kblocks"] == len(blocks_of(made, d["kblock"])) >= shares
    assert bool(d["input_h"]) == bool(d["output_h"]) == bool(d["input_h_constants"]) == fast[0]
    assert bool(d["pixels"]) == transposed
    assert bool(d["output_w"]) == (fast[1] and not mt)
    assert parts.items == one.groups * d["blocks"] * shares
    held = -(-made // panel) * panel if mt else made
    assert parts.held == (held if mt else 0)
    assert parts.weights.nbytes == one.groups * xis * held * depth * size == one.groups * d["u_group"]
    assert len(parts.tables) == 2 + 2 * fast[0]
    names = {what[0].rpartition(".")[2]: what[1:] for what in given_machine}
    kind = f"f{size}"
    assert parts.joiner == (
        ("kernels.steps.finish_pixels", kind, parts.joiner[2], 0)
        if mt and one.blocks[1]
        else ("kernels.steps.join_filters", kind, m[1], parts.joiner[3], 0)
        if mt
        else ("kernels.steps.join", kind, m[1], 0)
    )
    assert names["product_filters" if mt else "product"] == (
        (kind, mt, nk, lanes if transposed or one.blocks[0] else 1) if mt else (kind, mr, nv, made % mr)
    )
    if transposed or one.blocks[0]:
        assert "split" not in names
    else:
        offsets = tuple(k * (1 if method.axes else one.dilation[1]) for k in range(d["taps"]))
        assert names["split"][:3] == (kind, d["step_w"], offsets)
    assert int(parts.adding["adds"]) == 1
    weight = np.zeros((one.filters, taken, *one.kernel), one.dtype)
    shaped = blocked(one, method, weight, "huffman", 2, True)
    assert (int(shaped.description["bias"]), shaped.joiner) == (4 * size, (*parts.joiner[:-1], 1))
    assert given_machine[(*parts.joiner, 1)].address == int(parts.adding["joiner"]) != d["joiner"]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("batch", "channels", "filters", "size", "stride", "groups", "dtype"),
    [
        (1, 64, 64, (16, 15), 1, 1, "f4"),
        (2, 3, 5, (1, 1), 1, 1, "f4"),
        (1, 300, 24, (7, 7), 1, 1, "f4"),
        (1, 600, 50, (40, 50), 1, 1, "f8"),
        (3, 260, 14, (30, 31), 1, 2, "f4"),
        (1, 520, 131, (30, 28), 2, 1, "f4"),
        (0, 8, 8, (9, 9), 1, 1, "f4"),
        (1, 16, 40, (96, 1), 1, 1, "f4"),
        (1, 16, 40, (97, 1), 1, 1, "f4"),
        (1, 16, 40, (20, 20), 1, 1, "f4"),
    ],
)
def test_layers_of_one_tap_are_cut_into_enough_items(batch, channels, filters, size, stride, groups, dtype, threads, given_machine):
    one = layer(channels, filters, (1, 1), size, stride, groups, batch, dtype)
    weight, number = np.zeros((filters, channels // groups, 1, 1), dtype), one.dtype.itemsize
    for activation in (None, fc.kernels.RELU):
        runner = PointwiseRunner(one, weight, None, threads, activation)
        d = {field: int(runner.description[field]) for field in runner.description.dtype.names}
        wide, outputs = 3 * 32 // number, math.prod(one.output)
        panels, held, images = len(range(0, outputs, wide)), len(range(0, filters // groups, 4)), max(batch, 1) * groups
        if panels <= 4:  # all pixels are one block: six items per thread come from the filters
            group, wanted = panels, -(-6 * threads // images)
        else:
            group = min(4, max(1, panels * images // (12 * threads)))
            wanted = -(-12 * threads // (len(range(0, panels, group)) * images))
        part = held if threads == 1 or wanted == 1 else round_up(math.ceil(held / wanted), 3)
        expected = {"channels": channels // groups, "filters": filters // groups, "groups": groups, "plane": math.prod(size)}
        expected |= {"outputs": outputs, "width": one.output[1], "row_step": stride * size[1], "column_step": stride}
        expected |= {"straight": stride == 1, "panels": panels, "held": held, "group": group, "part": part, "adds": 0}
        expected |= {"blocks": len(range(0, panels, group)), "shares": len(range(0, held, part)), "chain": 128}
        expected |= {"chunk": min(channels // groups, 256)}
        expected |= {"sums": group * wide * number * expected["chunk"] + 64}
        expected |= {"places": expected["sums"] + group * part * 4 * wide * number + 64}
        assert {field: d[field] for field in expected} == expected
        items = images * expected["blocks"] * expected["shares"]
        assert (runner.items, runner.members) == (items, min(threads, items))
        each = -(-(expected["places"] + group * wide * 8 + 3 * 4 * wide * number + 64) // 64) * 64
        assert runner.workspace_bytes == COUNTER + runner.members * each
        assert runner.weight_bytes == groups * held * 4 * channels // groups * number
        assert runner.table.shape == (groups, held * 4, 1 if activation is None else 4)
        assert int(runner.job(np.empty(0), np.empty(0), adding=True).description["adds"]) == 1
        assert int(runner.description["adds"]) == 0
        assert runner.details() == [
            f"{panels} panels of pixels in {d['blocks']} blocks of {group}",
            f"filters in {d['shares']} shares, {d['chunk']} channels at a time",
            "products summed in chains of 128 with fused multiply-add",
        ]


def test_filters_of_one_tap_are_packed_in_panels():
    rng = np.random.default_rng(0)
    for groups, filters, channels, mr, chunk in ((1, 10, 7, 4, 3), (2, 5, 6, 4, 6), (3, 8, 5, 4, 2)):
        weight = rng.standard_normal((groups * filters, channels)).astype("f4")
        numbers = []
        for g in range(groups):
            for c in range(0, channels, chunk):
                for panel in range(0, filters, mr):
                    for k in range(c, min(c + chunk, channels)):
                        numbers += [weight[g * filters + f, k] if f < filters else 0.0 for f in range(panel, panel + mr)]
        np.testing.assert_array_equal(packed_filters(weight, groups, mr, chunk).ravel(), np.array(numbers, "f4"))


def test_weights_are_packed_in_the_order_in_which_they_are_read():
    rng = np.random.default_rng(0)
    for groups, xis, filters, depth, kblock, panel, chain in ((1, 2, 10, 7, 8, 4, 3), (2, 1, 9, 8, 4, 4, 8), (2, 3, 6, 5, 6, 4, 2)):
        u = rng.standard_normal((groups, xis, filters, depth)).astype("f4")
        for g, found in enumerate(packed(u, kblock, panel, chain)):
            numbers = []
            for block in blocks_of(filters, kblock):
                for xi in range(xis):
                    for c in range(0, depth, chain):
                        for at in range(block.start, block.stop, panel):
                            some = range(at, min(at + panel, block.stop))
                            numbers += [u[g, xi, f, k] for k in range(c, min(c + chain, depth)) for f in some]
            np.testing.assert_array_equal(found, np.array(numbers, "f4"))


@pytest.mark.parametrize("fma", [False, True])
def test_a_plan_says_how_its_layer_is_cut(fma, monkeypatch):
    """The lines of `explain` describe a given cut."""
    here = replace(machine(), fma=fma)
    monkeypatch.setattr("fastconv.kernels.runners.plan.machine", lambda: here)
    monkeypatch.setattr("fastconv.kernels.runners.pointwise.machine", lambda: here)
    monkeypatch.setattr("fastconv.kernels.runners.blocked.cut", lambda *_: estimate.Cut(10, 2, 0, 0, 0.0))
    name = "fused multiply-add" if fma else "multiplications and additions"
    lanes, w = machine().vector_bytes // 4, np.ones((30, 20, 3, 3), "f4")
    plan = fc.plan_conv2d(w, padding=1, input_shape=(1, 20, 21, 22), algorithm="F(4x4,3x3)", threads=2)
    lines = plan.explain().splitlines()
    at = lines.index("36 tiles in 4 blocks of 10")
    assert re.fullmatch(r"filters in 2 shares, \d+ transformed back at once", lines[at + 1])
    assert lines[at + 2] == f"products summed in chains of 32 with {name}, vectors of {lanes}"
    assert plan.workspace_bytes == COUNTER + 2 * plan._runner.parts.workspace
    assert lines[-1] == f"workspace {plan.workspace_bytes} bytes, packed weights {36 * 30 * 20 * 4} bytes, 2 threads"
    one = fc.plan_conv2d(w[:, :, :1, :1], input_shape=(1, 20, 21, 22), algorithm="direct", threads=1)
    assert f"products summed in chains of 128 with {name}" in one.explain()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_transforms_of_a_fourier_layer_are_counted(dtype, monkeypatch):
    """The workspace holds half a plane of complex numbers for input, output and their products."""
    w, asked = np.ones((6, 4, 5, 3), dtype), {}
    monkeypatch.setattr("fastconv.kernels.runners.fourier.check_bytes", asked.__setitem__)
    plan = fc.plan_conv2d(w, padding=(2, 1), groups=2, input_shape=(3, 8, 23, 30), algorithm="fft", threads=1)
    assert "transforms of 27 x 32" in plan.explain()
    number = 2 * w.itemsize
    assert plan.workspace_bytes == 27 * 17 * number * 3 * (8 + 6) * 2
    assert plan.weight_bytes == 27 * 17 * number * 6 * 4
    assert asked == {"a workspace": plan.workspace_bytes, "transformed weights": plan.weight_bytes}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_blocks_that_are_tried_go_from_the_fewest_to_the_smallest(threads):
    """Eight steps of one ratio, plain and rounded to the threads, and whole rows of tiles."""
    for work in (_small(tiles=3000, depth=40, row=50), _small(tiles=90, row=9), _small(tiles=700, xis=1, depth=300, row=35)):
        fast = work.xis > 1
        tile = work.xis * work.depth * work.size
        room = min(192, (8 << 20) // tile) if fast else min(400, (5 << 19) // tile)
        fewest, most = -(-work.tiles // room), round_up(-(-work.tiles // 24), threads)
        counts = {fewest, most}
        for k in range(8):
            some = round(fewest * (most / fewest) ** (k / 8))
            counts |= {some, round_up(some, threads)}
        blocks = {-(-work.tiles // min(count, work.tiles)) for count in counts if count >= fewest}
        if fast:
            blocks |= {rows * work.row for rows in range(1, 1000) if 24 <= rows * work.row <= min(room, work.tiles)}
        assert {one.block for one in _cuts(work, 8, threads)} == blocks


def test_what_nothing_else_serves_is_direct_and_says_why():
    one = layer(dilation=2)
    plain, limited = choice.choose(one), choice.choose(one, 1e-3)
    assert plain == choice.Method("direct", None, "chosen: no fast algorithm is estimated to pay on this layer")
    error = choice.estimated(one).error
    assert limited == choice.Method("direct", None, f"chosen: predicted relative error {error:.1e}, the limit is 1.0e-03")
    assert choice.choose(layer(dilation=2, dtype="f8")) == plain
    way = choice.choose(layer(kernel=(7, 7), stride=2), 1e-3, phases=True)
    assert way.phases
    assert re.fullmatch(
        r"chosen: F\(.*\) on the phases of the image, predicted relative error .*, the limit is 1.0e-03, .* estimate", way.why
    )


@pytest.mark.parametrize(
    ("name", "kernel", "stride", "words"),
    [
        (
            "F(15x15,3x3)",
            3,
            1,
            "n = m + r - 1 = 17: layers run tiles of at most 16; take a smaller m, or complex points, 'F(15x15,3x3)/24'",
        ),
        ("F(15x15,3x3)/17", 3, 1, "= 17: layers run tiles of at most 16; take a smaller m, or complex"),
        ("F(60x60,3x3)/62", 3, 1, "= 62: layers run tiles of at most 16; take a smaller m, or complex"),
        ("F(65x65,3x3)/98", 3, 1, "= 67: layers run tiles of at most 66; take a smaller m"),
        ("F(8x8,3x3)s2", 3, 2, "tiles of 17: layers run tiles of at most 16; take a smaller m"),
    ],
)
def test_tiles_that_are_too_large_are_refused(name, kernel, stride, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        choice.method_of(name, layer(kernel=(kernel, kernel), stride=stride))
    assert str(caught.value).endswith("smaller m") == ("complex" not in words)


def test_numbers_that_are_no_floats_are_refused_with_the_reason():
    for kind, words in (
        ("i4", "become inexact silently"),
        ("u1", "become inexact silently"),
        ("?", "silently"),
        ("c8", "not support complex"),
    ):
        with pytest.raises(TypeError, match=words):
            fc.conv2d(np.ones((1, 1, 4, 4), kind), np.ones((1, 1, 3, 3), "f4"))

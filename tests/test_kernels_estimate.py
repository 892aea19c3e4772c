"""What is counted of a layer before it is cut, and what a cut costs: held against counts by loops, for machines that are given."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv.kernels.choose import cut as estimate
from fastconv.kernels.choose import method as choice
from fastconv.kernels.choose.cut import _cuts, _cycles, _vectors, cut, panel_cycles, size_of, work_of
from fastconv.kernels.layer import layer_of
from fastconv.native import machine, round_up


def layer(channels=16, filters=24, kernel=(3, 3), size=(30, 41), stride=1, groups=1, batch=1, dtype="f4", dilation=1):
    weight = np.broadcast_to(np.zeros((), dtype), (filters, channels // groups, *kernel))
    padding = [k // 2 for k in kernel]
    return layer_of(weight, None, stride, padding, dilation, groups, (batch, channels, *size), 2)


def with_vectors(vector_bytes):
    """Return this machine with other vectors."""
    return replace(machine(), vector_bytes=vector_bytes)


def names(ways):
    """What is tried of a layer: outputs, taps, pairs of complex points and strides along both axes; None for direct."""
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
    # Of a tile: the two columns that its neighbour did not transform, then a row for each product of the height.
    into = sum(height.into for _ in range(2)) + sum(width.into for _ in range(6))
    back = sum(height.back for _ in range(4)) + sum(width.back for _ in range(4))
    assert work.into == pytest.approx(estimate.COPY + estimate.OPERATION * into / 24)
    assert work.back == pytest.approx(estimate.COPY + estimate.OPERATION * back / 24)
    assert work_of(layer(batch=0), None).tiles == work_of(layer(batch=1), None).tiles


def test_a_panel_takes_as_long_as_what_it_has_most_of():
    extra = 0.05
    assert panel_cycles(8, 4) == pytest.approx(4 + extra)  # two multiply-adds a cycle
    assert panel_cycles(2, 3) == pytest.approx(4 + extra)  # fewer than eight sums wait for each other
    assert panel_cycles(8, 12) == pytest.approx(6 * 1.1 + extra)  # two loads a cycle; more than seven are in each other's way
    assert panel_cycles(12, 7) == pytest.approx(6 + extra + 0.13 * 3)
    assert panel_cycles(10, 7) == pytest.approx(5 + extra + 0.13)
    assert panel_cycles(9, 7) == pytest.approx(4.5 + extra)
    assert panel_cycles(24, 7) == pytest.approx(12 + extra + 0.13 * 3)


@pytest.mark.parametrize(("row", "block"), [(7, 21), (7, 30), (7, 5), (50, 24), (8, 8), (3, 2), (50, 100), (50, 130)])
def test_runs_of_tiles_are_split_into_whole_vectors(row, block):
    """A block begins at any tile of a row, each as likely as the other where it is no whole number of rows."""
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
                assert -(-work.filters // (option.nk * lanes)) >= option.shares  # nobody is without filters
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
    monkeypatch.setattr(
        estimate, "_cycles", lambda work, lanes, threads, block, shares, *rest: told.append((block, shares, *rest)) or (0.0, 0.0)
    )
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
    for n in choice.CIRCLES[2]:
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
    assert not any(way.phased for way in ways)  # of two taps an axis: they save too little
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

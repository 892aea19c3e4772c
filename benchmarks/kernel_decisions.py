"""Time layers with each decision of the kernels and with its alternatives.

    python benchmarks/kernel_decisions.py [--turns 7] [--decisions NAME ...]

Decisions: tiles or filters in the lanes, prefetch distance of the weights, tiles per block, threads, order of summation in the transforms,
outputs per tile, algorithms for stride two, channels-blocked layout. For each layer all variants are prepared first and called in turn, in
rotating order. A turn is the median of a few calls, and the result is the median of the turns. Each row has the multiply-add rate of two
threads. Writes figures/kernel_decisions.csv; docs/kernels.md explains it.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import contest
import numpy as np

import fastconv
from fastconv.kernels import How, layer_of, plan_layer
from fastconv.kernels.choose import cut
from fastconv.kernels.runners import blocked
from fastconv.native.objects import Compiled, compiled

FIGURES = Path(__file__).parent.parent / "figures"
Size = tuple[int, ...]  # channels, filters, height = width, and the stride where it is not one
Cutter = Callable[[cut.Work, int, bool], cut.Cut]

SMALL_TO_LARGE: tuple[Size, ...] = ((64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7))


@contextmanager
def rebound(place: Any, **values: Any) -> Iterator[None]:
    """Give names of a module other values temporarily."""
    before = {name: getattr(place, name) for name in values}
    try:
        for name, value in values.items():
            setattr(place, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(place, name, value)


def plan_of(
    size: Size,
    algorithm: str = "F(4x4,3x3)",
    threads: int = 2,
    cutter: Cutter = cut.cut,
    order: str | None = None,
    in_blocks: tuple[bool, bool] | None = None,
) -> contest.Call:
    """Return a call of a plan with a given `cutter`, input and output in channels-blocked layout if `in_blocks`."""
    (channels, filters, side), (stride,) = size[:3], size[3:] or (1,)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, channels, side, side), np.float32)
    w = rng.standard_normal((filters, channels, 3, 3), np.float32)
    with rebound(blocked, cut=cutter):
        settings = {"input_shape": x.shape, "algorithm": algorithm, "threads": threads}
        if in_blocks is None:
            plan = fastconv.plan_conv2d(w, None, stride, 1, order=order, **settings)
        else:
            layer = replace(layer_of(w, None, stride, 1, 1, 1, x.shape), blocks=in_blocks)
            plan = plan_layer(layer, w, None, How(algorithm, threads))
    out = np.empty(plan.output_shape, np.float32)
    return lambda: plan(x.reshape(plan.input_shape), out)


def fastest(filters_in_lanes: bool) -> Cutter:
    """Return a chooser of the fastest cut with filters, or tiles, in the lanes."""

    def choose(work: cut.Work, threads: int, filters: bool) -> cut.Cut:
        lanes = cut.machine().vector_bytes // work.size
        return min((c for c in cut._cuts(work, lanes, threads) if bool(c.mt) == filters_in_lanes), key=lambda c: c.cycles)

    return choose


@contextmanager
def fetched(ahead: int, ahead_scalars: int) -> Iterator[None]:
    """Prepare plans whose inner products prefetch weights the given number of bytes ahead."""
    distance = {"kernels.steps.product": ahead_scalars, "kernels.steps.product_filters": ahead}

    def fetching(source: str, *parameters: object) -> Compiled:
        return compiled(source, *parameters, *([distance[source]] if source in distance else []))

    with rebound(blocked, compiled=fetching):
        yield


def lanes() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    for size in SMALL_TO_LARGE:
        yield (
            size,
            {name: plan_of(size, cutter=fastest(held)) for name, held in (("tiles in the lanes", False), ("filters in the lanes", True))},
        )


def fetching() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    from fastconv.kernels.source.steps import AHEAD, AHEAD_SCALARS

    own = (AHEAD, AHEAD_SCALARS)
    for size in ((64, 64, 56), (256, 256, 14), (512, 512, 28), (512, 512, 7)):
        calls = {}
        for name, (vectors, scalars) in {
            "not ahead": (0, 0),
            f"{own[0]} and {own[1]} bytes ahead (as set)": own,
            "8192 and 4096 bytes ahead": (8192, 4096),
        }.items():
            with fetched(vectors, scalars):
                calls[name] = plan_of(size)
        yield size, calls


def blocks() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    for size in ((64, 64, 224), (64, 64, 56), (256, 256, 56), (512, 512, 28)):
        calls = {"as chosen": plan_of(size)}
        for tiles in (8, 28, 56, 98, 192, 384):
            if tiles <= cut.parts(size[2], 4) ** 2:
                calls[f"{tiles} tiles"] = plan_of(size, cutter=lambda *given, tiles=tiles: replace(cut.cut(*given), block=tiles))
        yield size, calls


def threads() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    for size in SMALL_TO_LARGE:
        yield size, {name: plan_of(size, threads=count) for name, count in (("one thread", 1), ("two threads", 2))}


def orders() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    for size in ((64, 64, 224), (64, 64, 56), (128, 128, 28)):
        yield size, {name: plan_of(size, order=name) for name in ("huffman", "huffman+shared", "huffman+shared+fma")}


def outputs() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    squares, near = ("direct", "F(2x2,3x3)", "F(3x3,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"), ("F(4x2,3x3)", "F(5x3,3x3)", "F(5x4,3x3)")
    for size in ((64, 64, 224), (64, 64, 56), (256, 256, 14), (512, 512, 14), (512, 512, 7)):
        yield size, {name: plan_of(size, name) for name in (*squares, *near, "auto")}


def strides() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    for size in ((64, 64, 112, 2), (64, 128, 56, 2), (128, 128, 56, 2), (128, 256, 28, 2), (256, 256, 28, 2), (256, 512, 14, 2)):
        yield size, {name: plan_of(size, name) for name in ("direct", "phases", "F(2x2,3x3)s2", "F(3x3,3x3)s2", "F(4x4,3x3)s2", "auto")}


def channels() -> Iterator[tuple[Size, dict[str, contest.Call]]]:
    lies = {"planes": None, "input in blocks": (True, False), "output in blocks": (False, True), "both in blocks": (True, True)}
    for size in ((64, 64, 224), (128, 128, 112), (256, 256, 56), (512, 512, 28), *SMALL_TO_LARGE):
        yield size, {name: plan_of(size, "auto", in_blocks=blocks) for name, blocks in lies.items()}


DECISIONS = {
    "lanes": lanes,
    "weights fetched": fetching,
    "tiles of a block": blocks,
    "threads": threads,
    "order of the transforms": orders,
    "outputs of a tile": outputs,
    "stride two": strides,
    "channels": channels,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--decisions", nargs="+", choices=DECISIONS, default=list(DECISIONS), help="which; rows of the others are kept")
    options = parser.parse_args()
    turns, file = options.turns, FIGURES / "kernel_decisions.csv"
    rows: list[dict[str, Any]] = []
    for decision, variants in DECISIONS.items():
        if decision not in options.decisions:
            with file.open(encoding="utf-8", newline="") as old:
                rows += [row for row in csv.DictReader(old) if row["decision"] == decision]
            continue
        for size, calls in variants():
            (channels, filters, side), (stride,) = size[:3], size[3:] or (1,)
            times: dict[str, list[float]] = {name: [] for name in calls}
            names, rates = list(calls), []
            for k in range(turns):
                rates.append(contest.multiply_add_rate(2))
                first = k % len(names)
                for name in names[first:] + names[:first]:
                    times[name].append(contest.median_call(calls[name], 0.02))
            for name in names:
                seconds = statistics.median(times[name])
                rows.append(
                    {
                        "decision": decision,
                        "layer": f"{channels}-{filters}@{side}" + ("" if stride == 1 else f" stride {stride}"),
                        "variant": name,
                        "milliseconds": round(seconds * 1e3, 3),
                        "effective_gflops": round(18 * channels * filters * cut.parts(side, stride) ** 2 / seconds / 1e9, 1),
                        "fma_gflops": round(statistics.median(rates)),
                    }
                )
                print(
                    "{decision:18}{layer:22}{variant:40}{milliseconds:9.3f} ms{effective_gflops:8.1f}  fma {fma_gflops}".format(**rows[-1])
                )
    contest.write_rows(file, rows)


if __name__ == "__main__":
    main()

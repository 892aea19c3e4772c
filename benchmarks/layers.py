"""Time convolution layers against alternative libraries.

    python benchmarks/layers.py [--python PYTHON ...] [--before PYTHON] [--layers NAME ...] [--contenders NAME ...] [--turns 9]
                                [--threads 2]

Each ``--python`` is an interpreter with peers installed (torch, onnxruntime, openvino, ncnn, MNN, ai-edge-litert, jax), in
separate environments if needed. ``--before`` is one with an earlier fastconv, which also runs. benchmarks/contest.py runs the
turns, benchmarks/layer_peers.py calls the peers. Effective GFLOP/s are the operations of the direct convolution over the time,
for every algorithm. The error is the relative L2 norm of the difference to a direct convolution in float64. The share is the time
of a row's roofline over the measured time. The roofline is the longer of two times: the multiplications of the algorithm at the
multiply-add rate of that turn, and its bytes (input, output, packed weights) at the rate of copying that many. The results go to
figures/layers_THREADS.csv, which analysis/layers_figures.py draws.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contest
import numpy as np
from layer_peers import PEERS, Call, Case

FIGURES = Path(__file__).parent.parent / "figures"

VGG_AND_RESNET = {
    "64-64@224": Case(1, 64, 64, 224),
    "64-128@112": Case(1, 64, 128, 112),
    "128-128@112": Case(1, 128, 128, 112),
    "128-256@56": Case(1, 128, 256, 56),
    "256-256@56": Case(1, 256, 256, 56),
    "256-512@28": Case(1, 256, 512, 28),
    "512-512@28": Case(1, 512, 512, 28),
    "512-512@14": Case(1, 512, 512, 14),
    "64-64@56": Case(1, 64, 64, 56),
    "128-128@28": Case(1, 128, 128, 28),
    "256-256@14": Case(1, 256, 256, 14),
    "512-512@7": Case(1, 512, 512, 7),
    "64-64@256": Case(1, 64, 64, 256),
}
LARGER_KERNELS = {"5x5 64-64@56": Case(1, 64, 64, 56, 5), "7x7 64-64@56": Case(1, 64, 64, 56, 7)}
ONE_DIMENSION = {f"1-D k={k} 64-64@16384": Case(1, 64, 64, 16384, k, 1) for k in (3, 9, 31)}
BATCHES = {"64-64@56 batch 8": Case(8, 64, 64, 56), "128-128@28 batch 8": Case(8, 128, 128, 28)}
RESNET50 = {
    f"{k}x{k}{f' stride {s}' if s > 1 else ''} {c}-{f}@{size}": Case(1, c, f, size, k, 2, s)
    for c, f, size, k, s in (
        (3, 64, 224, 7, 2),
        (64, 64, 56, 1, 1),
        (64, 256, 56, 1, 1),
        (256, 64, 56, 1, 1),
        (64, 64, 56, 3, 1),
        (256, 128, 56, 1, 1),
        (128, 128, 56, 3, 2),
        (256, 512, 56, 1, 2),
        (128, 512, 28, 1, 1),
        (512, 128, 28, 1, 1),
        (128, 128, 28, 3, 1),
        (512, 256, 28, 1, 1),
        (256, 256, 28, 3, 2),
        (512, 1024, 28, 1, 2),
        (256, 1024, 14, 1, 1),
        (1024, 256, 14, 1, 1),
        (256, 256, 14, 3, 1),
        (1024, 512, 14, 1, 1),
        (512, 512, 14, 3, 2),
        (1024, 2048, 14, 1, 2),
        (512, 2048, 7, 1, 1),
        (2048, 512, 7, 1, 1),
        (512, 512, 7, 3, 1),
    )
}
DEPTHWISE = {
    f"depthwise{f' stride {s}' if s > 1 else ''} {c}@{size}": Case(1, c, c, size, 3, 2, s, c)
    for c, size, s in ((32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (960, 7, 1))
}
GROUPS = {
    "3x3": VGG_AND_RESNET,
    "5x5, 7x7": LARGER_KERNELS,
    "1-D": ONE_DIMENSION,
    "batch": BATCHES,
    "ResNet-50": RESNET50,
    "depthwise": DEPTHWISE,
}
CASES = {name: case for cases in GROUPS.values() for name, case in cases.items()}

OURS = "fastconv"


def ours(algorithm: str) -> Callable[[Case, int], Call]:
    """Return the maker of a plan of fastconv."""

    def make(case: Case, threads: int) -> Call:
        import fastconv

        x, w = case.arrays()
        plan_of = fastconv.plan_conv2d if case.dims == 2 else fastconv.plan_conv1d
        name = algorithm
        if name.startswith("F"):
            m, r = name[1:], case.kernel
            name = f"F({m}x{m},{r}x{r})" if case.dims == 2 else f"F({m},{r})"
        geometry = {"padding": case.pad, "stride": case.stride, "groups": case.groups}
        plan = plan_of(w, **geometry, input_shape=x.shape, algorithm=name, threads=threads)

        def call() -> Any:
            return plan(x)

        call.about = lambda: about(plan)  # type: ignore[attr-defined]
        return call

    return make


def about(plan: Any) -> dict[str, Any]:
    """Return the least work of a plan: the multiplications of its algorithm in whole tiles, and the bytes moved."""
    from fastconv.kernels.choose.cut import work_of

    work = work_of(plan.layer, plan.method.sizes)
    numbers = math.prod(plan.input_shape) + math.prod(plan.output_shape)
    return {
        "algorithm": plan.algorithm,
        "multiplications": work.tiles * work.xis * work.depth * work.filters * work.groups,
        "bytes": numbers * plan.layer.dtype.itemsize + plan.weight_bytes,
        "workspace_bytes": plan.workspace_bytes,
    }


def rooflines(turns: contest.Turns) -> list[float]:
    """Return the roofline of each turn in seconds: the longer of its multiplications and bytes at its rates."""
    told = turns.about
    return [
        max(2 * told["multiplications"] / rate, told["bytes"] / bandwidth) / 1e9
        for rate, bandwidth in zip(turns.rates, turns.bandwidths, strict=True)
    ]


MINE = {OURS: ours("auto"), **{f"{OURS} {a}": ours(a) for a in ("direct", "im2col", "F2", "F4", "F6")}}


def truth(case: str) -> np.ndarray:
    """Convolve in float64, directly."""
    import fastconv

    x, w = (a.astype(float) for a in CASES[case].arrays())
    convolve = fastconv.conv2d if CASES[case].dims == 2 else fastconv.conv1d
    return convolve(x, w, padding=CASES[case].pad, stride=CASES[case].stride, groups=CASES[case].groups, algorithm="im2col")


def rows_of(case: str, turns: dict[str, contest.Turns], threads: int) -> list[dict[str, Any]]:
    """Return the rows of one case: each contender's measurements, and its speed relative to the fastest peer."""
    peers = {name: t.median for name, t in turns.items() if name in PEERS and t.seconds}
    fastest = min(peers, key=peers.__getitem__, default="")
    rows = []
    for name, t in turns.items():
        if not t.seconds:
            continue
        limits = rooflines(t) if t.about else []
        shares = [limit / seconds for limit, seconds in zip(limits, t.seconds, strict=False)]
        rows.append(
            {
                "layer": case,
                "contender": name,
                "threads": threads,
                "milliseconds": round(t.median * 1e3, 4),
                "fastest_turn": round(min(t.seconds) * 1e3, 4),
                "effective_gflops": round(CASES[case].operations / t.median / 1e9, 1),
                "fastest_peer": fastest,
                "times_fastest_peer": round(peers[fastest] / t.median, 3) if fastest else "",
                "relative_l2": float(f"{t.error:.2e}"),
                "fma_gflops": round(statistics.median(t.rates)),
                "slowest_fma_gflops": round(min(t.rates)),
                **{name: t.about.get(name, "") for name in ("algorithm", "multiplications", "bytes", "workspace_bytes")},
                "copy_gbytes": round(statistics.median(t.bandwidths), 1) if t.bandwidths else "",
                "roofline_ms": round(statistics.median(limits) * 1e3, 4) if limits else "",
                "share": round(statistics.median(shares), 3) if shares else "",
            }
        )
    return rows


def main() -> None:
    script = Path(__file__)
    parser = contest.arguments(__doc__ or "", "layers", list(CASES), [*MINE, *PEERS], 9)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), metavar="GROUP", help=f"layers by group: {', '.join(GROUPS)}")
    entry = contest.entered(parser, script, MINE, PEERS, lambda: CASES)
    if entry is None:
        return
    options, pythons = entry
    if options.groups:
        options.cases = [name for group in options.groups for name in GROUPS[group]]
    say: Callable[..., None] = (lambda *_, **__: None) if options.json else print
    rows: list[dict[str, Any]] = []

    def report(case: str, turns: dict[str, contest.Turns]) -> None:
        new = rows_of(case, turns, options.threads)
        rows.extend(new)
        for row in new:
            share = f"{row['share']:.0%}" if row["share"] else ""
            say(
                f"{row['layer']:24}{row['contender']:22}{row['milliseconds']:9.3f} ms {row['effective_gflops']:7.1f} GFLOP/s"
                f"  {row['times_fastest_peer']!s:>6} {share:>5}  error {row['relative_l2']:.1e}"
                f"  fma {row['slowest_fma_gflops']}..{row['fma_gflops']}",
                flush=True,
            )
        for name, t in turns.items():
            if t.refused:
                say(f"{case:24}{name:22}  --  {t.refused}", flush=True)

    contest.contest(script, pythons, options.cases, options.turns, options.threads, truth, report)
    if options.json:
        print(json.dumps(rows))
    times = {(row["layer"], row["contender"]): row["milliseconds"] for row in rows}
    ratios = [times[case, OURS + contest.BEFORE] / t for (case, name), t in times.items() if name == OURS and options.before]
    if ratios:
        say(f"{OURS}: {contest.geometric_mean(ratios):.3f} times as fast as before, {min(ratios):.3f} to {max(ratios):.3f}")
    for name in pythons:
        if name in MINE:
            for title, cases in GROUPS.items():
                ratios = [row["times_fastest_peer"] for row in rows if row["contender"] == name and row["layer"] in cases]
                if ratios and all(ratios):
                    say(f"{name}, {title}: {contest.geometric_mean(ratios):.2f} times the fastest peer, least {min(ratios):.2f}")
    whole = options.cases == list(CASES) and not options.contenders
    if path := options.csv or (FIGURES / f"layers_{options.threads}.csv" if whole else None):
        contest.write_rows(path, rows)


if __name__ == "__main__":
    main()

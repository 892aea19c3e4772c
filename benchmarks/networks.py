"""Time whole networks against alternative libraries, batch 1.

    python benchmarks/networks.py [--python PYTHON ...] [--networks NAME ...] [--contenders NAME ...] [--turns 7] [--threads 2]

Each ``--python`` is an interpreter with peers installed (torch with onnx, onnxruntime, openvino, ncnn with pnnx, MNN), in
separate environments if needed. The networks are ONNX files with random weights (benchmarks/network_models.py), written
once; every contender loads the same file. benchmarks/contest.py runs the turns, benchmarks/network_peers.py calls the
peers. Each network has separate processes, so peak memory, loading and converting included, is that of one network. Our
kernels are compiled to disk first, as from the second run on. The error is the relative L2 norm of the difference to our
own run in float64. The results go to figures/networks_THREADS.csv and .png.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contest
import numpy as np
from network_models import CASES, Case
from network_peers import PEERS, Call, Network

FIGURES = Path(__file__).parent.parent / "figures"
OURS = "fastconv"
ASKED = {"VGG-16 224x224": 1.8, "ResNet-18 224x224": 1.3, "ResNet-50 224x224": 1.0, "demosaic 512x512": 1.8, "waifu2x vgg7 256x256": 1.8}
"""Target speed relative to the fastest peer."""


def file_of(case: str) -> Path:
    """Return the path of a case's model, kept between runs."""
    return Path(tempfile.gettempdir()) / f"fastconv-networks-{os.getuid()}" / f"{case.split()[0]}.onnx"


def written(case: str) -> Path:
    """Write the model of a case unless it exists; return its path."""
    from fastconv.files import write_whole

    path = file_of(case)
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, CASES[case].make().SerializeToString())
    return path


def ours(algorithm: str, max_error: float | None = None) -> Callable[[Network, int], Call]:
    """Return the maker of a network that fastconv runs."""

    def make(network: Network, threads: int) -> Call:
        import fastconv

        path, given, made, x = network
        run = fastconv.load_onnx(path).prepare(algorithm, threads=threads, max_error=max_error)
        return lambda: run({given: x})[made]

    return make


LOOSE = f"{OURS}, 1e-5 a layer"
MINE = {OURS: ours("auto"), LOOSE: ours("auto", 1e-5), f"{OURS} direct": ours("direct")}


def asked(case: str) -> Network:
    """Return the file, names and input of a case."""
    c: Case = CASES[case]
    return file_of(case), c.input, c.output, c.feed()


def limit(case: str, threads: int) -> tuple[float, float]:
    """Return the seconds of a network's multiplications at the machine's rate, and of its roofline.

    The roofline of a node is the longer of two times: the multiplications of its algorithm in whole tiles, and its bytes (inputs,
    packed weights, results) at the rate of copying that many.
    """
    import fastconv
    from fastconv.kernels.choose.cut import work_of

    _, given, _, x = asked(case)
    run = fastconv.load_onnx(written(case)).prepare("auto", threads=threads)
    nodes: list[tuple[float, int]] = []

    def watch(node: Any, inputs: Any, results: Any, seconds: float) -> None:
        plan = run.plan(node.name) if node.operator == "Conv" else None
        size = results[0].nbytes + sum(a.nbytes for k, a in enumerate(inputs) if a is not None and (plan is None or k not in (1, 2)))
        multiplications = 0
        if plan is not None:
            work = work_of(plan.layer.phased if plan.method.phases else plan.layer, plan.method.sizes)
            multiplications = work.tiles * work.xis * work.depth * work.filters * work.groups
            size += plan.weight_bytes
        nodes.append((multiplications, size))

    run({given: x}, watch=watch)
    rate = statistics.median(contest.multiply_add_rate(threads) for _ in range(5)) * 1e9
    products = [2 * multiplications / rate for multiplications, _ in nodes]
    moves = [size / (contest.copy_rate(size, threads) * 1e9) for _, size in nodes]
    return sum(products), sum(map(max, products, moves))


def truth(case: str) -> np.ndarray:
    """Run the network in float64."""
    import fastconv

    path, given, made, x = asked(case)
    return fastconv.load_onnx(path).run({given: x}, policy="fp64")[made]


def rows_of(case: str, turns: dict[str, contest.Turns], threads: int) -> list[dict[str, Any]]:
    """Return the rows of one network: each contender's measurements, absolute and relative to the fastest peer."""
    peers = {name: t.median for name, t in turns.items() if name in PEERS and t.seconds}
    fastest = min(peers, key=peers.__getitem__, default="")
    return [
        {
            "network": case,
            "contender": name,
            "threads": threads,
            "milliseconds": round(t.median * 1e3, 3),
            "fastest_turn": round(min(t.seconds) * 1e3, 3),
            "fastest_peer": fastest,
            "times_fastest_peer": round(peers[fastest] / t.median, 3) if fastest else "",
            "peak_mib": round(t.peak_bytes / 2**20),
            "memory_times_fastest_peer": round(t.peak_bytes / turns[fastest].peak_bytes, 2) if fastest else "",
            "relative_l2": float(f"{t.error:.2e}"),
            "fma_gflops": round(statistics.median(t.rates)),
            "slowest_fma_gflops": round(min(t.rates)),
        }
        for name, t in turns.items()
        if t.seconds
    ]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw milliseconds and peak memory of each contender, one panel per network."""
    from matplotlib.figure import Figure

    from fastconv.cli.files import save_figure

    cases = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(2.6 * len(cases) + 1, 6.2), layout="constrained")
    panels = figure.subplots(2, len(cases), squeeze=False)
    names = list(dict.fromkeys(row["contender"] for row in rows))
    for column, case in enumerate(cases):
        here = {row["contender"]: row for row in rows if row["network"] == case}
        colours = ["#d55e00" if name in MINE else "#999999" for name in names]
        for ax, key, title in ((panels[0][column], "milliseconds", "ms"), (panels[1][column], "peak_mib", "peak MiB")):
            values = [here[name][key] if name in here else 0 for name in names]
            bars = ax.barh(names, values, color=colours)
            labels = ["not run" if not v else f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in values]
            ax.bar_label(bars, labels, padding=3, fontsize=8)
            ax.invert_yaxis()
            ax.margins(x=0.22)
            ax.set_xlabel(title)
            ax.spines[["top", "right"]].set_visible(False)
            if column:
                ax.set_yticklabels([])
        panels[0][column].set_title(case, loc="left", fontsize=10)
    plural = "thread" if rows[0]["threads"] == 1 else "threads"
    figure.suptitle(f"Whole networks, batch 1, fp32, {rows[0]['threads']} {plural}: shorter is better", fontsize=12)
    save_figure(figure, path)


def main() -> None:
    script = Path(__file__)
    parser = contest.arguments(__doc__ or "", "networks", list(CASES), [*MINE, *PEERS], 7)
    parser.add_argument("--limits", action="store_true", help="only print the limits of the machine")
    entry = contest.entered(parser, script, MINE, PEERS, lambda: {case: asked(case) for case in CASES}, [OURS, LOOSE])
    if entry is None:
        return
    options, pythons = entry
    if options.limits:
        for case in options.cases:
            products, roofline = limit(case, options.threads)
            print(f"{case}: multiplications {products * 1e3:.1f} ms, roofline {roofline * 1e3:.1f} ms")
        return
    say: Callable[..., None] = (lambda *_, **__: None) if options.json else print
    rows: list[dict[str, Any]] = []

    def report(case: str, turns: dict[str, contest.Turns]) -> None:
        new = rows_of(case, turns, options.threads)
        rows.extend(new)
        for row in new:
            say(
                f"{row['network']:22}{row['contender']:24}{row['milliseconds']:9.2f} ms  {row['times_fastest_peer']!s:>6}"
                f"  {row['peak_mib']:6} MiB {row['memory_times_fastest_peer']!s:>5}  error {row['relative_l2']:.1e}"
                f"  fma {row['slowest_fma_gflops']}..{row['fma_gflops']}",
                flush=True,
            )
        for name, t in turns.items():
            if t.refused:
                say(f"{case:22}{name:24}  --  {t.refused}", flush=True)

    for case in options.cases:
        written(case)
        for name in MINE.keys() & pythons:  # compile kernels to disk before the measurement
            with contest.contender(pythons[name], script, name, options.threads) as ask:
                ask("time", case)
        contest.contest(script, pythons, [case], options.turns, options.threads, truth, report)
    if options.json:
        print(json.dumps(rows))
    for row in rows:
        if row["contender"] == OURS and row["fastest_peer"]:
            say(f"{row['network']}: {row['times_fastest_peer']} times {row['fastest_peer']}, asked {ASKED[row['network']]}")
    whole = options.cases == list(CASES) and not options.contenders
    if path := options.csv or (FIGURES / f"networks_{options.threads}.csv" if whole else None):
        contest.write_rows(path, rows)
        draw(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()

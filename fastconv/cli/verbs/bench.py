"""`fastconv bench`: time the algorithms on one convolution layer."""

from __future__ import annotations

import argparse
import time

from fastconv.cli.options import print_json, print_tables
from fastconv.kernels import plan_conv2d
from fastconv.tables import Table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--channels", type=int, default=64, help="input channels")
    parser.add_argument("--filters", type=int, help="output channels (as many as input channels by default)")
    parser.add_argument("--size", type=int, default=56, help="height and width of the image")
    parser.add_argument("--kernel", type=int, default=3, help="height and width of the kernel")
    parser.add_argument("--batch", type=int, default=1, help="images")
    parser.add_argument("--threads", type=int, help="threads (all cores by default)")
    parser.add_argument("--turns", type=int, default=15, help="timed calls of each algorithm")


def run(args: argparse.Namespace) -> int:
    """Time the contenders in turn and print medians."""
    import numpy as np

    for name in ("channels", "size", "kernel", "batch", "turns"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}: pass a positive number")
    r, C, K = args.kernel, args.channels, args.filters or args.channels
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.batch, C, args.size, args.size)).astype(np.float32)
    w = (rng.standard_normal((K, C, r, r)) * np.sqrt(2 / (C * r * r))).astype(np.float32)
    names = ["direct", "im2col"] + [f"F({m}x{m},{r}x{r})" for m in (2, 4, 6) if 1 < r and m + r - 1 <= 16]
    options = {"padding": r // 2, "input_shape": x.shape, "threads": args.threads}
    plans = {name: plan_conv2d(w, algorithm=name, **options) for name in names}
    truth = plan_conv2d(w.astype(np.float64), algorithm="direct", **options)(x.astype(np.float64))
    errors = {name: float(np.linalg.norm(plan(x) - truth) / np.linalg.norm(truth)) for name, plan in plans.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(args.turns):
        for k in range(len(names)):
            name = names[(turn + k) % len(names)]
            begun = time.perf_counter()
            plans[name](x)
            times[name].append(time.perf_counter() - begun)
    flops = 2.0 * truth.size * C * r * r
    medians = {name: float(np.median(t)) for name, t in times.items()}
    rows = [
        {
            "algorithm": name,
            "seconds": medians[name],
            "effective_gflops": flops / medians[name] / 1e9,
            "speed_vs_direct": medians["direct"] / medians[name],
            "relative_l2": errors[name],
            "workspace_bytes": plans[name].workspace_bytes,
        }
        for name in names
    ]
    if args.json:
        print_json(rows)
        return 0
    cells = tuple(
        (
            str(row["algorithm"]),
            f"{medians[str(row['algorithm'])] * 1e3:.3f}",
            f"{row['effective_gflops']:.1f}",
            f"{row['speed_vs_direct']:.2f}",
            f"{row['relative_l2']:.1e}",
            f"{plans[str(row['algorithm'])].workspace_bytes / 2**20:.1f}",
        )
        for row in rows
    )
    what = f"{C} -> {K} channels, {args.size}x{args.size}, {r}x{r}, batch {args.batch}, fp32; medians of {args.turns} interleaved calls"
    legend = "GFLOP/s: operations of direct convolution over the time; speed: relative to direct; "
    legend += "relative L2: error against float64 on normal data, seed 0"
    print_tables(Table(("algorithm", "ms", "GFLOP/s", "speed", "relative L2", "workspace MiB"), cells, notes=(legend, what)))
    return 0

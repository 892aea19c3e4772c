"""Compare predicted with measured errors: published and random point sets, policies, channels.

Writes ``figures/predicted_vs_measured.csv`` and ``.png``, and prints the deviations of the predictions.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from recorded import FIGURES, record
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import fastconv as fc

POLICIES = ("fp32", "bf16", "fp16")
CHANNELS = (1, 64, 256)
SUMS = ("linear", "pairwise", "blocked")
INPUTS = ("uniform", "normal")


@dataclass(frozen=True)
class Case:
    """One point to draw."""

    kind: str
    m: int
    r: int
    points: str
    dims: int
    policy: str
    channels: int
    channel_sum: str
    inputs: str
    order: str = "huffman"


def random_points(rng: np.random.Generator, n: int) -> list[Any]:
    """Draw n points: rationals of a height up to 3, 5 or 8; some sets with infinity, some symmetric."""
    height = int(rng.choice([3, 5, 8]))
    pool = sorted({Fraction(p, q) for q in range(1, height + 1) for p in range(1, height + 1)})
    symmetric, infinite = rng.random() < 0.5, rng.random() < 0.7
    finite = n - infinite
    points: list[Fraction] = []
    while len(points) < finite:
        p = pool[rng.integers(len(pool))] * int(rng.choice([-1, 1]))
        if rng.random() < 0.15:
            p = Fraction(0)
        new = [p, -p] if symmetric and p else [p]
        points += [q for q in new if q not in points][: finite - len(points)]
    return [*points, *(["inf"] if infinite else [])]


def cases(random: int, seed: int) -> list[Case]:
    """List the cases; sums and inputs rotate."""
    found = []
    turn = 0
    for dims in (1, 2):
        for n in range(4, 19):
            points = fc.published_points("barabasz2020", n, dims)
            for policy in POLICIES:
                for channels in CHANNELS:
                    text = " ".join(map(str, points))
                    found.append(Case("published", n - 2, 3, text, dims, policy, channels, SUMS[turn % 3], INPUTS[turn // 3 % 2]))
                    turn += 1
    rng = np.random.default_rng(seed)
    for _ in range(random):
        n = int(rng.integers(4, 13))
        r = int(rng.integers(2, min(5, n - 1) + 1))
        text = " ".join(map(str, random_points(rng, n)))
        draw = [x[rng.integers(len(x))] for x in (POLICIES, CHANNELS, SUMS, INPUTS)]
        found.append(Case("random", n - r + 1, r, text, int(rng.integers(1, 3)), *draw))
    return found


def run(case: Case, values: float) -> dict[str, Any]:
    """Predict and measure one case, with as many trials as the budget of values allows."""
    alg = fc.toom_cook(case.m, case.r, case.points.split())
    options = dict(
        dims=case.dims, policy=case.policy, order=case.order, channels=case.channels, channel_sum=case.channel_sum, inputs=case.inputs
    )
    start = time.perf_counter()
    try:
        predicted = fc.predict_error(alg, **options)
    except ValueError:  # the matrices do not fit the format, so the measurement overflows
        predicted = None
    seconds = time.perf_counter() - start
    trials = int(min(20000, max(60, values / (case.channels * alg.n**case.dims))))
    measured = fc.measure_error(alg, **options, trials=trials, seed=1)
    fits = predicted is not None and not measured.overflows and math.isfinite(measured.mean_abs)
    return asdict(case) | {
        "n": alg.n,
        "trials": trials,
        "predicted": predicted.mean_abs if predicted else math.nan,
        "measured": measured.mean_abs if fits else math.nan,
        "standard_error": measured.mean_abs_stderr if fits else math.nan,
        "rms_ratio": predicted.rms / measured.rms if predicted and fits else math.nan,
        "overflows": sum(measured.overflows.values()),
        "seconds": seconds,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the scatter and the ratios."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4))
    for policy, marker, grey in (("fp32", "o", "0.1"), ("fp16", "^", "0.4"), ("bf16", "s", "0.65")):
        some = [row for row in rows if row["policy"] == policy]
        measured, predicted = (np.array([row[k] for row in some]) for k in ("measured", "predicted"))
        style = {"marker": marker, "s": 14, "facecolors": "none", "edgecolors": grey, "linewidths": 0.8, "label": policy}
        left.scatter(measured, predicted, **style)
        right.scatter([row["n"] + 0.25 * (row["dims"] - 1.5) for row in some], 100 * (predicted / measured - 1), **style)
    ends = [min(row["measured"] for row in rows), max(row["measured"] for row in rows)]
    left.plot(ends, ends, color="0", linewidth=0.7)
    left.set(
        xscale="log", yscale="log", xlabel="measured mean |error|", ylabel="predicted mean |error|", title="Predicted against measured"
    )
    left.legend(frameon=False)
    for level in (-10, 0, 10):
        right.axhline(level, color="0", linewidth=0.7, linestyle="-" if level == 0 else ":")
    right.set(
        xlabel="tile size n (1-D to the left, 2-D to the right)", ylabel="predicted over measured - 1 (%)", title="Relative difference"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=150, format="png")


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Return lines on the deviations of the predictions."""
    lines = []
    for name, some in (
        ("published, n = 4, 5", [row for row in rows if row["kind"] == "published" and row["n"] <= 5]),
        ("published, n >= 6", [row for row in rows if row["kind"] == "published" and row["n"] > 5]),
        ("random", [row for row in rows if row["kind"] == "random"]),
    ):
        if not some:
            continue
        off = np.array([abs(row["predicted"] / row["measured"] - 1) for row in some])
        within = ", ".join(f"{100 * (off <= level).mean():.1f} % within {100 * level:.0f} %" for level in (0.05, 0.1, 0.2))
        worst = some[int(off.argmax())]
        what = f"n = {worst['n']}, r = {worst['r']}, {worst['dims']}-D, {worst['policy']}, C = {worst['channels']} {worst['channel_sum']}"
        clear = np.array([abs(row["predicted"] / row["measured"] - 1) - 3 * row["standard_error"] / row["measured"] for row in some])
        beyond = ", ".join(f"{100 * (clear > level).mean():.1f} % beyond {100 * level:.0f} %" for level in (0.05, 0.1, 0.2))
        noise = worst["standard_error"] / worst["measured"]
        lines.append(
            f"{name}: {len(some)} cases, {within}; worst {100 * off.max():.1f} % ({what}, {worst['inputs']}, at {worst['points']}; "
            f"standard error {100 * noise:.1f} %); with three standard errors allowed: {beyond}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=300, help="random point sets")
    parser.add_argument("--values", type=float, default=6e5, help="input values drawn for each measurement")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=FIGURES)
    args = parser.parse_args()
    work = cases(args.random, args.seed)
    rows: list[dict[str, Any]] = [{}] * len(work)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn())
    with ProcessPoolExecutor(args.workers) as pool, Progress(*columns) as progress:
        task = progress.add_task("measuring", total=len(work))
        futures = {pool.submit(run, case, args.values): k for k, case in enumerate(work)}
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            progress.advance(task)
    args.output.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items() if k != "seconds"} | {"seconds": f"{row['seconds']:.2g}"}
        for row in rows
    )
    fitting = [row for row in rows if math.isfinite(row["measured"])]
    part = args.output / "predicted_vs_measured.part"
    part.write_text(text.getvalue())
    part.replace(args.output / "predicted_vs_measured.csv")
    record(args.output / "predicted_vs_measured.csv")
    draw(fitting, part)
    part.replace(args.output / "predicted_vs_measured.png")
    print(f"{len(rows) - len(fitting)} of {len(rows)} cases overflow their format and are excluded")
    print("\n".join(summary(fitting)))


if __name__ == "__main__":
    main()

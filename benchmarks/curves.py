"""Time layers over their sizes: height and width, channels and filters, images per batch, threads.

    python benchmarks/curves.py [--turns 5]

Starting from one layer, 3x3 with 64 channels and filters on 56x56, one size at a time changes, for ``algorithm="auto"`` and
``"direct"``, on one thread and two. All plans are prepared first and called in turn, in rotating order. A turn is the median of a
few calls, and the result is the median of the turns. Writes figures/layer_curves.csv, which analysis/layers_figures.py draws.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import contest
import numpy as np

import fastconv

FIGURES = Path(__file__).parent.parent / "figures"

CHANNELS, SIZE = 64, 56
SWEEPS: dict[str, list[tuple[int, int, int]]] = {
    "H*W": [(1, CHANNELS, size) for size in (3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160)],
    "C*K": [(1, channels, 14) for channels in (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)],
    "batch": [(batch, CHANNELS, 28) for batch in (1, 2, 4, 8, 16, 32)],
}
"""Batch, channels (= filters) and height (= width) of the layers of each curve."""


def plan_of(batch: int, channels: int, size: int, algorithm: str, threads: int) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, size, size), np.float32)
    w = rng.standard_normal((channels, channels, 3, 3), np.float32)
    return fastconv.plan_conv2d(w, padding=1, input_shape=x.shape, algorithm=algorithm, threads=threads), x


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    rows: list[dict[str, Any]] = []
    for sweep, sizes in SWEEPS.items():
        keys = [(*size, algorithm, threads) for size in sizes for algorithm in ("auto", "direct") for threads in (1, 2)]
        plans = {key: plan_of(*key) for key in keys}
        times: dict[tuple[Any, ...], list[float]] = {key: [] for key in keys}
        rates: list[float] = []
        for k in range(turns):
            rates.append(contest.multiply_add_rate(2))
            first = k * len(keys) // turns
            for key in keys[first:] + keys[:first]:
                plan, x = plans[key]
                times[key].append(contest.median_call(lambda plan=plan, x=x: plan(x), 0.015, 3))
        for key in keys:
            batch, channels, size, algorithm, threads = key
            seconds, plan = statistics.median(times[key]), plans[key][0]
            rows.append(
                {
                    "curve": sweep,
                    "batch": batch,
                    "channels": channels,
                    "size": size,
                    "asked": algorithm,
                    "ran": plan.algorithm,
                    "threads": threads,
                    "milliseconds": round(seconds * 1e3, 4),
                    "effective_gflops": round(2 * plan.layer.multiplications / seconds / 1e9, 1),
                    "workspace_bytes": plan.workspace_bytes,
                    "weight_bytes": plan.weight_bytes,
                    "fma_gflops": round(statistics.median(rates)),
                }
            )
        print(f"{sweep}: {len(keys)} plans, multiply-add rate {min(rates):.0f} to {max(rates):.0f} GFLOP/s on two threads", flush=True)
    for row in rows:
        print(
            "{curve:6}{batch:4}{channels:5}{size:5}  {asked:8}{ran:12}{threads:2}{milliseconds:10.3f} ms{effective_gflops:8.1f}".format(
                **row
            )
        )
    contest.write_rows(FIGURES / "layer_curves.csv", rows)


if __name__ == "__main__":
    main()

"""Measure and draw algorithms with a stride: multiplications and error of F(m x m, r x r)s2 and s3 and of direct convolution.

    python analysis/strides.py [measure] [draw]

`measure` predicts and measures (64 channels summed in blocks, normal data, 200 tiles, seed 1; the kernel transform in float64, the rest in
the policy) and writes figures/strides.csv. `draw` draws it.
"""

from __future__ import annotations

from typing import Any

from common import progress, read_csv, run_jobs, save, style, write_csv
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

import fastconv as fc
from fastconv.kernels.choose.accuracy import POLICY

CHANNELS = 64
CASES = ((3, 2), (5, 2), (7, 2), (5, 3), (7, 3))
"""Taps and strides."""
LARGEST = 13
CSV = "strides.csv"


def measure() -> None:
    """Predict and measure every size."""
    sizes = [(m, r, s) for r, s in CASES for m in range(2, 8) if s * (m - 1) + r <= LARGEST]
    rows: list[list[Any]] = []
    for m, r, s in progress(sizes, "strides"):
        alg = fc.algorithm(f"F({m}x{m},{r}x{r})s{s}")
        settings: dict[str, Any] = {"dims": 2, "policy": POLICY, "channels": CHANNELS, "channel_sum": "blocked", "inputs": "normal"}
        report = fc.measure_error(alg, **settings, trials=200, seed=1)
        predicted = fc.predict_error(alg, **settings).relative_l2
        bf16 = fc.measure_error(alg, **{**settings, "policy": "bf16"}, trials=100, seed=1)
        rows.append([r, s, m, alg.products, (alg.products / m) ** 2, predicted, report.relative_l2, report.direct.relative_l2])
        rows[-1] += [bf16.relative_l2, bf16.direct.relative_l2]
    header = ("r", "stride", "m", "products", "multiplications", "predicted", "measured", "direct", "measured_bf16", "direct_bf16")
    write_csv(CSV, header, rows)


def draw() -> None:
    """Draw error against multiplications."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    rows = read_csv(CSV)
    for k, (r, s) in enumerate(CASES):
        mine = [row for row in rows if (row["r"], row["stride"]) == (str(r), str(s))]
        x = [1.0] + [float(row["multiplications"]) / r**2 for row in mine]
        y = [float(mine[0]["direct"])] + [float(row["measured"]) for row in mine]
        axes.plot(x, y, **style(k), label=f"{r}x{r}, stride {s}: direct, then m = 2 to {mine[-1]['m']}")
    axes.set_yscale("log")
    axes.set_xlabel("multiplications, relative to direct convolution")
    axes.set_ylabel("relative L2 error in fp32")
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:.0e}" if str(f"{v:.0e}")[0] in "25" else ""))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.suptitle(f"Algorithms with a stride, {CHANNELS} channels, normal data: measured on 200 tiles", fontsize=10)
    save(figure, "strides.png")


if __name__ == "__main__":
    run_jobs(__doc__ or "", {"measure": measure, "draw": draw})

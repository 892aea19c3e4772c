"""Measure and draw error against multiplications for real points, sets with a few complex pairs, and circles.

    python analysis/complex_figures.py [measure] [draw]

`measure` predicts and measures (64 channels summed in blocks, normal data, 100 tiles, seed 1) and writes figures/complex_points.csv. `draw`
draws it. In fp16 the matrices of real points are balanced to stay in range.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common import place_labels, progress, read_csv, run_jobs, save, style, write_csv
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

import fastconv as fc
from fastconv.algebra import complex_sizes
from fastconv.arithmetic import Policy
from fastconv.kernels.choose.accuracy import POLICY

CHANNELS = 64
PANELS = ((3, "fp32"), (5, "fp32"), (3, "fp16"))
KINDS = ("real points", "some pairs of complex points", "points of the unit circle")
CSV = "complex_points.csv"


def algorithms(r: int, policy: str) -> Iterator[tuple[str, fc.BilinearAlgorithm]]:
    """Yield the kinds and algorithms of a panel."""
    for n in range(r + 1, 15):
        try:
            alg = fc.toom_cook(n - r + 1, r, fc.best_points(n - r + 1, r, 2, policy))
            yield KINDS[0], alg.balanced(policy) if policy == "fp16" else alg
        except ValueError:  # no usable set in that format
            break
    for m, pairs in complex_sizes(r, 2):
        if 2 * pairs + 4 < m + r - 1:  # else it is the circle
            yield KINDS[1], fc.toom_cook(m, r, fc.complex_points(m, r, pairs))
    for n in range(max(6, r + 1 + (r + 1) % 2), 19, 2):
        yield KINDS[2], fc.toom_cook(n - r + 1, r, fc.circle_points(n))


def measure() -> None:
    """Predict and measure all panels."""
    rows: list[list[Any]] = []
    for r, name in PANELS:
        policy: str | Policy = POLICY if name == "fp32" else name
        for kind, alg in progress(algorithms(r, name), f"{r}x{r} in {name}"):
            order = "huffman" if alg.products == alg.n else "huffman+shared+folded"
            report = fc.measure_error(alg, 2, policy, order, CHANNELS, "blocked", "normal", trials=100, seed=1)
            predicted = fc.predict_error(alg, 2, policy, order, CHANNELS, "blocked", "normal").relative_l2
            share = (alg.products / alg.m / r) ** 2
            rows.append([r, name, kind, alg.m, alg.products, share, predicted, report.relative_l2, report.direct.relative_l2])
    header = ("r", "policy", "kind", "m", "products", "multiplications_of_direct", "predicted", "measured", "direct")
    write_csv(CSV, header, rows)


def draw() -> None:
    """Draw error against multiplications."""
    rows = read_csv(CSV)
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    axes, labels = figure.subplots(1, len(PANELS)), []
    for ax, (r, policy) in zip(axes, PANELS, strict=True):
        labels.append([])
        mine = [row for row in rows if (int(row["r"]), row["policy"]) == (r, policy)]
        for k, kind in enumerate(KINDS):
            of_kind = sorted((row for row in mine if row["kind"] == kind), key=lambda row: int(row["m"]))
            x = [float(row["multiplications_of_direct"]) for row in of_kind]
            look = style(k) | ({"ls": "none"} if kind == KINDS[1] else {})
            ax.plot(x, [float(row["measured"]) for row in of_kind], label=kind, **look)
            for row, at in list(zip(of_kind, x, strict=True))[:: len(of_kind) - 1 if kind == KINDS[2] else 1]:
                labels[-1].append((at, float(row["measured"]), f"{row['m']}/{row['products']}", look["color"]))
        ax.axhline(float(mine[0]["direct"]), color="#888888", lw=1, ls=":", label="direct convolution")
        ax.set(xscale="log", yscale="log", title=f"{r}x{r} kernels in {policy}", xlabel="multiplications, relative to direct convolution")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:.2g}" if round(v * 100) in (15, 20, 30, 40, 50, 70) else ""))
        ax.grid(True, which="both", lw=0.3)
    axes[0].set_ylabel("relative L2 error, measured")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    caption = "Labels: outputs / products per axis. 64 channels in blocks of 32; normal data; in fp32 the kernel transform is in float64."
    figure.suptitle(caption, fontsize=9)
    for ax, some in zip(axes, labels, strict=True):
        place_labels(ax, some, 8)
    save(figure, "complex_points.png")


if __name__ == "__main__":
    run_jobs(__doc__ or "", {"measure": measure, "draw": draw})

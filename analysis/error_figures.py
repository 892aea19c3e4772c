"""Draw measured errors against tile size, by order, format and algorithm, and against channels.

    python analysis/error_figures.py [orders] [formats] [modified] [channels]

Each writes figures/error_<name>.csv and .png. All sets are those of Barabasz et al. 2020, kernel 3, inputs with full
significands uniform in (-1, 1) unless said otherwise, seed 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import print_table, progress, run_jobs, save, style, write_csv
from matplotlib.figure import Figure

import fastconv as fc

SIZES = range(4, 19)


def published(n: int, dims: int) -> fc.BilinearAlgorithm:
    return fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n, dims))


def plain(n: int, dims: int) -> fc.BilinearAlgorithm:
    """F(n - 2, 3) without infinity: the n finite points of the published set of the next size."""
    return fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n + 1, dims)[:-1])


def trials(n: int, dims: int) -> int:
    return 5000 if dims == 1 else 2000


def figure_of(name: str, title: str, key: str, rows: list[list[Any]], axis: str, ylabel: str, header: list[str]) -> None:
    """Draw one panel per dimension, one line per value of `key`, and write the CSV."""
    write_csv(f"error_{name}.csv", header, rows)
    figure = Figure(figsize=(10.5, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    for dims, ax in zip((1, 2), panels, strict=True):
        keys = list(dict.fromkeys(row[0] for row in rows))
        for k, value in enumerate(keys):
            part = [row for row in rows if row[0] == value and row[1] == dims]
            ax.plot([row[2] for row in part], [row[3] for row in part], label=value, **style(k))
        ax.set(yscale="linear" if "/" in ylabel else "log", xlabel=axis, ylabel=ylabel)
        ax.set_title(f"{dims}-D", loc="left", fontsize=11)
        ax.grid(alpha=0.3)
    if axis.startswith("channels"):
        for ax in panels:
            ax.set_xscale("log", base=2)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, title=key, handlelength=3.5)
    figure.suptitle(title, fontsize=12)
    save(figure, f"error_{name}.png")


def orders() -> None:
    names = ("sequential", "pairwise", "huffman", "huffman+shared", "huffman+fma")
    rows = []
    for order, dims, n in progress([(o, d, n) for o in names for d in (1, 2) for n in SIZES], "orders"):
        report = fc.measure_error(published(n, dims), dims=dims, order=order, inputs="uniform", trials=trials(n, dims))
        rows.append([order, dims, n, report.mean_abs, report.mean_abs_stderr])
    base = {(row[1], row[2]): row[3] for row in rows if row[0] == "sequential"}
    rows = [[*row[:3], row[3] / base[row[1], row[2]], *row[3:]] for row in rows]
    print_table(
        ["2-D gain on sequential, n =", *SIZES], [[name, *(f"{1 - r[3]:.1%}" for r in rows if r[:2] == [name, 2])] for name in names[1:]]
    )
    header = ["order", "dims", "n", "of_sequential", "mean_abs", "stderr"]
    title = "Order of summation, fp32: error relative to summing left to right"
    figure_of("orders", title, "order", rows, "tile size n = m + 2", "mean |error| / that of sequential order", header)


def formats() -> None:
    names = ("bf16", "fp16", "tf32", "fp32", "mixed", "fp64")
    rows = []
    for policy, dims, n in progress([(p, d, n) for p in names for d in (1, 2) for n in SIZES], "formats"):
        alg = published(n, dims)
        report = fc.measure_error(alg.balanced("fp16"), dims=dims, policy=policy, inputs="uniform", trials=trials(n, dims) // 4)
        rows.append([policy, dims, n, report.relative_l2, sum(report.overflows.values())])
    rows = [row for row in rows if row[4] == 0]
    header = ["policy", "dims", "n", "relative_l2", "overflows"]
    title = "Formats: every stage in one, and mixed (transforms in fp64, rows balanced)"
    figure_of("formats", title, "policy", rows, "tile size n = m + 2", "relative L2 error", header)


def modified() -> None:
    make: dict[str, Callable[[int, int], fc.BilinearAlgorithm]] = {"plain Toom-Cook": plain, "modified Toom-Cook": published}
    rows = []
    for name, dims, n in progress([(k, d, n) for k in make for d in (1, 2) for n in SIZES if n < 18], "plain, modified"):
        report = fc.measure_error(make[name](n, dims), dims=dims, inputs="uniform", trials=trials(n, dims))
        rows.append([name, dims, n, report.mean_abs, report.mean_abs_stderr])
    value = {(row[0], row[1], row[2]): row[3] for row in rows}
    sizes = [n for n in SIZES if n < 18]
    ratio = lambda d, n: f"{value['plain Toom-Cook', d, n] / value['modified Toom-Cook', d, n]:.2f}"
    print_table(["plain / modified, n =", *sizes], [[f"{d}-D", *(ratio(d, n) for n in sizes)] for d in (1, 2)])
    header = ["algorithm", "dims", "n", "mean_abs", "stderr"]
    figure_of("modified", "Infinity as a point, fp32", "algorithm", rows, "tile size n = m + 2", "mean |error|", header)


def channels() -> None:
    counts = [2**k for k in range(11)]
    rows = []
    for name, dims, count in progress([(s, d, c) for s in ("linear", "blocked", "pairwise") for d in (1, 2) for c in counts], "channels"):
        alg = fc.algorithm("F(4,3)" if dims == 1 else "F(4x4,3x3)")
        tiles = max(400 if dims == 1 else 100, (20000 if dims == 1 else 4000) // count)
        report = fc.measure_error(alg, dims=dims, channels=count, channel_sum=name, inputs="normal", trials=tiles)
        rows.append([name, dims, count, report.relative_l2, report.mean_abs_stderr / report.mean_abs])
        if name == "linear":
            rows.append(["direct, linear", dims, count, report.direct.relative_l2, report.direct.mean_abs_stderr / report.direct.mean_abs])
    rows.sort(key=lambda row: (row[0] == "direct, linear", row[1]))
    header = ["channel_sum", "dims", "channels", "relative_l2", "relative_stderr"]
    title = "Sums over channels: F(4,3) and F(4x4,3x3), fp32, normal inputs (blocks of 32)"
    figure_of("channels", title, "channel sum", rows, "channels", "relative L2 error", header)


JOBS = {"orders": orders, "formats": formats, "modified": modified, "channels": channels}


if __name__ == "__main__":
    run_jobs(__doc__, JOBS)

"""Draw the best points: compared with published ones by tile size, on the real line, by format, and against the condition number.

    python analysis/points_figures.py [table] [draw_table] [line] [formats] [condition] [draw_condition]

Reads the table that fastconv ships (`fastconv.algebra.best_row`). Each figure goes to figures/points_<name>.png, its data to a CSV file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from common import print_table, progress, read_csv, run_jobs, save, style, write_csv
from matplotlib.figure import Figure

import fastconv as fc
from fastconv.algebra import best_row
from fastconv.search import certified_limit
from fastconv.search.points.objective import objective_named, predicted

SIZES = range(4, 19)
PUBLISHED_2D = dict(
    zip(
        SIZES,
        (7.65e-8, 2.35e-7, 3.29e-7, 6.81e-7, 8.79e-7, 3.71e-6, 7.35e-6, 2.2e-5, 3.22e-5)
        + (1.09e-4, 1.99e-4, 5.54e-4, 8.8e-4, 1.07e-2, 1.93e-2),
        strict=True,
    )
)
"""Barabasz et al. 2020, kernel 3, fp32, Huffman order."""


def measured(points: Any, n: int, dims: int, trials: int = 5000) -> float:
    return fc.measure_error(fc.toom_cook(n - 2, 3, points), dims=dims, trials=trials if n <= 12 else trials // 4, seed=2).mean_abs


def known(source: str, n: int, dims: int) -> Any:
    try:
        return fc.published_points(source, n, dims)
    except ValueError:
        return None


def table() -> None:
    """Measure published and best-known sets for each tile size, and draw their errors."""
    rows = []
    for dims in (1, 2):
        for n in progress(SIZES, f"{dims}-D"):
            for source in ("barabasz2020", "alam2022", "nova2025", "lavin2016"):
                points = known(source, n, dims)
                if points is not None:
                    rows.append([source, dims, n, measured(points, n, dims)])
            for infinity in (True, False):
                row = best_row(n - 2, 3, dims, infinity=infinity)
                if row:
                    rows.append(["fastconv" + ("" if infinity else ", without infinity"), dims, n, row["measured"]])
            for infinity, what in ((None, "certified limit"), (True, "certified limit, with infinity")):
                limit = certified_limit(n - 2, 3, dims, infinity)
                if limit:  # a limit of the prediction, drawn relative to the measured error of the best set
                    best = best_row(n - 2, 3, dims)
                    rows.append([what, dims, n, (best["measured"] if best else math.nan) / (1 + limit.gap)])
    write_csv("points_table.csv", ["set", "dims", "n", "mean_abs"], rows)
    best = {(row[1], row[2]): row[3] for row in rows if row[0] == "fastconv"}
    A = {(row[1], row[2]): row[3] for row in rows if row[0] == "barabasz2020"}
    lines = [[n, best[2, n], PUBLISHED_2D[n], f"{1 - best[2, n] / PUBLISHED_2D[n]:.1%}", f"{1 - best[2, n] / A[2, n]:.1%}"] for n in SIZES]
    print_table(["n", "fastconv 2-D", "published", "below it", "below it measured again"], lines)
    draw_table()


def draw_table() -> None:
    """Draw figures/points_table.csv: published and best-known errors over the tile size."""
    rows = [[row["set"], int(row["dims"]), int(row["n"]), float(row["mean_abs"])] for row in read_csv("points_table.csv")]
    figure = Figure(figsize=(11, 5), layout="constrained")
    for dims, ax in zip((1, 2), figure.subplots(1, 2), strict=True):
        base = {row[2]: row[3] for row in rows if row[:2] == ["barabasz2020", dims]}
        names = sorted(dict.fromkeys(row[0] for row in rows), key=lambda name: name.startswith("certified"))
        for k, name in enumerate(names):
            some = [row for row in rows if row[:2] == [name, dims]]
            look = style(k)
            if name.startswith("certified"):  # limits, not sets
                look = {"color": "0.45", "ls": "", "marker": 6 if name == "certified limit" else "_", "ms": 9, "mew": 2}
            ax.plot([row[2] for row in some], [row[3] / base[row[2]] for row in some], label=name, **look)
        ax.set(xlabel="tile size n = m + 2", ylabel="mean |error| / that of barabasz2020", yscale="log", ylim=(0.18, 3))
        ax.yaxis.set_minor_formatter("")
        ax.set_title(f"{dims}-D", loc="left", fontsize=11)
        ax.set_yticks([0.2, 0.3, 0.5, 0.7, 1, 2, 3], ["0.2", "0.3", "0.5", "0.7", "1", "2", "3"], minor=False)
        ax.grid(alpha=0.3)
    figure.legend(*ax.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    figure.suptitle("Point sets, kernel 3, fp32, Huffman order (off scale: nova2025, 9 at n = 8 and 13 at n = 10; limits below 0.18)")
    save(figure, "points_table.png")


def line() -> None:
    """Draw the best points at the angle 2 atan x, where 0, 1 and infinity are a quarter turn apart."""
    rows = []
    for dims in (1, 2):
        for n in SIZES:
            for infinity in (True, False):
                row = best_row(n - 2, 3, dims, infinity=infinity)
                for text in row["points"].split() if row else ():
                    angle = 180.0 if text == "inf" else math.degrees(2 * math.atan(float(fc.toom_cook(1, 1, [text]).points[0])))
                    rows.append([dims, n, int(infinity), text, angle])
    write_csv("points_line.csv", ["dims", "n", "infinity", "point", "angle"], rows, measured=False)
    figure = Figure(figsize=(12, 5), layout="constrained")
    for dims, ax in zip((1, 2), figure.subplots(1, 2), strict=True):
        for infinity, marker in ((1, "o"), (0, "x")):
            some = [row for row in rows if row[0] == dims and row[2] == infinity]
            face = {"mfc": "white"} if marker == "o" else {}
            label = "with infinity" if infinity else "without"
            ax.plot(
                [row[4] for row in some],
                [row[1] for row in some],
                ls="",
                marker=marker,
                ms=5,
                color=style(infinity)["color"],
                label=label,
                **face,
            )
        ticks = [-4, -2, -1, -0.5, 0, 0.5, 1, 2, 4]
        ax.set_xticks([*(math.degrees(2 * math.atan(t)) for t in ticks), 180], [*(f"{t:g}" for t in ticks), "inf"])
        ax.set(xlabel="point x, drawn at 2 atan x", ylabel="tile size n")
        ax.set_title(f"{dims}-D", loc="left", fontsize=11)
        ax.grid(alpha=0.3)
    figure.legend(*ax.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    figure.suptitle("The best points, kernel 3, fp32: nearly evenly spaced on the projective line")
    save(figure, "points_line.png")


def formats() -> None:
    """Draw the errors of the best sets in units of each format's roundoff."""
    rows = []
    for policy, p in (("fp32", 24), ("bf16", 8), ("fp16", 11)):
        for dims in (1, 2):
            for n in SIZES:
                row = best_row(n - 2, 3, dims, policy)
                if row and row["policy"] == policy:
                    rows.append([policy, dims, n, row["measured"], row["measured"] * 2.0**p, row["measured"] / row["direct"]])
    write_csv("points_formats.csv", ["policy", "dims", "n", "mean_abs", "in_roundoffs", "of_direct"], rows)
    figure = Figure(figsize=(11, 5), layout="constrained")
    for dims, ax in zip((1, 2), figure.subplots(1, 2), strict=True):
        for k, policy in enumerate(dict.fromkeys(row[0] for row in rows)):
            some = [row for row in rows if row[:2] == [policy, dims]]
            ax.plot([row[2] for row in some], [row[4] for row in some], label=policy, **style(k))
        ax.set(xlabel="tile size n = m + 2", ylabel="mean |error| / unit roundoff of the format", yscale="log")
        ax.set_title(f"{dims}-D", loc="left", fontsize=11)
        ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    figure.suptitle("The best set of each format, kernel 3, every stage in that format (fp16: rows balanced)")
    save(figure, "points_formats.png")


def condition() -> None:
    """Measure the error of random sets and of the known ones, with their condition number, for n = 6 and 8, and draw them."""
    from fastconv.search.points.candidates import in_order, random_start, rationals

    pool = in_order({0, *rationals(5), *(-p for p in rationals(5))})
    rng = np.random.default_rng(0)
    rows = []
    for n in (6, 8):
        sets = {random_start(rng, n - 1, pool): "random" for _ in range(4000)}
        kappa = objective_named("condition")(n - 2, 3, 2, "fp32")(np.array(list(sets), float), True)
        error = predicted(n - 2, 3, 2, "fp32")(np.array(list(sets), float), True)
        low = [s for s, k, e in zip(sets, kappa, error, strict=True) if k < 30 * kappa.min() and e < 60 * error.min()]
        chosen = {s: "random" for s in low[:250]}
        for source in ("barabasz2020", "nova2025", "lavin2016", "wincnn"):
            points = known(source, n, 2)
            if points is not None:
                chosen[tuple(points[:-1])] = source
        chosen[fc.best_points(n - 2, 3)[:-1]] = "fastconv"
        for points, source in progress(chosen.items(), f"n = {n}"):
            k = float(objective_named("condition")(n - 2, 3, 2, "fp32")(np.array([points], float), True)[0])
            rows.append([n, source, " ".join(map(str, points)), k, measured([*points, fc.INF], n, 2, 1000)])
    write_csv("points_condition.csv", ["n", "source", "points", "condition", "mean_abs"], rows)
    draw_condition()


def draw_condition() -> None:
    """Draw figures/points_condition.csv: the condition number against the measured error."""
    rows = [(int(row["n"]), row["source"], float(row["condition"]), float(row["mean_abs"])) for row in read_csv("points_condition.csv")]
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    for n, ax in zip((6, 8), figure.subplots(1, 2), strict=True):
        for k, source in enumerate(dict.fromkeys(row[1] for row in rows if row[0] == n)):
            some = [row for row in rows if row[0] == n and row[1] == source]
            look = {"ms": 3, "color": "0.6", "marker": "."} if source == "random" else {**style(k), "ms": 8}
            ax.plot([row[2] for row in some], [row[3] for row in some], **look | {"ls": ""}, label=source)
        ranks = [np.argsort(np.argsort([row[i] for row in rows if row[0] == n])) for i in (2, 3)]
        ax.set(xscale="log", yscale="log", xlabel="condition number of the Vandermonde matrix", ylabel="mean |error|, 2-D, fp32")
        ax.xaxis.set_minor_formatter("")
        ax.set_title(f"n = {n}, rank correlation {np.corrcoef(*ranks)[0, 1]:.2f}", loc="left", fontsize=11)
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
        ax.grid(alpha=0.3)
    figure.suptitle("The set with the smallest condition number (nova2025) is far from the smallest error")
    save(figure, "points_condition.png")


JOBS = {
    "table": table,
    "draw_table": draw_table,
    "line": line,
    "formats": formats,
    "condition": condition,
    "draw_condition": draw_condition,
}


if __name__ == "__main__":
    run_jobs(__doc__, JOBS)

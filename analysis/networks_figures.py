"""Draw whole networks from the measurements of networks.py.

    python analysis/networks_figures.py [policies] [predicted] [reductions] [complex]

Each figure goes to figures/networks_<name>.png.
"""

from __future__ import annotations

import math

import numpy as np
from common import COLOURS, place_labels, read_csv, run_jobs, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from networks_tables import COMPLEX, DYADIC, POLICIES, REAL, Store, by_multiplications, multiplications, number, reductions, short

ALAM = (0.22, 0.63)
"""Reductions of the error of whole networks in the abstract of Alam et al. 2022."""
COLUMNS = 3


def panels(names: list[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per network."""
    lines = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(4.1 * COLUMNS, 3.3 * lines + 0.6), layout="constrained")
    axes = list(np.ravel(figure.subplots(lines, COLUMNS, sharey=True, squeeze=False)))
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    return figure, axes[: len(names)]


def draw_policies() -> None:
    """Draw error against tile size: one panel per network, one line per policy, direct convolution at m = 1."""
    store = Store(read_csv("networks.csv"))
    figure, axes = panels(store.networks)
    colours = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7")
    sizes = (1, 2, 4, 6, 8)
    for ax, name in zip(axes, store.networks, strict=True):
        for policy, colour in zip(POLICIES, colours, strict=True):
            for channel_sum, dash in zip(("linear", "pairwise"), ("-", ":"), strict=True):
                found = [store.row(name, "direct" if m == 1 else f"F({m}x{m},3x3)", policy, channel_sum) for m in sizes]
                line = [(m, number(row["relative_l2"])) for m, row in zip(sizes, found, strict=True) if row]
                marker = "o" if dash == "-" else None
                ax.plot([m for m, _ in line], [error for _, error in line], dash, color=colour, marker=marker, ms=4)
                for m, error in line:
                    if dash == "-" and not math.isfinite(error):
                        ax.annotate("overflow", (m, 1), color=colour, ha="center", va="bottom", fontsize=7, rotation=90)
        ax.set_yscale("log")
        ax.set_ylim(3e-8, 30)
        ax.set_xticks(sizes, ("direct", "2", "4", "6", "8"))
        ax.set_xlabel("m of F(m x m, 3x3)", fontsize=9)
        direct = store.row(name, "direct")
        ax.set_title(f"{name}, {direct['images'] if direct else 0} images", fontsize=10)
        ax.grid(which="major", alpha=0.35)
        if ax in ax.figure.axes[::COLUMNS]:
            ax.set_ylabel("relative L2 error of the output")
    lines = [Line2D([], [], color=colour, marker="o", ms=4, label=policy) for policy, colour in zip(POLICIES, colours, strict=True)]
    figure.legend(handles=lines, loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle("Error of whole networks with the best points known; dotted: channels summed pairwise", fontsize=11)
    save(figure, "networks_policies.png")


def draw_predicted() -> None:
    """Draw predicted against measured error: layers alone, and carried through the network."""
    rows = read_csv("networks_predicted.csv")
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    colours = dict(zip(dict.fromkeys(r["network"] for r in rows), COLOURS[1:], strict=False))
    ways = (("predicted", "measured", "Each layer alone"), ("carried", "accumulated", "Within the network (large: its output)"))
    for ax, (predicted, measured, title) in zip(figure.subplots(1, 2), ways, strict=True):
        for name, colour in colours.items():
            mine = [
                r for r in rows if r["network"] == name and number(r.get(predicted, "")) > 0 and math.isfinite(number(r.get(measured, "")))
            ]
            for last in (False, True):
                some = [r for r in mine if (r["layer"] == "output") == last]
                x, y = [number(r[measured]) for r in some], [number(r[predicted]) for r in some]
                ax.plot(x, y, "o", color=colour, ms=8 if last else 3, alpha=1 if last else 0.5, mfc="none" if last else colour,
                        label=None if last else name)  # fmt: skip
        ends = (2e-8, 0.5)
        ax.plot(ends, ends, "-", color="#999999", lw=0.8)
        ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured relative L2 error", ylabel="predicted")
        ax.set_title(title, loc="left", fontsize=11)
        ax.grid(which="major", alpha=0.35)
        ax.legend(frameon=False, fontsize=9)
    asked = ", ".join(short(name) for name in by_multiplications() if name in {row["asked"] for row in rows})
    figure.suptitle(f"Closed form on the second moments of weights and inputs: fp32, mixed, bf16 and fp16; {asked}", fontsize=11)
    save(figure, "networks_predicted.png")


def draw_reductions() -> None:
    """Draw bars, one panel per network: reductions compared with the points of others, and the band of Alam et al. 2022."""
    store = Store(read_csv("networks.csv"))
    found = reductions(store)
    groups = [("F(4x4,3x3)", "lavin2016"), ("F(4x4,3x3)", "barabasz2020"), ("F(6x6,3x3)", "barabasz2020"), ("F(8x8,3x3)", "barabasz2020")]
    titles = {"lavin2016": "Lavin and Gray", "barabasz2020": "Barabasz et al."}
    parts = (
        (3, "#999999", "points fitted to each layer"),
        (4, COLOURS[1], "our best points"),
        (6, COLOURS[3], "and channels pairwise"),
        (8, COLOURS[2], "and transforms in fp64"),
    )
    figure, axes = panels(store.networks)
    for ax, name in zip(axes, store.networks, strict=True):
        ax.axhspan(*(100 * b for b in ALAM), color="#e8e8e8", zorder=0, label="Alam et al. 2022, whole networks")
        values = {(row[1], row[2]): row for row in found if row[0] == name}
        for k, (column, colour, label) in enumerate(parts):
            x = [i + (k - 1.5) * 0.2 for i, group in enumerate(groups) if group in values]
            ax.bar(x, [100 * values[group][column] for group in groups if group in values], 0.18, color=colour, label=label, zorder=2)
        ax.axhline(0, color="#222222", lw=0.8)
        ax.set_xticks(range(len(groups)), [f"{size[:5]})\n{titles[rival]}" for size, rival in groups], fontsize=8)
        ax.set_title(name, loc="left", fontsize=10)
        ax.grid(axis="y", which="major", alpha=0.35)
    for ax in axes[::COLUMNS]:
        ax.set_ylabel("reduction of the relative L2 error, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle("Reduction of the output error compared with the points of others, in fp32", fontsize=11)
    save(figure, "networks_reductions.png")


def trade(ax: Axes, errors: dict[str, float]) -> list[tuple[float, float, str, str]]:
    """Draw error against multiplications, and a line through the best of each kind; return the labels."""
    labels = []
    kinds = ((REAL, COLOURS[1], "o"), (COMPLEX, COLOURS[2], "s"), (tuple(DYADIC), COLOURS[3], "D"))
    for algorithms, colour, marker in kinds:
        some = [name for name in algorithms if math.isfinite(errors[name])]
        ax.plot([multiplications(name) for name in some], [errors[name] for name in some], marker, color=colour, ms=6, mfc="white", mew=1.5)
        labels += [(multiplications(name), errors[name], short(name).rstrip("*"), colour) for name in some]
    for algorithms, colour in ((REAL, COLOURS[1]), ((*COMPLEX, *DYADIC), COLOURS[2])):
        front = []
        for name in sorted(algorithms, key=lambda name: (multiplications(name), errors[name])):
            if math.isfinite(errors[name]) and (not front or errors[name] < errors[front[-1]]):
                front.append(name)
        ax.plot([multiplications(name) for name in front], [errors[name] for name in front], "-", color=colour, lw=1.6, zorder=1)
    ax.set(xscale="log", yscale="log", xlim=(1.5, 4.4), xlabel="multiplications per output (direct: 9)")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks((1.6, 2, 2.5, 3, 4), ("1.6", "2", "2.5", "3", "4"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}" if v in (2.0, 3.0, 5.0) else ""))
    ax.axhline(1, color="#888888", lw=1, ls=":")
    ax.grid(which="both", alpha=0.25)
    return labels


def draw_complex() -> None:
    """Draw output error against multiplications, real and complex points: mean of the networks, and each network."""
    store = Store(read_csv("networks.csv"))
    names = (*REAL, *COMPLEX, *DYADIC)
    looks = (("real points", COLOURS[1], "o"), ("pairs of complex points", COLOURS[2], "s"), ("the same, dyadic", COLOURS[3], "D"))
    marks = [Line2D([], [], color=colour, marker=marker, ls="", mfc="white", mew=1.5, label=label) for label, colour, marker in looks]
    ways = (("fp32", "linear"), ("fp32", "pairwise"), ("bf16", "linear"), ("fp16-balanced", "linear"))
    figure, labels = Figure(figsize=(12, 9), layout="constrained"), []
    for ax, (policy, total) in zip(np.ravel(figure.subplots(2, 2, sharey=True)), ways, strict=True):
        labels.append((ax, trade(ax, {name: store.mean(name, policy, total) for name in names})))
        ax.set_ylim(0.9, 9)
        ax.set_title(f"{policy}, channels {'one after the other' if total == 'linear' else total}", loc="left", fontsize=10)
    for ax in figure.axes[::2]:
        ax.set_ylabel("error, times that of direct convolution")
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Real and complex points in whole networks, geometric mean of six; lines: the best of each kind", fontsize=11)
    for ax, some in labels:
        place_labels(ax, [label for label in some if label[1] < 9], 8)
    save(figure, "networks_complex.png")
    figure, axes = panels(store.networks)
    for ax, network in zip(axes, store.networks, strict=True):
        trade(ax, {name: store.times_direct(network, name, "fp32") for name in names})
        ax.set_ylim(0.9, 60)
        ax.set_title(network, loc="left", fontsize=10)
    for ax in axes[::COLUMNS]:
        ax.set_ylabel("error, times that of direct")
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Real and complex points in fp32, channels one after the other", fontsize=11)
    save(figure, "networks_complex_each.png")


if __name__ == "__main__":
    run_jobs(
        __doc__ or "",
        {"policies": draw_policies, "predicted": draw_predicted, "reductions": draw_reductions, "complex": draw_complex},
    )

"""Draw the measurements of benchmarks/layers.py and benchmarks/curves.py, and print the ratios.

    python analysis/layers_figures.py [two_threads] [one_thread] [curves]

From figures/layers_2.csv and figures/layers_1.csv: bars of the effective GFLOP/s of fastconv and of each peer by layer, with the
relative L2 error of each above its bar (figures/layers_2_*.png, figures/layers_1_*.png), and a table of the speed of fastconv
relative to each peer (figures/layers_2_ratios.csv, figures/layers_1_ratios.csv). From figures/layer_curves.csv: the time of a
layer against its sizes (figures/layer_curves.png).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from common import FIGURES, place_labels, print_table, read_csv, run_jobs, save, style, write_csv
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

OURS = "fastconv"
LIMIT = 1e-6
"""Errors above it are printed bold: they exceed the requested accuracy."""

SHADES = ("#222222", "#e8e8e8", "#b0b0b0", "#f8f8f8", "#8c8c8c", "#d0d0d0", "#ffffff", "#c0c0c0", "#a0a0a0")
HATCHES = ("", "///", "", "...", "\\\\\\", "xxx", "---", "|||", "ooo")
IN_A_ROW = 7
"""Layers per row of a figure."""

Rows = list[dict[str, str]]


def pages(layers: Sequence[str]) -> dict[str, list[str]]:
    """Sort layers into the figures that show them."""
    sorts: dict[str, list[str]] = {"dense": [], "resnet50": [], "depthwise": []}
    for layer in layers:
        size = layer.split()[0]
        kind = "depthwise" if size == "depthwise" else "resnet50" if size in ("1x1", "3x3") or "stride" in layer else "dense"
        sorts[kind].append(layer)
    return {kind: found for kind, found in sorts.items() if found}


def bars(kind: str, rows: Rows, layers: Sequence[str], threads: int) -> None:
    """Draw one group of bars per layer, with the errors above them."""
    shown = set(layers)
    names = list(dict.fromkeys(row["contender"] for row in rows if row["layer"] in shown))
    value = {(row["layer"], row["contender"]): row for row in rows}
    lines = math.ceil(len(layers) / IN_A_ROW)
    figure = Figure(figsize=(13, 0.9 + 2.6 * lines), layout="constrained")
    width = 0.86 / len(names)
    for line, ax in enumerate(figure.subplots(lines, 1, squeeze=False)[:, 0]):
        part = layers[line * IN_A_ROW : (line + 1) * IN_A_ROW]
        for k, name in enumerate(names):
            for at, layer in enumerate(part):
                row = value.get((layer, name))
                if row is None:
                    continue
                x, error = at + (k - (len(names) - 1) / 2) * width, float(row["relative_l2"])
                height = float(row["effective_gflops"])
                ax.bar(x, height, width, color=SHADES[k % 9], hatch=HATCHES[k % 9], edgecolor="#222222", lw=0.6)
                weight = "bold" if error > LIMIT else "normal"
                ax.annotate(
                    f"{error:.0e}".replace("e-0", "e-"), (x, height), (0, 2), textcoords="offset points",
                    rotation=90, fontsize=6.5, fontweight=weight, ha="center", va="bottom",
                )  # fmt: skip
        shares = [value[layer, OURS]["share"] if (layer, OURS) in value else "" for layer in part]
        labels = [f"{layer}\n{float(share):.0%} of its roofline" if share else layer for layer, share in zip(part, shares, strict=True)]
        ax.set_xticks(range(len(part)), labels, fontsize=8)
        ax.set_xlim(-0.5, IN_A_ROW - 0.5)
        ax.set_ylim(0, 1.22 * ax.get_ylim()[1])
        ax.set_ylabel("effective GFLOP/s", fontsize=9)
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
    handles = [Patch(fc=SHADES[k % 9], hatch=HATCHES[k % 9], ec="#222222", lw=0.6, label=name) for k, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    rates = sorted(float(row["fma_gflops"]) for row in rows if row["layer"] in shown)
    plural = "s" if threads > 1 else ""
    figure.suptitle(
        f"Layers, float32, {threads} thread{plural}: operations of the direct convolution over the median time.\nAbove each bar its "
        f"relative L2 error, bold above {LIMIT:.0e}. Multiply-add rate during the runs {rates[0]:.0f} to {rates[-1]:.0f} GFLOP/s.",
        fontsize=10,
    )
    save(figure, f"layers_{threads}_{kind}.png")


def ratios(rows: Rows, threads: int) -> None:
    """Print and write the speed of fastconv relative to each peer, by layer and on average (geometric mean)."""
    seconds = {(row["layer"], row["contender"]): float(row["milliseconds"]) for row in rows}
    layers, names = list(dict.fromkeys(row["layer"] for row in rows)), list(dict.fromkeys(row["contender"] for row in rows))
    peers = [name for name in names if not name.startswith(OURS)]
    mine = {row["layer"]: row for row in rows if row["contender"] == OURS}

    def cells(chosen: Sequence[str]) -> list[float | str]:
        """Geometric means over the layers that a peer computes; last, relative to the fastest peer of each layer."""
        found: list[float | str] = []
        for peer in [*peers, None]:
            logs = []
            for layer in chosen:
                theirs = [seconds[layer, p] for p in (peers if peer is None else [peer]) if (layer, p) in seconds]
                if theirs:
                    logs.append(math.log(min(theirs) / seconds[layer, OURS]))
            found.append(round(math.exp(sum(logs) / len(logs)), 3) if logs else "")
        return found

    table = [[layer, *cells([layer]), mine[layer]["share"], mine[layer]["relative_l2"]] for layer in layers if layer in mine]
    for kind, chosen in pages([layer for layer in layers if layer in mine]).items():
        if kind == "dense":
            images = [layer for layer in chosen if len(layer.split()) == 1]
            table.append(["mean of the 3x3 layers, one image", *cells(images), "", ""])
        else:
            table.append([f"mean of {kind}", *cells(chosen), "", ""])
    header = ["layer", *peers, "fastest peer", "share", "relative L2"]
    print(f"speed relative to each peer, {threads} threads:")
    print_table(header, table)
    write_csv(f"layers_{threads}_ratios.csv", header, table, measured=False)


def layers(threads: int) -> None:
    name = f"layers_{threads}.csv"
    if not (FIGURES / name).exists():
        print(f"figures/{name} does not exist: run benchmarks/layers.py --threads {threads}")
        return
    rows = read_csv(name)
    for kind, chosen in pages(list(dict.fromkeys(row["layer"] for row in rows))).items():
        bars(kind, rows, chosen, threads)
    ratios(rows, threads)


def curves() -> None:
    rows = read_csv("layer_curves.csv")
    axes = {
        "H*W": ("height x width of the output (64 channels and filters)", lambda row: int(row["size"]) ** 2),
        "C*K": ("channels x filters (14x14)", lambda row: int(row["channels"]) ** 2),
        "batch": ("images (64 channels and filters, 28x28)", lambda row: int(row["batch"])),
    }
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    panels = figure.subplots(2, 3, sharex="col")
    keys = [("auto", "1"), ("auto", "2"), ("direct", "1"), ("direct", "2")]
    names: list[list[tuple[float, float, str, str]]] = [[] for _ in axes]
    for column, (curve, (label, of)) in enumerate(axes.items()):
        for k, (asked, count) in enumerate(keys):
            part = [row for row in rows if (row["curve"], row["asked"], row["threads"]) == (curve, asked, count)]
            for line, field in enumerate(("milliseconds", "effective_gflops")):
                panels[line, column].plot([of(row) for row in part], [float(row[field]) for row in part], **style(k))
        for row in rows:
            if (row["curve"], row["asked"], row["threads"]) == (curve, "auto", "2"):
                name = row["ran"].removesuffix(",3x3)").removeprefix("F(") if row["ran"] != "direct" else "d"
                names[column].append((of(row), float(row["effective_gflops"]), name, str(style(1)["color"])))
        panels[0, column].set(xscale="log", yscale="log")
        panels[1, column].set_xlabel(label)
        panels[1, column].set_ylim(0, 1.08 * panels[1, column].get_ylim()[1])
    panels[0, 0].set_ylabel("milliseconds")
    panels[1, 0].set_ylabel("effective GFLOP/s")
    for ax in panels.flat:
        ax.grid(alpha=0.3)
    handles = [
        Line2D([], [], label=f"{asked}, {count} thread{'s' if count != '1' else ''}", **style(k)) for k, (asked, count) in enumerate(keys)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, handlelength=3.5)
    figure.suptitle("3x3 layers, float32: time and speed as one size grows; labels: the choice of auto (d: direct)", fontsize=12)
    for ax, some in zip(panels[1], names, strict=True):
        place_labels(ax, some)
    save(figure, "layer_curves.png")


JOBS = {"two_threads": lambda: layers(2), "one_thread": lambda: layers(1), "curves": curves}


if __name__ == "__main__":
    run_jobs(__doc__, JOBS)

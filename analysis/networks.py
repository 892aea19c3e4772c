"""Whole networks in every precision: what algorithms, point sets, policies and sums over channels do to real answers.

    python analysis/networks.py                                   # all networks, some of their images
    python analysis/networks.py --networks fashion --images 1000  # one network, more images

For each network, a row a policy, sum over channels and algorithm: direct convolution and F(2) to F(8) with the points of Lavin and
Gray, of papers A and B, of NOVA, and the best that fastconv knows. Writes `networks.csv` (one line a row, to which a run with
other networks adds), `networks_predicted.csv`, the figures `networks_policies.png`, `networks_predicted.png` and
`networks_reductions.png` into figures/, and prints the reductions of the error by better points beside those of paper B
(Alam et al. 2022, abstract): 22 % to 63 % in whole networks.

Pictures are cut to `--size` pixels, for emulated arithmetic is slow; the metric of the task is that of `fastconv compare`
only where nothing is cut.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from common import COLOURS, FIGURES, print_table, read_csv, save, write_csv
from matplotlib.figure import Figure

from fastconv.network import compare, known_network, known_networks, published_contenders
from fastconv.network.propagate import predict_errors

SOURCES = ("lavin2016", "barabasz2020", "alam2022", "nova2025", "fastconv")
POLICIES = ("fp32", "mixed", "tf32", "bf16", "fp16", "fp16-balanced")
SUMS = ("linear", "pairwise", "blocked")
PAPER_B = (0.22, 0.63)


def feeds_of(name: str, images: int, size: int) -> tuple[dict[str, np.ndarray], bool]:
    """Return some inputs of a network, and whether they are all of them and whole."""
    whole = known_network(name).inputs()
    some = {key: array[:images] for key, array in whole.items()}
    if name.startswith(("demosaic", "waifu2x")):
        some = {key: np.ascontiguousarray(array[..., :size, :size]) for key, array in some.items()}
    return some, all(some[key].shape == whole[key].shape for key in whole)


def study(name: str, images: int, size: int, sums: tuple[str, ...], policies: tuple[str, ...]) -> list[dict[str, object]]:
    known = known_network(name)
    feeds, is_whole = feeds_of(name, images, size)
    rivals = published_contenders(sizes=(2, 4, 6, 8), sources=SOURCES)
    metric = known.metric if is_whole else None
    report = compare(known.load(), feeds, rivals, policies=policies, channel_sums=sums, metric=metric, batch=known.batch, name=name)
    rows = []
    for row in report.rows:
        data = {key: getattr(row, key) for key in ("algorithm", "points", "policy", "channel_sum", "relative_l2", "max_abs")}
        worst = max(row.layer_relative_l2, key=lambda value: math.inf if math.isnan(value) else value)
        overflows = sum(sum(stages.values()) for stages in row.overflows.values())
        rows.append({"network": name, "images": report.images, **data, "worst_layer": worst, "overflows": overflows, **row.metric})
    return rows


def predictions(name: str, size: int) -> list[dict[str, object]]:
    feeds, _ = feeds_of(name, 4 if name.startswith("fashion") else 1, min(size, 96))
    net = known_network(name).load()
    rows = []
    for policy in ("fp32", "mixed", "bf16", "fp16"):
        for algorithm in ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"):
            found = predict_errors(net, feeds, algorithm, policy)
            for layer in found.layers:
                rows.append({"network": name, "policy": policy, "asked": algorithm, **vars(layer)})
            rows.append({"network": name, "policy": policy, "asked": algorithm, "layer": "output", "carried": found.predicted})
            rows[-1] |= {"accumulated": found.measured}
    return rows


def reductions(rows: list[dict[str, str]]) -> list[tuple[str, str, str, float, float]]:
    """Return network, algorithm, rival set, and by how much less ours errs: points alone, and with pairwise sums and fp64 transforms."""
    at = {(row["network"], row["algorithm"], source, row["policy"], row["channel_sum"]): float(row["relative_l2"])
          for row in rows for source in row["points"].split(", ")}  # fmt: skip
    found = []
    for network in dict.fromkeys(row["network"] for row in rows):
        for m in (4, 6, 8):
            name = f"F({m}x{m},3x3)"
            for rival in ("lavin2016", "barabasz2020", "alam2022", "nova2025"):
                theirs = at.get((network, name, rival, "fp32", "linear"))
                ours = at.get((network, name, "fastconv", "fp32", "linear"))
                methods = at.get((network, name, "fastconv", "mixed", "pairwise"))
                if theirs and ours and methods:
                    found.append((network, name, rival, 1 - ours / theirs, 1 - methods / theirs))
    return found


def merged(name: str, rows: list[dict[str, object]]) -> list[dict[str, str]]:
    """Write rows; those of other networks that the file already holds stay."""
    new = {row["network"] for row in rows}
    kept = [row for row in read_csv(name) if row["network"] not in new] if (FIGURES / name).exists() else []
    order = list(known_networks())
    together: list[dict] = sorted([*kept, *rows], key=lambda row: order.index(str(row["network"])))
    columns = list(dict.fromkeys(key for row in together for key in row))
    write_csv(name, columns, [[row.get(key, "") for key in columns] for row in together])
    return read_csv(name)


def number(text: str) -> float:
    return float(text) if text not in ("", "None") else math.nan


def draw_policies(rows: list[dict[str, str]]) -> None:
    """Error over the size of the tile, a panel a network, a line a policy; direct convolution at m = 1."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(max(3.1 * len(names) + 0.6, 9), 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    colours = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7")
    for ax, name in zip(axes, names, strict=True):
        for policy, colour in zip(POLICIES, colours, strict=True):
            for channel_sum, dash in zip(("linear", "pairwise"), ("-", ":"), strict=True):
                mine = [r for r in rows if (r["network"], r["policy"], r["channel_sum"]) == (name, policy, channel_sum)]
                best = [r for r in mine if r["algorithm"] == "direct" or "fastconv" in r["points"] or r["algorithm"] == "F(2x2,3x3)"]
                sizes = [1 if r["algorithm"] == "direct" else int(r["algorithm"][2]) for r in best]
                errors = [number(r["relative_l2"]) for r in best]
                label = policy if channel_sum == "linear" else None
                ax.plot(sizes, errors, dash, color=colour, marker="o" if dash == "-" else None, ms=4, label=label)
                for m, error in zip(sizes, errors, strict=True):
                    if dash == "-" and not math.isfinite(error):
                        ax.annotate("overflow", (m, 1), color=colour, ha="center", va="bottom", fontsize=7, rotation=90)
        ax.set_yscale("log")
        ax.set_ylim(3e-8, 30)
        ax.set_xticks((1, 2, 4, 6, 8), ("direct", "2", "4", "6", "8"))
        ax.set_xlabel("outputs of a tile, m of F(m x m, 3x3)")
        ax.set_title(f"{name}, {mine[0]['images']} images" if int(mine[0]["images"]) > 1 else name, fontsize=10)
        ax.grid(which="major", alpha=0.35)
    axes[0].set_ylabel("relative L2 error of the output")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle("Error of whole networks with the best points known; dotted: channels summed pairwise", fontsize=11)
    save(figure, "networks_policies.png")


def draw_predicted(rows: list[dict[str, str]]) -> None:
    """Predicted against measured error: layers alone, and carried through the network."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    colours = dict(zip(dict.fromkeys(r["network"] for r in rows), COLOURS[1:], strict=False))
    panels = (("predicted", "measured", "Each layer alone"), ("carried", "accumulated", "Within the network (large: its output)"))
    for ax, (predicted, measured, title) in zip(figure.subplots(1, 2), panels, strict=True):
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
    figure.suptitle(
        "Closed form of independent inputs against real ones: fp32, mixed, fp16 and bf16; direct, F(2), F(4), F(6)", fontsize=11
    )
    save(figure, "networks_predicted.png")


def draw_reductions(found: list[tuple[str, str, str, float, float]]) -> None:
    """Bars: by how much less our points err than others', and band: paper B."""
    rivals = ("lavin2016", "barabasz2020")
    some = [row for row in found if row[2] in rivals]
    groups = list(dict.fromkeys((row[1], row[2]) for row in some))
    names = list(dict.fromkeys(row[0] for row in some))
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    ax = figure.subplots()
    ax.axhspan(*(100 * b for b in PAPER_B), color="#dddddd", zorder=0, label="paper B, whole networks")
    width = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        for shift, column, alpha in ((0, 3, 1.0), (0, 4, 0.35)):
            values = {(row[1], row[2]): row[column] for row in some if row[0] == name}
            x = [i + (k - (len(names) - 1) / 2) * width + shift for i, g in enumerate(groups) if g in values]
            colour = COLOURS[1 + k % 6]
            ax.bar(
                x,
                [100 * values[g] for g in groups if g in values],
                width * 0.9,
                color=colour,
                alpha=alpha,
                label=name if column == 3 else None,
            )
    ax.axhline(0, color="#222222", lw=0.8)
    ax.set_xticks(range(len(groups)), [f"{name}\nagainst {rival}" for name, rival in groups])
    ax.set_ylabel("reduction of the relative L2 error, %")
    ax.set_title("Our points in fp32; pale: with pairwise sums and transforms in fp64 besides", loc="left", fontsize=11)
    ax.legend(frameon=False, fontsize=9)
    save(figure, "networks_reductions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=";".join(known_networks()))
    parser.add_argument("--images", type=int, default=100, help="at most so many of each network")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side that pictures are cut to")
    parser.add_argument("--sums", default=";".join(SUMS))
    parser.add_argument("--policies", default=";".join(POLICIES))
    parser.add_argument("--draw", action="store_true", help="draw and print what the CSV files hold, compute nothing")
    args = parser.parse_args()

    rows, predicted = [], []
    for name in [] if args.draw else args.networks.split(";"):
        rows += study(name, args.images, args.size, tuple(args.sums.split(";")), tuple(args.policies.split(";")))
        predicted += predictions(name, args.size)
    stored, forecasts = merged("networks.csv", rows), merged("networks_predicted.csv", predicted)
    draw_policies(stored)
    draw_predicted(forecasts)
    found = reductions(stored)
    draw_reductions(found)
    print("reduction of the output's error by our points in fp32, and with pairwise sums and transforms in fp64; paper B: 22 % to 63 %")
    print_table(["network", "algorithm", "against", "points", "methods"], [(*row[:3], f"{row[3]:.0%}", f"{row[4]:.0%}") for row in found])


if __name__ == "__main__":
    main()

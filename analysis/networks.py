"""Whole networks in every precision: what algorithms, point sets, policies and sums over channels do to real answers.

    python analysis/networks.py                                          # all networks, some of their images
    python analysis/networks.py --networks fashion --policies "fp32"     # part of it; the rest of the tables stays
    python analysis/networks.py --draw                                   # figures and tables from what is stored

For each network, a row a policy, sum over channels and algorithm: direct convolution and F(2) to F(8) with the points of Lavin and
Gray, of papers A and B, of NOVA, the best that fastconv knows for random numbers, and those that `fastconv.fitted` takes for each
layer. Writes `networks.csv`, `networks_fitted.csv` (which layer took which points), `networks_predicted.csv`, each as soon as a
network and policy is done, the figures `networks_policies.png`, `networks_predicted.png` and `networks_reductions.png` into
figures/, and prints the reductions of the error beside those of paper B (Alam et al. 2022, abstract): 22 % to 63 % in whole networks.

Inputs are the first of each network's own test images; pictures are cut to a square from their middle, for emulated arithmetic is
slow (`SOME`). Where all is whole the metric of the task is taken, else agreement or PSNR against float64. Nothing is random but the
windows by which points are fitted (seed 0).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator

import numpy as np
from common import COLOURS, FIGURES, print_table, read_csv, save, write_csv
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastconv.network import Contender, compare, fitted_contenders, known_network, known_networks, published_contenders
from fastconv.network.propagate import Propagation

SOURCES = ("lavin2016", "barabasz2020", "alam2022", "nova2025", "fastconv")
POLICIES = ("fp32", "mixed", "tf32", "bf16", "fp16", "fp16-balanced")
SUMS = ("linear", "pairwise", "blocked")
PAPER_B = (0.22, 0.63)
SOME = {
    "fashion": (300, None),
    "fashion-resnet20": (40, None),
    "demosaic": (3, 96),
    "waifu2x-vgg7": (2, 64),
    "waifu2x-resnet10": (2, 64),
    "squeezenet": (20, None),
}
"""Images, and pixels of a side that they are cut to."""
FEW = {"fashion": 8, "fashion-resnet20": 8}
"""Images by which points are fitted and errors predicted; two of the others."""


def feeds_of(name: str, images: int | None = None) -> tuple[dict[str, np.ndarray], bool]:
    """Return some inputs of a network, and whether they are whole."""
    count, size = SOME[name]
    some = {key: array[: images or count] for key, array in known_network(name).inputs().items()}
    if size is None:
        return some, True
    begin = {key: [(length - size) // 2 // 2 * 2 for length in array.shape[2:]] for key, array in some.items()}
    return {
        key: np.ascontiguousarray(array[..., y : y + size, x : x + size]) for key, array in some.items() for y, x in [begin[key]]
    }, False


def contenders_of(name: str, others: bool) -> tuple[Contender, ...]:
    """Return all algorithms of the study; write down which points each layer was given."""
    net, (few, _) = known_network(name).load(), feeds_of(name, FEW.get(name, 2))
    fitted = fitted_contenders(net, few, (4, 6, 8), channel_sum="linear")
    rows = [
        {"network": name, "algorithm": one.label, "layer": layer, "points": " ".join(map(str, algorithm.points))}
        for one in fitted
        for layer, algorithm in one.algorithm.items()
        if algorithm != "direct"
    ]
    merged("networks_fitted.csv", rows, ("network",))
    return (*(published_contenders(sizes=(2, 4, 6, 8), sources=SOURCES) if others else ()), *fitted)


def study(name: str, sums: Iterable[str], policies: Iterable[str], others: bool) -> Iterator[list[dict[str, object]]]:
    known = known_network(name)
    net, (feeds, is_whole), rivals = known.load(), feeds_of(name), contenders_of(name, others)
    metric = known.metric if is_whole else None
    for policy in policies:
        for total in sums:
            report = compare(
                net, feeds, rivals, policies=[policy], channel_sums=[total], metric=metric, batch=known.batch, name=name, threads=1
            )
            yield [_row(name, report.images, row) for row in report.rows]


def _row(name, images, row):
    data = {key: getattr(row, key) for key in ("algorithm", "points", "policy", "channel_sum", "relative_l2", "max_abs")}
    worst = max(row.layer_relative_l2, key=lambda value: math.inf if math.isnan(value) else value)
    overflows = sum(sum(stages.values()) for stages in row.overflows.values())
    return {"network": name, "images": images, "pixels": SOME[name][1], **data, "worst_layer": worst, "overflows": overflows, **row.metric}


def predictions(name: str) -> list[dict[str, object]]:
    feeds, _ = feeds_of(name, FEW.get(name, 2))
    seen = Propagation(known_network(name).load(), feeds)
    rows = []
    for policy in ("fp32", "mixed", "bf16", "fp16"):
        for algorithm in ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"):
            found = seen.errors(algorithm, policy)
            for layer in found.layers:
                rows.append({"network": name, "policy": policy, "asked": algorithm, **vars(layer)})
            rows.append({"network": name, "policy": policy, "asked": algorithm, "layer": "output", "carried": found.predicted})
            rows[-1] |= {"accumulated": found.measured}
    return rows


Reduction = tuple[str, str, str, float, float, float, float, float]


def reductions(rows: list[dict[str, str]]) -> list[Reduction]:
    """Return by how much less ours err than a rival's points in fp32 with channels one after the other.

    Network, algorithm, rival; then: points fitted to the network; our best points for random numbers; these with channels summed
    pairwise; with transforms in fp64; with both.
    """
    at = {(row["network"], row["algorithm"], source, row["policy"], row["channel_sum"]): number(row["relative_l2"])
          for row in rows for source in row["points"].split(", ")}  # fmt: skip
    ours = (("fitted", "fp32", "linear"), ("fastconv", "fp32", "linear"), ("fastconv", "fp32", "pairwise"),
            ("fastconv", "mixed", "linear"), ("fastconv", "mixed", "pairwise"))  # fmt: skip
    found = []
    for network in dict.fromkeys(row["network"] for row in rows):
        for name in ("F(4x4,3x3)", "F(6x6,3x3)", "F(8x8,3x3)"):
            for rival in ("lavin2016", "barabasz2020", "alam2022", "nova2025"):
                theirs = at.get((network, name, rival, "fp32", "linear"))
                if theirs:
                    found.append((network, name, rival, *(1 - at.get((network, name, *one), math.nan) / theirs for one in ours)))
    return found


def merged(name: str, rows: list[dict[str, object]], by: tuple[str, ...]) -> list[dict[str, str]]:
    """Write rows; those that the file already holds stay, where they differ in what the new ones are told apart by."""
    new = {tuple(str(row[key]) for key in by) for row in rows}
    kept = [row for row in read_csv(name) if tuple(row[key] for key in by) not in new] if (FIGURES / name).exists() else []
    ranks = {"network": list(known_networks()), "policy": list(POLICIES), "channel_sum": list(SUMS)}
    together: list[dict] = sorted([*kept, *rows], key=lambda row: [ranks[key].index(str(row[key])) for key in by if key in ranks])
    columns = list(dict.fromkeys(key for row in together for key in row))
    write_csv(name, columns, [[row.get(key, "") for key in columns] for row in together])
    return read_csv(name)


def number(text: str) -> float:
    return float(text) if text not in ("", "None") else math.nan


def print_predicted(rows: list[dict[str, str]]) -> None:
    """Print predicted over measured errors in fp32: of the layers alone, and of the output."""
    lines = []
    for name in dict.fromkeys(row["network"] for row in rows):
        for algorithm in ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"):
            for policy in ("fp32", "fp16"):
                mine = [r for r in rows if (r["network"], r["asked"], r["policy"]) == (name, algorithm, policy)]
                of_layers = [
                    number(r["predicted"]) / number(r["measured"]) for r in mine if r["layer"] != "output" and number(r["measured"])
                ]
                output = next(number(r["carried"]) / number(r["accumulated"]) for r in mine if r["layer"] == "output")
                lines.append((name, algorithm, policy, *(f"{q:.2f}" for q in np.quantile(of_layers, (0, 0.5, 1))), f"{output:.2f}"))
    print("predicted over measured: the layers alone, and the output")
    print_table(["network", "algorithm", "policy", "least", "median", "largest", "output"], lines)


def print_overflows(rows: list[dict[str, str]]) -> None:
    """Print what becomes of fp16, as it is and balanced: with the points of Lavin and Gray or paper A, and ours."""
    lines = []
    for row in rows:
        if row["policy"].startswith("fp16") and row["channel_sum"] == "linear" and "nova" not in row["points"]:
            same = row.get("agreement") or row.get("agreement_direct") or row.get("psnr_fp64", "")
            lines.append((*(row[key] for key in ("network", "algorithm", "points", "policy", "relative_l2", "overflows")), same))
    print("fp16: error, values that overflow, agreement with direct convolution or PSNR against float64")
    print_table(["network", "algorithm", "points", "policy", "error", "overflows", "agreement or dB"], lines)


def print_right(rows: list[dict[str, str]]) -> None:
    """Print the share of images classified rightly, with its 95 % interval, and as by direct convolution in the same policy."""
    lines = []
    for row in rows:
        if (
            number(row.get("top1", "")) > 0
            and row["channel_sum"] == "linear"
            and (row["algorithm"] == "direct" or row["points"] == "fitted")
        ):
            share = f"{number(row['top1']):.3f} ({number(row['top1_low']):.3f} to {number(row['top1_high']):.3f})"
            lines.append((row["network"], row["images"], row["policy"], row["algorithm"], share, row["agreement"]))
    print("classified rightly; as by direct convolution")
    print_table(["network", "images", "policy", "algorithm", "right", "as direct"], lines)


COLUMNS = 3


def panels(names: list[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel a network."""
    lines = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(4.1 * COLUMNS, 3.3 * lines + 0.6), layout="constrained")
    axes = list(np.ravel(figure.subplots(lines, COLUMNS, sharey=True, squeeze=False)))
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    return figure, axes[: len(names)]


def draw_policies(rows: list[dict[str, str]]) -> None:
    """Error over the size of the tile, a panel a network, a line a policy; direct convolution at m = 1."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    figure, axes = panels(names)
    colours = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7")
    for ax, name in zip(axes, names, strict=True):
        for policy, colour in zip(POLICIES, colours, strict=True):
            for channel_sum, dash in zip(("linear", "pairwise"), ("-", ":"), strict=True):
                mine = [r for r in rows if (r["network"], r["policy"], r["channel_sum"]) == (name, policy, channel_sum)]
                if not mine:
                    continue
                best = [r for r in mine if r["algorithm"] == "direct" or "fastconv" in r["points"] or r["algorithm"] == "F(2x2,3x3)"]
                size_of = lambda r: 1 if r["algorithm"] == "direct" else int(r["algorithm"][2])
                best = sorted(best, key=size_of)
                sizes = [size_of(r) for r in best]
                errors = [number(r["relative_l2"]) for r in best]
                label = policy if channel_sum == "linear" else None
                ax.plot(sizes, errors, dash, color=colour, marker="o" if dash == "-" else None, ms=4, label=label)
                for m, error in zip(sizes, errors, strict=True):
                    if dash == "-" and not math.isfinite(error):
                        ax.annotate("overflow", (m, 1), color=colour, ha="center", va="bottom", fontsize=7, rotation=90)
        ax.set_yscale("log")
        ax.set_ylim(3e-8, 30)
        ax.set_xticks((1, 2, 4, 6, 8), ("direct", "2", "4", "6", "8"))
        ax.set_xlabel("m of F(m x m, 3x3)", fontsize=9)
        images = next(row["images"] for row in rows if row["network"] == name)
        ax.set_title(f"{name}, {images} images", fontsize=10)
        ax.grid(which="major", alpha=0.35)
        if ax in ax.figure.axes[::COLUMNS]:
            ax.set_ylabel("relative L2 error of the output")
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    some = {policy: handles[policy] for policy in POLICIES if policy in handles}
    figure.legend(some.values(), some.keys(), loc="outside lower center", ncols=6, frameon=False)
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
        "Closed form on the second moments of weights and inputs: fp32, mixed, fp16 and bf16; direct, F(2), F(4), F(6)", fontsize=11
    )
    save(figure, "networks_predicted.png")


def draw_reductions(found: list[Reduction]) -> None:
    """Bars, a panel a network: by how much less ours err than others' points, and as a band paper B."""
    names = list(dict.fromkeys(row[0] for row in found))
    groups = [("F(4x4,3x3)", "lavin2016"), ("F(4x4,3x3)", "barabasz2020"), ("F(6x6,3x3)", "barabasz2020"), ("F(8x8,3x3)", "barabasz2020")]
    titles = {"lavin2016": "Lavin and Gray", "barabasz2020": "paper A"}
    parts = (
        (3, "#999999", "points fitted to each layer"),
        (4, COLOURS[1], "our best points"),
        (5, COLOURS[3], "and channels pairwise"),
        (7, COLOURS[2], "and transforms in fp64"),
    )
    figure, axes = panels(names)
    for ax, name in zip(axes, names, strict=True):
        ax.axhspan(*(100 * b for b in PAPER_B), color="#e8e8e8", zorder=0, label="paper B, whole networks")
        values = {(row[1], row[2]): row for row in found if row[0] == name}
        for k, (column, colour, label) in enumerate(parts):
            x = [i + (k - 1.5) * 0.2 for i, group in enumerate(groups) if group in values]
            ax.bar(x, [100 * values[group][column] for group in groups if group in values], 0.18, color=colour, label=label, zorder=2)
        ax.axhline(0, color="#222222", lw=0.8)
        ax.set_xticks(range(len(groups)), [f"{size[:5]})\n{titles[rival]}" for size, rival in groups], fontsize=8)
        ax.set_title(name, loc="left", fontsize=10)
        ax.grid(axis="y", which="major", alpha=0.35)
    for ax in axes[::COLUMNS]:
        ax.set_ylabel("less relative L2 error, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle("By how much less the output errs than with the points of others, in fp32", fontsize=11)
    save(figure, "networks_reductions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=";".join(known_networks()))
    parser.add_argument("--sums", default="linear;pairwise")
    parser.add_argument("--policies", default=";".join(POLICIES), help="empty: predictions only")
    parser.add_argument("--fitted", action="store_true", help="direct convolution and fitted points only; other rows stay")
    parser.add_argument("--no-predictions", action="store_true")
    parser.add_argument("--draw", action="store_true", help="draw and print what the CSV files hold, compute nothing")
    args = parser.parse_args()

    for name in [] if args.draw else args.networks.split(";"):
        for rows in study(name, args.sums.split(";"), args.policies.split(";"), not args.fitted) if args.policies else ():
            merged("networks.csv", rows, ("network", "policy", "channel_sum", *(["points"] if args.fitted else [])))
        if not args.no_predictions:
            merged("networks_predicted.csv", predictions(name), ("network",))
    stored, forecasts = read_csv("networks.csv"), read_csv("networks_predicted.csv")
    draw_policies(stored)
    draw_predicted(forecasts)
    found = reductions(stored)
    draw_reductions(found)
    print_predicted(forecasts)
    print_overflows(stored)
    print_right(stored)
    print("reduction of the output's error against others' points in fp32, channels one after the other; paper B: 22 % to 63 %")
    head = ["network", "algorithm", "against", "fitted", "best points", "and pairwise", "and fp64 transforms", "both"]
    print_table(head, [(*row[:3], *(f"{value:.0%}" for value in row[3:])) for row in found])


if __name__ == "__main__":
    main()

"""Measure whole networks in every precision, with every algorithm, point set, policy and channel sum.

    python analysis/networks.py                                          # all networks, some of their images
    python analysis/networks.py --networks fashion --policies "fp32"     # a part; the other rows are kept
    python analysis/networks.py --points "known;complex" --again         # some contenders, even if they are stored

For each network there is one row per policy, channel sum and algorithm. The contenders are direct convolution; F(2) to F(8) with
the points of Lavin and Gray, of Barabasz et al. 2020, of Alam et al. 2022, of NOVA, and the best that fastconv knows for random
numbers; the points that `fastconv.fitted` chooses for each layer; sets with pairs of complex points, some chosen for networks.

Writes `networks.csv`, `networks_fitted.csv` (the points of each layer), `networks_predicted.csv` and
`networks_multiplications.csv` into figures/, each as soon as a network, policy and sum is done. Stored rows are not measured
again. `networks_figures.py` draws them, `results.py` writes docs/results/network-study.md.

Inputs are the first test images of each network. Emulated arithmetic is slow, so pictures are cut to a square from their middle
(`SOME`). If all inputs are whole, the metric of the task is used, otherwise agreement or PSNR against float64. Only the windows
that points are fitted on are random (seed 0).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from common import FIGURES, read_csv, write_csv
from networks_tables import COMPLEX, DYADIC, POLICIES, REAL, SUMS

import fastconv as fc
from fastconv.network import Contender, compare, fitted_contenders, known_network, known_networks, published_contenders
from fastconv.network.predict.propagate import Propagation
from fastconv.network.run.assign import is_eligible
from fastconv.network.study.contenders import FITTED

SOURCES = ("lavin2016", "barabasz2020", "alam2022", "nova2025", "fastconv")
SOME = {
    "fashion": (300, None),
    "fashion-resnet20": (80, None),
    "demosaic": (3, 96),
    "waifu2x-vgg7": (3, 80),
    "waifu2x-resnet10": (3, 80),
    "squeezenet": (20, None),
}
"""Images per network, and the pixels per side that they are cut to."""
FEW = {"fashion": 8, "fashion-resnet20": 8}
"""Images to fit points and predict errors on; two for the other networks."""
ALGORITHMS = ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)", "F(6x6,3x3)/9", "F(8x8,3x3)/12")
"""Algorithms whose errors are predicted."""
SINGLE = ("network", "policy", "channel_sum", "algorithm", "points")
"""Columns that identify a row of networks.csv."""


def stored(name: str) -> list[dict[str, str]]:
    """Return the rows of a file in figures/, empty if it does not exist."""
    return read_csv(name) if (FIGURES / name).exists() else []


def feeds_of(name: str, images: int | None = None) -> tuple[dict[str, np.ndarray], bool]:
    """Return some inputs of a network, and whether they are complete images."""
    count, size = SOME[name]
    some = {key: array[: images or count] for key, array in known_network(name).inputs().items()}
    if size is None:
        return some, True
    begin = {key: [(length - size) // 2 // 2 * 2 for length in array.shape[2:]] for key, array in some.items()}
    return {
        key: np.ascontiguousarray(array[..., y : y + size, x : x + size]) for key, array in some.items() for y, x in [begin[key]]
    }, False


def known(_: str) -> tuple[Contender, ...]:
    """Return F(2) to F(8) with all known points; for odd sizes only the best."""
    return published_contenders(sizes=(2, 4, 6, 8), sources=SOURCES) + published_contenders(sizes=(3, 5, 7), sources=SOURCES[-1:])


def complex_sets(_: str) -> tuple[Contender, ...]:
    return tuple(Contender(name, "complex", fc.algorithm(name)) for name in COMPLEX)


def fitted(name: str) -> tuple[Contender, ...]:
    """Fit points to each layer and store them, or read them if they are stored for the same pixels."""
    pixels, net = str(SOME[name][1] or ""), known_network(name).load()
    taken = [row for row in stored("networks_fitted.csv") if (row["network"], row.get("pixels")) == (name, pixels)]
    if taken:
        chosen: dict[str, dict[str, Any]] = {}
        for row in taken:
            mine = chosen.setdefault(row["algorithm"], {node.name: "direct" for node in net.graph.convolutions})
            mine[row["layer"]] = fc.toom_cook(int(row["algorithm"][2]), 3, row["points"].split())
        return tuple(Contender(label, FITTED, choice) for label, choice in chosen.items())
    few, _ = feeds_of(name, FEW.get(name, 2))
    found = fitted_contenders(net, few, (4, 6, 8), channel_sum="linear")
    rows = [
        {"network": name, "pixels": pixels, "algorithm": one.label, "layer": layer, "points": " ".join(map(str, algorithm.points))}
        for one in found
        for layer, algorithm in one.algorithm.items()
        if algorithm != "direct"
    ]
    merged("networks_fitted.csv", rows, ("network",))
    return found


def dyadic(_: str) -> tuple[Contender, ...]:
    return tuple(
        Contender(name.rstrip("*"), "dyadic", fc.toom_cook(int(name[2 : name.index("x")]), 3, points.split()))
        for name, points in DYADIC.items()
    )


KINDS: dict[str, Callable[[str], tuple[Contender, ...]]] = {"known": known, "fitted": fitted, "complex": complex_sets, "dyadic": dyadic}


def study(name: str, sums: Iterable[str], policies: Iterable[str], kinds: Iterable[str], again: bool) -> Iterator[list[dict[str, object]]]:
    """Measure the rows that are not stored yet for the images of `SOME`, policy by policy."""
    task, (feeds, is_whole) = known_network(name), feeds_of(name)
    net, metric = task.load(), task.metric if is_whole else None
    rivals = {kind: KINDS[kind](name) for kind in kinds if kind != "fitted"}
    count, size = SOME[name]
    for policy in policies:
        for total in sums:
            sample = (name, policy, total, str(count), str(size or ""))
            have = {
                (row["algorithm"], row["points"])
                for row in ([] if again else stored("networks.csv"))
                if tuple(row[key] for key in ("network", "policy", "channel_sum", "images", "pixels")) == sample
            }
            if "fitted" in kinds and "fitted" not in rivals and FITTED not in {points for _, points in have}:
                rivals["fitted"] = fitted(name)
            left = [one for some in rivals.values() for one in some if (one.label, one.points) not in have]
            if not left and have:
                continue
            report = compare(
                net, feeds, left, policies=[policy], channel_sums=[total], metric=metric, batch=task.batch, name=name, threads=1
            )
            yield [_row(name, report.images, row) for row in report.rows]


def _row(name, images, row):
    data = {key: getattr(row, key) for key in ("algorithm", "points", "policy", "channel_sum", "relative_l2", "max_abs")}
    worst = max(row.layer_relative_l2, key=lambda value: math.inf if math.isnan(value) else value)
    overflows = sum(sum(stages.values()) for stages in row.overflows.values())
    return {
        "network": name, "images": images, "pixels": SOME[name][1] or "", **data, "worst_layer": worst, "overflows": overflows, **row.metric
    }  # fmt: skip


def multiplied(name: str) -> list[dict[str, object]]:
    """Count multiplications per output on a whole image, including tiles beyond the edge of a feature map."""
    net, seen = known_network(name).load(), []

    def watch(node, inputs, results, seconds):
        if node.operator == "Conv" and is_eligible(net.graph, node, 3):
            seen.append((math.prod(inputs[1].shape[:2]), results[0].shape[2:]))

    net.prepare("direct", "fp64", threads=1)({key: array[:1] for key, array in known_network(name).inputs().items()}, watch=watch)
    outputs, rows = sum(pairs * math.prod(shape) for pairs, shape in seen), []
    for algorithm in (*REAL, *COMPLEX):
        fast = fc.algorithm(algorithm)
        tiles = sum(pairs * math.prod(-(-length // fast.m) for length in shape) for pairs, shape in seen)
        rows.append({"network": name, "algorithm": algorithm, "multiplications": tiles * fast.products**2 / outputs})
    return rows


def predictions(name: str, policies: Iterable[str], again: bool) -> Iterator[list[dict[str, object]]]:
    """Predict the errors that are not stored yet for these pixels, policy by policy."""
    pixels, (feeds, _) = str(SOME[name][1] or ""), feeds_of(name, FEW.get(name, 2))
    have = {(row["policy"], row["asked"]) for row in stored("networks_predicted.csv") if (row["network"], row["pixels"]) == (name, pixels)}
    left = [(policy, asked) for policy in policies for asked in ALGORITHMS if again or (policy, asked) not in have]
    seen = Propagation(known_network(name).load(), feeds) if left else None
    for policy, asked in left:
        found = seen.errors(asked, policy)
        of_layers = [{"network": name, "pixels": pixels, "policy": policy, "asked": asked, **vars(layer)} for layer in found.layers]
        yield [*of_layers, of_layers[0] | dict.fromkeys(vars(found.layers[0]), "") | {"layer": "output", "carried": found.predicted}
               | {"accumulated": found.measured}]  # fmt: skip


def merged(name: str, rows: list[dict[str, object]], by: tuple[str, ...]) -> None:
    """Write rows, and keep the stored rows that no new row replaces."""
    new = {tuple(str(row[key]) for key in by) for row in rows}
    kept = [row for row in stored(name) if tuple(row[key] for key in by) not in new]
    ranks = {"network": list(known_networks()), "policy": list(POLICIES), "channel_sum": list(SUMS)}
    ranked = [key for key in by if key in ranks]
    # Direct convolution, without points, comes first.
    together: list[dict] = sorted([*kept, *rows], key=lambda row: [*(ranks[k].index(str(row[k])) for k in ranked), bool(row.get("points"))])
    columns = list(dict.fromkeys(key for row in together for key in row))
    write_csv(name, columns, [[row.get(key, "") for key in columns] for row in together])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=";".join(known_networks()))
    parser.add_argument("--sums", default=";".join(SUMS))
    parser.add_argument("--policies", default=";".join(POLICIES), help="empty: none")
    parser.add_argument("--points", default=";".join(KINDS), help="kinds of contenders")
    parser.add_argument("--again", action="store_true", help="measure stored rows again")
    parser.add_argument("--predictions", default="fp32;mixed;bf16;fp16", help="policies in which errors are predicted")
    args = parser.parse_args()
    given = (args.sums, args.policies, args.points, args.predictions)
    sums, policies, kinds, predicted = (chosen.split(";") if chosen else [] for chosen in given)
    for name in args.networks.split(";"):
        merged("networks_multiplications.csv", multiplied(name), ("network",))
        for rows in study(name, sums, policies, kinds, args.again):
            merged("networks.csv", rows, SINGLE)
            print(name, rows[0]["policy"], rows[0]["channel_sum"], len(rows), flush=True)
        for rows in predictions(name, predicted, args.again):
            merged("networks_predicted.csv", rows, ("network", "policy", "asked"))


if __name__ == "__main__":
    main()

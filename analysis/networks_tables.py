"""Tables of docs/results/network-study.md from the results of networks.py; analysis/results.py writes the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import geometric_mean, quantiles

from common import markdown

import fastconv as fc

NAMES = {"lavin2016": "Lavin and Gray", "barabasz2020": "Barabasz et al. 2020", "alam2022": "Alam et al. 2022",
         "nova2025": "NOVA", "fastconv": "ours"}  # fmt: skip
REAL = tuple(f"F({m}x{m},3x3)" for m in range(2, 9))
COMPLEX = ("F(4x4,3x3)/7", "F(8x8,3x3)/13", "F(8x8,3x3)/12", "F(6x6,3x3)/9", "F(12x12,3x3)/17", "F(10x10,3x3)/14")
DYADIC = {
    "F(8x8,3x3)/13*": "0 inf 1 -1 I 3/4+3/4*I -3/4+3/4*I",
    "F(8x8,3x3)/12*": "0 inf 25/32 -25/32 5/4 -5/4 1/2+7/8*I -1/2+7/8*I",
    "F(10x10,3x3)/14*": "0 inf 1 -1 25/16 -25/16 5/8 -5/8 3/8+7/8*I -3/8+7/8*I",
}
"""Best sets of dyadic_points.py; a star distinguishes them from `fastconv.complex_points`."""
POLICIES = ("fp32", "mixed", "tf32", "bf16", "fp16", "fp16-balanced")
SUMS = ("linear", "pairwise", "blocked")

Row = dict[str, str]


class Store:
    """Rows of networks.csv by network, algorithm, points, policy and channel sum."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.networks = list(dict.fromkeys(row["network"] for row in rows))
        self._at = {
            (row["network"], row["algorithm"], source, row["policy"], row["channel_sum"]): row
            for row in rows
            for source in row["points"].split(", ")
        }

    def row(self, network: str, algorithm: str, policy: str = "fp32", channel_sum: str = "linear", points: str | None = None) -> Row | None:
        """Return a row, by default for our points."""
        return self._at.get((network, algorithm.rstrip("*"), points_of(algorithm) if points is None else points, policy, channel_sum))

    def error(self, *where: str, points: str | None = None) -> float:
        """Return the relative error of a row; NaN if there is no row, or no finite error."""
        row = self.row(*where, points=points)
        return number(row["relative_l2"]) if row else math.nan

    def times_direct(self, network: str, algorithm: str, policy: str, channel_sum: str = "linear") -> float:
        """Return the error as a multiple of that of direct convolution in the same policy and sum."""
        return self.error(network, algorithm, policy, channel_sum) / self.error(network, "direct", policy, channel_sum)

    def mean(self, algorithm: str, policy: str, channel_sum: str = "linear") -> float:
        """Return the geometric mean of `times_direct` over all networks; NaN if one is not a number."""
        values = [self.times_direct(network, algorithm, policy, channel_sum) for network in self.networks]
        return geometric_mean(values) if all(map(math.isfinite, values)) else math.nan


def points_of(algorithm: str) -> str:
    """Return the name of our own points of an algorithm in the column "points"."""
    return "" if algorithm == "direct" else "dyadic" if algorithm in DYADIC else "complex" if "/" in algorithm else "fastconv"


@lru_cache(maxsize=64)
def multiplications(algorithm: str) -> float:
    """Return multiplications per output of a 3x3 kernel.

    >>> multiplications("direct"), multiplications("F(4x4,3x3)"), multiplications("F(8x8,3x3)/12")
    (9.0, 2.25, 2.25)
    """
    if algorithm == "direct":
        return 9.0
    found = fc.algorithm(algorithm.rstrip("*"))
    return (found.products / found.m) ** 2


def number(text: str) -> float:
    return float(text) if text not in ("", "None") else math.nan


def short(algorithm: str) -> str:
    """Write F(4x4,3x3)/7 as F(4x4)/7."""
    return algorithm.replace(",3x3", "")


def percent(value: float, digits: int = 0) -> str:
    return "" if math.isnan(value) else f"{100 * value:.{digits}f} %"


def times(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


Reduction = tuple[str, str, str, float, float, float, float, float, float]


def reductions(store: Store) -> list[Reduction]:
    """Return reductions of the error compared with the points of others, in fp32, channels one after the other.

    Network, algorithm, rival; then: points fitted to the network; our best points for random numbers; these with channels summed
    in blocks; pairwise; with transforms in fp64; with these and pairwise.
    """
    ours = (("fitted", "fp32", "linear"), ("fastconv", "fp32", "linear"), ("fastconv", "fp32", "blocked"),
            ("fastconv", "fp32", "pairwise"), ("fastconv", "mixed", "linear"), ("fastconv", "mixed", "pairwise"))  # fmt: skip
    found = []
    for network in store.networks:
        for name in ("F(4x4,3x3)", "F(6x6,3x3)", "F(8x8,3x3)"):
            for rival in ("lavin2016", "barabasz2020", "alam2022", "nova2025"):
                theirs = store.error(network, name, points=rival)
                if math.isfinite(theirs):
                    mine = [1 - store.error(network, name, policy, total, points=points) / theirs for points, policy, total in ours]
                    found.append((network, name, rival, *mine))
    return found  # type: ignore[return-value]


def samples(store: Store) -> str:
    """Return the table of samples."""
    lines = []
    for network in store.networks:
        row = store.row(network, "direct")
        assert row is not None
        size = f"{row['pixels']}x{row['pixels']} pixels from the middle" if row["pixels"] else "whole"
        lines.append((network, row["images"], size, str(sum(r["network"] == network for r in store.rows))))
    return markdown(("network", "images", "of each", "rows of figures/networks.csv"), lines)


def of_points(store: Store) -> str:
    lines = [
        (f"{network}, {short(name)}", NAMES[rival], *map(percent, values))
        for network, name, rival, *values in reductions(store)
        if rival != "nova2025"
    ]
    return markdown(("", "against", "fitted", "our best points", "and blocked", "and pairwise", "and fp64 transforms", "both"), lines)


def of_sums(store: Store) -> str:
    """Return the error of pairwise and blocked sums over that of channels one after the other."""
    ways = [(policy, total) for policy in ("fp32", "mixed", "bf16", "fp16") for total in SUMS[1:]]
    which = [("direct", ""), ("F(2x2,3x3)", "fastconv"), ("F(4x4,3x3)", "lavin2016")]
    which += [(name, "fastconv") for name in ("F(4x4,3x3)", "F(6x6,3x3)")] + [("F(6x6,3x3)/9", "complex")]
    lines = []
    for network in store.networks:
        for algorithm, points in which:
            cells = [
                times(
                    store.error(network, algorithm, policy, total, points=points) / store.error(network, algorithm, policy, points=points)
                )
                for policy, total in ways
            ]
            title = f"{network}, {short(algorithm)}{', Lavin and Gray' * (points == 'lavin2016')}"
            lines.append((title, f"{store.error(network, algorithm, points=points):.1e}", *cells))
    keep = [k + 2 for k in range(len(ways)) if any(line[k + 2] != "-" for line in lines)]
    head = ("", "fp32, linear: error", *(f"{policy}, {total}" for policy, total in ways))
    return markdown([head[k] for k in (0, 1, *keep)], [[line[k] for k in (0, 1, *keep)] for line in lines])


def by_multiplications() -> list[str]:
    return sorted(("direct", *REAL, *COMPLEX, *DYADIC), key=lambda name: (-multiplications(name), name not in REAL, name))


def of_complex(store: Store, policy: str) -> str:
    """Return the error of real and complex points as a multiple of direct convolution's, by network."""
    lines = []
    for algorithm in by_multiplications():
        if algorithm == "direct":
            cells = [*(f"{store.error(network, algorithm, policy):.1e}" for network in store.networks), "1", "1"]
        else:
            cells = [times(store.times_direct(network, algorithm, policy)) for network in store.networks]
            cells += [times(store.mean(algorithm, policy, total)) for total in ("linear", "pairwise")]
        lines.append((titled(algorithm), f"{multiplications(algorithm):.2f}", *cells))
    return markdown(("", "multiplications", *store.networks, "mean", "mean, pairwise"), lines)


def of_edges(rows: Sequence[Row]) -> str:
    """Return multiplications per output, including tiles beyond the edges of feature maps."""
    at = {(row["network"], row["algorithm"]): row["multiplications"] for row in rows}
    algorithms = [name for name in by_multiplications()[1:] if name not in DYADIC]
    lines = [("nominal", *(f"{multiplications(name):.2f}" for name in algorithms))]
    lines += [(n, *(f"{number(at[n, name]):.2f}" for name in algorithms)) for n in dict.fromkeys(row["network"] for row in rows)]
    return markdown(("", *map(titled, algorithms)), lines)


def of_dyadic(rows: Sequence[Row]) -> str:
    """Return the best set of each family."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: number(row["at_output"])):
        best.setdefault(row["algorithm"], row)
    lines = []
    for name, row in sorted(best.items(), key=lambda item: -multiplications(item[0])):
        count = sum(other["algorithm"] == name for other in rows)
        ratios = (f"{number(row[key]):.2f}" for key in ("at_output", "of_layers", "at_random"))
        lines.append((short(name), row["points"].removeprefix("0 inf "), str(count), *ratios))
    return markdown(("", "points other than 0 and infinity", "sets tried", "at the output", "of layers", "at random"), lines)


def titled(algorithm: str) -> str:
    """Return a name as tables show it, complex points in bold."""
    name = short(algorithm)
    return name if points_of(algorithm) in ("", "fastconv") else f"**{name.replace('*', '')}**{' (dyadic)' * (algorithm in DYADIC)}"


def of_halves(store: Store) -> str:
    """Return the table of real and complex points in bf16 and fp16."""
    classes = [network for network in store.networks if (row := store.row(network, "direct")) and same_class(row)]
    lines = []
    for algorithm in by_multiplications():
        cells = [times(store.mean(algorithm, "bf16")), *(same_class(store.row(network, algorithm, "bf16")) for network in classes)]
        wrong = [number(row["overflows"]) for network in store.networks if (row := store.row(network, algorithm, "fp16"))]
        cells += [f"{sum(count > 0 for count in wrong)} of {len(wrong)}", f"{sum(wrong):,.0f}"]
        cells += [times(store.mean(algorithm, "fp16-balanced")), *(same_class(store.row(n, algorithm, "fp16-balanced")) for n in classes)]
        lines.append((titled(algorithm), f"{multiplications(algorithm):.2f}", *cells))
    same = [f"{network}: same class" for network in classes]
    head = ("", "multiplications", "bf16: error", *same, "fp16: networks that overflow", "values", "fp16-balanced: error", *same)
    return markdown(head, lines)


def same_class(row: Row | None) -> str:
    """Return the share of images classified as by direct convolution; empty if there are no classes."""
    text = (row.get("agreement") or row.get("agreement_direct") or "") if row else ""
    return percent(float(text), 0 if float(text) == 1 else 1) if text else ""


def of_predictions(rows: Sequence[Row]) -> str:
    """Return predicted over measured errors in fp32, of the layers alone and of the output."""
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        for algorithm in by_multiplications():
            mine = [r for r in rows if (r["network"], r["asked"], r["policy"]) == (network, algorithm, "fp32")]
            if mine:
                layers = [number(r["predicted"]) / number(r["measured"]) for r in mine if r["layer"] != "output" and number(r["measured"])]
                output = next(number(r["carried"]) / number(r["accumulated"]) for r in mine if r["layer"] == "output")
                middle = quantiles(layers, n=2, method="inclusive")[0]
                alone = ", ".join(f"{value:.2g}" for value in (min(layers), middle, max(layers)))
                lines.append((f"{network}, {short(algorithm)}", alone, f"{output:.2g}"))
    return markdown(("", "layers alone: least, median, largest", "output"), lines)


def of_fp16(store: Store) -> str:
    """Return fp16 errors, overflows, agreement or PSNR, unscaled, and balanced and scaled."""

    def cell(row: Row | None) -> str:
        if row is None:
            return ""
        error, ratio = number(row["relative_l2"]), number(row.get("psnr_fp64", ""))
        kept = same_class(row) or (f"{ratio:.0f} dB" if math.isfinite(ratio) else "-")
        return f"{f'{error:.1e}' if math.isfinite(error) else 'NaN'}, {number(row['overflows']):,.0f}, {kept}"

    which = [("direct", ""), ("F(4x4,3x3)", "lavin2016"), ("F(4x4,3x3)", "fastconv"), ("F(6x6,3x3)/9", "complex")]
    which += [(f"F({m}x{m},3x3)", points) for m in (6, 8) for points in ("barabasz2020", "fastconv")]
    lines = []
    for network in store.networks:
        for algorithm, points in which:
            cells = [cell(store.row(network, algorithm, policy, points=points)) for policy in ("fp16", "fp16-balanced")]
            lines.append((f"{network}, {short(algorithm)}", NAMES.get(points, points), *cells))
    return markdown(("", "points", "fp16: error, overflows, same class or dB", "balanced and scaled"), lines)


def of_answers(store: Store) -> str:
    """Return top-1 with its interval, and the share classified as by direct convolution."""
    algorithms = ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)", "F(8x8,3x3)", "F(6x6,3x3)/9", "F(12x12,3x3)/17")

    def cell(network: str, algorithm: str, policy: str) -> str:
        row = store.row(network, algorithm, policy)
        if row is None:
            return ""
        half = (number(row["top1_high"]) - number(row["top1_low"])) / 2
        right = f"{100 * number(row['top1']):.1f} ± {100 * half:.1f}"
        return right if algorithm == "direct" else f"{right}, {100 * number(row['agreement']):.1f}"

    lines = []
    for network in store.networks:
        row = store.row(network, "direct")
        if row and math.isfinite(number(row["top1"])):
            for policy in POLICIES:
                lines.append((f"{network}, {policy}", row["images"], *(cell(network, algorithm, policy) for algorithm in algorithms)))
    return markdown(("", "images", *map(short, algorithms)), lines)

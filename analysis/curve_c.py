"""Draw the error against c for the points {-1/c, -c, c, 1/c} of Alam et al. 2022, their subsets and unions, for every tile size.

    python analysis/curve_c.py [--n 4-18] [--dims 1 2] [--grid 300] [--trials 5000] [--draw]

A set is a subset of the family at c, completed by inf, 0, -1, 1 and by the families of Barabasz et al. 2020 at 1/2, 1/4, 3/4, in this
order. (Where inf, 0, -1, 1 suffice, every choice among them is a set.) Other sets are two families at c1, c2 with any of inf, 0, -1, 1. The
predicted error is drawn along c. At the rationals of small height, the smallest error is measured, and the published set of Barabasz et al.
2020 on the same tiles. Writes figures/curve_c.csv (the minima of every kind of set) and figures/curve_c_reductions.csv. Draws them into
figures/curve_c_1d_n4-9.png and so on, six sizes per page. `--draw` only draws.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
from common import FIGURES, print_table, progress, read_csv, save, style, write_csv
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import fastconv as fc
from fastconv.search.points.candidates import in_order, rationals
from fastconv.search.points.objective import predicted

MEMBERS = ("-1/c", "-c", "c", "1/c")
SPECIAL = ("inf", "0", "-1", "1")
FILLING = (*SPECIAL, "1/2", "-1/2", "2", "-2", "-1/4", "4", "1/4", "-4", "3/4", "-4/3", "-3/4", "4/3")
HEIGHT = 16
CLAIMED = (0.02, 0.59)
"""Smallest and largest reduction that Alam et al. 2022 report."""
PANELS = 6
"""Sizes on a page."""

RATIONAL = [c for c in rationals(HEIGHT) if Fraction(1, 12) <= c < 1]


@dataclass(frozen=True)
class Kind:
    """A kind of set: members of the family at c, of that at c2, and fixed points."""

    members: tuple[str, ...]
    second: tuple[str, ...]
    fixed: tuple[str, ...]

    @property
    def infinity(self) -> bool:
        """Whether infinity is a point."""
        return "inf" in self.fixed

    def __str__(self) -> str:
        second = [p.replace("c", "c2") for p in self.second]
        return "{" + ", ".join([*self.members, *second, *self.fixed]) + "}"

    @property
    def label(self) -> str:
        """A name short enough for a figure."""
        if len(self.fixed) <= 4:
            return "{" + ", ".join([*self.members, *self.fixed]) + "}"
        return "{" + ", ".join(self.members) + f"}} and {len(self.fixed)} fixed points"

    def finite(self, c: Any, c2: Any = 1) -> list[Any]:
        """Return the finite points at c."""
        of = lambda members, c: [{"-1/c": -1 / c, "-c": -c, "c": c, "1/c": 1 / c}[name] for name in members]
        return [*of(self.members, c), *of(self.second, c2), *(Fraction(p) for p in self.fixed if p != "inf")]


def subsets() -> Iterator[tuple[str, ...]]:
    """Yield the subsets of the family, one of each pair that differs by all signs or by c -> 1/c."""
    turned = {"-1/c": "1/c", "-c": "c", "c": "-c", "1/c": "-1/c"}
    inverted = {"-1/c": "-c", "-c": "-1/c", "c": "1/c", "1/c": "c"}
    seen: set[frozenset[str]] = set()
    for size in (4, 3, 2, 1):
        for chosen in combinations(MEMBERS, size):
            one = frozenset(chosen)
            other = frozenset(inverted[p] for p in one)
            alike = {one, other, frozenset(turned[p] for p in one), frozenset(turned[p] for p in other)}
            if not alike & seen:
                yield chosen
            seen |= alike


def kinds(n: int) -> Iterator[Kind]:
    """Yield the kinds of sets of n points with one family."""
    for members in subsets():
        rest = n - len(members)
        if 0 <= rest <= 4:
            yield from (Kind(members, (), fixed) for fixed in combinations(SPECIAL, rest))
        elif rest <= len(FILLING):
            yield Kind(members, (), FILLING[:rest])


def double_kinds(n: int) -> Iterator[Kind]:
    """Yield the kinds of sets of n points with two whole families."""
    if 0 <= n - 8 <= 4:
        yield from (Kind(MEMBERS, MEMBERS, fixed) for fixed in combinations(SPECIAL, n - 8))


def along(kind: Kind, n: int, dims: int, cs: Any) -> Any:
    """Return the predicted errors at each c."""
    objective = predicted(n - 2, 3, dims, "fp32")
    return objective(np.array([[float(p) for p in kind.finite(c)] for c in cs]), kind.infinity)


def best_single(kind: Kind, n: int, dims: int) -> tuple[float, tuple[Fraction, ...]]:
    errors = along(kind, n, dims, RATIONAL)
    i = int(np.argmin(errors))
    return float(errors[i]), (RATIONAL[i],)


def best_double(kind: Kind, n: int, dims: int) -> tuple[float, tuple[Fraction, ...]]:
    cs = [c for c in RATIONAL if max(c.numerator, c.denominator) <= 12]
    pairs = [(a, b) for a, b in combinations(cs, 2)]
    objective = predicted(n - 2, 3, dims, "fp32")
    errors = objective(np.array([[float(p) for p in kind.finite(a, b)] for a, b in pairs]), kind.infinity)
    i = int(np.argmin(errors))
    return float(errors[i]), pairs[i]


def points_of(kind: Kind, cs: tuple[Fraction, ...]) -> tuple[Any, ...]:
    return (*in_order(kind.finite(*cs)), *([fc.INF] if kind.infinity else []))


def minima(n: int, dims: int, trials: int) -> list[list[Any]]:
    """Return the rows of the table of minima; the best kinds are measured."""
    found: list[tuple[float, tuple[Fraction, ...], Kind]] = []
    choose: Callable[..., Any]
    for some, choose in ((kinds(n), best_single), (double_kinds(n), best_double)):
        found += [(*choose(kind, n, dims), kind) for kind in some]
    found.sort(key=lambda f: f[0])
    A = fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n, dims))
    base = fc.measure_error(A, dims=dims, trials=trials, seed=1).mean_abs
    rows = []
    for i, (error, cs, kind) in enumerate(found):
        measured = stderr = math.nan
        if i < 4:
            report = fc.measure_error(fc.toom_cook(n - 2, 3, points_of(kind, cs)), dims=dims, trials=trials, seed=1)
            measured, stderr = report.mean_abs, report.mean_abs_stderr
        rows.append([n, dims, str(kind), " ".join(map(str, cs)), error, measured, stderr, base])
    return rows


def helped(rows: list[list[Any]]) -> list[list[Any]]:
    """Count for each subset the sizes where its best union has a smaller predicted error than the set of Barabasz et al. 2020."""
    subsets_seen: dict[str, dict[tuple[int, int], float]] = {}
    for n, dims, kind, cs, error, *_ in rows:
        if " " not in cs:
            members = "{" + ", ".join(p for p in kind[1:-1].split(", ") if "c" in p) + "}"
            best = subsets_seen.setdefault(members, {})
            best[n, dims] = min(error, best.get((n, dims), math.inf))
    result = []
    for members, best in subsets_seen.items():
        below = 0
        for (n, dims), error in best.items():
            A = [[float(p) for p in fc.published_points("barabasz2020", n, dims)[:-1]]]
            below += bool(error < 0.99 * predicted(n - 2, 3, dims, "fp32")(np.array(A), True)[0])
        result.append([members, f"{below} of {len(best)}"])
    return result


def stored(dims: int) -> dict[int, list[Kind]]:
    """Read from figures/curve_c.csv the kinds of sets with one family by size, the least error first."""
    curves: dict[int, list[Kind]] = {}
    for row in read_csv("curve_c.csv"):
        if int(row["dims"]) == dims and " " not in row["c"]:
            names = row["set"][1:-1].split(", ")
            kind = Kind(tuple(p for p in names if "c" in p), (), tuple(p for p in names if "c" not in p))
            curves.setdefault(int(row["n"]), []).append(kind)
    return curves


def draw(dims: int, grid: int) -> None:
    """Draw the predicted error along c for the best kinds of each size, in pages of six sizes."""
    curves = stored(dims)
    for first in range(0, len(curves), PANELS):
        some = dict(list(curves.items())[first : first + PANELS])
        figure = Figure(figsize=(10, 4.4 * math.ceil(len(some) / 2) + 0.5), layout="constrained")
        panels = figure.subplots(math.ceil(len(some) / 2), 2, squeeze=False).ravel()
        for ax in panels[len(some) :]:
            ax.set_axis_off()
        for ax, (n, kinds_of_n) in zip(panels, some.items(), strict=False):
            panel(ax, n, dims, kinds_of_n[:3], grid)
        figure.suptitle(f"Error along c, {dims}-D, kernel 3, fp32: the three best kinds of set for each size; marks: c of height at most 8")
        save(figure, f"curve_c_{dims}d_n{min(some)}-{max(some)}.png")


def panel(ax: Axes, n: int, dims: int, some: list[Kind], grid: int) -> None:
    """Draw one size, with its legend below the axes."""
    cs = np.exp(np.linspace(math.log(1 / 12), math.log(0.99), grid))
    simple = [c for c in RATIONAL if max(c.numerator, c.denominator) <= 8]
    low = math.inf
    for k, kind in enumerate(some):
        marks = along(kind, n, dims, simple)
        low = min(low, float(np.min(marks)))
        look = style(k)
        ax.plot(cs, along(kind, n, dims, cs), label=kind.label, **look | {"marker": "", "lw": 1.1})
        ax.plot(simple, marks, ls="", marker=look["marker"], ms=4.5, mfc="white", color=look["color"])
    published = np.array([[float(p) for p in fc.published_points("barabasz2020", n, dims)[:-1]]])
    level = float(predicted(n - 2, 3, dims, "fp32")(published, True)[0])
    ax.axhline(level, color="0.4", lw=1, ls=":", label="set of Barabasz et al. 2020")
    ax.set(xscale="log", yscale="log", ylim=(0.8 * min(low, level), 12 * min(low, level)), xlabel="c", ylabel="predicted mean |error|")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks([0.1, 0.2, 0.3, 0.5, 0.7, 1])
    ax.set_title(f"n = {n}", loc="left", fontsize=11)
    ax.legend(fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), handlelength=3)


def sizes(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=sizes, default=sizes("4-18"))
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--grid", type=int, default=300)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--draw", action="store_true", help="only draw what figures/curve_c.csv holds")
    args = parser.parse_args()
    if not args.draw:
        compute(args)
    for dims in args.dims:
        draw(dims, args.grid)


def compute(args: argparse.Namespace) -> None:
    """Find and measure the minima; write and print them."""
    rows: list[list[Any]] = []
    reductions = []
    for dims in args.dims:
        for n in progress(args.n, f"{dims}-D"):
            found = minima(n, dims, args.trials if n <= 12 else args.trials // 4)
            rows += found
            best = min((row for row in found if not math.isnan(row[5])), key=lambda row: row[5])
            reductions.append([dims, n, best[2], best[3], best[5], best[6], best[7], 1 - best[5] / best[7]])
    write_csv("curve_c.csv", ["n", "dims", "set", "c", "predicted", "measured", "stderr", "barabasz2020"], rows)
    header = ["dims", "n", "set", "c", "measured", "stderr", "barabasz2020", "reduction"]
    write_csv("curve_c_reductions.csv", header, reductions)
    print_table(header, reductions)
    print(f"Alam et al. 2022 report reductions of {CLAIMED[0]:.0%} to {CLAIMED[1]:.0%}")
    print_table(["subset of the family", "best union below Barabasz et al. 2020 at"], helped(rows))
    print(f"wrote {FIGURES.name}/curve_c.csv and curve_c_reductions.csv")


if __name__ == "__main__":
    main()

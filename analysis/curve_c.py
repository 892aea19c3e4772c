"""Error against c for paper B's points {-1/c, -c, c, 1/c}, its subsets and unions, for every tile size.

    python analysis/curve_c.py [--n 4-18] [--dims 1 2] [--grid 300] [--trials 5000]

A set is a subset of the family at c, and the first of inf, 0, -1, 1, and A's families at 1/2, 1/4, 3/4 that fill it up to n
(where inf, 0, -1, 1 suffice, every choice among them); and two families at c1, c2 with any of inf, 0, -1, 1. The predicted
error is drawn along c; at the rationals of small height the least is measured, beside A's published set on the same tiles.
Writes figures/curve_c.csv (the minima of every kind of set), figures/curve_c_reductions.csv, figures/curve_c_1d.png,
figures/curve_c_2d.png.
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
from common import FIGURES, print_table, progress, save, style, write_csv
from matplotlib.figure import Figure

import fastconv as fc
from fastconv.search.candidates import in_order, rationals
from fastconv.search.objective import predicted

MEMBERS = ("-1/c", "-c", "c", "1/c")
SPECIAL = ("inf", "0", "-1", "1")
FILLING = (*SPECIAL, "1/2", "-1/2", "2", "-2", "-1/4", "4", "1/4", "-4", "3/4", "-4/3", "-3/4", "4/3")
HEIGHT = 16
CLAIMED = (0.02, 0.59)
"""Least and largest reduction that B claims."""

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
        """A name that is short enough for a figure."""
        fixed = self.fixed if len(self.fixed) <= 4 else ("...", self.fixed[-1])
        return "{" + ", ".join([*self.members, *fixed]) + "}"

    def finite(self, c: Any, c2: Any = 1) -> list[Any]:
        """Return the finite points at c."""
        of = lambda members, c: [{"-1/c": -1 / c, "-c": -c, "c": c, "1/c": 1 / c}[name] for name in members]
        return [*of(self.members, c), *of(self.second, c2), *(Fraction(p) for p in self.fixed if p != "inf")]


def subsets() -> Iterator[tuple[str, ...]]:
    """Yield the subsets of the family; of two that differ by all signs or by c -> 1/c, one."""
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


def minima(n: int, dims: int, trials: int) -> tuple[list[list[Any]], list[tuple[Kind, Any]]]:
    """Return the rows of the table of minima, and the kinds to draw; the best kinds are measured."""
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
    drawn = [(kind, cs) for _, cs, kind in found if len(cs) == 1]
    return rows, drawn


def helped(rows: list[list[Any]]) -> list[list[Any]]:
    """Say for each subset of the family at how many sizes its best union is below A's set, as predicted."""
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


def draw(dims: int, curves: dict[int, list[tuple[Kind, Any]]], grid: int) -> None:
    """Draw the predicted error along c for the best kinds of each size, rationals of small height marked."""
    lines = math.ceil(len(curves) / 3)
    figure = Figure(figsize=(15, 3.2 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, 3, squeeze=False).ravel()
    for ax in panels[len(curves) :]:
        ax.set_axis_off()
    cs = np.exp(np.linspace(math.log(1 / 12), math.log(0.99), grid))
    simple = [c for c in RATIONAL if max(c.numerator, c.denominator) <= 8]
    for ax, (n, some) in zip(panels, curves.items(), strict=False):
        for k, (kind, _) in enumerate(some[:3]):
            look = style(k) | {"marker": "", "lw": 0.9}
            ax.plot(cs, along(kind, n, dims, cs), label=kind.label, **look)
            ax.plot(simple, along(kind, n, dims, simple), ls="", marker=style(k)["marker"], ms=3.5, mfc="white", color=style(k)["color"])
        A = np.array([[float(p) for p in fc.published_points("barabasz2020", n, dims)[:-1]]])
        level = float(predicted(n - 2, 3, dims, "fp32")(A, True)[0])
        ax.axhline(level, color="0.4", lw=0.8, ls=":")
        low = min(float(np.min(along(kind, n, dims, simple))) for kind, _ in some[:3])
        ax.set(xscale="log", yscale="log", ylim=(0.8 * min(low, level), 12 * min(low, level)))
        ax.set_title(f"n = {n}", loc="left", fontsize=10)
        ax.legend(fontsize=6, frameon=True, edgecolor="none", loc="upper right", handlelength=3)
    for ax in panels[-3:]:
        ax.set_xlabel("c")
    for ax in panels[::3]:
        ax.set_ylabel("predicted mean |error|")
    figure.suptitle(f"Error along c, {dims}-D, kernel 3, fp32: best three kinds a size; marks: c of height at most 8; dotted: A's set")
    save(figure, f"curve_c_{dims}d.png")


def sizes(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=sizes, default=sizes("4-18"))
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--grid", type=int, default=300)
    parser.add_argument("--trials", type=int, default=5000)
    args = parser.parse_args()
    rows: list[list[Any]] = []
    reductions = []
    for dims in args.dims:
        curves: dict[int, list[tuple[Kind, Any]]] = {}
        for n in progress(args.n, f"{dims}-D"):
            found, curves[n] = minima(n, dims, args.trials if n <= 12 else args.trials // 4)
            rows += found
            best = min((row for row in found if not math.isnan(row[5])), key=lambda row: row[5])
            reductions.append([dims, n, best[2], best[3], best[5], best[6], best[7], 1 - best[5] / best[7]])
        draw(dims, curves, args.grid)
    write_csv("curve_c.csv", ["n", "dims", "set", "c", "predicted", "measured", "stderr", "barabasz2020"], rows)
    header = ["dims", "n", "set", "c", "measured", "stderr", "barabasz2020", "reduction"]
    write_csv("curve_c_reductions.csv", header, reductions)
    print_table(header, reductions)
    print(f"paper B claims reductions of {CLAIMED[0]:.0%} to {CLAIMED[1]:.0%}")
    print_table(["subset of the family", "best union below A's set at"], helped(rows))
    print(f"wrote {FIGURES.name}/curve_c.csv and curve_c_reductions.csv")


if __name__ == "__main__":
    main()

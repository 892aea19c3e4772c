"""Search the best points of many sizes and write the table that `fastconv.best_points` reads.

    python analysis/best_points.py --r 3 --n 4-18 --dims 1 2 --policy fp32 [--starts 32] [--store best.sqlite]

For each size, with infinity and without, the steps are:

1. `fastconv.search_points` descends in the prediction of the policy, or with --descend-in in that of another.
2. Its best sets by the prediction of the policy, and the rational published sets, are measured (seed 1).
3. The best three of these are measured in other orders, because the order decides ties in the Huffman trees.
4. The best four of these are measured again on all tiles (seed 1).
5. The cheapest within 0.4 % of the best is measured once more (seed 2), so that its figure is free of selection bias.

The table records sizes where every set overflows, or has an error larger than the outputs. A size is not searched if the best
set in fp32 and the published ones overflow, or have an error of more than three times the outputs.

A set replaces a row if its error is smaller (beyond the standard errors if it takes more operations), or if its error is within a standard
error and it takes fewer operations. --replace replaces in any case. The store holds every finished piece of work, so a killed run resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from fractions import Fraction
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from fastconv.algebra import best_row, published_sources
from fastconv.arithmetic import policy_named
from fastconv.files import write_whole
from fastconv.program import programs_of
from fastconv.search import Store
from fastconv.search.points.run import Runner
from fastconv.search.points.store import VERSION
from fastconv.search.points.units import algorithm_for, policy_data, predicted_error

TABLE = Path(fc.__file__).parent / "algebra" / "best_points.json"
FINALISTS = 8
REORDERED = 3
ORDERS = 14
LAST = 4
FAR = 3.0
"""Relative error at which no other set helps: sets for one format are within a few percent of the best in another."""
PRELIMINARY = 4
"""The first measurements use one in this many tiles of the last."""
Points = tuple[Any, ...]
TIE = 1.004
"""Sets within this factor of the best count as tied: the one with the fewest operations is shipped."""


def published(n: int) -> Iterator[tuple[str, Points]]:
    """Yield the rational published sets of a size."""
    for source, dims in product(published_sources(), (1, 2)):
        try:
            points = fc.published_points(source, n, dims)
        except ValueError:
            continue
        if all(isinstance(p, Fraction) for p in points[:-1]):
            yield source, points


def trials(n: int, policy: str) -> int:
    """Return the tiles of the last measurements; emulated formats are slow."""
    if policy != "fp32":
        return 5000
    return 20000 if n <= 10 else 10000 if n <= 13 else 5000


class Bench(NamedTuple):
    """The runner, job and tiles of all measurements."""

    runner: Runner
    job: dict[str, Any]
    trials: int

    def reports(self, sets: list[Points], seed: int, part: int = 1) -> list[dict[str, Any]]:
        """Measure sets, with balanced rows in narrow formats; an error is None if it overflows."""
        specs = []
        for points in sets:
            infinity = points[-1] is fc.INF
            text = " ".join(map(str, points[: len(points) - infinity]))
            tiles = {"kind": "measure", "trials": self.trials // part, "seed": seed}
            specs.append(self.job | tiles | {"points": text, "infinity": infinity})
        return [result for _, result in self.runner.run(specs, 0)]

    def errors(self, sets: list[Points], part: int = 1) -> list[tuple[float, Points]]:
        """Return the sets that do not overflow with their errors on the same tiles, the best first."""
        reports = self.reports(sets, 1, part)
        found = [(report["mean_abs"], points) for points, report in zip(sets, reports, strict=True) if report["mean_abs"] is not None]
        return sorted(found, key=lambda f: f[0])


def other_orders(points: Points) -> list[Points]:
    """Draw other orders of the finite points; infinity stays last."""
    finite = len(points) - (points[-1] is fc.INF)
    rng = np.random.default_rng(0)
    return [(*(points[i] for i in rng.permutation(finite)), *points[finite:]) for _ in range(ORDERS)]


def operations(m: int, r: int, points: Points) -> tuple[int, int]:
    """Count additions and multiplications of the three transforms in one dimension."""
    programs = programs_of(fc.toom_cook(m, r, points))
    counts = [p.counts for p in (programs.output, programs.kernel, programs.input)]
    return sum(c.adds for c in counts), sum(c.muls for c in counts)


def searched(m: int, r: int, dims: int, policy: str, infinity: bool, args: argparse.Namespace, executor: Any) -> tuple[list[Points], int]:
    """Search; return the best sets by the prediction of the policy, and the number evaluated."""
    options = {"store": args.store, "executor": executor, "starts": args.starts, "seed": args.seed, "infinity": infinity, "confirm": 0}
    found = fc.search_points(m, r, dims, args.descend_in or policy, **options)
    sets = [s.points for s in found]
    if args.descend_in not in (None, policy):
        formats = policy_named(policy)
        sets.sort(key=lambda points: predicted_error(m, r, dims, formats, points[: len(points) - infinity], infinity))
    return sets[:FINALISTS], found.evaluated


def row_for(
    m: int, r: int, dims: int, policy: str, infinity: bool, args: argparse.Namespace, executor: Any, store: Store
) -> dict[str, Any]:
    """Search, choose and measure: one row of the table, without points if nothing fits the format."""
    job = {"version": VERSION, "m": m, "r": r, "dims": dims, "policy": policy_data(policy)}
    bench = Bench(Runner(store, executor, None), job, trials(m + r - 1, policy))
    command = f"--r {r} --n {m + r - 1} --dims {dims} --policy {policy} --starts {args.starts} --seed {args.seed}"
    command += f" --descend-in {args.descend_in}" if args.descend_in else ""
    row = {"m": m, "r": r, "dims": dims, "policy": policy, "infinity": infinity, "points": None}
    row["command"] = f"python analysis/best_points.py {command}"
    known = {points: source for source, points in published(m + r - 1) if infinity}
    if policy != "fp32":
        best = [fc.best_points(m, r, dims, infinity=infinity)] if best_row(m, r, dims, infinity=infinity) else []
        tried = [report for report in bench.reports([*best, *known], 1, PRELIMINARY) if report["mean_abs"] is not None]
        if best and all(report["relative"] > FAR for report in tried):
            what = "has an error larger than the outputs" if tried else "overflows"
            return row | {"evaluated": len(best) + len(known), "because": f"every set that was tried {what}"}
    found, evaluated = searched(m, r, dims, policy, infinity, args, executor)
    row["evaluated"] = evaluated
    sets = known | {points: "search" for points in found}
    finals = bench.errors(list(sets), PRELIMINARY)[:REORDERED]
    origin = {order: points for _, points in finals for order in (points, *other_orders(points))}
    last = bench.errors([points for _, points in bench.errors(list(origin), PRELIMINARY)[:LAST]])
    tied = [(sum(operations(m, r, points)), error, points) for error, points in last if error <= last[0][0] * TIE]
    if not tied:
        return row | {"because": "every set that was tried overflows"}
    points = min(tied, key=lambda t: t[:2])[2]
    (report,) = bench.reports([points], 2)
    if report["mean_abs"] is None:
        return row | {"because": "every set that was tried overflows"}
    if report["relative"] >= 1:
        return row | {"because": "every set that was tried has an error larger than the outputs"}
    additions, multiplications = operations(m, r, points)
    alg = algorithm_for(m, r, points[: len(points) - infinity], infinity, policy_named(policy))
    return row | {
        "points": " ".join(map(str, points)),
        "predicted": fc.predict_error(alg, dims=dims, policy=policy).mean_abs,
        "measured": report["mean_abs"],
        "stderr": report["stderr"],
        "direct": report["direct"],
        "relative": report["relative"],
        "trials": trials(m + r - 1, policy),
        "additions": additions,
        "multiplications": multiplications,
        "found": sets[origin[points]],
    }


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["r"], row["dims"], row["policy"], row["m"], not row["infinity"]


def gains(row: dict[str, Any], old: dict[str, Any] | None) -> bool:
    """Return whether a row replaces the one in the table: see above."""
    if old is None or old["points"] is None:
        return True
    if row["points"] is None:
        return False
    more = (row["additions"] + row["multiplications"]) - (old["additions"] + old["multiplications"])
    if more == 0:
        return bool(row["measured"] <= old["measured"])
    return bool(row["measured"] < old["measured"] + (old["stderr"] if more < 0 else -np.hypot(row["stderr"], old["stderr"])))


def write(row: dict[str, Any], replace: bool) -> bool:
    """Write a row into the table atomically, unless the table has a better one."""
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"rows": []}
    rows = {key(old): old for old in table["rows"]}
    if not replace and not gains(row, rows.get(key(row))):
        return False
    rows[key(row)] = row
    lines = ",\n  ".join(
        json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in rows[k].items()}) for k in sorted(rows)
    )
    write_whole(TABLE, f'{{\n "rows": [\n  {lines}\n ]\n}}\n'.encode())
    return True


def sizes(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def processes(workers: int) -> Any:
    """Return a pool of processes as a context; None, this process, for a single worker."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else nullcontext()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--r", type=int, nargs="+", default=[3])
    parser.add_argument("--n", type=sizes, default=sizes("4-18"), help="tile sizes, as in 4-18")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--policy", nargs="+", default=["fp32"])
    parser.add_argument("--starts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="best.sqlite")
    parser.add_argument("--infinity", choices=("yes", "no", "both"), default="both", help="as a point of every set, of none, or both")
    parser.add_argument("--descend-in", metavar="POLICY", help="policy that the descents predict in; by default --policy")
    parser.add_argument("--replace", action="store_true", help="replace rows of the table even by worse ones")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with processes(args.workers) as executor, Store(args.store) as store:
        for policy, r, n, dims, infinity in product(args.policy, args.r, args.n, args.dims, (True, False)):
            if n < r + 1 or (infinity and args.infinity == "no") or (not infinity and args.infinity == "yes"):
                continue
            begun = time.time()
            row = row_for(n - r + 1, r, dims, policy, infinity, args, executor, store)
            new = ", new" if write(row, args.replace) else ""
            what = f"r={r} n={n} {dims}-D {policy}{'' if infinity else ' without infinity'}"
            cost = f"{row['evaluated']} sets, {time.time() - begun:.0f} s"
            if row["points"] is None:
                print(f"{what}: {row['because']} ({cost})", flush=True)
                continue
            print(f"{what}: {row['measured']:.3e} +- {row['stderr']:.0e}; {row['points']} ({row['found']}{new}, {cost})", flush=True)


if __name__ == "__main__":
    main()

"""Search for the best points of many sizes and write the table that `fastconv.best_points` reads.

    python analysis/best_points.py --r 3 --n 4-18 --dims 1 2 --policy fp32 [--starts 32] [--store best.sqlite]

For each size, with infinity and without: `fastconv.search_points`; its best sets and the rational published ones measured
anew (seed 1); the best three of those in other orders, for these decide ties in the Huffman trees; the cheapest within 0.4 %
of the best of these measured once more (seed 2), so that the figure written is free of the selection. A row of
the table is replaced by a better one only, unless --replace is given. The store holds every finished piece: a run that was killed goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.algebra import published_sources
from fastconv.arithmetic import policy_named
from fastconv.program import programs_of
from fastconv.search.units import algorithm_for, policy_data, run_unit

TABLE = Path(fc.__file__).parent / "algebra" / "best_points.json"
FINALISTS = 8
REORDERED = 3
ORDERS = 14
TIE = 1.004
"""Sets within this factor of the best count as tied: the one of fewest operations is shipped."""


def published(n: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the rational published sets of a size."""
    for source, dims in product(published_sources(), (1, 2)):
        try:
            points = fc.published_points(source, n, dims)
        except ValueError:
            continue
        if all(isinstance(p, Fraction) for p in points[:-1]):
            yield source, points


def trials(n: int) -> int:
    return 20000 if n <= 10 else 10000 if n <= 13 else 5000


def measured(job: dict[str, Any], sets: list[tuple[Any, ...]], seed: int, executor: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Measure sets, their rows balanced where the format is narrow; an error is None where it overflows."""
    specs = []
    for points in sets:
        infinity = points[-1] is fc.INF
        text = " ".join(map(str, points[: len(points) - infinity]))
        specs.append(job | {"kind": "measure", "points": text, "infinity": infinity, "trials": trials(len(points)), "seed": seed})
    return list(executor.map(run_unit, specs))


def errors_of(job: dict[str, Any], sets: list[tuple[Any, ...]], executor: ProcessPoolExecutor) -> list[tuple[float, tuple[Any, ...]]]:
    """Return the sets that do not overflow with their errors on the same tiles, the best first."""
    reports = measured(job, sets, 1, executor)
    found = [(report["mean_abs"], points) for points, report in zip(sets, reports, strict=True) if report["mean_abs"] is not None]
    return sorted(found, key=lambda f: f[0])


def other_orders(points: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Draw other orders of the finite points; infinity stays last."""
    finite = len(points) - (points[-1] is fc.INF)
    rng = np.random.default_rng(0)
    return [(*(points[i] for i in rng.permutation(finite)), *points[finite:]) for _ in range(ORDERS)]


def operations(m: int, r: int, points: tuple[Any, ...]) -> tuple[int, int]:
    """Count additions and multiplications of the three transforms in one dimension."""
    programs = programs_of(fc.toom_cook(m, r, points))
    counts = [p.counts for p in (programs.output, programs.kernel, programs.input)]
    return sum(c.adds for c in counts), sum(c.muls for c in counts)


def row_for(
    m: int, r: int, dims: int, policy: str, infinity: bool, args: argparse.Namespace, executor: ProcessPoolExecutor
) -> dict[str, Any] | None:
    """Search, choose and measure: one row of the table, None if nothing fits the format."""
    options = {"store": args.store, "executor": executor, "starts": args.starts, "seed": args.seed, "infinity": infinity}
    found = fc.search_points(m, r, dims, policy, confirm=0, **options)
    sets = {s.points: "search" for s in found[:FINALISTS]}
    for source, points in published(m + r - 1):
        if infinity:
            sets.setdefault(points, source)
    job = {"m": m, "r": r, "dims": dims, "policy": policy_data(policy)}
    finals = errors_of(job, list(sets), executor)[:REORDERED]
    if not finals:
        return None
    origin = {order: points for _, points in finals for order in (points, *other_orders(points))}
    ordered = errors_of(job, list(origin), executor)
    tied = [(sum(operations(m, r, points)), error, points) for error, points in ordered if error <= ordered[0][0] * TIE]
    points = min(tied, key=lambda t: t[:2])[2]
    source = sets[origin[points]]
    (report,) = measured(job, [points], 2, executor)
    if report["mean_abs"] is None:
        return None
    additions, multiplications = operations(m, r, points)
    alg = algorithm_for(m, r, points[: len(points) - infinity], infinity, policy_named(policy))
    command = f"--r {r} --n {m + r - 1} --dims {dims} --policy {policy} --starts {args.starts} --seed {args.seed}"
    return {
        "m": m,
        "r": r,
        "dims": dims,
        "policy": policy,
        "infinity": infinity,
        "points": " ".join(map(str, points)),
        "predicted": fc.predict_error(alg, dims=dims, policy=policy).mean_abs,
        "measured": report["mean_abs"],
        "stderr": report["stderr"],
        "direct": report["direct"],
        "trials": trials(m + r - 1),
        "additions": additions,
        "multiplications": multiplications,
        "found": source,
        "evaluated": found.evaluated,
        "command": f"python analysis/best_points.py {command}",
    }


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["r"], row["dims"], row["policy"], row["m"], not row["infinity"]


def write(row: dict[str, Any], replace: bool) -> bool:
    """Put a row into the table, unless that holds one as good: to a temporary name, then renamed."""
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"rows": []}
    rows = {key(old): old for old in table["rows"]}
    old = rows.get(key(row))
    if not replace and old is not None and row["measured"] * TIE > old["measured"]:
        return False
    rows[key(row)] = row
    lines = ",\n  ".join(
        json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in rows[k].items()}) for k in sorted(rows)
    )
    temporary = TABLE.with_name(f".{TABLE.name}.{os.getpid()}")
    temporary.write_text(f'{{\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
    os.replace(temporary, TABLE)
    return True


def sizes(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--r", type=int, nargs="+", default=[3])
    parser.add_argument("--n", type=sizes, default=sizes("4-18"), help="tile sizes, as in 4-18")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--policy", nargs="+", default=["fp32"])
    parser.add_argument("--starts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="best.sqlite")
    parser.add_argument("--with-infinity-only", action="store_true", help="leave out the sets without infinity")
    parser.add_argument("--replace", action="store_true", help="replace rows of the table even by worse ones")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as executor:
        for policy, r, n, dims, infinity in product(args.policy, args.r, args.n, args.dims, (True, False)[: 2 - args.with_infinity_only]):
            if n < r + 1:
                continue
            begun = time.time()
            row = row_for(n - r + 1, r, dims, policy, infinity, args, executor)
            if row is None:
                print(f"r={r} n={n} {dims}-D {policy}{'' if infinity else ' without infinity'}: nothing fits", flush=True)
                continue
            new = write(row, args.replace)
            job = {"m": n - r + 1, "r": r, "dims": dims, "policy": policy_data(policy)}
            known = [e["mean_abs"] for e in measured(job, [p for _, p in published(n)], 2, executor) if e["mean_abs"] is not None]
            gain = f"{1 - row['measured'] / min(known):.1%} below the best published" if known else "nothing published"
            what = f"r={r} n={n} {dims}-D {policy}: {row['measured']:.3e} +- {row['stderr']:.0e}, {gain}; {row['points']}"
            print(f"{what} ({row['found']}{', new' if new else ''}, {row['evaluated']} sets, {time.time() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

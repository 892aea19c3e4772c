"""Certify lower limits of the first-order predicted error for n = 4, 5, 6, kernel 3, fp32.

    python analysis/certified_limit.py [--n 4 5 6] [--dims 1 2] [--within 0.05] [--seconds 120] [--store DIRECTORY]

Branch and bound over all real point sets, with infinity and without (`fastconv.search.limit.certified`). A box holds ascending
points on the projective line; mirror images are covered once. On a box, intervals enclose the entries of AT, G and
BT. Every zero, power of two, shared value and summation tree that is possible for some set in the box is assumed for all. The
remaining sum of squares is bounded by its smallest values and by its gradient. The box with the smallest limit is split, until every
box is proved worse than the goal, best / (1 + within). If the time ends first, the limit is the smallest of the remaining boxes. The
store holds them, and the same command resumes.

Writes fastconv/search/limit/limits.json, which `fastconv points` prints, and figures/certified_limit.csv.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

from common import print_table, write_csv
from rich.progress import Progress, TextColumn, TimeElapsedColumn

import fastconv as fc
from fastconv.algebra import best_row
from fastconv.exact import FORMATS
from fastconv.files import write_whole
from fastconv.search.limit.certified import Limit, first_order_error, limits, load, scale_of, start

TABLE = Path(fc.__file__).parent / "search" / "limit" / "limits.json"
CAPTION = """limit: no real point set has a smaller first-order predicted error (certified); best: that of the shipped set;
gap: best / limit - 1; closed: whether every box was proved worse than the goal; if not, the limit is the least of those left."""


def best_known(n: int, dims: int, infinity: bool) -> float:
    """Return the least first-order error of the shipped sets, in units of one rounding."""
    row = best_row(n - 2, 3, dims, infinity=infinity)
    assert row is not None
    return first_order_error(fc.toom_cook(n - 2, 3, row["points"].split()), dims) / scale_of(FORMATS["fp32"])


def advance(state: Limit, seconds: float, what: str) -> float:
    """Run a proof for some time; return the seconds it ran."""
    state.run(0)  # compiles
    begun = time.perf_counter()
    columns = (TextColumn("{task.description}"), *Progress.get_default_columns()[1:3], TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(what, total=1.0)
        first = None
        for now in limits(state):
            first = first or 0.9 * now.value
            spent = time.perf_counter() - begun
            text = f"{what}: limit {now.value:.4f} of {state.goal:.4f}, {now.size} boxes open, {now.examined} examined"
            bar.update(task, completed=max(0.0, (now.value - first) / (state.goal - first)), description=text)
            if spent > seconds:
                break
    return time.perf_counter() - begun


def known() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the rows of the table."""
    if not TABLE.exists():
        return {}
    return {(row["m"], row["r"], row["dims"], row["infinity"]): row for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"]}


def prove(n: int, dims: int, infinity: bool, args: argparse.Namespace) -> None:
    """Continue one proof and write its limit into the table."""
    path = args.store / f"limit-{n}-{dims}-{int(infinity)}.npz"
    scale = scale_of(FORMATS["fp32"])
    best = {kind: best_known(n, dims, kind) for kind in (True, False)}
    goal = min(best.values()) / (1 + args.within)  # sets worse than the best of both kinds need no finer limit
    key = (n - 2, 3, dims, infinity)
    if path.exists():
        state, before = load(path), known().get(key, {}).get("seconds", 0.0)
    else:
        state, before = start(n - 2, 3, dims, infinity, goal, args.room), 0.0
    seconds = advance(state, args.seconds, f"n = {n}, {dims}-D, {'with' if infinity else 'without'} infinity")
    args.store.mkdir(parents=True, exist_ok=True)
    state.save(path)
    rows = known()
    rows[key] = {
        "m": n - 2,
        "r": 3,
        "dims": dims,
        "infinity": infinity,
        "limit": float(f"{state.value * scale * (1 - 1e-5):.6g}"),
        "best": float(f"{best[infinity] * scale:.6g}"),
        "closed": state.size == 0,
        "open": state.size,
        "boxes": state.examined,
        "seconds": round(before + seconds, 1),
    }
    lines = ",\n  ".join(json.dumps(rows[k]) for k in sorted(rows))
    write_whole(TABLE, f'{{\n "rows": [\n  {lines}\n ]\n}}\n'.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[4, 5, 6])
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--infinity", type=int, nargs="+", default=[1, 0], help="1: with infinity, 0: without")
    parser.add_argument("--within", type=float, default=0.05, help="prove that no set is better than the best known by more")
    parser.add_argument("--seconds", type=float, default=120.0, help="time for each proof; run again to resume")
    parser.add_argument("--room", type=int, default=2_000_000, help="largest number of open boxes")
    parser.add_argument("--store", type=Path, default=Path("limits"), help="folder for the open boxes")
    args = parser.parse_args()
    for n, dims, infinity in product(args.n, args.dims, args.infinity):
        prove(n, dims, bool(infinity), args)
    rows = known()
    header = ["n", "dims", "infinity", "limit", "best", "gap", "closed", "open", "boxes", "seconds"]
    cells = []
    for key in sorted(rows, key=lambda k: (k[2], k[0], not k[3])):
        row = rows[key]
        low, best = row["limit"], row["best"]
        cells.append([row["m"] + 2, row["dims"], int(row["infinity"]), low, best, f"{best / low - 1:.1%}"])
        cells[-1] += [row["closed"], row["open"], row["boxes"], row["seconds"]]
    write_csv("certified_limit.csv", header, cells)
    print_table(header, cells)
    print(CAPTION)


if __name__ == "__main__":
    main()

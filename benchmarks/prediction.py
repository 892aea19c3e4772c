"""Time the predictor that the search uses: point sets per second on one core.

    python benchmarks/prediction.py [--sizes 4 6 8 ...] [--turns 7] [--json]

It times F(n - 2, 3) by `predict_errors`, in fp32 and in bf16, where roundings in the output transform depend on earlier errors:
medians of rotating turns, seed 0.
The sets are {0, +-a, +-b, ...} and infinity; scattered points, which share nothing; rationals of height 6, with and without
zero. Then it times `search_points`, from the candidates to the ranking, with its store: all sets of seven of 27 rationals
of height 5, and infinity, n = 8 in one dimension. If all sizes ran, it writes figures/prediction_rate.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import contest
import numpy as np

from fastconv import search_points
from fastconv.error.predict.compiled.bulk import predict_errors

FIGURES = Path(__file__).parent.parent / "figures"
SIZES = (4, 6, 8, 10, 12, 14, 16, 18)
WORK = 4_000_000
"""Sets in a turn, times n**3 and the passes: about a tenth of a second."""

Rng = np.random.Generator


def symmetric(rng: Rng, count: int, k: int) -> np.ndarray:
    half = np.sort(rng.uniform(0.2, 3, (count, k // 2)), axis=1)
    return np.concatenate([np.zeros((count, k % 2)), half, -half], axis=1)


def scattered(rng: Rng, count: int, k: int) -> np.ndarray:
    return rng.uniform(0.2, 3, (count, k)) * rng.choice([-1, 1], (count, k))


def rational(rng: Rng, count: int, k: int) -> np.ndarray:
    pool = np.array(sorted({float(Fraction(p, q)) for p in range(-6, 7) for q in range(1, 7)}))
    return pool[np.argsort(rng.random((count, len(pool))), axis=1)[:, :k]]


KINDS = {"symmetric": symmetric, "scattered": scattered, "rational": rational}


def rows_of(sizes: list[int], turns: int) -> list[dict[str, Any]]:
    jobs = []
    for n in sizes:
        for dims in (1, 2):
            for policy in ("fp32", "bf16"):
                for name, kind in KINDS.items():
                    count = max(64, WORK // (n**3 * dims * (1 if policy == "fp32" else 2)))
                    sets = kind(np.random.default_rng([0, n]), count, n - 1)
                    predict_errors(sets[:20], n - 2, 3, dims, policy)  # compiled before the clock starts
                    jobs.append(({"n": n, "dims": dims, "policy": policy, "sets": name}, sets))
    rates: list[list[float]] = [[] for _ in jobs]
    for _ in range(turns):
        for (what, sets), of_job in zip(jobs, rates, strict=True):
            begun = time.perf_counter()
            predict_errors(sets, what["n"] - 2, 3, what["dims"], what["policy"])
            of_job.append(len(sets) / (time.perf_counter() - begun))
    return [
        what | {"sets_per_second": round(statistics.median(r)), "slowest_turn": round(min(r))}
        for (what, _), r in zip(jobs, rates, strict=True)
    ]


def row_of_search(turns: int) -> dict[str, Any]:
    """Time an enumeration end to end, in this process."""
    positive = sorted({Fraction(p, q) for p in range(1, 6) for q in range(1, 6)}, key=lambda p: (p.numerator + p.denominator, p))[:13]
    pool = [Fraction(0), *positive, *(-p for p in positive)]
    rates = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as alone:
        search_points(6, 3, 1, candidates=pool[:9], store=None, executor=alone, infinity=True, confirm=0)
        for turn in range(turns):
            begun = time.perf_counter()
            found = search_points(6, 3, 1, candidates=pool, store=f"{folder}/{turn}", executor=alone, infinity=True, confirm=0)
            rates.append(found.evaluated / (time.perf_counter() - begun))
    rate = {"sets_per_second": round(statistics.median(rates)), "slowest_turn": round(min(rates))}
    return {"n": 8, "dims": 1, "policy": "fp32", "sets": "search_points"} | rate


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    options = parser.parse_args()
    rows = [*rows_of(options.sizes, options.turns), row_of_search(max(1, options.turns // 2))]
    if options.sizes == list(SIZES):
        contest.write_rows(FIGURES / "prediction_rate.csv", rows)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'n':>3} {'dims':>4} {'policy':>6}" + "".join(f"{name:>12}" for name in KINDS) + "   sets per second")
    for k in range(0, len(rows) - 1, len(KINDS)):
        what = rows[k]
        rates = "".join(f"{row['sets_per_second']:12,}" for row in rows[k : k + len(KINDS)])
        print(f"{what['n']:3} {what['dims']:4} {what['policy']:>6}{rates}")
    print(f"search_points, n = 8, 1-D, all subsets: {rows[-1]['sets_per_second']:,}")


if __name__ == "__main__":
    main()

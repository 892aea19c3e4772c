"""Test whether scaling rows by constants other than powers of two pays: the best sets, scaled and not, predicted and measured.

    python analysis/row_scalings.py [--n 6 8] [--dims 1 2] [--policy fp32] [--passes 2]

Row j of G is multiplied by c_j, row j of BT by b_j, column j of AT by 1 / (b_j c_j), which is the same algorithm in exact
arithmetic. One row at a time takes the constant with the smallest predicted error, among powers of two times ratios of odd
numbers up to 9, until nothing improves. Both sets are measured on the same tiles, which the search has not seen. Writes
figures/row_scalings.csv.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from itertools import product
from typing import Any

from common import print_table, progress, write_csv

import fastconv as fc
from fastconv.program import programs_of

ODD = sorted({Fraction(p, q) for p in range(1, 10, 2) for q in range(1, 10, 2)})
"""Ratios of odd numbers. Powers of two change no rounding, and fp32 has enough range."""


def operations(alg: Any) -> int:
    programs = programs_of(alg)
    return sum(p.counts.adds + p.counts.muls for p in (programs.output, programs.kernel, programs.input))


def scaled(alg: Any, kernel: list[Fraction], data: list[Fraction]) -> Any:
    return alg.scaled([1 / (c * b) for c, b in zip(kernel, data, strict=True)], kernel, data)


def descended(alg: Any, dims: int, policy: str, passes: int) -> tuple[Any, float, float]:
    """Return the scaled algorithm, and the predicted errors before and after."""
    scales = [[Fraction(1)] * alg.n for _ in range(2)]
    first = best = fc.predict_error(alg, dims=dims, policy=policy).mean_abs
    for _ in range(passes):
        before = best
        for side, j in product(range(2), range(alg.n)):
            for c in ODD:
                trial = [list(s) for s in scales]
                trial[side][j] = c
                value = fc.predict_error(scaled(alg, *trial), dims=dims, policy=policy).mean_abs
                if value < best * (1 - 1e-6):
                    best, scales = value, trial
        if best == before:
            break
    return scaled(alg, *scales), first, best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[6, 8])
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--policy", default="fp32")
    parser.add_argument("--passes", type=int, default=2)
    args = parser.parse_args()
    rows = []
    for n, dims in progress(list(product(args.n, args.dims)), "sizes"):
        alg = fc.toom_cook(n - 2, 3, fc.best_points(n - 2, 3, dims, args.policy))
        other, first, best = descended(alg, dims, args.policy, args.passes)
        other.verify()
        plain, changed = (fc.measure_error(a, dims=dims, policy=args.policy, trials=20000, seed=3) for a in (alg, other))
        gains = 1 - best / first, 1 - changed.mean_abs / plain.mean_abs
        rows.append([n, dims, args.policy, *gains, plain.mean_abs_stderr / plain.mean_abs, operations(alg), operations(other)])
    header = ["n", "dims", "policy", "predicted_gain", "measured_gain", "relative_stderr", "operations", "operations_scaled"]
    write_csv("row_scalings.csv", header, rows)
    print_table(header, rows)


if __name__ == "__main__":
    main()

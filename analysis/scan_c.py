"""Scan the family {0, -1/c, -c, c, 1/c, inf} of Alam et al. 2022 at n = 6 over all c of small height.

    python analysis/scan_c.py [--height 8] [--trials 20000]

Prints the measured error (fp32, Huffman order, the protocol of Barabasz et al. 2020) of F(4x4,3x3) and F(4,3) for every rational
c < 1 whose numerator and denominator are at most the height, the smallest first, compared with other sets in use.
"""

from __future__ import annotations

import argparse
from fractions import Fraction

from common import print_table, progress, write_csv

import fastconv as fc


def candidates(height: int) -> dict[str, list]:
    cs = sorted({Fraction(p, q) for q in range(2, height + 1) for p in range(1, q)})
    family = {f"c = {c}": [0, -1 / c, -c, c, 1 / c, fc.INF] for c in cs if c > Fraction(1, 4)}
    others = {source: list(fc.published_points(source, 6)) for source in ("ncnn", "fastconv", "onednn", "barabasz2020", "lavin2016")}
    return others | family


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=8)
    parser.add_argument("--trials", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = []
    for name, points in progress(candidates(args.height).items(), "measuring"):
        alg = fc.toom_cook(4, 3, sorted(points[:-1], key=lambda p: (abs(float(p)), float(p))) + points[-1:])
        reports = [fc.measure_error(alg, dims=dims, trials=args.trials, seed=args.seed) for dims in (1, 2)]
        rows.append([name, *(f"{v:.4g}" for r in reports for v in (r.mean_abs, r.mean_abs_stderr))])
    rows.sort(key=lambda row: float(row[3]))
    header = ["set", "error_1d", "stderr_1d", "error_2d", "stderr_2d"]
    write_csv("scan_c.csv", header, rows)
    print_table(header, rows)


if __name__ == "__main__":
    main()

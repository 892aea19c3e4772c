"""Search the best sets with pairs of complex points and write the table that `fastconv.complex_points` reads.

    python analysis/complex_points.py --r 5 --sizes 8/14 10/17 14/23 [--dims 2]

A size is outputs/products: n = m + r - 1 products, and one more per pair of complex points. A set consists of 0, infinity, real points a
and -a (and one more if their number is odd), I if the number of pairs is odd, and pairs z and -conj(z) on the unit circle. Its parameters
are small rationals. From several starts, each is moved to the value with the smallest predicted error, until none moves. The error is that
of a layer: `predict_error` for normal data, 64 channels summed in blocks, the kernel transform in float64. The result is measured
(`measure_error`, seed 1). Only a better set replaces a row.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import fastconv as fc
from fastconv.arithmetic import Setting
from fastconv.error import MOMENTS, relative_error
from fastconv.exact import Gaussian, to_text
from fastconv.files import write_whole
from fastconv.kernels.choose.accuracy import POLICY

TABLE = Path(fc.__file__).parent / "algebra" / "complex_points.json"
CHANNELS = 64
ORDER = "huffman+shared+folded"
REALS = sorted({Fraction(a, b) for a in range(1, 7) for b in range(1, 7) if 3 * a >= b and a <= 3 * b})
TANGENTS = sorted({Fraction(a, b) for b in range(2, 9) for a in range(1, b)})
STARTS = (
    ("1", "1/2", "2", "3/4", "4/3", "1/3", "3"),
    ("3/4", "4/3", "1/2", "2", "1", "5/2", "2/5"),
    ("1", "2/3", "3/2", "1/2", "2", "2/5", "5/2"),
)


class Parameters(NamedTuple):
    """Real points up to their signs, one more real point, tangents of half the angles of complex ones."""

    reals: tuple[Fraction, ...]
    single: tuple[Fraction, ...]
    tangents: tuple[Fraction, ...]
    has_i: bool

    def points(self) -> tuple[Any, ...]:
        """Return the set."""
        reals = [s * a for a in self.reals for s in (1, -1)]
        upper = [Gaussian(Fraction(0), Fraction(1))] * self.has_i
        for t in self.tangents:
            z = Gaussian((1 - t * t) / (1 + t * t), 2 * t / (1 + t * t))
            upper += [z, -z.conjugate]
        return (Fraction(0), fc.INF, *reals, *self.single, *upper)

    def moved(self) -> Iterator[Parameters]:
        """Yield the sets that differ in one parameter."""
        for k in range(len(self.reals)):
            for a in REALS:
                yield self._replace(reals=(*self.reals[:k], a, *self.reals[k + 1 :]))
        if self.single:
            for a in REALS:
                yield from (self._replace(single=(s * a,)) for s in (1, -1))
        for k in range(len(self.tangents)):
            for t in TANGENTS:
                yield self._replace(tangents=(*self.tangents[:k], t, *self.tangents[k + 1 :]))


def starts(n: int, pairs: int) -> Iterator[Parameters]:
    """Yield the starts of the descents: equally spaced complex points."""
    reals, couples = n - 2 * pairs - 2, pairs // 2
    tangents = tuple(Fraction(math.tan(math.pi / 4 * (k + 1) / (couples + 1))).limit_denominator(8) for k in range(couples))
    for start in STARTS:
        few = tuple(map(Fraction, start[: reals // 2]))
        yield Parameters(few, (Fraction(-5, 3),) * (reals % 2), tangents, pairs % 2 == 1)


def descend(m: int, r: int, dims: int, at: Parameters) -> tuple[float, Parameters]:
    """Move one parameter at a time to the least error until none moves."""
    seen: dict[Parameters, float] = {}

    def error(p: Parameters) -> float:
        if p not in seen:
            points = p.points()
            seen[p] = predicted(m, r, points, dims) if len(set(points)) == len(points) else math.inf
        return seen[p]

    while True:
        best = min(at.moved(), key=error)
        if not error(best) < error(at):
            return error(at), at
        at = best


def predicted(m: int, r: int, points: tuple[Any, ...], dims: int) -> float:
    """Return the relative error of a layer."""
    alg = fc.toom_cook(m, r, points)
    return relative_error((alg,) * dims, Setting(POLICY, ORDER, CHANNELS, "blocked"), MOMENTS["normal"])


def row_of(m: int, r: int, pairs: int, dims: int) -> dict[str, Any]:
    """Search a size, and measure the best set."""
    found = [descend(m, r, dims, start) for start in starts(m + r - 1, pairs)]
    error, best = min(found, key=lambda f: f[0])
    points = best.points()
    report = fc.measure_error(fc.toom_cook(m, r, points), dims, POLICY, ORDER, CHANNELS, "blocked", "normal", trials=100, seed=1)
    command = f"python analysis/complex_points.py --r {r} --sizes {m}/{m + r - 1 + pairs} --dims {dims}"
    size = {"m": m, "r": r, "dims": dims, "pairs": pairs, "points": " ".join(map(to_text, points))}
    return size | {"predicted": float(f"{error:.4g}"), "measured": float(f"{report.relative_l2:.4g}"), "command": command}


def main() -> None:
    """Search the sizes given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--r", type=int, required=True, help="taps")
    parser.add_argument("--sizes", nargs="+", required=True, metavar="M/PRODUCTS", help="outputs and products, as in 8/14")
    parser.add_argument("--dims", type=int, choices=(1, 2), default=2)
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args()
    for size in args.sizes:
        m, products = map(int, size.split("/"))
        row = row_of(m, args.r, products - (m + args.r - 1), args.dims)
        key = ("r", "dims", "m", "pairs")
        rows = {tuple(old[k] for k in key): old for old in json.loads(args.table.read_text())["rows"]}
        old = rows.get(tuple(row[k] for k in key))
        if old is None or row["predicted"] < old["predicted"]:
            rows[tuple(row[k] for k in key)] = row
        lines = ",\n  ".join(json.dumps(rows[k]) for k in sorted(rows))
        write_whole(args.table, f'{{\n "rows": [\n  {lines}\n ]\n}}\n'.encode())
        report = f"{row['predicted']:.3g} predicted, {row['measured']:.3g} measured"
        print(f"F({m},{args.r})/{products} in {args.dims}-D: {report}: {row['points']}", flush=True)


if __name__ == "__main__":
    main()

"""Time the exact packages: build F(14, 3), verify F(6, 3), and make the programs of F(16, 3).

    python benchmarks/algebra.py [--turns 15]

Prints medians of cold calls in milliseconds: the caches are emptied before each. With wincnn installed (`pip install wincnn`),
its build and verification are timed too, interleaved.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import fastconv as fc
from fastconv.algebra import construct
from fastconv.program import order, programs_of


def build() -> None:
    construct._toom_cook.cache_clear()
    fc.toom_cook(14, 3, fc.published_points("barabasz2020", 16))


def verify() -> None:
    fc.toom_cook(6, 3, fc.published_points("wincnn", 8)).verify()


def program() -> None:
    order._program_of.cache_clear()
    programs_of(fc.toom_cook(16, 3, fc.published_points("barabasz2020", 18)))


def wincnn_jobs() -> dict[str, Callable[[], object]]:
    if importlib.util.find_spec("wincnn") is None:
        return {}
    import wincnn
    from sympy import Rational

    def points(source: str, n: int) -> tuple[Rational, ...]:
        return tuple(Rational(p.numerator, p.denominator) for p in fc.published_points(source, n)[:-1])

    return {
        "wincnn: build F(14,3)": lambda: wincnn.cookToomFilter(points("barabasz2020", 16), 14, 3),
        "wincnn: build, verify F(6,3)": lambda: wincnn.filterVerify(6, 3, *wincnn.cookToomFilter(points("wincnn", 8), 6, 3)[:3]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    jobs = {"build F(14,3)": build, "build and verify F(6,3)": verify, "programs of F(16,3)": program, **wincnn_jobs()}
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(args.turns):
        for name, job in jobs.items():
            begun = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - begun)
    for name, values in times.items():
        print(f"{name:30} {statistics.median(values) * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()

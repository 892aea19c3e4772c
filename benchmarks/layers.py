"""Time convolution layers: each contender in a process of its own, visited in rotating order.

Usage: python benchmarks/layers.py [--layers NAME ...] [--contenders NAME ...] [--turns 9] [--threads 2] [--csv PATH]

Two OpenMP runtimes in one process ruin each other, so every contender is a process that holds its plans and waits
for its turn. A turn is a warm-up and then at least 0.1 s and four calls; its value is the median call. Before and
after each turn a probe of the multiply-add rate tells what state the machine was in. Effective GFLOP/s are those of
the direct convolution over the time taken, whatever the algorithm; the error is the relative L2 norm of the
difference to a direct convolution in float64.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A layer: batch, channels, filters, height = width, kernel size, stride 1, "same" padding."""

    batch: int
    channels: int
    filters: int
    size: int
    kernel: int = 3

    @property
    def operations(self) -> int:
        """Floating-point operations of the direct convolution."""
        return 2 * self.batch * self.channels * self.filters * self.size**2 * self.kernel**2

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return input and weights: normal numbers, weights scaled as He et al. do."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch, self.channels, self.size, self.size))
        w = rng.standard_normal((self.filters, self.channels, self.kernel, self.kernel))
        return x.astype("f4"), (w * np.sqrt(2 / (self.channels * self.kernel**2))).astype("f4")


CASES = {
    "64-64@56": Case(1, 64, 64, 56),
    "128-128@28": Case(1, 128, 128, 28),
    "256-256@14": Case(1, 256, 256, 14),
    "512-512@28": Case(1, 512, 512, 28),
    "32-32@28 batch 100": Case(100, 32, 32, 28),
    "64-64@130": Case(1, 64, 64, 130),
    "5x5 64-64@56": Case(1, 64, 64, 56, 5),
}


def ours(name: str) -> Callable[[Case, int], Callable[[], np.ndarray]]:
    """Return the maker of a plan of fastconv."""

    def make(case: Case, threads: int) -> Callable[[], np.ndarray]:
        from fastconv import plan_conv2d

        x, w = case.arrays()
        m = name.removeprefix("F").rstrip()
        algorithm = f"F({m}x{m},{case.kernel}x{case.kernel})" if name.startswith("F") else name
        plan = plan_conv2d(w, padding=case.kernel // 2, input_shape=x.shape, algorithm=algorithm, threads=threads)
        return lambda: plan(x)

    return make


CONTENDERS = {name: ours(name) for name in ("direct", "F2", "F4", "F6", "auto")}


def multiply_add_rate(threads: int) -> float:
    """Return GFLOP/s of the inner product on panels that stay in the first-level cache."""
    from concurrent.futures import ThreadPoolExecutor

    from fastconv.kernels.blocked import panel_shape
    from fastconv.kernels.compiled import lanes_of, product

    (mr, nv), lanes, depth, repeats = panel_shape(), lanes_of("f4"), 256, 4000
    kernel = product("f4", mr, nv, 0).ctypes

    def one(_: int) -> None:
        u, v, m = (np.zeros(size, np.float32) for size in (depth * mr, nv * lanes, mr * nv * lanes))
        a, b, c = (array.ctypes.data for array in (u, v, m))
        kernel(repeats, 1, 0, nv * lanes, depth, depth, a, 0, b, 0, 0, c, 0, nv * lanes * 4)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))
    return 2 * mr * nv * lanes * depth * repeats * threads / (time.perf_counter() - start) / 1e9


def serve(name: str, threads: int) -> None:
    """Answer requests, one JSON line each, until the input ends."""
    calls: dict[str, Callable[[], np.ndarray]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["what"] == "probe":
            answer: Any = multiply_add_rate(threads)
        else:
            case = CASES[request["case"]]
            if request["case"] not in calls:
                calls[request["case"]] = CONTENDERS[name](case, threads)
            call = calls[request["case"]]
            answer = error_of(case, call()) if request["what"] == "error" else median_call(call)
        print(json.dumps(answer), flush=True)


def error_of(case: Case, y: np.ndarray) -> float:
    """Return the relative L2 error against a direct convolution in float64."""
    from fastconv import conv2d

    x, w = (a.astype(float) for a in case.arrays())
    truth = conv2d(x, w, padding=case.kernel // 2, algorithm="im2col")
    return float(np.linalg.norm(y - truth) / np.linalg.norm(truth))


def median_call(call: Callable[[], Any]) -> float:
    """Return the median time of a call, after one to warm up, of at least four and 0.1 s."""
    call()
    times: list[float] = []
    while len(times) < 4 or sum(times) < 0.1:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def process(name: str, threads: int) -> Iterator[Callable[..., Any]]:
    """Start a contender and give the function that asks it."""
    command = [sys.executable, __file__, "--serve", name, "--threads", str(threads)]
    pinned = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | pinned) as child:

        def ask(what: str, case: str = "") -> Any:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps({"what": what, "case": case}) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
            if not line:
                raise SystemExit(f"the contender {name} ended while asked for {what} {case}")
            return json.loads(line)

        yield ask


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean."""
    return exp(sum(map(log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.threads)

    from contextlib import ExitStack
    from importlib.metadata import version

    names = options.contenders
    print(platform.processor() or platform.machine(), *(f"{p} {version(p)}" for p in ("fastconv", "numba", "llvmlite", "numpy")))
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        ask = {name: stack.enter_context(process(name, options.threads)) for name in names}
        probe = stack.enter_context(process(names[0], options.threads))
        probe("probe")
        for case in options.layers:
            errors = {name: ask[name]("error", case) for name in names}
            times: dict[str, list[float]] = {name: [] for name in names}
            rates: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(options.turns):
                for k in range(len(names)):
                    name = names[(turn + k) % len(names)]
                    before = probe("probe")
                    times[name].append(ask[name]("time", case))
                    rates[name].append(min(before, probe("probe")))
            for name in names:
                median = statistics.median(times[name])
                rows.append(
                    {
                        "layer": case,
                        "contender": name,
                        "threads": options.threads,
                        "milliseconds": round(median * 1e3, 4),
                        "fastest": round(min(times[name]) * 1e3, 4),
                        "effective_gflops": round(CASES[case].operations / median / 1e9, 1),
                        "ratio": round(statistics.median(times[names[0]]) / median, 3),
                        "relative_l2": float(f"{errors[name]:.2e}"),
                        "fma_gflops": round(statistics.median(rates[name])),
                        "slowest_fma_gflops": round(min(rates[name])),
                    }
                )
                print("  ".join(f"{value}" for value in rows[-1].values()), flush=True)
    for name in names[1:]:
        mean = geometric_mean([row["ratio"] for row in rows if row["contender"] == name])
        print(f"{name}: {mean:.2f} times {names[0]}, geometric mean over {len(options.layers)} layers")
    if options.csv:
        partial = options.csv.with_suffix(".part")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(options.csv)


if __name__ == "__main__":
    main()

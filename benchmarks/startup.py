"""Time start-up: the import, the first call of a new layer, compiled and from disk, and older processors.

    python benchmarks/startup.py [--turns 5]

Each measurement is a separate process: the median of `turns` for the import, one process each for the others. Kernels are
compiled into an empty folder. Other processors are emulated on this machine by numba's CPU settings.
Writes figures/startup.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import contest

FIGURES = Path(__file__).parent.parent / "figures"

IMPORT = "import time; t = time.perf_counter(); import fastconv; print(time.perf_counter() - t)"

CALL = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import fastconv
sys.path.insert(0, sys.argv[1])
from contest import median_call, multiply_add_rate
algorithm, settings = sys.argv[2], json.loads(sys.argv[3])
rng = np.random.default_rng(0)
c, k, size, r = 64 // settings.get("groups", 1), 64, 56, 3
x, w = rng.standard_normal((1, 64, size, size)).astype("f4"), rng.standard_normal((k, c, r, r)).astype("f4")
before = time.perf_counter()
plan = fastconv.plan_conv2d(w, padding=1, input_shape=x.shape, algorithm=algorithm, threads=2, **settings)
plan(x)
first = time.perf_counter() - before
seconds = median_call(lambda: plan(x))
from fastconv.native import machine
effective = 2 * plan.layer.multiplications / seconds / 1e9
vectors = f"{8 * machine().vector_bytes} bit{', fused' if machine().fma else ''}"
said = {"ran": plan.algorithm, "vectors": vectors, "first_call_s": first, "ms": seconds * 1e3, "effective_gflops": effective}
said["fma_gflops"] = multiply_add_rate(2)
print(json.dumps(said))
"""

LAYERS: dict[str, tuple[str, dict[str, int]]] = {
    "auto": ("auto", {}),
    "F(2x2,3x3)": ("F(2x2,3x3)", {}),
    "F(6x6,3x3)": ("F(6x6,3x3)", {}),
    "direct": ("direct", {}),
    "stride 2": ("direct", {"stride": 2}),
    "depthwise": ("direct", {"groups": 64}),
}

CPUS = {
    "AVX2 (haswell)": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt,+avx,+f16c,+avx2,+bmi,+bmi2,+fma"},
    "SSE2 (x86-64)": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
}


def run(script: str, *arguments: str, **settings: str) -> Any:
    command = [sys.executable, "-c", script, *arguments]
    return json.loads(subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True).stdout)


def call(layer: str, cache: str, **settings: str) -> dict[str, Any]:
    algorithm, geometry = LAYERS[layer]
    said: dict[str, Any] = run(CALL, str(Path(__file__).parent), algorithm, json.dumps(geometry), XDG_CACHE_HOME=cache, **settings)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    rows: list[dict[str, Any]] = []

    def report(what: str, limit: str, said: dict[str, Any]) -> None:
        row = {"what": what, "seconds": round(said["first_call_s"], 3), "at_most": limit}
        row |= {name: said.get(name, "") for name in ("ran", "vectors")}
        row |= {name: round(said[name], 3) if name in said else "" for name in ("ms", "effective_gflops", "fma_gflops")}
        rows.append(row)
        speed = f"{row['ms']:8.3f} ms {row['effective_gflops']:7.1f} GFLOP/s, {row['vectors']}" if row["ms"] else ""
        print(f"{what:44}{row['seconds']:8.3f} s  at most {limit:4} {row['ran']:12}{speed}", flush=True)

    run(IMPORT)
    report("import fastconv", "0.3", {"first_call_s": statistics.median(run(IMPORT) for _ in range(turns))})
    for layer in LAYERS:  # each has a separate cache, so that none finds compiled code
        with tempfile.TemporaryDirectory() as cache:
            for what, limit in (("compiled", "10"), ("from disk", "")):
                report(f"first call of 64-64@56 {layer}, {what}", limit, call(layer, cache))
    for cpu, settings in CPUS.items():
        with tempfile.TemporaryDirectory() as cache:
            for layer in ("auto", "direct"):
                report(f"{cpu}: 64-64@56 {layer}", "10", call(layer, cache, **settings))
    contest.write_rows(FIGURES / "startup.csv", rows)


if __name__ == "__main__":
    main()

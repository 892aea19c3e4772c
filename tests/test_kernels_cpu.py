"""Layers on processors that this one is not: numba compiles for them, and the result equals the numpy twin bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import numpy as np
from fastconv import plan_conv2d
from fastconv.kernels.cut import CHANNEL_CHAIN, DIRECT_CHAIN
from fastconv.kernels.cpu import has_fma, vector_bytes
from fastconv.kernels.functional import plan_in_blocks
from fastconv.kernels.twin import twin
from fastconv.network.blocks import plain

rng = np.random.default_rng(0)
said = {"vector": vector_bytes(), "fused": has_fma(), "wrong": [], "filters": []}
for name, shape, filters, settings in (
    ("F(4x4,3x3)", (1, 35, 21, 18), 3, {}),  # few filters: tiles in the lanes
    ("F(4x4,3x3)", (2, 35, 7, 6), 41, {}),  # few tiles: filters in the lanes
    ("F(4x4,3x3)", (2, 32, 7, 20), 41, {}),  # channels that fill vectors: rows are turned into pixels
    ("F(8x8,3x3)/13", (1, 5, 20, 23), 3, {}),  # complex points: transforms of fused operations where the processor has them
    ("direct", (1, 6, 20, 23), 9, {"stride": 2, "groups": 3}),
    ("direct", (1, 5, 20, 23), 5, {"groups": 5}),  # depthwise
):
    x = rng.standard_normal(shape).astype("f4")
    w = rng.standard_normal((filters, shape[1] // settings.get("groups", 1), 3, 3)).astype("f4")
    b = rng.standard_normal(filters).astype("f4")
    plan = plan_conv2d(w, b, padding=1, input_shape=shape, algorithm=name, threads=2, **settings)
    chain = CHANNEL_CHAIN if plan.method.axes else DIRECT_CHAIN
    if not np.array_equal(plan(x), twin(plan.layer, plan.method, x, w, b, plan.order, chain, has_fma())):
        said["wrong"].append([name, shape, filters])
    parts = getattr(plan._runner, "parts", None)
    said["filters"].append(parts is not None and bool(parts.held))

x, w = rng.standard_normal((1, 32, 9, 10)).astype("f4"), rng.standard_normal((16, 32, 3, 3)).astype("f4")
settings = {"input_shape": x.shape, "algorithm": "F(4x4,3x3)", "threads": 2}
plan = plan_in_blocks((True, True), w, None, 1, 1, 1, 1, activation=None, **settings)
lanes = vector_bytes() // 4
y = plan(np.ascontiguousarray(np.moveaxis(x.reshape(1, -1, lanes, 9, 10), 2, 4)))
if not np.array_equal(plain(y), plan_conv2d(w, padding=1, **settings)(x)):
    said["wrong"].append("channels in blocks")
print(json.dumps(said))
"""

CPUS = {
    "AVX2": ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt,+avx,+f16c,+avx2,+bmi,+bmi2,+fma"}, 32, True),
    "AVX2 without FMA": ({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2"}, 32, False),
    "SSE2": ({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}, 16, False),
}


def processor_has(flags: set[str]) -> bool:
    """Whether Linux says that this processor has them."""
    try:
        with open("/proc/cpuinfo", encoding="ascii") as file:
            return any(flags <= set(line.split()) for line in file if line.startswith("flags"))
    except OSError:
        return False


@pytest.mark.parametrize("name", CPUS)
def test_layers_equal_their_twin_on_another_processor(name, tmp_path):
    settings, vector, fused = CPUS[name]
    needed = {"sse2"} | ({"avx2", "bmi2"} if vector == 32 else set()) | ({"fma"} if fused else set())
    if not processor_has(needed):
        pytest.skip(f"this processor does not run the code of {name}")
    own = os.environ | settings | {"XDG_CACHE_HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["vector"], said["fused"]) == (vector, fused)
    assert said["wrong"] == []
    assert said["filters"][:2] == [False, True]

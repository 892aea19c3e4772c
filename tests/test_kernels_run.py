"""Threads, overlapping calls, caching on disk, other CPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastconv import plan_conv2d

SCRIPT = """
import sys
import numpy as np
if sys.argv[1] == "again":
    sys.modules["numba"] = sys.modules["scipy"] = None  # cannot be imported
from fastconv import plan_conv2d
from fastconv.kernels import cpu
if sys.argv[1] == "wide":
    own = cpu.host_features()
    cpu.host_features = lambda: own | {"avx512f"}
rng = np.random.default_rng(0)
x, w = rng.standard_normal((1, 40, 22, 18)).astype("f4"), rng.standard_normal((9, 40, 3, 3)).astype("f4")
results = [plan_conv2d(w, padding=1, input_shape=x.shape, algorithm=a, threads=2)(x) for a in ("F(4x4,3x3)", "direct", "auto")]
print(cpu.vector_bytes(), cpu.has_fma())
np.save(sys.argv[2], results)
"""


def run(how, path, **settings):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, str(path)], env=os.environ | settings, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(), np.load(path)


def layer(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, 20, 37, 29)).astype("f4"), rng.standard_normal((30, 20, 3, 3)).astype("f4")


@pytest.mark.parametrize("name", ["F(4x4,3x3)", "im2col", "fft"])
def test_any_number_of_threads_gives_the_same_bits(name):
    x, w = layer()
    results = [plan_conv2d(w, padding=1, input_shape=x.shape, algorithm=name, threads=t)(x) for t in (1, 2, 3, 7, None)]
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


def test_few_tiles_and_many_filters_are_shared_by_filter():
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1, 48, 7, 7)).astype("f4"), rng.standard_normal((50, 48, 3, 3)).astype("f4")
    plans = [plan_conv2d(w, padding=1, input_shape=x.shape, algorithm="F(4x4,3x3)", threads=t) for t in (1, 2, 3)]
    assert "filters in 3 shares" in plans[2].explain()
    for plan in plans[1:]:
        np.testing.assert_array_equal(plan(x), plans[0](x))


@pytest.mark.parametrize("threads", [1, 2])
def test_python_threads_may_share_a_plan(threads):
    (x, w), inputs = layer(), [layer(seed)[0] for seed in range(6)]
    plan = plan_conv2d(w, padding=1, input_shape=x.shape, algorithm="F(4x4,3x3)", threads=threads)
    expected = [plan(one) for one in inputs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(plan, inputs * 5))
    for k, y in enumerate(results):
        np.testing.assert_array_equal(y, expected[k % 6])


def test_the_next_process_compiles_nothing(tmp_path):
    """It imports neither the compiler nor scipy: half of the memory and most of the time before the first result were theirs."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = run("first", tmp_path / "a.npy", **cache)
    again = run("again", tmp_path / "b.npy", **cache)
    np.testing.assert_array_equal(first[1], again[1])


def test_vectors_of_512_bits_give_the_same_bits(tmp_path):
    """On a CPU that has none the compiler makes them of narrower ones; lanes do not meet, so the bits are the same."""
    words, wide = run("wide", tmp_path / "a.npy")
    _, host = run("first", tmp_path / "b.npy")
    assert words[0] == "64"
    np.testing.assert_array_equal(wide[:2], host[:2])  # "auto" may choose otherwise

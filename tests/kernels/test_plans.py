"""Threads, cuts, overlapping calls, caching on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastconv import plan_conv2d
from fastconv.kernels.choose.cut import _cuts, work_of
from fastconv.native import lanes_of

SCRIPT = """
import sys
import numpy as np
if sys.argv[1] == "again":
    sys.modules["numba"] = sys.modules["scipy"] = None  # cannot be imported
from fastconv import plan_conv2d
rng = np.random.default_rng(0)
x, w = rng.standard_normal((1, 40, 22, 18)).astype("f4"), rng.standard_normal((9, 40, 3, 3)).astype("f4")
results = [plan_conv2d(w, padding=1, input_shape=x.shape, algorithm=a, threads=2)(x) for a in ("F(4x4,3x3)", "direct", "auto")]
np.save(sys.argv[2], results)
"""


def run(how, path, **settings):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, str(path)], env=os.environ | settings, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return np.load(path)


def layer(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, 20, 37, 29)).astype("f4"), rng.standard_normal((30, 20, 3, 3)).astype("f4")


@pytest.mark.parametrize("name", ["F(4x4,3x3)", "im2col", "fft"])
def test_any_number_of_threads_gives_the_same_bits(name):
    x, w = layer()
    results = [plan_conv2d(w, padding=1, input_shape=x.shape, algorithm=name, threads=t)(x) for t in (1, 2, 3, 7, None)]
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


@pytest.mark.parametrize(("name", "size", "filters"), [("F(4x4,3x3)", 7, 50), ("F(4x4,3x3)", 30, 3), ("im2col", 9, 37)])
def test_every_way_to_cut_gives_the_same_bits(name, size, filters, monkeypatch):
    """Few tiles with many filters are cut differently from the reverse; any cut must work for any layer."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1, 48, size, size)).astype("f4"), rng.standard_normal((filters, 48, 3, 3)).astype("f4")
    settings = {"padding": 1, "input_shape": x.shape, "algorithm": name}
    plan = plan_conv2d(w, threads=1, **settings)
    cuts = list(_cuts(work_of(plan.layer, plan.method.sizes), lanes_of("f4"), 3))
    of_a_kind = {(one.shares, one.mt > 0): one for one in rng.permutation(np.array(cuts, object))}
    assert {shares for shares, _ in of_a_kind} == ({1, 3} if filters > 3 else {1})
    for one in of_a_kind.values():
        monkeypatch.setattr("fastconv.kernels.runners.blocked.cut", lambda *_, one=one: one)
        np.testing.assert_array_equal(plan_conv2d(w, threads=3, **settings)(x), plan(x))


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
    """It imports neither the compiler nor scipy, which cost half of the memory and most of the start-up time."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = run("first", tmp_path / "a.npy", **cache)
    again = run("again", tmp_path / "b.npy", **cache)
    np.testing.assert_array_equal(first, again)

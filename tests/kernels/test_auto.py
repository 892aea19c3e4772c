"""The choice of `algorithm="auto"` is within `max_error`, does not depend on threads, and needs little memory."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest
from support import ROOT

from fastconv import conv2d, plan_conv1d, plan_conv2d
from fastconv.kernels.choose import estimated
from fastconv.kernels.choose.cut import cut, work_of
from fastconv.kernels.choose.method import MAX_ERROR, choose, method_of
from fastconv.kernels.layer import layer_of

WORKSPACE = 32 << 20
"""Most bytes of a call's workspace."""


def layer(channels, filters, size, kernel=3, dtype="f4", batch=1, dims=2):
    weight = np.broadcast_to(np.zeros((), dtype), (filters, channels, *(kernel,) * dims))
    return layer_of(weight, None, 1, kernel // 2, 1, 1, (batch, channels, *(size,) * dims))


def arrays(channels, filters, size, kernel=3, dtype="f4", dims=2):
    rng = np.random.default_rng([channels, filters, size])
    x, w = rng.standard_normal((1, channels, *(size,) * dims)), rng.standard_normal((filters, channels, *(kernel,) * dims))
    return x.astype(dtype), w.astype(dtype)


def refused(kind, **settings):
    x, w = arrays(4, 4, 8)
    with pytest.raises(kind) as info:
        plan_conv2d(w, padding=1, input_shape=x.shape, **settings)
    (sentence,) = str(info.value).splitlines()
    return sentence


@pytest.mark.parametrize("given", ["1e-6", True, [1e-6], 1j])
def test_a_limit_that_is_no_number_is_refused(given):
    sentence = refused(TypeError, max_error=given)
    assert repr(given) in sentence
    assert "pass a number" in sentence


@pytest.mark.parametrize("given", [0, -1e-6, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(given):
    sentence = refused(ValueError, max_error=given)
    assert str(given) in sentence
    assert "number above 0" in sentence


@pytest.mark.parametrize("name", ["direct", "F(4x4,3x3)"])
def test_a_limit_beside_a_named_algorithm_is_refused(name):
    sentence = refused(ValueError, max_error=1e-6, algorithm=name)
    assert name in sentence
    assert "algorithm='auto'" in sentence


def test_a_limit_below_direct_convolution_is_refused():
    sentence = refused(ValueError, max_error=1e-9)
    assert "direct float32" in sentence
    assert "float64" in sentence


def test_a_tighter_limit_takes_a_slower_algorithm():
    """Each limit is just below the predicted error of the previous choice; the last choice is direct convolution."""
    one, cycles, limit = layer(128, 128, 56), [], 1.0
    while True:
        method = choose(one, limit)
        cycles.append(cut(work_of(one, method.sizes), 2).cycles)
        if method.axes is None:
            break
        error = estimated(one, method.axes or ()).error
        assert error <= limit
        limit = error * 0.999
    assert cycles == sorted(cycles)
    assert len(cycles) >= 4


@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "dims", "limit"),
    [
        (32, 48, 40, 3, 2, MAX_ERROR),
        (128, 32, 28, 3, 2, MAX_ERROR),
        (512, 32, 14, 3, 2, MAX_ERROR),
        (64, 32, 28, 3, 2, 3e-7),
        (64, 64, 56, 3, 2, 1e-5),
        (32, 32, 24, 5, 2, MAX_ERROR),
        (64, 64, 512, 3, 1, MAX_ERROR),
    ],
)
def test_what_auto_takes_errs_less_than_the_limit(channels, filters, size, kernel, dims, limit):
    """The error matches the prediction within a third: the closed form assumes normal inputs, without zeros at the border."""
    x, w = arrays(channels, filters, size, kernel, dims=dims)
    plan = (plan_conv2d if dims == 2 else plan_conv1d)(w, padding=kernel // 2, input_shape=x.shape, max_error=limit, threads=1)
    right = (plan_conv2d if dims == 2 else plan_conv1d)(
        w.astype(float), padding=kernel // 2, input_shape=x.shape, algorithm="im2col", threads=1
    )(x.astype(float))
    error = np.linalg.norm(plan(x) - right) / np.linalg.norm(right)
    predicted = estimated(plan.layer, plan.method.axes or ()).error
    assert predicted <= limit
    assert max(alg.m for alg in plan.method.axes) > 6 or limit < 1e-5  # a loose limit is used
    assert predicted / 1.5 < error < min(limit, predicted * 1.33)


def test_float64_takes_fast_algorithms_within_as_many_roundings():
    x, w = arrays(64, 64, 32, dtype="f8")
    plan = plan_conv2d(w, padding=1, input_shape=x.shape, threads=1)
    assert plan.method.axes is not None
    limit = MAX_ERROR * 2.0**-29
    assert f"the limit is {limit:.1e}" in plan.explain()
    direct = conv2d(x, w, padding=1, algorithm="im2col", threads=1)
    # direct convolution is not exact here, but its error is several times below the limit of 1e-6 / 2**29
    assert 0 < np.linalg.norm(plan(x) - direct) / np.linalg.norm(direct) < 1.3 * limit
    assert plan_conv2d(w, padding=1, input_shape=x.shape, threads=1, max_error=1e-6).method.axes is not None


@pytest.mark.parametrize(("channels", "filters", "size"), [(64, 64, 56), (512, 512, 7), (3, 64, 224), (40, 24, 9)])
def test_the_choice_does_not_depend_on_threads(channels, filters, size):
    _, w = arrays(channels, filters, size)
    plans = [plan_conv2d(w, padding=1, input_shape=(1, channels, size, size), threads=threads) for threads in (1, 2, 5)]
    assert len({plan.algorithm for plan in plans}) == 1
    assert len({method_of("auto", plan.layer).axes for plan in plans}) == 1


@pytest.mark.parametrize(
    ("name", "groups"), [("auto", 1), ("F(4x4,3x3)", 1), ("direct", 1), ("im2col", 1), ("direct", 32)], ids=lambda v: str(v)
)
def test_a_call_allocates_nothing_but_the_output(name, groups):
    """4 KiB are allowed for Python objects: views of arrays, shapes, argument tuples."""
    x, w = arrays(32, 32, 64)
    plan = plan_conv2d(w[:, : 32 // groups], padding=1, groups=groups, input_shape=x.shape, algorithm=name, threads=2)
    plan(x)
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        y = plan(x)
        peak = tracemalloc.get_traced_memory()[1] - before
        assert y.nbytes <= peak <= y.nbytes + 4096
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        plan(x, out=y)
        assert tracemalloc.get_traced_memory()[1] - before <= 4096
    finally:
        tracemalloc.stop()


def benchmarked():
    """The layers of the benchmark."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from layers import CASES
    finally:
        sys.path.remove(folder)
    return CASES


@pytest.mark.parametrize("name", ["64-64@256", "512-512@28", "64-64@56 batch 8", "7x7 stride 2 3-64@224", "1-D k=31 64-64@16384"])
def test_workspaces_of_the_benchmarked_layers_are_small(name):
    """Only the largest are tested: packing all weights takes too long here; `benchmarks/layers.py` records the others."""
    case = benchmarked()[name]
    x, w = case.arrays()
    make = plan_conv2d if case.dims == 2 else plan_conv1d
    plan = make(w, padding=case.pad, stride=case.stride, groups=case.groups, input_shape=x.shape, threads=2)
    assert 0 < plan.workspace_bytes <= WORKSPACE

"""The team of threads is correct with any number, two callers at once, and after a fork; depthwise equals im2col."""

from __future__ import annotations

import multiprocessing
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from fastconv import plan_conv2d
from fastconv.kernels import Activation
from fastconv.kernels.runners.blocked import PAST_BYTES
from fastconv.kernels.runners.depthwise import DepthwiseRunner
from fastconv.native import Pool, machine
from fastconv.native import threads as team_of
from fastconv.native.threads import APART, PortableTeam, Team, Word, processors

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((2, 20, 30, 33)).astype("f4"), RNG.standard_normal((24, 20, 3, 3)).astype("f4")


@pytest.fixture(params=[Team, PortableTeam])
def team(request, monkeypatch):
    """A separate team of three threads, even on one CPU."""
    made = request.param()
    monkeypatch.setattr(team_of, "team", lambda: made)
    monkeypatch.setattr(team_of, "processors", lambda: 3)
    yield made
    made.stop()
    assert not any(thread.is_alive() for thread in made.threads)


def test_many_jobs_in_a_row_all_give_the_same(team):
    plan = plan_conv2d(W, padding=1, input_shape=X.shape, threads=2)
    expected = plan_conv2d(W, padding=1, input_shape=X.shape, threads=1)(X)
    for _ in range(300):
        np.testing.assert_array_equal(plan(X), expected)
    assert len(team.threads) == 1


def test_networks_of_many_jobs_give_the_same(team):
    """The list has jobs for one member and for several, and one with a preceding job."""
    x, w = X[:, :, :9, :9].copy(), W[:, :, :1, :1].copy()
    plans = [plan_conv2d(w, input_shape=x.shape, threads=t) for t in (1, 2, 3)]
    plans += [plan_conv2d(W, None, 2, input_shape=x.shape, algorithm="phases", threads=t) for t in (1, 3)]
    outs = [np.empty(plan.output_shape, "f4") for plan in plans]
    jobs = [plan.job(x, out) for plan, out in zip(plans, outs, strict=True)]
    workspace = team_of.memory(max(job.room for job in jobs))
    team_of.run_all(np.array([word for job in jobs for word in job.words(workspace.ctypes.data)], np.int64))
    for plan, out in zip(plans, outs, strict=True):
        np.testing.assert_array_equal(out, plan_conv2d_again(plan)(x))
    assert len(team.threads) == 2


def test_a_job_on_other_arrays_is_the_same_job_there():
    x, w = X[:, :, :9, :9].copy(), W[:, :, :1, :1].copy()
    plan = plan_conv2d(w, input_shape=x.shape, threads=1)
    one, two = np.empty(plan.output_shape, "f4"), np.empty(plan.output_shape, "f4")
    job = plan.job(x, one)
    before = job.words(0)
    other = job.keeping((*job.arrays[:3], two))
    assert other.addresses == (*job.addresses[:3], two.ctypes.data)
    assert other.words(0) == tuple(two.ctypes.data if word == one.ctypes.data else word for word in before)
    assert job.words(0) == before
    Pool().run(other)
    np.testing.assert_array_equal(two, plan(x))


def plan_conv2d_again(plan):
    """Return the same layer on one thread."""
    stride = plan.layer.stride[0]
    w = W if stride == 2 else W[:, :, :1, :1].copy()
    return plan_conv2d(w, None, stride, input_shape=plan.input_shape, algorithm="phases" if stride == 2 else "auto", threads=1)


def test_idle_members_sleep(team):
    """They spin for a tenth of a millisecond and then use no CPU time."""
    plan = plan_conv2d(W, padding=1, input_shape=X.shape, threads=3)
    plan(X)
    assert len(team.threads) == 2
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.2
    plan(X)  # and they wake


def test_words_that_threads_share_lie_in_cache_lines_apart():
    assert {after - before for before, after in pairwise(int(word) * 8 for word in Word)} == {APART}
    assert APART % machine().line == 0
    assert team_of.memory(100).ctypes.data % APART == 0


def test_callers_at_once_each_get_their_own_result(team):
    plan = plan_conv2d(W, padding=1, input_shape=X.shape, threads=2)
    inputs = [X * k for k in (1, 2, 4, 8)]
    expected = [plan(x) for x in inputs]
    wrong: list[int] = []

    def call(k: int) -> None:
        for _ in range(50):
            if not np.array_equal(plan(inputs[k]), expected[k]):
                wrong.append(k)

    callers = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def child(expected, answers):
    plan = plan_conv2d(W, padding=1, input_shape=X.shape, threads=2)
    answers.put(bool(np.array_equal(plan(X), expected)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_a_team_of_its_own():
    expected = plan_conv2d(W, padding=1, input_shape=X.shape, threads=2)(X)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=child, args=(expected, answers))
    process.start()
    assert answers.get(timeout=60)
    process.join()


def test_more_threads_than_processors_make_no_larger_team():
    x = RNG.standard_normal((8, 4, 40, 40)).astype("f4")
    plan_conv2d(W[:, :4], input_shape=x.shape, threads=64)(x)
    assert len(team_of.team().threads) < processors()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("made", "size", "taps", "stride", "padding", "dilation"),
    [
        (1, (20, 23), 3, 1, 1, 1),
        (2, (20, 23), 3, 2, 1, 1),
        (1, (6, 5), 3, 1, 1, 1),
        (1, (30, 33), 5, 2, 2, 2),
        (3, (20, 7), (1, 3), (3, 1), 0, 1),
    ],
)
def test_depthwise_layers_equal_im2col_bit_for_bit(dtype, made, size, taps, stride, padding, dilation):
    kernel = (taps, taps) if isinstance(taps, int) else taps
    x, w = RNG.standard_normal((2, 6, *size)).astype(dtype), RNG.standard_normal((6 * made, 1, *kernel)).astype(dtype)
    b = RNG.standard_normal(6 * made).astype(dtype)
    for activation in (None, Activation(slope=RNG.random(6 * made), high=2.0)):
        for threads in (1, 2):
            options = {"groups": 6, "input_shape": x.shape, "threads": threads, "activation": activation}
            plan = plan_conv2d(w, b, stride, padding, dilation, algorithm="direct", **options)
            assert isinstance(plan._runner, DepthwiseRunner)
            y = plan(x)
            np.testing.assert_array_equal(plan(x), y)
            np.testing.assert_array_equal(y, plan_conv2d(w, b, stride, padding, dilation, algorithm="im2col", **options)(x))


def test_a_nan_in_one_channel_stays_there():
    x = RNG.standard_normal((1, 5, 12, 12)).astype("f4")
    w = RNG.standard_normal((5, 1, 3, 3)).astype("f4")
    plan = plan_conv2d(w, padding=1, groups=5, input_shape=x.shape, threads=1)
    expected = plan(x)
    spoilt = x.copy()
    spoilt[0, 2] = np.nan
    y = plan(spoilt)
    assert np.isnan(y[0, 2]).all()
    np.testing.assert_array_equal(np.delete(y, 2, axis=1), np.delete(expected, 2, axis=1))
    np.testing.assert_array_equal(plan(x), expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("batch", "size"), [(1, (14, 14)), (3, (7, 7)), (5, (3, 5)), (2, (1, 1))])
def test_layers_of_one_tap_read_small_planes_where_they_are(threads, batch, size):
    x, w = RNG.standard_normal((batch, 12, *size)).astype("f4"), RNG.standard_normal((40, 6, 1, 1)).astype("f4")
    y = plan_conv2d(w, groups=2, input_shape=x.shape, threads=threads)(x)
    wide = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 40)))  # planes too large for it: gathered
    np.testing.assert_array_equal(y, plan_conv2d(w, groups=2, input_shape=wide.shape, threads=threads)(wide)[..., : size[1]])


def test_large_outputs_go_past_the_caches_and_are_the_same():
    x, w = RNG.standard_normal((1, 2, 270, 251)).astype("f4"), RNG.standard_normal((70, 2, 3, 3)).astype("f4")
    plan = plan_conv2d(w, padding=1, input_shape=x.shape, algorithm="F(4x4,3x3)", threads=2)
    y = plan(x)
    assert y.nbytes >= PAST_BYTES
    part = plan_conv2d(w[:8], padding=1, input_shape=x.shape, algorithm="F(4x4,3x3)", threads=1)(x)
    assert part.nbytes < PAST_BYTES
    np.testing.assert_array_equal(y[:, :8], part)

"""What small mistakes would let through: guards, their messages, and limits that no result shows."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
from fastconv.kernels.runners.transposed import Frame, Transposed
from fastconv.native import threads

W, X = np.ones((24, 16, 3, 3), np.float32), np.ones((3, 16, 21, 22), np.float32)


def jobs_of(given):
    """Return all jobs that a layer's job consists of."""
    job = given
    while job is not None:
        yield job
        job = job.first


RUNNERS = {
    "block": lambda t: fc.plan_conv2d(W, input_shape=X.shape, algorithm="F(4x4,3x3)", threads=t),
    "im2col": lambda t: fc.plan_conv2d(W, input_shape=X.shape, algorithm="im2col", threads=t),
    "pointwise": lambda t: fc.plan_conv2d(W[:, :, :1, :1].copy(), input_shape=X.shape, algorithm="direct", threads=t),
    "depthwise": lambda t: fc.plan_conv2d(W[:16, :1].copy(), groups=16, input_shape=X.shape, algorithm="direct", threads=t),
    "phases": lambda t: fc.plan_conv2d(W, None, 2, input_shape=X.shape, algorithm="phases", threads=t),
    "stride two": lambda t: fc.plan_conv2d(W, None, 2, input_shape=X.shape, algorithm="F(4x4,3x3)s2", threads=t),
    "transposed": lambda t: Transposed((3, 16, 9, 9), W[:16].copy(), None, Frame((2, 2), (0, 0), (19, 19)), 1, t),
}


@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_job_has_more_members_than_threads_were_given(name, count, monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 64)
    made = RUNNERS[name](count)
    x, out = (
        (X, np.empty(made.output_shape, np.float32))
        if name != "transposed"
        else (np.ones((3, 16, 9, 9), "f4"), np.empty(made.output_shape, "f4"))
    )
    found = list(jobs_of(made.job(x, out)))
    assert found
    for job in found:
        assert 1 <= job.members <= count
        assert all(np.array(job.words(0)).view(threads.JOB)["members"] <= count)


@pytest.mark.parametrize(
    ("out", "kind", "message"),
    [
        (lambda y: y.tolist(), TypeError, "out is list: the result is an array of float32"),
        (lambda y: y.astype("f8"), TypeError, "out is float64: the result is an array of float32"),
        (lambda y: y[:, :, ::2], ValueError, r"out has shape \(3, 24, 10, 20\), the result \(3, 24, 19, 20\): pass a writable array"),
        (lambda y: np.asfortranarray(y), ValueError, "pass a writable array of it in C order"),
        (lambda y: np.broadcast_to(y[:1], y.shape), ValueError, "pass a writable array of it in C order"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(out, kind, message):
    plan = fc.plan_conv2d(W, input_shape=X.shape, threads=1)
    with pytest.raises(kind, match=message):
        plan(X, out=out(np.zeros(plan.output_shape, np.float32)))


def test_an_output_that_shares_memory_with_the_input_is_refused():
    plan = fc.plan_conv2d(np.ones((16, 16, 1, 1), np.float32), input_shape=X.shape, threads=1)
    with pytest.raises(ValueError, match="out shares memory with the input: pass an array apart from it"):
        plan(X, out=X)


def test_a_phase_of_one_tap_is_copied():
    """Of three taps at stride two one phase has a single tap: its products are inputs times that tap, no transform."""
    alg = fc.algorithm("F(4x4,3x3)s2")
    alone = [row for row in alg.G if sum(map(bool, row)) == 1 and row[1]]
    assert alone == [(0, 1, 0)] * 4
    at = [j for j, row in enumerate(alg.G) if tuple(row) == (0, 1, 0)]
    assert all(sorted(map(abs, alg.BT[j])) == [0] * (alg.n - 1) + [1] for j in at)


def test_balance_looks_at_magnitudes():
    """An entry below minus the largest number of the format fits it as little as one above."""
    alg = fc.toom_cook(6, 3, [0, -1, -2, -3, -4, -5, -16, "inf"])
    with pytest.raises(ValueError, match=r"AT\[\d\]\[\d\] = -.* times the largest number of fp16"):
        alg.balanced("fp16")


def test_an_exact_algorithm_has_no_shares_of_an_error():
    found = fc.predict_error(fc.toom_cook(1, 1, ["inf"]), 1, "bf16-fp32")
    assert set(found.shares.values()) == {0.0}
    assert found.rms == 0


@pytest.mark.parametrize("name", ["F(4,3)/x", "F(4,3)s", "F(4,3)s0", "F(4,3)/0", "F(4,3)/3"])
def test_what_stands_behind_a_size_is_refused_with_the_name(name):
    with pytest.raises(ValueError, match=r"F\(4,3\)|products|stride"):
        fc.algorithm(name)

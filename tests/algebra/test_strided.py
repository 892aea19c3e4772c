"""Algorithms of a stride: exact, proved, measured as predicted, and run by layers bit for bit as numpy reads them."""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

import fastconv as fc
from fastconv.algebra import parse_name

POINTS = [Fraction(0), "inf", *(sign * Fraction(p, q) for p, q in ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 3)) for sign in (1, -1))]


@given(st.integers(1, 6), st.integers(2, 7), st.integers(2, 4), st.randoms(use_true_random=False))
def test_any_points_give_a_convolution(m, r, stride, random):
    if stride > r:
        stride = r
    taps = [len(range(phase, r, stride)) for phase in range(stride)]
    alg = fc.strided(m, r, stride, [random.sample(POINTS, m + t - 1) if t > 1 else () for t in taps])
    alg.verify()
    assert (alg.n, alg.products) == (stride * (m - 1) + r, stride * (m - 1) + r)
    w, x = ([Fraction(random.randint(-9, 9)) for _ in range(size)] for size in (r, alg.n))
    u = [sum(g * e for g, e in zip(row, w, strict=True)) for row in alg.G]
    v = [sum(b * e for b, e in zip(row, x, strict=True)) for row in alg.BT]
    y = [sum(a * p * q for a, p, q in zip(row, u, v, strict=True)) for row in alg.AT]
    assert y == [sum(w[k] * x[stride * i + k] for k in range(r)) for i in range(m)]


def test_a_wrong_coefficient_is_found():
    alg = fc.algorithm("F(2,3)s2")
    broken = [[2 * e if (j, k) == (0, 0) else e for k, e in enumerate(row)] for j, row in enumerate(alg.G)]
    with pytest.raises(ValueError, match=r"F\(2,3\)s2 of given matrices is wrong: the coefficient of w_0 x_0 in y_0"):
        fc.BilinearAlgorithm.from_matrices(alg.AT, broken, alg.BT, stride=2)
    with pytest.raises(ValueError, match="BT is not"):
        fc.BilinearAlgorithm.from_matrices(alg.AT, alg.G, alg.BT)
    assert fc.BilinearAlgorithm.from_matrices(alg.AT, alg.G, alg.BT, stride=2) == alg


def test_names_and_files_keep_the_stride():
    alg = fc.algorithm("F(4x4,3x3)s2")
    assert (alg.stride, alg.n, alg.name(), alg.name(1)) == (2, 9, "F(4x4,3x3)s2", "F(4,3)s2")
    assert fc.BilinearAlgorithm.from_json(alg.to_json()) == alg != fc.algorithm("F(4x4,3x3)")
    assert alg.balanced().stride == alg.scaled(dG=[2] * 9).stride == 2
    assert parse_name(" F(4,3)s2 / 9 ") == ((4,), (3,), (2,), (9,))
    assert parse_name("winograd43") == ((4, 4), (3, 3), (1, 1), (None, None))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fc.strided(2, 3, 1, [[0, 1, -1, "inf"]]), "at least 2"),
        (lambda: fc.strided(2, 3, 4, [[]] * 4), "at most the number of taps, 3"),
        (lambda: fc.strided(2, 3, 2, [[0, 1, "inf"]]), "1 sets of points given: one per phase is needed, 2"),
        (lambda: fc.strided(2, 3, 2, [[0, 1], []]), "2 points given"),
        (lambda: fc.strided(200, 3, 2, [[], []]), "at most 256"),
        (lambda: fc.algorithm("F(4,3)s2/11"), "leave them out"),
        (lambda: fc.algorithm("F(4,3)s2", "lavin2016"), "leave the source out"),
        (lambda: fc.reference(np.ones(3), np.ones(5), stride=0), "stride is 0"),
    ],
)
def test_bad_strides_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["F(2,3)s2", "F(4x4,3x3)s2", "F(4x4,5x5)s2", "F(3x3,7x7)s3"])
@pytest.mark.parametrize("policy", ["fp32", "mixed"])
def test_the_error_is_the_predicted_one(name, policy):
    alg, dims = fc.algorithm(name), 1 if name == "F(2,3)s2" else 2
    settings = {"dims": dims, "policy": policy, "channels": 16, "channel_sum": "blocked", "inputs": "normal"}
    measured, predicted = fc.measure_error(alg, trials=600, **settings), fc.predict_error(alg, **settings)
    # The closed form is within 5 % (8 % on small tiles); 600 tiles leave at most 3 % of noise.
    assert predicted.relative_l2 == pytest.approx(measured.relative_l2, rel=0.08)
    assert measured.direct.relative_l2 < measured.relative_l2


def test_bounds_and_tolerances_hold():
    rng = np.random.default_rng(0)
    alg = fc.algorithm("F(4x4,3x3)s2")
    w, x = rng.standard_normal((60, 8, 3, 3)).astype("f4"), rng.standard_normal((60, 8, 9, 9)).astype("f4")
    y, truth = fc.evaluate(alg, w, x, dims=2, channels=True), fc.reference(w, x, 2, True, stride=2)
    assert y.shape == truth.shape == (60, 4, 4)
    assert (abs(y - truth) <= fc.bound_error(alg, w, x, dims=2, channels=True)).all()
    assert fc.tolerance(alg, channels=8).check(y, truth).passed
    assert not fc.tolerance(alg, channels=8).check(y, fc.reference(w[:, :7], x[:, :7], 2, True, stride=2)).passed
    sample = fc.Sample(w, x, stride=2).predict(alg)
    assert sample.relative_l2 == pytest.approx(np.linalg.norm(y - truth) / np.linalg.norm(truth), rel=0.2)
    with pytest.raises(ValueError, match="does not fit tiles of 9x9"):
        fc.Sample(w, x).predict(alg)


def test_networks_run_and_emulate_them():
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(2)
    w = rng.standard_normal((6, 5, 3, 3)).astype("f4")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "down", strides=[2, 2], pads=[1, 1, 1, 1])
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 5, 23, 18]), ("y", None))]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:], [numpy_helper.from_array(w, "w")])
    net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x = {"x": rng.standard_normal((1, 5, 23, 18)).astype("f4")}
    truth = net.run(x, policy="fp64")["y"]
    rows = fc.compare(net, x, ["F(4x4,3x3)s2"], policies=["fp32", "fp16"]).rows
    direct, fast, _, half = rows
    assert direct.relative_l2 < fast.relative_l2 < 1e-6 < half.relative_l2 < 1e-2
    assert net.prepare("F(4x4,3x3)").algorithms == {"down": "direct"}
    assert net.prepare("F(4x4,3x3)s2").algorithms == {"down": fc.algorithm("F(4x4,3x3)s2")}
    exact = net.run(x, "F(4x4,3x3)s2", "fp32", channel_sum="linear")["y"]
    assert exact.shape == truth.shape
    assert np.linalg.norm(exact - truth) < 1e-6 * np.linalg.norm(truth)


def test_the_stored_measurements_are_those_of_the_algorithms():
    if not (ROOT / "figures" / "strides.csv").exists():
        pytest.skip("the stored measurements are in the repository, not in the source distribution")
    sys.path.insert(0, str(ROOT / "analysis"))
    from common import read_csv

    for row in read_csv("strides.csv"):
        alg = fc.algorithm(f"F({row['m']}x{row['m']},{row['r']}x{row['r']})s{row['stride']}")
        assert alg.products == int(row["products"])
        assert float(row["predicted"]) == pytest.approx(float(row["measured"]), rel=0.08)

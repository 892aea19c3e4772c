"""Subnormal numbers are zero in all threads if the caller asks for it, and subnormal weights are reported."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
from fastconv.native.threads import PortableTeam, Team

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 16, 21, 22)).astype("f4")
W = RNG.standard_normal((24, 16, 3, 3)).astype("f4")
KINDS = {
    "direct": (W, {}),
    "F(4x4,3x3)": (W, {}),
    "pointwise": (W[:, :, :1, :1].copy(), {"algorithm": "direct"}),
    "depthwise": (W[:16, :1].copy(), {"algorithm": "direct", "groups": 16}),
    "stride two": (W, {"algorithm": "F(4x4,3x3)s2", "stride": 2}),
}


def planned(kind, x, scale=1.0, threads=2):
    w, settings = KINDS[kind]
    return fc.plan_conv2d(w * w.dtype.type(scale), input_shape=x.shape, threads=threads, **({"algorithm": kind} | settings))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_weights_below_the_normal_range_are_zero_where_asked_for(kind, dtype):
    """Weights are 1e-3 of the smallest normal number, so sums of 16 channels times 9 taps are subnormal too."""
    tiny, w = np.finfo(dtype).tiny * 1e-3, KINDS[kind][0].astype(dtype)
    x = X.astype(dtype)
    for threads in (1, 2):
        plan = fc.plan_conv2d(w * w.dtype.type(tiny), input_shape=x.shape, threads=threads, **({"algorithm": kind} | KINDS[kind][1]))
        assert np.any(plan(x))
        with fc.flush_subnormals():
            assert not np.any(plan(x))
        assert np.any(plan(x))


@pytest.mark.parametrize("kind", KINDS)
def test_normal_numbers_keep_their_bits(kind):
    plan = planned(kind, X)
    expected = plan(X)
    with fc.flush_subnormals():
        np.testing.assert_array_equal(plan(X), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_explain_counts_them(kind):
    assert planned(kind, X).subnormal_weights == 0
    assert "subnormal" not in planned(kind, X).explain()
    plan = planned(kind, X, 1e-41)
    assert plan.subnormal_weights >= np.count_nonzero(KINDS[kind][0]) / 2
    assert f"{plan.subnormal_weights} packed weights are subnormal, below 1.2e-38" in plan.explain()
    assert "fastconv.flush_subnormals takes them for zero" in plan.explain()
    with fc.flush_subnormals():
        assert "they count as zero here" in plan.explain()


def test_the_callers_own_arithmetic_stays_as_it_is():
    """Kernels also run in the caller's thread, whose floating-point state is restored."""
    small = np.float32(1e-40)
    with fc.flush_subnormals():
        planned("direct", X)(X)
        assert small * np.float32(0.5) > 0


@pytest.mark.parametrize("make", [Team, PortableTeam])
def test_members_of_either_team_flush_alike(make, monkeypatch):
    own = make()
    monkeypatch.setattr("fastconv.native.threads.team", lambda: own)
    plan = planned("F(4x4,3x3)", X, 1e-41, threads=3)
    with fc.flush_subnormals():
        assert not np.any(plan(X))
    assert np.any(plan(X))
    own.stop()


def weights_of_the_first():
    return W[:16] * np.float32(1e-41)


def test_networks_flush_too():
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Conv", ["z", "v"], ["o"]),
    ]
    weights = [numpy_helper.from_array(weights_of_the_first(), "w"), numpy_helper.from_array(W, "v")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", X.shape), ("o", None))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    net = fc.load_onnx(model)
    assert np.any(net.run({"x": X})["o"])
    explained = net.explain({"x": X}, algorithm="direct")
    assert [layer.subnormal_weights for layer in explained.layers] == [np.count_nonzero(weights_of_the_first()), 0]
    assert "weights of y are subnormal and may be slow: fastconv.flush_subnormals takes them for zero" in explained.summary()
    with fc.flush_subnormals():
        assert not np.any(net.run({"x": X})["o"])
    assert np.any(net.run({"x": X})["o"])

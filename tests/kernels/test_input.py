"""Layers with bad input, unusual memory layouts and non-finite numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import algorithm, conv1d, conv2d, plan_conv2d

X = np.random.default_rng(0).standard_normal((2, 6, 12, 10)).astype("f4")
W = np.random.default_rng(1).standard_normal((4, 6, 3, 3)).astype("f4")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"input": X[0, 0]}, ValueError, r"input has 2 dimensions.*or 3, \(channels, height, width\)"),
        ({"weight": W[0]}, ValueError, "weight has 3 dimensions"),
        ({"input": X.astype(int)}, TypeError, r"input is of dtype int64.*astype\('float32'\)"),
        ({"weight": W.astype(complex)}, TypeError, "complex"),
        ({"input": X.astype("f2")}, TypeError, "float16"),
        ({"input": X.astype("f8")}, TypeError, "input is float64, the weights are float32"),
        ({"weight": W[:, :5]}, ValueError, "input has 6 channels, weight .* takes 5"),
        ({"groups": 4}, ValueError, "do not divide into 4 groups"),
        ({"groups": 2}, ValueError, "weight .* takes 12"),
        ({"groups": 0}, ValueError, "groups is 0"),
        ({"bias": np.zeros(5, "f4")}, ValueError, r"bias has shape \(5\).*\(4,\)"),
        ({"bias": np.zeros((4, 1), "f4")}, ValueError, "bias has shape"),
        ({"bias": np.zeros(4)}, TypeError, "bias is float64"),
        ({"bias": np.zeros(4, int)}, TypeError, "bias is of dtype int64"),
        ({"input": X[:, :, :0]}, ValueError, "input .* is empty"),
        ({"input": X[:, :0], "weight": W[:, :0]}, ValueError, "weight .* is empty"),
        ({"weight": W[:0]}, ValueError, "weight .* is empty"),
        ({"weight": W[:, :, :0]}, ValueError, "weight .* is empty"),
        ({"input": X[:, :, :2]}, ValueError, "reaches over 3 along axis 2, more than the padded input, 2"),
        ({"dilation": 5}, ValueError, "reaches over 11 along axis 3"),
        ({"stride": 0}, ValueError, "stride is 0"),
        ({"stride": (1, -1)}, ValueError, "stride is"),
        ({"stride": 1.5}, TypeError, "stride is"),
        ({"stride": (1, 1, 1)}, ValueError, "stride is"),
        ({"stride": True}, TypeError, "stride is"),
        ({"padding": -1}, ValueError, "padding is -1"),
        ({"padding": "full"}, ValueError, "'valid' or 'same'"),
        ({"padding": "same", "stride": 2}, ValueError, "stride 1 only"),
        ({"dilation": 0}, ValueError, "dilation is 0"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"threads": 1.5}, TypeError, "threads is 1.5"),
        ({"threads": 2**40}, ValueError, "threads is 1099511627776: pass at most"),
        ({"padding": 2**40}, ValueError, "the padded input .* bytes, more than .*: pass less padding"),
        ({"padding": 2**70, "algorithm": "fft"}, ValueError, "the padded input .* bytes, more than"),
        ({"input": X[:0], "padding": 2**70}, ValueError, "the padded input .* bytes, more than"),
        ({"dilation": 2**70}, ValueError, "reaches over"),
        ({"groups": 2**40}, ValueError, "do not divide into 1099511627776 groups"),
        ({"order": "random"}, ValueError, "unknown order"),
        ({"algorithm": "F(x)"}, ValueError, "unknown algorithm"),
        ({"algorithm": 7}, TypeError, "algorithm is 7"),
        ({"algorithm": "F(4x4,5x5)"}, ValueError, r"5x5 kernels, the layer's is 3x3: pass 'F\(4x4,3x3\)'"),
        ({"algorithm": algorithm("F(4,5)")}, ValueError, "5x5 kernels"),
        ({"algorithm": "F(4x4,3x3)", "stride": 2}, ValueError, "stride 2x2: .* pass 'F\\(4x4,3x3\\)s2', 'auto' or 'direct'"),
        ({"algorithm": "F(4x4,3x3)", "dilation": (1, 2)}, ValueError, "dilation 1x2"),
        ({"algorithm": "F(4x4,3x3)", "groups": 2, "weight": W[:, :3]}, ValueError, "2 groups"),
        ({"algorithm": "F(15x15,3x3)"}, ValueError, "at most 16"),
        ({"algorithm": "F(0x2,3x3)"}, ValueError, "algorithm"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(change, kind, message):
    with pytest.raises(kind, match=message) as info:
        conv2d(**({"input": X, "weight": W} | change))
    assert "\n" not in str(info.value)


def test_plan_refuses_another_shape_or_format():
    plan = plan_conv2d(W, input_shape=X.shape)
    with pytest.raises(ValueError, match=r"shape \(1, 6, 12, 10\), the plan was made for \(2, 6, 12, 10\)"):
        plan(X[:1])
    with pytest.raises(TypeError, match="float64"):
        plan(X.astype("f8"))
    with pytest.raises(ValueError, match="input_shape .* has 2 numbers: .* 3 without a batch"):
        plan_conv2d(W, input_shape=X.shape[2:])
    with pytest.raises(ValueError, match=r"the output \(1, 4, \d+, 8\) takes \d+ bytes, more than"):
        plan_conv2d(W[:, :1], input_shape=(1, 1, 2**34, 10))
    with pytest.raises(TypeError, match="input_shape"):
        plan_conv2d(W, input_shape=(1, 6, 12.0, 10))
    with pytest.raises(ValueError, match="input has 4 dimensions"):
        conv1d(X, W[..., 0])


@pytest.mark.parametrize("name", ["auto", "direct", "F(2,3)", "fft"])
@pytest.mark.parametrize(("function", "taps"), [(conv1d, W[:, :, 0]), (conv2d, W)])
def test_one_image_without_a_batch_gives_one_without(function, taps, name):
    x = X[0, :, : None if taps.ndim == 4 else 1].squeeze()
    name = name if taps.ndim == 3 or name[0] != "F" else "F(2x2,3x3)"
    y = function(x, taps, np.ones(4, "f4"), padding=1, algorithm=name)
    assert y.shape == (4, *x.shape[1:])
    np.testing.assert_array_equal(y, function(x[None], taps, np.ones(4, "f4"), padding=1, algorithm=name)[0])


def test_a_plan_without_a_batch_takes_and_gives_none():
    plan = plan_conv2d(W, input_shape=X.shape[1:])
    assert (plan.input_shape, plan.output_shape) == ((6, 12, 10), (4, 10, 8))
    y = np.empty(plan.output_shape, "f4")
    assert plan(X[1], out=y) is y
    np.testing.assert_array_equal(y, conv2d(X[1:], W)[0])
    with pytest.raises(ValueError, match=r"shape \(1, 6, 12, 10\), the plan was made for \(6, 12, 10\)"):
        plan(X[:1])


@pytest.mark.parametrize("name", ["auto", "direct", "im2col", "fft"])
@pytest.mark.parametrize("huge", [2**31, 2**40, 2**63, 2**70])
def test_strides_longer_than_the_input_and_the_dilation_of_one_tap_do_not_matter(name, huge):
    np.testing.assert_array_equal(conv2d(X, W, stride=huge, algorithm=name), conv2d(X, W, stride=12, algorithm=name))
    taps = W[:, :, :1, :1]
    np.testing.assert_array_equal(conv2d(X, taps, dilation=huge, algorithm=name), conv2d(X, taps, algorithm=name))


def test_a_workspace_beyond_reason_is_refused_before_it_is_allocated():
    w = np.broadcast_to(np.float32(1), (1, 2**24, 1, 1))
    with pytest.raises(ValueError, match=r"needs a workspace of \d{10,} bytes, more than"):
        plan_conv2d(w, input_shape=(1, 2**24, 64, 64), algorithm="im2col", threads=16)
    with pytest.raises(ValueError, match=r"needs a workspace of \d{12,} bytes, more than"):
        plan_conv2d(W, input_shape=(1, 6, 2**16, 2**16), algorithm="fft")


@pytest.mark.parametrize("name", ["direct", "F(4x4,3x3)", "fft"])
def test_an_empty_batch_gives_an_empty_output(name):
    y = conv2d(X[:0], W, padding=1, algorithm=name)
    assert y.shape == (0, 4, 12, 10)
    assert y.dtype == np.float32


@pytest.mark.parametrize("name", ["direct", "F(2x2,3x3)", "fft"])
def test_memory_of_any_kind(name):
    expected = conv2d(X, W, algorithm=name)
    frozen = X.copy()
    frozen.flags.writeable = False
    raw = np.zeros(X.nbytes + 1, np.uint8)
    shifted = raw[1:].view("f4").reshape(X.shape)
    shifted[...] = X
    assert not shifted.flags.aligned
    twice = np.repeat(X, 2, axis=3)[..., ::2]
    for x in (frozen, np.asfortranarray(X), shifted, twice, X[::-1][::-1], X.astype(">f4"), X.tolist()):
        weight = W if not isinstance(x, list) else W.astype(float)
        y = conv2d(x, weight, algorithm=name)
        if not isinstance(x, list):
            np.testing.assert_array_equal(y, expected)
    for w in (np.asfortranarray(W), W[::-1][::-1], W.astype(">f4")):
        np.testing.assert_array_equal(conv2d(X, w, algorithm=name), expected)


def test_a_plan_keeps_its_own_weights_and_bias_and_returns_new_arrays():
    w, b = W.copy(), np.ones(4, "f4")
    plan = plan_conv2d(w, b, input_shape=X.shape, algorithm="F(4x4,3x3)")
    first = plan(X)
    kept = first.copy()
    w[...], b[...] = 0, 0
    np.testing.assert_array_equal(plan(X), kept)
    plan(2 * X)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "m"), [("F(4x4,3x3)", 4), ("F(2x2,3x3)", 2), ("direct", 1)])
def test_non_finite_input_stays_within_the_tiles_that_read_it(bad, name, m):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 5, 23, 21)).astype("f4")
    w = rng.standard_normal((7, 5, 3, 3)).astype("f4")
    plan = plan_conv2d(w, padding=1, input_shape=x.shape, algorithm=name, threads=2)
    clean = plan(x)
    spoilt = x.copy()
    row, column = 9, 14
    spoilt[1, 2, row, column] = bad
    y = plan(spoilt)
    rows, columns = ([i for i in range(size) if i // m * m - 1 <= at <= i // m * m + m] for size, at in ((23, row), (21, column)))
    reached = np.zeros(y.shape, bool)
    reached[1, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    np.testing.assert_array_equal(y[~reached], clean[~reached])
    # Outputs that are non-finite by direct convolution are non-finite here.
    assert not np.isfinite(y[1, :, row - 1 : row + 2, column - 1 : column + 2]).any()
    np.testing.assert_array_equal(plan(x), clean)

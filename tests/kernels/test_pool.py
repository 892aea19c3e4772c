"""Pools over planes: maxima equal numpy, means are within the rounding of their sums."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from fastconv.kernels import Activation
from fastconv.kernels.operators.pixelwise import Windows, average_pool, kind_of, mean, members, planewise
from fastconv.kernels.operators.pool import max_pool
from fastconv.native.threads import Pool

RNG = np.random.default_rng(0)


def by_definition(reading, x, out, kernel, strides, dilations, begin):
    """Return `reading` applied to the numbers of each window, without those in the padding."""
    y = np.empty((*x.shape[:2], *out), x.dtype)
    for i, j in np.ndindex(*out):
        rows, columns = (o * s - b + d * np.arange(k) for o, s, b, d, k in zip((i, j), strides, begin, dilations, kernel, strict=True))
        rows, columns = rows[(rows >= 0) & (rows < x.shape[2])], columns[(columns >= 0) & (columns < x.shape[3])]
        y[:, :, i, j] = reading(x[:, :, rows[:, None], columns], axis=(2, 3))
    return y


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("size", "out", "kernel", "strides", "dilations", "begin"),
    [
        ((112, 112), (56, 56), (3, 3), (2, 2), (1, 1), (1, 1)),
        ((12, 11), (6, 5), (2, 2), (2, 2), (1, 1), (0, 0)),
        ((1, 1), (1, 1), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((3, 40), (3, 40), (5, 5), (1, 1), (1, 1), (2, 2)),
        ((17, 6), (9, 2), (1, 3), (2, 3), (1, 1), (0, 0)),
        ((20, 33), (9, 10), (3, 2), (2, 3), (2, 3), (0, 1)),
        ((9, 70), (3, 9), (2, 5), (4, 7), (1, 2), (1, 0)),
        ((4, 5), (8, 7), (2, 2), (1, 1), (1, 1), (3, 2)),  # some windows are entirely in the padding
        ((12, 6), (26, 8), (2, 2), (1, 1), (1, 1), (3, 2)),  # below too, where rows of the image were held before
    ],
)
def test_the_largest_of_each_window(dtype, size, out, kernel, strides, dilations, begin):
    x = RNG.standard_normal((2, 3, *size)).astype(dtype)
    x[RNG.random(x.shape) < 0.02] = np.nan
    x[RNG.random(x.shape) < 0.02] = -np.inf
    wanted = by_definition(partial(np.max, initial=-np.inf), x, out, kernel, strides, dilations, begin)
    for threads in (1, 2):
        y, workspaces = np.zeros((*x.shape[:2], *out), dtype), Pool()
        for _ in range(2):  # the second time in a workspace that has been used
            workspaces.run(max_pool(x, y, Windows(kernel, strides, dilations, begin), threads))
            np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", [1, 7, 8, 49, 128, 129, 400, 5000])
def test_means_of_planes(dtype, size):
    x, y = RNG.standard_normal((3, 20, size)).astype(dtype), np.empty((3, 20, 1), dtype)
    x[1, 2, 0] = np.nan
    Pool().run(mean(x, y, 2))
    wide = x.astype(np.longdouble)
    # Each number passes at most 16 sums of a chain, 3 pairwise sums, one per 128 numbers and a division, each rounded.
    bound = (21 + size // 128) * np.finfo(dtype).eps / 2 * np.abs(wide).mean(axis=2, keepdims=True)
    assert np.isnan(y[1, 2, 0])
    assert np.isnan(y).sum() == 1
    assert (np.abs(y - wide.mean(axis=2, keepdims=True)) <= bound)[~np.isnan(y)].all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(2, 3, 50, 41), (300, 3, 5, 4), (1, 5, 9000), (7, 1, 3000), (2, 40000)])
def test_planes_are_scaled_and_summed_as_numpy_does(dtype, shape):
    """Small planes, many per work item, and large ones; one record per channel, or one for all."""
    x, other = (RNG.standard_normal(shape).astype(dtype) for _ in range(2))
    channels = shape[1]
    affine = tuple(RNG.standard_normal(channels).astype(dtype) for _ in range(3))
    along = lambda part: part.reshape(-1, *(1,) * (len(shape) - 2))
    scaled = (x - along(affine[0])) * along(affine[1]) + along(affine[2])
    shape_ = Activation(slope=RNG.random(channels), low=-0.5, high=0.75)
    for threads in (1, 3):
        for given, plain in (({"affine": affine}, scaled), ({"other": other}, x + other)):
            for activation in (None, shape_):
                y = np.full_like(x, 9)
                Pool().run(planewise(x, y, activation=activation, threads=threads, **given))
                wanted = plain
                if activation is not None:
                    sloped = np.where(plain < 0, plain * along(np.asarray(activation.slope, dtype)), plain)
                    wanted = np.minimum(np.maximum(sloped, np.asarray(-0.5, dtype)), np.asarray(0.75, dtype))
                np.testing.assert_array_equal(y, wanted)
        y = np.full_like(x, 9)
        Pool().run(planewise(x, y, activation=Activation(slope=0.25, low=-np.inf, high=1.0), threads=threads))
        np.testing.assert_array_equal(y, np.minimum(np.where(x < 0, x * np.asarray(0.25, dtype), x), 1))


@pytest.mark.parametrize(
    ("size", "out", "kernel", "strides", "dilations", "begin"),
    [
        ((12, 11), (6, 5), (2, 2), (2, 2), (1, 1), (0, 0)),
        ((9, 14), (9, 14), (3, 5), (1, 1), (1, 1), (1, 2)),
        ((20, 33), (9, 10), (3, 2), (2, 3), (2, 3), (0, 1)),
        ((4, 5), (8, 7), (2, 2), (1, 1), (1, 1), (3, 2)),
    ],
)
def test_the_mean_of_each_window(size, out, kernel, strides, dilations, begin):
    """Inputs are integers, so every order of summation gives the same result."""
    x = RNG.integers(-50, 50, (2, 3, *size)).astype("f4")
    count = RNG.integers(1, 9, out).astype("f4")
    wanted = by_definition(np.sum, x, out, kernel, strides, dilations, begin) / count
    for threads in (1, 2):
        y = np.full_like(wanted, 9)
        Pool().run(average_pool(x, y, Windows(kernel, strides, dilations, begin), count, threads))
        np.testing.assert_array_equal(y, wanted)


def test_what_the_kernels_serve_has_a_name():
    one, two = np.zeros((4, 6), "f4"), np.zeros((4, 6), "f8")
    assert (kind_of(one), kind_of(two), kind_of(one, one)) == ("f4", "f8", "f4")
    for other in ((one, two), (one.T[:, :2],), (one.astype(">f4"),), (one.astype("i4"),), (one.astype("f2"),), (one, one[:, ::2])):
        assert kind_of(*other) == ""
    assert [members(np.broadcast_to(np.float32(0), size), 5) for size in (2**15, 2**15 + 1)] == [1, 5]

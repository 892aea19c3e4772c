"""Pools over planes: the largest number of each window as numpy finds it, means to the rounding of their sums."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.kernels.operators.pixelwise import mean
from fastconv.kernels.operators.pool import max_pool
from fastconv.native.threads import Pool

RNG = np.random.default_rng(0)


def by_definition(x, out, kernel, strides, dilations, begin):
    y = np.empty((*x.shape[:2], *out), x.dtype)
    for i, j in np.ndindex(*out):
        rows, columns = (o * s - b + d * np.arange(k) for o, s, b, d, k in zip((i, j), strides, begin, dilations, kernel, strict=True))
        rows, columns = rows[(rows >= 0) & (rows < x.shape[2])], columns[(columns >= 0) & (columns < x.shape[3])]
        y[:, :, i, j] = x[:, :, rows[:, None], columns].max(axis=(2, 3), initial=-np.inf)
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
        ((4, 5), (8, 7), (2, 2), (1, 1), (1, 1), (3, 2)),  # some windows lie in the padding alone
    ],
)
def test_the_largest_of_each_window(dtype, size, out, kernel, strides, dilations, begin):
    x = RNG.standard_normal((2, 3, *size)).astype(dtype)
    x[RNG.random(x.shape) < 0.02] = np.nan
    x[RNG.random(x.shape) < 0.02] = -np.inf
    wanted = by_definition(x, out, kernel, strides, dilations, begin)
    for threads in (1, 2):
        y, workspaces = np.zeros((*x.shape[:2], *out), dtype), Pool()
        for _ in range(2):  # the second time in a workspace that has been used
            workspaces.run(max_pool(x, y, kernel, strides, dilations, begin, threads))
            np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", [1, 7, 8, 49, 128, 129, 400, 5000])
def test_means_of_planes(dtype, size):
    x, y = RNG.standard_normal((3, 20, size)).astype(dtype), np.empty((3, 20, 1), dtype)
    x[1, 2, 0] = np.nan
    Pool().run(mean(x, y, 2))
    wide = x.astype(np.longdouble)
    # Each number goes through at most 16 sums of a chain, 3 pairwise, one for each 128 and a division, its own rounding each.
    bound = (21 + size // 128) * np.finfo(dtype).eps / 2 * np.abs(wide).mean(axis=2, keepdims=True)
    assert np.isnan(y[1, 2, 0])
    assert np.isnan(y).sum() == 1
    assert (np.abs(y - wide.mean(axis=2, keepdims=True)) <= bound)[~np.isnan(y)].all()

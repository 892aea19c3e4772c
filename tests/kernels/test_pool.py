"""Maximum pools equal numpy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from fastconv.kernels import Windows, kind_of, max_pool
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


def test_what_the_kernels_serve_has_a_name():
    one, two = np.zeros((4, 6), "f4"), np.zeros((4, 6), "f8")
    assert (kind_of(one), kind_of(two), kind_of(one, one)) == ("f4", "f8", "f4")
    for other in ((one, two), (one.T[:, :2],), (one.astype(">f4"),), (one.astype("i4"),), (one.astype("f2"),), (one, one[:, ::2])):
        assert kind_of(*other) == ""

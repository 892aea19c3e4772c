"""Element-wise activations and products equal numpy, sigmoids within the rounding of their steps."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.kernels.operators.curves import curve
from fastconv.native.threads import Pool

RNG = np.random.default_rng(0)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 87.0, -87.0, 89.0, -89.0, 104.0, -104.0, 709.0, -709.0, 800.0, -800.0]


def ran(name, x, *arguments, threads=1, **options):
    y = np.full(x.shape, 7, x.dtype)
    Pool().run(curve(name, x, y, *arguments, threads=threads, **options))
    return y


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1, 1), (2, 5, 7, 7), (3, 2, 2, 1), (1, 4, 40, 41), (2, 64, 33, 9)])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_and_hard_curves_bit_for_bit(dtype, shape, threads):
    x, other = (4 * RNG.standard_normal(shape)).astype(dtype), RNG.standard_normal(shape).astype(dtype)
    flat = x.reshape(-1)
    flat[: len(SPECIAL)] = SPECIAL[: flat.size]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(ran("product", x, other, threads=threads), x * other)
        scale = RNG.standard_normal((*shape[:2], *(1 for _ in shape[2:]))).astype(dtype)
        np.testing.assert_array_equal(ran("scaled", x, scale, threads=threads), x * scale)
        np.testing.assert_array_equal(ran("hard_swish", x, threads=threads), x * np.clip(x / 6 + 0.5, 0, 1))
        wanted = np.clip(0.3 * x + 0.45, 0, 1)
        np.testing.assert_array_equal(ran("hard_sigmoid", x, alpha=0.3, beta=0.45, threads=threads), wanted)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sigmoids_to_their_rounding(dtype):
    x = np.concatenate([SPECIAL, RNG.uniform(-100, 100, 4000), RNG.standard_normal(4000), RNG.uniform(-750, 750, 1003)]).astype(dtype)
    with np.errstate(all="ignore"):
        exact = 1 / (1 + np.exp(-x.astype(np.longdouble)))
        unit, least = np.finfo(dtype).eps / 2, np.finfo(dtype).tiny
        # At most 4 roundings of the exponential (reduction to half an octave, polynomial), then a sum and a quotient, and
        # second-order terms.
        for got in (ran("sigmoid", x), ran("sigmoid", x, threads=2)):
            np.testing.assert_array_equal(np.isnan(got), np.isnan(x))
            assert (np.abs(got - exact) <= 7 * unit * exact + least)[~np.isnan(x)].all()
        steep = np.asarray(x.dtype.type(1.7)) * x
        exact = x * (1 / (1 + np.exp(-steep.astype(np.longdouble))))
        got = ran("swish", x, alpha=1.7)
        known = np.isfinite(exact)
        assert (np.abs(got - exact) <= 8 * unit * np.abs(exact) + least * np.abs(x))[known].all()
        assert got[2] == np.inf

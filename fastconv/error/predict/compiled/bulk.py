"""Predict the errors of many point sets at once: `predict_error` in compiled code, from the points alone.

The formulas are those of `fastconv.error.predict.model`, evaluated in float64 from floating-point points: matrices, their
rounding to the format, the Huffman trees, all roundings, and the inexact constants. They omit underflow, the range of
the formats, and the shape of the error distribution: errors count as normal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.algebra import check_dims
from fastconv.arithmetic import Policy, channel_sum_named, check_count, policy_named
from fastconv.error.predict.channels import channel_growth
from fastconv.error.predict.moments import MOMENTS, Moments
from fastconv.error.predict.rounding import mellin, modulation, sum_factor, sum_table, unit

Array = npt.NDArray[Any]

MANTISSAS = 64
KURTOSES = 24

_COARSE = 20
"""Formats of fewer bits have errors that are large compared with the results of cancellation in the output transform."""


@lru_cache(maxsize=1)
def _modulation_table() -> Array:
    """Tabulate the modulation over the excess kurtosis from -1.2 to 0, and variances from 1 to 4."""
    moments = mellin(np.linspace(-1.2, 0, KURTOSES + 1))[:, None, :]
    return modulation(moments, np.broadcast_to(np.linspace(1, 4, MANTISSAS + 1), (KURTOSES + 1, MANTISSAS + 1)))


def predict_errors(
    points: npt.ArrayLike,
    m: int,
    r: int,
    dims: int = 1,
    policy: str | Policy = "fp32",
    channels: int = 1,
    channel_sum: str = "linear",
    inputs: str | Moments = "uniform",
) -> tuple[Array, Array]:
    """Predict the errors of many point sets for F(m, r), transforms summed in Huffman order.

    Parameters
    ----------
    points : array_like, (sets, n) or (sets, n - 1)
        Finite points of each set, in the order for `toom_cook`; with n - 1 of them, infinity is
        the last point of every set.
    m, r : int
        Outputs and taps, n = m + r - 1.
    dims, policy, channels, channel_sum, inputs
        As for `predict_error`.

    Returns
    -------
    mean_abs, rms : arrays, (sets,)
        inf where points coincide. `rms` is that of `predict_error`. `mean_abs` is that of normal errors: in one dimension
        and for one channel it is 15 to 25 % too large, nearly the same for all sets of a size.

    Raises
    ------
    TypeError, ValueError
        For wrong types, shapes, names or counts.

    Examples
    --------
    >>> mean, rms = predict_errors([[0, 1, -1], [0, 1, -2]], 2, 3)
    >>> bool(mean[0] < mean[1])
    True
    """
    predict = bulk_predictor(m, r, dims, policy, channels, channel_sum, inputs)
    sets = np.ascontiguousarray(points, np.float64)
    n = m + r - 1
    if sets.ndim != 2 or sets.shape[1] not in (n, n - 1):
        raise ValueError(f"points has shape {sets.shape}: F({m},{r}) takes rows of {n} points, or of {n - 1} and infinity")
    if not np.isfinite(sets).all():
        raise ValueError("points holds numbers that are not finite: leave infinity out, and give one point less")
    return predict(sets)


def bulk_predictor(
    m: int,
    r: int,
    dims: int = 1,
    policy: str | Policy = "fp32",
    channels: int = 1,
    channel_sum: str = "linear",
    inputs: str | Moments = "uniform",
) -> Callable[[Array], tuple[Array, Array]]:
    """Return `predict_errors` as a function of points only, which it does not check; options are the same."""
    check_dims(dims)
    for name, value in (("m", m), ("r", r), ("channels", channels)):
        check_count(name, value)
    channel_sum_named(channel_sum)
    policy = policy_named(policy)
    moments = MOMENTS.get(inputs) if isinstance(inputs, str) else inputs
    if not isinstance(moments, Moments):
        raise ValueError(f"inputs is {inputs!r}: pass one of {', '.join(MOMENTS)}, or your own Moments")
    formats = (policy.output, policy.kernel, policy.input)
    bits = np.array([(policy.constants or fmt).p for fmt in formats])
    given = np.array([moments.w_variance, moments.x_variance, moments.w_kurtosis, moments.x_kurtosis])
    coarse, units = policy.output.p < _COARSE, _units(policy, channel_sum, channels)

    def predict(sets: Array) -> tuple[Array, Array]:
        from fastconv.error.predict.compiled.lanes import Case, Tables, predict_lanes

        mean, rms = np.empty(len(sets)), np.empty(len(sets))
        case = Case(m, r, dims, channels, coarse, units, bits, given)
        predict_lanes(sets, case, Tables(*_cells(moments.w_kurtosis, moments.x_kurtosis)), mean, rms)
        return mean, rms

    return predict


@lru_cache(maxsize=8)
def _cells(kurtosis_w: float, kurtosis_x: float) -> tuple[Array, ...]:
    """Return the lookup tables of the lanes: sums, sums of uncorrelated operands, modulation, at two kurtoses."""
    from fastconv.error.predict.compiled.trees import line_of, plane_of

    sums, table = sum_table(), _modulation_table()
    rows = np.linspace(-1.2, 0, len(table))
    leaves = (np.array([np.interp(k, rows, column) for column in table.T]) for k in (kurtosis_w, kurtosis_x))
    both = (sums + sums[::-1]) / 2  # the operands of a node have no order
    return plane_of(both), line_of(_uncorrelated()), plane_of(table), *map(line_of, leaves)


@lru_cache(maxsize=1)
def _uncorrelated() -> Array:
    """Tabulate `sum_factor` of uncorrelated operands over the share of the first in the variance."""
    share = np.linspace(0, 1, 257)
    return sum_factor(share, 1 - share, np.ones(257))


def _units(policy: Policy, channel_sum: str, channels: int) -> Array:
    """Return the mean squares of roundings over those of the values.

    In order: G w, BT x and AT z; storing G w and BT x; products; the channel sum of one product with its conversions.
    """
    held = policy.operands
    stored = [unit(held) if held.p < fmt.p else 0.0 for fmt in (policy.kernel, policy.input)]
    exact = 2 * min(held.p, max(policy.kernel.p, policy.input.p)) <= policy.product.p
    total, product = policy.accumulate, min(policy.product.p, 2 * held.p)
    growth = channel_growth(channel_sum, channels, min(product, total.p) - total.p)[0] / channels
    sums = growth * unit(total)
    sums += unit(total) if total.p < product else 0.0
    sums += unit(policy.output) if policy.output.p < total.p else 0.0
    return np.array([unit(policy.kernel), unit(policy.input), unit(policy.output), *stored, 0.0 if exact else unit(policy.product), sums])

"""Propagate variances through a sum over channels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.arithmetic import channel_sum_named
from fastconv.error.predict.rounding import sum_factor

Array = npt.NDArray[Any]


@lru_cache(maxsize=128)
def channel_growth(name: str, channels: int, bits: int = 0) -> tuple[float, float, float]:
    """Propagate variances through a channel sum.

    Returns
    -------
    growth : float
        Variances of the results of all additions, summed, over that of a term, with the correction for few bits.
    itself, others : float
        Mean squared correlation of the rounded sums with each other and with the whole sum, weighted by variance.
    """
    if channels == 1:
        return 0.0, 1.0, 1.0
    left, right = additions(name, channels)
    total = left[:, 1] - left[:, 0] + right[:, 1] - right[:, 0]
    a, b = (part[:, 1] - part[:, 0] for part in (left, right))
    growth = total * sum_factor(a, b, total, bits, bits)
    start, end = left[:, 0], right[:, 1]
    weight = growth / max(float(growth.sum()), 1e-300)
    few = np.linspace(0, len(start) - 1, min(len(start), 512)).astype(int)
    near = np.clip(np.minimum.outer(end, end[few]) - np.maximum.outer(start, start[few]), 0, None) ** 2
    near = near / np.multiply.outer(total, total[few])
    chosen = weight[few] / max(float(weight[few].sum()), 1e-300)
    return float(growth.sum()), float(weight @ near @ chosen), float(weight @ (total / channels))


def additions(name: str, channels: int) -> tuple[Array, Array]:
    """Return the runs of channels that each addition of a channel sum adds."""
    lefts: list[Array] = []
    rights: list[Array] = []

    def add(a: Array, b: Array) -> Array:
        lefts.append(a)
        rights.append(b)
        return np.array([a[0], b[1]])

    runs = np.stack([np.arange(channels, dtype=float), np.arange(1, channels + 1, dtype=float)], axis=1)
    channel_sum_named(name)(runs, add)
    return np.array(lefts), np.array(rights)

"""Piecewise linear activations, which a layer applies to its sums before it writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastconv.kernels.layer import Array


@dataclass(frozen=True, eq=False)
class Activation:
    """A piecewise linear activation: ``y = min(max(z if z >= 0 else slope z, low), high)``; NaN stays NaN.

    Attributes
    ----------
    slope : float or array (filters,)
        Slope below zero: 1 changes nothing; leaky and parametric rectifiers use another.
    low, high : float
        Bounds; 0 and infinity make the rectifier. With low > high every output is `high`.

    Examples
    --------
    >>> RELU(np.array([[[[-1.0, 2.0]]]])).ravel().tolist()
    [0.0, 2.0]
    """

    slope: float | Array = 1.0
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        """Reject NaN bounds, which would make every output NaN."""
        if math.isnan(self.low) or math.isnan(self.high):
            raise ValueError(f"the bounds of an activation are {self.low} and {self.high}: pass numbers or infinities")

    def __call__(self, z: Array) -> Array:
        """Apply the activation to an array (batch, filters, ...) in numpy, as the compiled form does."""
        slope = np.asarray(self.slope, z.dtype)
        slope = slope.reshape(slope.shape + (1,) * (z.ndim - 2)) if slope.ndim else slope
        with np.errstate(invalid="ignore"):  # an infinity times a slope of zero, where the slope is not used
            z = np.where(z < 0, slope * z, z)
        z = np.where(z < z.dtype.type(self.low), z.dtype.type(self.low), z)
        return np.where(z > z.dtype.type(self.high), z.dtype.type(self.high), z)

    def table(self, bias: Array) -> Array:
        """Return bias, slope, low and high of each filter: the table that the compiled layer reads."""
        record = np.empty((bias.size, 4), bias.dtype)
        with np.errstate(over="ignore"):  # bounds that overflow the format become infinite
            record[:, 0], record[:, 1], record[:, 2], record[:, 3] = bias, self.slope, self.low, self.high
        return record


RELU = Activation(low=0.0)

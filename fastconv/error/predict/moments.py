"""Moments of the inputs of a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Moments:
    """Moments of kernel and input: independent numbers of mean zero, with full significands.

    Attributes
    ----------
    w_variance, x_variance : float
        Variances of kernel and input.
    w_kurtosis, x_kurtosis : float
        Excess kurtosis: 0 for normal, -1.2 for uniform numbers.

    Examples
    --------
    >>> Moments(w_variance=0.01).x_variance
    1.0
    """

    w_variance: float = 1.0
    x_variance: float = 1.0
    w_kurtosis: float = 0.0
    x_kurtosis: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("w_variance", 0.0), ("x_variance", 0.0), ("w_kurtosis", -2.0), ("x_kurtosis", -2.0)):
            value = getattr(self, name)
            if not math.isfinite(value) or value < least or (value == least and "variance" in name):
                raise ValueError(f"{name} is {value!r}: variances are finite and positive, excess kurtosis is at least -2")


MOMENTS = {"uniform": Moments(1 / 3, 1 / 3, -1.2, -1.2), "normal": Moments()}
"""Moments of named input generators: uniform on (-1, 1), standard normal."""

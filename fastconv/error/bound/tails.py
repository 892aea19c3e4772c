"""Bound how far errors deviate from their prediction by chance; docs/error-bounds.md derives it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from fastconv.algebra import BilinearAlgorithm

_HIGHEST_MOMENT = 40
_BINADE = 8 * math.log(2) / 3
"""Largest over mean of (ulp / 2)**2 / (u m)**2: the mean is (1 - 1/4) / (2 log 2) where log |m| is uniform."""
_PREDICTED_WITHIN = 1.2


@dataclass(frozen=True)
class Tails:
    """Limits on how far the errors of a test deviate from their prediction by chance.

    Attributes
    ----------
    risk : float
        Largest probability that a limit is exceeded.
    channels : int
        Channels summed over.
    shares : mapping
        Shares in the variance by their source, as `Prediction.shares`.
    traces : tuple of float
        As for `quantile`.
    products : int
        Products of a tile, for each channel.
    """

    risk: float = 1e-9
    channels: int = 1
    shares: Mapping[str, float] = field(default_factory=dict)
    traces: tuple[float, ...] = ()
    products: int = 1

    def variance(self, tiles: int) -> float:
        """Return the limit of the rounding variance over the predicted one, averaged over one filter's tiles."""
        averaged, chi = _channel_moments(self.channels)
        traces = self.traces or (1.0,) * _HIGHEST_MOMENT
        sums, output, constants = (self.shares.get(name, 0.0) for name in ("sum", "output", "constants"))
        form, one = (_form_moments(tuple(v * float(tiles) ** -k for k, v in enumerate(t))) for t in (traces, (1.0,) * _HIGHEST_MOMENT))
        best = math.inf
        for k in range(1, _HIGHEST_MOMENT + 1):
            before, after, last = (math.exp(v / k) for v in (averaged[k], chi[k] + form[k], chi[k] + one[k]))
            size = (1 - sums - output) * before + sums * after + (output + constants) * last
            best = min(best, size * math.exp(-math.log(self.risk) / k))
        return best * self._binades(tiles)

    def scaled_variance(self, tiles: int) -> float:
        """Return the limit of the rounding variance when errors are compared with outputs of the same weights.

        The size of the weights then cancels. A quadratic form of normal variables remains, with the tail of Laurent and Massart
        (2000).
        """
        t, second, last = -math.log(self.risk) / tiles, *((self.traces or (1.0, 1.0))[k] for k in (1, -1))
        largest = last ** (1 / len(self.traces or (1.0, 1.0)))
        return float(1 + 2 * math.sqrt(second * t) + 2 * largest * t) * self._binades(tiles)

    def _binades(self, tiles: int) -> float:
        """Bound the effect of the values' positions in their binades, averaged over tiles and products (Hoeffding)."""
        return min(_BINADE, 1 + _BINADE * math.sqrt(-math.log(self.risk) / (2 * tiles * self.products)))

    def rms(self, tiles: int, scale: float = math.inf) -> float:
        """Return the limit of the root mean square over the predicted one.

        Parameters
        ----------
        tiles : int
            Number of tiles that the squares are averaged over: the degrees of freedom of a chi-square tail.
        scale : float
            Root mean square of the outputs over the expected one. Large weights and inputs give large errors and outputs, so many
            outputs indicate the size of their errors.
        """
        t = -math.log(self.risk) / tiles
        spread = 1 + 2 * math.sqrt(t) + 2 * t
        alike = self.scaled_variance(tiles) * max(1.0, scale**2) * spread
        return _PREDICTED_WITHIN * math.sqrt(min(self.variance(tiles), alike) * spread)

    def sigmas(self, positions: int) -> float:
        """Return the limit of the sum of roundings at several positions, in standard deviations."""
        return math.sqrt(2 * math.log(2 * positions / self.risk))


def quantile(probability: float, channels: int, shares: Mapping[str, float], traces: Sequence[float] = ()) -> float:
    """Return the multiple of its root mean square that an error exceeds with at most this probability.

    Parameters
    ----------
    probability : float
        Probability that the error of one output exceeds it.
    channels : int
        Channels summed over.
    shares : mapping
        Shares of ``"sum"``, ``"output"`` and ``"constants"`` in the variance; the rest is rounded before the channels
        are summed.
    traces : sequence of float
        Traces of the powers 1, 2, ... of the matrix of unit trace that describes the correlation of the sums of
        different products, see `traces_of`; by default, full correlation.

    Examples
    --------
    >>> before, after = {"sum": 0.0}, {"sum": 0.5}
    >>> 6 < quantile(1e-9, 10**6, before) < quantile(1e-9, 10**6, after) < quantile(1e-9, 1, after) < 100
    True
    """
    averaged, chi = _channel_moments(int(channels))
    sums, output, constants = (shares.get(name, 0.0) for name in ("sum", "output", "constants"))
    form = _form_moments(tuple(traces) or (1.0,) * _HIGHEST_MOMENT)
    best = math.inf
    for k in range(1, _HIGHEST_MOMENT + 1):
        normal = _log_double_factorial(k)
        before, one, several = (math.exp(v / k) for v in (averaged[k], chi[k] + normal, chi[k] + form[k]))
        variance = (1 - sums - output - constants) * before + sums * several + output * one
        size = math.sqrt(_BINADE * variance) * math.exp(normal / (2 * k)) + math.sqrt(constants * one)
        best = min(best, size * math.exp(-math.log(probability) / (2 * k)))
    return best


@lru_cache(maxsize=64)
def _channel_moments(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return logarithms of the moments of order k of two variables with mean one.

    The first is the mean over the channels of ``(g h)**2``, g and h normal: the variance of roundings before the sum. The
    second is the mean over the channels of ``g**2``: the effect of the weights on the square of a sum.
    """
    order = _HIGHEST_MOMENT
    # Moments of a sum of independent variables: their exponential generating functions multiply.
    power = np.array([math.exp(2 * _log_double_factorial(k) - math.lgamma(k + 1)) for k in range(order + 1)])
    result, left = np.eye(1, order + 1)[0], channels
    while left:
        if left & 1:
            result = np.convolve(result, power)[: order + 1]
        left >>= 1
        if left:
            power = np.convolve(power, power)[: order + 1]
    averaged = [math.log(result[k]) + math.lgamma(k + 1) - k * math.log(channels) for k in range(order + 1)]
    chi = np.cumsum([0.0, *(math.log1p(2 * i / channels) for i in range(order))])
    return tuple(averaged), tuple(chi.tolist())


@lru_cache(maxsize=64)
def _form_moments(traces: tuple[float, ...]) -> list[float]:
    """Return logarithms of the moments of ``sum_j l_j g_j**2`` from the power sums of l, by its cumulants."""
    moments = [1.0]
    for k in range(1, len(traces) + 1):
        terms = (math.exp(math.lgamma(k) - math.lgamma(i + 1)) * 2.0 ** (k - 1 - i) * traces[k - i - 1] * moments[i] for i in range(k))
        moments.append(math.fsum(terms))
    return [math.log(v) for v in moments]


def traces_of(axes: Sequence[BilinearAlgorithm]) -> tuple[float, ...]:
    """Return the largest traces over all outputs of the powers of ``sqrt(q_j q_k) |corr(V_j, V_k)|``.

    q_j is the share of product j in the variance of an output from rounding the channel sums, V = BT x. In two
    dimensions the matrix is a Kronecker product, so its traces are products.
    """
    every = [_traces(alg) for alg in axes]
    return tuple(math.prod(powers) for powers in zip(*every, strict=True))


@lru_cache(maxsize=64)
def _traces(alg: BilinearAlgorithm) -> tuple[float, ...]:
    A, G, B = (np.array([[float(e) for e in row] for row in matrix]) for matrix in (alg.AT, alg.G, alg.BT))
    shares = A**2 * (G**2).sum(axis=1) * (B**2).sum(axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    lengths = np.sqrt((B**2).sum(axis=1))
    together = np.abs(B @ B.T) / np.multiply.outer(lengths, lengths)
    values = np.linalg.eigvalsh(np.sqrt(shares[:, :, None] * shares[:, None, :]) * together)
    # Trace of the j-th power; entries are magnitudes, so no trace is negative.
    return tuple(float((values**j).sum(axis=1).max()) for j in range(1, _HIGHEST_MOMENT + 1))


def _log_double_factorial(k: int) -> float:
    """Return log (2k - 1)!!, the k-th moment of the square of a normal variable."""
    return math.lgamma(2 * k + 1) - math.lgamma(k + 1) - k * math.log(2)

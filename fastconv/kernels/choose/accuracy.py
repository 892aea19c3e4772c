"""Predict a layer's relative error in closed form, for `algorithm="auto"`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm, identity
from fastconv.arithmetic import Policy, Setting
from fastconv.error import MOMENTS, channel_growth
from fastconv.error import relative_error as predicted
from fastconv.kernels.choose.cut import DIRECT_CHAIN
from fastconv.native import machine, remembered

Axes = Sequence[BilinearAlgorithm]

POLICY = Policy("fp64", "fp32", "fp32", "fp32", "fp32")
"""Arithmetic of a plan: the kernel transform in float64, rounded once; everything else in the format of the arrays."""

_FUSED = Policy("fp64", "fp64", "fp64", "fp32", "fp64")
"""Arithmetic of a direct convolution with fused multiply-adds: the products themselves are not rounded."""

_MANY = 64
"""Channels of a second prediction: the mean square of the error is linear in the growth of the channel sum."""


def relative_error(axes: Axes | None, channels: int, kernel: tuple[int, ...], dtype: Any = np.float32) -> float:
    """Return the expected relative L2 error of a layer on independent normal numbers.

    Parameters
    ----------
    axes : sequence of BilinearAlgorithm, or None
        One per axis, where an axis of one tap does not count; None for direct convolution.
    channels : int
        Input channels per group.
    kernel : tuple of int
        Taps along each axis.
    dtype : dtype
        float32, or float64, whose error is that of float32 scaled by the ratio of the machine epsilons.

    Examples
    --------
    >>> from fastconv import algorithm
    >>> f4, f6 = (relative_error((algorithm(name),) * 2, 64, (3, 3)) for name in ("F(4x4,3x3)", "F(6x6,3x3)"))
    >>> relative_error(None, 64, (3, 3)) < f4 < f6
    True
    """
    scale = float(np.finfo(dtype).eps / np.finfo(np.float32).eps)
    if not axes:
        return scale * _direct(channels * math.prod(kernel))
    alone, growing = _parts(tuple(alg for alg in axes if alg.n > 1))
    return scale * math.sqrt(alone + growing * _growth(channels))


def order_of(alg: BilinearAlgorithm) -> str:
    """Return the default summation order: repeated terms are shared, and fused where the CPU can."""
    return "huffman+shared" + "+folded" * (alg.products > alg.n) + "+fma" * machine().fma


@lru_cache(maxsize=1024)
def _parts(axes: tuple[BilinearAlgorithm, ...]) -> tuple[float, float]:
    """Return the mean square error for one channel, and its slope over channel growth."""
    order = max(map(order_of, axes), key=len)
    one, growing = _errors(tuple(alg.to_json() for alg in axes), order)
    return one, growing


@remembered
def _errors(texts: tuple[str, ...], order: str) -> tuple[float, ...]:
    axes = [BilinearAlgorithm.from_json(text) for text in texts]
    one, many = (predicted(axes, Setting(POLICY, order, channels, "blocked"), MOMENTS["normal"]) ** 2 for channels in (1, _MANY))
    return one, (many - one) / _growth(_MANY)


def _growth(channels: int) -> float:
    """Return the variance of all rounded sums over channels, divided by that of the total."""
    return _grown(channels)[0] / channels


@lru_cache(maxsize=1024)
@remembered
def _grown(channels: int) -> tuple[float, ...]:
    return (channel_growth("blocked", channels)[0],)


def _direct(terms: int) -> float:
    """Return the relative error of chains of multiply-adds whose sums are added in order."""
    count, policy = min(terms, DIRECT_CHAIN), _FUSED if machine().fma else POLICY
    chain = _chain(count, policy)
    chains = -(-terms // DIRECT_CHAIN)
    # A chain rounds the sums of 1, 2, ... products; the total rounds the sums of 2, 3, ... chains.
    return chain * math.sqrt(1 + ((chains + 1) / 2 - 1 / chains) / ((count + 1) / 2))


@lru_cache(maxsize=DIRECT_CHAIN)
def _chain(products: int, policy: Policy) -> float:
    return _chain_error(products, policy)[0]


@remembered
def _chain_error(products: int, policy: Policy) -> tuple[float, ...]:
    return (predicted((identity(),) * 2, Setting(policy, "huffman", products, "linear"), MOMENTS["normal"]),)

"""The relative error of a layer by the closed form: what `algorithm="auto"` holds against `max_error`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastconv.algebra import BilinearAlgorithm, toom_cook
from fastconv.arithmetic import Policy, Setting
from fastconv.error import MOMENTS
from fastconv.error import relative_error as predicted
from fastconv.kernels.layer import Layer
from fastconv.native import machine

Axes = tuple[BilinearAlgorithm, BilinearAlgorithm]

POLICY = Policy("fp64", "fp32", "fp32", "fp32", "fp32")
"""What a plan does: the kernel transform in float64, rounded once; everything else in the format of the arrays."""


def relative_error(layer: Layer, axes: Axes | None) -> float:
    """Return the predicted relative L2 error of a layer, for normal inputs.

    An axis of one tap has no say. float64 errs as float32 does, on its own scale.
    """
    depth = layer.channels // layer.groups
    scale = float(np.finfo(layer.dtype).eps / np.finfo(np.float32).eps)
    if axes is None:
        return scale * _one((toom_cook(1, 1, [0]),), _rounded_up(depth * layer.kernel[0] * layer.kernel[1]))
    return scale * _one(tuple(alg for alg in axes if alg.n > 1), _rounded_up(depth))


def order_of(alg: BilinearAlgorithm) -> str:
    """Return the order of summation that a layer runs an algorithm in, unless told: what repeats is shared, and fused where it can be."""
    return "huffman+shared" + "+folded" * (alg.products > alg.n) + "+fma" * machine().fma


def _rounded_up(channels: int) -> int:
    """Round up to a power of two: the error grows little with the channels, and a network has few powers of two."""
    return 1 << (channels - 1).bit_length()


@lru_cache(maxsize=1024)
def _one(axes: tuple[BilinearAlgorithm, ...], channels: int) -> float:
    order = max(map(order_of, axes), key=len)
    return predicted(axes, Setting(POLICY, order, channels, "blocked"), MOMENTS["normal"])

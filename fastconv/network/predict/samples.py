"""Draw samples of a convolution: windows of its input and some of its kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.error import Sample
from fastconv.network.graph.graph import Array

TILES = 64
KERNELS = 32
"""Sample sizes: 2048 pairs, each with all channels and some outputs."""


def windows(
    x: Array, size: Sequence[int], steps: Sequence[int], count: Sequence[int], dilations: Sequence[int] = (1, 1), seed: int = 0
) -> Array:
    """Draw windows of images, ``(windows, channels, rows, columns)``.

    Parameters
    ----------
    x : array, (N, C, H, W)
    size, steps, dilations : pair of int
        Size of a window, distance between windows, and distance between entries of a window, down and across.
    count : pair of int
        Number of windows down and across; zeros follow the end of the image.
    """
    beyond = [
        max(0, (many - 1) * step + (length - 1) * apart + 1 - have)
        for many, step, length, apart, have in zip(count, steps, size, dilations, x.shape[2:], strict=True)
    ]
    x = np.pad(x, [(0, 0), (0, 0), *((0, more) for more in beyond)])
    everywhere = (len(x), *count)
    total = int(np.prod(everywhere))
    chosen = np.random.default_rng(seed).choice(total, min(TILES, total), replace=False)
    image, down, across = np.unravel_index(chosen, everywhere)
    rows, columns = (
        begin[:, None] * step + np.arange(length) * apart
        for begin, step, length, apart in zip((down, across), steps, size, dilations, strict=True)
    )
    return np.moveaxis(x[image[:, None, None], :, rows[:, :, None], columns[:, None, :]], -1, 1)


def some(kernels: Array, seed: int = 0) -> Array:
    """Draw some of the kernels."""
    return kernels[np.random.default_rng(seed).choice(len(kernels), min(KERNELS, len(kernels)), replace=False)]


def sample_for(x: Array, weight: Array, m: int, stride: int = 1) -> Sample:
    """Return the sample of a convolution for F(m x m, r x r), with its tiles on a padded input."""
    r, step = weight.shape[3], m * stride
    count = [-(-((length - r) // stride + 1) // m) for length in x.shape[2:]]
    return Sample(some(weight), windows(x, (step - stride + r,) * 2, (step, step), count), stride)

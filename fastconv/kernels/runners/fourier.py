"""Run a convolution by the discrete Fourier transform: only a baseline for large kernels."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.layer import Array, Layer, check_bytes

_TOGETHER = 16
"""Planes transformed in one call. scipy vectorises over planes, and on some CPUs the remainder rounds differently. Fixed
groups of planes give the same bits for any number of threads."""


class FourierRunner:
    """Runs any layer by transforms of scipy.fft and one product per frequency.

    A non-finite input spreads to all outputs of its image and group, as every frequency contains it.
    """

    adds = False

    def __init__(self, layer: Layer, weight: Array, bias: Array | None, threads: int, activation: Activation | None = None) -> None:
        import scipy.fft

        self.layer, self.threads, self.activation = layer, threads, activation
        (top, bottom), (left, right) = layer.padding
        padded = (layer.height + top + bottom, layer.width + left + right)
        self.shape = tuple(scipy.fft.next_fast_len(size, real=True) for size in padded)
        frequencies = self.shape[0] * (self.shape[1] // 2 + 1)
        per_frequency = 2 * weight.itemsize * layer.batch * 2 * (layer.channels + layer.filters)
        self.workspace_bytes = frequencies * per_frequency
        check_bytes("a workspace", self.workspace_bytes)
        check_bytes("transformed weights", frequencies * 2 * weight.nbytes // (weight.shape[2] * weight.shape[3]))
        spread = np.zeros((*weight.shape[:2], *(d * (r - 1) + 1 for d, r in zip(layer.dilation, layer.kernel, strict=True))), weight.dtype)
        spread[:, :, :: layer.dilation[0], :: layer.dilation[1]] = weight
        # Correlation is convolution with the conjugate transform.
        spectrum = np.conj(self._transformed(scipy.fft.rfft2, spread))
        g, taken = layer.groups, layer.channels // layer.groups
        self.weights = np.ascontiguousarray(
            spectrum.reshape(g, layer.filters // g, taken, -1).transpose(3, 0, 1, 2)
        )  # (frequency, group, filter, channel)
        self.bias = np.zeros(layer.filters, layer.dtype) if bias is None else bias.copy()
        self.weight_bytes = self.weights.nbytes

    def __call__(self, x: Array, y: Array) -> None:
        """Transform, multiply, transform back, and keep every stride-th output."""
        import scipy.fft

        layer = self.layer
        padded = np.pad(x, ((0, 0), (0, 0), *layer.padding))
        spectrum = self._transformed(scipy.fft.rfft2, padded)
        columns = spectrum.shape[-1]
        spectrum = spectrum.reshape(layer.batch, layer.groups, -1, self.weights.shape[0]).transpose(3, 1, 2, 0)
        product = self.weights @ spectrum  # (frequency, group, filter, image)
        product = product.transpose(3, 1, 2, 0).reshape(layer.batch, layer.filters, -1, columns)
        full = self._transformed(scipy.fft.irfft2, product)
        (h, w), (sh, sw) = layer.output, layer.stride
        np.add(full[:, :, : (h - 1) * sh + 1 : sh, : (w - 1) * sw + 1 : sw], self.bias[:, None, None], out=y)
        if self.activation is not None:
            y[...] = self.activation(y)

    def _transformed(self, transform: Callable[..., Any], x: Array) -> Array:
        """Transform the last two axes, some planes per call, in the plan's threads."""
        planes = x.reshape(-1, *x.shape[2:])
        parts = [planes[k : k + _TOGETHER] for k in range(0, len(planes), _TOGETHER)]
        one: Callable[[Array], Any] = lambda part: transform(part, self.shape, workers=1)
        if self.threads == 1 or len(parts) == 1:
            done = [one(part) for part in parts]
        else:
            with ThreadPoolExecutor(min(self.threads, len(parts))) as pool:
                done = list(pool.map(one, parts))
        whole = np.concatenate(done) if done else one(planes)
        return np.asarray(whole).reshape(*x.shape[:2], *whole.shape[1:])

    def job(self, x: Array, y: Array, adding: bool = False) -> None:
        """Return None: scipy runs the transforms."""

    def details(self) -> list[str]:
        """Return the size of the transform, as a line for `Plan.explain`."""
        return [f"transforms of {self.shape[0]} x {self.shape[1]}"]

"""Convolution by the discrete Fourier transform: the yardstick for large kernels, no more."""

from __future__ import annotations

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.layer import Array, Layer, check_bytes


class FourierRunner:
    """Transforms of scipy.fft, a product a frequency, any stride, dilation and groups."""

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
        spectrum = np.conj(scipy.fft.rfft2(spread, self.shape, workers=threads))
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
        spectrum = scipy.fft.rfft2(padded, self.shape, workers=self.threads)
        columns = spectrum.shape[-1]
        spectrum = spectrum.reshape(layer.batch, layer.groups, -1, self.weights.shape[0]).transpose(3, 1, 2, 0)
        product = self.weights @ spectrum  # (frequency, group, filter, image)
        product = product.transpose(3, 1, 2, 0).reshape(layer.batch, layer.filters, -1, columns)
        full = scipy.fft.irfft2(product, self.shape, workers=self.threads)
        (h, w), (sh, sw) = layer.output, layer.stride
        np.add(full[:, :, : (h - 1) * sh + 1 : sh, : (w - 1) * sw + 1 : sw], self.bias[:, None, None], out=y)
        if self.activation is not None:
            y[...] = self.activation(y)

    def job(self, x: Array, y: Array, adding: bool = False) -> None:
        """Return None: the transforms are scipy's."""

    def details(self) -> list[str]:
        """Say the size of the transform."""
        return [f"transforms of {self.shape[0]} x {self.shape[1]}"]

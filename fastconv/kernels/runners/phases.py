"""Run stride-2 layers as stride-1 layers, with each phase of the image as a channel.

A phase is every second row and column. The kernel has half the taps per axis, and fast algorithms apply. 7x7 taps at
stride two become 4x4 taps with four times the channels, for which F(3x3,4x4) needs a third of the multiplications.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.choose.method import Method
from fastconv.kernels.layer import Array, Layer, check_bytes
from fastconv.kernels.records import PHASES, ROWS
from fastconv.kernels.runners.plan import BlockRunner
from fastconv.native import COUNTER, KIND, NOTHING, Job, Pool, compiled, described, machine, round_up


def phase_weights(layer: Layer, weight: Array) -> Array:
    """Return the weights of `layer.phased`, phase after phase, zero-padded."""
    apart = by_phase(weight, layer.stride).transpose(0, 3, 5, 1, 2, 4)
    return np.ascontiguousarray(apart).reshape(layer.filters, -1, *layer.phased.kernel)


def by_phase(weight: Array, stride: tuple[int, ...]) -> Array:
    """Return taps (.., .., rows, columns) as (.., .., rows / stride, stride, columns / stride, stride), zero-padded."""
    kh, kw = (-(-taps // s) for taps, s in zip(weight.shape[2:], stride, strict=True))
    whole = np.zeros((*weight.shape[:2], kh * stride[0], kw * stride[1]), weight.dtype)
    whole[:, :, : weight.shape[2], : weight.shape[3]] = weight
    return whole.reshape(*weight.shape[:2], kh, stride[0], kw, stride[1])


class PhasedRunner:
    """Splits the image into phases, then runs the stride-1 layer on them."""

    adds = True

    def __init__(
        self,
        layer: Layer,
        method: Method,
        weight: Array,
        bias: Array | None,
        order: str,
        threads: int,
        activation: Activation | None = None,
    ) -> None:
        inner = layer.phased
        self._runner = BlockRunner(inner, replace(method, phases=False), phase_weights(layer, weight), bias, order, threads, activation)
        size, (top, left), v = layer.dtype.itemsize, (layer.padding[0][0], layer.padding[1][0]), machine().vector_bytes
        (sh, sw), (rows, columns) = layer.stride, (inner.height, inner.width)
        reach = max(left + layer.width, columns * sw)
        pitch, held = round_up((reach + sw) * size + 2 * v * sw, 64), round_up(columns * size + v, 64)
        self._description = described(
            PHASES,
            channels=layer.channels,
            height=layer.height,
            width=layer.width,
            top=top,
            left=left,
            stride=sh,
            rows=rows,
            columns=columns,
            pitch=pitch,
            result=ROWS * pitch,
        )
        self._function = compiled("kernels.phases.phases", KIND[size], sw)
        self._items, self._room = layer.batch * layer.channels * sh, ROWS * pitch + held
        self._between = round_up(layer.batch * inner.channels * rows * columns * size + v, 64)
        check_bytes("the phases of the image", self._between)
        self.pool, self.threads = Pool(), threads
        self.workspace_bytes = max(self._runner.workspace_bytes, COUNTER + self._room * threads) + self._between
        self.weight_bytes = self._runner.weight_bytes
        self.template = self.job(NOTHING, NOTHING)

    def __call__(self, x: Array, y: Array) -> None:
        """Split the image and run the layer."""
        self.pool.run(self.template, x, y)

    def job(self, x: Array, y: Array, adding: bool = False) -> Job:
        """Return the job of the layer, preceded by the split into phases."""
        first = Job(self._function, self._description, self._items, (None, None, None, None), min(self.threads, self._items), self._room)
        return replace(self._runner.job(x, y, adding), first=first, between=self._between)

    def details(self) -> list[str]:
        """Return how the layer runs, as lines for `Plan.explain`."""
        return [f"the phases of the image laid out as channels: {self._between} bytes", *self._runner.details()]

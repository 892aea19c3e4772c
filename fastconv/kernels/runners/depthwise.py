"""Run depthwise layers, with vectors along the rows of a plane.

A matrix product of one row and one column reuses nothing in registers. Here the taps stay in registers, and each
output is the same chain of multiply-adds over the taps as in im2col.
"""

from __future__ import annotations

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.choose.cut import DIRECT_CHAIN
from fastconv.kernels.layer import Array, Layer, check_bytes
from fastconv.kernels.records import DEPTHWISE
from fastconv.kernels.runners.plan import OneJob
from fastconv.native import APART, COUNTER, KIND, NOTHING, Job, Pool, compiled, described, lanes_of, round_up


def fits(layer: Layer) -> bool:
    """Return whether a layer is depthwise, with few enough taps and a supported stride."""
    taps = layer.kernel[0] * layer.kernel[1]
    return 1 < layer.groups == layer.channels and taps <= DIRECT_CHAIN and layer.stride[1] in (1, 2)


class DepthwiseRunner(OneJob):
    """Runs a depthwise layer, plane by plane."""

    adds = False

    def __init__(self, layer: Layer, weight: Array, bias: Array | None, threads: int, activation: Activation | None = None) -> None:
        kind = KIND[layer.dtype.itemsize]
        lanes, size = lanes_of(kind), layer.dtype.itemsize
        (top, bottom), (left, right) = layer.padding
        offsets = tuple(k * layer.dilation[1] for k in range(layer.kernel[1]))
        pitch = round_up((left + layer.width + right + lanes * (layer.stride[1] + 1)) * size, 64)
        plane = (top + layer.height + bottom) * pitch + pitch
        self.items = layer.batch * layer.channels
        self.members, self.each = max(1, min(threads, self.items)), plane + APART
        check_bytes("a workspace", self.each * self.members)
        bias = np.zeros(layer.filters, layer.dtype) if bias is None else bias.copy()
        self.record = bias if activation is None else activation.table(bias)
        self.weights = np.ascontiguousarray(weight).reshape(layer.filters, -1)
        self.description = described(
            DEPTHWISE,
            channels=layer.channels,
            filters=layer.filters // layer.groups,
            height=layer.height,
            width=layer.width,
            out_height=layer.output[0],
            out_width=layer.output[1],
            top=top,
            left=left,
            pitch=pitch,
            down=layer.stride[0],
            apart=layer.dilation[0],
            spill=plane,
        )
        self.function = compiled("kernels.depthwise.planes", kind, layer.stride[1], layer.kernel[0], offsets, int(activation is not None))
        self.pool = Pool(clean=True)
        self.workspace_bytes = COUNTER + self.members * self.each
        self.weight_bytes = self.weights.nbytes
        self.template = self.job(NOTHING, NOTHING)

    def job(self, x: Array, y: Array, adding: bool = False) -> Job:
        """Return the job, one item per plane, in a workspace with zeros around the plane."""
        arrays = (x, self.weights, self.record, y)
        return Job(self.function, self.description, self.items, arrays, self.members, self.each, clean=True)

    def details(self) -> list[str]:
        """Say how the layer is cut."""
        return [f"{self.items} planes, the taps in registers"]

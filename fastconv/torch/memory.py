"""State of a converted layer between calls: a copy of its weights, and the plans made from them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.kernels import Layer, Plan, layer_of, plan_conv1d, plan_conv2d
from fastconv.native import Kept, threads_of
from fastconv.network.graph import Array
from fastconv.network.operators import Call, in_a_plane
from fastconv.network.precision import Emulation, Extents, Precision, Scales, Shape, emulation_on, split_policy
from fastconv.torch.how import How, how_of

_PLANS = 4
"""Most input shapes for which a layer caches transformed weights."""

_UNLIMITED = 2**62
"""Limit in bytes that is never reached: PyTorch has none."""


class Geometry(NamedTuple):
    """Stride, padding and dilation of a convolution, one number per axis, and its groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class Bits:
    """A copy of an array's bits."""

    def __init__(self, array: Array | None) -> None:
        self.layout = _layout(array)
        self.bits = None if array is None else bytearray(array.ravel("K"))

    def are_of(self, array: Array | None) -> bool:
        """Return whether an array still has these bits; NaN equals itself."""
        # A bytearray comparison has the speed of memcmp, twice that of numpy.
        return self.layout == _layout(array) and (array is None or bool(self.bits == array.ravel("K")))


@dataclass(frozen=True, eq=False)
class Weights:
    """A copy of the weights at some call, with the plans and emulations made from them."""

    weight: Bits
    bias: Bits
    made: Kept = field(default_factory=lambda: Kept(_PLANS))


class Memory:
    """Runs a layer, and caches its plans while the weights stay the same, bit for bit.

    Addresses and version counters do not show every change: ``weight.data`` and arrays that share the memory bypass them, and a
    new tensor may have the address of an old one.
    """

    def __init__(self) -> None:
        self._weights: Weights | None = None
        self._lock = threading.Lock()
        self.extents = Extents()

    def __call__(self, x: Array, weight: Array, bias: Array | None, geometry: Geometry, how: str) -> Array:
        """Convolve an input with or without a batch axis."""
        read = how_of(how)
        weights = self._weights_of(weight, bias, read.frozen)
        if read.policy is None:
            plan: Plan = weights.made.get((x.shape, geometry, how), lambda: _plan(x.shape, weight, bias, geometry, read))
            return plan(x)
        threads, layer = threads_of(read.threads), layer_of(weight, bias, *geometry, x.shape)
        images = x.reshape(layer.batch, layer.channels, layer.height, layer.width)
        images = np.pad(images, [(0, 0), (0, 0), *layer.padding]) if any(geometry.padding) else np.ascontiguousarray(images)
        emulation: Emulation = weights.made.get((geometry, how), lambda: _emulation(images, weight, bias, layer, read))
        y, reached = emulation(images, threads)
        with self._lock:
            self.extents.join(reached)
        return y.reshape(*x.shape[: 1 - weight.ndim], layer.filters, *layer.output[4 - weight.ndim :])

    def in_a_plane(self, x: Array, weight: Array, bias: Array | None, attributes: dict[str, Any], how: str, transposed: bool) -> Array:
        """Run a 3-D or transposed convolution in a policy, directly, as a convolution of images."""
        read = how_of(how)
        weights = self._weights_of(weight, bias, read.frozen)
        flat = in_a_plane("ConvTranspose" if transposed else "Conv", Call(attributes, 17, 1, _UNLIMITED), x, weight)
        shape = Shape(flat.view.strides, flat.view.dilations, int(attributes["group"]))  # type: ignore[arg-type]
        policy, balanced = split_policy(read.policy or "fp32")
        threads = threads_of(read.threads)
        make = lambda: emulation_on(flat.x, flat.weight, bias, shape, None, Precision(policy, read.channel_sum, balanced), threads)
        y, reached = weights.made.get((shape, how), make)(flat.x, threads)
        with self._lock:
            self.extents.join(reached)
        return flat.restored(y)

    def _weights_of(self, weight: Array, bias: Array | None, frozen: bool) -> Weights:
        weights = self._weights  # read once: another thread may see other weights
        if weights is None or not (frozen or weights.weight.are_of(weight) and weights.bias.are_of(bias)):
            weights = self._weights = Weights(Bits(weight), Bits(bias))
        return weights

    @property
    def scales(self) -> Scales:
        """Powers of two that scale an emulated layer."""
        made = None if self._weights is None else self._weights.made.last()
        return made.scales if isinstance(made, Emulation) else Scales()


def _layout(array: Array | None) -> Any:
    return None if array is None else (array.dtype, array.shape, array.strides)


def _plan(shape: tuple[int, ...], weight: Array, bias: Array | None, geometry: Geometry, how: How) -> Plan:
    make: Callable[..., Plan] = plan_conv1d if weight.ndim == 3 else plan_conv2d
    return make(weight, bias, *geometry, input_shape=shape, algorithm=how.algorithm, threads=how.threads)


def _emulation(images: Array, weight: Array, bias: Array | None, layer: Layer, how: How) -> Emulation:
    assert how.policy is not None
    taps = weight.reshape(*weight.shape[:2], *layer.kernel)
    policy, balanced = split_policy(how.policy)
    algorithm = how.algorithm if isinstance(how.algorithm, BilinearAlgorithm) else None
    shape = Shape(layer.stride, layer.dilation, layer.groups)
    return emulation_on(images, taps, bias, shape, algorithm, Precision(policy, how.channel_sum, balanced), threads_of(how.threads))

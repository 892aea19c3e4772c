"""A convolution layer: its checked arguments and the shapes derived from them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = int | Sequence[int]


LARGEST_ALLOCATION = 2**32
"""Largest allocation in bytes; more is rejected, as it comes from a mistake."""

LARGEST_TENSOR = 2**40
"""Largest padded input or output in bytes; kernels count in 64 bits, and no machine has so much memory."""


@dataclass(frozen=True)
class Layer:
    """A 2-D convolution layer; a 1-D layer has height one.

    Attributes
    ----------
    dtype : numpy dtype
        float32 or float64.
    batch, channels, height, width : int
        Sizes of the input.
    filters : int
        Output channels.
    kernel, stride, dilation : (int, int)
        Along height and width.
    padding : ((int, int), (int, int))
        Zeros above and below, left and right.
    groups : int
        Groups of channels, each convolved separately.
    blocks : (bool, bool)
        Whether input and output use the channels-blocked layout, one block per vector of channels:
        (batch, channels / lanes, height, width, lanes).
    cold : bool
        Whether the weights come from memory in each call: other layers run in between.
    """

    dtype: np.dtype[Any]
    batch: int
    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int
    blocks: tuple[bool, bool] = (False, False)
    cold: bool = False

    @cached_property
    def output(self) -> tuple[int, int]:
        """Height and width of the output."""
        sizes = []
        for size, r, s, (before, after), d in zip(
            (self.height, self.width), self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            sizes.append((size + before + after - d * (r - 1) - 1) // s + 1)
        return sizes[0], sizes[1]

    @property
    def has_phases(self) -> bool:
        """Whether the layer can run as a stride-1 layer whose channels are the phases of its stride."""
        longer = all(r > s for r, s in zip(self.kernel, self.stride, strict=True) if s > 1)
        return longer and max(self.stride) == 2 and self.dilation == (1, 1) and self.groups == 1

    @property
    def phased(self) -> Layer:
        """The stride-1 layer, without padding, whose channels are the phases of this layer's input."""
        kernel = tuple(-(-r // s) for r, s in zip(self.kernel, self.stride, strict=True))
        height, width = (out + r - 1 for out, r in zip(self.output, kernel, strict=True))
        channels, none = self.channels * self.stride[0] * self.stride[1], ((0, 0), (0, 0))
        shape, one = (self.dtype, self.batch, channels, height, width, self.filters), (1, 1)
        return Layer(*shape, (kernel[0], kernel[1]), one, none, one, 1, cold=self.cold)

    @property
    def multiplications(self) -> int:
        """Products of the direct convolution."""
        h, w = self.output
        return self.batch * self.filters * h * w * (self.channels // self.groups) * self.kernel[0] * self.kernel[1]


_KINDS = {np.dtype(np.float32): "f4", np.dtype(np.float64): "f8"}
_PLAIN = 0x101
"""Required numpy flags: C order, aligned."""


def kind_of(*arrays: Array) -> str:
    """Return the kernels' name of the arrays' common format, or "" if they do not support it."""
    kind = arrays[0].dtype
    for a in arrays:
        if a.dtype != kind or a.flags.num & _PLAIN != _PLAIN:
            return ""
    return _KINDS.get(kind, "")


def array_of(name: str, value: Any, rank: int | None = None) -> Array:
    """Return an aligned float array in C order, copied only if needed."""
    array = np.asarray(value)
    if array.dtype.type not in (np.float32, np.float64):
        reason = (
            "products of integers would overflow or become inexact silently"
            if array.dtype.kind in "iub"
            else "the kernels do not support complex numbers"
            if array.dtype.kind == "c"
            else "the kernels compute in these two formats only"
        )
        raise TypeError(f"{name} is of dtype {array.dtype}: {reason}; pass float32 or float64, as with {name}.astype('float32')")
    if rank is not None and array.ndim not in ((rank - 1, rank) if name == "input" else (rank,)):
        sizes = {3: "length", 4: "height, width"}[rank]
        takes = (
            f"{rank}, (batch, channels, {sizes}), or {rank - 1}, (channels, {sizes})"
            if name == "input"
            else f"{rank}, (filters, channels / groups, {sizes})"
        )
        raise ValueError(f"{name} has {array.ndim} dimensions, {_shape(array.shape)}: it takes {takes}")
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def check_bytes(what: str, size: int) -> None:
    """Reject an allocation of an impossible size."""
    if size > LARGEST_ALLOCATION:
        raise ValueError(f"the layer needs {what} of {size} bytes, more than {LARGEST_ALLOCATION}: split the batch or the channels")


def layer_of(
    weight: Array, bias: Array | None, stride: Ints, padding: Ints | str, dilation: Ints, groups: int, input_shape: Sequence[int]
) -> Layer:
    """Return the layer of checked arguments; `weight` and `bias` come from `array_of`."""
    dims = weight.ndim - 2
    shape = _integers("input_shape", input_shape, None)
    if len(shape) not in (dims + 1, dims + 2):
        given = f"input_shape {_shape(shape)} has {len(shape)} numbers"
        raise ValueError(f"{given}: a {dims}-D layer takes {dims + 2}, as in input.shape, or {dims + 1} without a batch")
    shape = (1, *shape) if len(shape) == dims + 1 else shape
    strides, dilations = _axes("stride", stride, dims, 1), _axes("dilation", dilation, dims, 1)
    groups = _integers("groups", [groups], 1)[0]
    filters, taken = weight.shape[0], weight.shape[1]
    kernel = weight.shape[2:]
    if 0 in weight.shape:
        raise ValueError(f"weight {_shape(weight.shape)} is empty: a layer has at least one filter, one channel and one tap")
    if shape[0] < 0 or any(s < 1 for s in shape[1:]):
        raise ValueError(f"input {_shape(shape)} is empty: only the batch may be 0; channels and sizes are at least 1")
    if shape[1] % groups or filters % groups:
        raise ValueError(f"{shape[1]} channels and {filters} filters do not divide into {groups} groups: both are multiples of groups")
    if shape[1] // groups != taken:
        given = f"input has {shape[1]} channels, weight {_shape(weight.shape)} takes {taken * groups}"
        raise ValueError(f"{given}: weight.shape[1] times groups is the number of channels")
    if bias is not None and bias.shape != (filters,):
        raise ValueError(f"bias has shape {_shape(bias.shape)}: it holds one number per filter, ({filters},)")
    if bias is not None and bias.dtype != weight.dtype:
        raise TypeError(f"bias is {bias.dtype}, weight {weight.dtype}: they have the same dtype")
    pads = _paddings(padding, kernel, strides, dilations, dims)
    padded = tuple(size + before + after for size, (before, after) in zip(shape[2:], pads, strict=True))
    for axis, (size, r, d) in enumerate(zip(padded, kernel, dilations, strict=True), 2):
        if (reach := d * (r - 1) + 1) > size:
            raise ValueError(f"the kernel reaches over {reach} along axis {axis}, more than the padded input, {size}: pad more")
    # A stride longer than the input gives one output like any other, and dilation has no effect on a single tap.
    strides = tuple(min(s, size) for s, size in zip(strides, padded, strict=True))
    dilations = tuple(d if r > 1 else 1 for d, r in zip(dilations, kernel, strict=True))
    # In one dimension the height is one, and so are kernel, stride and dilation along it.
    (batch, channels, *sizes), none = shape, 2 - dims
    height, width = [1] * none + sizes
    (kh, kw), (sh, sw), (dh, dw) = ((*(1,) * none, *numbers) for numbers in (kernel, strides, dilations))
    ph, pw = [(0, 0)] * none + [*pads]
    layer = Layer(weight.dtype, batch, channels, height, width, filters, (kh, kw), (sh, sw), (ph, pw), (dh, dw), groups)
    for what, numbers in (("padded input", (channels, *padded)), ("output", (filters, *layer.output[none:]))):
        if (size := max(batch, 1) * math.prod(numbers) * weight.dtype.itemsize) > LARGEST_TENSOR:
            given = f"the {what} {_shape((batch, *numbers))} takes {size} bytes"
            raise ValueError(f"{given}, more than {LARGEST_TENSOR}: pass less padding, or a smaller input")
    return layer


def _paddings(
    padding: Ints | str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], dims: int
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * dims
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError(
                f"padding is 'same' and stride {tuple(stride)}: 'same' is defined for stride 1 only; give the padding in numbers"
            )
        totals = [d * (r - 1) for r, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, tuple) and padding and isinstance(padding[0], tuple):  # before and after each axis, as networks say it
        if min(map(min, padding)) < 0:
            raise ValueError(f"padding is {padding}: it is at least 0")
        return padding
    if isinstance(padding, str):
        raise ValueError(f"padding is {padding!r}: pass an integer, one per axis, 'valid' or 'same'")
    return tuple((p, p) for p in _axes("padding", padding, dims, 0))


def _axes(name: str, value: Any, dims: int, least: int) -> tuple[int, ...]:
    numbers = _integers(name, value if isinstance(value, (tuple, list)) else [value], least)
    if len(numbers) not in (1, dims):
        raise ValueError(f"{name} is {value}: pass one integer or {dims}, one per axis")
    return numbers * dims if len(numbers) == 1 else numbers


def _integers(name: str, values: Sequence[Any], least: int | None) -> tuple[int, ...]:
    try:
        if any(isinstance(v, bool) for v in values):
            raise TypeError
        numbers = tuple(operator.index(v) for v in values)
    except TypeError:
        raise TypeError(f"{name} is {values!r}: it takes integers") from None
    if least is not None and any(n < least for n in numbers):
        raise ValueError(f"{name} is {numbers if len(numbers) > 1 else numbers[0]}: it is at least {least}")
    return numbers


def _shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"

"""The geometry of sliding windows for convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.operators.call import Call

CROPPED = "cropped"
"""Attribute of a convolution in a strip: pads below zero crop the input. ONNX has no such pads."""
_MOST_TAPS = 2**16
"""Most taps of a kernel, as Python loops over them: enough for a 256 x 256 pool, but not for a damaged model."""


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes, one entry per axis; `begin` and `end` are pads."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def pads(self) -> list[tuple[int, int]]:
        """The padding for `numpy.pad`, images and channels first."""
        return [(0, 0), (0, 0), *zip(self.begin, self.end, strict=True)]

    def taps(self) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Yield the index of each tap in the weights, and of its values in the padded input."""
        for tap in product(*(range(k) for k in self.kernel)):
            steps = zip(tap, self.dilations, self.strides, self.out, strict=True)
            yield (..., *tap), (..., *(slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, s, o in steps))


def _positive(call: Call, name: str, rank: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in call.get(name) or (1,) * rank)
    if len(values) != rank or min(values, default=1) < 1:
        raise ValueError(f"{name} must be {rank} positive integers, not {list(values)}")
    return values


def window(call: Call, spatial: Sequence[int], kernel: Sequence[int], ceil_mode: bool = False) -> Window:
    """Return the window with its padding and output size, from all attributes of the standard.

    Raises
    ------
    ValueError
        If the attributes do not fit the rank, or the kernel is larger than the padded input.

    Examples
    --------
    >>> window(Call({"auto_pad": "SAME_UPPER", "strides": (2, 2)}, 17), (5, 6), (3, 3))
    Window(kernel=(3, 3), strides=(2, 2), dilations=(1, 1), begin=(1, 0), end=(1, 1), out=(3, 3))
    """
    rank = len(spatial)
    kernel = tuple(int(k) for k in kernel)
    if len(kernel) != rank or min(kernel, default=1) < 1:
        raise ValueError(f"the kernel must have {rank} positive lengths, not {list(kernel)}")
    strides, dilations = _positive(call, "strides", rank), _positive(call, "dilations", rank)
    if math.prod(kernel) > _MOST_TAPS:
        raise ValueError(f"a kernel of {list(kernel)} has more than {_MOST_TAPS} taps")
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
    auto = call.get("auto_pad", "NOTSET") or "NOTSET"
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        out = tuple(-(-n // s) for n, s in zip(spatial, strides, strict=True))
        total = tuple(max(0, (o - 1) * s + r - n) for o, s, r, n in zip(out, strides, reach, spatial, strict=True))
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        begin, end = (small, large) if auto == "SAME_UPPER" else (large, small)
        return Window(kernel, strides, dilations, begin, end, out)
    if auto not in ("NOTSET", "VALID"):
        raise ValueError(f"auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, not {auto!r}")
    pads = tuple(int(p) for p in (call.get("pads") if auto == "NOTSET" else None) or (0,) * (2 * rank))
    if len(pads) != 2 * rank or min(pads, default=0) < 0 and not call.get(CROPPED):
        raise ValueError(f"pads must be {2 * rank} non-negative integers, not {list(pads)}")
    begin, end = pads[:rank], pads[rank:]
    sizes = []
    for n, r, s, b, e in zip(spatial, reach, strides, begin, end, strict=True):
        room = n + b + e - r
        if room < 0:
            raise ValueError(f"a kernel that reaches over {r} elements is larger than the padded input of {n + b + e}")
        size = (-(-room // s) if ceil_mode else room // s) + 1
        # A window that would begin in the padding after the input is dropped (the rule since opset 22, and torch's).
        sizes.append(size - 1 if ceil_mode and (size - 1) * s >= n + b else size)
    return Window(kernel, strides, dilations, begin, end, tuple(sizes))


@dataclass(frozen=True)
class Planar:
    """A convolution of any rank as a 2-D convolution.

    Attributes
    ----------
    view : Window
        Window of the two remaining axes.
    x, weight : array
        (images, channels, height, width) and (filters, channels / groups, rows, columns).
    shape : tuple of int
        Shape of the output in its original rank.
    """

    view: Window
    x: Array
    weight: Array
    shape: tuple[int, ...]

    def restored(self, y: Array) -> Array:
        """Return the output (images, filters, height, width) in its original rank."""
        if len(self.shape) <= 4:
            return y.reshape(self.shape)
        apart = y.reshape(self.shape[0], *self.shape[2:-2], *y.shape[1:])
        return np.ascontiguousarray(np.moveaxis(apart, -3, 1))


def planar(view: Window, x: Array, weight: Array) -> Planar:
    """Return a convolution of any rank as a 2-D convolution.

    A 1-D convolution gets a height of one. Of three or more axes the last two remain: each output position of the other axes
    becomes an image, and each tap along them a channel.

    Examples
    --------
    >>> line = window(Call({"pads": (1, 1)}, 17), (5,), (3,))
    >>> flat = planar(line, np.zeros((1, 2, 5)), np.zeros((4, 2, 3)))
    >>> flat.view.begin, flat.x.shape, flat.weight.shape, flat.shape
    ((0, 1), (1, 2, 1, 5), (4, 2, 1, 3), (1, 4, 5))
    >>> solid = window(Call({}, 17), (6, 7, 8), (2, 3, 3))
    >>> flat = planar(solid, np.zeros((1, 4, 6, 7, 8)), np.zeros((9, 4, 2, 3, 3)))
    >>> flat.x.shape, flat.weight.shape, flat.shape
    ((5, 8, 7, 8), (9, 8, 3, 3), (1, 9, 5, 5, 6))
    """
    shape = (x.shape[0], weight.shape[0], *view.out)
    if x.ndim == 3:
        flat = Window((1, *view.kernel), (1, *view.strides), (1, *view.dilations), (0, *view.begin), (0, *view.end), (1, *view.out))
        return Planar(flat, x[:, :, None], weight[:, :, None], shape)
    while x.ndim > 4:
        x = np.pad(x, [(0, 0), (0, 0), (view.begin[0], view.end[0]), *[(0, 0)] * (x.ndim - 3)])
        taps = np.arange(view.out[0])[:, None] * view.strides[0] + np.arange(view.kernel[0]) * view.dilations[0]
        x = np.moveaxis(x[:, :, taps], 2, 1)  # (images, outputs, channels, taps, ...)
        x = x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3], *x.shape[4:])
        weight = weight.reshape(weight.shape[0], weight.shape[1] * weight.shape[2], *weight.shape[3:])
        view = Window(*(part[1:] for part in (view.kernel, view.strides, view.dilations, view.begin, view.end, view.out)))
    return Planar(view, x, weight, shape)


def padded(call: Call, x: Array, view: Window, value: Any) -> Array:
    """Return `x` with its spatial axes padded so that every window of `view` is inside."""
    spatial = x.shape[x.ndim - len(view.kernel) :]
    after = []
    for n, b, o, s, d, k in zip(spatial, view.begin, view.out, view.strides, view.dilations, view.kernel, strict=True):
        after.append(max(0, (o - 1) * s + d * (k - 1) + 1 - n - b))
    lead = x.shape[: x.ndim - len(spatial)]
    call.reserve((*lead, *(n + b + a for n, b, a in zip(spatial, view.begin, after, strict=True))), x.dtype)
    if not any(view.begin) and not any(after):
        return x
    return np.pad(x, [(0, 0)] * len(lead) + list(zip(view.begin, after, strict=True)), constant_values=value)

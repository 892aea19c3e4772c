"""The geometry of sliding windows, shared by convolutions and pools: padding, sizes, one strided view a tap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fastconv.network.graph import Array
from fastconv.network.operators.call import Call

_MOST_TAPS = 2**16
"""A kernel is looped over; a global pool over 256 x 256 pixels still passes, a damaged model's billion does not."""


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes: everything but its kernel has one entry an axis, begin and end pads apart."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def pads(self) -> list[tuple[int, int]]:
        """The padding as `numpy.pad` takes it, images and channels first."""
        return [(0, 0), (0, 0), *zip(self.begin, self.end, strict=True)]

    def taps(self) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Yield the index of each tap into the weights and of its values into the padded input, both on the last axes."""
        for tap in product(*(range(k) for k in self.kernel)):
            steps = zip(tap, self.dilations, self.strides, self.out, strict=True)
            yield (..., *tap), (..., *(slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, s, o in steps))


def _positive(call: Call, name: str, rank: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in call.get(name) or (1,) * rank)
    if len(values) != rank or min(values, default=1) < 1:
        raise ValueError(f"{name} must be {rank} positive integers, not {list(values)}")
    return values


def window(call: Call, spatial: Sequence[int], kernel: Sequence[int], ceil_mode: bool = False) -> Window:
    """Work out the padding and the output size of a window, in every way in which the standard lets a model say it.

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
    if len(pads) != 2 * rank or min(pads, default=0) < 0:
        raise ValueError(f"pads must be {2 * rank} non-negative integers, not {list(pads)}")
    begin, end = pads[:rank], pads[rank:]
    sizes = []
    for n, r, s, b, e in zip(spatial, reach, strides, begin, end, strict=True):
        room = n + b + e - r
        if room < 0:
            raise ValueError(f"a kernel that reaches over {r} elements is larger than the padded input of {n + b + e}")
        size = (-(-room // s) if ceil_mode else room // s) + 1
        # A window that would begin in the padding behind the input is left out (the rule since opset 22, torch's always).
        sizes.append(size - 1 if ceil_mode and (size - 1) * s >= n + b else size)
    return Window(kernel, strides, dilations, begin, end, tuple(sizes))


def planar(view: Window, x: Array, weight: Array) -> tuple[Window, Array, Array]:
    """Return a convolution in two dimensions: one dimension is two with a height of one.

    Examples
    --------
    >>> line = window(Call({"pads": (1, 1)}, 17), (5,), (3,))
    >>> view, x, weight = planar(line, np.zeros((1, 2, 5)), np.zeros((4, 2, 3)))
    >>> view.begin, x.shape, weight.shape
    ((0, 1), (1, 2, 1, 5), (4, 2, 1, 3))
    """
    if x.ndim != 3:
        return view, x, weight
    flat = Window((1, *view.kernel), (1, *view.strides), (1, *view.dilations), (0, *view.begin), (0, *view.end), (1, *view.out))
    return flat, x[:, :, None], weight[:, :, None]


def padded(call: Call, x: Array, view: Window, value: Any) -> Array:
    """Pad the spatial axes of `x` so far that every window of `view` lies inside."""
    spatial = x.shape[x.ndim - len(view.kernel) :]
    after = []
    for n, b, o, s, d, k in zip(spatial, view.begin, view.out, view.strides, view.dilations, view.kernel, strict=True):
        after.append(max(0, (o - 1) * s + d * (k - 1) + 1 - n - b))
    lead = x.shape[: x.ndim - len(spatial)]
    call.reserve((*lead, *(n + b + a for n, b, a in zip(spatial, view.begin, after, strict=True))), x.dtype)
    if not any(view.begin) and not any(after):
        return x
    return np.pad(x, [(0, 0)] * len(lead) + list(zip(view.begin, after, strict=True)), constant_values=value)

"""Check the shapes of tiles and kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm, check_dims, name_of

Array = npt.NDArray[Any]


def as_tiles(name: str, values: Any, dims: int, channels: bool) -> Array:
    """Return floats with enough axes, or raise an error."""
    array = np.asarray(values)
    if array.dtype.kind != "f" and array.dtype.name not in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        raise TypeError(f"{name} has dtype {array.dtype}: pass floating-point numbers, such as float32")
    needed = dims + channels
    if array.ndim < needed:
        axes = "(..., channels, " if channels else "(..., "
        raise ValueError(f"{name} has shape {array.shape}: {dims}-D tiles need at least {needed} axes, {axes}{'size, ' * (dims - 1)}size)")
    return array


def check_pair(axes: Sequence[BilinearAlgorithm] | int, w: Any, x: Any, channels: bool) -> tuple[Array, Array]:
    """Check kernels ``(..., [C,] r[, r])`` against tiles ``(..., [C,] n[, n])``; `axes` are algorithms or a dimension."""
    dims = axes if isinstance(axes, int) else len(axes)
    check_dims(dims)
    w, x = as_tiles("w", w, dims, channels), as_tiles("x", x, dims, channels)
    if not isinstance(axes, int):
        what = repr(axes[0]) if axes[0] == axes[-1] else name_of(axes)
        for name, array, sizes in (("w", w, tuple(a.r for a in axes)), ("x", x, tuple(a.n for a in axes))):
            if array.shape[-dims:] != sizes:
                raise ValueError(f"{name} has tiles of {array.shape[-dims:]}: {what} takes {sizes} in {dims}-D")
    elif any(a > b or a == 0 for a, b in zip(w.shape[-dims:], x.shape[-dims:], strict=True)):
        raise ValueError(f"w has tiles of {w.shape[-dims:]}, x of {x.shape[-dims:]}: the kernel must fit into the tile")
    if channels and w.shape[-dims - 1] != x.shape[-dims - 1]:
        raise ValueError(f"w has {w.shape[-dims - 1]} channels, x has {x.shape[-dims - 1]}: they must agree")
    try:
        np.broadcast_shapes(w.shape[: -dims or None], x.shape[: -dims or None])
    except ValueError:
        raise ValueError(f"w of shape {w.shape} and x of shape {x.shape} do not broadcast before the tile axes") from None
    return w, x


def windows(w: Array, x: Array, strides: Sequence[int]) -> Iterator[tuple[Array, Array]]:
    """Yield each tap's weights, shaped to broadcast, and its window of x; the last axis runs fastest."""
    dims = len(strides)
    reach = tuple(b - a + 1 for a, b in zip(w.shape[-dims:], x.shape[-dims:], strict=True))
    for k in np.ndindex(*w.shape[-dims:]):
        at: Any = (..., *(slice(i, i + size, stride) for i, size, stride in zip(k, reach, strides, strict=True)))
        yield w[(..., *k)][(..., *[None] * dims)], x[at]

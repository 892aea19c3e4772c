"""Check the shapes of tiles and kernels that the functions of this floor share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm, algorithm, parse_name, split_name

Array = npt.NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")


def by_name(function: Callable[Concatenate[BilinearAlgorithm, P], R]) -> Callable[Concatenate[BilinearAlgorithm | str, P], R]:
    """Let a function of an algorithm and its `dims` take the algorithm's name, which says the dimensions as well.

    Examples
    --------
    >>> tell = by_name(lambda alg, dims=1: (alg.m, dims))
    >>> tell("F(4x4,3x3)"), tell("F(4,3)")
    ((4, 2), (4, 1))
    """
    at = list(signature(function).parameters).index("dims") - 1

    @wraps(function)
    def call(alg: BilinearAlgorithm | str, *args: P.args, **options: P.kwargs) -> R:
        if isinstance(alg, str):
            dims = parse_name(split_name(alg).size)[2]
            given = args[at] if len(args) > at else options.setdefault("dims", dims)
            if given != dims:
                raise ValueError(f"dims is {given!r}, but {alg} has {dims}: leave dims out, or name another algorithm")
            alg = algorithm(alg)
        elif not isinstance(alg, BilinearAlgorithm):
            raise TypeError(f"alg is {alg!r}: pass an algorithm or its name, such as 'F(4x4,3x3)'")
        return function(alg, *args, **options)

    return cast(Any, call)  # type: ignore[no-any-return]


def check_dims(dims: int) -> None:
    """Refuse dimensions other than one and two."""
    if dims not in (1, 2):
        raise ValueError(f"dims is {dims!r}: tiles are one- or two-dimensional, pass 1 or 2")


def check_count(name: str, value: int) -> None:
    """Refuse counts that are no positive integers."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: pass a positive integer")
    if value < 1:
        raise ValueError(f"{name} is {value}: pass a positive integer")


def as_tiles(name: str, values: Any, dims: int, channels: bool) -> Array:
    """Return floats with enough axes, or say what is wrong."""
    array = np.asarray(values)
    if array.dtype.kind != "f" and array.dtype.name not in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        raise TypeError(f"{name} has dtype {array.dtype}: pass floating-point numbers, such as float32")
    needed = dims + channels
    if array.ndim < needed:
        axes = "(..., channels, " if channels else "(..., "
        raise ValueError(f"{name} has shape {array.shape}: {dims}-D tiles need at least {needed} axes, {axes}{'size, ' * (dims - 1)}size)")
    return array


def check_pair(alg: BilinearAlgorithm | None, w: Any, x: Any, dims: int, channels: bool) -> tuple[Array, Array]:
    """Check kernels ``(..., [C,] r[, r])`` against tiles ``(..., [C,] n[, n])``."""
    check_dims(dims)
    w, x = as_tiles("w", w, dims, channels), as_tiles("x", x, dims, channels)
    if alg is not None:
        for name, array, size in (("w", w, alg.r), ("x", x, alg.n)):
            if array.shape[-dims:] != (size,) * dims:
                raise ValueError(f"{name} has tiles of {array.shape[-dims:]}: {alg!r} takes {(size,) * dims} in {dims}-D")
    elif any(a > b or a == 0 for a, b in zip(w.shape[-dims:], x.shape[-dims:], strict=True)):
        raise ValueError(f"w has tiles of {w.shape[-dims:]}, x of {x.shape[-dims:]}: the kernel must fit into the tile")
    if channels and w.shape[-dims - 1] != x.shape[-dims - 1]:
        raise ValueError(f"w has {w.shape[-dims - 1]} channels, x has {x.shape[-dims - 1]}: they must agree")
    try:
        np.broadcast_shapes(w.shape[: -dims or None], x.shape[: -dims or None])
    except ValueError:
        raise ValueError(f"w of shape {w.shape} and x of shape {x.shape} do not broadcast before the tile axes") from None
    return w, x


def windows(w: Array, x: Array, dims: int, stride: int = 1) -> Iterator[tuple[Array, Array]]:
    """Yield for each tap its weights, shaped to broadcast, and the window of x that it meets; the last axis runs fastest."""
    reach = tuple(b - a + 1 for a, b in zip(w.shape[-dims:], x.shape[-dims:], strict=True))
    for k in np.ndindex(*w.shape[-dims:]):
        at: Any = (..., *(slice(i, i + size, stride) for i, size in zip(k, reach, strict=True)))
        yield w[(..., *k)][(..., *[None] * dims)], x[at]

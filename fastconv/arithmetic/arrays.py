"""Read programs on arrays, with every operation rounded to a number format."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv.arithmetic.rounding import Array, carrier, fused, round_to
from fastconv.exact import Format, Number, rounded
from fastconv.program import Program, Reading


def _quiet(f: Callable[..., Array]) -> Callable[..., Array]:
    """Silence overflow warnings: the result is that of the format, and callers count overflows."""

    def call(*args: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return f(*args)

    return call


@lru_cache(maxsize=64)
def array_reading(fmt: Format, constants: Format | None = None) -> Reading[Array, np.floating[Any]]:
    """Return the reading on arrays in a format.

    Parameters
    ----------
    fmt : Format
        Every operation is correctly rounded to it.
    constants : Format, optional
        Format the constants are rounded to; `fmt` itself by default.
    """
    hold = carrier(fmt)

    def constant(c: Number) -> np.floating[Any]:
        return hold(rounded(c, constants or fmt))

    return Reading(
        constant=lru_cache(maxsize=4096)(constant),
        mul=_quiet(lambda c, a: round_to(c * a, fmt)),
        add=_quiet(lambda a, b: round_to(a + b, fmt)),
        sub=_quiet(lambda a, b: round_to(a - b, fmt)),
        neg=lambda a: -a,
        fma=lambda c, a, b: fused(c, a, b, fmt),
    )


def apply(program: Program, values: Array, reading: Reading[Array, np.floating[Any]], axis: int) -> Array:
    """Multiply an array by a program's matrix along an axis."""
    lanes: list[Array] = list(np.moveaxis(values, axis, 0))
    rows: list[Array] = program.read(lanes, reading)
    return np.stack(rows, axis)

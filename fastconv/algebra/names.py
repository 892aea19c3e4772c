"""The names of algorithms: one grammar, read by `parse_name` and written by `name_of`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

_SIZE = re.compile(r"f\((\d+)(?:x(\d+))?,(\d+)(?:x(\d+))?\)")
_ALIAS = re.compile(r"winograd(\d)(\d)|f(\d+)x(\d+)|b(\d+)f(\d+)")
_NAME = re.compile(r"(.+?)(?:(?<=\))s(\d+)(?:x(\d+))?)?(?:/(\d+)(?:x(\d+))?)?")
_RULE = "write 'F(4x4,3x3)' for two dimensions, 'F(4,3)' for one, or 'winograd43'"


class Name(NamedTuple):
    """The name of an algorithm, per axis: outputs, taps, stride, products (None: the fewest)."""

    m: tuple[int, ...]
    r: tuple[int, ...]
    stride: tuple[int, ...]
    products: tuple[int | None, ...]

    @property
    def dims(self) -> int:
        """Number of dimensions."""
        return len(self.m)


def parse_name(name: str) -> Name:
    """Read the name of an algorithm.

    Parameters
    ----------
    name : str
        ``"F(4x4,3x3)"``; ``"F(4,3)"`` in one dimension; ``"F(5x3,3x3)"``, 5 outputs along the height and 3 along the width; or an
        alias: ``"winograd43"`` (ncnn), ``"f4x3"`` (MIOpen), ``"b4f3"`` (ppl.nn). A stride follows, ``"F(4x4,3x3)s2"``, and a number
        of products per axis, ``"F(8x8,3x3)/13"``: more than n with complex points. If the axes differ: ``"s2x1"``, ``"/13x8"``. A
        single number applies to all axes with more than one tap or output.

    Raises
    ------
    TypeError
        If `name` is not text.
    ValueError
        If the text is not a name.

    Examples
    --------
    >>> parse_name("F(8x6, 3x3)/13x8")
    Name(m=(8, 6), r=(3, 3), stride=(1, 1), products=(13, 8))
    >>> parse_name("F(4,3)s2")
    Name(m=(4,), r=(3,), stride=(2,), products=(None,))
    """
    if not isinstance(name, str):
        raise TypeError(f"algorithm is {name!r}: pass a name, such as 'F(4x4,3x3)'")
    match = _NAME.fullmatch("".join(name.split()).lower())
    if match is None:
        raise ValueError(f"unknown algorithm {name!r}: {_RULE}")
    size, *more = match.groups()
    stride, other_stride, products, other_products = (None if one is None else int(one) for one in more)
    if (full := _SIZE.fullmatch(size)) is not None:
        m, m2, r, r2 = full.groups()
        if (m2 is None) != (r2 is None):
            raise ValueError(f"unknown algorithm {name!r}: {_RULE}")
        outputs, taps = ((int(a),) if b is None else (int(a), int(b)) for a, b in ((m, m2), (r, r2)))
    elif (alias := _ALIAS.fullmatch(size)) is not None:
        side, tap = (int(group) for group in alias.groups() if group is not None)
        outputs, taps = (side, side), (tap, tap)
    else:
        raise ValueError(f"unknown algorithm {name!r}: {_RULE}")
    if not all(outputs) or not all(taps) or stride == 0 or other_stride == 0:
        raise ValueError(f"unknown algorithm {name!r}: outputs, taps and strides are at least 1")
    if len(outputs) == 1 and (other_stride is not None or other_products is not None):
        raise ValueError(f"unknown algorithm {name!r}: it has one dimension, but two strides or products")
    trivial = [m == r == 1 for m, r in zip(outputs, taps, strict=True)]
    strides = (stride or 1, stride or 1) if other_stride is None else (stride or 1, other_stride)
    counts = (products, products) if other_products is None else (products, other_products)
    return Name(
        outputs,
        taps,
        tuple(1 if alone and other_stride is None else s for alone, s in zip(trivial, strides, strict=False)),
        tuple(None if alone and other_products is None else c for alone, c in zip(trivial, counts, strict=False)),
    )


class Sized(Protocol):
    """Sizes of an algorithm along one axis, for its name."""

    @property
    def m(self) -> int:
        """Outputs."""

    @property
    def r(self) -> int:
        """Taps."""

    @property
    def n(self) -> int:
        """Inputs of a tile."""

    @property
    def stride(self) -> int:
        """Inputs from one output to the next."""

    @property
    def products(self) -> int:
        """Multiplications."""


def name_of(axes: Sequence[Sized]) -> str:
    """Return the name of the algorithms along each axis, as `parse_name` reads it.

    Examples
    --------
    >>> from fastconv import algorithms
    >>> [name_of(algorithms(name)) for name in ("f4x3", "F(5x3,3x3)", "F(1x8,1x3)/13", "F(8x8,3x3)/12x10", "F(4,3)s2")]
    ['F(4x4,3x3)', 'F(5x3,3x3)', 'F(1x8,1x3)/13', 'F(8x8,3x3)/12x10', 'F(4,3)s2']
    """
    size = ",".join("x".join(str(count) for count in counts) for counts in ([a.m for a in axes], [a.r for a in axes]))
    long = [a for a in axes if a.n > 1]
    strides, products = ([a.stride for a in long], [a.products for a in long])
    text = f"F({size})"
    if any(stride > 1 for stride in strides):
        text += "s" + _each([a.stride for a in axes], strides)
    if any(a.products > a.n for a in long):
        text += "/" + _each([a.products for a in axes], products)
    return text


def _each(counts: Sequence[int], long: Sequence[int]) -> str:
    """Return one number if all axes with more than one tap or output share it, else one per axis."""
    return str(long[0]) if len(set(long)) == 1 else "x".join(map(str, counts))

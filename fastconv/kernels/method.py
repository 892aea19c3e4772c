"""Choose how a layer runs: read the name of an algorithm, check that it fits the layer, or pick one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fastconv.algebra import BilinearAlgorithm, best_points, parse_name, toom_cook
from fastconv.kernels.layer import Layer

LARGEST_TILE = 16
"""Tiles past this lose all accuracy in single precision."""

ENOUGH_TILES = 9
"""Fewer leave most lanes of a vector idle."""

PLAIN = ("direct", "im2col", "fft")
_RECTANGLE = re.compile(r"f\((\d+)x(\d+),(\d+)x(\d+)\)")


@dataclass(frozen=True)
class Method:
    """How a layer runs.

    Attributes
    ----------
    name : str
        ``"direct"``, ``"im2col"``, ``"fft"`` or the name of a fast algorithm.
    axes : tuple of BilinearAlgorithm
        Of a fast algorithm: one along the height, one along the width.
    why : str
        Who chose it.
    """

    name: str
    axes: tuple[BilinearAlgorithm, BilinearAlgorithm] | None = None
    why: str = "asked for"


def method_of(given: Any, layer: Layer) -> Method:
    """Read what was given as `algorithm`.

    Raises
    ------
    TypeError, ValueError
        For what is no algorithm, or does not fit the layer; says the rule and the remedy.
    """
    if isinstance(given, str) and given.strip().lower() in PLAIN:
        return Method(given.strip().lower())
    if isinstance(given, str) and given.strip().lower() == "auto":
        return choose(layer)
    if isinstance(given, BilinearAlgorithm):
        axes = _fitted(given, layer)
    elif isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(a, BilinearAlgorithm) for a in given):
        axes = (given[0], given[1])
    elif isinstance(given, str):
        axes = _named(given, layer)
    else:
        raise TypeError(
            f"algorithm is {given!r}: pass 'auto', 'direct', 'im2col', 'fft', a name such as 'F(4x4,3x3)', "
            "a BilinearAlgorithm, or a pair of them for height and width"
        )
    _check(axes, layer)
    return Method(name_of(axes), axes)


def choose(layer: Layer) -> Method:
    """Choose by rule, from measured times on AVX2; every choice keeps a relative L2 error of 1e-6 in float32.

    A fast algorithm pays on layers of stride 1 with at least 8 channels and filters, 256 pairs of them, and enough
    tiles to fill vectors: F(4,3) an axis from 9 tiles on, F(2,3) where its own tiles are 9. Five taps take F(2,5):
    F(4,5) is faster and three times less accurate.
    """
    direct = Method("direct", None, "chosen: no fast algorithm is known to pay on this layer")
    plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    wide = min(layer.channels, layer.filters) >= 8 and layer.channels * layer.filters >= 256
    if not (plain and wide and set(layer.kernel) <= {1, 3, 5} and layer.kernel != (1, 1)):
        return direct
    for outputs in ({1: 1, 3: 4, 5: 2}, {1: 1, 3: 2, 5: 2}):
        m = [outputs[r] for r in layer.kernel]
        tiles = layer.batch
        for size, k in zip(layer.output, m, strict=True):
            tiles *= -(-size // k)
        if tiles >= ENOUGH_TILES:
            dims = 1 if 1 in layer.kernel else 2
            axes = (_best(m[0], layer.kernel[0], dims), _best(m[1], layer.kernel[1], dims))
            return Method(name_of(axes), axes, f"chosen: {tiles} tiles fill the vectors and the channels pay for the transforms")
    return direct


def name_of(axes: tuple[BilinearAlgorithm, BilinearAlgorithm]) -> str:
    """Return the name of a pair, ``"F(4x4,3x3)"``."""
    return f"F({axes[0].m}x{axes[1].m},{axes[0].r}x{axes[1].r})"


def _best(m: int, r: int, dims: int) -> BilinearAlgorithm:
    return identity() if r == 1 else toom_cook(m, r, best_points(m, r, dims))


def identity() -> BilinearAlgorithm:
    """Return F(1,1), the algorithm of an axis of one tap."""
    one = ((Fraction(1),),)
    return BilinearAlgorithm(1, 1, (), one, one, one)


def _named(name: str, layer: Layer) -> tuple[BilinearAlgorithm, BilinearAlgorithm]:
    if match := _RECTANGLE.fullmatch(name.replace(" ", "").lower()):
        mh, mw, rh, rw = map(int, match.groups())
        if (mh, rh) != (mw, rw):
            if not (mh and mw and rh and rw):
                raise ValueError(f"algorithm {name!r} has a zero in it: outputs and taps are at least 1")
            _check_sizes(((mh, rh), (mw, rw)))
            dims = 1 if 1 in (rh, rw) else 2
            return _best(mh, rh, dims), _best(mw, rw, dims)
    m, r, _ = parse_name(name)
    _check_sizes(((m, r),))
    return _fitted(_best(m, r, 1 if layer.kernel.count(1) == 1 else 2), layer)


def _fitted(alg: BilinearAlgorithm, layer: Layer) -> tuple[BilinearAlgorithm, BilinearAlgorithm]:
    """Put an algorithm on both axes, or on the one axis that has its taps where the other has one."""
    if alg.r > 1 and layer.kernel == (1, alg.r):
        return identity(), alg
    if alg.r > 1 and layer.kernel == (alg.r, 1):
        return alg, identity()
    return alg, alg


def _check(axes: tuple[BilinearAlgorithm, BilinearAlgorithm], layer: Layer) -> None:
    name = name_of(axes)
    (rh, rw), (kh, kw) = (axes[0].r, axes[1].r), layer.kernel
    if (rh, rw) != (kh, kw):
        m = (1 if kh == 1 else axes[0].m, 1 if kw == 1 else axes[1].m)
        raise ValueError(f"{name} is for {rh}x{rw} kernels, the layer's is {kh}x{kw}: pass 'F({m[0]}x{m[1]},{kh}x{kw})' or 'direct'")
    for what, value in (("stride", layer.stride), ("dilation", layer.dilation)):
        if value != (1, 1):
            raise ValueError(f"{name} does not fit {what} {value[0]}x{value[1]}: fast algorithms take {what} 1; pass 'auto' or 'direct'")
    if layer.groups > 1:
        raise ValueError(f"{name} does not fit {layer.groups} groups: fast algorithms take groups 1; pass 'auto' or 'direct'")
    _check_sizes(tuple((a.m, a.r) for a in axes))


def _check_sizes(sizes: tuple[tuple[int, int], ...]) -> None:
    for m, r in sizes:
        if m + r - 1 > LARGEST_TILE:
            raise ValueError(
                f"F({m},{r}) has tiles of n = m + r - 1 = {m + r - 1}: layers run tiles of at most {LARGEST_TILE}; take a smaller m"
            )

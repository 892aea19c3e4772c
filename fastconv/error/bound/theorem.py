"""Bound errors a priori: the theorems of Barabasz et al. 2020, with constants from the programs (docs/error-bounds.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm, axes_of
from fastconv.arithmetic import Policy, Setting, carrier, channel_sum_named, round_to, setting_of
from fastconv.error.bound.running import enclosure, upward
from fastconv.error.measure.evaluate import Axes
from fastconv.error.measure.shapes import Array, check_pair
from fastconv.exact import Format, Number, rounded
from fastconv.program import Program, Reading, is_power_of_two, programs_of


class Dot(NamedTuple):
    """One value of a program, as a sum over the inputs.

    Attributes
    ----------
    roundoff : tuple
        For each input the largest sum of unit roundoffs on a path from it; None if there is no path.
    magnitude : tuple of Fraction
        For each input the sum over all paths of the product of the constants' magnitudes: ``|A_ij|``.
    underflow : Fraction
        Largest contribution of underflow on the paths.
    """

    roundoff: tuple[Fraction | None, ...]
    magnitude: tuple[Fraction, ...]
    underflow: Fraction


def dots(program: Program, fmt: Format, constants: Format | None = None) -> list[Dot]:
    """Read a program as dot products: their unit roundoffs, magnitudes and underflow, exactly.

    Examples
    --------
    >>> from fastconv.exact import format_named
    >>> from fastconv.program import program_of
    >>> row = dots(program_of(((4, 3, 1),), "sequential"), format_named("fp32"))[0]
    >>> [int(r / format_named("fp32").u) for r in row.roundoff]
    [2, 3, 1]
    """
    half = fmt.tiny / 2

    def constant(c: Number) -> tuple[Fraction, Fraction, Fraction]:
        near, radius = enclosure(c)
        with np.errstate(over="ignore"):
            held = float(carrier(fmt)(rounded(c, constants or fmt)))
        if not np.isfinite(held):
            raise OverflowError
        distance = abs(near - Fraction(held)) + radius
        magnitude = abs(near) + radius
        own = distance / (magnitude - 2 * radius)
        entry = max(own, (constants or fmt).u) if own else Fraction(0)
        exact = is_power_of_two(c) and not own
        # Long entries make a product inexact in float64: it is rounded there first, then to the format.
        twice = Fraction(1, 2**53) if fmt.p < 24 and (constants or fmt).p + fmt.p > 53 else Fraction(0)
        return magnitude, entry + (0 if exact else fmt.u + twice), Fraction(0) if exact and magnitude >= 1 else half

    def mul(c: tuple[Fraction, Fraction, Fraction], a: Dot) -> Dot:
        magnitude, roundoff, lost = c
        return Dot(
            tuple(None if r is None else r + roundoff for r in a.roundoff),
            tuple(magnitude * g for g in a.magnitude),
            magnitude * a.underflow + lost,
        )

    def add(a: Dot, b: Dot) -> Dot:
        return Dot(
            tuple(_larger(r, s, fmt.u) for r, s in zip(a.roundoff, b.roundoff, strict=True)),
            tuple(g + h for g, h in zip(a.magnitude, b.magnitude, strict=True)),
            a.underflow + b.underflow,
        )

    def fma(c: tuple[Fraction, Fraction, Fraction], a: Dot, b: Dot) -> Dot:
        magnitude, roundoff, _ = c
        return add(mul((magnitude, max(roundoff - fmt.u, Fraction(0)), half), a), b)

    reading: Reading[Dot, Any] = Reading(constant=constant, mul=mul, add=add, sub=add, neg=lambda a: a, fma=fma)
    size = program.inputs
    unit = [
        Dot(
            tuple(Fraction(0) if i == j else None for i in range(size)),
            tuple(Fraction(int(i == j)) for i in range(size)),
            Fraction(0),
        )
        for j in range(size)
    ]
    return program.read(unit, reading)


def _larger(r: Fraction | None, s: Fraction | None, u: Fraction) -> Fraction | None:
    if r is None or s is None:
        known = s if r is None else r
        return None if known is None else known + u
    return max(r, s) + u


class Constants(NamedTuple):
    """The error constants of a theorem, in unit roundoffs of the output's format.

    Attributes
    ----------
    alpha, beta, gamma : float
        Constants of the dot products with the rows of AT, BT and G: the largest over all rows.
    total : array, (m,) or (m, m)
        The total constant of each output; in the modified algorithm that of the last output is larger.
    """

    alpha: float
    beta: float
    gamma: float
    total: Array


class _Theorem(NamedTuple):
    """Terms of the theorem: upper bounds of magnitudes for each axis, roundoff of each output, underflow."""

    AT: list[Array]
    G: list[Array]
    BT: list[Array]
    alpha: Fraction
    beta: Fraction
    gamma: Fraction
    total: list[Fraction]
    lost: tuple[Array, Array, float, Array]


def error_constants(
    alg: Axes,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
) -> Constants:
    """Return the error constants of Barabasz et al. 2020 for an algorithm's programs.

    Parameters
    ----------
    alg, dims, policy, order, channel_sum
        As for `evaluate`.
    channels : int
        Channels summed over.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> error_constants(toom_cook(2, 3, [0, 1, -1, "inf"]), order="sequential")
    Constants(alpha=2.0, beta=1.0, gamma=2.0, total=array([6., 6.]))
    """
    axes, setting = axes_of(alg, dims), setting_of(policy, order, channels, channel_sum)
    theorem = _theorem(axes, setting, Fraction(0))
    u = setting.policy.output.u
    total = np.array([float(t / u) for t in theorem.total]).reshape([one.m for one in axes])
    return Constants(float(theorem.alpha / u), float(theorem.beta / u), float(theorem.gamma / u), total)


def theorem_bound(
    alg: Axes,
    w: Any,
    x: Any,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: bool = False,
    channel_sum: str = "linear",
    kind: str = "componentwise",
) -> Array:
    """Bound the error of `evaluate` by the theorems of Barabasz et al. 2020.

    Parameters
    ----------
    alg, w, x, dims, policy, order, channels, channel_sum
        As for `evaluate`.
    kind : str
        ``"componentwise"``: ``|AT| (|G||w| * |BT||x|) K u / (1 - K u)``, one output at a time; ``"normwise"``:
        ``||AT||_1 ||G||_F ||w||_2 ||BT||_F ||x||_2 K u / (1 - K u)``, the sum of ``|error|`` over a tile.

    Returns
    -------
    array
        In float64, ``(..., m[, m])`` or, normwise, ``(...)``; inf where ``K u >= 1`` or an entry overflows its format.

    Notes
    -----
    The bound holds without overflow and includes terms for gradual underflow. docs/error-bounds.md derives it.

    References
    ----------
    Barabasz et al., ACM TOMS 46(4), 2020, section 4.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> b = theorem_bound(toom_cook(2, 3, [0, 1, -1, "inf"]), np.ones(3, "f4"), np.ones(4, "f4"))
    >>> [round(float(v) * 2**24) for v in b]
    [48, 48]
    """
    axes = axes_of(alg, dims)
    w, x = check_pair(axes, w, x, channels)
    if kind not in ("componentwise", "normwise"):
        raise ValueError(f"unknown kind {kind!r}: the bounds are 'componentwise' and 'normwise'")
    count = w.shape[-len(axes) - 1] if channels else 1
    setting = setting_of(policy, order, count, channel_sum)
    p, leading, outputs = setting.policy, -len(axes) - channels, [one.m for one in axes]
    data = sum((p.data.u for v in (w, x) if (round_to(v, p.data) != v).any()), Fraction(0))
    batch = np.broadcast_shapes(w.shape[:leading], x.shape[:leading])
    shape = batch if kind == "normwise" else (*batch, *outputs)
    try:
        t = _theorem(axes, setting, data)
    except OverflowError:
        return np.full(shape, np.inf)
    if max(t.total) >= 1:
        return np.full(shape, np.inf)
    relative = np.array([upward(s / (1 - s)) for s in t.total]).reshape(outputs)
    weights, tiles = np.abs(w, dtype=np.float64), np.abs(x, dtype=np.float64)
    # Every sum here has at most this many roundings on a path, all of nonnegative numbers.
    raised = 1.0 + (4 * sum(one.n for one in axes) + count + 32) * 2.0**-52
    with np.errstate(over="ignore", invalid="ignore"):
        # Data outside the data format may also underflow when rounded: half a subnormal unit each.
        products, underflow = _products(t, weights, tiles, float(p.data.tiny) / 2 if data else 0.0)
        if channels:
            products, underflow = products.sum(axis=leading), underflow.sum(axis=leading)
        away = (1.0 + relative) * (_linear(t.AT, underflow) + t.lost[3])
        if kind == "componentwise":
            return np.asarray((relative * _linear(t.AT, products) + away) * raised)
        tile = tuple(range(-len(axes), 0))
        lengths = _length(weights, tile) * _length(tiles, tile)
        if channels:
            lengths = lengths.sum(axis=-1)
        return np.asarray((relative.max() * _norms(t) * lengths + away.sum(axis=tile)) * raised)


def _products(t: _Theorem, weights: Array, tiles: Array, gone: float) -> tuple[Array, Array]:
    """Return bounds of the products, and of what underflow changes in them; `gone` is lost of each datum."""
    lost_kernel, lost_input, lost_product, _ = t.lost
    U, V = _linear(t.G, weights), _linear(t.BT, tiles)
    U_lost = lost_kernel + _linear(t.G, np.full_like(weights, gone))
    V_lost = lost_input + _linear(t.BT, np.full_like(tiles, gone))
    return U * V, U_lost * V + U * V_lost + U_lost * V_lost + lost_product


def _norms(t: _Theorem) -> Any:
    """Return ``||AT||_1 ||G||_F ||BT||_F``, multiplied over the axes."""
    return math.prod(A.sum(axis=0).max() * np.sqrt((G**2).sum()) * np.sqrt((B**2).sum()) for A, G, B in zip(t.AT, t.G, t.BT, strict=True))


def _linear(matrices: Sequence[Array], values: Array) -> Array:
    for axis, matrix in enumerate(matrices, -len(matrices)):
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ matrix.T, -1, axis)
    return values


def _length(values: Array, axes: tuple[int, ...]) -> Array:
    """Return the Euclidean norm, scaled by a power of two so that no square leaves the range."""
    exponent = np.frexp(values.max(axis=axes, keepdims=True))[1]
    scaled = np.sqrt((np.ldexp(values, -exponent) ** 2).sum(axis=axes))
    return np.asarray(np.ldexp(scaled, np.squeeze(exponent, axes)))


def _theorem(axes: Sequence[BilinearAlgorithm], setting: Setting, data: Fraction) -> _Theorem:
    p = setting.policy
    programs = [programs_of(alg, setting.order) for alg in axes]
    output, kernel, input = (
        [dots(getattr(one, stage), fmt, p.constants) for one in programs]
        for stage, fmt in (("output", p.output), ("kernel", p.kernel), ("input", p.input))
    )
    add_channels: Any = channel_sum_named(setting.channel_sum)
    levels: int = add_channels([0] * setting.channels, lambda a, b: max(a, b) + 1)
    between = (
        _conversion(p.data, p.kernel)
        + _conversion(p.data, p.input)
        + _conversion(p.kernel, p.operands)
        + _conversion(p.input, p.operands)
        + 2 * _conversion(p.operands, p.product)
        + p.product.u
        + _conversion(p.product, p.accumulate)
        + levels * p.accumulate.u
        + _conversion(p.accumulate, p.output)
    )
    beta, gamma = ([[max(r for r in dot.roundoff if r is not None) for dot in axis] for axis in stage] for stage in (input, kernel))
    ways = [
        [max(r + b[j] + g[j] for j, r in enumerate(dot.roundoff) if r is not None) for dot in axis]
        for axis, b, g in zip(output, beta, gamma, strict=True)
    ]
    formats = (p.kernel, p.input, p.operands, p.product, p.accumulate, p.output)
    # Underflow of all roundings between two stages, and of float64 in computing the bound.
    before = 4 * max(float(fmt.tiny) / 2 for fmt in formats) + 2.0**-1055
    return _Theorem(
        AT=_magnitudes(output),
        G=_magnitudes(kernel),
        BT=_magnitudes(input),
        alpha=max(r for axis in output for dot in axis for r in dot.roundoff if r is not None),
        beta=max(map(max, beta)),
        gamma=max(map(max, gamma)),
        total=[sum(way, Fraction(0)) + between + data for way in product(*ways)],
        lost=(_lost(kernel, before), _lost(input, before), before, _lost(output, before)),
    )


def _magnitudes(stage: Sequence[list[Dot]]) -> list[Array]:
    return [np.array([[upward(g) for g in dot.magnitude] for dot in axis]) for axis in stage]


def _conversion(source: Format, target: Format) -> Fraction:
    return target.u if source.p > target.p or source.emin < target.emin else Fraction(0)


def _lost(stage: Sequence[list[Dot]], before: float) -> Array:
    """Return the underflow error of each value of a transformed tile; `before` is that of its inputs."""
    lost: Array = np.array(before)
    for axis in stage:
        own = np.array([upward(dot.underflow) for dot in axis])
        rows = np.array([upward(sum(dot.magnitude, Fraction(0))) for dot in axis])
        lost = lost[..., None] * rows + own
    return lost + before

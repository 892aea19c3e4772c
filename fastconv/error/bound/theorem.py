"""Bound errors a priori: the theorems of paper A with their constants read off the programs (docs/error-bounds.md)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, carrier, channel_sum_named, policy_named, round_to
from fastconv.error.bound.running import enclosure, upward
from fastconv.error.measure.shapes import Array, by_name, check_count, check_dims, check_pair
from fastconv.exact import Format, Number, rounded
from fastconv.program import Program, Reading, is_power_of_two, programs_of


class Dot(NamedTuple):
    """One value of a program, as a sum over the inputs.

    Attributes
    ----------
    roundoff : tuple
        For each input the largest sum of unit roundoffs on a way from it; None where there is no way.
    magnitude : tuple of Fraction
        For each input the sum over all ways of the product of the constants' magnitudes: ``|A_ij|``.
    underflow : Fraction
        What underflows on the way can add.
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
        # Entries too long for a product to be exact in float64: it is rounded there first, then to the format.
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
        Of the dot products with the rows of AT, BT and G: the largest over all rows.
    total : array, (m,) or (m, m)
        The whole constant of each output; for the modified algorithm that of the last is the larger one.
    """

    alpha: float
    beta: float
    gamma: float
    total: Array


class _Theorem(NamedTuple):
    """Everything the theorem needs: magnitudes from above, roundoff of each output, underflow."""

    AT: Array
    G: Array
    BT: Array
    alpha: Fraction
    beta: Fraction
    gamma: Fraction
    total: list[Fraction]
    lost: tuple[Array, Array, float, Array]


@by_name
def error_constants(
    alg: BilinearAlgorithm,
    dims: int = 1,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
) -> Constants:
    """Return the constants alpha, beta, gamma of paper A and those of the whole algorithm, read off the programs.

    Parameters
    ----------
    alg, dims, policy, order, channel_sum
        As `evaluate` takes them.
    channels : int
        Channels summed over.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> error_constants(toom_cook(2, 3, [0, 1, -1, "inf"]), order="sequential")
    Constants(alpha=2.0, beta=1.0, gamma=2.0, total=array([6., 6.]))
    """
    check_dims(dims)
    check_count("channels", channels)
    p = policy_named(policy)
    theorem = _theorem(alg, p, order, channels, channel_sum, dims, Fraction(0))
    u = p.output.u
    axes = [float(t / u) for t in theorem.total]
    total = np.array(axes) if dims == 1 else np.array(axes).reshape(alg.m, alg.m)
    return Constants(float(theorem.alpha / u), float(theorem.beta / u), float(theorem.gamma / u), total)


@by_name
def theorem_bound(
    alg: BilinearAlgorithm,
    w: Any,
    x: Any,
    dims: int = 1,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: bool = False,
    channel_sum: str = "linear",
    kind: str = "componentwise",
) -> Array:
    """Bound the error of `evaluate` by the theorems of paper A, their constants read off the programs.

    Parameters
    ----------
    alg, w, x, dims, policy, order, channels, channel_sum
        As `evaluate` takes them.
    kind : str
        ``"componentwise"``: ``|AT| (|G||w| * |BT||x|) K u / (1 - K u)``, an output at a time; ``"normwise"``:
        ``||AT||_1 ||G||_F ||w||_2 ||BT||_F ||x||_2 K u / (1 - K u)``, a tile's sum of ``|error|`` at once.

    Returns
    -------
    array
        In float64, ``(..., m[, m])`` or, normwise, ``(...)``; inf where ``K u >= 1`` or an entry overflows its format.

    Notes
    -----
    Holds where nothing overflows; terms for gradual underflow are part of it. docs/error-bounds.md derives it.

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
    w, x = check_pair(alg, w, x, dims, channels)
    if kind not in ("componentwise", "normwise"):
        raise ValueError(f"unknown kind {kind!r}: the bounds are 'componentwise' and 'normwise'")
    p = policy_named(policy)
    count = w.shape[-dims - 1] if channels else 1
    data = sum((p.data.u for v in (w, x) if (round_to(v, p.data) != v).any()), Fraction(0))
    batch = np.broadcast_shapes(w.shape[: -dims - channels or None], x.shape[: -dims - channels or None])
    shape = batch if kind == "normwise" else (*batch, *[alg.m] * dims)
    try:
        t = _theorem(alg, p, order, count, channel_sum, dims, data)
    except OverflowError:
        return np.full(shape, np.inf)
    if max(t.total) >= 1:
        return np.full(shape, np.inf)
    relative = np.array([upward(s / (1 - s)) for s in t.total]).reshape([alg.m] * dims)
    weights, tiles = np.abs(w, dtype=np.float64), np.abs(x, dtype=np.float64)
    lost_kernel, lost_input, lost_product, lost_output = t.lost
    with np.errstate(over="ignore", invalid="ignore"):
        U, V = _linear(t.G, weights, dims), _linear(t.BT, tiles, dims)
        # Data outside the data format may also underflow in their rounding: half a subnormal unit each.
        gone = float(p.data.tiny) / 2 if data else 0.0
        U_lost = lost_kernel + _linear(t.G, np.full_like(weights, gone), dims)
        V_lost = lost_input + _linear(t.BT, np.full_like(tiles, gone), dims)
        underflow = U_lost * V + U * V_lost + U_lost * V_lost + lost_product
        products = U * V
        if channels:
            products, underflow = products.sum(axis=-dims - 1), underflow.sum(axis=-dims - 1)
        away = (1.0 + relative) * (_linear(t.AT, underflow, dims) + lost_output)
        # Every sum here has at most this many roundings on a way, all of numbers that are not negative.
        raised = 1.0 + (4 * dims * alg.n + count + 32) * 2.0**-52
        if kind == "componentwise":
            return np.asarray((relative * _linear(t.AT, products, dims) + away) * raised)
        tile = tuple(range(-dims, 0))
        lengths = _length(weights, tile) * _length(tiles, tile)
        if channels:
            lengths = lengths.sum(axis=-1)
        norms = (t.AT.sum(axis=0).max() * np.sqrt((t.G**2).sum()) * np.sqrt((t.BT**2).sum())) ** dims
        return np.asarray((relative.max() * norms * lengths + away.sum(axis=tile)) * raised)


def _linear(matrix: Array, values: Array, dims: int) -> Array:
    for axis in range(-dims, 0):
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ matrix.T, -1, axis)
    return values


def _length(values: Array, axes: tuple[int, ...]) -> Array:
    """Return the Euclidean norm, scaled by a power of two so that no square leaves the range."""
    exponent = np.frexp(values.max(axis=axes, keepdims=True))[1]
    scaled = np.sqrt((np.ldexp(values, -exponent) ** 2).sum(axis=axes))
    return np.asarray(np.ldexp(scaled, np.squeeze(exponent, axes)))


def _theorem(alg: BilinearAlgorithm, p: Policy, order: str, channels: int, channel_sum: str, dims: int, data: Fraction) -> _Theorem:
    programs = programs_of(alg, order)
    output, kernel, input = (
        dots(program, fmt, p.constants)
        for program, fmt in ((programs.output, p.output), (programs.kernel, p.kernel), (programs.input, p.input))
    )
    add_channels: Any = channel_sum_named(channel_sum)
    levels: int = add_channels([0] * channels, lambda a, b: max(a, b) + 1)
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
    beta, gamma = ([max(r for r in dot.roundoff if r is not None) for dot in stage] for stage in (input, kernel))
    axis = [max(r + beta[j] + gamma[j] for j, r in enumerate(dot.roundoff) if r is not None) for dot in output]
    one = axis if dims == 1 else [a + b for a in axis for b in axis]
    formats = (p.kernel, p.input, p.operands, p.product, p.accumulate, p.output)
    # All roundings between two stages together, and what float64 loses below its own range in computing the bound.
    before = 4 * max(float(fmt.tiny) / 2 for fmt in formats) + 2.0**-1055
    return _Theorem(
        AT=_magnitudes(output),
        G=_magnitudes(kernel),
        BT=_magnitudes(input),
        alpha=max(r for dot in output for r in dot.roundoff if r is not None),
        beta=max(beta),
        gamma=max(gamma),
        total=[s + between + data for s in one],
        lost=(_lost(kernel, dims, before), _lost(input, dims, before), before, _lost(output, dims, before)),
    )


def _magnitudes(stage: list[Dot]) -> Array:
    return np.array([[upward(g) for g in dot.magnitude] for dot in stage])


def _conversion(source: Format, target: Format) -> Fraction:
    return target.u if source.p > target.p or source.emin < target.emin else Fraction(0)


def _lost(stage: list[Dot], dims: int, before: float) -> Array:
    """Return what underflow adds to each value of a transformed tile, `before` that of its inputs."""
    own = np.array([upward(dot.underflow) for dot in stage])
    rows = np.array([upward(sum(dot.magnitude, Fraction(0))) for dot in stage])
    first: Array = rows * before + own
    if dims == 1:
        return first + before
    both: Array = first[:, None] * rows[None, :] + own[None, :] + before
    return both

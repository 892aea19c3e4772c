"""Bound the error of an evaluation for given data: a componentwise running bound, computed along the programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import axes_of
from fastconv.arithmetic import Policy, array_reading, carrier, channel_sum_named, round_to, setting_of, two_product, two_sum
from fastconv.error.measure.evaluate import Axes
from fastconv.error.measure.shapes import Array, check_pair
from fastconv.exact import FORMATS, Format, Number, to_sympy
from fastconv.program import Program, Reading, programs_of

_DOUBLE = FORMATS["fp64"]
_SMALLEST = 2.0**-1074
_EXPONENT = np.uint64(0x7FF << 52)


def bound_error(
    alg: Axes,
    w: Any,
    x: Any,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: bool = False,
    channel_sum: str = "linear",
) -> Array:
    """Bound the error of `evaluate` on the same arguments, output by output.

    Parameters
    ----------
    alg, w, x, dims, policy, order, channels, channel_sum
        As for `evaluate`.

    Returns
    -------
    array, (..., m) or (..., m, m)
        In float64, at least ``|evaluate(...) - y|`` with y the exact convolution of w and x as given; inf
        where a value overflows.

    Raises
    ------
    TypeError, ValueError
        For wrong types, shapes or names.

    Notes
    -----
    This is a running bound (Wilkinson): every value that `evaluate` computes carries a bound on its distance from the
    exact one. An operation adds half a unit in the last place of its result to the bounds of its operands. It adds
    nothing if it is exact, which is tested on the values. A constant c that the format does not hold adds
    ``|c - fl(c)| |a|``. The last place of subnormals is their spacing, so gradual underflow needs no special case.
    Data that do not fit the data format start with their rounding error.

    The bounds are sums and products of nonnegative numbers. k roundings in float64 thus lower a bound by at most the
    factor (1 - 2**-53)**k. The code counts k and multiplies the result by 1 + (k + 2) 2**-52.

    Examples
    --------
    >>> from fastconv import evaluate, reference, toom_cook
    >>> alg, w, x = toom_cook(2, 3, [0, 1, -1, "inf"]), np.array([0.1, 0.2, 0.3], "f4"), np.array([1, 0.7, 0.5, 0.3], "f4")
    >>> bool((abs(evaluate(alg, w, x) - reference(w, x)) <= bound_error(alg, w, x)).all())
    True
    """
    axes, setting = axes_of(alg, dims), setting_of(policy, order, 1, channel_sum)
    w, x = check_pair(axes, w, x, channels)
    p, programs = setting.policy, [programs_of(one, order) for one in axes]
    add_channels: Any = channel_sum_named(channel_sum)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        U = _rounded(_transform([one.kernel for one in programs], _given(w, p.data), p.kernel, p.constants), p.operands)
        V = _rounded(_transform([one.input for one in programs], _given(x, p.data), p.input, p.constants), p.operands)
        total = _product(U, V, p)
        if channels:
            terms = _rounded(total, p.accumulate)
            lanes = [Running(v, b, terms.depth) for v, b in zip(*(np.moveaxis(a, -len(axes) - 1, 0) for a in terms[:2]), strict=True)]
            total = add_channels(lanes, _running_reading(p.accumulate, None).add)
        y = _transform([one.output for one in programs], _rounded(total, p.accumulate), p.output, p.constants)
        inflated: Array = y.bound * (1.0 + (y.depth + 2) * 2.0**-52)
    return np.where(np.isfinite(y.value) & ~np.isnan(inflated), inflated, np.inf)


class Running(NamedTuple):
    """A computed value, the bound on its error, and the number of roundings in that bound."""

    value: Array
    bound: Array
    depth: int


class Constant(NamedTuple):
    """A matrix entry as the format holds it, with upper bounds on its magnitude and rounding error."""

    held: Any
    magnitude: float
    gap: float
    bits: int


def enclosure(c: Number) -> tuple[Fraction, Fraction]:
    """Return a rational and a bound on its distance from an exact number; zero for a rational."""
    if isinstance(c, Fraction):
        return c, Fraction(0)
    approximation = Fraction(str(to_sympy(c).evalf(60)))
    return approximation, abs(approximation) / 10**50


def upward(x: Fraction) -> float:
    """Round a rational up to a float."""
    try:
        f = float(x)
    except OverflowError:
        return float("inf")
    return float(np.nextafter(f, np.inf)) if f < x else f


def half_ulp(s: Array, fmt: Format) -> Array:
    """Return half a unit in the last place of values of a format: the largest error of rounding to them."""
    binade = (np.asarray(s, np.float64).view(np.uint64) & _EXPONENT).view(np.float64)
    return np.maximum(binade * 2.0**-fmt.p, max(2.0 ** (fmt.emin - fmt.p), _SMALLEST))


def _times(a: Any, b: Any) -> Array:
    """Multiply bounds: a product that underflows is raised to the next number; zero stays zero."""
    p = np.asarray(a * b)
    low = p < 2.0**-1000
    if low.any():
        p = np.where(low & (a > 0) & (b > 0), p + _SMALLEST, p)
    return p


def _given(values: Array, data: Format) -> Running:
    held = round_to(values, data)
    wide = np.result_type(values.dtype if values.dtype.kind == "f" else np.float64, np.float64)
    gap = np.abs(values.astype(wide) - held.astype(wide)).astype(np.float64)
    return Running(held, gap, 1)


def _rounded(a: Running, fmt: Format) -> Running:
    value = round_to(a.value, fmt)
    exact = value == a.value
    if exact.all():
        return Running(value, a.bound, a.depth)
    return Running(value, a.bound + np.where(exact, 0.0, half_ulp(value, fmt)), a.depth + 1)


def _product(U: Running, V: Running, policy: Policy) -> Running:
    fmt = policy.product
    hold = carrier(fmt)
    if hold is np.float32:  # evaluate multiplies in the carrier of the product's format
        U, V = _rounded(U, fmt), _rounded(V, fmt)
    value = round_to(U.value.astype(hold, copy=False) * V.value.astype(hold, copy=False), fmt)
    bits = 2 * min(policy.operands.p, FORMATS["fp32"].p if hold is np.float32 else 53)
    u, v = (np.abs(a.value, dtype=np.float64) for a in (U, V))
    bound = _times(u, V.bound) + _times(v, U.bound) + _times(U.bound, V.bound) + _slack_of_product(value, U.value, V.value, fmt, bits)
    return Running(value, bound, max(U.depth, V.depth) + 4)


def _slack_of_product(s: Array, a: Any, b: Any, fmt: Format, bits: int) -> Array:
    """Bound ``|s - a b|``, s the rounded product and `bits` the significant bits of a and b together."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if bits <= 53 and fmt is not _DOUBLE:
        return np.where(a * b == s, 0.0, half_ulp(s, fmt))
    high, low = two_product(*np.broadcast_arrays(a, b))
    in_range = (np.abs(high) > 2.0**-960) | (a == 0) | (b == 0)
    whole = (low == 0) & in_range
    slack = np.where(whole & (high == s), 0.0, half_ulp(s, fmt))
    # Where float64 does not hold the product, a narrower format is reached by two roundings.
    return slack if fmt is _DOUBLE else slack + np.where(whole, 0.0, half_ulp(high, _DOUBLE))


def _slack_of_sum(s: Array, a: Array, b: Array, fmt: Format) -> Array:
    """Bound ``|s - (a + b)|``: by Dekker, ``s - a`` or ``s - b`` is exact: that with the larger of a and b."""
    return np.where((s - a == b) & (s - b == a), 0.0, half_ulp(s, fmt))


def _slack_of_fused(s: Array, c: Constant, a: Array, b: Array, fmt: Format) -> Array:
    """Bound ``|s - (c a + b)|``, rounded once in the range where `fused` is exact."""
    wide, addend = np.asarray(a, np.float64), np.asarray(b, np.float64)
    held = np.full_like(wide, c.held)
    high, low = two_product(held, wide)
    if c.bits + fmt.p <= 53:
        low = np.zeros_like(high)
    total, rest = two_sum(high, addend)
    in_range = (np.abs(high) > 2.0**-960) & (np.maximum(np.abs(high), np.abs(wide)) < 2.0**990) | (wide == 0)
    slack = np.where((low == 0) & (rest == 0) & (total == s) & in_range, 0.0, half_ulp(s, fmt))
    if fmt is not _DOUBLE:
        return slack + np.where(low == 0, 0.0, half_ulp(high, _DOUBLE))
    # Outside that range, parts of the product are lost or `fused` rounds twice.
    return slack + np.where(in_range, 0.0, half_ulp(high, fmt) + 8 * _SMALLEST)


@lru_cache(maxsize=64)
def _running_reading(fmt: Format, constants: Format | None) -> Reading[Running, Constant]:
    values = array_reading(fmt, constants)

    def constant(c: Number) -> Constant:
        held = values.constant(c)
        if not np.isfinite(held):
            return Constant(held, float("inf"), float("inf"), 53)
        near, radius = enclosure(c)
        exact = Fraction(float(held))
        odd = abs(exact.numerator)
        bits = (odd // (odd & -odd)).bit_length() if odd else 0
        return Constant(held, upward(abs(near) + radius), upward(abs(near - exact) + radius), bits)

    def carried(c: Constant, a: Running) -> Array:
        passed = _times(c.magnitude, a.bound)
        return passed + _times(c.gap, np.abs(a.value, dtype=np.float64)) if c.gap else passed

    def mul(c: Constant, a: Running) -> Running:
        s = values.mul(c.held, a.value)
        return Running(s, carried(c, a) + _slack_of_product(s, c.held, a.value, fmt, c.bits + fmt.p), a.depth + 3)

    def sum_of(operation: Callable[[Array, Array], Array], sign: int) -> Callable[[Running, Running], Running]:
        def call(a: Running, b: Running) -> Running:
            s = operation(a.value, b.value)
            return Running(s, a.bound + b.bound + _slack_of_sum(s, a.value, sign * b.value, fmt), max(a.depth, b.depth) + 2)

        return call

    def fma(c: Constant, a: Running, b: Running) -> Running:
        s = values.fma(c.held, a.value, b.value)
        bound = carried(c, a) + b.bound + _slack_of_fused(s, c, a.value, b.value, fmt)
        return Running(s, bound, max(a.depth, b.depth) + 5)

    return Reading(
        constant=lru_cache(maxsize=4096)(constant),
        mul=mul,
        add=sum_of(values.add, 1),
        sub=sum_of(values.sub, -1),
        neg=lambda a: Running(-a.value, a.bound, a.depth),
        fma=fma,
    )


def _transform(programs: Sequence[Program], a: Running, fmt: Format, constants: Format | None) -> Running:
    """Apply a program along each tile axis, as `evaluate` does."""
    reading, dims = _running_reading(fmt, constants), len(programs)
    a = _rounded(a, fmt)
    value, bound = (np.ascontiguousarray(np.moveaxis(v, range(-dims, 0), range(dims))) for v in (a.value, a.bound))
    depth = a.depth
    for axis, program in enumerate(programs):
        lanes = [Running(v, b, depth) for v, b in zip(np.moveaxis(value, axis, 0), np.moveaxis(bound, axis, 0), strict=True)]
        rows = program.read(lanes, reading)
        value, bound = (np.stack([row[part] for row in rows], axis) for part in (0, 1))
        depth = max(row.depth for row in rows)
    return Running(np.moveaxis(value, range(dims), range(-dims, 0)), np.moveaxis(bound, range(dims), range(-dims, 0)), depth)

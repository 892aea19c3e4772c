"""Certify a constant: the worst error of an evaluation over a box of inputs, in exact arithmetic rounded upwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm, axes_of
from fastconv.arithmetic import Policy, Setting, carrier, channel_sum_named, setting_of
from fastconv.error.bound.running import enclosure, upward
from fastconv.error.measure.evaluate import Axes
from fastconv.error.measure.shapes import Array
from fastconv.exact import Format, Number, rounded
from fastconv.program import Program, Programs, Reading, is_power_of_two, programs_of

_KEPT_BITS = 80
"""Significant bits that errors are rounded up to, to keep their denominators short."""
_IRRATIONAL = Fraction(1, 10**40)
"""Largest error of a coefficient from 50-digit irrational entries, relative to the sum of its terms."""

Form = tuple[Fraction, ...]


class Worst(NamedTuple):
    """A value of a program over the box: its exact coefficients, the sum of their terms' magnitudes, its worst error."""

    form: Form
    terms: Fraction
    error: Fraction


class OverflowOfBoxError(ArithmeticError):
    """A value of the box leaves the range of its format."""


def certified_constant(
    alg: Axes,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
    box: tuple[Any, Any] = (1, 1),
    finite: bool = False,
) -> float:
    """Return a certified bound on the error of `evaluate` for all inputs in a box.

    Parameters
    ----------
    alg, dims, policy, order, channel_sum
        As for `evaluate`.
    channels : int
        Channels summed over.
    box : tuple of two numbers
        The largest ``|w|`` and the largest ``|x|``; the inputs are any numbers of the policy's data format up to them.
    finite : bool
        Count only inputs for which no value overflows: an overflow shows as inf or NaN in the result.

    Returns
    -------
    float
        An upper bound on ``|y^ - y|`` for every output; inf if a value of the box may overflow, unless `finite`.

    Raises
    ------
    TypeError, ValueError
        For wrong types, unknown names, or a box that is not positive.

    Notes
    -----
    Every value that the programs compute is a linear form in w or in x, or a bilinear one in both. Its exact magnitude
    over the box is at most the sum of its coefficients' magnitudes, which accounts for cancellation. This magnitude and
    the error so far limit the binade of the computed value, and thus its rounding error. All numbers are rationals,
    rounded upwards.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> round(certified_constant(toom_cook(2, 3, [0, 1, -1, "inf"])) * 2**24, 3)
    21.0
    """
    setting = setting_of(policy, order, channels, channel_sum)
    return float(certified_errors(axes_of(alg, dims), setting, box, finite).max())


def certified_errors(axes: Sequence[BilinearAlgorithm], setting: Setting, box: tuple[Any, Any] = (1, 1), finite: bool = False) -> Array:
    """Return the certified bound of each output of a tile, as an array (m,) or (m, m)."""
    p, channels = setting.policy, setting.channels
    box_w, box_x = (_positive(name, value) for name, value in zip(("w", "x"), box, strict=True))
    programs = [programs_of(alg, setting.order) for alg in axes]
    add_channels: Any = channel_sum_named(setting.channel_sum)
    rounding = _Rounding(finite)
    shape = [alg.m for alg in axes]
    try:
        U = rounding.transformed([one.kernel for one in programs], p, p.kernel, box_w)
        V = rounding.transformed([one.input for one in programs], p, p.input, box_x)
        shared = cache(lambda u, v: _channel_sum(rounding, p, u, v, channels, add_channels))
        sums = [shared(u, v) for u, v in zip(U, V, strict=True)]
        errors = _outputs(rounding, programs, p, sums, box_w * box_x * channels)
    except OverflowOfBoxError:
        return np.full(shape, np.inf)
    return np.array([upward(e) for e in errors]).reshape(shape)


def _positive(name: str, value: Any) -> Fraction:
    try:
        exact = Fraction(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"the box for {name} is {value!r}: pass the largest magnitude as a finite number") from None
    if exact <= 0:
        raise ValueError(f"the box for {name} is {value!r}: pass the largest magnitude, a positive number")
    return exact


def _ceiling(x: Fraction) -> Fraction:
    """Round up to `_KEPT_BITS` bits."""
    shift = _KEPT_BITS - (x.numerator.bit_length() - x.denominator.bit_length())
    if x.denominator.bit_length() <= _KEPT_BITS or x == 0:
        return x
    scale = Fraction(2) ** shift
    return Fraction(-(-(x * scale).numerator // (x * scale).denominator)) / scale


def _norm(a: Worst) -> Fraction:
    """Bound the exact magnitude of a linear form for inputs up to one."""
    return sum(map(abs, a.form), Fraction(0)) + _IRRATIONAL * a.terms


class _Rounding(NamedTuple):
    """The worst rounding errors of operations on values of bounded magnitude."""

    finite: bool

    def cost(self, largest: Fraction, fmt: Format, sums: bool = False) -> Fraction:
        """Bound the rounding error of any value of magnitude up to `largest`; sums do not round among the subnormals."""
        # Rounding overflows from half a unit above the largest number.
        if largest >= fmt.largest + fmt.u * Fraction(2) ** fmt.emax:
            if not self.finite:
                raise OverflowOfBoxError
            largest = fmt.largest
        if largest <= Fraction(2) ** fmt.emin:
            return Fraction(0) if sums else min(fmt.tiny / 2, largest)
        exponent = largest.numerator.bit_length() - largest.denominator.bit_length()
        if Fraction(2) ** exponent >= largest:
            exponent -= 1  # 2**exponent < largest <= 2**(exponent + 1)
        power = Fraction(2) ** exponent
        below = Fraction(0) if sums and exponent <= fmt.emin else fmt.u * power / 2
        return max(below, min(fmt.u * power, largest - power))

    def converted(self, magnitude: Fraction, error: Fraction, source: Format, target: Format) -> Fraction:
        """Return an error plus that of a conversion between formats."""
        if source.p <= target.p and source.emin >= target.emin and source.largest <= target.largest:
            return error
        return error + self.cost(magnitude + error, target)

    def reading(self, fmt: Format, constants: Format | None, bound: Callable[[Worst], Fraction]) -> Reading[Worst, Any]:
        """Return the reading for one transform; `bound` gives the exact magnitude of a value over the box."""

        def constant(c: Number) -> tuple[Fraction, Fraction, bool, bool]:
            near, radius = enclosure(c)
            with np.errstate(over="ignore"):
                held = float(carrier(fmt)(rounded(c, constants or fmt)))
            if not np.isfinite(held):
                raise OverflowOfBoxError
            gap = abs(near - Fraction(held)) + radius
            twice = fmt.p < 24 and (constants or fmt).p + fmt.p > 53
            return near, gap, is_power_of_two(c) and not gap, twice

        def scaled(c: tuple[Fraction, Fraction, bool, bool], a: Worst) -> tuple[Form, Fraction, Fraction]:
            near, gap, _, _ = c
            magnitude = abs(near) * (1 + Fraction(1, 10**50))
            error = (magnitude * a.error) + (gap * (bound(a) + a.error) if gap else 0)
            return tuple(near * f for f in a.form), magnitude * a.terms, error

        def finished(form: Form, terms: Fraction, error: Fraction, sums: bool, exact: bool, twice: bool = False) -> Worst:
            largest = bound(Worst(form, terms, error)) + error
            if exact:  # only underflow rounds, so only overflow is checked
                own = self.cost(min(largest, Fraction(2) ** fmt.emin), fmt)
                self.cost(largest, fmt)
            else:
                own = self.cost(largest, fmt, sums) + (largest / 2**53 if twice else 0)
            return Worst(form, terms, _ceiling(error + own))

        def mul(c: Any, a: Worst) -> Worst:
            near, _, exact, twice = c
            form, terms, error = scaled(c, a)
            if exact and abs(near) >= 1:
                self.cost(bound(Worst(form, terms, error)) + error, fmt)
                return Worst(form, terms, _ceiling(error))
            return finished(form, terms, error, False, exact, twice)

        def add(a: Worst, b: Worst, sign: int = 1) -> Worst:
            form = tuple(f + sign * g for f, g in zip(a.form, b.form, strict=True))
            return finished(form, a.terms + b.terms, a.error + b.error, True, False)

        def fma(c: Any, a: Worst, b: Worst) -> Worst:
            form, terms, error = scaled(c, a)
            total = tuple(f + g for f, g in zip(form, b.form, strict=True))
            # A product that the carrier does not hold is rounded too, and its parts below the range of float64 are lost.
            own = (bound(Worst(form, terms, error)) + error) / 2**53 if c[3] else Fraction(0)
            own += Fraction(8, 2**1074) if fmt.p == 53 else 0
            return finished(total, terms + b.terms, error + b.error + own, False, False, c[3])

        return Reading(
            constant=constant,
            mul=mul,
            add=add,
            sub=lambda a, b: add(a, b, -1),
            neg=lambda a: Worst(tuple(-f for f in a.form), a.terms, a.error),
            fma=fma,
        )

    def transformed(self, programs: Sequence[Program], p: Policy, fmt: Format, box: Fraction) -> list[tuple[Fraction, Fraction]]:
        """Return exact magnitude and error of the transformed data, row by row of the tile."""
        norm = cache(_norm)
        start = self.converted(box, Fraction(0), p.data, fmt)

        def along(program: Program, size: Fraction, error: Fraction) -> list[tuple[Fraction, Fraction]]:
            rows = program.read(_units(program.inputs, [error] * program.inputs), self.reading(fmt, p.constants, lambda a: size * norm(a)))
            return [(size * norm(row), row.error) for row in rows]

        values = [(box, start)]
        for program in programs:  # all columns are alike: one first pass, each row of its result feeds the second
            values = [v for size, error in values for v in along(program, size, error)]
        return [(size, self.converted(size, error, fmt, p.operands)) for size, error in values]


def _units(size: int, errors: Sequence[Fraction]) -> list[Worst]:
    return [Worst(tuple(Fraction(int(i == j)) for i in range(size)), Fraction(1), errors[j]) for j in range(size)]


def _channel_sum(
    rounding: _Rounding, p: Policy, u: tuple[Fraction, Fraction], v: tuple[Fraction, Fraction], channels: int, add_channels: Any
) -> Fraction:
    """Return the error of a product summed over the channels."""
    (size_u, error_u), (size_v, error_v) = ((s, rounding.converted(s, e, p.operands, _held(p))) for s, e in (u, v))
    size = size_u * size_v
    error = size_u * error_v + size_v * error_u + error_u * error_v
    largest = size + error
    twice = largest / 2**53 if p.product.p < 24 and 2 * p.operands.p > 53 else 0
    error = rounding.converted(size, _ceiling(error + rounding.cost(largest, p.product) + twice), p.product, p.accumulate)

    def add(a: tuple[int, Fraction], b: tuple[int, Fraction]) -> tuple[int, Fraction]:
        terms, before = a[0] + b[0], a[1] + b[1]
        return terms, _ceiling(before + rounding.cost(terms * size + before, p.accumulate, sums=True))

    total: tuple[int, Fraction] = add_channels([(1, error)] * channels, cache(add))
    return rounding.converted(channels * size, total[1], p.accumulate, p.output)


def _held(p: Policy) -> Format:
    """Return the format that `evaluate` multiplies in: that of the product where its carrier is float32."""
    return p.product if carrier(p.product) is np.float32 else p.operands


class _Axis:
    """The output transform along an axis, with its values as bilinear forms in w and x."""

    def __init__(self, programs: Programs) -> None:
        self.program = programs.output
        kernel, input = _rational(programs.kernel), _rational(programs.input)
        self.loose = [sum(map(abs, g), Fraction(0)) * sum(map(abs, b), Fraction(0)) for g, b in zip(kernel, input, strict=True)]
        # From a form in the products to its bilinear form in w and x, entry by entry.
        self._outer = [[g * b for g in row for b in other] for row, other in zip(kernel, input, strict=True)]
        self._size_of = cache(self._size)

    def _size(self, form: Form) -> Fraction:
        used = [(f, row) for f, row in zip(form, self._outer, strict=True) if f]
        return sum((abs(sum((f * row[k] for f, row in used), Fraction(0))) for k in range(len(self._outer[0]))), Fraction(0))

    def size(self, a: Worst) -> Fraction:
        """Bound the exact magnitude of a value for inputs up to one, with cancellation of products."""
        return _ceiling(self._size_of(a.form)) + _IRRATIONAL * a.terms * max(self.loose)

    def read(self, rounding: _Rounding, p: Policy, errors: Sequence[Fraction], scale: Fraction) -> list[Worst]:
        """Return the outputs for products with these errors; magnitudes are multiples of `scale`."""
        reading = rounding.reading(p.output, p.constants, lambda a: scale * self.size(a))
        return self.program.read(_units(len(self.loose), errors), reading)


def _outputs(rounding: _Rounding, programs: Sequence[Programs], p: Policy, sums: list[Fraction], scale: Fraction) -> list[Fraction]:
    """Return the error of each output, with magnitudes of bilinear forms in w and x."""
    first, *rest = (_Axis(one) for one in programs)
    if not rest:
        return [row.error for row in first.read(rounding, p, sums, scale)]
    (second,) = rest
    count = len(second.loose)
    columns = [first.read(rounding, p, sums[k::count], scale * second.loose[k]) for k in range(count)]
    outputs = []
    for i, row in enumerate(columns[0]):
        outputs += [one.error for one in second.read(rounding, p, [column[i].error for column in columns], scale * first.size(row))]
    return outputs


def _rational(program: Program) -> list[Form]:
    """Return a program's matrix in rationals, irrational entries to 50 digits."""
    form: Reading[Form, Fraction] = Reading(
        constant=lambda c: enclosure(c)[0],
        mul=lambda c, a: tuple(c * f for f in a),
        add=lambda a, b: tuple(f + g for f, g in zip(a, b, strict=True)),
        sub=lambda a, b: tuple(f - g for f, g in zip(a, b, strict=True)),
        neg=lambda a: tuple(-f for f in a),
        fma=lambda c, a, b: tuple(c * f + g for f, g in zip(a, b, strict=True)),
    )
    return program.read([u.form for u in _units(program.inputs, [Fraction(0)] * program.inputs)], form)

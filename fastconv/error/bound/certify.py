"""Certify a constant: the worst error of an evaluation over a box of inputs, in exact arithmetic rounded upwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, carrier, channel_sum_named, policy_named
from fastconv.error.bound.running import enclosure, upward
from fastconv.error.measure.shapes import Array, by_name, check_count, check_dims
from fastconv.exact import Format, Number, rounded
from fastconv.program import Program, Reading, is_power_of_two, programs_of

_KEPT_BITS = 80
"""Significant bits that errors are rounded up to, lest their denominators grow without end."""
_IRRATIONAL = Fraction(1, 10**40)
"""What approximations of irrational entries to 50 digits can change in a coefficient, against the sum of its terms."""

Form = tuple[Fraction, ...]


class Worst(NamedTuple):
    """A value of a program over the box: its exact coefficients, the sum of their terms' magnitudes, its worst error."""

    form: Form
    terms: Fraction
    error: Fraction


class OverflowOfBoxError(ArithmeticError):
    """A value of the box leaves the range of its format."""


@by_name
def certified_constant(
    alg: BilinearAlgorithm,
    dims: int = 1,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
    box: tuple[Any, Any] = (1, 1),
    finite: bool = False,
) -> float:
    """Certify a number that no error of `evaluate` exceeds, whatever the inputs in a box.

    Parameters
    ----------
    alg, dims, policy, order, channel_sum
        As `evaluate` takes them.
    channels : int
        Channels summed over.
    box : tuple of two numbers
        The largest ``|w|`` and the largest ``|x|``; the inputs are any numbers of the policy's data format up to them.
    finite : bool
        Count only inputs for which no value overflows: an overflow shows itself as inf or NaN in the result.

    Returns
    -------
    float
        An upper bound on ``|y^ - y|`` for every output; inf where the box lets a value overflow, unless `finite`.

    Raises
    ------
    TypeError, ValueError
        For wrong kinds, unknown names, or a box that is not positive.

    Notes
    -----
    Every value that the programs compute is a linear form in w or in x, or a bilinear one in both; its exact magnitude
    over the box is at most the sum of its coefficients' magnitudes, which sees the cancellation that sums of
    magnitudes do not. Magnitude and error so far say in which binade the computed value can lie, and with that what its
    rounding can cost. All in rationals, rounded upwards.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> round(certified_constant(toom_cook(2, 3, [0, 1, -1, "inf"])) * 2**24, 3)
    21.0
    """
    errors = certified_errors(alg, dims, policy, order, channels, channel_sum, box, finite)
    return float(errors.max())


def certified_errors(
    alg: BilinearAlgorithm,
    dims: int = 1,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
    box: tuple[Any, Any] = (1, 1),
    finite: bool = False,
) -> Array:
    """Certify each output of a tile as `certified_constant` does their largest: an array (m,) or (m, m)."""
    check_dims(dims)
    check_count("channels", channels)
    p = policy_named(policy)
    box_w, box_x = (_positive(name, value) for name, value in zip(("w", "x"), box, strict=True))
    programs = programs_of(alg, order)
    add_channels: Any = channel_sum_named(channel_sum)
    rounding = _Rounding(finite)
    try:
        U = rounding.transformed(programs.kernel, p.data, p.kernel, p.operands, p.constants, dims, box_w)
        V = rounding.transformed(programs.input, p.data, p.input, p.operands, p.constants, dims, box_x)
        shared = cache(lambda u, v: _channel_sum(rounding, p, u, v, channels, add_channels))
        sums = [shared(u, v) for u, v in zip(U, V, strict=True)]
        errors = _outputs(rounding, programs, p, dims, sums, (box_w, box_x), channels)
    except OverflowOfBoxError:
        return np.full([alg.m] * dims, np.inf)
    return np.array([upward(e) for e in errors]).reshape([alg.m] * dims)


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
    """The worst that operations on magnitudes up to a bound can cost."""

    finite: bool

    def cost(self, largest: Fraction, fmt: Format, sums: bool = False) -> Fraction:
        """Bound the rounding error of any value of magnitude up to `largest`; sums do not round among the subnormals."""
        # From here on the result is rounded beyond the largest number: half a unit above it.
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
        """Add to an error that of a conversion between formats."""
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
            if exact:  # only underflow rounds, and only overflow is to be looked for
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
            # The product, which may be larger than the sum, is rounded too where the carrier does not hold it; and parts of it that
            # are below the range of float64 are lost.
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

    def transformed(
        self, program: Program, data: Format, fmt: Format, operands: Format, constants: Format | None, dims: int, box: Fraction
    ) -> list[tuple[Fraction, Fraction]]:
        """Return exact magnitude and error of the transformed data, row by row of the tile."""
        norm = cache(_norm)
        start = self.converted(box, Fraction(0), data, fmt)

        def along(error: Fraction, size: Fraction) -> list[tuple[Fraction, Fraction]]:
            rows = program.read(_units(program.inputs, [error] * program.inputs), self.reading(fmt, constants, lambda a: size * norm(a)))
            return [(size * norm(row), row.error) for row in rows]

        values = along(start, box)
        if dims == 2:  # all columns are alike, so the first pass is one; a row of its result feeds the second
            values = [v for size, error in values for v in along(error, size)]
        return [(size, self.converted(size, error, fmt, operands)) for size, error in values]


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


def _outputs(
    rounding: _Rounding, programs: Any, p: Policy, dims: int, sums: list[Fraction], box: tuple[Fraction, Fraction], channels: int
) -> list[Fraction]:
    """Return the error of each output; magnitudes are those of bilinear forms in w and x, products cancelled."""
    kernel, input = (_rational(program) for program in (programs.kernel, programs.input))
    n = len(kernel)
    loose = [sum(map(abs, g), Fraction(0)) * sum(map(abs, b), Fraction(0)) for g, b in zip(kernel, input, strict=True)]
    # From a form in the products to its bilinear form in w and x, entry by entry.
    outer = [[g * b for g in kernel[j] for b in input[j]] for j in range(n)]

    @cache
    def size_of(form: Form) -> Fraction:
        used = [(f, outer[j]) for j, f in enumerate(form) if f]
        return sum((abs(sum((f * row[k] for f, row in used), Fraction(0))) for k in range(len(outer[0]))), Fraction(0))

    def bilinear(a: Worst) -> Fraction:
        return _ceiling(size_of(a.form)) + _IRRATIONAL * a.terms * max(loose)

    scale = box[0] * box[1] * channels

    def along(errors: Sequence[Fraction], other: Fraction) -> list[Worst]:
        return programs.output.read(  # type: ignore[no-any-return]
            _units(n, errors), rounding.reading(p.output, p.constants, lambda a: scale * other * bilinear(a))
        )

    if dims == 1:
        return [row.error for row in along(sums, Fraction(1))]
    columns = [along([sums[j * n + k] for j in range(n)], loose[k]) for k in range(n)]
    outputs = []
    for i in range(len(columns[0])):
        outputs += [row.error for row in along([columns[k][i].error for k in range(n)], bilinear(columns[0][i]))]
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

"""Number formats, and the one rounding from exact numbers to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from fastconv.exact.numbers import Number, to_sympy


@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point format with gradual underflow.

    Attributes
    ----------
    name : str
        Name of the format.
    p : int
        Bits of the significand, including the hidden one; the unit roundoff is ``2**-p``.
    emin, emax : int
        Exponents of the smallest normal number ``2**emin`` and of the largest binade.
    top : int
        Largest significand of the top binade, in units of its last place: ``2**p - 1`` in IEEE formats,
        less in formats that use their last codes for NaN.
    overflow : float
        Result of an overflow: inf, or NaN in formats without infinity.
    dtype : str
        Name of the type of numpy, or of ml_dtypes, that holds such numbers; empty if there is none.
    aliases : tuple of str
        Other names.
    """

    name: str
    p: int
    emin: int
    emax: int
    top: int
    overflow: float = float("inf")
    dtype: str = field(default="", compare=False, repr=False)
    aliases: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def u(self) -> Fraction:
        """Unit roundoff."""
        return Fraction(1, 2**self.p)

    @property
    def largest(self) -> Fraction:
        """The largest finite number."""
        return Fraction(self.top) * Fraction(2) ** (self.emax - self.p + 1)

    @property
    def tiny(self) -> Fraction:
        """The smallest positive number, a subnormal; also the spacing of all subnormals."""
        return Fraction(2) ** (self.emin - self.p + 1)


def _ieee(name: str, bits: int, exponent: int, dtype: str = "", aliases: tuple[str, ...] = ()) -> Format:
    emax = 2 ** (exponent - 1) - 1
    p = bits - exponent
    return Format(name, p, 1 - emax, emax, 2**p - 1, dtype=dtype, aliases=aliases)


FORMATS = {
    f.name: f
    for f in (
        _ieee("fp64", 64, 11, "float64"),
        _ieee("fp32", 32, 8, "float32"),
        _ieee("tf32", 19, 8),
        _ieee("bf16", 16, 8, "bfloat16"),
        _ieee("fp16", 16, 5, "float16"),
        _ieee("fp8_e5m2", 8, 5, "float8_e5m2", ("e5m2", "fp8-e5m2")),
        Format("fp8_e4m3", 4, -6, 8, 14, float("nan"), "float8_e4m3fn", ("e4m3", "fp8-e4m3")),
    )
}
"""Formats by name. ``fp8_e4m3`` is the OCP format without infinity, whose largest number is 448."""

_NAMED = FORMATS | {alias: fmt for fmt in FORMATS.values() for alias in fmt.aliases}
_OF_DTYPE = {fmt.dtype: fmt for fmt in FORMATS.values() if fmt.dtype}


def format_named(name: str | Format) -> Format:
    """Return the format of that name.

    Raises
    ------
    ValueError
        Lists the known formats.

    Examples
    --------
    >>> format_named("bf16").p
    8
    """
    if isinstance(name, Format):
        return name
    found = _NAMED.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"unknown format {name!r}: the formats are {', '.join(FORMATS)}")
    return found


def dtype_of(given: Any) -> np.dtype[Any]:
    """Return the numpy dtype of a dtype, a format's name or an ml_dtypes type's name.

    Raises
    ------
    TypeError
        If there is no such type, or numpy has no dtype for the format.

    Examples
    --------
    >>> dtype_of("fp16"), dtype_of("bf16")
    (dtype('float16'), dtype(bfloat16))
    """
    names = {fmt.name: fmt.dtype for fmt in _OF_DTYPE.values()}
    name = names.get(given, given) if isinstance(given, str) else given
    if isinstance(name, str) and name in _OF_DTYPE and not hasattr(np, name):
        import ml_dtypes

        name = getattr(ml_dtypes, name)
    try:
        found: np.dtype[Any] = np.dtype(name)
        return found
    except TypeError:
        raise TypeError(f"{given!r} is not a supported dtype: use one of {', '.join((*names, *_OF_DTYPE))}") from None


def format_of_dtype(dtype: Any) -> Format:
    """Return the format of a numpy dtype (float64, float32, float16, or one of ml_dtypes)."""
    name = dtype_of(dtype).name
    if name not in _OF_DTYPE:
        raise TypeError(f"dtype {name} is not a floating-point format: use one of {', '.join(_OF_DTYPE)}")
    return _OF_DTYPE[name]


def round_rational(x: Fraction, fmt: Format) -> Fraction | None:
    """Round a rational to the nearest number of a format, ties to even; None where it overflows.

    Examples
    --------
    >>> round_rational(Fraction(1) + Fraction(1, 256) + Fraction(1, 2**40), FORMATS["bf16"])
    Fraction(129, 128)
    """
    if x == 0:
        return x
    a = abs(x)
    e = a.numerator.bit_length() - a.denominator.bit_length()
    if a < Fraction(2) ** e:
        e -= 1
    spacing = Fraction(2) ** (max(e, fmt.emin) - fmt.p + 1)
    rounded = round(x / spacing) * spacing  # Python rounds a Fraction to the nearest integer, ties to even
    return None if abs(rounded) > fmt.largest else rounded


def rounded(x: Number, fmt: Format) -> float:
    """Round an exact number to a format, once; a Python float holds the result exactly.

    Raises
    ------
    ValueError
        If `x` holds symbols.
    """
    if isinstance(x, Fraction):
        r = round_rational(x, fmt)
        return float(r) if r is not None else (fmt.overflow if x > 0 else -fmt.overflow)
    if x.free_symbols:
        names = ", ".join(sorted(map(str, x.free_symbols)))
        raise ValueError(f"{x} holds the symbol {names}: replace it by a number first, with alg.subs({names}, value)")
    digits = 30
    while True:  # An irrational number is never a tie, so some precision decides.
        approx, slack = _enclosure(x, digits)
        low, high = round_rational(approx - slack, fmt), round_rational(approx + slack, fmt)
        if low == high:
            return rounded(approx, fmt)
        digits *= 2


def _enclosure(x: Any, digits: int) -> tuple[Fraction, Fraction]:
    """Return a rational and a bound on its distance from the real algebraic number `x`."""
    value = to_sympy(x).evalf(digits, maxn=10000)
    sign, mantissa, exponent, _ = value._mpf_
    approx = Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent
    return approx, (abs(approx) + Fraction(1, 10**digits)) * Fraction(1, 10 ** (digits - 2))

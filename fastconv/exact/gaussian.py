"""Gaussian rationals: complex interpolation points with rational parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_TEXT = re.compile(r"(?:(?P<re>[+-]?[\d./]+)(?=[+-]))?(?P<sign>[+-]?)(?:(?P<im>[\d./]+)\*?)?I")


@dataclass(frozen=True)
class Gaussian:
    """A complex number ``re + im*I`` with rational parts, written ``"3/5+4/5*I"``.

    As a point of `toom_cook` it represents itself and its conjugate.

    Examples
    --------
    >>> Gaussian(Fraction(3, 5), Fraction(4, 5)) * Gaussian(Fraction(0), Fraction(1))
    -4/5+3/5*I
    """

    re: Fraction
    im: Fraction

    def __repr__(self) -> str:
        im = "" if abs(self.im) == 1 else f"{abs(self.im)}*"
        return f"{self.re or ''}{'-' if self.im < 0 else '+' if self.re else ''}{im}I"

    __str__ = __repr__

    def __add__(self, other: Gaussian | Fraction) -> Gaussian:
        o = gaussian(other)
        return Gaussian(self.re + o.re, self.im + o.im)

    def __sub__(self, other: Gaussian | Fraction) -> Gaussian:
        return self + -gaussian(other)

    def __neg__(self) -> Gaussian:
        return Gaussian(-self.re, -self.im)

    def __mul__(self, other: Gaussian | Fraction) -> Gaussian:
        o = gaussian(other)
        return Gaussian(self.re * o.re - self.im * o.im, self.re * o.im + self.im * o.re)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Gaussian | Fraction) -> Gaussian:
        o = gaussian(other)
        return self * o.conjugate * Gaussian(1 / o.norm, Fraction(0))

    def __pow__(self, exponent: int) -> Gaussian:
        power = Gaussian(Fraction(1), Fraction(0))
        for _ in range(exponent):
            power = power * self
        return power

    @property
    def conjugate(self) -> Gaussian:
        """The complex conjugate."""
        return Gaussian(self.re, -self.im)

    @property
    def norm(self) -> Fraction:
        """The square of the magnitude."""
        return self.re * self.re + self.im * self.im


def gaussian(value: Gaussian | Fraction) -> Gaussian:
    """Return a rational number as a complex one."""
    return value if isinstance(value, Gaussian) else Gaussian(value, Fraction(0))


def gaussian_of_text(text: str) -> Gaussian | None:
    """Read ``"3/5+4/5*I"`` or ``"-I"``; return None for other text."""
    match = _TEXT.fullmatch(text.replace(" ", ""))
    if match is None:
        return None
    try:
        re, im = Fraction(match["re"] or 0), Fraction(match["im"] or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return Gaussian(re, -im if match["sign"] == "-" else im)


def half_angle_root(z: Gaussian) -> Gaussian | None:
    """Return a number with half the angle of `z` and magnitude near one, or None.

    Every rational point of the unit circle is the square of a Gaussian number over its norm. That number is 1 + z, because
    the diagonal of a rhombus halves its angle. Points off the circle have none. Powers of I are the cheapest
    constants and are not rotated.
    """
    if z.norm != 1 or z.im == 0 or z.re == 0:
        return None
    root = z + Fraction(1)
    length = Fraction(float(root.norm) ** 0.5).limit_denominator(16)
    return root / max(length, Fraction(1, 16))

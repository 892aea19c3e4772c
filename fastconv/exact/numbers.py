"""Read exact numbers: rationals, real algebraic numbers, expressions in symbols, and infinity."""

from __future__ import annotations

import ast
import enum
import math
import numbers
import operator
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from fastconv.exact.gaussian import Gaussian, gaussian_of_text

Number: TypeAlias = Any
"""A `Fraction`, or a sympy expression if the number is irrational or contains symbols."""

_KINDS = "pass an int, a Fraction, a string such as '1/2' or a real sympy expression"
_LARGEST_EXPONENT = 64
_LONGEST_TEXT = 2000
_MOST_BITS = 2**14
"""Bits of a numerator or denominator: far beyond the exponents of any format."""
_HIGHEST_DEGREE = 256
"""Degree of an expression in its symbols."""
_MOST_ROOTS, _LARGEST_DEGREE = 3, 64
"""Distinct roots of a field, and its degree over the rationals: arithmetic in larger fields takes minutes."""
_EXPONENT = re.compile(r"e[+-]?0*(\d+)", re.IGNORECASE)
_SYMBOL = re.compile(r"[A-Za-z]_?\d*")
_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi chi psi omega".split()
)
_NAMES = "names are symbols of one letter (c, x2), Greek letters, sqrt(...) and GoldenRatio"


class Infinity(enum.Enum):
    """The point at infinity of the modified Toom-Cook algorithm."""

    INF = "inf"

    def __repr__(self) -> str:
        return "inf"

    __str__ = __repr__


INF = Infinity.INF

PLAIN = (Fraction, Infinity, Gaussian)
"""Types of numbers and points that are neither irrational nor symbolic."""


def _is_sympy(value: Any) -> bool:
    """Tell whether `value` is a sympy object, without importing sympy."""
    sympy = sys.modules.get("sympy")
    return sympy is not None and isinstance(value, sympy.Basic)


def exact_number(value: Any) -> Number:
    """Return `value` as an exact real number.

    Parameters
    ----------
    value : int, Fraction, str or sympy expression
        Text is ``"p/q"``, a decimal, or an expression such as ``"sqrt(2)/2"`` or ``"-1/c"``.

    Returns
    -------
    Fraction or sympy expression
        A `Fraction` wherever the number is rational.

    Raises
    ------
    TypeError
        For a float or any other inexact or unsupported type.
    ValueError
        For a NaN, text that is not a number, or a number that is not real and finite.

    Examples
    --------
    >>> exact_number("5/8")
    Fraction(5, 8)
    """
    if isinstance(value, Fraction):
        return value
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is a bool: {_KINDS}")
    if isinstance(value, numbers.Rational):
        return Fraction(int(value.numerator), int(value.denominator))
    if isinstance(value, str):
        return _parse(value)
    if _is_sympy(value):
        return _from_sympy(value)
    kind = type(value).__name__
    if isinstance(value, numbers.Real):
        if value != value:
            raise ValueError(f"{value!r} is not a number: give an exact one, such as Fraction(1, 2) or '1/2'")
        raise TypeError(f"{value!r} is a {kind}, which is not exact: pass a string such as '1/2' or a Fraction")
    raise TypeError(f"{value!r} is a {kind}: {_KINDS}")


def exact_point(value: Any) -> Number:
    """Return an interpolation point: an exact number, a `Gaussian`, or `INF` (also written ``"inf"``, or sympy's ``oo``).

    Examples
    --------
    >>> exact_point("5/13 + 12/13*I")
    5/13+12/13*I
    """
    if isinstance(value, Gaussian):
        return value if value.im else value.re
    if isinstance(value, str) and (z := gaussian_of_text(value)):
        return z
    if value is INF or (isinstance(value, str) and value.strip().lower() in ("inf", "oo", "infinity")):
        return INF
    if _is_sympy(value) and value.is_infinite and value.is_extended_positive:
        return INF
    return exact_number(value)


def _from_sympy(value: Any) -> Number:
    import sympy

    if not isinstance(value, sympy.Expr):
        raise TypeError(f"{value!r} is a sympy {type(value).__name__}: pass a real expression")
    if value is sympy.nan:
        raise ValueError("nan is not a number: give an exact one, such as Fraction(1, 2) or '1/2'")
    if value.has(sympy.Float):
        raise TypeError(f"{value} holds a float, which is not exact: pass a string such as '1/2' or a Fraction")
    known_real = value.is_real is not False if value.free_symbols else value.is_real is True
    if value.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan) or not known_real:
        raise ValueError(f"{value} is not a finite real number: points are real, or 'inf'")
    if value.is_Rational:
        return Fraction(int(value.p), int(value.q))
    check_roots([value])
    return value


def check_roots(values: Iterable[Number]) -> None:
    """Reject numbers whose common field is too large to compute in.

    Raises
    ------
    ValueError
        If they contain more than three distinct roots, or roots whose degrees multiply to more than 64.
    """
    import sympy

    roots: dict[Any, int] = {}
    for value in values:
        for power in value.atoms(sympy.Pow):
            if power.exp.is_Rational and not power.exp.is_Integer:
                for base in _parts(power.base):
                    roots[base] = math.lcm(roots.get(base, 1), int(power.exp.q))
    if len(roots) > _MOST_ROOTS or math.prod(roots.values()) > _LARGEST_DEGREE:
        named = ", ".join(str(base)[:20] for base in list(roots)[:4])
        limits = f"at most {_MOST_ROOTS}, whose degrees multiply to at most {_LARGEST_DEGREE}"
        raise ValueError(f"the numbers hold {len(roots)} different roots (of {named}): {limits}, are supported; choose simpler points")


def _parts(base: Any) -> list[Any]:
    """Return the prime factors of a rational number, so that sqrt(6) adds no root to sqrt(2) and sqrt(3)."""
    import sympy

    if not base.is_Rational or max(abs(base.p), base.q) >= 2**48:
        return [base]
    return [*sympy.factorint(abs(base.p)), *sympy.factorint(base.q)]


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _parse(text: str) -> Number:
    """Read a number from text by walking its syntax tree: only arithmetic is evaluated."""
    refusal = ValueError(f"{text[:80]!r} is not an exact real number: write it as 'p/q', '0.25', 'sqrt(2)/2' or '-1/c'")
    if len(text) > _LONGEST_TEXT or any(len(found) > 4 or int(found) > _MOST_BITS // 4 for found in _EXPONENT.findall(text)):
        raise refusal
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        pass
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _size(tree)
        value = _walk(tree)
    except UnknownNameError as wrong:
        raise ValueError(f"{text[:80]!r} holds the name {wrong}, which is unknown: {_NAMES}") from None
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError, OverflowError):
        raise refusal from None
    return value if isinstance(value, Fraction) else _from_sympy(value)


class UnknownNameError(Exception):
    """A name that is neither a symbol nor a constant."""


def _size(node: ast.expr) -> tuple[int, int]:
    """Bound the bits and the degree of an expression without computing it; raise ValueError if they are too large."""
    match node:
        case ast.Constant(value=int() as value):
            bits, degree = value.bit_length() + 1, 0
        case ast.UnaryOp(operand=operand):
            bits, degree = _size(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            bits, degree = _size(left)
            _size(right)
            power = _walk(right)
            if not isinstance(power, Fraction):
                raise ValueError
            times = max(1, -(-abs(power.numerator) // power.denominator))
            bits, degree = bits * times, degree * times
        case ast.BinOp(left=left, right=right):
            (a, d), (b, e) = _size(left), _size(right)
            bits, degree = a + b + 1, d + e
        case ast.Call(args=[argument]):
            bits, degree = _size(argument)
        case _:
            bits, degree = 1, 1
    if bits > _MOST_BITS or degree > _HIGHEST_DEGREE:
        raise ValueError
    return bits, degree


def _walk(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return Fraction(value)
        case ast.Name(id="nan" | "inf" | "oo" | "zoo" | "I" | "pi" | "E"):
            raise ValueError
        case ast.Name(id=name):
            import sympy

            if name == "GoldenRatio":
                return (1 + sympy.sqrt(5)) / 2
            if not _SYMBOL.fullmatch(name) and name not in _GREEK:
                raise UnknownNameError(repr(name))
            return sympy.Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_walk(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_walk(left), _walk(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b = _walk(left), _walk(right)
            if isinstance(a, Fraction) and isinstance(b, Fraction):
                return _OPERATORS[type(op)](a, b)
            return _OPERATORS[type(op)](to_sympy(a), to_sympy(b))
        case ast.Call(func=ast.Name(id="sqrt"), args=[argument], keywords=[]):
            import sympy

            return sympy.sqrt(to_sympy(_walk(argument)))
    raise ValueError


def _power(base: Any, exponent: Any) -> Any:
    if not isinstance(exponent, Fraction) or abs(exponent) > _LARGEST_EXPONENT or exponent.denominator > _LARGEST_EXPONENT:
        raise ValueError
    if isinstance(base, Fraction) and exponent.denominator == 1:
        return base ** int(exponent)
    return to_sympy(base) ** to_sympy(exponent)


def to_sympy(value: Number) -> Any:
    """Return an exact number as a sympy expression."""
    import sympy

    return sympy.Rational(value.numerator, value.denominator) if isinstance(value, Fraction) else value


def to_text(value: Number) -> str:
    """Write an exact number or point as text that `exact_point` reads back."""
    return str(value)


class Field:
    """A field that contains given exact numbers, with ``+ - * /`` on elements in canonical form.

    Rationals stay `Fraction`. With algebraic numbers or symbols the elements are those of a sympy domain
    (an algebraic number field, a field of rational functions), in which zero is recognised.
    """

    def __init__(self, values: Iterable[Number]) -> None:
        irrational = [v for v in values if not isinstance(v, Fraction)]
        self._domain: Any = None
        if irrational:
            check_roots(irrational)
            from sympy import construct_domain, sympify

            self._domain = construct_domain([*irrational, sympify(1) / 2], field=True, extension=True)[0]

    def __call__(self, value: Number) -> Any:
        """Return `value` as an element."""
        if self._domain is None:
            return value
        return self._domain.from_sympy(to_sympy(value))

    def number(self, element: Any) -> Number:
        """Return an element as an exact number."""
        return element if self._domain is None else _from_sympy(self._domain.to_sympy(element))


def simplified(values: Sequence[Number]) -> tuple[Number, ...]:
    """Return numbers in the canonical form of their common field."""
    field = Field(values)
    return tuple(field.number(field(v)) for v in values)

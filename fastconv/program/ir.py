"""Straight-line programs: the one description of a transform that all readings share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from fastconv.exact import Number, to_text

Kind = Literal["mul", "add", "sub", "neg", "fma"]
T = TypeVar("T")
C = TypeVar("C")


class Op(NamedTuple):
    """One operation; values are numbered: inputs first, then one per operation.

    ``mul``: c * a; ``add``: a + b; ``sub``: a - b; ``neg``: -a; ``fma``: c * a + b, rounded once.
    """

    kind: Kind
    a: int
    b: int = -1
    c: Number = None


class Counts(NamedTuple):
    """Operations of a program; multiplications by a power of two are exact and counted separately."""

    adds: int
    muls: int
    shifts: int
    fmas: int

    @property
    def roundings(self) -> int:
        """Operations that may round."""
        return self.adds + self.muls + self.fmas


@dataclass(frozen=True, slots=True)
class Reading(Generic[T, C]):
    """The meaning of the operations in one reading: rationals, arrays, bounds, variances, text.

    Attributes
    ----------
    constant : callable
        Converts an exact number into the reading.
    mul, add, sub, neg, fma : callables
        ``mul(c, a)``, ``add(a, b)``, ``sub(a, b)``, ``neg(a)``, ``fma(c, a, b)``.
    """

    constant: Callable[[Number], C]
    mul: Callable[[C, T], T]
    add: Callable[[T, T], T]
    sub: Callable[[T, T], T]
    neg: Callable[[T], T]
    fma: Callable[[C, T, T], T]


@dataclass(frozen=True)
class Program:
    """A linear map as a sequence of operations.

    Attributes
    ----------
    inputs : int
        Number of input values; they are numbered 0, 1, ...
    ops : tuple of Op
        The operations; the k-th defines value ``inputs + k``.
    outputs : tuple of int
        Numbers of the output values.
    order : str
        Name of the order of summation.

    Examples
    --------
    >>> from fastconv.program import program_of
    >>> print(program_of(((1, 0, -2), (0, 1, 1)), "sequential"))
    t3 = 2*x2
    y0 = x0 - t3
    y1 = x1 + x2
    """

    inputs: int
    ops: tuple[Op, ...]
    outputs: tuple[int, ...]
    order: str

    def read(self, values: Sequence[T], reading: Reading[T, Any]) -> list[T]:
        """Run the program on values of any kind.

        Parameters
        ----------
        values : sequence
            One value per input.
        reading : Reading
            The meaning of the operations.

        Returns
        -------
        list
            One value per output.
        """
        if len(values) != self.inputs:
            raise ValueError(f"{len(values)} values given: the program takes {self.inputs}")
        v = list(values)
        for op in self.ops:
            match op.kind:
                case "add":
                    v.append(reading.add(v[op.a], v[op.b]))
                case "sub":
                    v.append(reading.sub(v[op.a], v[op.b]))
                case "mul":
                    v.append(reading.mul(reading.constant(op.c), v[op.a]))
                case "fma":
                    v.append(reading.fma(reading.constant(op.c), v[op.a], v[op.b]))
                case "neg":
                    v.append(reading.neg(v[op.a]))
        return [v[i] for i in self.outputs]

    def matrix(self) -> tuple[tuple[Number, ...], ...]:
        """Return the matrix of the program, read in exact arithmetic."""
        unit = [tuple(Fraction(int(i == j)) for j in range(self.inputs)) for i in range(self.inputs)]
        return tuple(self.read(unit, _EXACT))

    @property
    def counts(self) -> Counts:
        """Number of operations of each kind."""
        scalings = [op.c for op in self.ops if op.kind == "mul"]
        shifts = sum(map(is_power_of_two, scalings))
        adds = sum(op.kind in ("add", "sub") for op in self.ops)
        return Counts(adds, len(scalings) - shifts, shifts, sum(op.kind == "fma" for op in self.ops))

    def __str__(self) -> str:
        names = {i: f"x{i}" for i in range(self.inputs)}
        names |= {self.inputs + k: f"t{self.inputs + k}" for k in range(len(self.ops))}
        copies = []
        for k, i in enumerate(self.outputs):
            if i >= self.inputs and names[i].startswith("t"):
                names[i] = f"y{k}"
            else:
                copies.append(f"y{k} = {names[i]}")
        lines = []
        for k, op in enumerate(self.ops):
            a, b, c = names[op.a], names.get(op.b), "" if op.c is None else _factor(op.c)
            text = {"add": f"{a} + {b}", "sub": f"{a} - {b}", "mul": f"{c}*{a}", "neg": f"-{a}", "fma": f"fma({c}, {a}, {b})"}[op.kind]
            lines.append(f"{names[self.inputs + k]} = {text}")
        return "\n".join(lines + copies)


def is_power_of_two(c: Number) -> bool:
    """Return whether ``|c| = 2**k``: multiplying by it is exact."""
    if not isinstance(c, Fraction):
        return False
    p, q = abs(c.numerator), c.denominator
    return p != 0 and p & (p - 1) == 0 and q & (q - 1) == 0


def _factor(c: Number) -> str:
    text = to_text(c)
    return text if text.isdigit() else f"({text})"


def _combined(a: tuple[Number, ...], b: tuple[Number, ...], f: Callable[[Number, Number], Number]) -> tuple[Number, ...]:
    return tuple(f(x, y) for x, y in zip(a, b, strict=True))


_EXACT: Reading[tuple[Number, ...], Number] = Reading(
    constant=lambda c: c,
    mul=lambda c, a: tuple(c * x for x in a),
    add=lambda a, b: _combined(a, b, lambda x, y: x + y),
    sub=lambda a, b: _combined(a, b, lambda x, y: x - y),
    neg=lambda a: tuple(-x for x in a),
    fma=lambda c, a, b: _combined(a, b, lambda x, y: c * x + y),
)

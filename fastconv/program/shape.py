"""The shape of a program: its operations without constants, as text that identifies compiled code."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastconv.exact import Number, format_of_dtype, rounded
from fastconv.program.ir import Kind, Op, Program


class Shape(NamedTuple):
    """A program's text, in which constants are numbered slots, and the exact constants of the slots."""

    text: str
    constants: tuple[Number, ...]

    def table(self, dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
        """Return the constants, each rounded once; never empty, so that it has an address."""
        fmt = format_of_dtype(dtype)
        return np.array([rounded(c, fmt) for c in self.constants] or [0.0], dtype=dtype)


def shape_of(program: Program) -> Shape:
    """Separate a program from its constants: programs that differ only in them share code.

    Examples
    --------
    >>> from fastconv.program import program_of
    >>> shape_of(program_of(((1, 0, -3), (0, 3, 1))))
    Shape(text='3|mul 2 -1 0;sub 0 3 -;mul 1 -1 0;add 2 5 -|4,6', constants=(Fraction(3, 1),))
    """
    slots: dict[Number, int] = {}
    steps = []
    for op in program.ops:
        slot = "-" if op.c is None else str(slots.setdefault(op.c, len(slots)))
        steps.append(f"{op.kind} {op.a} {op.b} {slot}")
    return Shape(f"{program.inputs}|{';'.join(steps)}|{','.join(map(str, program.outputs))}", tuple(slots))


def program_of_text(text: str) -> Program:
    """Return the program that a shape's text describes, with slot numbers as constants."""
    inputs, steps, outputs = text.split("|")
    ops = []
    for step in steps.split(";") if steps else []:
        word, a, b, slot = step.split(" ")
        kind: Kind = word  # type: ignore[assignment]
        ops.append(Op(kind, int(a), int(b), None if slot == "-" else Fraction(int(slot))))
    return Program(int(inputs), tuple(ops), tuple(map(int, outputs.split(","))), "")

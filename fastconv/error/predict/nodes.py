"""Find the distinct roundings of a program.

Values that are equal up to a sign and a power of two count as one value, rounded once: ``x / 3`` and ``-4 x / 3`` have
the same relative error. A prediction that took them for independent would miss their correlation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.error.predict.rounding import product_factor, sum_factor
from fastconv.exact import Format, rounded
from fastconv.program import Program

Array = npt.NDArray[Any]
Scaled = tuple[int, float]
"""The index of a value, and its factor."""

_EARLY = -64
"""Formats whose smallest normal number has a larger exponent underflow in transforms of typical data."""


@dataclass(frozen=True)
class Nodes:
    """The distinct roundings of a program: node k rounds ``ca[k] * v[a[k]] + cb[k] * v[b[k]]``.

    Attributes
    ----------
    a, b, ca, cb : arrays
        Operands, inputs first, then nodes; b is -1 for products with a constant. Factors of operands of a sum are
        powers of two, unless the multiplication is fused with it.
    rows : array, (inputs + nodes, inputs)
        Each value as a combination of the inputs.
    gain : array, (outputs, nodes)
        Effect of a unit error in a node on the outputs.
    matrix : array, (outputs, inputs)
        The matrix, its constants rounded.
    source : array
        The value that each output is a multiple of.
    """

    a: Array
    b: Array
    ca: Array
    cb: Array
    rows: Array
    gain: Array
    matrix: Array
    source: Array

    @property
    def inputs(self) -> int:
        """Number of inputs of the program."""
        return int(self.rows.shape[1])

    @property
    def is_sum(self) -> Array:
        """Where a node is a sum."""
        return np.asarray(self.b >= 0)

    def factors(self, variance: Array, bits: int, p: int, kept: int | None = None) -> Array:
        """Return the corrections for roundings that cut off few bits, one per node.

        Parameters
        ----------
        variance : array, (..., inputs + nodes)
            Variances of the values.
        bits, p : int
            Significant bits of the inputs, and of the format.
        kept : int, optional
            Significant bits that the operands keep, where only the last operation rounds to p bits.
        """
        kept = kept or p
        n, result = self.inputs, np.empty((*variance.shape[:-1], len(self.a)))
        held = [bits] * n
        sums: dict[tuple[int, int], list[int]] = {}
        for k, (a, b, ca, cb) in enumerate(zip(self.a, self.b, self.ca, self.cb, strict=True)):
            (wide, f), (wide_b, _) = _bits(ca), _bits(cb)
            da = held[a] - p + wide
            if b < 0:
                result[..., k] = product_factor(f, da)
                held.append(min(kept, held[a] + wide + 1))
                continue
            db = held[b] - p + wide_b
            sums.setdefault((da, db), []).append(k)
            held.append(min(kept, max(da, db) + p + 2))
        for (da, db), ks in sums.items():
            va, vb = (c[ks] ** 2 * variance[..., of[ks]] for c, of in ((self.ca, self.a), (self.cb, self.b)))
            result[..., ks] = sum_factor(va, vb, variance[..., n + np.array(ks)], da, db)
        return result


def _odd(c: float) -> tuple[int, float]:
    """Split a number into a positive odd integer and a power of two with its sign."""
    mantissa, exponent = math.frexp(abs(c))
    whole = int(mantissa * 2.0**53)
    zeros = (whole & -whole).bit_length() - 1
    return whole >> zeros, math.copysign(2.0 ** (exponent - 53 + zeros), c)


def _bits(c: float) -> tuple[int, float]:
    """Return the bits after the leading one of a constant, and its significand in [1, 2)."""
    if c == 0:
        return 0, 1.0
    m = _odd(c)[0]
    return m.bit_length() - 1, m / 2.0 ** (m.bit_length() - 1)


class _Numbering:
    """Assign one number to values equal up to sign and power of two, with the scale of the first."""

    def __init__(self, inputs: int, across_scales: bool) -> None:
        self.inputs = inputs
        self.across_scales = across_scales
        self.index: dict[tuple[int, float, int, float, float], tuple[int, float]] = {}
        self.nodes: list[tuple[int, float, int, float]] = []

    def node(self, a: int, ca: float, b: int = -1, cb: float = 0.0) -> Scaled:
        """Return the number of ``ca v[a] + cb v[b]``, where ca is a power of two if there is a b."""
        size = ca if b >= 0 else _odd(ca)[1]
        key = (a, ca / size, b, cb / size, 1.0 if self.across_scales else abs(size))
        if key not in self.index:
            self.index[key] = (len(self.nodes), size)
            self.nodes.append((a, ca, b, cb))
        k, first = self.index[key]
        return self.inputs + k, size / first

    def scaled(self, value: Scaled, c: float) -> Scaled:
        i, s = value
        return (i, s * c) if c == 0 or _odd(c)[0] == 1 else self.node(i, s * c)

    def sum(self, x: Scaled, y: Scaled) -> Scaled:
        (a, ca), (b, cb) = x, y
        if ca == 0 or cb == 0:
            return y if ca == 0 else x
        if a == b:
            return self.scaled((a, 1.0), ca + cb)
        if _odd(ca)[0] != 1 or (_odd(cb)[0] == 1 and a > b):
            a, b, ca, cb = b, a, cb, ca
        return self.node(a, ca, b, cb)


@lru_cache(maxsize=256)
def nodes_of(program: Program, constants: Format, fmt: Format) -> Nodes:
    """Find the distinct roundings of a program in a format, its constants rounded to another.

    If the format underflows early, scalings by powers of two are nodes too, because they may round, and values of
    different scales are distinct.
    """
    n = program.inputs
    early = fmt.emin > _EARLY
    numbering = _Numbering(n, across_scales=not early)
    value: list[Scaled] = [(i, 1.0) for i in range(n)]
    shifts: dict[int, tuple[int, float]] = {}
    for k, op in enumerate(program.ops):
        x = value[op.a]
        match op.kind:
            case "neg":
                value.append((x[0], -x[1]))
            case "mul":
                c = rounded(op.c, constants)
                value.append(numbering.scaled(x, c))
                if early and c and _odd(c)[0] == 1 and abs(c) < 1:
                    shifts[n + k] = value[-1]
            case "fma":
                value.append(numbering.sum((x[0], x[1] * rounded(op.c, constants)), value[op.b]))
            case _:
                y = value[op.b]
                value.append(numbering.sum(x, y if op.kind == "add" else (y[0], -y[1])))
    keys = numbering.nodes + [(i, s, -1, 0.0) for i, s in shifts.values()]
    rows = np.eye(n)
    for a, ca, b, cb in keys:
        rows = np.vstack([rows, ca * rows[a] + (cb * rows[b] if b >= 0 else 0)])
    count = len(numbering.nodes)
    adjoint = np.zeros((len(program.outputs), n + count))
    for i, out in enumerate(program.outputs):
        adjoint[i, value[out][0]] += value[out][1]
    for k in reversed(range(count)):
        a, ca, b, cb = keys[k]
        adjoint[:, a] += ca * adjoint[:, n + k]
        if b >= 0:
            adjoint[:, b] += cb * adjoint[:, n + k]
    columns = list(zip(*keys, strict=True)) if keys else [(), (), (), ()]
    return Nodes(
        a=np.array(columns[0], int),
        b=np.array(columns[2], int),
        ca=np.array(columns[1], float),
        cb=np.array(columns[3], float),
        rows=rows,
        gain=np.hstack([adjoint[:, n:], _steps_adjoint(program, constants)[:, list(shifts)]]),
        matrix=adjoint[:, :n],
        source=np.array([value[o][0] for o in program.outputs]),
    )


def _steps_adjoint(program: Program, constants: Format) -> Array:
    """Return the effect of a unit error in each value of the program, as written, on the outputs."""
    n = program.inputs
    adjoint = np.zeros((len(program.outputs), n + len(program.ops)))
    for i, out in enumerate(program.outputs):
        adjoint[i, out] += 1
    for k, op in reversed(list(enumerate(program.ops))):
        through = adjoint[:, n + k]
        factor = {"neg": -1.0, "add": 1.0, "sub": 1.0}.get(op.kind)
        adjoint[:, op.a] += through * (rounded(op.c, constants) if factor is None else factor)
        if op.b >= 0:
            adjoint[:, op.b] += -through if op.kind == "sub" else through
    return adjoint

"""The mean square of one rounding, from the second moments of the rounded value.

A rounding to ``p`` bits has the mean square error ``ulp(v)**2 / 12`` if the bits that it cuts off are uniformly
distributed. ``E[ulp(v)**2]`` is ``4**(1 - p) E[4**floor(log2 |v|)]``, and the Fourier series of the periodic function
``4**-frac(t)`` turns the latter into Mellin moments ``E |v|**s`` at ``s = 2 + 2 pi i k / log 2``: the constant term
is ``0.541 E[v**2]`` whatever the distribution, the others vanish when the logarithm of |v| is spread out.

If few bits are cut off, they are not uniformly distributed: with d of them, round to nearest even has the mean square
error ``ulp**2 / 12 (1 + 2 / 4**d)`` for d > 0, and is exact for d = 0. d follows from the exponents of the operands and
of the result.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.exact import Format

Array = npt.NDArray[Any]

MEAN = 0.75 / (2 * math.log(2))
"""Mean of 4**-frac(t): ``E[4**floor(log2 |v|)] / E[v**2]`` where the logarithm is spread out."""

SHARES = 48
COSINES = 32
KURTOSES = 12
PHASES = 32

MANY_BITS = 4
"""With at least this many bits cut off, their number does not matter: 2 / 4**4 is less than one per cent."""

FEW_BITS = 8
"""The sum of operands this much shorter than the format nearly always fits."""

_TINY = 1e-300


def unit(fmt: Format) -> float:
    """Return the mean square of a rounding over that of the value, before any correction."""
    return MEAN * 4.0 ** (1 - fmt.p) / 12


def spare_bits(d: Array) -> Array:
    """Return the mean square error of cutting off d bits, over that of cutting off many."""
    return np.where(d > 0, 1 + 2 * 4.0 ** -np.maximum(d, 0.0), 0.0)


def product_factor(f: float, d: int) -> float:
    """Return the correction of the mean square of rounding ``c * v`` when few bits are cut off.

    Parameters
    ----------
    f : float
        Significand of c, in [1, 2): the product crosses a power of two where that of v is at least 2 / f.
    d : int
        Bits that are cut off if it does not.
    """
    low, high = (float(spare_bits(np.asarray(float(k)))) for k in (d, d + 1))
    return ((1 - f * f / 4) * low + (f * f - 1) * high) / (0.75 * f * f)


@lru_cache(maxsize=32)
def sum_table(da: int = 0, db: int = 0) -> Array:
    """Tabulate the correction of the mean square of rounding a + b when few or no bits are cut off.

    a and b are jointly normal; the table is over ``x = sa / (sa + sb)`` of their standard deviations and
    ``y = sqrt((1 + correlation) / 2)``, each uniform in [0, 1]. They have da and db bits more than the format.

    In polar coordinates of the two underlying normal variables, the logarithm of the radius is spread out. What remains is
    a mean over the angle and over the phase of the radius within a factor of two.
    """
    nodes = 1 if da or db else 2
    angle = (np.arange(48 * nodes) + 0.5) * math.pi / (48 * nodes)
    phase = (np.arange(12 * nodes) + 0.5) / (12 * nodes)
    share = np.clip(np.arange(SHARES + 1) / SHARES, 1e-4, 1 - 1e-4)[:, None, None]
    turn = 2 * np.arccos(np.maximum(np.arange(COSINES + 1) / COSINES, 1e-3))[:, None]
    a, b = share * np.cos(angle), (1 - share) * np.cos(angle - turn)
    r = a + b
    logs = [np.log2(np.abs(v) + _TINY) for v in (a, b, r)]
    table = np.zeros(r.shape[:2])
    for t in phase:
        ea, eb, er = (np.floor(log + t) for log in logs)
        table += (4.0 ** (er - t) * spare_bits(er - np.minimum(ea - da, eb - db))).mean(axis=2)
    return np.asarray(table / (len(phase) * MEAN * (r**2).mean(axis=2)))


def sum_factor(va: Array, vb: Array, vr: Array, da: int = 0, db: int = 0) -> Array:
    """Look up `sum_table` for operands of variances va and vb whose sum has variance vr."""
    if max(da, db) >= MANY_BITS:
        return np.ones_like(vr)
    if max(da, db) <= -FEW_BITS:
        return np.zeros_like(vr)
    da, db = max(da, -FEW_BITS), max(db, -FEW_BITS)
    with np.errstate(all="ignore"):
        sa, sb = np.sqrt(va), np.sqrt(vb)
        x = np.nan_to_num(sa / (sa + sb), nan=0.5) * SHARES
        y = np.sqrt(np.clip(np.nan_to_num((vr - (sa - sb) ** 2) / (4 * sa * sb)), 0, 1)) * COSINES
    i, j = np.minimum(x.astype(int), SHARES - 1), np.minimum(y.astype(int), COSINES - 1)
    f, g, table = x - i, y - j, sum_table(da, db)
    return np.asarray((table[i, j] * (1 - f) + table[i + 1, j] * f) * (1 - g) + (table[i, j + 1] * (1 - f) + table[i + 1, j + 1] * f) * g)


_FREQUENCY = 2 * math.pi / math.log(2)


@lru_cache(maxsize=1)
def mellin_table() -> Array:
    """Tabulate ``E |v|**(2 + i w k)``, w = 2 pi / log 2, k = 1, 2, over the excess kurtosis, for v of variance one.

    From -1.2 to 0 in `KURTOSES` steps: one uniform variable, two of unequal and of equal size, three, and the normal.
    """
    table = np.empty((KURTOSES + 1, 2), complex)
    kurtosis = np.linspace(-1.2, 0, KURTOSES + 1)
    for k in (1, 2):
        s = 2 + 1j * _FREQUENCY * k
        three = 2 * (3 ** (s + 3) - 3) / (8 * (s + 1) * (s + 2) * (s + 3))
        for i, excess in enumerate(kurtosis):
            q = -excess / 1.2  # a**4 + b**4 for a**2 + b**2 = 1
            if i == 0:
                value = 3 ** (s / 2) / (s + 1)
            elif q > 0.5 - 1e-9:
                a2 = (1 + math.sqrt(max(2 * q - 1, 0.0))) / 2
                a, b = math.sqrt(3 * a2), math.sqrt(3 * (1 - a2))
                value = ((a + b) ** (s + 2) - max(a - b, _TINY) ** (s + 2)) / (2 * a * b * (s + 1) * (s + 2))
            elif q > 1 / 3:
                value = three + (table[KURTOSES // 2, k - 1] - three) * (q - 1 / 3) * 6
            else:
                value = _normal_mellin(s) * (1 - 3 * q) + three * 3 * q
            table[i, k - 1] = value
    return table


def _normal_mellin(s: complex) -> complex:
    """Return ``E[|v|**s]`` of a normal variable: over log |v| the trapezoidal rule has full accuracy."""
    t = np.linspace(-16, 3.5, 1025)
    return complex((np.exp((s + 1) * t - np.exp(2 * t) / 2)).sum() * (t[1] - t[0]) * math.sqrt(2 / math.pi))


def mellin(kurtosis: Array) -> Array:
    """Interpolate `mellin_table`; the harmonics are the last axis."""
    x = np.clip((np.asarray(kurtosis) + 1.2) / 1.2, 0, 1) * KURTOSES
    i = np.minimum(x.astype(int), KURTOSES - 1)
    f, table = (x - i)[..., None], mellin_table()
    return np.asarray(table[i] * (1 - f) + table[i + 1] * f)


SERIES = np.array([0.75 / (2 * math.log(2) + 2j * math.pi * k) for k in (1, 2)]) / MEAN
"""Fourier coefficients of 4**-frac(t), over its mean."""


def modulation(moments: Array, variance: Array) -> Array:
    """Return ``E[4**floor(log2 |v|)]`` over ``MEAN E[v**2]``, for the Mellin moments of `mellin`."""
    turns = 0.5 * np.log2(np.maximum(variance, _TINY))
    return np.asarray(1 + 2 * (SERIES * moments * np.exp(2j * math.pi * turns[..., None] * np.array([1, 2]))).sum(-1).real)


def underflow(square: Array, variance: Array, fmt: Format, kind: Array | str) -> Array:
    """Correct the mean squares of roundings for gradual underflow.

    Below the smallest normal number the spacing is constant. Products have larger errors there. Sums are exact, because
    their operands are multiples of the spacing. Values far below the spacing become zero.

    Parameters
    ----------
    square, variance : array
        Mean square of the rounding without underflow; variance of the rounded value.
    fmt : Format
        The format.
    kind : array of bool, or "product"
        Which values are sums; ``"product"`` for values with the distribution of a product of two normal variables.
    """
    smallest, tiny = 2.0**fmt.emin, float(fmt.tiny)
    sigma = np.sqrt(np.maximum(variance, _TINY))
    if not (sigma < smallest * 2.0**8).any():
        return np.asarray(square)
    from scipy.special import erf

    def below(z: Array) -> tuple[Array, Array]:
        """Return P(|v| < z sigma) and E[v**2; |v| < z sigma] of a normal variable of variance one."""
        p = erf(z / math.sqrt(2))
        return p, np.maximum(p - z * math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2), 0.0)

    z = np.minimum(smallest / sigma, 40.0)
    if isinstance(kind, str):
        nodes, weights = np.polynomial.hermite_e.hermegauss(24)
        weights = weights / weights.sum()
        parts = [below(np.minimum(z / abs(t), 40.0)) for t in nodes]
        p = np.asarray(sum(w * part[0] for w, part in zip(weights, parts, strict=True)))
        m = np.asarray(sum(w * t * t * part[1] for w, t, part in zip(weights, nodes, parts, strict=True)))
        sums = np.zeros(np.shape(square), bool)
    else:
        p, m = below(z)
        sums = np.broadcast_to(kind, np.shape(square))
    lost = np.minimum(square * (1 - m) + p * tiny**2 / 12, variance)
    return np.asarray(np.where(sums, square * (1 - below(np.minimum(2 * z, 40.0))[1]), lost))

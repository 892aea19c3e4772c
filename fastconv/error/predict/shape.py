"""Derive the mean magnitude of an error from its root mean square.

Given the inputs, an output's error is close to normal, with a variance Q that depends on them: it is a sum of squares
of products (form in w) (form in x). So ``E |e| = sqrt(2 / pi) E sqrt(Q)``, and E sqrt(Q) is close to the product of
the values for the two expected quadratic forms ``E[Q | w]`` and ``E[Q | x]`` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

STEPS = 64

KURTOSIS_EFFECT = 0.19
"""Times k / (k + 1), k = 1 / (2 square): first order in the Laguerre series gives 1/8; 1.5 times that holds for uniform inputs."""


@lru_cache(maxsize=8)
def root_table(rest: int) -> Array:
    """Tabulate E sqrt(z' P z) for z normal and tr P = 1, over tr P**2 in [0, 1].

    P has one large eigenvalue and `rest` equal ones, or as many equal ones as needed. With
    ``M(t) = E exp(-t q)``: ``E sqrt(q) = 1 / (2 sqrt(pi)) int_0^inf (1 - M(t)) t**-1.5 dt``.
    """
    log_t = np.linspace(-16, 24, 800)
    t = np.exp(log_t)

    def root(eigenvalues: Array) -> float:
        moment = np.exp(-0.5 * np.log1p(2 * t[:, None] * eigenvalues).sum(axis=1))
        inside = (1 - moment) * t**-0.5
        area = float(((inside[1:] + inside[:-1]) / 2).sum() * (log_t[1] - log_t[0]))
        ends = 2 * math.exp(-log_t[-1] / 2) + 2 * math.exp(log_t[0] / 2)
        return (area + ends) / (2 * math.sqrt(math.pi))

    table = np.ones(STEPS + 1)
    for i in range(1, STEPS + 1):
        square = i / STEPS
        if square * (rest + 1) <= 1:  # 1 / square equal eigenvalues: a gamma variable
            k = 0.5 / square
            table[i] = math.exp(math.lgamma(k + 0.5) - math.lgamma(k)) / math.sqrt(k)
        else:
            large = (1 + math.sqrt(max(rest * (square * (rest + 1) - 1), 0.0))) / (rest + 1)
            table[i] = root(np.array([large] + [(1 - large) / max(rest, 1)] * rest))
    return table


def mean_root(square: Array, quartic: Array, rest: int) -> Array:
    """Return E sqrt(q) of a quadratic form q of mean one.

    Parameters
    ----------
    square : array
        tr P**2.
    quartic : array
        Excess kurtosis of the variables times the sum of the squares of P's diagonal.
    rest : int
        Number of eigenvalues other than the largest.
    """
    x = np.clip(square, 0, 1) * STEPS
    i = np.minimum(x.astype(int), STEPS - 1)
    table = root_table(rest)
    root = table[i] * (1 - (x - i)) + table[i + 1] * (x - i)
    k = 0.5 / np.maximum(square, 1e-6)
    return np.asarray(root * np.clip(1 - KURTOSIS_EFFECT * quartic * k / (k + 1), 0.5, 1.1))


def normed(P: Array) -> Array:
    """Scale matrices to trace one; zero becomes a multiple of the identity."""
    trace = np.trace(P, axis1=-2, axis2=-1)[..., None, None]
    with np.errstate(all="ignore"):
        return np.where(trace > 0, P / np.where(trace > 0, trace, 1.0), np.eye(P.shape[-1]) / P.shape[-1])


def mixed(weights: Array, vectors: Array) -> Array:
    """Return the sum of ``weights[..., s] vectors[s] vectors[s]'`` over the squared lengths, of trace one."""
    lengths = np.maximum((vectors**2).sum(axis=-1), 1e-300)
    return normed(np.einsum("...s,sk,sl->...kl", weights / lengths, vectors, vectors, optimize=True))


Pair = tuple[str, str]


def overlaps(forms: Sequence[Mapping[str, Array]], shares: Mapping[Pair, Array]) -> tuple[Array, Array]:
    """Return tr P**2 and the sum of the squares of the diagonal, for P the mixture of products of forms.

    Parameters
    ----------
    forms : sequence of mappings
        For each axis, by kind: one matrix of trace one for each output along it.
    shares : mapping
        By the kinds along the axes: the share in the variance of each output, (m,) or (m, m).
        In one dimension the second kind is empty.
    """
    square: Any = 0.0
    diagonal: Any = 0.0
    for s, p in shares.items():
        for t, q in shares.items():
            dots, diagonals = [], []
            for axis, a, b in zip(forms, s, t, strict=False):
                dots.append(np.einsum("ikl,ikl->i", axis[a], axis[b]))
                diagonals.append(np.einsum("ikk,ikk->i", axis[a], axis[b]))
            square = square + p * q * outer(dots)
            diagonal = diagonal + p * q * outer(diagonals)
    return np.asarray(square), np.asarray(diagonal)


def outer(factors: Sequence[Array]) -> Array:
    """Return the outer product of one vector for each axis."""
    return factors[0] if len(factors) == 1 else np.multiply.outer(factors[0], factors[1])

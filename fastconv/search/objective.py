"""What is minimised: a plain function from sets of points, as floats, to numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.arithmetic import Policy, policy_named

Array = npt.NDArray[Any]
Objective = Callable[[Array, bool], Array]
"""``f(points (sets, k), infinity) -> (sets,)``; smaller is better."""

_UNIT = 0.75 / (2 * math.log(2)) / 3
"""Mean square of a rounding over that of the value, times 4**p: ``E[4**-frac(t)] 4**(1 - p) / 12``."""


def predicted(m: int, r: int, dims: int, policy: str | Policy) -> Objective:
    """Return the predicted mean error of F(m, r), inputs uniform in (-1, 1), Huffman order."""
    policy = policy_named(policy)

    def square(p: int) -> float:
        return float(_UNIT * 4.0**-p)

    before = max(policy.kernel.p, policy.input.p)
    product = 0.0 if 2 * min(policy.operands.p, before) <= policy.product.p else square(policy.product.p)
    stored = sum(square(policy.operands.p) for fmt in (policy.kernel, policy.input) if policy.operands.p < fmt.p)
    if policy.accumulate.p < policy.product.p:
        stored += square(policy.accumulate.p)
    squares = np.array([square(policy.kernel.p), square(policy.input.p), product + stored, square(policy.output.p)])
    bits = np.array([(policy.constants or fmt).p for fmt in (policy.output, policy.kernel, policy.input)])
    scale = math.sqrt(2 / math.pi) / 3

    def evaluate(points: Array, infinity: bool) -> Array:
        from fastconv.search.kernel import predicted_errors

        result = np.empty(len(points))
        predicted_errors(np.ascontiguousarray(points, np.float64), infinity, m, r, dims, squares, bits, result)
        return result * scale

    return evaluate


def condition(m: int, r: int, dims: int, policy: str | Policy) -> Objective:
    """Return the condition number of the square Vandermonde matrix of the finite points, which NOVA minimises."""

    def evaluate(points: Array, infinity: bool) -> Array:
        matrices = points[:, :, None] ** np.arange(points.shape[1])
        with np.errstate(all="ignore"):
            values = np.linalg.svd(matrices, compute_uv=False)
            return np.asarray(np.where(values[:, -1] > 1e-12 * values[:, 0], values[:, 0] / values[:, -1], np.inf))

    return evaluate


OBJECTIVES: dict[str, Callable[[int, int, int, str | Policy], Objective]] = {"predicted": predicted, "condition": condition}


def objective_named(name: str) -> Callable[[int, int, int, str | Policy], Objective]:
    """Return the objective of that name.

    Raises
    ------
    ValueError
        Lists the known objectives.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: the objectives are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]

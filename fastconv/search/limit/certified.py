"""Certify a lower limit of the first-order predicted error over all real point sets.

The bounded function is `first_order_error`. Every rounding of the three programs has a mean square error proportional to the
mean square of the value. Values equal up to sign and power of two have the same error. Variances propagate to the outputs as in
`fastconv.error.predict_error`. Inputs and kernels are uniform in (-1, 1), sums use Huffman order, the points have any order.

Boxes of point sets are split, the one with the least limit first, until each is proved worse than a goal. All tests that
save a rounding are widened by 1e-6, and the result is lowered by `MARGIN`. Rounding the constants to 24 bits changes a
mean square by less than 2e-5, the undirected rounding of this code by less than 1e-9 (see docs/points.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm, check_dims
from fastconv.error.predict import nodes_of, unit
from fastconv.exact import FORMATS, Format
from fastconv.files import replacing
from fastconv.program import programs_of
from fastconv.search.limit.records import Heap, Size

Array = npt.NDArray[Any]

MARGIN = 1e-4
"""Share by which the limit is lowered, for rounded constants and rounding in this code."""
LARGEST = 6
"""Largest tile: sums over columns are bits of one word."""
STEP = 4000
"""Boxes between two checks of the clock."""


def scale_of(fmt: Format) -> float:
    """Return the mean error of one rounding, for inputs uniform in (-1, 1).

    Examples
    --------
    >>> from fastconv.exact import FORMATS
    >>> round(scale_of(FORMATS["fp32"]) * 2**24, 4)
    0.1129
    """
    return math.sqrt(unit(fmt) * 2 / math.pi) / 3


def first_order_error(alg: BilinearAlgorithm, dims: int = 1, format: str = "fp32") -> float:
    """Return the predicted mean error to first order.

    It omits the corrections for short formats and for the position of values in their binades.

    Parameters
    ----------
    alg : BilinearAlgorithm
        F(m, r); the order of its points decides ties in the trees.
    dims : {1, 2}
        Dimension.
    format : str
        The format of all stages.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> f"{first_order_error(toom_cook(2, 3, [-1, 1, 0, 'inf'])):.3e}"
    '3.048e-08'
    """
    check_dims(dims)
    fmt, r = FORMATS[format], alg.r
    programs = programs_of(alg, "huffman")
    K, I, O = (nodes_of(p, fmt, fmt) for p in (programs.kernel, programs.input, programs.output))  # noqa: E741
    G, B, A = K.matrix, I.matrix, O.matrix
    H = (G @ G.T) * (B @ B.T)

    def before(nodes: Any, other: Array) -> Array:
        covariance = (nodes.gain * (nodes.rows[nodes.inputs :] ** 2).sum(axis=1)) @ nodes.gain.T
        return np.asarray(np.einsum("ij,jk,ik->i", A, other @ other.T * covariance, A))

    e, p = before(K, B) + before(I, G), A**2 @ np.diag(H)
    o = O.gain**2 @ np.einsum("vj,jk,vk->v", O.rows, H, O.rows)[O.inputs :]
    if dims == 1:
        variances = e + p + o
    else:
        variances = r * np.add.outer(e, o) + np.multiply.outer(p, e + p) + np.multiply.outer(o, p)
    return float(np.sqrt(variances).mean()) * scale_of(fmt)


@dataclass
class Limit:
    """A branch and bound that can be stopped at any time and resumed.

    Attributes
    ----------
    m, r, dims, infinity
        Size, dimension, and whether infinity is a point.
    goal : float
        The lower limit to prove, in units of one rounding.
    boxes, slopes, limits, heap : arrays
        The arrays that `fastconv.search.limit.queue.branch` works on.
    size, examined : int
        Open boxes, and boxes examined so far.
    """

    m: int
    r: int
    dims: int
    infinity: bool
    goal: float
    boxes: Array
    slopes: Array
    limits: Array
    heap: Array
    size: int
    examined: int = 0

    @property
    def value(self) -> float:
        """The limit proved so far, in units of one rounding: the goal once no box is left."""
        return (float(self.limits[self.heap[0]]) if self.size else self.goal) * (1 - MARGIN)

    def run(self, boxes: int) -> bool:
        """Examine about that many boxes; return whether work remains."""
        from fastconv.search.limit.queue import branch

        queue, size = Heap(self.boxes, self.slopes, self.limits, self.heap), Size(self.infinity, self.m, self.r, self.dims)
        self.size, examined = branch(queue, self.size, size, self.goal, boxes)
        self.examined += examined
        return bool(examined >= boxes)

    def save(self, path: Path) -> None:
        """Write the open boxes to an ``.npz`` file, atomically."""
        open_ = self.heap[: self.size]
        head = np.array([self.m, self.r, self.dims, self.infinity, self.goal, self.examined, len(self.heap)], float)
        with replacing(path) as new, new.open("wb") as file:
            np.savez(file, head=head, boxes=self.boxes[open_], slopes=self.slopes[open_], limits=self.limits[open_])


def start(m: int, r: int, dims: int, infinity: bool, goal: float, room: int = 2_000_000) -> Limit:
    """Start a proof that no point set has an error below the goal.

    Parameters
    ----------
    m, r : int
        Size, m + r - 1 at most 6 and r = 3.
    dims : {1, 2}
        Dimension.
    infinity : bool
        Whether infinity is one of the points.
    goal : float
        In units of one rounding: `first_order_error` over `scale_of`.
    room : int
        Largest number of open boxes.

    Raises
    ------
    ValueError
        For an unsupported size.
    """
    check_dims(dims)
    n = m + r - 1
    if r != 3 or not 4 <= n <= LARGEST:
        raise ValueError(f"F({m},{r}) has n = {n}: limits are computed for r = 3 and n = 4 to {LARGEST}")
    from fastconv.search.limit.queue import possible

    k = n - infinity
    state = Limit(m, r, dims, infinity, goal, np.zeros((room, 2, k)), np.zeros((room, k)), np.zeros(room), np.arange(room), 0)
    for cells in combinations_with_replacement((-2.0, -1.0, 0.0, 1.0), k):
        lo = np.array(cells)
        if possible(lo, lo + 1):
            state.boxes[state.size] = lo, lo + 1
            state.size += 1
    return state


def load(path: Path) -> Limit:
    """Read what `Limit.save` wrote."""
    with np.load(path) as data:
        m, r, dims, infinity, goal, examined, room = data["head"]
        size = len(data["limits"])
        state = start(int(m), int(r), int(dims), bool(infinity), float(goal), int(room))
        order = np.argsort(data["limits"], kind="stable")  # sorted, thus a heap
        state.boxes[:size], state.slopes[:size], state.limits[:size] = data["boxes"][order], data["slopes"][order], data["limits"][order]
        state.size, state.examined = size, int(examined)
    return state


def limits(state: Limit, step: int = STEP) -> Iterator[Limit]:
    """Yield the state every `step` boxes until the goal is proved or the memory is full."""
    more = True
    while more:
        more = state.run(step)
        yield state


@lru_cache(maxsize=1)
def _table() -> dict[tuple[int, int, int, bool], dict[str, Any]]:
    data = json.loads(files("fastconv.search.limit").joinpath("limits.json").read_text(encoding="utf-8"))
    return {(row["m"], row["r"], row["dims"], row["infinity"]): row for row in data["rows"]}


@dataclass(frozen=True)
class CertifiedLimit:
    """A certified lower limit of the error, and the error of the best set known.

    Attributes
    ----------
    limit : float
        The least mean error that a point set can have, to first order.
    best : float
        The mean error of the best set known.
    boxes : int
        Boxes examined in the proof.
    seconds : float
        Time of the proof.
    """

    limit: float
    best: float
    boxes: int
    seconds: float

    @property
    def gap(self) -> float:
        """Distance of the best set known from the limit, relative to the limit."""
        return self.best / self.limit - 1

    def to_dict(self) -> dict[str, float]:
        """Return plain data for JSON."""
        return asdict(self) | {"gap": self.gap}


def certified_limit(m: int, r: int, dims: int = 2, infinity: bool | None = None) -> CertifiedLimit | None:
    """Return the certified lower limit of the first-order error of F(m, r) in fp32.

    Parameters
    ----------
    m, r : int
        Outputs and taps.
    dims : {1, 2}
        Dimension.
    infinity : bool, optional
        Only sets with infinity, or without it; by default the smaller limit, over all real point sets.

    Returns
    -------
    CertifiedLimit or None
        The limit, the error of the best set known, and the gap between them; None if no limit is known.

    Examples
    --------
    >>> certified_limit(2, 3, 1).gap < 0.05
    True
    """
    check_dims(dims)
    rows = [_table().get((m, r, dims, kind)) for kind in ((True, False) if infinity is None else (infinity,))]
    if any(row is None for row in rows):
        return None
    known = [row for row in rows if row is not None]
    lowest, best = (min(row[name] for row in known) for name in ("limit", "best"))
    return CertifiedLimit(lowest, best, *(sum(row[name] for row in known) for name in ("boxes", "seconds")))

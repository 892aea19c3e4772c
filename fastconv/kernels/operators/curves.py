"""Activations that are no straight pieces, and products of tensors, compiled: element by element, in vectors.

The products and the hard curves equal their definitions in numpy bit for bit (zeros may differ in sign). The exponential is a
polynomial on half an octave either way, to 4 units of roundoff; a sigmoid errs by 7 of them, and by less than the smallest normal
number where it is no larger than that.
"""

from __future__ import annotations

import numpy as np

from fastconv.kernels.layer import Array
from fastconv.kernels.operators.pixelwise import kind_of, members
from fastconv.kernels.records import CURVE
from fastconv.native import Job, compiled, described

_CHUNK = 2**12
"""Elements that one claim of work should hold at least."""


def curve(name: str, x: Array, out: Array, other: Array | None = None, alpha: float = 1.0, beta: float = 0.0, threads: int = 1) -> Job:
    """Return the job that writes a curve of x to `out`.

    Parameters
    ----------
    name : str
        ``"sigmoid"``; ``"swish"``, x times the sigmoid of alpha x; ``"hard_sigmoid"``, alpha x + beta between 0 and 1;
        ``"hard_swish"``, x times x / 6 + 1 / 2 between 0 and 1; ``"product"``, x times `other`, of its shape; ``"scaled"``, each plane
        of x (batch, channels, ...) times one number of `other` (batch, channels, 1, ...).
    x, other, out : arrays
        Of one format that `kind_of` knows, in C order. `out` is none of the others.
    alpha, beta : float
        What the curve depends on.
    threads : int
        Threads, at most.
    """
    size = _CHUNK if name != "scaled" else x[:1, :1].size
    count = -(-x.size // size)
    group = max(1, _CHUNK // size)
    description = described(CURVE, total=x.size, piece=size, count=count, group=group)
    table = np.array([alpha, beta], x.dtype)
    arrays = (x, other, table, out)
    return Job(compiled("kernels.curves.curve", kind_of(x), name), description, -(-count // group), arrays, members(x, threads), 256)

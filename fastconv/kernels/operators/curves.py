"""Run smooth and hard activations and products of tensors: compiled, element-wise, vectorised.

The products and the hard activations equal their definitions in numpy bit for bit (zeros may differ in sign). The exponential is
a polynomial on half an octave to either side, within 4 unit roundoffs. A sigmoid is within 7 of them; where it is subnormal, its
error is below the smallest normal number.
"""

from __future__ import annotations

import numpy as np

from fastconv.kernels.layer import Array
from fastconv.kernels.operators.pixelwise import kind_of, members
from fastconv.kernels.records import CURVE
from fastconv.native import Job, compiled, described

_CHUNK = 2**12
"""Least elements per work item."""


def curve(name: str, x: Array, out: Array, other: Array | None = None, alpha: float = 1.0, beta: float = 0.0, threads: int = 1) -> Job:
    """Return the job that applies an activation, or a product, to x and writes it to `out`.

    Parameters
    ----------
    name : str
        ``"sigmoid"``; ``"swish"``, x times the sigmoid of alpha x; ``"hard_sigmoid"``, alpha x + beta between 0 and 1;
        ``"hard_swish"``, x times x / 6 + 1 / 2 between 0 and 1; ``"product"``, x times `other`, of its shape; ``"scaled"``, each plane
        of x (batch, channels, ...) times one number of `other` (batch, channels, 1, ...).
    x, other, out : arrays
        Arrays of one format that `kind_of` supports, in C order. `out` is a separate array.
    alpha, beta : float
        Parameters of the activation.
    threads : int
        Most threads to use.
    """
    size = _CHUNK if name != "scaled" else x[:1, :1].size
    count = -(-x.size // size)
    group = max(1, _CHUNK // size)
    description = described(CURVE, total=x.size, piece=size, count=count, group=group)
    table = np.array([alpha, beta], x.dtype)
    arrays = (x, other, table, out)
    return Job(compiled("kernels.curves.curve", kind_of(x), name), description, -(-count // group), arrays, members(x, threads), 256)

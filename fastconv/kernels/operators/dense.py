"""A dense layer on few rows: bound by reading its weights once, so it reads them where they are, on our own threads.

The threads of a BLAS spin for milliseconds after each call and take the cores from the layers that follow.
"""

from __future__ import annotations

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.layer import Array
from fastconv.kernels.operators.pixelwise import kind_of, members
from fastconv.kernels.records import DENSE
from fastconv.native import Job, compiled, described

FEW = 8
"""Rows up to which the weights' way from memory is all that counts."""
_ROWS = 16
"""Rows or columns of the weights in one claim of work."""


def dense(
    x: Array,
    weight: Array,
    out: Array,
    transposed: bool,
    bias: Array | None = None,
    activation: Activation | None = None,
    threads: int = 1,
) -> Job:
    """Return the job that writes ``activation(x weight.T + bias)`` to `out`, or ``x weight`` if the weight is not `transposed`.

    A `transposed` weight is (outputs, inputs), another (inputs, outputs). Sums of the first are made in lanes, as vectors
    allow, and those of the other in order, with fused multiply-adds where the CPU has them. All arrays are in C order and
    of one format that `kind_of` knows.
    """
    outputs = out.shape[1]
    group = _ROWS if transposed else 8 * _ROWS
    table = None
    if bias is not None or activation is not None:
        table = (activation or Activation()).table(np.zeros(outputs, x.dtype) if bias is None else bias)
    (rows, inputs), finished = x.shape, table is not None
    description = described(DENSE, rows=rows, inputs=inputs, outputs=outputs, group=group, transposed=transposed, finished=finished)
    return Job(
        compiled("kernels.dense.dense", kind_of(x)), description, -(-outputs // group), (x, weight, table, out), members(weight, threads)
    )

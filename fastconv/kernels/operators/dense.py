"""Run a dense layer on few rows, reading its weights once and in place.

Memory bandwidth limits it. BLAS threads would spin for milliseconds after each call on cores that the next layers need.
"""

from __future__ import annotations

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.layer import Array
from fastconv.kernels.operators.pixelwise import kind_of, members
from fastconv.kernels.records import DENSE
from fastconv.native import Job, compiled, described

FEW = 8
"""Most rows at which reading the weights from memory determines the time."""
_ROWS = 16
"""Rows or columns of the weights per work item."""


def dense(
    x: Array,
    weight: Array,
    out: Array,
    transposed: bool,
    bias: Array | None = None,
    activation: Activation | None = None,
    threads: int = 1,
) -> Job:
    """Return the job that writes ``activation(x weight.T + bias)``, or with ``x weight``, to `out`.

    A `transposed` weight is (outputs, inputs), another (inputs, outputs). The first sums in the lanes of vectors, the
    second in order, with fused multiply-adds where the CPU has them. All arrays are in C order and of one format that
    `kind_of` supports.
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

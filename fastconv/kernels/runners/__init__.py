"""Run a convolution layer: one module a way to do it."""

from fastconv.kernels.runners.transposed import MOST, Transposed

__all__ = ["MOST", "Transposed"]

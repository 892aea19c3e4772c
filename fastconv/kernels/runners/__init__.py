"""Run a convolution layer: one module a way to do it."""

from fastconv.kernels.runners.transposed import MOST, Frame, Transposed

__all__ = ["MOST", "Frame", "Transposed"]

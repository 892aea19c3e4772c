"""Run a convolution layer: one module per method."""

from fastconv.kernels.runners.transposed import MOST, Frame, Transposed

__all__ = ["MOST", "Frame", "Transposed"]

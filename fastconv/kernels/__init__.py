"""Convolution layers compiled by numba: direct, im2col, Fourier, fast algorithms."""

from fastconv.kernels.activation import RELU, Activation
from fastconv.kernels.functional import blocks_of, conv1d, conv2d, plan_conv1d, plan_conv2d, plan_in_blocks
from fastconv.kernels.layer import Layer, layer_of
from fastconv.kernels.runners.plan import Plan
from fastconv.native import flush_subnormals

__all__ = [
    "Activation",
    "Layer",
    "Plan",
    "RELU",
    "blocks_of",
    "conv1d",
    "conv2d",
    "flush_subnormals",
    "layer_of",
    "plan_conv1d",
    "plan_conv2d",
    "plan_in_blocks",
]

"""Convolution layers compiled by numba: direct, im2col, Fourier, fast algorithms."""

from fastconv.kernels.activation import RELU, Activation
from fastconv.kernels.functional import How, blocks_of, conv1d, conv2d, plan_conv1d, plan_conv2d, plan_layer
from fastconv.kernels.layer import Layer, kind_of, layer_of
from fastconv.kernels.pool import Windows, max_pool
from fastconv.kernels.runners.plan import Plan
from fastconv.native import flush_subnormals

__all__ = [
    "Activation",
    "How",
    "Layer",
    "Plan",
    "Windows",
    "RELU",
    "blocks_of",
    "conv1d",
    "conv2d",
    "flush_subnormals",
    "kind_of",
    "layer_of",
    "max_pool",
    "plan_conv1d",
    "plan_conv2d",
    "plan_layer",
]

"""Convolution layers, compiled by numba: direct, im2col, Fourier, and every fast algorithm that is exact."""

from fastconv.kernels.activation import RELU, Activation
from fastconv.kernels.functional import conv1d, conv2d, plan_conv1d, plan_conv2d
from fastconv.kernels.plan import Plan
from fastconv.kernels.threads import flush_subnormals

__all__ = ["RELU", "Activation", "Plan", "conv1d", "conv2d", "flush_subnormals", "plan_conv1d", "plan_conv2d"]

"""Run transposed convolutions: one stride-1 layer computes all phases of the output."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.choose.method import Method
from fastconv.kernels.layer import Array, Layer, check_bytes
from fastconv.kernels.records import TOGETHER
from fastconv.kernels.runners.phases import by_phase
from fastconv.kernels.runners.plan import BlockRunner
from fastconv.kernels.runners.pointwise import PointwiseRunner, fits
from fastconv.native import APART, KIND, NOTHING, Job, Pool, compiled, described, machine, round_up

MOST = 8
"""Largest stride along a row for which phases are interleaved in vectors."""

Pair = tuple[int, ...]


class Frame(NamedTuple):
    """Strides, cropped rows and columns before the output, and output size, along height and width."""

    stride: Pair
    begin: Pair
    out: Pair


class Transposed:
    """A transposed convolution ready to run, as a plan.

    Parameters
    ----------
    shape : (batch, channels, height, width)
        Shape of the input.
    weight : array (channels, filters / groups, rows, columns)
    bias : array (filters), optional
    frame : Frame
        Strides, crop and size of the output.
    groups : int
    threads : int
    activation : Activation, optional
        Applied last.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        weight: Array,
        bias: Array | None,
        frame: Frame,
        groups: int,
        threads: int,
        activation: Activation | None = None,
    ) -> None:
        stride, begin, out = frame
        batch, channels, height, width = shape
        (sh, sw), made, phases, kind = stride, weight.shape[1], stride[0] * stride[1], KIND[weight.dtype.itemsize]
        kernel = (-(-weight.shape[2] // sh), -(-weight.shape[3] // sw))
        # Each phase has as many positions as the output needs; where no input reaches, the sum is empty.
        (rows, columns) = ((b + o - 1) // s + 1 for s, b, o in zip(stride, begin, out, strict=True))
        after = max(0, rows - height), max(0, columns - width)
        rows, columns = height + after[0], width + after[1]
        padding = (kernel[0] - 1, after[0]), (kernel[1] - 1, after[1])
        filters = groups * phases * made
        layer = Layer(weight.dtype, batch, channels, height, width, filters, kernel, (1, 1), padding, (1, 1), groups)
        apart = by_phase(weight, stride).reshape(groups, channels // groups, made, kernel[0], sh, kernel[1], sw)[:, :, :, ::-1, :, ::-1]
        taps = np.ascontiguousarray(apart.transpose(0, 4, 6, 2, 1, 3, 5)).reshape(filters, channels // groups, *kernel)
        shift = None if bias is None else self._each(bias, groups, phases)
        if activation is not None and np.ndim(activation.slope):
            activation = Activation(self._each(np.asarray(activation.slope), groups, phases), activation.low, activation.high)
        if fits(layer):
            self._runner: BlockRunner | PointwiseRunner = PointwiseRunner(layer, taps, shift, threads, activation)
        else:
            self._runner = BlockRunner(layer, Method("im2col"), taps, shift, "huffman", threads, activation)
        size, v = weight.dtype.itemsize, machine().vector_bytes
        between = round_up(batch * filters * rows * columns * size + v, 64)
        check_bytes("the phases of the output", between)
        line = round_up(sw * (columns * size + v) + v, 64)
        self._between, self._line = between, line
        self._description = described(
            TOGETHER,
            groups=groups,
            filters=made,
            stride_h=sh,
            stride_w=sw,
            top=begin[0],
            left=begin[1],
            out_height=out[0],
            out_width=out[1],
            rows=rows,
            columns=columns,
            none=line,
        )
        self._function = compiled("kernels.phases.together", kind, sw)
        self._items, self._members = batch * groups * made, max(1, min(threads, batch * groups * made))
        self._first = self._runner.job(NOTHING, NOTHING)
        self.output_shape = (batch, groups * made, *out)
        self.pool = Pool()

    @staticmethod
    def _each(values: Array, groups: int, phases: int) -> Array:
        """Return the filters' values, repeated for each phase."""
        return np.ascontiguousarray(np.repeat(values.reshape(groups, 1, -1), phases, axis=1)).reshape(-1)

    def job(self, x: Array, y: Array) -> Job:
        """Return the job: compute the phases, then interleave their rows and columns."""
        arrays = (x, None, None, y)
        first, room = self._first, self._line + APART
        return Job(self._function, self._description, self._items, arrays, self._members, room, first=first, between=self._between)

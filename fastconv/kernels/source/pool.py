"""The largest number of each window, see `fastconv.kernels.pool`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.records import POOL, ROWS
from fastconv.kernels.source.engine import copy
from fastconv.native import SIZE, lanes_of, machine
from fastconv.native.source import I64, claim, load_every, move, pair_of, pointer, splat, store_at, vector_of

V = machine().vector_bytes


def largest_of(kind: str, step: int) -> Any:
    """Return ``largest(dst, (src, stride), count)``, which writes the maximum of `count` vectors; NaN propagates.

    The vectors are `stride` bytes apart and each has every `step`-th number.
    """

    @intrinsic
    def largest(typingctx: Any, dst: Any, source: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            dst, source, count = args
            src, stride = pair_of(builder, source)
            first, before = load_every(builder, src, kind, lanes_of(kind), step), builder.block
            test, body, done = (builder.append_basic_block(name) for name in ("test", "larger", "largest"))
            builder.branch(test)
            builder.position_at_end(test)
            at, left, most = builder.phi(I64), builder.phi(I64), builder.phi(first.type)
            for phi, start in ((at, src), (left, count), (most, first)):
                phi.add_incoming(start, before)
            builder.cbranch(builder.icmp_signed(">", left, I64(1)), body, done)
            builder.position_at_end(body)
            after = builder.add(at, stride)
            b = load_every(builder, after, kind, lanes_of(kind), step)
            # The first select is one instruction and gives b if either is NaN; the second keeps an earlier NaN.
            more = builder.select(builder.fcmp_ordered(">", most, b), most, b)
            more = builder.select(builder.fcmp_unordered("uno", most, most), most, more)
            for phi, value in ((at, after), (left, builder.sub(left, I64(1))), (most, more)):
                phi.add_incoming(value, body)
            builder.branch(test)
            builder.position_at_end(done)
            store_at(builder, most, dst)
            return context.get_dummy_value()

        return types.void(dst, source, count), codegen

    return largest


@intrinsic(prefer_literal=True)
def least(typingctx: Any, kind: Any, lanes: Any, dst: Any) -> Any:
    """Write a vector of minus infinities."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = vector_of(kind.literal_value, lanes.literal_value)
        store_at(builder, splat(builder, ir.Constant(vector.element, -np.inf), vector), args[2])
        return context.get_dummy_value()

    return types.void(kind, lanes, dst), codegen


def pool(kind: str, step: int) -> Callable[..., None]:
    """Return a kernel for a maximum pool; strides without a vector path have `step` 1."""
    lanes, size, largest, every = lanes_of(kind), SIZE[kind], largest_of(kind, 1), largest_of(kind, step)

    def pool(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), POOL)[0]
        h, w, oh, ow, kh, kw = d.height, d.width, d.out_height, d.out_width, d.kernel_h, d.kernel_w
        sh, sw, dh, dw, top, left = d.stride_h, d.stride_w, d.dilation_h, d.dilation_w, d.top, d.left
        result, held, lines, pitch = workspace, d.held, workspace + d.held, d.pitch
        row, out, apart = w * size, ow * size, lines + ROWS * pitch
        for k in range(0, ROWS * pitch, V):  # minus infinity before and after each row
            least(kind, lanes, lines + k)
        plane = claim(counter)
        while plane < items:
            source, target = x + plane * h * row, y + plane * oh * out
            for first in range(0, oh, ROWS):
                last = min(first + ROWS, oh)
                for i in range(first, last):
                    begin, start = lines + (i - first) * pitch + left * size, i * sh - top
                    low, high = max(0, (dh - 1 - start) // dh), min(kh, (h - 1 - start + dh) // dh)
                    src, k = source + (start + low * dh) * row, 0
                    if low < high:
                        while k + V <= row:
                            largest(begin + k, (src + k, dh * row), high - low)
                            k += V
                        if k < row and row >= V:
                            k = row - V
                            largest(begin + k, (src + k, dh * row), high - low)
                        elif k < row:
                            for p in range(high - low):
                                copy(apart + p * V, src + p * dh * row, row)
                            largest(result, (apart, V), high - low)
                            copy(begin, result, row)
                    else:
                        for k in range(0, pitch, V):
                            least(kind, lanes, begin - left * size + k)
                for i in range(first, last):
                    src, taps = lines + (i - first) * pitch, dw * size
                    if step == 1 and sw > 1:  # make each tap's numbers contiguous
                        for q in range(kw):
                            for k in range(ow):
                                for b in range(0, size, 4):
                                    move(4, apart + q * held + k * size + b, src + (k * sw + q * dw) * size + b)
                        src, taps = apart, held
                    for k in range(0, out, V):
                        every(result + k, (src + k * step, taps), kw)
                    copy(target + i * out, result, out)
            plane = claim(counter)

    return pool


def pool_blocks(kind: str) -> Callable[..., None]:
    """Return a kernel for a channels-blocked maximum pool."""
    lanes, largest = lanes_of(kind), largest_of(kind, 1)

    def pool_blocks(description, counter, items, x, u, bias, y, workspace):  # type: ignore[no-untyped-def]
        d = carray(pointer(description), (1,), POOL)[0]
        h, w, oh, ow, kh, kw = d.height, d.width, d.out_height, d.out_width, d.kernel_h, d.kernel_w
        sh, sw, dh, dw, top, left = d.stride_h, d.stride_w, d.dilation_h, d.dilation_w, d.top, d.left
        row = w * V
        plane = claim(counter)
        while plane < items:
            source, target = x + plane * h * row, y + plane * oh * ow * V
            for i in range(oh):
                start = i * sh - top
                low, high = max(0, (dh - 1 - start) // dh), min(kh, (h - 1 - start + dh) // dh)
                for j in range(w):
                    if low < high:
                        largest(workspace + j * V, (source + (start + low * dh) * row + j * V, dh * row), high - low)
                    else:
                        least(kind, lanes, workspace + j * V)
                for j in range(ow):
                    start = j * sw - left
                    first, last = 0, kw
                    if start < 0 or start + (kw - 1) * dw >= w:
                        first, last = max(0, (dw - 1 - start) // dw), min(kw, (w - 1 - start + dw) // dw)
                    to = target + (i * ow + j) * V
                    if first < last:
                        largest(to, (workspace + (start + first * dw) * V, dw * V), last - first)
                    else:
                        least(kind, lanes, to)
            plane = claim(counter)

    return pool_blocks

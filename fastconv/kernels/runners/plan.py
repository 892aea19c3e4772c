"""Plans: all work that does not depend on the input is done once, for many calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from fastconv.kernels.activation import Activation
from fastconv.kernels.choose.method import Method
from fastconv.kernels.layer import Array, Layer, array_of
from fastconv.kernels.runners.blocked import blocked, in_lanes
from fastconv.native import COUNTER, NOTHING, Job, Pool, flushes, machine


class Runner(Protocol):
    """Computes a layer: built once from the weights, then called with checked inputs."""

    workspace_bytes: int
    weight_bytes: int
    adds: bool

    def __call__(self, x: Array, y: Array) -> None:
        """Compute the layer of `x` into `y`."""

    def job(self, x: Array, y: Array, adding: bool = False) -> Job | None:
        """Return the work of a call as a job, if possible; `adding` requires `adds`."""

    def details(self) -> list[str]:
        """Return how the layer runs, as lines for `Plan.explain`."""


@dataclass(frozen=True)
class Plan:
    """A layer ready to run: weights transformed and packed, block sizes chosen, code compiled.

    Make one with `plan_conv2d` or `plan_conv1d`, and call it with the input to get the output. Several threads may call one
    plan at once: each call uses a separate workspace. After the first call, a call allocates only the output, unless
    the input is not in C order or calls run at once for the first time.
    """

    layer: Layer
    method: Method
    order: str
    threads: int
    dims: int
    batched: bool
    _runner: Runner = field(repr=False)

    def __call__(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Apply the layer.

        Parameters
        ----------
        x : array
            Input, of the plan's `input_shape` and dtype.
        out : array, optional
            Array for the result: of `output_shape` and the same dtype, in C order, without memory shared with `x`.

        Returns
        -------
        array
            A new array of the same dtype, or `out`.

        Raises
        ------
        TypeError, ValueError
            For another dtype or shape.
        """
        expected = self.input_shape
        array = x if _fits(x, expected, self.layer.dtype) else array_of("input", x, self.dims + 2)
        if array.shape != expected:
            raise ValueError(f"input has shape {array.shape}, the plan was made for {expected}: make a plan for each shape")
        if array.dtype != self.layer.dtype:
            raise TypeError(f"input is {array.dtype}, the weights are {self.layer.dtype}: they have the same dtype")
        y = np.empty(self.output_shape, self.layer.dtype) if out is None else self._checked(out, array)
        if y.size:
            self._runner(*self._images(array, y))
        return y

    @property
    def adds(self) -> bool:
        """Whether the layer can add its result to the output array, before the activation."""
        return self._runner.adds

    def job(self, x: Array, out: Array, adding: bool = False) -> Job | None:
        """Return ``plan(x, out)`` as a job to run later, or None if one job cannot do it.

        With `adding`, which requires `adds`, the job computes ``out = activation(layer(x) + out)``.
        """
        return self._runner.job(*self._images(x, out), adding)

    @property
    def algorithm(self) -> str:
        """The name of the algorithm that runs."""
        return self.method.name

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        return self._shape(self.layer.channels, (self.layer.height, self.layer.width), self.layer.blocks[0])

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self._shape(self.layer.filters, self.layer.output, self.layer.blocks[1])

    @property
    def workspace_bytes(self) -> int:
        """Bytes of workspace per call, without the packed weights; kept for the next call."""
        return self._runner.workspace_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of the transformed and packed weights."""
        return self._runner.weight_bytes

    @cached_property
    def subnormal_weights(self) -> int:
        """Number of subnormal packed weights, on which arithmetic may be slow: see `flush_subnormals`."""
        job = self._runner.job(NOTHING, NOTHING)
        weights = None if job is None else job.arrays[1]
        if weights is None:
            return 0
        return int(np.count_nonzero((np.abs(weights) < np.finfo(self.layer.dtype).tiny) & (weights != 0)))

    def explain(self) -> str:
        """Return a few lines on what runs and why."""
        axes = self.method.axes
        lines = [f"{self.algorithm}, {self.method.why}: {self.input_shape} -> {self.output_shape}, {self.layer.dtype}"]
        if axes is not None:
            per_output = axes[0].products * axes[1].products / (axes[0].m * axes[1].m)
            per_output *= self.layer.stride[0] * self.layer.stride[1] if self.method.phases else 1
            direct = self.layer.kernel[0] * self.layer.kernel[1]
            lines.append(f"multiplications per output and channel: {per_output:g}, direct {direct}: {direct / per_output:.3g} times fewer")
            lines += [f"{name}: {alg!r}" for name, alg in zip(("height", "width"), axes, strict=True) if alg.n > 1]
            lines.append(f"transforms summed in the order {self.order}")
        lines += self._runner.details()
        if self.subnormal_weights:
            limit = np.finfo(self.layer.dtype).tiny
            remedy = "they count as zero here" if flushes() else "fastconv.flush_subnormals takes them for zero"
            lines.append(f"{self.subnormal_weights} packed weights are subnormal, below {limit:.2g}, and may be slow: {remedy}")
        lines.append(f"workspace {self.workspace_bytes} bytes, packed weights {self.weight_bytes} bytes, {self.threads} threads")
        return "\n".join(lines)

    def _images(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return input and output as the layer's images."""
        layer = self.layer
        return x.reshape(layer.batch, layer.channels, layer.height, layer.width), y.reshape(layer.batch, layer.filters, *layer.output)

    def _checked(self, out: Array, x: Array) -> Array:
        """Return `out`, or reject an array to which the result cannot be written."""
        if not isinstance(out, np.ndarray) or out.dtype != self.layer.dtype:
            raise TypeError(f"out is {getattr(out, 'dtype', type(out).__name__)}: the result is an array of {self.layer.dtype}")
        if out.shape != self.output_shape or not out.flags.carray:
            raise ValueError(f"out has shape {out.shape}, the result {self.output_shape}: pass a writable array of it in C order")
        if np.may_share_memory(out, x):
            raise ValueError("out shares memory with the input: pass an array apart from it")
        return out

    def _shape(self, channels: int, sizes: Sequence[int], blocks: bool) -> tuple[int, ...]:
        if blocks:
            lanes = machine().vector_bytes // self.layer.dtype.itemsize
            return (self.layer.batch, channels // lanes, *sizes, lanes)
        return (*((self.layer.batch,) if self.batched else ()), channels, *sizes[2 - self.dims :])


def _fits(x: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> TypeGuard[Array]:
    """Return whether an input needs neither a copy nor further checks."""
    return type(x) is np.ndarray and x.shape == shape and x.dtype == dtype and x.flags.c_contiguous and x.flags.aligned


class OneJob:
    """Base of runners whose work is one job."""

    pool: Pool
    template: Job

    def __call__(self, x: Array, y: Array) -> None:
        """Run all work items, in the plan's threads."""
        self.pool.run(self.template, x, y)


class BlockRunner(OneJob):
    """Runs a layer with the block engine: a fast algorithm, or im2col."""

    adds = True

    def __init__(
        self,
        layer: Layer,
        method: Method,
        weight: Array,
        bias: Array | None,
        order: str,
        threads: int,
        activation: Activation | None = None,
    ) -> None:
        self.parts = blocked(layer, method, weight, order, threads, activation is not None)
        self.blocks = layer.blocks
        bias = np.zeros(layer.filters, layer.dtype) if bias is None else bias.copy()
        table = bias[:, None] if activation is None else activation.table(bias)
        self.bias = in_lanes(table, layer.groups, self.parts) if self.parts.held else table
        self.pool, self.members = Pool(), min(threads, self.parts.items)
        self.workspace_bytes = COUNTER + self.members * self.parts.workspace
        self.weight_bytes = self.parts.weights.nbytes
        self.template = self.job(NOTHING, NOTHING)

    def job(self, x: Array, y: Array, adding: bool = False) -> Job:
        """Return the job of all work items; `adding` adds the values in `y` after the bias."""
        arrays = (x, self.parts.weights, self.bias, y)
        description = self.parts.adding if adding else self.parts.description
        return Job(self.parts.engine, description, self.parts.items, arrays, self.members, self.parts.workspace)

    def details(self) -> list[str]:
        """Say how the layer is cut."""
        d = self.parts.description
        fused = "fused multiply-add" if machine().fma else "multiplications and additions"
        where = " and ".join(name for name, lies in zip(("input", "output"), self.blocks, strict=True) if lies)
        blocks = [f"channels of {where} in blocks of {d['lanes']}"] if where else []
        return [
            f"{d['tiles']} tiles in {d['blocks']} blocks of {d['block']}",
            f"filters in {d['shares']} shares, {d['kblock']} transformed back at once",
            f"products summed in chains of {d['channel_block']} with {fused}, vectors of {d['lanes']}",
            *blocks,
        ]

"""The operators between convolutions on compiled kernels, where these serve; the definitions in `operators` hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastconv.kernels import Activation, plan_conv2d
from fastconv.kernels.operators import FEW, average_pool, curve, dense, kind_of, max_pool, mean, planewise
from fastconv.kernels.runners import MOST, Transposed
from fastconv.native import lasting
from fastconv.network.graph.graph import Array, Node
from fastconv.network.graph.weights_file import files_of, let_go
from fastconv.network.operators.call import Call
from fastconv.network.operators.convolution import transposed_geometry
from fastconv.network.operators.linear import finished
from fastconv.network.operators.window import window
from fastconv.network.rewrite.optimise import slope_and_bounds
from fastconv.network.run.blocks import Readers, lies_in_blocks

Allocate = Callable[[tuple[int, ...], Any], Array]
_POOL_BYTES = 2**26
"""What a pool may take beside its result."""


@dataclass(frozen=True)
class Place:
    """Where an operator computes: the network's constants, where results go, threads."""

    constants: Mapping[str, Array]
    allocate: Allocate
    threads: int
    plan: Callable[[Any, Callable[[], Any]], Any]
    """``plan(key, make)`` returns the node's plan for a key, made once."""
    do: Callable[[Any], None]
    """Does a job that depends on the values of the node's inputs by its arrays alone, and is all that the node does but for others such."""
    now: Callable[[Any], None]
    """Does any other job."""
    dying: frozenset[str] = frozenset()
    """Inputs that nobody reads after this node: it may write over them."""
    blocks: Readers = field(default_factory=dict)
    """Tensors that may lie in blocks of channels, with the nodes that read them."""

    def activation(self, nodes: tuple[Node, ...], y_shape: tuple[int, ...]) -> Any:
        """Return the activation that fused nodes are; None for no node, or where they are no such activation."""
        if len(nodes) != 1:
            return None
        found = slope_and_bounds(nodes[0], self.constants, y_shape[1] if len(y_shape) == 4 else None)
        return None if found is None else Activation(*found)


def fast(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    """Run a node with what is fused to it; None where no compiled kernel serves it."""
    make = _FAST.get(node.operator)
    if make is None or not inputs or inputs[0] is None or inputs[0].size == 0 or inputs[0].dtype.kind != "f":
        return None
    return make(node, call, inputs, place)


def _activation(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    x = inputs[0]
    activation = None if x is None or not kind_of(x) else place.activation((node,), x.shape)
    if x is None or activation is None:
        return None
    y = place.allocate(x.shape, x.dtype)
    place.do(planewise(x, y, activation=activation, threads=place.threads))
    return y


def _sum(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    a, b = inputs
    if a is None or b is None or a.shape != b.shape or not kind_of(a, b):
        return None
    activation = place.activation(node.fused, a.shape)
    if node.fused and activation is None:
        return None
    call.reserve(a.shape, a.dtype)
    y = place.allocate(a.shape, a.dtype)
    place.do(planewise(a, y, other=b, activation=activation, threads=place.threads))
    return y


def _normalisation(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    x, *parts = inputs
    known = [part for part in parts if part is not None]
    if x is None or x.ndim < 2 or not kind_of(x) or len(known) != 4 or any(part.shape != x.shape[1:2] for part in known):
        return None
    activation = place.activation(node.fused, x.shape)
    if call.get("training_mode", 0) or call.get("spatial", 1) != 1 or call.outputs != 1 or node.fused and activation is None:
        return None
    scale, shift, mean, var = (part.astype(x.dtype, copy=False) for part in known)
    y = place.allocate(x.shape, x.dtype)
    do = place.do if all(name in place.constants for name in node.inputs[1:]) else place.now
    do(planewise(x, y, None, (mean, scale / np.sqrt(var + call["epsilon"]), shift), activation, place.threads))
    return y


def _pool(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    x = inputs[0]
    blocks = lies_in_blocks(node.inputs[0], x, place.blocks)
    if x is None or x.ndim != 4 + blocks or not kind_of(x) or call.outputs != 1:
        return None
    view = window(call, x.shape[2:4], call["kernel_shape"], bool(call.get("ceil_mode", 0)))
    y = place.allocate(call.reserve((*x.shape[:2], *view.out, *x.shape[4:]), x.dtype), x.dtype)
    # A stride longer than the input gives its one window too.
    strides = tuple(min(s, n + b + e) for s, n, b, e in zip(view.strides, x.shape[2:4], view.begin, view.end, strict=True))
    geometry = view.kernel, strides, view.dilations, view.begin
    if node.operator == "MaxPool":
        job = max_pool(x, y, *geometry, threads=place.threads)
        if job.room > _POOL_BYTES:  # of windows that lie in their padding
            return None
        place.do(job)
    else:
        before, after = (view.begin, view.end) if call["count_include_pad"] else ((0, 0), (0, 0))
        axes = zip(x.shape[2:], view.out, view.kernel, view.strides, view.dilations, view.begin, before, after, strict=True)
        rows, columns = (_inside(*axis) for axis in axes)
        place.do(average_pool(x, y, *geometry, np.asarray(rows[:, None] * columns, x.dtype), place.threads))
    return y


def _mean(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    x = inputs[0]
    if x is None or x.ndim < 3 or not kind_of(x):
        return None
    y = place.allocate((*x.shape[:2], *(1,) * (x.ndim - 2)), x.dtype)
    place.do(mean(x, y, place.threads))
    return y


def _inside(length: int, out: int, kernel: int, stride: int, dilation: int, begin: int, before: int, after: int) -> Array:
    """Count along one axis how many taps of each window lie inside the input, or the part of the padding that counts."""
    at = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - begin
    return np.asarray(((at >= -before) & (at < length + after)).sum(axis=1))


def _product(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    a, b = inputs
    if a is None or b is None or 0 in (a.size, b.size) or not kind_of(a, b):
        return None
    if a.size < b.size:
        a, b = b, a
    name = "product"
    if a.shape != b.shape:  # one number a channel
        if a.ndim < 3 or b.shape != (*a.shape[:2], *(1,) * (a.ndim - 2)):
            return None
        name = "scaled"
    y = place.allocate(call.reserve(a.shape, a.dtype), a.dtype)
    place.do(curve(name, a, y, b, threads=place.threads))
    return y


def _curve(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    x = inputs[0]
    if x is None or not kind_of(x):
        return None
    name = {"HardSigmoid": "hard_sigmoid", "HardSwish": "hard_swish", "Sigmoid": "sigmoid", "Swish": "swish"}[node.operator]
    alpha, beta = (call["alpha"] if name in ("hard_sigmoid", "swish") else 1.0, call["beta"] if name == "hard_sigmoid" else 0.0)
    y = place.allocate(x.shape, x.dtype)
    place.do(curve(name, x, y, alpha=alpha, beta=beta, threads=place.threads))
    return y


def _transposed(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    x, weight, bias = (*inputs, None)[:3]
    constant = all(not name or name in place.constants for name in node.inputs[1:])
    if x is None or weight is None or not constant or not kind_of(x) or x.ndim not in (3, 4) or weight.ndim != x.ndim:
        return None
    groups = int(call["group"])
    if weight.dtype != x.dtype or groups < 1 or x.shape[1] != weight.shape[0] or x.shape[1] % groups or 0 in weight.shape:
        return None
    channels = weight.shape[1] * groups
    if bias is not None and (bias.shape != (channels,) or bias.dtype != x.dtype):
        return None
    view = transposed_geometry(call, x.shape[2:], weight.shape[2:])
    covered = ((n - 1) * s + k for n, s, k in zip(view.out, view.strides, view.kernel, strict=True))
    out = tuple(c - b - e for c, b, e in zip(covered, view.begin, view.end, strict=True))
    if set(view.dilations) != {1} or view.strides[-1] > MOST or min(*view.begin, *out) < 0 or 0 in out:
        return None
    shape = call.reserve((x.shape[0], channels, *out), x.dtype)
    activation = place.activation(node.fused, shape)
    if node.fused and activation is None:
        return None
    phases = math.prod(view.strides)
    call.reserve((*shape[:2], phases, *(-(-(b + o) // s) + n for b, o, s, n in zip(view.begin, out, view.strides, view.out, strict=True))))

    def make() -> Any:
        flat = (1,) * (4 - x.ndim)
        none = (0,) * (4 - x.ndim)
        image, taps = (*x.shape[:2], *flat, *x.shape[2:]), weight.reshape(*weight.shape[:2], *flat, *weight.shape[2:])
        begin, size, strides = ((*none, *view.begin), (*flat, *out), (*flat, *view.strides))
        made = Transposed(image, taps, bias, strides[-2:], begin[-2:], size[-2:], groups, place.threads, activation)
        let_go([weight])
        return made

    y = place.allocate(shape, x.dtype)
    place.do(place.plan((x.shape, node.inputs[1:], tuple(part.name for part in node.fused)), make).job(x, y))
    return y


def _gemm(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    a, b, c = (*inputs, None)[:3]
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or call["transA"]:
        return None
    transposed = bool(call["transB"])
    outputs = b.shape[0 if transposed else 1]
    activation = place.activation(node.fused, (0, 0))
    plain = call["alpha"] == 1 == call["beta"] and (activation is not None or not node.fused)
    if plain and (c is None or node.inputs[2] in place.constants and c.shape in ((outputs,), (1, outputs)) and c.dtype == a.dtype):
        return _matrix(node, call, a, b, transposed, place, None if c is None else c.reshape(-1), activation)
    product = _matrix(node, call, a, b, transposed, replace(place, do=place.now))
    y = None if product is None else finished(call, product, c)
    if y is None or not node.fused:
        return y
    return None if activation is None else np.asarray(activation(y))


def _matmul(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    a, b = inputs
    return None if a is None or b is None or a.ndim != 2 or b.ndim != 2 else _matrix(node, call, a, b, False, place)


def _matrix(
    node: Node, call: Call, a: Array, b: Array, transposed: bool, place: Place, bias: Array | None = None, activation: Any = None
) -> Array | None:
    """Multiply by constant weights: few rows read them where they are, many rows are the pixels of a 1x1 convolution."""
    if node.inputs[1] in place.constants and files_of([b]):  # which others may write to, and where they may not be aligned
        b = place.plan(("copied", b.shape), lambda: _copied(b))
    if not kind_of(a, b) or a.shape[1] != b.shape[1 if transposed else 0] or 0 in (*a.shape, *b.shape):
        return None
    outputs = b.shape[0 if transposed else 1]
    call.reserve((a.shape[0], outputs), a.dtype)
    if a.shape[0] <= FEW:
        y = np.empty((a.shape[0], outputs), a.dtype)
        place.do(dense(a, b, y, transposed, bias, activation, place.threads))
        return y
    if node.inputs[1] not in place.constants:
        return None
    image = np.ascontiguousarray(a.T)[None, :, None]

    def make() -> Any:
        weight = b if transposed else b.T
        return plan_conv2d(
            weight[:, :, None, None], bias, input_shape=image.shape, algorithm="direct", threads=place.threads, activation=activation
        )

    return np.ascontiguousarray(place.plan(a.shape, make)(image)[0, :, 0].T)


def _copied(array: Array) -> Array:
    copy = lasting(array.shape, array.dtype)
    copy[...] = array
    let_go([array])
    return copy


_FAST: Mapping[str, Callable[[Node, Call, list[Array | None], Place], Array | None]] = {
    "Add": _sum,
    "AveragePool": _pool,
    "BatchNormalization": _normalisation,
    "Clip": _activation,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "HardSigmoid": _curve,
    "HardSwish": _curve,
    "LeakyRelu": _activation,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _product,
    "PRelu": _activation,
    "Relu": _activation,
    "Sigmoid": _curve,
    "Swish": _curve,
}

"""Run a node of a network on the layer kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.kernels import Activation, How, Layer, kind_of, layer_of, plan_conv2d, plan_layer
from fastconv.network.graph.graph import Array, Node
from fastconv.network.graph.weights_file import let_go
from fastconv.network.operators.call import Call, is_narrow
from fastconv.network.operators.convolution import check_convolution
from fastconv.network.operators.record import Place
from fastconv.network.operators.table import operator_of
from fastconv.network.operators.window import Window, planar, window
from fastconv.network.run.blocks import plain_shape

Takes = Callable[[tuple[int, ...], "np.dtype[Any]"], bool]
"""``takes(shape, dtype)`` tells whether all readers of the result take it in blocks of channels."""


def layer_at(node: Node, shape: tuple[int, ...], weight: Array) -> Layer:
    """Return the layer of a convolution in a network; a signal is an image of height one.

    Raises
    ------
    TypeError, ValueError
        If it has another rank, or shapes that do not fit.
    """
    view = window(Call(node.attributes, node.opset), shape[2:], weight.shape[2:])
    return replace(layer_under(view, node, shape, weight), cold=True)


def layer_under(view: Window, node: Node, shape: tuple[int, ...], weight: Array) -> Layer:
    """Return the layer of a convolution whose windows are known, on its own: its weights stay in a cache."""
    pads = tuple(zip(view.begin, view.end, strict=True))
    given = tuple((max(b, 0), max(e, 0)) for b, e in pads)
    layer = layer_of(weight, None, view.strides, given, view.dilations, int(node.attributes.get("group", 1)), shape)  # type: ignore[arg-type]
    return layer if given == pads else replace(layer, padding=pads)  # type: ignore[arg-type]


def convolve(node: Node, call: Call, inputs: Sequence[Array | None], place: Place, how: How, takes: Takes) -> Array | None:
    """Run a convolution of images or signals, with what is fused to it; None where the kernels do not serve it."""
    x, weight, bias, other = (*inputs, None, None)[:4]
    constant = all(not name or name in place.constants for name in node.inputs[1:3])
    if x is None or weight is None or not constant or x.dtype not in (np.float32, np.float64):
        return None
    inside = place.is_blocked(node.inputs[0], x)
    given = plain_shape(x) if inside else x.shape
    if len(given) not in (3, 4):
        return None
    check_convolution(call, np.broadcast_to(np.empty((), x.dtype), given) if inside else x, weight, bias)
    shape = call.reserve((given[0], weight.shape[0], *window(call, given[2:], weight.shape[2:]).out), x.dtype)
    finish = node.fused if other is None else node.fused[1:]
    activation = place.activation(finish, shape)
    if finish and activation is None or other is not None and (other.shape != shape or not kind_of(x, other)) or x.size == 0:
        return None
    flat = len(given) == 3
    image = np.ascontiguousarray(x[:, :, None] if flat else x)
    # Where a plan cannot add the shortcut itself, the sum follows.
    apart = other is not None and (how.algorithm == "fft" or node.attributes.get("group", 1) != 1)
    wish = node.outputs[0] in place.blocks and other is None and not flat

    def make() -> Any:
        layer = replace(layer_at(node, given, weight), blocks=(inside, wish and takes(shape, image.dtype)))
        taps = weight[:, :, None] if flat else weight
        plan = plan_layer(layer, taps, bias, how._replace(activation=None if apart else activation))
        let_go([weight])
        return plan

    plan = place.plan((image.shape, node.inputs[1:3], tuple(part.name for part in node.fused), apart, wish), make)
    do = place.do if np.may_share_memory(image, x) else place.now
    if other is not None and not apart:
        y = other
        if node.inputs[3] not in place.dying:
            y, do = other.copy(), place.now
        do(plan.job(image, y, adding=True))
        return y
    y = place.allocate(plan.output_shape, image.dtype)
    job = plan.job(image, y) if kind_of(image) and other is None else None
    if job is None:
        plan(image, y)
    else:
        do(job)
    if other is not None:
        np.add(y, other.reshape(y.shape), out=y)
        y = y if activation is None else activation(y)
    return y[:, :, 0] if flat else y


def convolve_in_a_plane(node: Node, call: Call, inputs: Sequence[Array | None], place: Place, how: How) -> Array | None:
    """Run a convolution of any rank and format on the layer kernels, narrow formats in float32; None if weights are computed."""
    x, weight, bias = inputs
    constant = all(not name or name in place.constants for name in node.inputs[1:3])
    if x is None or weight is None or not constant or not (x.dtype in (np.float32, np.float64) or is_narrow(x.dtype)):
        return None
    check_convolution(call, x, weight, bias)
    view = window(call, x.shape[2:], weight.shape[2:])
    call.reserve((x.shape[0], weight.shape[0], *view.out), x.dtype)
    kind = np.dtype(np.float32) if is_narrow(x.dtype) else x.dtype
    taps = math.prod(weight.shape[2:-2])
    call.reserve((taps, x.shape[0], x.shape[1], *(n + b + e for n, b, e in zip(x.shape[2:], view.begin, view.end, strict=True))), kind)
    flat = planar(view, x.astype(kind, copy=False), weight)
    if flat.x.size == 0:
        return None
    image = np.ascontiguousarray(np.pad(flat.x, flat.view.pads))

    def make() -> Any:
        return plan_conv2d(
            flat.weight.astype(kind, copy=False),
            None if bias is None else bias.astype(kind, copy=False),
            flat.view.strides,
            0,
            flat.view.dilations,
            int(node.attributes.get("group", 1)),  # type: ignore[arg-type]
            input_shape=image.shape,
            algorithm=how.algorithm,
            threads=how.threads,
            max_error=how.max_error,
        )

    plan = place.plan((image.shape, x.shape, node.inputs[1:3]), make)
    return flat.restored(plan(image)).astype(x.dtype, copy=False)


def fast(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    """Run a node and its fused nodes on a compiled kernel, or return None if none supports it."""
    compiled = operator_of(node).compiled
    if compiled is None or not inputs or inputs[0] is None or inputs[0].size == 0 or inputs[0].dtype.kind != "f":
        return None
    return compiled(node, call, inputs, place)


def activation_of(nodes: tuple[Node, ...], constants: Mapping[str, Array], shape: tuple[int, ...]) -> Any:
    """Return fused nodes as an activation on a tensor of that shape, or None."""
    slopes = operator_of(nodes[0]).activation if len(nodes) == 1 else None
    found = None if slopes is None else slopes(nodes[0], constants, shape[1] if len(shape) == 4 else None)
    return None if found is None else Activation(*found)

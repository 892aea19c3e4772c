"""Convolutions of any rank in plain numpy.

2-D convolutions with constant weights run on the layer kernels; these definitions run the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.kernels import kind_of
from fastconv.kernels.runners import MOST, Frame, Transposed
from fastconv.network.graph.graph import Array, Node
from fastconv.network.graph.weights_file import let_go
from fastconv.network.operators.call import Call
from fastconv.network.operators.record import Blocks, Operator, Place, Weights
from fastconv.network.operators.window import Planar, Window, padded, planar, window


def check_convolution(call: Call, x: Array, weight: Array, bias: Array | None) -> None:
    """Raise ValueError unless ranks, channels, groups, bias and kernel_shape of a convolution match."""
    groups = int(call["group"])
    if x.ndim < 3 or weight.ndim != x.ndim:
        raise ValueError(f"input and weight must have one rank of at least 3, not shapes {x.shape} and {weight.shape}")
    if x.dtype != weight.dtype or x.dtype.kind != "f" and x.dtype.name != "bfloat16":
        raise ValueError(f"input and weight must have one floating-point type, not {x.dtype} and {weight.dtype}")
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(f"{x.shape[1]} channels do not fit a weight of shape {weight.shape} in {groups} groups")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"the bias must have the shape {weight.shape[:1]}, not {bias.shape}")
    if call.get("kernel_shape") is not None and tuple(call["kernel_shape"]) != weight.shape[2:]:
        raise ValueError(f"kernel_shape {list(call['kernel_shape'])} contradicts the weight's shape {weight.shape}")


def convolution(call: Call, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return the correlation: one matrix product per tap, summed over the taps."""
    check_convolution(call, x, weight, bias)
    groups, view = int(call["group"]), window(call, x.shape[2:], weight.shape[2:])
    call.reserve((x.shape[0], weight.shape[0], *view.out), x.dtype)
    x = padded(call, x, view, 0)
    batch, size = x.shape[0], int(np.prod(view.out, dtype=np.int64))
    y = np.zeros((batch, groups, weight.shape[0] // groups, size), x.dtype)
    taps = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    for tap, slices in view.taps():
        y += taps[tap] @ np.ascontiguousarray(x[slices]).reshape(batch, groups, weight.shape[1], size)
    y = y.reshape(batch, weight.shape[0], *view.out)
    return y if bias is None else y + bias.reshape(-1, *(1,) * len(view.out))


def transposed_geometry(call: Call, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """Return the window of the forward convolution; `out` is the small side."""
    rank = len(spatial)
    # The window of a single position checks the attributes; its size is replaced below.
    reach = tuple((k - 1) * int(d) + 1 for k, d in zip(kernel, call.get("dilations") or (1,) * rank, strict=True))
    base = window(Call({**call.attributes, "auto_pad": "NOTSET"}, call.opset), reach, kernel)
    extra = tuple(int(v) for v in call.get("output_padding") or (0,) * rank)
    if len(extra) != rank or min(extra, default=0) < 0:
        raise ValueError(f"output_padding must be {rank} non-negative integers, not {list(extra)}")
    auto, shape = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    full = tuple((n - 1) * s + e + r for n, s, e, r in zip(spatial, base.strides, extra, reach, strict=True))
    if shape is not None:
        shape = tuple(int(v) for v in shape)[-rank:]
        if len(shape) != rank:
            raise ValueError(f"output_shape must have {rank} entries, not {len(shape)}")
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        shape = tuple(n * s for n, s in zip(spatial, base.strides, strict=True))
    if shape is None:
        begin, end = ((0,) * rank, (0,) * rank) if auto == "VALID" else (base.begin, base.end)
    else:
        total = tuple(max(0, f - o) for f, o in zip(full, shape, strict=True))
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        begin, end = (small, large) if auto == "SAME_UPPER" else (large, small)
        end = tuple(f - o - b for f, o, b in zip(full, shape, begin, strict=True))
    return replace(base, begin=begin, end=tuple(e - p for e, p in zip(end, extra, strict=True)), out=spatial)


def check_transposed(call: Call, x: Array, weight: Array, bias: Array | None) -> None:
    """Raise ValueError unless ranks, channels, groups and bias of a transposed convolution match."""
    groups = int(call["group"])
    if x.ndim < 3 or weight.ndim != x.ndim or x.dtype != weight.dtype:
        raise ValueError(f"input and weight must agree in rank and type, not {x.dtype} {x.shape} and {weight.dtype} {weight.shape}")
    if groups < 1 or x.shape[1] != weight.shape[0] or x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} channels do not fit a weight of shape {weight.shape} in {groups} groups")
    channels = weight.shape[1] * groups
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"the bias must have the shape {(channels,)}, not {bias.shape}")


def transposed_convolution(call: Call, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Add each input value to the outputs from which the forward convolution would compute it."""
    check_transposed(call, x, weight, bias)
    groups, channels = int(call["group"]), weight.shape[1] * int(call["group"])
    view = transposed_geometry(call, x.shape[2:], weight.shape[2:])
    covered = tuple((n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(view.out, view.strides, view.kernel, view.dilations, strict=True))
    final = tuple(c - b - e for c, b, e in zip(covered, view.begin, view.end, strict=True))
    call.reserve((x.shape[0], channels, *final), x.dtype)
    # A negative end crop is output_padding: space after all covered positions.
    room = tuple(max(c, b + f) for c, b, f in zip(covered, view.begin, final, strict=True))
    y = np.zeros(call.reserve((x.shape[0], groups, channels // groups, *room), x.dtype), x.dtype)
    batch, size = x.shape[0], int(np.prod(view.out, dtype=np.int64))
    rows = np.ascontiguousarray(x).reshape(batch, groups, x.shape[1] // groups, size)
    taps = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    for tap, slices in view.taps():
        y[slices] += (np.swapaxes(taps[tap], 1, 2) @ rows).reshape(*y.shape[:3], *view.out)
    crop: tuple[Any, ...] = (..., *(slice(b, b + f) for b, f in zip(view.begin, final, strict=True)))
    y = y[crop].reshape(batch, channels, *final)
    return y if bias is None else np.asarray(y + bias.reshape(-1, *(1,) * len(final)))


def transposed_as_convolution(call: Call, x: Array, weight: Array) -> tuple[Window, Array, Array]:
    """Return a transposed convolution as a convolution of the input with zeros inserted.

    Returns
    -------
    view : Window
        Window of that convolution, with strides of one and without padding.
    x : array
        The input with zeros, padded and cropped.
    weight : array (filters, channels / groups, ...)
        The weights mirrored, with channels and filters exchanged.
    """
    groups = int(call["group"])
    view = transposed_geometry(call, x.shape[2:], weight.shape[2:])
    lengths = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], view.strides, strict=True)]
    reach = [(k - 1) * d for k, d in zip(view.kernel, view.dilations, strict=True)]
    pads = [(r - b, r - e) for r, b, e in zip(reach, view.begin, view.end, strict=True)]
    call.reserve((*x.shape[:2], *(n + max(b, 0) + max(e, 0) for n, (b, e) in zip(lengths, pads, strict=True))), x.dtype)
    spread = np.zeros((*x.shape[:2], *lengths), x.dtype)
    every: tuple[Any, ...] = (..., *(slice(None, None, s) for s in view.strides))
    spread[every] = x
    spread = np.pad(spread, [(0, 0), (0, 0), *((max(b, 0), max(e, 0)) for b, e in pads)])
    crop: tuple[Any, ...] = (..., *(slice(max(-b, 0), n - max(-e, 0)) for n, (b, e) in zip(spread.shape[2:], pads, strict=True)))
    spread = np.ascontiguousarray(spread[crop])
    taps = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    mirrored: tuple[Any, ...] = (..., *(slice(None, None, -1),) * len(view.kernel))
    taps = taps.reshape(-1, weight.shape[0] // groups, *weight.shape[2:])[mirrored]
    rank = len(view.kernel)
    out = tuple(n - r for n, r in zip(spread.shape[2:], reach, strict=True))
    flat = Window(view.kernel, (1,) * rank, view.dilations, (0,) * rank, (0,) * rank, out)
    return flat, spread, np.ascontiguousarray(taps)


def in_a_plane(operator: str, call: Call, x: Array, weight: Array) -> Planar:
    """Return a convolution or transposed convolution of any rank as a convolution of padded images."""
    if operator == "Conv":
        view = window(call, x.shape[2:], weight.shape[2:])
    else:  # inserted zeros change no sum
        view, x, weight = transposed_as_convolution(call, x, weight)
    call.reserve((x.shape[0], weight.shape[0], *view.out), x.dtype)
    flat = planar(view, x, weight)
    return replace(flat, x=np.pad(flat.x, flat.view.pads))


def compiled_transposed(node: Node, call: Call, inputs: list[Array | None], place: Place) -> Array | None:
    """Run a transposed convolution: a direct layer, then a pass that interleaves phases."""
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
        made = Transposed(image, taps, bias, Frame(strides[-2:], begin[-2:], size[-2:]), groups, place.threads, activation)
        let_go([weight])
        return made

    y = place.allocate(shape, x.dtype)
    place.do(place.plan((x.shape, node.inputs[1:], tuple(part.name for part in node.fused)), make).job(x, y))
    return y


def _checked_plane(call: Call, x: Array, weight: Array, bias: Array | None) -> Planar:
    check_convolution(call, x, weight, bias)
    return in_a_plane("Conv", call, x, weight)


def _checked_transposed_plane(call: Call, x: Array, weight: Array, bias: Array | None) -> Planar:
    check_transposed(call, x, weight, bias)
    return in_a_plane("ConvTranspose", call, x, weight)


def _terms(node: Node, weight: Array) -> int:
    return int(weight.size // max(weight.shape[0], 1))


def _filters(node: Node, weight: Array) -> int:
    return int(weight.shape[0])


def _scaled(node: Node, weight: Array, factor: Array) -> Array | None:
    return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))


def _transposed_filters(node: Node, weight: Array) -> int:
    return int(weight.shape[1]) * int(node.attributes.get("group", 1))  # type: ignore[arg-type]


def _transposed_scaled(node: Node, weight: Array, factor: Array) -> Array | None:
    group = int(node.attributes.get("group", 1))  # type: ignore[arg-type]
    if group < 1 or weight.shape[0] % group:
        return None
    ones = (1,) * (weight.ndim - 2)
    return (weight.reshape(group, -1, *weight.shape[1:]) * factor.reshape(group, 1, -1, *ones)).reshape(weight.shape)


def _of_images(node: Node, constants: Mapping[str, Array]) -> bool:
    """Return whether a node is a 2-D convolution with constant weights."""
    weight = constants.get(node.inputs[1])
    return weight is not None and weight.ndim == 4


OPERATORS: tuple[Operator, ...] = (
    Operator(  # the runner uses the kernels, as it knows the algorithm of each layer
        "Conv",
        convolution,
        narrow="uniform",
        takes_activation=True,
        weights=Weights(_terms, channels=_filters, scaled=_scaled),
        plane=_checked_plane,
        blocks=Blocks(_of_images),
    ),
    Operator(
        "ConvTranspose",
        transposed_convolution,
        narrow="uniform",
        compiled=compiled_transposed,
        same_bits=False,
        takes_activation=True,
        weights=Weights(_terms, per_input=True, channels=_transposed_filters, scaled=_transposed_scaled),
        plane=_checked_transposed_plane,
    ),
)

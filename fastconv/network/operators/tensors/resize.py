"""Resize: nearest, linear and cubic interpolation, axis by axis.

Every mode maps an output position into the input and sums a few weighted taps around it. Modes differ in the taps,
coordinate modes in the map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.operators.call import Call, axes_of, integers
from fastconv.network.operators.record import Operator


def positions(mode: str, out: int, length: int, scale: float, roi: tuple[float, float]) -> Array:
    """Return the input positions of one axis's outputs in a coordinate mode.

    `scale` may differ from out / length: if a model gives the scale, its product with the length is rounded down (`_lengths`).
    """
    x = np.arange(out, dtype=np.float64)
    resized = scale * length
    if mode == "half_pixel":
        return (x + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        # The offset corrects for the rounding of the output length, so that the image stays centred.
        offset = length / 2 * (1 - out / resized)
        return offset + (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (x + 0.5) / scale - 0.5 if out > 1 else np.zeros(out)
    if mode == "align_corners":
        return x * (length - 1) / (resized - 1) if resized != 1 else np.zeros(out)
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if mode == "tf_crop_and_resize":
        start, end = roi
        if out > 1:
            return start * (length - 1) + x * (end - start) * (length - 1) / (out - 1)
        return np.full(out, 0.5 * (start + end) * (length - 1))
    raise ValueError(f"unknown coordinate_transformation_mode {mode!r}")


def nearest(x: Array, mode: str) -> Array:
    """Return positions rounded to integers."""
    rounding: Mapping[str, Callable[[Array], Array]] = {
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in rounding:
        raise ValueError(f"nearest_mode must be one of {', '.join(rounding)}, not {mode!r}")
    return rounding[mode](x).astype(np.int64)


def triangle(x: Array) -> Array:
    """Return the weight of linear interpolation at a distance."""
    return np.asarray(np.maximum(0, 1 - np.abs(x)))


def cubic(a: float) -> Callable[[Array], Array]:
    """Return the weight of cubic convolution with the parameter a at a distance (Keys 1981)."""

    def weight(x: Array) -> Array:
        x = np.abs(x)
        inner = ((a + 2) * x - (a + 3)) * x * x + 1
        outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, inner, np.where(x < 2, outer, 0))

    return weight


class Curve(NamedTuple):
    """The weights of taps: ``weight(distance)``, which is zero from `reach` on."""

    reach: int
    weight: Callable[[Array], Array]


def interpolate(x: Array, axis: int, where: Array, scale: float, curve: Curve, antialias: bool, outside: bool) -> Array:
    """Return the weighted sum of the taps around each position of one axis.

    With `antialias`, a downscaled axis stretches the weights by 1 / scale. With `outside` (exclude_outside), taps outside
    the input have weight zero and the others are renormalised; otherwise the edge is repeated.
    """
    stretch = min(scale, 1.0) if antialias else 1.0
    span = math.ceil(curve.reach / stretch)
    first = np.floor(where).astype(np.int64) - span + 1
    length, total = x.shape[axis], 0.0
    taps = [first + k for k in range(2 * span)]
    weights: list[Any] = [curve.weight((tap - where) * stretch) for tap in taps]
    if outside:
        weights = [np.where((tap >= 0) & (tap < length), w, 0) for tap, w in zip(taps, weights, strict=True)]
    if outside or antialias:
        total = sum(weights)
        weights = [w / np.where(total == 0, 1, total) for w in weights]
    shape = [1] * x.ndim
    shape[axis] = len(where)
    y: Any = 0
    for tap, w in zip(taps, weights, strict=True):
        y = y + x.take(np.clip(tap, 0, length - 1), axis=axis) * w.reshape(shape).astype(x.dtype)
    return np.asarray(y)


def resize(call: Call, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None) -> Array:
    """Resize to given sizes or by given scales."""
    if call.opset < 11:
        roi, scales = None, roi
    along = axes_of(call.get("axes", tuple(range(x.ndim))), x.ndim)
    scale, out = _target(call, x, along, scales, sizes)
    call.reserve([out.get(i, n) for i, n in enumerate(x.shape)], np.float64)
    mode, coordinates = call["mode"], call.get("coordinate_transformation_mode", "asymmetric")
    bounds = [0.0] * len(along) + [1.0] * len(along) if roi is None or roi.size == 0 else [float(v) for v in roi.reshape(-1)]
    if coordinates == "tf_crop_and_resize" and len(bounds) != 2 * len(along):
        raise ValueError(f"roi must have {2 * len(along)} entries, not {len(bounds)}")
    if x.size == 0:
        resized = tuple(out.get(i, n) for i, n in enumerate(x.shape))
        if math.prod(resized):
            raise ValueError(f"an empty tensor of shape {x.shape} cannot be resized to {resized}")
        return np.empty(resized, x.dtype)
    y = x if mode == "nearest" or x.dtype.kind == "f" else x.astype(np.float64)
    valid = np.ones((1,) * x.ndim, bool)
    for i, axis in enumerate(along):
        part = (bounds[i], bounds[len(along) + i]) if coordinates == "tf_crop_and_resize" else (0.0, 1.0)
        if out[axis] == x.shape[axis] and scale[axis] == 1 and part == (0.0, 1.0):
            continue
        where = positions(coordinates, out[axis], x.shape[axis], scale[axis], part)
        if not np.isfinite(where).all():
            raise ValueError(f"a scale of {scale[axis]} maps positions to infinity")
        y = _one_axis(call, y, axis, where, scale[axis])
        if coordinates == "tf_crop_and_resize":
            shape = [1] * x.ndim
            shape[axis] = len(where)
            valid = valid & ((where >= 0) & (where <= x.shape[axis] - 1)).reshape(shape)
    if not valid.all():
        y = np.where(valid, y, np.asarray(call["extrapolation_value"], y.dtype))
    return np.asarray(y).astype(x.dtype, copy=False)


def _one_axis(call: Call, x: Array, axis: int, where: Array, scale: float) -> Array:
    mode = call["mode"]
    if mode == "nearest":
        # In opset 10 the attribute did not exist and Resize used floor.
        index = nearest(where, call.get("nearest_mode", "floor"))
        return np.asarray(x.take(np.clip(index, 0, x.shape[axis] - 1), axis=axis))
    antialias, outside = bool(call.get("antialias", 0)), bool(call.get("exclude_outside", 0))
    if antialias and 2 / scale > 2**12:
        raise ValueError(f"a scale of {scale} would average thousands of elements for one")
    if mode == "linear":
        return interpolate(x, axis, where, scale, Curve(1, triangle), antialias, outside)
    if mode == "cubic":
        return interpolate(x, axis, where, scale, Curve(2, cubic(float(call["cubic_coeff_a"]))), antialias, outside)
    raise ValueError(f"mode must be nearest, linear or cubic, not {mode!r}")


def _target(
    call: Call, x: Array, along: tuple[int, ...], scales: Array | None, sizes: Array | None
) -> tuple[dict[int, float], dict[int, int]]:
    """Return scale and output length of each axis to resize."""
    given = [v for v in (scales, sizes) if v is not None and v.size]
    if len(given) != 1 or given[0].size != len(along):
        raise ValueError(f"either scales or sizes must be given, with {len(along)} entries")
    if scales is not None and scales.size:
        factor = [float(v) for v in scales.reshape(-1)]
        if not all(math.isfinite(f) and f > 0 for f in factor):
            raise ValueError(f"scales must be positive, not {factor}")
        return dict(zip(along, factor, strict=True)), _lengths(x, along, factor)
    assert sizes is not None
    wanted = integers(sizes, "sizes")
    if min(wanted) < 1:
        raise ValueError(f"sizes must be positive, not {list(wanted)}")
    factor = [w / max(x.shape[a], 1) for w, a in zip(wanted, along, strict=True)]
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    if policy in ("not_larger", "not_smaller"):
        common = min(factor) if policy == "not_larger" else max(factor)
        return dict.fromkeys(along, common), {a: math.floor(x.shape[a] * common + 0.5) for a in along}
    return dict(zip(along, factor, strict=True)), dict(zip(along, wanted, strict=True))


def _lengths(x: Array, along: tuple[int, ...], factor: list[float]) -> dict[int, int]:
    """Return the output lengths: the product with the scale rounded to float32, then rounded down.

    onnxruntime and PyTorch do the same: 0.7 times 10 gives 7. The standard's text implies an exact product; the float32 nearest to
    0.7 is below it, which would give 6.
    """
    return {a: math.floor(np.float32(x.shape[a]) * np.float32(f)) for a, f in zip(along, factor, strict=True)}


def upsample(call: Call, x: Array, scales: Array | None = None) -> Array:
    """Resize with asymmetric coordinates, nearest by floor or linear: the predecessor of Resize."""
    factors = np.asarray(call["scales"], np.float32) if scales is None else scales
    attributes = {"mode": call["mode"], "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return resize(Call(attributes, 13, 1, call.limit), x, None, factors, None)


OPERATORS: tuple[Operator, ...] = (
    Operator("Resize", resize),
    Operator("Upsample", upsample),
)

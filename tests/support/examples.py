"""Small examples of every operator, for the claims of `tests/network/test_operator_records.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

from support.models import OPSET as NEWEST

OPSET = min(24, NEWEST)


@dataclass(frozen=True)
class Example:
    """One call of an operator.

    `inputs` are arrays, or None for an omitted one. `terms` bounds the numbers summed or multiplied per result value; 0 means
    an exact result. `wanted(*inputs)` returns the result if onnx's reference evaluator has none.
    """

    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    terms: int = 1
    outputs: int = 1
    opset: int = OPSET
    wanted: Callable[..., Any] | None = None


def of(*inputs: Any, terms: int = 1, outputs: int = 1, opset: int = OPSET, wanted: Any = None, **attributes: Any) -> Example:
    return Example(inputs, attributes, terms, outputs, opset, wanted)


def exact(*inputs: Any, **options: Any) -> Example:
    return of(*inputs, terms=0, **options)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def between(low: float, high: float, *shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def whole(*values: Any) -> Any:
    return np.array(values, np.int64)


X = normal(2, 3, 5, 4)
"""An image: batch, channels, height, width."""
Y = normal(2, 3, 5, 4, seed=1)
M = normal(3, 4)
POSITIVE = between(0.5, 1.5, 2, 3, 5, 4)
SMALL = between(-0.9, 0.9, 2, 3, 5, 4)
ROW = normal(4, seed=2)
WHOLE = np.arange(12, dtype=np.float32).reshape(3, 4)
EDGES = np.array([-np.inf, -2, -0.5, 0, 0.5, 1, 3, np.inf, np.nan, 7e-39], np.float32)
P, Q = np.array([[-7, 7, 3], [0, 5, -2]], np.int32), np.array([[2, -2, 3], [4, 5, 1]], np.int32)
B, C = np.array([[True, False, True]]), np.array([[True], [False]])
CHANNELS = tuple(normal(3, seed=k) for k in (3, 4, 5)) + (between(0.5, 1.5, 3, seed=6),)

BOXES = np.array([[[0, 0, 1, 1], [1, 1.1, 0, 0.1], [0, 10, 1, 11]]], np.float32)
"""Corners, in the other order for the second box; the first two boxes have an overlap of 0.82."""
SCORES = np.array([[[0.7, 0.9, 0.5], [0.8, 0.2, 0.4]]], np.float32)

ELEMENTWISE = {
    "Abs Ceil Floor Neg Round Sign": (exact(X), exact(EDGES)),
    "Cos Erf Sin Sinh Cosh Exp Tan Tanh Asinh Atan": (of(SMALL),),
    "Acos Asin Atanh": (of(SMALL),),
    "Acosh": (of(POSITIVE + 1),),
    "Log Reciprocal Sqrt": (of(POSITIVE),),
    "Elu Celu Selu Gelu Mish HardSigmoid HardSwish Softplus Softsign Sigmoid Swish": (of(X, terms=4), of(normal(3, 7), terms=4)),
    "Relu": (exact(X), exact(EDGES)),
    "LeakyRelu": (of(X, alpha=0.3), of(EDGES, alpha=0.1)),
    "ThresholdedRelu": (exact(X, alpha=0.4),),
    "Shrink": (of(X, bias=0.2, lambd=0.5),),
    "Not": (exact(B),),
    "IsInf IsNaN": (exact(EDGES),),
    "BitwiseNot": (exact(P),),
}
PAIRS = {
    "Add Sub Mul": (of(X, Y), of(X, ROW), exact(P, Q)),
    "Div": (of(X, POSITIVE), exact(P, Q)),
    "Mod": (exact(P, Q), exact(X, POSITIVE, fmod=1)),
    "Pow": (of(POSITIVE, Y, terms=8), of(POSITIVE, whole(2))),
    "And Or Xor": (exact(B, C),),
    "Equal Greater GreaterOrEqual Less LessOrEqual": (exact(P, Q), exact(X, ROW), exact(EDGES, EDGES)),
    "BitwiseAnd BitwiseOr BitwiseXor": (exact(P, Q),),
    "BitShift": (exact(np.array([1, 6], np.uint8), np.array([2, 1], np.uint8), direction="LEFT"),),
    "Max Min": (exact(X, ROW, Y), exact(X)),
    "Mean Sum": (of(X, ROW, Y, terms=3), of(X)),
    "PRelu": (of(X, between(0.1, 0.9, 3, 1, 1)), of(X, np.array([0.25], np.float32)), of(M, ROW)),
}
POOLS = {
    "MaxPool": (
        exact(normal(1, 16, 6, 6), kernel_shape=[2, 2], strides=[2, 2]),
        exact(X, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1], ceil_mode=1),
        exact(normal(1, 1, 7), kernel_shape=[3], outputs=2),
    ),
    "AveragePool": (
        of(X, kernel_shape=[3, 2], pads=[1, 1, 1, 1], terms=6),
        of(X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1, terms=9),
        of(normal(1, 2, 7), kernel_shape=[3], terms=3),
    ),
    "LpPool": (of(X, kernel_shape=[2, 2], p=2, terms=8),),
    "GlobalAveragePool": (of(X, terms=20), of(normal(2, 3, 40, 41), terms=1640)),
    "GlobalMaxPool": (exact(X),),
    "GlobalLpPool": (of(X, p=2, terms=40, wanted=lambda x: np.sqrt((x.astype("f8") ** 2).sum((2, 3), keepdims=True)).astype("f4")),),
    "MaxUnpool": (exact(normal(1, 1, 2, 2), whole(5, 7, 13, 15).reshape(1, 1, 2, 2), kernel_shape=[2, 2], strides=[2, 2]),),
}
WEIGHTED = {
    "Conv": (
        of(normal(1, 4, 6, 7), normal(6, 4, 3, 3), terms=36),
        of(X, normal(4, 3, 3, 3), normal(4), pads=[1, 1, 1, 1], strides=[2, 1], terms=28),
        of(normal(1, 4, 9), normal(6, 2, 3), normal(6), group=2, terms=7),
        of(normal(1, 2, 4, 5, 6), normal(3, 2, 2, 3, 3), terms=36),
    ),
    "ConvTranspose": (
        of(normal(1, 4, 5, 6), normal(4, 6, 3, 3), terms=36),
        of(
            normal(1, 4, 5, 6),
            normal(4, 3, 4, 4),
            normal(6),
            group=2,
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            terms=32,
            wanted=lambda *a: spread(*a),
        ),
        of(normal(1, 3, 7), normal(3, 2, 3), strides=[2], terms=9),
    ),
    "Gemm": (
        of(normal(2, 5), normal(5, 7), terms=5),
        of(normal(2, 5), normal(7, 5), normal(7), transB=1, terms=6),
        of(normal(40, 5), normal(5, 7), normal(1, 7), terms=6),
        of(normal(5, 2), normal(5, 7), normal(7), transA=1, alpha=0.5, beta=2.0, terms=8),
    ),
    "MatMul": (of(normal(2, 5), normal(5, 7), terms=5), of(normal(40, 5), normal(5, 7), terms=5), of(normal(2, 3, 4), ROW, terms=4)),
    "Einsum": (of(normal(2, 3), normal(3, 4), equation="ij,jk->ik", terms=3),),
    "Det": (of(normal(2, 3, 3), terms=12),),
}
NORMALISATIONS = {
    "BatchNormalization": (of(X, *CHANNELS, terms=4), of(normal(2, 3), *CHANNELS, terms=4)),
    "InstanceNormalization": (of(X, *CHANNELS[:2], terms=60),),
    "GroupNormalization": (of(normal(2, 4, 3, 3), normal(4), normal(4, seed=1), num_groups=2, terms=60),),
    "LayerNormalization": (of(X, ROW, normal(4), terms=20), of(X, ROW, outputs=3, terms=20)),
    "RMSNormalization": (of(X, ROW, terms=20),),
    "LRN": (of(normal(4, 4, 2, 3), size=3, terms=12),),
    "LpNormalization": (of(X, axis=1, p=2, terms=12), of(X, axis=3, p=1, terms=12, wanted=lambda x: x / np.abs(x).sum(3, keepdims=True))),
    "MeanVarianceNormalization": (of(X, terms=120),),
    "Softmax LogSoftmax": (of(X, axis=1, terms=12), of(M, terms=12)),
    "Hardmax": (exact(X, axis=1),),
}
REDUCTIONS = {
    "ReduceL1 ReduceL2 ReduceMean ReduceSum ReduceSumSquare ReduceProd ReduceLogSumExp": (
        of(POSITIVE, whole(1, -1), terms=24),
        of(POSITIVE, keepdims=0, terms=120),
        of(POSITIVE, whole(), noop_with_empty_axes=1, terms=4),
        of(np.full((2, 3), 300, np.float32), whole(1), terms=12),  # whose squares leave the range of float16
    ),
    "ReduceLogSum": (of(POSITIVE, whole(1, -1), terms=24),),
    "ReduceMax ReduceMin": (exact(X, whole(1, -1)), exact(X, keepdims=0)),
    "ArgMax ArgMin": (exact(X, axis=2, keepdims=0), exact(X)),
    "TopK": (exact(X, whole(2), axis=2, outputs=2),),
    "CumSum": (of(X, np.array(2), terms=5), of(X, np.array(2), exclusive=1, reverse=1, terms=5)),
    "CumProd": (of(X, np.array(2), terms=5, opset=26),),
}
INDICES = {
    "Gather": (exact(M, whole(2, 0, -1), axis=1),),
    "GatherElements": (exact(M, whole([2, 0, 1, 0]), axis=0),),
    "GatherND": (exact(M, whole([2, 0], [1, 3])),),
    "Scatter": (exact(M, whole([2, 0, 1, 0]), normal(1, 4), opset=10, wanted=lambda x, at, u: scattered(x, at, u)),),
    "ScatterElements": (exact(M, whole([2, 0, 1, 0]), normal(1, 4)),),
    "ScatterND": (exact(M, whole([2], [0]), normal(2, 4)),),
    "OneHot": (exact(whole(1, 0, -1), np.array(3), np.array([0.5, 2], np.float32)),),
    "Compress": (exact(M, np.array([True, False, True]), axis=0),),
    "NonZero": (exact(np.array([[1, 0], [3, 4]], np.float32)),),
    "ReverseSequence": (exact(M, whole(1, 2, 3, 2)),),
    "Unique": (exact(np.array([2, 1, 1, 3, 2], np.float32), outputs=4),),
    "NonMaxSuppression": (
        exact(
            np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 10, 1, 11]]], np.float32),
            np.array([[[0.9, 0.75, 0.6]]], np.float32),
            whole(3),
            np.array([0.5], np.float32),
            np.array([0.0], np.float32),
        ),
    ),
    "Where": (exact(np.array([[[True]], [[False]], [[True]]]), X, Y), exact(B, P, Q)),
    "Clip": (exact(X, np.float32(-0.5), np.float32(1)), exact(X), exact(EDGES, None, np.float32(2)), exact(X, min=-1.0, max=0.5, opset=7)),
}
MOVES = {
    "Cast": (exact(X, to=TensorProto.INT32), exact(P, to=TensorProto.FLOAT), exact(X, to=TensorProto.FLOAT16)),
    "CastLike": (exact(X, P), exact(P, X)),
    "CenterCropPad": (exact(X, whole(3, 6), axes=[2, 3]),),
    "Concat": (exact(X, Y, axis=1), exact(X, axis=0)),
    "Constant": (exact(value_float=0.5), exact(value_ints=[1, 2]), exact(value_floats=[0.5, 2.0])),
    "ConstantOfShape": (exact(whole(2, 3)),),
    "DepthToSpace": (exact(normal(1, 8, 2, 3), blocksize=2), exact(normal(1, 8, 2, 3), blocksize=2, mode="CRD")),
    "SpaceToDepth": (exact(normal(1, 2, 4, 6), blocksize=2),),
    "Dropout": (exact(X), exact(X, outputs=2)),
    "Expand": (exact(ROW, whole(3, 1)),),
    "EyeLike": (exact(M, k=1), exact(M, dtype=TensorProto.FLOAT)),
    "Flatten": (exact(X), exact(X, axis=0)),
    "Identity": (exact(X), exact(P)),
    "Pad": (exact(M, whole(1, 0, 0, 2), np.float32(0.5)), exact(M, whole(1, 1, 1, 1), mode="reflect")),
    "Range": (exact(np.float32(1), np.float32(4), np.float32(0.5)), exact(np.array(7), np.array(1), np.array(-2))),
    "Reshape": (exact(X, whole(0, -1)), exact(X, whole(4, 30))),
    "Shape": (exact(X), exact(X, start=1, end=-1)),
    "Size": (exact(X),),
    "Slice": (
        exact(X, whole(1, 0), whole(5, 4), whole(2, 3), whole(2, 1)),
        exact(X, whole(-1), whole(-9), whole(1), whole(-1)),
    ),
    "Split": (exact(X, whole(1, 2), axis=1, outputs=2),),
    "Squeeze": (exact(normal(1, 3, 1), whole(0)), exact(normal(1, 3, 1))),
    "Tile": (exact(M, whole(2, 1)),),
    "Transpose": (exact(X, perm=[0, 2, 3, 1]), exact(M)),
    "Trilu": (exact(M, np.array(1), upper=0), exact(M)),
    "Unsqueeze": (exact(M, whole(0, -1)),),
    "DequantizeLinear": (
        of(np.array([[1, -128], [127, 5]], np.int8), np.array([0.5, 0.1], np.float32), np.array([3, -4], np.int8), axis=1),
        of(np.array([1, 5], np.int8), np.float32(0.5), output_dtype=TensorProto.FLOAT),
    ),
    "Resize": (
        of(X, None, np.array([1, 1, 2, 1.5], np.float32), mode="linear", terms=16),
        exact(X, None, None, whole(2, 3, 10, 8), mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"),
    ),
    "Upsample": (exact(X, np.array([1, 1, 2, 3], np.float32), opset=9, wanted=lambda x, s: x.repeat(2, 2).repeat(3, 3)),),
}


def scattered(x: Any, at: Any, updates: Any) -> Any:
    y = x.copy()
    np.put_along_axis(y, at, updates, 0)
    return y


def spread(x: Any, weight: Any, bias: Any) -> Any:
    """Return the transposed convolution in two groups, with stride 2 and a crop of 1, by explicit sums."""
    channels, filters, rows, columns = weight.shape
    y = np.zeros((len(x), 2 * filters, 2 * x.shape[2] + rows - 2, 2 * x.shape[3] + columns - 2))
    for c in range(channels):
        group = slice(filters * (2 * c // channels), filters * (2 * c // channels + 1))
        for i, j in np.ndindex(x.shape[2:]):
            y[:, group, 2 * i : 2 * i + rows, 2 * j : 2 * j + columns] += x[:, c, i, j].astype(float)[:, None, None, None] * weight[c]
    return (y[:, :, 1:-1, 1:-1] + bias[:, None, None]).astype(np.float32)


def windows(x: Any, kernel: Any, strides: Any, pads: Any, dilations: Any = (1, 1), ceil: bool = False) -> Any:
    """Return the values of each window over an image, NaN in the padding: (images, channels, rows, columns, taps)."""
    rows = []
    sizes = []
    for n, k, s, b, e, d in zip(x.shape[2:], kernel, strides, pads[:2], pads[2:], dilations, strict=True):
        room = n + b + e - d * (k - 1) - 1
        count = (room + s - 1 if ceil else room) // s + 1
        sizes.append([o * s - b for o in range(count) if not ceil or o * s < n + b])
    at = lambda i, j: x[:, :, i, j] if 0 <= i < x.shape[2] and 0 <= j < x.shape[3] else np.full(x.shape[:2], np.nan)
    taps = [(i * dilations[0], j * dilations[1]) for i, j in np.ndindex(*kernel)]
    rows = [[np.stack([at(a + i, b + j) for i, j in taps], -1) for b in sizes[1]] for a in sizes[0]]
    return np.moveaxis(np.array(rows), (0, 1), (2, 3)).astype(x.dtype)


def transposed(x: Any, weight: Any, strides: Any, begin: Any, size: Any, group: int = 1, dilations: Any = (1, 1)) -> Any:
    """Return a transposed convolution: each input times each tap, added up, cropped to `size` from `begin` on."""
    filters, inputs = weight.shape[1], x.shape[1] // group
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)]
    y = np.zeros((len(x), group * filters, *(max(r, b + n) for r, b, n in zip(reach, begin, size, strict=True))))
    for c in range(x.shape[1]):
        for f in range(filters):
            for i, j in np.ndindex(weight.shape[2:]):
                rows, columns = (
                    slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip((i, j), dilations, x.shape[2:], strides, strict=True)
                )
                y[:, c // inputs * filters + f, rows, columns] += x[:, c].astype(float) * weight[c, f, i, j]
    return y[:, :, begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]].astype(np.float32)


def each(function: Any, *window: Any, **options: Any) -> Any:
    return lambda x: np.asarray(function(windows(x, *window, **options), axis=-1), x.dtype)


def norm(p: int) -> Any:
    return lambda seen, axis: np.nansum(np.abs(seen.astype(float)) ** p, axis=axis) ** (1 / p)


FINE = {
    "Elu": (of(X, alpha=0.3, terms=4),),
    "Celu": (of(X, alpha=0.7, terms=4),),
    "Selu": (of(X, alpha=1.25, gamma=0.75, terms=4),),
    "Gelu": (of(X, approximate="tanh", terms=8),),
    "HardSigmoid": (of(X, alpha=0.3, beta=0.4, terms=4),),
    "Swish": (of(X, alpha=1.7, terms=4),),
    "Shrink": (of(EDGES), of(X * 3, bias=0.25, lambd=1.0)),
    "ThresholdedRelu": (exact(EDGES, alpha=1.0), exact(EDGES)),
    "PRelu": (of(X, between(0.1, 0.9, 2, 3, 5, 4)), of(X, np.float32(0.25)), of(normal(2, 3, 5), between(0.1, 0.9, 3, 1))),
    "IsInf": (exact(EDGES, detect_negative=0), exact(EDGES, detect_positive=0)),
    "Mod": (exact(P, Q, fmod=1), exact(Q, P + 20)),
    "Pow": (exact(P, np.abs(Q)), of(P, np.array([[2.0, 0, 1]], np.float32), terms=4), of(M.astype("f8"), whole(3), terms=4)),
    "BitShift": (
        exact(np.array([16, 6], np.uint8), np.array([2, 1], np.uint8), direction="RIGHT"),
        exact(np.array([[3], [9]], np.uint32), np.array([2, 1, 0], np.uint32), direction="LEFT"),
    ),
    "Mean Sum Max Min": (of(M, ROW, M[:1], M), of(M, M)),
    "Clip": (
        exact(X, np.float32(-0.5), np.float32(1), opset=11),
        exact(X, np.float32(-0.5), None, opset=12),
        exact(X, np.float32(1), np.float32(-0.5), wanted=lambda x, low, high: np.full_like(x, high)),
        exact(X, min=-1.0, max=0.5, opset=10, wanted=lambda x: np.clip(x, -1, np.float32(0.5))),
        exact(P, np.int32(-2), np.int32(3)),
    ),
    "CumSum": (of(X, np.array(1), exclusive=1, terms=5), of(X, np.array(-1), reverse=1, terms=5), exact(P, np.array(-2))),
    "Softmax": (
        of(X, axis=2, opset=12, terms=20, wanted=lambda x: np.exp(x) / np.exp(x).sum((2, 3), keepdims=True)),
        of(X, axis=-3, opset=11, terms=60, wanted=lambda x: np.exp(x) / np.exp(x).sum((1, 2, 3), keepdims=True)),
        of(X, axis=-2, opset=13, terms=12),
    ),
    "LogSoftmax": (
        of(X, axis=2, opset=12, terms=20, wanted=lambda x: x - np.log(np.exp(x).sum((2, 3), keepdims=True))),
        of(X, axis=0, opset=13, terms=12),
    ),
    "Hardmax": (exact(np.array([[1, 3, 3], [2, 2, 0]], np.float32)), exact(X, axis=-2), exact(M, axis=0)),
    "MaxPool": (
        exact(X, kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 2], wanted=each(np.nanmax, (2, 3), (2, 1), (0, 1, 1, 2))),
        exact(X, kernel_shape=[2, 2], dilations=[2, 3], wanted=each(np.nanmax, (2, 2), (1, 1), (0,) * 4, dilations=(2, 3))),
        exact(
            X,
            kernel_shape=[2, 2],
            strides=[3, 3],
            pads=[1, 0, 0, 1],
            ceil_mode=1,
            wanted=each(np.nanmax, (2, 2), (3, 3), (1, 0, 0, 1), ceil=True),
        ),
        exact(X, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER", wanted=each(np.nanmax, (3, 2), (2, 2), (1, 0, 1, 0))),
        exact(X, kernel_shape=[2, 3], strides=[1, 2], auto_pad="SAME_LOWER", wanted=each(np.nanmax, (2, 3), (1, 2), (1, 1, 0, 0))),
        exact(X, kernel_shape=[2, 3], auto_pad="VALID"),
        exact(normal(1, 2, 4, 5, 6), kernel_shape=[2, 3, 2], strides=[2, 1, 3]),
    ),
    "AveragePool": (
        of(X, kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 2], terms=6, wanted=each(np.nanmean, (2, 3), (2, 1), (0, 1, 1, 2))),
        of(
            X,
            kernel_shape=[2, 3],
            strides=[2, 1],
            pads=[0, 1, 1, 2],
            count_include_pad=1,
            terms=6,
            wanted=each(lambda seen, axis: np.nan_to_num(seen).mean(axis), (2, 3), (2, 1), (0, 1, 1, 2)),
        ),
        of(X, kernel_shape=[2, 2], dilations=[2, 3], terms=4, wanted=each(np.nanmean, (2, 2), (1, 1), (0,) * 4, dilations=(2, 3))),
        of(
            X,
            kernel_shape=[2, 2],
            strides=[3, 3],
            pads=[1, 0, 0, 1],
            ceil_mode=1,
            terms=4,
            wanted=each(np.nanmean, (2, 2), (3, 3), (1, 0, 0, 1), ceil=True),
        ),
        of(X, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER", terms=6, wanted=each(np.nanmean, (3, 2), (2, 2), (1, 0, 1, 0))),
        of(X, kernel_shape=[9, 2], pads=[2, 0, 2, 0], terms=18, wanted=each(np.nanmean, (9, 2), (1, 1), (2, 0, 2, 0))),
        of(normal(1, 2, 4, 5, 6), kernel_shape=[2, 3, 2], strides=[2, 1, 3], terms=12),
    ),
    "LpPool": (
        of(X, kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 2], p=1, terms=8, wanted=each(norm(1), (2, 3), (2, 1), (0, 1, 1, 2))),
        of(X, kernel_shape=[2, 2], strides=[3, 3], p=3, terms=16, ceil_mode=1, wanted=each(norm(3), (2, 2), (3, 3), (0,) * 4, ceil=True)),
    ),
    "GlobalLpPool": (
        of(X, p=3, terms=60, wanted=lambda x: np.float32((np.abs(x).astype("f8") ** 3).sum((2, 3), keepdims=True) ** (1 / 3))),
    ),
    "GlobalMaxPool": (
        exact(normal(2, 3, 4), wanted=lambda x: x.max(2, keepdims=True)),
        exact(normal(1, 2, 2, 3, 4), wanted=lambda x: x.max((2, 3, 4), keepdims=True)),
    ),
    "MaxUnpool": (
        exact(
            normal(1, 1, 2, 2),
            whole(0, 2, 3, 7).reshape(1, 1, 2, 2),
            kernel_shape=[2, 3],
            strides=[2, 2],
            pads=[1, 0, 0, 1],
            wanted=lambda x, at: put(x, at, (3, 4)),
        ),
        exact(
            normal(1, 1, 2, 2),
            whole(5, 7, 13, 15).reshape(1, 1, 2, 2),
            whole(1, 1, 5, 3),
            kernel_shape=[2, 2],
            strides=[2, 2],
            wanted=lambda x, at, shape: np.pad(put(x, at, (4, 4)), [(0, 0), (0, 0), (0, 1), (0, 0)])[..., :3],
        ),
    ),
    "Conv": (
        of(X, normal(4, 3, 3, 2), strides=[2, 1], auto_pad="SAME_UPPER", terms=18),
        of(X, normal(4, 3, 3, 2), strides=[2, 2], auto_pad="SAME_LOWER", terms=18),
        of(X, normal(3, 1, 2, 2), normal(3), group=3, dilations=[2, 3], pads=[1, 0, 2, 1], terms=9),
        of(X, normal(4, 3, 2, 2), auto_pad="VALID", kernel_shape=[2, 2], terms=12),
    ),
    "ConvTranspose": (
        of(
            normal(1, 4, 3, 4),
            normal(4, 2, 3, 2),
            strides=[2, 3],
            pads=[1, 0, 1, 1],
            output_padding=[1, 2],
            terms=24,
            wanted=lambda x, w: transposed(x, w, (2, 3), (1, 0), (6, 12)),
        ),
        of(
            normal(1, 4, 3, 4),
            normal(4, 2, 7, 7),
            strides=[2, 2],
            auto_pad="SAME_UPPER",
            terms=100,
            wanted=lambda x, w: transposed(x, w, (2, 2), (2, 2), (6, 8)),
        ),
        of(
            normal(1, 4, 3, 4),
            normal(4, 2, 7, 7),
            strides=[2, 2],
            auto_pad="SAME_LOWER",
            terms=100,
            wanted=lambda x, w: transposed(x, w, (2, 2), (3, 3), (6, 8)),
        ),
        of(
            normal(1, 4, 3, 4),
            normal(4, 2, 7, 7),
            strides=[2, 2],
            output_shape=[6, 7],
            terms=100,
            wanted=lambda x, w: transposed(x, w, (2, 2), (3, 3), (6, 7)),
        ),
        of(
            normal(1, 4, 3, 4),
            normal(4, 2, 3, 2),
            strides=[1, 2],
            dilations=[2, 3],
            group=2,
            terms=24,
            wanted=lambda x, w: transposed(x, w, (1, 2), (0, 0), (7, 10), 2, (2, 3)),
        ),
        of(
            normal(1, 4, 3, 4),
            normal(4, 2, 2, 2),
            strides=[2, 2],
            auto_pad="SAME_LOWER",
            terms=24,
            wanted=lambda x, w: transposed(x, w, (2, 2), (0, 0), (6, 8)),
        ),
        of(
            normal(1, 4, 3, 4),
            normal(4, 2, 3, 2),
            strides=[2, 2],
            auto_pad="VALID",
            terms=24,
            wanted=lambda x, w: transposed(x, w, (2, 2), (0, 0), (7, 8)),
        ),
    ),
    "Gemm": (
        of(normal(5, 2), normal(7, 5), np.float32(3), transA=1, transB=1, beta=0.5, terms=8),
        of(normal(2, 5), normal(5, 7), normal(7), beta=0.0, terms=8),
        of(normal(2, 5), normal(5, 7), normal(2, 1), alpha=0.5, terms=8),
        of(normal(40, 5), normal(7, 5), normal(40, 7), transB=1, beta=2.0, terms=8),
        of(normal(40, 5), normal(7, 5), normal(7), transB=1, terms=8),
    ),
    "MatMul": (of(normal(2, 1, 3, 4), normal(5, 4, 2), terms=4), of(ROW, ROW, terms=4), of(ROW, normal(2, 4, 3), terms=4)),
    "Einsum": (
        of(normal(2, 3), normal(3, 4), equation="ij, jk", terms=3),
        of(normal(2, 3, 4), normal(4, 5), equation="...ij,jk->...ik", terms=4),
        of(normal(2, 3), normal(3, 4), normal(4), equation="ij,jk,k->i", terms=16),
        of(normal(3, 3), equation="ii->i"),
    ),
    "BatchNormalization": (
        of(X, *CHANNELS, epsilon=0.25, terms=4),
        of(X, *CHANNELS, opset=13, terms=4, wanted=lambda *a: normalised(*a)),
        of(normal(2, 3, 4), *CHANNELS, opset=9, terms=4, wanted=lambda *a: normalised(*a)),
    ),
    "InstanceNormalization": (of(normal(2, 3, 7), *CHANNELS[:2], epsilon=0.25, terms=20),),
    "GroupNormalization": (
        of(normal(2, 4, 3, 3), normal(4), normal(4, seed=1), num_groups=4, epsilon=0.25, terms=60),
        of(normal(2, 4, 3, 3), normal(4), normal(4, seed=1), num_groups=1, terms=60),
    ),
    "LayerNormalization": (
        of(X, normal(5, 4, seed=3), normal(5, 4), axis=2, epsilon=0.25, terms=40),
        of(X, normal(3, 5, 4, seed=3), axis=-3, outputs=3, terms=80),
    ),
    "RMSNormalization": (of(X, normal(5, 4, seed=3), axis=-2, epsilon=0.25, terms=40),),
    "GroupNormalization ": (of(np.float32(300) * normal(2, 4, 3, 3), normal(4), normal(4, seed=1), num_groups=2, terms=60),),
    "LayerNormalization RMSNormalization": (of(np.float32(300) * X, ROW, terms=40),),  # whose squares leave the range of float16
    "LRN": (
        of(normal(1, 4, 2, 3), size=2, alpha=0.5, terms=12, wanted=lambda x: responded(x, 2, 0.5, 0.75, 1)),
        of(normal(1, 4, 2, 3), size=4, alpha=0.5, beta=0.5, bias=2.0, terms=12, wanted=lambda x: responded(x, 4, 0.5, 0.5, 2)),
        of(normal(1, 3, 2, 3), size=11, alpha=0.5, terms=12, wanted=lambda x: responded(x, 11, 0.5, 0.75, 1)),
        of(normal(1, 4, 2), size=1, alpha=0.5, terms=12, wanted=lambda x: responded(x, 1, 0.5, 0.75, 1)),
    ),
    "LpNormalization": (
        of(np.array([[3, 0], [-4, 0]], np.float32), axis=0, p=2, terms=4, wanted=lambda x: x / np.float32([5, 1])),
        of(np.array([[3, 0], [-4, 0]], np.float32), axis=0, p=1, terms=4, wanted=lambda x: x / np.float32([7, 1])),
        of(X, terms=12),
    ),
    "MeanVarianceNormalization": (of(X, axes=[1, -1], terms=40),),
    "ReduceL1 ReduceL2 ReduceMean ReduceSumSquare ReduceProd ReduceLogSumExp ReduceMax ReduceMin ReduceLogSum": (
        of(POSITIVE, axes=[1, -1], keepdims=0, terms=24, opset=13),
        of(POSITIVE, axes=[2], terms=24, opset=17),
        of(POSITIVE, whole(-2), keepdims=0, terms=24),
    ),
    "ReduceSum": (of(POSITIVE, axes=[1, -1], keepdims=0, terms=24, opset=11), of(POSITIVE, whole(2), opset=13, terms=24)),
    "ReduceMax ReduceMin": (exact(P, whole(0)), exact(Q, whole(1), keepdims=0), exact(B, whole(1)), exact(np.array([[True]]), whole(1))),
    "ReduceL1 ReduceProd": (exact(P, whole(1)),),
    "ReduceSumSquare": (exact(P, whole(1), wanted=lambda x, axes: np.array([[107], [29]], np.int32)),),
    "ReduceMean": (exact(P, whole(1), wanted=lambda x, axes: np.array([[1], [1]], np.int32)),),
    "ArgMax ArgMin": (
        exact(np.array([[1, 3, 3], [2, 2, 5], [0, 0, 0]], np.float32), axis=-1),
        exact(np.array([[1, 3, 3], [2, 2, 5], [0, 0, 0]], np.float32), axis=1, select_last_index=1),
        exact(np.array([[1, 3, 3], [1, 2, 3]], np.float32), axis=0, select_last_index=1, keepdims=0),
    ),
    "TopK": (
        exact(np.array([[1, 3, 3, 2], [2, 2, 5, 2]], np.float32), whole(3), outputs=2, wanted=lambda x, k: ranked(x, 3, -1)),
        exact(np.array([[1, 3, 3, 2], [2, 2, 1, 2]], np.float32), whole(3), largest=0, outputs=2, wanted=lambda x, k: ranked(x, 3, 1)),
        exact(
            X, axis=-2, k=2, outputs=2, opset=9, wanted=lambda x: tuple(np.moveaxis(a, -1, 2) for a in ranked(np.moveaxis(x, 2, -1), 2, -1))
        ),
    ),
    "Gather": (exact(X, whole([2, 0], [1, -3]), axis=-3), exact(M, np.array(1))),
    "GatherElements": (
        exact(M, whole([3, 0], [1, -1]), axis=1, wanted=lambda x, at: np.take_along_axis(x[:2], at % 4, 1)),
        exact(M, whole([0, -3, 2, 1]), axis=-2),
    ),
    "GatherND": (
        exact(M, whole([2], [-3])),
        exact(X, whole([2], [0]), batch_dims=1),
        exact(X, whole([[0, 1], [4, -1], [2, 3]], [[1, 1], [3, 2], [0, 0]]), batch_dims=2),
        exact(M, whole(2, 1)),
    ),
    "ScatterElements": tuple(
        exact(WHOLE, whole([2, 0, 2], [1, -3, 1]), np.float32([[2, -3, 4], [1, 5, 0.5]]), axis=a, reduction=how)
        for a, how in ((0, "add"), (0, "mul"), (-2, "max"), (0, "min"))
    )
    + (exact(M, whole([3, 0], [-1, 1]), normal(2, 2), axis=1),),
    "ScatterND": tuple(exact(WHOLE, whole([2], [0], [-1]), WHOLE[:, ::-1] - 5, reduction=how) for how in ("add", "mul", "max", "min"))
    + (exact(M, whole([2, 0], [1, -1]), normal(2)),),
    "OneHot": (
        exact(whole([1, 0, -1], [2, 5, -3]), np.array(3), np.array([0.5, 2], np.float32), axis=0),
        exact(whole([1, 0, -1], [2, 5, -3]), np.array(3), np.array([4, 7]), axis=1),
        exact(whole([1, 0, -1], [2, 2, -3]), np.array(4), np.array([0.5, 2], np.float32), axis=-2),
    ),
    "Compress": (exact(M, np.array([True, False, True, False, True])), exact(M, np.array([False, True]), axis=-1)),
    "NonZero": (exact(np.array([[[True, False]], [[True, True]]])),),
    "ReverseSequence": (
        exact(M, whole(4, 0, 1), batch_axis=0, time_axis=1),
        exact(X[:, :, :, 0], whole(1, 2, 2), batch_axis=1, time_axis=0),
    ),
    "Unique": (
        exact(
            np.array([2, 1, 1, 3, 2], np.float32),
            outputs=4,
            sorted=0,
            wanted=lambda x: (x[[0, 1, 3]], whole(0, 1, 3), whole(0, 1, 1, 2, 0), whole(2, 2, 1)),
        ),
        exact(
            np.array([[1, 0, 1], [0, 2, 0]], np.float32),
            outputs=4,
            axis=1,
            wanted=lambda x: (x[:, [1, 0]], whole(1, 0), whole(1, 0, 1), whole(1, 2)),
        ),
        exact(
            np.array([[3, 1], [0, 2], [3, 1]], np.float32),
            outputs=4,
            axis=-2,
            sorted=0,
            wanted=lambda x: (x[:2], whole(0, 1), whole(0, 1, 0), whole(2, 1)),
        ),
    ),
    "NonMaxSuppression": (
        exact(
            BOXES,
            SCORES,
            whole(3),
            np.float32([0.5]),
            np.float32([0.25]),
            wanted=lambda *a: whole([0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 2]),
        ),
        exact(BOXES, SCORES, whole(1), np.float32([0.5]), wanted=lambda *a: whole([0, 0, 1], [0, 1, 0])),
        exact(
            BOXES,
            SCORES,
            whole(3),
            np.float32([0.9]),
            wanted=lambda *a: whole([0, 0, 1], [0, 0, 0], [0, 0, 2], [0, 1, 0], [0, 1, 2], [0, 1, 1]),
        ),
        exact(
            BOXES + np.float32(5),
            SCORES,
            whole(3),
            np.float32([0.8125]),
            np.float32([0.25]),
            wanted=lambda *a: whole([0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 2]),
        ),
        exact(
            BOXES + np.float32(5), SCORES, whole(2), np.float32([0.83]), wanted=lambda *a: whole([0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 2])
        ),
        exact(BOXES, SCORES, wanted=lambda *a: np.zeros((0, 3), np.int64)),
        exact(
            np.array([[[0.5, 0.5, 1, 1], [0.5, 0.75, 1, 1], [0.5, 1.5, 1, 1]]], np.float32),
            SCORES[:, :1],
            whole(3),
            np.float32([0.5]),
            center_point_box=1,
            wanted=lambda *a: whole([0, 0, 1], [0, 0, 2]),
        ),
    ),
    "Where": (exact(C, M[:2, :1], M[:1, :]),),
    "CenterCropPad": (exact(M, whole(5, 1)), exact(M, whole(2), axes=[-1]), exact(M, whole(6, 7))),
    "Concat": (exact(X, Y[..., :2], axis=-1),),
    "Constant": (exact(value_int=3),),
    "DepthToSpace": (exact(normal(2, 18, 2, 3), blocksize=3, mode="CRD"),),
    "SpaceToDepth": (exact(normal(2, 3, 6, 3), blocksize=3),),
    "EyeLike": (exact(M, k=-2), exact(M.T, k=-1)),
    "Expand": (exact(M, whole(2, 1, 4)), exact(normal(3, 1), whole(1, 4))),
    "Flatten": (exact(X, axis=4), exact(X, axis=-1), exact(X, axis=2)),
    "Pad": (
        exact(M, whole(1, 2), np.float32(0.5), whole(-1)),
        exact(M, whole(-1, 1, 0, -2), wanted=lambda x, p: np.pad(x[1:, :2], [(0, 0), (1, 0)])),
        exact(M, pads=[1, 0, 0, 2], value=0.5, opset=10, wanted=lambda x: np.pad(x, [(1, 0), (0, 2)], constant_values=0.5)),
        exact(M, whole(2, 0, 1, 3), mode="edge"),
        exact(M, whole(4, 1, 3, 9), mode="wrap", wanted=lambda x, p: np.pad(x, [(4, 3), (1, 9)], mode="wrap")),
        exact(M, whole(5, 1, 3, 9), mode="reflect", wanted=lambda x, p: np.pad(x, [(5, 3), (1, 9)], mode="reflect")),
        exact(M[:1], whole(2, 0, 1, 0), mode="reflect", wanted=lambda x, p: x.repeat(4, 0)),
    ),
    "Range": (exact(np.float32(3), np.float32(0), np.float32(-0.75)), exact(np.array(1), np.array(1), np.array(1))),
    "Reshape": (exact(X, whole(0, 0, 20)), exact(X, whole(2, -1), allowzero=1)),
    "Shape": (exact(X, start=-2), exact(X, end=2), exact(X, start=-9, end=9)),
    "Slice": (
        exact(X, starts=[1, 1], ends=[2, -1], opset=9, wanted=lambda x: x[1:2, 1:-1]),
        exact(X, starts=[1, -3], ends=[9, 3], axes=[2, -1], opset=9, wanted=lambda x: x[:, :, 1:, 1:3]),
        exact(X, whole(-1, 4), whole(-9, 1), whole(2, 3), whole(-2, -1), wanted=lambda x, *_: x[:, :, ::-2, 3:1:-1]),
        exact(X, whole(1, 0), whole(2, 2)),
    ),
    "Split": (
        exact(X, axis=2, num_outputs=2, outputs=2),
        exact(X, axis=-1, outputs=2, opset=13),
        exact(X, axis=1, split=[2, 1], outputs=2, opset=11, wanted=lambda x: (x[:, :2], x[:, 2:])),
    ),
    "Squeeze": (exact(normal(1, 3, 1), axes=[-1], opset=11, wanted=lambda x: x[:, :, 0]), exact(normal(1, 3, 1), whole(-1, 0))),
    "Unsqueeze": (exact(M, axes=[0, 3], opset=11, wanted=lambda x: x[None, :, :, None]), exact(M, whole(-2)), exact(M, whole(3, 1))),
    "Tile": (exact(M, whole(1, 3)), exact(X, whole(1, 2, 1, 2))),
    "Trilu": (exact(M, np.array(-1)), exact(M, np.array([1])), exact(X, np.array(-1), upper=0), exact(X, upper=0)),
    "DequantizeLinear": (
        of(np.array([[1, -128], [127, 5]], np.int8), np.float32([0.5, 0.1]), np.array([3, -4], np.int8), axis=-2),
        of(np.array([[1, -128], [127, 5]], np.int8), np.float32([0.5, 0.1])),
        exact(np.array([2**24 + 1, -5], np.int32), np.float32(3), wanted=lambda x, s: (x * np.float64(s)).astype(np.float32)),
        of(
            np.array([[1, -128, 7], [127, 5, 9]], np.int8),
            np.float32([[0.5, 2], [0.25, 4]]),
            np.array([[3, 1], [0, -4]], np.int8),
            axis=1,
            block_size=2,
            wanted=lambda x, s, z: np.float32([[-1, -65.5, 12], [31.75, 1.25, 52]]),
        ),
    ),
    "Upsample": (
        exact(X, mode="nearest", scales=[1.0, 1.0, 3.0, 2.0], opset=7, wanted=lambda x: x.repeat(3, 2).repeat(2, 3)),
        of(
            np.float32([[[[1, 3]]]]),
            np.float32([1, 1, 1, 2]),
            mode="linear",
            opset=9,
            wanted=lambda x, s: np.float32([[[[1, 2, 3, 3]]]]),
        ),
    ),
}


def put(x: Any, at: Any, size: Any) -> Any:
    y = np.zeros(size, x.dtype)
    y.reshape(-1)[at.reshape(-1)] = x.reshape(-1)
    return y[None, None]


def normalised(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    scale, bias, mean, var = (a.reshape(-1, *(1,) * (x.ndim - 2)) for a in (scale, bias, mean, var))
    return (x - mean) / np.sqrt(var + np.float32(1e-5)) * scale + bias


def grouped(x: Any, scale: Any, bias: Any, groups: int) -> Any:
    rows = x.reshape(len(x), groups, -1).astype(float)
    rows = (rows - rows.mean(2, keepdims=True)) / np.sqrt(rows.var(2, keepdims=True) + 1e-5)
    return (rows * scale[:, None] + bias[:, None]).reshape(x.shape).astype(x.dtype)


def responded(x: Any, size: int, alpha: float, beta: float, bias: float) -> Any:
    """Return the standard's local response: its region is floor((size - 1) / 2) before and ceil((size - 1) / 2) after."""
    square = x.astype(float) ** 2
    total = np.stack([square[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1].sum(1) for c in range(x.shape[1])], 1)
    return (x / (bias + alpha / size * total) ** beta).astype(x.dtype)


def ranked(x: Any, count: int, sign: int) -> Any:
    order = np.argsort(sign * x, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(x, order, -1), order


RESIZED = np.array([[[[1, 2, 4, 8], [3, 9, 27, 81], [5, 25, 15, 6]]]], np.float32)
SCALED = np.float32([1, 1, 0.7, 2.3])
FINE["Resize"] = (
    *(
        of(RESIZED, None, SCALED, mode=mode, coordinate_transformation_mode=how, terms=32)
        for mode in ("nearest", "linear", "cubic")
        for how in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
    ),
    *(
        exact(RESIZED, None, np.float32([1, 1, 2, 0.5]), mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode=how)
        for how in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    *(
        of(
            RESIZED,
            np.float32(roi),
            None,
            whole(1, 1, *size),
            coordinate_transformation_mode="tf_crop_and_resize",
            mode=mode,
            **more,
            terms=32,
        )
        for mode in ("linear", "nearest")
        for roi, size, more in (
            ([0, 0, 0.25, 0.5, 1, 1, 0.75, 0.875], (2, 3), {}),
            ([0, 0, -0.5, 0.5, 1, 1, 0.75, 1.5], (3, 4), {"extrapolation_value": 7.0}),
            ([0, 0, 0.25, 0.5, 1, 1, 0.75, 0.875], (1, 1), {}),
        )
    ),
    of(RESIZED, None, None, whole(1, 1), mode="linear", coordinate_transformation_mode="align_corners", axes=[2, 3], terms=16),
    of(RESIZED, None, None, whole(1, 1), mode="linear", coordinate_transformation_mode="pytorch_half_pixel", axes=[2, 3], terms=16),
    of(RESIZED, None, None, whole(7, 5), mode="linear", keep_aspect_ratio_policy="not_larger", axes=[2, 3], terms=16),
    of(RESIZED, None, None, whole(7, 5), mode="linear", keep_aspect_ratio_policy="not_smaller", axes=[3, 2], terms=16),
    *(
        of(RESIZED, None, np.float32([0.5, 0.6]), axes=[2, 3], mode=mode, antialias=a, exclude_outside=o, terms=64)
        for mode in ("linear", "cubic")
        for a, o in ((1, 0), (0, 1), (1, 1))
    ),
    exact(
        RESIZED,
        None,
        np.float32([2, 0.5]),
        axes=[2, 3],
        mode="nearest",
        coordinate_transformation_mode="tf_half_pixel_for_nn",
        wanted=lambda x, *_: x[:, :, [0, 1, 1, 2, 2, 2]][..., [1, 3]],
    ),
    of(RESIZED, None, np.float32([1.5, 1.5]), axes=[2, 3], mode="cubic", cubic_coeff_a=-0.5, terms=64),
    exact(
        RESIZED,
        np.float32([1, 1, 2, 1.5]),
        mode="nearest",
        opset=10,
        wanted=lambda x, s: x[:, :, [0, 0, 1, 1, 2, 2]][..., [0, 0, 1, 2, 2, 3]],
    ),
)


GROUPS = (ELEMENTWISE, PAIRS, POOLS, WEIGHTED, NORMALISATIONS, REDUCTIONS, INDICES, MOVES, FINE)
EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    name: sum((group[names] for group in GROUPS for names in group if name in names.split()), ())
    for name in sorted({name for group in GROUPS for names in group for name in names.split()})
}

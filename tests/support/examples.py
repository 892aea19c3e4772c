"""Small examples of every operator: what `test_network_operator_records` runs its claims on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

OPSET = 24


@dataclass(frozen=True)
class Example:
    """One call of an operator.

    `inputs` are arrays, None where one is left out. `terms` bounds how many numbers are summed or multiplied for one of the
    result; 0 says that the result is exact. `wanted(*inputs)` gives the result where onnx's reference evaluator has none.
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
EDGES = np.array([-np.inf, -2, -0.5, 0, 0.5, 1, 3, np.inf, np.nan, 7e-39], np.float32)
P, Q = np.array([[-7, 7, 3], [0, 5, -2]], np.int32), np.array([[2, -2, 3], [4, 5, 1]], np.int32)
B, C = np.array([[True, False, True]]), np.array([[True], [False]])
CHANNELS = tuple(normal(3, seed=k) for k in (3, 4, 5)) + (between(0.5, 1.5, 3, seed=6),)

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
    """Return the transposed convolution in two groups, of stride 2, cropped by 1 everywhere: each input times each tap, by its sums."""
    channels, filters, rows, columns = weight.shape
    y = np.zeros((len(x), 2 * filters, 2 * x.shape[2] + rows - 2, 2 * x.shape[3] + columns - 2))
    for c in range(channels):
        group = slice(filters * (2 * c // channels), filters * (2 * c // channels + 1))
        for i, j in np.ndindex(x.shape[2:]):
            y[:, group, 2 * i : 2 * i + rows, 2 * j : 2 * j + columns] += x[:, c, i, j].astype(float)[:, None, None, None] * weight[c]
    return (y[:, :, 1:-1, 1:-1] + bias[:, None, None]).astype(np.float32)


EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    name: examples
    for group in (ELEMENTWISE, PAIRS, POOLS, WEIGHTED, NORMALISATIONS, REDUCTIONS, INDICES, MOVES)
    for names, examples in group.items()
    for name in names.split()
}

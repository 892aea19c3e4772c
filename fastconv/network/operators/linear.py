"""Matrix products."""

from __future__ import annotations

import numpy as np

from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call
from fastconv.network.operators.record import Operator, Weights


def gemm(call: Call, a: Array, b: Array, c: Array | None = None) -> Array:
    """Return alpha A B + beta C, with each matrix transposed by attribute."""
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"A and B must be matrices, not of shapes {a.shape} and {b.shape}")
    a, b = (a.T if call["transA"] else a), (b.T if call["transB"] else b)
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes {a.shape} and {b.shape} cannot be multiplied")
    call.reserve((a.shape[0], b.shape[1]), a.dtype)
    return finished(call, a @ b, c)


def finished(call: Call, product: Array, c: Array | None) -> Array:
    """Return alpha times a product of Gemm plus beta C."""
    y = product
    if call["alpha"] != 1:
        y = y * np.asarray(call["alpha"], product.dtype)
    if c is not None and call["beta"] != 0:
        if np.broadcast_shapes(c.shape, y.shape) != y.shape:
            raise ValueError(f"C of shape {c.shape} does not broadcast to the result's {y.shape}")
        y = y + (c if call["beta"] == 1 else c * np.asarray(call["beta"], product.dtype))
    return y.astype(product.dtype, copy=False)


def matmul(call: Call, a: Array, b: Array) -> Array:
    """Return the matrix product over the last two axes, as in numpy."""
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("a scalar cannot be multiplied as a matrix")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    call.reserve((*batch, a.shape[-2] if a.ndim > 1 else 1, b.shape[-1] if b.ndim > 1 else 1), a.dtype)
    return np.asarray(a @ b).astype(a.dtype, copy=False)


def einsum(call: Call, *arrays: Array) -> Array:
    """Return the Einstein summation, as in numpy."""
    equation = call["equation"].replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(arrays):
        raise ValueError(f"the equation {equation!r} names {len(terms)} tensors, {len(arrays)} were given")
    lengths: dict[str, int] = {}
    shared: tuple[int, ...] = ()
    for term, array in zip(terms, arrays, strict=True):
        head, dots, tail = term.partition("...")
        if dots:
            shared = np.broadcast_shapes(shared, array.shape[len(head) : array.ndim - len(tail)])
        for letters, shape in ((head, array.shape), (tail[::-1], array.shape[::-1])):
            for letter, length in zip(letters, shape, strict=False):
                lengths[letter] = max(lengths.get(letter, 1), length)
    if arrow:
        batch = shared if "..." in right else ()
        call.reserve([*batch, *(lengths.get(letter, 1) for letter in right.replace("...", ""))], arrays[0].dtype)
    # Only pairwise contraction keeps the work polynomial, hence optimize=True for three or more tensors.
    # numpy's einsum does not support the types of ml_dtypes, so these are summed in float32.
    wide = [array if array.dtype.kind in "biuf" else array.astype(np.float32) for array in arrays]
    return np.asarray(np.einsum(equation, *wide, optimize=len(wide) > 2)).astype(arrays[0].dtype, copy=False)


def determinant(call: Call, x: Array) -> Array:
    """Return the determinant of the last two axes."""
    return np.asarray(np.linalg.det(x), x.dtype)


def _terms(node: Node, weight: Array) -> int:
    return int(weight.shape[-1 if node.attributes.get("transB", 0) or weight.ndim == 1 else -2])


def _channels(node: Node, weight: Array) -> int:
    return int(weight.shape[0 if node.attributes.get("transB") else 1])


def _scaled(node: Node, weight: Array, factor: Array) -> Array | None:
    return weight * (factor[:, None] if node.attributes.get("transB") else factor)


OPERATORS: tuple[Operator, ...] = (
    Operator("Det", determinant),
    Operator("Einsum", einsum, narrow="uniform"),
    Operator(
        "Gemm",
        gemm,
        narrow="uniform",
        weights=Weights(_terms, channels=_channels, scaled=_scaled, bias_broadcasts=True),
    ),
    Operator("MatMul", matmul, narrow="uniform", weights=Weights(_terms)),
)

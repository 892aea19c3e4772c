"""The objective as compiled code: predicted errors of many point sets at once.

The first-order part of `fastconv.error.predict_error`, from floats: the program of each transform in Huffman order,
one rounding error a distinct value (values equal up to a power of two and a sign err alike), carried to the outputs
through the exact maps behind it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastconv.error.predict_compiled import to_bits

_ZERO = 1e-13
"""Below this share of what was added up, a coefficient is a cancellation to zero."""


@njit(cache=True)  # type: ignore[untyped-decorator]
def _matrices(a: Any, inf: bool, m: int, r: int, A: Any, G: Any, B: Any) -> None:
    """Fill AT, G and BT of the sorted finite points `a`."""
    k = len(a)
    n = m + r - 1
    M, size = np.zeros(k + 1), np.zeros(k + 1)
    M[0] = size[0] = 1.0
    for i in range(k):
        for j in range(i + 1, 0, -1):
            M[j] = M[j - 1] - a[i] * M[j]
            size[j] = size[j - 1] + abs(a[i]) * size[j]
        M[0] *= -a[i]
        size[0] *= abs(a[i])
    for j in range(k + 1):
        if abs(M[j]) <= _ZERO * size[j]:
            M[j] = 0.0
    A[:, :], G[:, :], B[:, :] = 0.0, 0.0, 0.0
    for i in range(k):
        scale = 1.0
        q, s = np.zeros(k), np.zeros(k)
        q[0] = s[0] = 1.0
        count = 0
        for t in range(k):  # the product of the others: division would cancel
            if t == i:
                continue
            scale *= a[i] - a[t]
            count += 1
            for j in range(count, 0, -1):
                q[j] = q[j - 1] - a[t] * q[j]
                s[j] = s[j - 1] + abs(a[t]) * s[j]
            q[0] *= -a[t]
            s[0] *= abs(a[t])
        for j in range(k):
            B[i, j] = 0.0 if abs(q[j]) <= _ZERO * s[j] else q[j]
        power = 1.0
        for j in range(max(m, r)):
            if j < m:
                A[j, i] = power
            if j < r:
                G[i, j] = power / scale
            power *= a[i]
    if inf:
        A[m - 1, n - 1] = 1.0
        G[n - 1, r - 1] = 1.0
        for j in range(k + 1):
            B[n - 1, j] = M[j]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _heapify_down(weight: Any, item: Any, start: int, pos: int) -> None:
    """Move an item towards the root, as `heapq` does; equal weights stay."""
    w, it = weight[pos], item[pos]
    while pos > start:
        parent = (pos - 1) >> 1
        if w < weight[parent]:
            weight[pos], item[pos] = weight[parent], item[parent]
            pos = parent
            continue
        break
    weight[pos], item[pos] = w, it


@njit(cache=True)  # type: ignore[untyped-decorator]
def _heapify_up(weight: Any, item: Any, size: int, pos: int) -> None:
    """Sink an item to a leaf along the lighter children, then lift it, as `heapq` does."""
    start = pos
    w, it = weight[pos], item[pos]
    child = 2 * pos + 1
    while child < size:
        right = child + 1
        if right < size and not weight[child] < weight[right]:
            child = right
        weight[pos], item[pos] = weight[child], item[child]
        pos = child
        child = 2 * pos + 1
    weight[pos], item[pos] = w, it
    _heapify_down(weight, item, start, pos)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _node(
    a: int,
    ca: float,
    b: int,
    cb: float,
    known: int,
    count: int,
    C: int,
    nodes: Any,
    factors: Any,
    squares: Any,
    correlated: bool,
    rows: Any,
) -> int:
    """Return the number of the value ``ca a + cb b``, adding it with its variance if it is new.

    `nodes` chains the values of one first operand; `rows` holds each value over the inputs and the covariances of the
    value with them, where the inputs are correlated. What is made of values from `known` on, new in this row, is new.
    """
    k = int(nodes[0, a]) if a < known and b < known else -1
    while k >= 0:
        if nodes[2, k] == b and factors[0, k] == ca and factors[1, k] == cb:
            return k
        k = int(nodes[1, k])
    new = C + count
    nodes[0, new], nodes[1, count], nodes[0, a], nodes[2, count] = -1, nodes[0, a], count, b
    factors[0, count], factors[1, count] = ca, cb
    if b < 0:
        squares[new] = ca * ca * squares[a]
        if correlated:
            for j in range(C):
                rows[0, new, j] = ca * rows[0, a, j]
                rows[1, new, j] = ca * rows[1, a, j]
    else:
        squares[new] = ca * ca * squares[a] + cb * cb * squares[b]
        if correlated:
            both = 0.0
            for j in range(C):
                both += rows[0, a, j] * rows[1, b, j]
                rows[0, new, j] = ca * rows[0, a, j] + cb * rows[0, b, j]
                rows[1, new, j] = ca * rows[1, a, j] + cb * rows[1, b, j]
            squares[new] += 2 * ca * cb * both
    return count


@njit(cache=True)  # type: ignore[untyped-decorator]
def _count(v: int, count: int, i: int, g: float, C: int, squares: Any, correlated: bool, gain: Any, covariance: Any) -> int:
    """Add the rounding of value v, which reaches output i with gain g, to the covariances; return how many values there are."""
    error = g * squares[C + v]
    covariance[i, i] += g * error
    if correlated:  # the covariances of the output transform's errors are not asked for
        return max(count, v + 1)
    if v == count:
        gain[v, :] = 0.0
    else:
        for k in range(i):
            if gain[v, k] != 0.0:
                covariance[i, k] += gain[v, k] * error
                covariance[k, i] += gain[v, k] * error
    gain[v, i] = g
    return max(count, v + 1)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _program(M: Any, H: Any, correlated: bool, covariance: Any, nodes: Any, factors: Any, squares: Any, gain: Any, rows: Any) -> None:
    """Fill the covariance of the errors of ``M x`` in Huffman order, each rounding erring by one times its value's variance.

    The inputs have variance one, or, where they are correlated, the covariance H; the other arguments are room to work in.
    """
    R, C = M.shape
    weight, item = np.empty(C), np.empty(C, np.int64)
    source, scale, leaf = np.empty(C, np.int64), np.empty(C), np.empty(C, np.bool_)
    covariance[:, :] = 0.0
    for i in range(C):
        nodes[0, i] = -1
        squares[i] = 1.0
        if correlated:
            squares[i] = H[i, i]
            for j in range(C):
                rows[0, i, j] = 1.0 if i == j else 0.0
                rows[1, i, j] = H[i, j]
    count = 0
    for i in range(R):
        size = terms = 0
        known = C + count
        for j in range(C):
            if M[i, j] != 0.0:
                weight[size], item[size] = abs(M[i, j]), terms
                source[terms], scale[terms], leaf[terms] = j, M[i, j], True
                size += 1
                terms += 1
        for pos in range(size // 2 - 1, -1, -1):
            _heapify_up(weight, item, size, pos)
        while True:
            merged = 2 if size > 1 else 1
            total = 0.0
            x = y = 0
            for turn in range(merged):
                w, t = weight[0], item[0]
                size -= 1
                if size:
                    weight[0], item[0] = weight[size], item[size]
                    _heapify_up(weight, item, size, 0)
                total += w
                if leaf[t]:
                    odd = math.frexp(abs(scale[t]))[0]
                    if odd != 0.5:
                        v = _node(source[t], odd, -1, 0.0, known, count, C, nodes, factors, squares, correlated, rows)
                        source[t], scale[t] = C + v, scale[t] / odd
                        count = _count(v, count, i, scale[t], C, squares, correlated, gain, covariance)
                    leaf[t] = False
                if turn == 0:
                    x = t
                else:
                    y = t
            if merged == 1:
                break
            a, b, ca, cb = source[x], source[y], scale[x], scale[y]
            if a > b:
                a, b, ca, cb = b, a, cb, ca
            v = _node(a, 1.0, b, cb / ca, known, count, C, nodes, factors, squares, correlated, rows)
            count = _count(v, count, i, ca, C, squares, correlated, gain, covariance)
            source[x], scale[x] = C + v, ca  # the row is the sum of scale times value, at every step: the scale is the gain
            weight[size], item[size] = total, x
            _heapify_down(weight, item, 0, size)
            size += 1


@njit(cache=True)  # type: ignore[untyped-decorator]
def _before(covariance: Any, other: Any, A: Any, out: Any) -> None:
    """Fill `out` with what errors before the product do to each output: ``A_i (other * covariance) A_i'``."""
    m, n = A.shape
    part = np.empty(n)
    covariance *= other
    for i in range(m):
        part[:] = 0.0
        for j in range(n):
            for l in range(n):  # noqa: E741
                part[l] += A[i, j] * covariance[j, l]
        out[i] = 0.0
        for j in range(n):
            out[i] += part[j] * A[i, j]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _constants(A: Any, G: Any, B: Any, dA: Any, dG: Any, dB: Any, out: Any) -> None:
    """Fill `out` with the squared length of what rounded entries add to the bilinear map of each output."""
    m, n = A.shape
    r = G.shape[1]
    change = np.empty(n)
    for i in range(m):
        out[i] = 0.0
        for k in range(r):
            change[:] = 0.0
            for j in range(n):
                p, q = dA[i, j] * G[j, k] + A[i, j] * dG[j, k], A[i, j] * G[j, k]
                for l in range(n):  # noqa: E741
                    change[l] += p * B[j, l] + q * dB[j, l]
            for l in range(n):  # noqa: E741
                out[i] += change[l] ** 2


@njit(cache=True)  # type: ignore[untyped-decorator]
def predicted_errors(points: Any, inf: bool, m: int, r: int, dims: int, squares: Any, bits: Any, result: Any) -> None:
    """Fill `result` with the predicted errors of sets of points.

    Parameters
    ----------
    points : array, (sets, k)
        Finite points.
    inf : bool
        Whether infinity is a point too.
    m, r, dims : int
        Size and dimension.
    squares : array, (4,)
        Mean squares of one rounding over that of the value: in G w, in BT x, of products and stored operands, in AT z.
    bits : array, (3,)
        Significant bits that the entries of AT, G and BT are rounded to.
    result : array, (sets,)
        Mean over outputs of the predicted standard deviations, for inputs of variance one; inf for coinciding points.
    """
    n = m + r - 1
    A, G, B = np.empty((m, n)), np.empty((n, r)), np.empty((n, n))
    dA, dG, dB = np.empty((m, n)), np.empty((n, r)), np.empty((n, n))
    most = 2 * n * n
    nodes, factors, squares_of = np.empty((3, n + most), np.int64), np.empty((2, most)), np.empty(n + most)
    gain, rows = np.empty((most, n)), np.empty((2, n + most, n))
    of_products, of_outputs = np.empty((n, n)), np.empty((m, m))
    k_var, i_var, o_var, p_var, c_var = np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    for s in range(len(points)):
        a = points[s].copy()
        for i in range(1, len(a)):  # by magnitude, the negative one first
            v, j = a[i], i
            while j > 0 and (abs(a[j - 1]) > abs(v) or (abs(a[j - 1]) == abs(v) and a[j - 1] > v)):
                a[j] = a[j - 1]
                j -= 1
            a[j] = v
        apart = True
        for i in range(len(a)):
            for j in range(i):
                apart = apart and abs(a[i] - a[j]) > 1e-9 * abs(a[i])
        if not apart:
            result[s] = np.inf
            continue
        _matrices(a, inf, m, r, A, G, B)
        for i in range(n):
            for j in range(n):
                e = to_bits(B[i, j], bits[2])
                dB[i, j], B[i, j] = e - B[i, j], e
                if i < m:
                    e = to_bits(A[i, j], bits[0])
                    dA[i, j], A[i, j] = e - A[i, j], e
                if j < r:
                    e = to_bits(G[i, j], bits[1])
                    dG[i, j], G[i, j] = e - G[i, j], e
        GG, BB = G @ G.T, B @ B.T
        H = GG * BB
        _constants(A, G, B, dA, dG, dB, c_var)
        _program(G, H, False, of_products, nodes, factors, squares_of, gain, rows)
        _before(of_products, BB, A, k_var)
        _program(B, H, False, of_products, nodes, factors, squares_of, gain, rows)
        _before(of_products, GG, A, i_var)
        _program(A, H, True, of_outputs, nodes, factors, squares_of, gain, rows)
        for i in range(m):
            o_var[i] = of_outputs[i, i]
        for i in range(m):
            p_var[i] = 0.0
            for j in range(n):
                p_var[i] += A[i, j] ** 2 * H[j, j]
        total = 0.0
        if dims == 1:
            for i in range(m):
                total += np.sqrt(squares[0] * k_var[i] + squares[1] * i_var[i] + squares[2] * p_var[i] + squares[3] * o_var[i] + c_var[i])
            result[s] = total / m
        else:
            for i in range(m):
                for j in range(m):
                    before = r * (squares[0] * k_var[i] + squares[1] * i_var[i]) + p_var[i] * (
                        squares[0] * k_var[j] + squares[1] * i_var[j]
                    )
                    after = squares[2] * p_var[i] * p_var[j] + squares[3] * (o_var[i] * p_var[j] + r * o_var[j])
                    total += np.sqrt(before + after + r * (c_var[i] + c_var[j]))
            result[s] = total / (m * m)

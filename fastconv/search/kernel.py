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

_ZERO = 1e-13
"""Below this share of what was added up, a coefficient is a cancellation to zero."""


@njit(cache=True)  # type: ignore[untyped-decorator]
def _round(x: float, bits: int) -> float:
    """Round to `bits` significant bits, ties to even."""
    if x == 0.0 or bits >= 53:
        return x
    if bits == 24:
        return np.float64(np.float32(x))
    fraction, exponent = math.frexp(x)
    return math.ldexp(np.rint(math.ldexp(fraction, bits)), exponent - bits)


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
def _node(a: int, ca: float, b: int, cb: float, count: int, inputs: int, nodes: Any, factors: Any, rows: Any) -> int:
    """Return the number of a value, adding it if it is new; `nodes` chains those of one first operand."""
    k = int(nodes[0, a])
    while k >= 0:
        if nodes[3, k] == b and factors[0, k] == ca and factors[1, k] == cb:
            return k
        k = int(nodes[1, k])
    nodes[1, count], nodes[0, a] = nodes[0, a], count
    nodes[2, count], nodes[3, count] = a, b
    factors[0, count], factors[1, count] = ca, cb
    if b < 0:
        for j in range(inputs):
            rows[inputs + count, j] = ca * rows[a, j]
    else:
        for j in range(inputs):
            rows[inputs + count, j] = ca * rows[a, j] + cb * rows[b, j]
    return count


@njit(cache=True)  # type: ignore[untyped-decorator]
def _program(M: Any, rows: Any, gain: Any, nodes: Any, factors: Any, adjoint: Any) -> int:
    """Fill rows over the inputs, and gain at the outputs, of each rounding of ``M x`` in Huffman order; return their number.

    `nodes`, `factors` and `adjoint` are room to work in; `gain` is (roundings, outputs).
    """
    R, C = M.shape
    weight, item = np.empty(C), np.empty(C, np.int64)
    source, scale, leaf = np.empty(C, np.int64), np.empty(C), np.empty(C, np.bool_)
    path = np.empty(2 * C, np.int64)
    for i in range(C):
        nodes[0, i] = -1
        for j in range(C):
            rows[i, j] = 1.0 if i == j else 0.0
    count = 0
    for i in range(R):
        size = terms = steps = 0
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
                        v = _node(source[t], odd, -1, 0.0, count, C, nodes, factors, rows)
                        count = _counted(v, count, C, R, nodes, gain)
                        path[steps] = v
                        steps += 1
                        source[t], scale[t] = C + v, scale[t] / odd
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
            v = _node(a, 1.0, b, cb / ca, count, C, nodes, factors, rows)
            count = _counted(v, count, C, R, nodes, gain)
            path[steps] = v
            steps += 1
            source[x], scale[x] = C + v, ca
            weight[size], item[size] = total, x
            _heapify_down(weight, item, 0, size)
            size += 1
        for s in range(steps):  # back along the tree: each rounding comes after what it is made of
            adjoint[C + path[s]] = 0.0
        adjoint[source[x]] = scale[x]
        for s in range(steps - 1, -1, -1):
            k = path[s]
            g = adjoint[C + k]
            gain[k, i] = g
            if nodes[2, k] >= C:
                adjoint[nodes[2, k]] += factors[0, k] * g
            if nodes[3, k] >= C:
                adjoint[nodes[3, k]] += factors[1, k] * g
    return count


@njit(cache=True)  # type: ignore[untyped-decorator]
def _counted(v: int, count: int, C: int, R: int, nodes: Any, gain: Any) -> int:
    """Return how many roundings there are now; a new one starts without a gain, and with nothing that begins with it."""
    if v < count:
        return count
    nodes[0, C + v] = -1
    for i in range(R):
        gain[v, i] = 0.0
    return count + 1


@njit(cache=True)  # type: ignore[untyped-decorator]
def _before(count: int, C: int, rows: Any, gain: Any, other: Any, A: Any, out: Any) -> None:
    """Add to `out` what the roundings of a transform before the product do to each output: ``A_i (other * covariance) A_i'``."""
    m, n = A.shape
    covariance = np.zeros((n, n))
    used = np.empty(n, np.int64)
    for k in range(count):
        square = 0.0
        for j in range(C):
            square += rows[C + k, j] ** 2
        several = 0
        for j in range(n):
            if gain[k, j] != 0.0:
                used[several] = j
                several += 1
        for u in range(several):
            j = used[u]
            g = gain[k, j] * square
            for v in range(several):
                covariance[j, used[v]] += g * gain[k, used[v]]
    covariance *= other
    part = np.empty(n)
    for i in range(m):
        part[:] = 0.0
        for j in range(n):
            for l in range(n):  # noqa: E741
                part[l] += A[i, j] * covariance[j, l]
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
    rows, gain = np.empty((n + most, n)), np.empty((most, n))
    nodes, factors, adjoint = np.empty((4, n + most), np.int64), np.empty((2, most)), np.empty(n + most)
    k_var, i_var, o_var, p_var, c_var = np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    part = np.empty(n)
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
                e = _round(B[i, j], bits[2])
                dB[i, j], B[i, j] = e - B[i, j], e
                if i < m:
                    e = _round(A[i, j], bits[0])
                    dA[i, j], A[i, j] = e - A[i, j], e
                if j < r:
                    e = _round(G[i, j], bits[1])
                    dG[i, j], G[i, j] = e - G[i, j], e
        GG, BB = G @ G.T, B @ B.T
        H = GG * BB
        _constants(A, G, B, dA, dG, dB, c_var)
        k_var[:] = 0.0
        count = _program(G, rows, gain, nodes, factors, adjoint)
        _before(count, r, rows, gain, BB, A, k_var)
        i_var[:] = 0.0
        count = _program(B, rows, gain, nodes, factors, adjoint)
        _before(count, n, rows, gain, GG, A, i_var)
        count = _program(A, rows, gain, nodes, factors, adjoint)
        o_var[:] = 0.0
        for k in range(count):
            part[:] = 0.0
            for j in range(n):
                if rows[n + k, j] != 0.0:
                    for l in range(n):  # noqa: E741
                        part[l] += rows[n + k, j] * H[j, l]
            true = 0.0
            for j in range(n):
                true += part[j] * rows[n + k, j]
            for i in range(m):
                o_var[i] += gain[k, i] ** 2 * true
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

"""Matrices, programs and their roundings in compiled code, for `fastconv.error.predict.compiled.sets`.

Within a transform before the product the operands of a sum share no input, so that their variances and fourth moments
add; most roundings belong to one row of the matrix, and only those shared by several make covariances.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.native.source import jit

_ZERO = 1e-13
"""Below this share of what was added up, a coefficient is a cancellation to zero."""

_TIE = 1 - 1e-12
"""Weights closer than this are equal: they would be in exact arithmetic."""


_MANTISSA = (1 << 52) - 1
_HALF = 1022 << 52
_FLAT = -0.1
"""Above this kurtosis the modulation is below a fifth of a per cent, of a variance."""


@jit
def to_bits(x: float, bits: int) -> float:
    """Round to `bits` significant bits, ties to even."""
    if x == 0.0 or bits >= 53:
        return x
    if bits == 24:
        return np.float64(np.float32(x))
    fraction, exponent = math.frexp(x)
    return math.ldexp(np.rint(math.ldexp(fraction, bits)), exponent - bits)


@jit
def fill_matrices(a: Any, m: int, r: int, A: Any, G: Any, B: Any, weight: Any, q: Any, s: Any) -> None:
    """Fill AT, G and BT; `weight` gets the rows of G without their common denominator."""
    k, n = len(a), m + r - 1
    A[:, :], G[:, :], B[:, :], weight[:, :] = 0.0, 0.0, 0.0, 0.0
    for i in range(k + (k < n)):
        q[:], s[:] = 0.0, 0.0
        q[0] = s[0] = 1.0
        N, count = 1.0, 0
        for t in range(k):
            if t == i:
                continue
            p = a[t]
            if i < k:
                N *= a[i] - p
            count += 1
            for j in range(count, 0, -1):
                q[j] = q[j - 1] - p * q[j]
                s[j] = s[j - 1] + abs(p) * s[j]
            q[0] *= -p
            s[0] *= abs(p)
        for j in range(count + 1):
            B[i, j] = 0.0 if abs(q[j]) <= _ZERO * s[j] else q[j]
        if i == k:
            A[m - 1, i] = G[i, r - 1] = weight[i, r - 1] = 1.0
            continue
        power = 1.0
        for j in range(max(m, r)):
            if j < m:
                A[j, i] = power
            if j < r:
                weight[i, j] = power
                G[i, j] = power / N
            power *= a[i]


@jit
def _lift(weight: Any, item: Any, start: int, pos: int) -> None:
    w, it = weight[pos], item[pos]
    while pos > start:
        parent = (pos - 1) >> 1
        if not w < weight[parent] * _TIE:
            break
        weight[pos], item[pos] = weight[parent], item[parent]
        pos = parent
    weight[pos], item[pos] = w, it


@jit
def _sink(weight: Any, item: Any, size: int, pos: int) -> None:
    """Sink an item to a leaf along the lighter children, then lift it, as `heapq` does."""
    start, w, it = pos, weight[pos], item[pos]
    child = 2 * pos + 1
    while child < size:
        if child + 1 < size and not weight[child] < weight[child + 1] * _TIE:
            child += 1
        weight[pos], item[pos] = weight[child], item[child]
        pos = child
        child = 2 * pos + 1
    weight[pos], item[pos] = w, it
    _lift(weight, item, start, pos)


@jit
def sum_correction(va: float, vb: float, vr: float, table: Any) -> float:
    """Look up `predict_rounding.sum_factor`."""
    sa, sb = math.sqrt(va), math.sqrt(vb)
    if sa == 0.0 or sb == 0.0:
        return 1.0
    d = sa - sb
    x = sa / (sa + sb) * (table.shape[0] - 1)
    y = math.sqrt(min(max((vr - d * d) / (4.0 * sa * sb), 0.0), 1.0)) * (table.shape[1] - 1)
    i, j = min(int(x), table.shape[0] - 2), min(int(y), table.shape[1] - 2)
    f, g = x - i, y - j
    return float((table[i, j] * (1 - f) + table[i + 1, j] * f) * (1 - g) + (table[i, j + 1] * (1 - f) + table[i + 1, j + 1] * f) * g)


@jit
def fill_gram(X: Any, out: Any, lengths: Any, fourths: Any) -> None:
    """Fill X X', the squared lengths of the rows, and their kurtosis as sums of equal variables."""
    n = len(X)
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for k in range(X.shape[1]):
                total += X[i, k] * X[j, k]
            out[i, j] = out[j, i] = total
        fourth = 0.0
        for k in range(X.shape[1]):
            fourth += X[i, k] ** 4
        lengths[i] = out[i, i]
        fourths[i] = fourth / max(out[i, i] ** 2, 1e-300)


@jit
def add_outer(weight: float, v: Any, form: Any) -> None:
    """Add ``weight v v'`` to a form."""
    for a in range(len(v)):
        s = weight * v[a]
        if s != 0.0:
            for b in range(len(v)):
                form[a, b] += s * v[b]


@jit
def _modulated(kurtosis: float, variance: float, table: Any, real: Any, whole: Any) -> float:
    """Interpolate the modulation; `real` and `whole` are one number seen as a float and as an integer."""
    if kurtosis > _FLAT:
        return 1.0
    real[0] = variance
    pattern = whole[0]
    y = (pattern & _MANTISSA) * 2.0**-52
    y = (1.0 + 2.0 * y if (pattern >> 52) & 1 == 0 else y) * ((table.shape[1] - 1) / 3.0)
    x = max(1.0 + kurtosis / 1.2, 0.0) * (table.shape[0] - 1)
    i, j = min(int(x), table.shape[0] - 2), min(int(y), table.shape[1] - 2)
    f, g = x - i, y - j
    return float((table[i, j] * (1 - f) + table[i + 1, j] * f) * (1 - g) + (table[i, j + 1] * (1 - f) + table[i + 1, j + 1] * f) * g)


@jit
def _product_factor(odd: float, mantissa: int) -> float:
    f, low = 2.0 * odd, 1.0
    high = 1.0
    if (mantissa & ((1 << 45) - 1)) == 0:
        d = 7
        while (mantissa >> (52 - d)) & 1 == 0:
            d -= 1
        low, high = 1.0 + 2.0 * 0.25**d, 1.0 + 0.5 * 0.25**d
    return ((1 - f * f / 4) * low + (f * f - 1) * high) / (0.75 * f * f)


@jit
def number_roundings(
    matrix: Any,
    pattern: Any,
    weights: Any,
    covariance: Any,
    correlated: bool,
    tracked: bool,
    table: Any,
    line: Any,
    link: Any,
    real: Any,
    rows: Any,
    across: Any,
    weight: Any,
    item: Any,
    term: Any,
    source: Any,
    entry: Any,
    gains: Any,
    back: Any,
    buffer: Any,
    whole: Any,
) -> tuple[int, int]:
    """Find the roundings of ``matrix x`` in Huffman order; return how many, and how many entries of gains.

    link: first node of each operand, next of its nodes, operands, first entry of each node; real: factors, correction,
    variance, fourth moment. entry: row, next entry of the node; gains: what the node does to the row.
    `covariance` is that of the inputs, which are uncorrelated unless said otherwise; where tracked, rows are kept.
    """
    R, N = matrix.shape
    for i in range(N):
        link[0, i] = -1
        real[3, i] = covariance[i, i] if correlated else 1.0
        real[4, i] = 1.0
        if correlated or tracked:
            for j in range(N):
                rows[i, j] = 1.0 if i == j else 0.0
                across[i, j] = covariance[i, j]
    count = entries = 0
    for i in range(R):
        size = terms = used = 0
        for j in range(N):
            if matrix[i, j] != 0.0:
                weight[size], item[size] = abs(weights[i, j]), terms
                source[terms] = -1 - j
                size += 1
                terms += 1
        for pos in range(size // 2 - 1, -1, -1):
            _sink(weight, item, size, pos)
        while True:
            merged = 2 if size > 1 else 1
            total, x, y = 0.0, 0, 0
            for turn in range(merged):
                w, t = weight[0], item[0]
                size -= 1
                if size:
                    weight[0], item[0] = weight[size], item[size]
                    _sink(weight, item, size, 0)
                total += w
                if source[t] < 0:
                    j = -1 - source[t]
                    bits = pattern[i, j] & _MANTISSA
                    if bits:
                        whole[0] = bits | _HALF
                        odd = buffer[0]
                        k = link[0, j]
                        while k >= 0 and not (link[3, k] < 0 and real[0, k] == odd):
                            k = link[1, k]
                        if k < 0:
                            k = count
                            count += 1
                            link[1, k], link[0, j], link[0, N + k] = link[0, j], k, -1
                            link[2, k], link[3, k], link[4, k] = j, -1, -1
                            real[0, k], real[1, k] = odd, 0.0
                            real[2, k] = _product_factor(odd, bits)
                            s = odd * odd
                            real[3, N + k], real[4, N + k] = s * real[3, j], s * s * real[4, j]
                            if correlated or tracked:
                                for a in range(N):
                                    rows[N + k, a], across[N + k, a] = odd * rows[j, a], odd * across[j, a]
                        source[t], term[t] = N + k, matrix[i, j] / odd
                        item[N + used] = k
                        used += 1
                    else:
                        source[t], term[t] = j, matrix[i, j]
                if turn == 0:
                    x = t
                else:
                    y = t
            if merged == 1:
                break
            a, b, ca, cb = source[x], source[y], term[x], term[y]
            if a > b:
                a, b, ca, cb = b, a, cb, ca
            c = cb / ca
            k = link[0, a]
            while k >= 0 and not (link[3, k] == b and real[1, k] == c):
                k = link[1, k]
            if k < 0:
                k = count
                count += 1
                link[1, k], link[0, a], link[0, N + k] = link[0, a], k, -1
                link[2, k], link[3, k], link[4, k] = a, b, -1
                real[0, k], real[1, k] = 1.0, c
                va, vb = real[3, a], c * c * real[3, b]
                if correlated:
                    both = 0.0
                    for j in range(N):
                        both += across[a, j] * rows[b, j]
                        rows[N + k, j], across[N + k, j] = rows[a, j] + c * rows[b, j], across[a, j] + c * across[b, j]
                    real[3, N + k] = max(va + vb + 2.0 * c * both, 0.0)
                    real[2, k] = sum_correction(va, vb, real[3, N + k], table)
                else:
                    if tracked:
                        for j in range(N):
                            rows[N + k, j] = rows[a, j] + c * rows[b, j]
                    real[3, N + k], real[4, N + k] = va + vb, real[4, a] + c * c * c * c * real[4, b]
                    z = va / (va + vb) * (len(line) - 1)
                    j = min(int(z), len(line) - 2)
                    real[2, k] = line[j] + (line[j + 1] - line[j]) * (z - j)
            item[N + used] = k
            used += 1
            source[x], term[x] = N + k, ca
            weight[size], item[size] = total, x
            _lift(weight, item, 0, size)
            size += 1
        for t in range(used):
            k = item[N + t]
            back[N + k] = 0.0
            back[link[2, k]] = 0.0
            if link[3, k] >= 0:
                back[link[3, k]] = 0.0
        back[source[x]] = term[x]
        source[2 * N + i] = source[x]
        for t in range(used - 1, -1, -1):
            k = item[N + t]
            g = back[N + k]
            back[link[2, k]] += real[0, k] * g
            if link[3, k] >= 0:
                back[link[3, k]] += real[1, k] * g
            entry[0, entries], entry[1, entries], gains[entries] = i, link[4, k], g
            link[4, k] = entries
            entries += 1
    return count, entries


@jit
def before_product(
    count: int,
    N: int,
    dims: int,
    rounding: float,
    variance: float,
    kurtosis: float,
    link: Any,
    real: Any,
    entry: Any,
    gains: Any,
    modulations: Any,
    A: Any,
    A2: Any,
    own: Any,
    own_fourth: Any,
    own_gram: Any,
    other: Any,
    shaped: bool,
    rows: Any,
    forms: Any,
    passed: Any,
    exact: Any,
    after: Any,
    errors: Any,
    diagonal: Any,
    flat: Any,
    cross: Any,
    second: Any,
    buffer: Any,
    whole: Any,
) -> None:
    """Fill what a transform before the product adds, as `predict._Model.before`, all over the variance across it.

    passed (m), exact (m) and after (m, m): first pass, exact map, second pass; errors (n, 1) or (n, n) at the products;
    forms (n, N, N) over the inputs.
    """
    m, n = A.shape
    for j in range(n):
        diagonal[j] = flat[j] = 0.0
        for t in range(n):
            second[j, t] = 0.0
    for i in range(m):
        cross[i] = passed[i] = 0.0
    if shaped:
        forms[:, :, :] = 0.0
    for k in range(count):
        v = real[3, N + k]
        plain = rounding * variance * v * real[2, k]
        fourth = real[4, N + k] / (v * v) * kurtosis
        square = plain * _modulated(fourth, variance * v, modulations, buffer, whole)
        e = link[4, k]
        while e >= 0:
            j, g = entry[0, e], gains[e]
            diagonal[j] += g * g * square
            if shaped:
                add_outer(g * g * square / v, rows[N + k, :N], forms[j])
            if dims == 2:
                if fourth > 2 * _FLAT:
                    flat[j] += g * g * plain
                else:
                    for t in range(n):
                        s = plain * own[t]
                        second[t, j] += g * g * s * _modulated(fourth * own_fourth[t], variance * v * own[t], modulations, buffer, whole)
            f = entry[1, e]
            while f >= 0:
                t = entry[0, f]
                c = 2.0 * g * gains[f] * other[j, t]
                for i in range(m):
                    reach = c * A[i, j] * A[i, t]
                    passed[i] += reach * square
                    cross[i] += reach * plain
                f = entry[1, f]
            e = entry[1, e]
    for i in range(m):
        for j in range(n):
            passed[i] += A2[i, j] * other[j, j] * diagonal[j]
    if dims == 1:
        for j in range(n):
            errors[j, 0] = diagonal[j] * other[j, j]
        return
    for j in range(n):
        for t in range(n):
            s = second[j, t] + own[j] * flat[t]
            errors[j, t] = (diagonal[j] * own[t] + s) * other[j, j] * other[t, t]
            second[j, t] = s * other[j, j] * other[t, t]
    for i in range(m):
        exact[i] = 0.0
        for j in range(n):
            for t in range(n):
                exact[i] += A[i, j] * A[i, t] * other[j, t] * own_gram[j, t]
    for i in range(m):
        spread = 0.0
        for t in range(n):
            reach = 0.0
            for j in range(n):
                reach += A2[i, j] * second[j, t]
            diagonal[t] = reach
            spread += A2[i, t] * other[t, t] * own[t]
        for h in range(m):
            total = spread * cross[h]
            for t in range(n):
                total += diagonal[t] * A2[h, t]
            after[i, h] = total


@jit
def inexact_constants(A: Any, G: Any, B: Any, dA: Any, dG: Any, dB: Any, parts: Any, changes: Any, d_self: Any, d_exact: Any) -> None:
    """Fill the squared lengths of what inexact constants add to the bilinear maps, and its products with the exact ones."""
    m, n = A.shape
    r = G.shape[1]
    for j in range(n):
        for c in range(r):
            g, d = G[j, c], dG[j, c]
            for t in range(n):
                parts[j, c * n + t] = g * B[j, t]
                parts[n + j, c * n + t] = d * B[j, t] + g * dB[j, t]
    for i in range(m):
        change = changes[i]
        for t in range(r * n):
            change[t] = 0.0
        for j in range(n):
            x, y = dA[i, j], A[i, j]
            if x != 0.0:
                for t in range(r * n):
                    change[t] += x * parts[j, t] + y * parts[n + j, t]
            elif y != 0.0:
                for t in range(r * n):
                    change[t] += y * parts[n + j, t]
        total = exact = 0.0
        for t in range(r * n):
            total += change[t] * change[t]
        for c in range(r):
            exact += change[c * n + i + c]
        d_self[i], d_exact[i] = total, exact

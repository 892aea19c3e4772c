"""Predict sets of points in compiled code, for `fastconv.error.predict.compiled.bulk`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.error.predict.compiled.compiled import (
    add_outer,
    before_product,
    fill_gram,
    fill_matrices,
    inexact_constants,
    number_roundings,
    sum_correction,
    to_bits,
)
from fastconv.native.source import jit

K, I, M, O, E, C = range(6)  # noqa: E741 - the kinds of forms, as in predict.py


@jit
def _mean_root(square: float, quartic: float, table: Any) -> float:
    x = min(max(square, 0.0), 1.0) * (len(table) - 1)
    i = min(int(x), len(table) - 2)
    root = table[i] * (1 - (x - i)) + table[i + 1] * (x - i)
    k = 0.5 / max(square, 1e-6)
    return float(root * min(max(1 - 0.19 * quartic * k / (k + 1), 0.5), 1.1))


@jit
def _normalise(form: Any) -> None:
    trace = 0.0
    for a in range(len(form)):
        trace += form[a, a]
    for a in range(len(form)):
        for b in range(len(form)):
            if trace > 0.0:
                form[a, b] /= trace
            else:
                form[a, b] = 1.0 / len(form) if a == b else 0.0


@jit
def _overlap(F: Any, dots: Any, diagonals: Any) -> None:
    """Fill the inner products of forms F (kinds, N, N)."""
    for s in range(len(F)):
        for t in range(s + 1):
            total = diagonal = 0.0
            for a in range(F.shape[1]):
                diagonal += F[s, a, a] * F[t, a, a]
                for b in range(F.shape[1]):
                    total += F[s, a, b] * F[t, a, b]
            dots[s, t] = dots[t, s] = total
            diagonals[s, t] = diagonals[t, s] = diagonal


@jit
def _forms(
    count: int,
    n: int,
    r: int,
    m: int,
    A2: Any,
    G: Any,
    B: Any,
    u: Any,
    v: Any,
    forms_k: Any,
    forms_i: Any,
    change: Any,
    rows: Any,
    link: Any,
    entry: Any,
    gains: Any,
    node_o: Any,
    real: Any,
    bilinear: Any,
    Fw: Any,
    Fx: Any,
) -> None:
    """Fill the quadratic forms of each kind at each output, of trace one."""
    Fw[:, :, :, :], Fx[:, :, :, :] = 0.0, 0.0
    for i in range(m):
        for j in range(n):
            w = A2[i, j]
            if w == 0.0:
                continue
            at_k = at_i = 0.0
            for x in range(r):
                at_k += forms_k[j, x, x]
                for y in range(r):
                    Fw[i, K, x, y] += w * v[j] * forms_k[j, x, y]
            for x in range(n):
                at_i += forms_i[j, x, x]
                for y in range(n):
                    Fx[i, I, x, y] += w * u[j] * forms_i[j, x, y]
            add_outer(w * at_i, G[j], Fw[i, I])
            add_outer(w * v[j], G[j], Fw[i, M])
            add_outer(w * at_k, B[j], Fx[i, K])
            add_outer(w * u[j], B[j], Fx[i, M])
        for c in range(r):
            Fw[i, E, c, c] = Fx[i, E, i + c, i + c] = 1.0 / r
            add_outer(1.0, change[i, c * n : (c + 1) * n], Fx[i, C])
            for x in range(r):
                for t in range(n):
                    Fw[i, C, c, x] += change[i, c * n + t] * change[i, x * n + t]
    for k in range(count):
        bilinear[:, :] = 0.0
        for j in range(n):
            if rows[n + k, j] != 0.0:
                for c in range(r):
                    x = rows[n + k, j] * G[j, c]
                    for t in range(n):
                        bilinear[c, t] += x * B[j, t]
        h = link[4, k]
        while h >= 0:
            i, w = entry[0, h], gains[h] ** 2 * node_o[k] / max(real[3, n + k], 1e-300)
            for c in range(r):
                add_outer(w, bilinear[c], Fx[i, O])
                for x in range(r):
                    for t in range(n):
                        Fw[i, O, c, x] += w * bilinear[c, t] * bilinear[x, t]
            h = entry[1, h]
    for i in range(m):
        for kind in range(6):
            if kind != E:
                _normalise(Fw[i, kind])
                _normalise(Fx[i, kind])


@jit
def predict_sets(
    points: Any,
    m: int,
    r: int,
    dims: int,
    channels: int,
    units: Any,
    bits: Any,
    moments: Any,
    coarse: bool,
    shaped: bool,
    sums: Any,
    line: Any,
    modulations: Any,
    roots_w: Any,
    roots_x: Any,
    mean: Any,
    rms: Any,
) -> None:
    """Fill `mean` and `rms` for each row of points; see `predict_bulk.predict_errors`."""
    n = m + r - 1
    A, G, B, weight = np.empty((m, n)), np.empty((n, r)), np.empty((n, n)), np.empty((n, r))
    A_bits, G_bits, B_bits = A.view(np.int64), G.view(np.int64), B.view(np.int64)
    dA, dG, dB, A2 = np.empty((m, n)), np.empty((n, r)), np.empty((n, n)), np.empty((m, n))
    q, s = np.empty(n + 1), np.empty(n + 1)
    most = 2 * n * n
    real, link = np.empty((5, n + most)), np.empty((5, n + most), np.int64)
    rows, across = np.empty((n + most, n)), np.empty((n + most, n))
    heap, item, term, source = np.empty(n), np.empty(4 * n, np.int64), np.empty(n), np.empty(3 * n, np.int64)
    entry, gains, back = np.empty((2, 2 * most), np.int64), np.empty(2 * most), np.empty(n + most)
    buffer = np.empty(1)
    whole = buffer.view(np.int64)
    GG, BB, H = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    u, v, ku, kv = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    size = n if dims == 2 else 1
    side = m if dims == 2 else 1
    pass_k, pass_i, after_k, after_i = np.empty(m), np.empty(m), np.zeros((m, m)), np.zeros((m, m))
    errors_k, errors_i, errors, late = np.empty((n, size)), np.empty((n, size)), np.empty((n, size)), np.empty((n, size))
    diagonal, flat, cross, second = np.empty(n), np.empty(n), np.empty(m), np.empty((n, n))
    stored_k, stored_i, d_self, d_exact, change = np.empty(n), np.empty(n), np.empty(m), np.empty(m), np.empty((m, r * n))
    parts = np.empty((2 * n, r * n))
    first, last, passed, levels, half = np.empty((m, side)), np.empty((m, side)), np.empty((m, size)), np.empty(m), np.empty(n)
    variance, node_o, exact_k, exact_i = np.empty(n + most), np.empty(most), np.empty(m), np.empty(m)
    rows_w, forms_k, forms_i, bilinear = np.empty((n + most, r)), np.empty((n, r, r)), np.empty((n, n, n)), np.empty((r, n))
    Fw, Fx = np.empty((m, 6, r, r)), np.empty((m, 6, n, n))
    dot_w, dia_w, dot_x, dia_x = np.empty((m, 6, 6)), np.empty((m, 6, 6)), np.empty((m, 6, 6)), np.empty((m, 6, 6))
    kinds = 9 if dims == 2 else 5
    first_kind = np.array([K, M, I, M, M, O, E, C, E]) if dims == 2 else np.array([K, I, M, O, C])
    second_kind, share = np.array([E, K, E, I, M, M, O, E, C]), np.empty(9)
    vw, vx, kurtosis_w, kurtosis_x = moments
    scale = channels * vw * vx
    for number in range(len(points)):
        a = points[number]
        apart = True
        for i in range(len(a)):
            for j in range(i):
                apart = apart and abs(a[i] - a[j]) > 1e-9 * abs(a[i])
        if not apart:
            mean[number] = rms[number] = np.inf
            continue
        fill_matrices(a, m, r, A, G, B, weight, q, s)
        for i in range(n):
            for j in range(n):
                e = to_bits(B[i, j], bits[2])
                dB[i, j], B[i, j] = e - B[i, j], e
                if i < m:
                    e = to_bits(A[i, j], bits[0])
                    dA[i, j], A[i, j], A2[i, j] = e - A[i, j], e, e * e
                if j < r:
                    e = to_bits(G[i, j], bits[1])
                    dG[i, j], G[i, j] = e - G[i, j], e
        fill_gram(G, GG, u, ku)
        fill_gram(B, BB, v, kv)
        for i in range(n):
            for j in range(n):
                H[i, j] = GG[i, j] * BB[i, j]

        count, _ = number_roundings(
            G,
            G_bits,
            weight,
            H,
            False,
            shaped,
            sums,
            line,
            link,
            real,
            rows_w,
            across,
            heap,
            item,
            term,
            source,
            entry,
            gains,
            back,
            buffer,
            whole,
        )
        for j in range(n):
            stored_k[j] = units[3] if source[2 * r + j] >= r else 0.0
        before_product(
            count, r, dims, units[0], vw, kurtosis_w, link, real, entry, gains, modulations, A, A2, u, ku, GG, BB,
            shaped, rows_w, forms_k, pass_k, exact_k, after_k, errors_k, diagonal, flat, cross, second, buffer, whole,
        )  # fmt: skip
        count, _ = number_roundings(
            B,
            B_bits,
            B,
            H,
            False,
            shaped,
            sums,
            line,
            link,
            real,
            rows,
            across,
            heap,
            item,
            term,
            source,
            entry,
            gains,
            back,
            buffer,
            whole,
        )
        for j in range(n):
            stored_i[j] = units[4] if source[2 * n + j] >= n else 0.0
        before_product(
            count, n, dims, units[1], vx, kurtosis_x, link, real, entry, gains, modulations, A, A2, v, kv, BB, GG,
            shaped, rows, forms_i, pass_i, exact_i, after_i, errors_i, diagonal, flat, cross, second, buffer, whole,
        )  # fmt: skip

        for j in range(n):
            for t in range(size):
                keep = units[5] + units[6]
                keep += max(stored_k[j], stored_k[t] if dims == 2 else 0.0) + max(stored_i[j], stored_i[t] if dims == 2 else 0.0)
                late[j, t] = scale * H[j, j] * (H[t, t] if dims == 2 else 1.0) * keep
                errors[j, t] = channels * (vx * errors_k[j, t] + vw * errors_i[j, t]) + late[j, t]

        count, entries = number_roundings(
            A, A_bits, A, H, True, False, sums, line, link, real, rows, across, heap, item, term, source, entry, gains, back, buffer, whole
        )
        for i in range(m):
            for t in range(size):
                passed[i, t] = 0.0
            for t in range(side):
                first[i, t] = last[i, t] = 0.0
        if dims == 2:
            for i in range(m):
                levels[i] = 0.0
                for j in range(n):
                    for t in range(n):
                        levels[i] += A[i, j] * A[i, t] * H[j, t]
        if not coarse:
            for k in range(count):
                square = units[2] * scale * real[2, k] * real[3, n + k]
                node_o[k] = square
                e = link[4, k]
                while e >= 0:
                    passed[entry[0, e], 0] += gains[e] ** 2 * square
                    e = entry[1, e]
            if dims == 1:
                for i in range(m):
                    first[i, 0] = passed[i, 0]
            else:
                for h in range(m):
                    spread = 0.0
                    for t in range(n):
                        spread += H[t, t] * A2[h, t]
                    for i in range(m):
                        first[i, h] = passed[i, 0] * spread
                        last[i, h] = passed[h, 0] * levels[i]
        else:
            node_o[:count] = 0.0
            for turn in range(size + (m if dims == 2 else 0)):  # columns, then rows
                level, i = scale, turn - size
                if turn < size:
                    level *= H[turn, turn] if dims == 2 else 1.0
                    half[:] = errors[:, turn]
                else:
                    level *= levels[i]
                    for t in range(n):
                        half[t] = passed[i, t]
                        for j in range(n):
                            half[t] += A2[i, j] * errors[j, t]
                for k in range(n + count):
                    variance[k] = level * real[3, k]
                    for j in range(n):
                        variance[k] += rows[k, j] ** 2 * half[j]
                for k in range(count):
                    square = units[2] * variance[n + k] * real[2, k]
                    if link[3, k] >= 0:
                        vb = real[1, k] ** 2 * variance[link[3, k]]
                        square = units[2] * variance[n + k] * sum_correction(variance[link[2, k]], vb, variance[n + k], sums)
                    if turn < size:
                        node_o[k] += square
                    e = link[4, k]
                    while e >= 0:
                        if turn < size:
                            passed[entry[0, e], turn] += gains[e] ** 2 * square
                        else:
                            last[i, entry[0, e]] += gains[e] ** 2 * square
                        e = entry[1, e]
            if dims == 1:
                for i in range(m):
                    first[i, 0] = passed[i, 0]
            else:
                for i in range(m):
                    for h in range(m):
                        for t in range(n):
                            first[i, h] += passed[i, t] * A2[h, t]

        inexact_constants(A, G, B, dA, dG, dB, parts, change, d_self, d_exact)
        if shaped:
            _forms(count, n, r, m, A2, G, B, u, v, forms_k, forms_i, change, rows, link, entry, gains, node_o, real, bilinear, Fw, Fx)
            for i in range(m):
                _overlap(Fw[i], dot_w[i], dia_w[i])
                _overlap(Fx[i], dot_x[i], dia_x[i])

        total_square = total_mean = 0.0
        for i in range(m):
            for h in range(side):
                kept = 0.0
                for j in range(n):
                    for t in range(size):
                        kept += A2[i, j] * (A2[h, t] if dims == 2 else 1.0) * late[j, t]
                share[0], share[1] = channels * vx * pass_k[i], channels * vw * pass_i[i]
                share[2], share[3], share[4] = kept, first[i, h], scale * d_self[i]
                if dims == 2:
                    x, y, c, d = d_exact[i], d_exact[h], d_self[i], d_self[h]
                    constants = scale * (r * (c + d) + c * d + 2 * x * y + 2 * x * d + 2 * c * y)
                    share[2], share[0] = share[1] * exact_i[h], share[0] * exact_k[h]
                    share[1], share[3] = channels * vx * after_k[i, h], channels * vw * after_i[i, h]
                    share[4], share[5], share[6], share[7], share[8] = kept, first[i, h], last[i, h], constants / 2, constants / 2
                square = 0.0
                for x in range(kinds):
                    square += share[x]
                root = math.sqrt(square)
                if shaped:
                    square_w = square_x = fourth_w = fourth_x = 0.0
                    for x in range(kinds):
                        for y in range(kinds):
                            p, e, f = share[x] * share[y], first_kind[x], first_kind[y]
                            g, o = second_kind[x], second_kind[y]
                            two = dims == 2
                            square_w += p * dot_w[i, e, f] * (dot_w[h, g, o] if two else 1.0)
                            square_x += p * dot_x[i, e, f] * (dot_x[h, g, o] if two else 1.0)
                            fourth_w += p * dia_w[i, e, f] * (dia_w[h, g, o] if two else 1.0)
                            fourth_x += p * dia_x[i, e, f] * (dia_x[h, g, o] if two else 1.0)
                    norm = 1.0 / max(square * square * channels, 1e-300)
                    root *= _mean_root(square_w * norm, kurtosis_w * fourth_w * norm, roots_w)
                    root *= _mean_root(square_x * norm, kurtosis_x * fourth_x * norm, roots_x)
                total_square += square
                total_mean += root
        mean[number] = math.sqrt(2.0 / math.pi) * total_mean / (m * side)
        rms[number] = math.sqrt(total_square / (m * side))

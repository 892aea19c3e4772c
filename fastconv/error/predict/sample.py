"""Predict the error of an algorithm on given kernels and tiles, from their second moments.

`fastconv.error.predict.model` assumes independent inputs of mean zero. Those of a trained network are neither. Images are
smooth, so differences of neighbours are small and often exact (Sterbenz 1974). Rectified values have one sign, so sums over
channels grow faster. Here each program is read on the second moments of a sample. They give the mean square of every value
and, with the moments of the other factor of the product, the effect of every rounding on the outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, channel_sum_named, check_count, policy_named
from fastconv.error.predict.channels import additions
from fastconv.error.predict.model import check_range
from fastconv.error.predict.nodes import Nodes, nodes_of
from fastconv.error.predict.rounding import sum_factor, underflow, unit
from fastconv.exact import Format
from fastconv.program import parse_order, programs_of

Array = npt.NDArray[Any]

_TINY = 1e-300


@dataclass(frozen=True)
class SampledPrediction:
    """The predicted error on a sample.

    Attributes
    ----------
    rms : float
        Root mean square of ``|y - y_ref|`` over all kernels, tiles and outputs.
    relative_l2 : float
        `rms` over the root mean square of the exact result.
    shares : dict
        Share of each source in ``rms**2``, as in `fastconv.Prediction`.
    """

    rms: float
    relative_l2: float
    shares: dict[str, float] = field(hash=False)

    @property
    def systematic(self) -> float:
        """The part of `rms` common to all tiles: from the kernel transform and rounded constants."""
        return self.rms * math.sqrt(self.shares.get("kernel", 0.0) + self.shares.get("constants", 0.0))

    @property
    def random(self) -> float:
        """The rest of `rms`."""
        return math.sqrt(max(self.rms**2 - self.systematic**2, 0.0))


class Sample:
    """Kernels and tiles of a two-dimensional convolution, for all pairs of a kernel and a tile.

    Parameters
    ----------
    w : array, (kernels, channels, r, r)
    x : array, (tiles, channels, n, n)
        Tiles of the input, padding included.
    stride : int
        Inputs from one output to the next.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Notes
    -----
    For errors before the product, the second moments of kernels and of tiles are assumed equal in all channels, up to their
    sizes. For those of sums over channels and of the output transform, the sample is used as given.

    Examples
    --------
    >>> from fastconv import algorithm
    >>> rng = np.random.default_rng(0)
    >>> w, ramp = rng.standard_normal((8, 4, 3, 3)), np.broadcast_to(np.arange(6.0), (6, 6))
    >>> noise, smooth = rng.standard_normal((8, 4, 6, 6)), 20 + ramp + rng.standard_normal((8, 4, 6, 6)) / 10
    >>> f4 = algorithm("F(4x4,3x3)")
    >>> Sample(w, noise).predict(f4).relative_l2 < 5e-7
    True
    """

    def __init__(self, w: Array, x: Array, stride: int = 1) -> None:
        w, x = np.asarray(w, np.float64), np.asarray(x, np.float64)
        square = w.ndim == x.ndim == 4 and w.shape[2] == w.shape[3] and x.shape[2] == x.shape[3]
        if not square or w.shape[1] != x.shape[1] or not w.size or not x.size or w.shape[3] > x.shape[3]:
            raise ValueError(f"kernels {w.shape} and tiles {x.shape}: pass (kernels, channels, r, r) and (tiles, channels, n, n), n >= r")
        self.w, self.x = w, x
        check_count("stride", stride)
        self.channels, self.r, self.n, self.stride = w.shape[1], w.shape[2], x.shape[2], stride
        self.m = (self.n - self.r) // stride + 1

    @cached_property
    def coupling(self) -> tuple[Array, Array, float]:
        """Second moments of a kernel and a tile, (r, r, r, r) and (n, n, n, n), and the scale of their product.

        The weight of a channel is its mean square on the other side, so the product is exact if channels differ only in size.
        """
        of_w, of_x = (np.square(v).mean(axis=(0, 2, 3)) for v in (self.w, self.x))
        both = max(float(of_w @ of_x), _TINY)
        w, x = (
            np.einsum("kcij,kcpq->ijpq", v * (weight / max(float(weight.sum()), _TINY))[:, None, None], v, optimize=True) / len(v)
            for v, weight in ((self.w, of_x), (self.x, of_w))
        )
        return w, x, float(of_w.sum() * of_x.sum()) / both

    @cached_property
    def exact(self) -> Array:
        """Outputs of each kernel on each tile, ``(m, m, kernels, tiles)``."""
        y = np.zeros((self.m, self.m, len(self.w), len(self.x)))
        for i, j in np.ndindex(self.r, self.r):
            rows, columns = (slice(k, k + self.stride * (self.m - 1) + 1, self.stride) for k in (i, j))
            y += np.einsum("kc,tcpq->pqkt", self.w[:, :, i, j], self.x[:, :, rows, columns], optimize=True)
        return y

    def predict(
        self, alg: BilinearAlgorithm | None, policy: str | Policy = "fp32", channel_sum: str = "linear", order: str = "huffman"
    ) -> SampledPrediction:
        """Predict the error of an algorithm, or of direct convolution.

        Parameters
        ----------
        alg : BilinearAlgorithm or None
            F(m, r) for the sample's tiles; None is direct convolution, taps left to right.
        policy, channel_sum, order : str
            As in `fastconv.predict_error`.

        Raises
        ------
        ValueError
            For unknown names, an algorithm of another size, or matrix entries beyond the range of a format.
        """
        parse_order(order)
        channel_sum_named(channel_sum)
        policy = policy_named(policy)
        if alg is None:
            windows = self.x[:, :, : self.r, : self.r]
            w, x = (v.reshape(*v.shape[:2], -1) for v in (self.w, windows))
            return predict_direct(w, x, policy, channel_sum)
        if (alg.n, alg.r, alg.stride) != (self.n, self.r, self.stride):
            given = f"tiles of {self.n}x{self.n}, kernels of {self.r}x{self.r} and stride {self.stride}"
            raise ValueError(f"{alg.name(1)} does not fit {given}")
        check_range(alg, policy)
        return _result(_fast(self, alg, policy, channel_sum, order), float(np.square(self.exact).mean()))


def _fast(sample: Sample, alg: BilinearAlgorithm, policy: Policy, channel_sum: str, order: str) -> dict[str, float]:
    programs = programs_of(alg, order)
    stages = ((programs.kernel, policy.kernel), (programs.input, policy.input), (programs.output, policy.output))
    kernel, input, output = (nodes_of(program, policy.constants or fmt, fmt) for program, fmt in stages)
    moments_w, moments_x, scale = sample.coupling
    G, B, A = kernel.matrix, input.matrix, output.matrix
    u, v = (np.einsum("ia,jb,kc,ld,abcd->ijkl", M, M, M, M, S, optimize=True) for M, S in ((G, moments_w), (B, moments_x)))
    # The effect of errors at two products on all outputs.
    reach = np.einsum("ab,cd->acbd", A.T @ A, A.T @ A)
    squared = np.einsum("abab->ab", reach)
    U = np.einsum("ia,jb,kcab->ijkc", G, G, sample.w, optimize=True)
    V = np.einsum("ia,jb,tcab->ijct", B, B, sample.x, optimize=True)
    each = (np.square(U).mean(axis=2) * np.square(V).mean(axis=3)).mean(axis=2)
    sums = U @ V
    flat = sums.reshape(alg.products**2, -1)
    moments = (flat @ flat.T / flat.shape[1]).reshape((alg.products,) * 4)
    total = np.einsum("abab->ab", moments)
    bits = min(policy.output.p, policy.accumulate.p, max(2 * policy.operands.p, 1))
    itself = np.einsum("ab,cd->acbd", np.eye(alg.m), np.eye(alg.m))
    # Rounded constants have the same error in each channel and tile, so it is computed exactly.
    off = np.einsum("ia,jb,abkt->ijkt", A, A, sums, optimize=True) - sample.exact
    squares = {
        "kernel": scale * _before(kernel, moments_w, v * reach, policy.kernel, policy),
        "input": scale * _before(input, moments_x, u * reach, policy.input, policy),
        "product": float((squared * _products(each, sample.channels, policy)).sum()),
        "sum": float((squared * _sums(each, total, (V != 0).mean(axis=(2, 3)), sample.channels, channel_sum, policy)).sum()),
        "output": sum(_rounded(output, moments, itself, policy.output, bits)[:2]),
        "constants": float(np.square(off).mean()) * alg.m**2,
    }
    return {name: value / alg.m**2 for name, value in squares.items()}


def _rounded(nodes: Nodes, moments: Array, reach: Array, fmt: Format, bits: int) -> tuple[float, float, Array]:
    """Return the output errors from the two passes of a transform, and the variances of the second.

    Parameters
    ----------
    moments, reach : array
        Second moments of the transform's input, ``(i, j, k, l)`` for the entries (i, j) and (k, l), and the same for the
        effect of errors of the result on the outputs.
    bits : int
        Significant bits of the transform's input.
    """
    M, n = nodes.matrix, nodes.inputs
    first = np.einsum("vi,ibkb,vk->bv", nodes.rows, moments, nodes.rows, optimize=True)
    second = np.einsum("ia,ib,vj,vl,ajbl->iv", M, M, nodes.rows, nodes.rows, moments, optimize=True)
    through = np.einsum("iv,kv,jb,lb,ijkl->bv", nodes.gain, nodes.gain, M, M, reach, optimize=True)
    straight = np.einsum("jv,lv,ijil->iv", nodes.gain, nodes.gain, reach, optimize=True)
    factors = [nodes.factors(variance, bits, fmt.p) for variance in (first, second)]

    def lost(variance: Array, factors: Array, weight: Array) -> float:
        squares = underflow(unit(fmt) * variance[:, n:] * factors, variance[:, n:], fmt, nodes.is_sum)
        return float((squares * weight).sum())

    return lost(first, factors[0], through), lost(second, factors[1], straight), second


def _before(nodes: Nodes, moments: Array, reach: Array, fmt: Format, policy: Policy) -> float:
    """Return the output error from a transform before the product: of its input, roundings and stored result."""
    M, data, operands = nodes.matrix, policy.data, policy.operands
    once, twice, last = _rounded(nodes, moments, reach, fmt, min(data.p, fmt.p))
    square = once + twice
    if fmt.p < data.p:
        square += unit(fmt) * float(np.einsum("ia,ka,jb,lb,ijkl,abab->", M, M, M, M, reach, moments, optimize=True))
    if operands.p < fmt.p:
        stored = np.einsum("ia,ic,jb,jd,abcd->ij", M, M, M, M, moments, optimize=True)
        few = np.ones_like(stored)
        if data.p <= operands.p:  # a sum of numbers in the format may be exact, a plain number is
            rounded = nodes.factors(last, data.p, operands.p, fmt.p)
            few = np.hstack([np.zeros((len(M), nodes.inputs)), rounded])[:, nodes.source]
            few = np.where((few > 0) & (few.T > 0), 1.0, few + few.T)
        lost = underflow(unit(operands) * stored * few, stored, operands, np.zeros(stored.shape, bool))
        square += float((lost * np.einsum("abab->ab", reach)).sum())
    return square


def _products(each: Array, channels: int, policy: Policy) -> Array:
    """Return the mean squares of rounding the products, summed over the channels."""
    fmt = policy.product
    if 2 * min(policy.operands.p, max(policy.kernel.p, policy.input.p)) <= fmt.p:
        return np.zeros_like(each)
    return channels * underflow(unit(fmt) * each, each, fmt, "product")


def _sums(each: Array, total: Array, alive: Array, channels: int, channel_sum: str, policy: Policy) -> Array:
    """Return the mean squares of rounding the sums over channels.

    A run of k channels has the mean square ``k each + k (k - 1) pair``; `pair`, the average covariance of two channels,
    follows from the sum of all. `alive` is the share of nonzero channels: adding zero is exact.
    """
    fmt, product = policy.accumulate, policy.product
    bits = min(product.p, 2 * policy.operands.p, fmt.p) - fmt.p
    square = np.zeros_like(each)
    if channels > 1:
        pair = (total / channels - each) / (channels - 1)
        left, right = ((part[:, 1] - part[:, 0])[(..., *[None] * each.ndim)] for part in additions(channel_sum, channels))
        a, b, both = (np.maximum(k * each + k * (k - 1) * pair, _TINY) for k in (left, right, left + right))
        some = (1 - (1 - alive) ** left) * (1 - (1 - alive) ** right)
        square = unit(fmt) * (both * some * sum_factor(a, b, both, bits, bits)).sum(axis=0)
    if fmt.p < min(product.p, 2 * policy.operands.p):
        square = square + channels * unit(fmt) * each
    if policy.output.p < fmt.p:
        square = square + unit(policy.output) * total
    return np.asarray(square)


def predict_direct(w: Array, x: Array, policy: str | Policy = "fp32", channel_sum: str = "linear") -> SampledPrediction:
    """Predict the error of direct convolution: a channel's taps left to right, then the channels.

    Parameters
    ----------
    w, x : array, (kernels, channels, taps) and (windows, channels, taps)
        Kernels and their input windows.
    policy, channel_sum : str
        As in `fastconv.predict_error`.
    """
    policy = policy_named(policy)
    fmt, wide = policy.accumulate, min(policy.product.p, 2 * policy.data.p)
    w, x = np.asarray(w, np.float64)[:, None], np.asarray(x, np.float64)[None]
    bits = min(wide - fmt.p, 0)
    run, before = np.zeros(()), np.zeros(w.shape[2])
    products = sums = 0.0
    for tap in range(w.shape[3]):
        term = w[..., tap] * x[..., tap]
        run = run + term
        size, both = (np.square(part).mean(axis=(0, 1)) for part in (term, run))
        products += float(size.sum())
        if tap:  # adding zero is exact, and rectified values are often zero
            rounded = (np.square(run) * ((term != 0) & (run != term))).mean(axis=(0, 1))
            sums += float((rounded * sum_factor(before, size, both, bits, bits)).sum())
        before = both
    total = np.square(run.sum(axis=2)).mean()
    each, alive = np.asarray(before.mean()), np.asarray((run != 0).mean())
    channels = _sums(each, np.asarray(total), alive, len(before), channel_sum, Policy(*[fmt] * 5))
    converted = unit(fmt) * products if fmt.p < wide else 0.0
    rounded = unit(policy.product) * products if 2 * policy.data.p > policy.product.p else 0.0
    return _result({"product": rounded, "sum": unit(fmt) * sums + converted + float(channels)}, float(total))


def _result(squares: dict[str, float], size: float) -> SampledPrediction:
    total = sum(squares.values())
    shares = {name: value / total if total else 0.0 for name, value in squares.items()}
    return SampledPrediction(math.sqrt(total), math.sqrt(total / size) if size else 0.0, shares)

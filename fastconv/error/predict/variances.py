"""Propagate variances through programs: the effect of each stage's roundings on each output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, Setting
from fastconv.error.predict.channels import channel_growth
from fastconv.error.predict.moments import Moments
from fastconv.error.predict.nodes import Nodes, nodes_of
from fastconv.error.predict.rounding import mellin, modulation, underflow, unit
from fastconv.error.predict.shape import Pair, mean_root, mixed, normed, outer, overlaps
from fastconv.exact import Format, Number, rounded
from fastconv.program import programs_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Noise:
    """Errors of a stage before the product.

    All variances are summed over the channels. `output` is the variance at each output, `first` the part of it from the
    first of two passes, `stored` that from rounding to the format of the operands, `flat` that from underflow in the last
    pass. `product` is the variance at each product. `nodes` is, for each axis, that of each rounding of a first pass along it.
    """

    output: Array
    first: Array
    stored: Array
    flat: Array
    product: Array
    nodes: tuple[Array, ...]


@dataclass(frozen=True)
class _Side:
    """A transform before the product, G w or BT x along each axis, with the other factor of the product."""

    nodes: tuple[Nodes, ...]
    fmt: Format
    operands: Format
    data: Format
    variance: float
    kurtosis: float
    other: tuple[Array, ...]
    other_variance: float


class _Variances(NamedTuple):
    """Errors of the transforms before the product, of the output transform's first pass and nodes, and of all sources."""

    kernel: _Noise
    input: _Noise
    first: Array
    nodes: tuple[Array, ...]
    parts: dict[str, Array]
    total: Array


def _kurtosis(rows: Array) -> Array:
    """Return the excess kurtosis of sums with these coefficients, over that of their terms."""
    return np.asarray((rows**4).sum(axis=-1) / np.maximum((rows**2).sum(axis=-1) ** 2, 1e-300))


class _Axis:
    """An algorithm along an axis: the roundings of its programs, its rounded matrices."""

    def __init__(self, alg: BilinearAlgorithm, policy: Policy, order: str) -> None:
        self.alg, self.policy = alg, policy
        programs = programs_of(alg, order)
        self.K, self.I, self.O = (
            nodes_of(program, policy.constants or fmt, fmt)
            for program, fmt in ((programs.kernel, policy.kernel), (programs.input, policy.input), (programs.output, policy.output))
        )
        self.G, self.B, self.A = self.K.matrix, self.I.matrix, self.O.matrix
        self.A2 = self.A**2
        self.hadamard = (self.G @ self.G.T) * (self.B @ self.B.T)
        self.size = np.diag(self.hadamard)

    def through(self, matrix: Array) -> Array:
        """Return ``A_i matrix A_i'`` of each output."""
        return np.asarray(np.einsum("ij,jk,ik->i", self.A, matrix, self.A, optimize=True))

    def perturbation(self) -> tuple[Array, Array]:
        """Return the bilinear map of each output, (m, r, n), and its change by rounded constants."""
        A, G, B = self.alg.AT, self.alg.G, self.alg.BT
        p = self.policy
        exact_G, exact_A = _float(G), _float(A)
        dA, dG, dB = (_rounding(M, p.constants or fmt) for M, fmt in ((A, p.output), (G, p.kernel), (B, p.input)))
        three = "ij,jk,jl->ikl"
        change = np.einsum(three, dA, self.G, self.B) + np.einsum(three, exact_A, dG, self.B) + np.einsum(three, exact_A, exact_G, dB)
        exact = np.zeros_like(change)
        i, k = np.indices((self.alg.m, self.alg.r))
        exact[i, k, self.alg.stride * i + k] = 1.0
        return exact, change


class _Pass:
    """The roundings of a transform before the product along one axis."""

    def __init__(self, nodes: Nodes, s: _Side) -> None:
        self.nodes, self.fmt, n = nodes, s.fmt, nodes.inputs
        relative = (nodes.rows**2).sum(axis=1)
        self.factors = nodes.factors(relative, min(s.data.p, s.fmt.p), s.fmt.p)
        self.variance, self.kurtosis = s.variance * relative[n:], s.kurtosis * _kurtosis(nodes.rows[n:])

    def squares(self, of_row: Array | float = 1.0, kurtosis: Array | float = 1.0) -> tuple[Array, Array]:
        """Return the mean squares of the roundings without underflow and with it, for rows of these variances and kurtoses."""
        variance = of_row * self.variance
        plain = unit(self.fmt) * variance * self.factors * modulation(mellin(kurtosis * self.kurtosis), variance)
        square = underflow(plain, variance, self.fmt, self.nodes.is_sum)
        known = square / np.maximum(variance, 1e-300)  # the error of a value that underflows to zero is the value
        return np.where(square > plain, plain + (square - plain) * np.minimum(known, 1.0), square), square


class Model:
    """Algorithms along each axis, with the variances of a setting."""

    def __init__(self, axes: Sequence[BilinearAlgorithm], setting: Setting, moments: Moments) -> None:
        self.policy, self.channels, self.channel_sum, self.moments = setting.policy, setting.channels, setting.channel_sum, moments
        made = {alg: _Axis(alg, setting.policy, setting.order) for alg in axes}
        self.axes = [made[alg] for alg in axes]
        self.scale = setting.channels * moments.w_variance * moments.x_variance

    def variances(self) -> _Variances:
        """Return the variance at each output by source."""
        moments, data = self.moments, self.policy.data
        w, x = (moments.w_variance, moments.w_kurtosis), (moments.x_variance, moments.x_kurtosis)
        K, I, G, B = (tuple(getattr(axis, name) for axis in self.axes) for name in "KIGB")  # noqa: E741
        kernel = self.before(_Side(K, self.policy.kernel, self.policy.operands, data, *w, B, moments.x_variance))
        input = self.before(_Side(I, self.policy.input, self.policy.operands, data, *x, G, moments.w_variance))
        products, sums = self.products(), self.sums()
        first, second, nodes = self.after(kernel.product + input.product + products + sums)
        parts = {
            "kernel": kernel.output,
            "input": input.output,
            "product": self.to_outputs(products),
            "sum": self.to_outputs(sums),
            "output": first + second,
            "constants": self.constants(),
        }
        return _Variances(kernel, input, first, nodes, parts, np.asarray(sum(parts.values())))

    def relative(self, mean: float) -> float:
        """Return the relative error of a mean variance at the outputs."""
        return math.sqrt(mean) / math.sqrt(self.scale * math.prod(axis.alg.r for axis in self.axes))

    def to_outputs(self, products: Array) -> Array:
        """Propagate independent variances at the products to the outputs."""
        first, *rest = self.axes
        return np.asarray(first.A2 @ products @ rest[0].A2.T if rest else first.A2 @ products)

    def before(self, s: _Side) -> _Noise:
        """Return the errors of a transform before the product.

        An error in U = G w meets V = BT x: its variance at output i is
        ``A_i (other other' * covariance of the errors) A_i'``. In two dimensions the errors of the first pass go
        through the second; those of the second belong to one row.
        """
        made = {id(nodes): _Pass(nodes, s) for nodes in s.nodes}
        passes = [made[id(nodes)] for nodes in s.nodes]
        lengths = [(other**2).sum(axis=1) for other in s.other]
        scale, kept = self.channels * s.other_variance, outer(lengths) * self.stored(s)
        entry = unit(s.fmt) * s.variance if s.fmt.p < s.data.p else 0.0
        axis, other, nodes = self.axes[0], s.other[0], s.nodes[0]

        def through(first: Array) -> tuple[Array, Array]:
            covariance = (nodes.gain * first) @ nodes.gain.T + entry * nodes.matrix @ nodes.matrix.T
            return axis.through((other @ other.T) * covariance), np.diag(covariance)

        plain, first = passes[0].squares()
        passed, errors = through(first)
        if len(self.axes) == 1:
            flat = np.maximum(passed - through(plain)[0], 0.0)
            output = passed + axis.A2 @ kept
            product = scale * (lengths[0] * errors + kept)
            return _Noise(scale * output, scale * passed, scale * (output - passed), scale * flat, product, (first,))
        width, last = self.axes[1], s.nodes[1]
        gram = s.other[1] @ s.other[1].T
        of_row = [(one.matrix**2).sum(axis=1) for one in s.nodes]
        plain, second = passes[1].squares(of_row[0][:, None], _kurtosis(nodes.matrix)[:, None])
        # effect of node v of the second pass on output i along the second axis
        of_node = np.einsum("ij,jv,jk,kv,ik->vi", width.A, last.gain, gram, last.gain, width.A, optimize=True)
        before = np.multiply.outer(passed, width.through(gram * (last.matrix @ last.matrix.T)))
        after = (axis.A2 * lengths[0]) @ second @ of_node
        flat = np.maximum(after - (axis.A2 * lengths[0]) @ plain @ of_node, 0.0)
        stored = self.to_outputs(kept)
        products = (np.multiply.outer(errors, of_row[1]) + second @ (last.gain**2).T) * outer(lengths) + kept
        both = (first, passes[1].squares()[1])
        return _Noise(scale * (before + after + stored), scale * before, scale * stored, scale * flat, scale * products, both)

    def stored(self, s: _Side) -> Array:
        """Return the mean squares of rounding the transformed values to the format they are stored in."""
        variance = s.variance * outer([(nodes.matrix**2).sum(axis=1) for nodes in s.nodes])
        if s.operands.p >= s.fmt.p:
            return np.zeros_like(variance)
        if s.data.p > s.operands.p:
            few = np.ones_like(variance)
        else:  # the last sum or product decides; a plain input is exact, and a sum of sums has more bits
            last = []
            for nodes in s.nodes:
                factors = nodes.factors((nodes.rows**2).sum(axis=1), s.data.p, s.operands.p, s.fmt.p)
                last.append(np.append(np.zeros(nodes.inputs), factors)[nodes.source])
            few = last[0] if len(last) == 1 else np.where(np.multiply.outer(*last) > 0, 1.0, np.add.outer(*last))
        square = unit(s.operands) * variance * few
        return np.where(few > 0, underflow(square, variance, s.operands, np.zeros(square.shape, bool)), 0.0)

    def products(self) -> Array:
        """Return the mean squares of rounding the products, summed over the channels."""
        m, fmt, held = self.moments, self.policy.product, self.policy.operands
        if 2 * min(held.p, max(self.policy.kernel.p, self.policy.input.p)) <= fmt.p:
            return np.zeros([axis.alg.products for axis in self.axes])
        u, v, of_u, of_v = (
            outer([of(getattr(axis, name)) for axis in self.axes])
            for of in (lambda M: (M**2).sum(axis=1), _kurtosis)
            for name in ("G", "B")
        )
        moments = mellin(m.w_kurtosis * of_u) * mellin(m.x_kurtosis * of_v)
        variance = m.w_variance * m.x_variance * u * v
        square = underflow(unit(fmt) * variance * modulation(moments, variance), variance, fmt, "product")
        return np.asarray(self.channels * square)

    def sums(self) -> Array:
        """Return the mean squares of rounding the sums over channels."""
        fmt, product = self.policy.accumulate, self.policy.product
        variance = self.scale / self.channels * outer([axis.size for axis in self.axes])
        bits = min(product.p, 2 * self.policy.operands.p, fmt.p) - fmt.p
        growth, _, _ = channel_growth(self.channel_sum, self.channels, bits)
        square = growth * unit(fmt) * variance
        if fmt.p < min(product.p, 2 * self.policy.operands.p):
            square = square + self.channels * unit(fmt) * variance
        if self.policy.output.p < fmt.p:
            square = square + self.channels * unit(self.policy.output) * variance
        return np.asarray(square)

    def after(self, errors: Array) -> tuple[Array, Array, tuple[Array, ...]]:
        """Return the variances at the outputs from the two passes of the output transform, and those of its nodes.

        The rounded values are exact values plus earlier errors. After much cancellation, these errors are no longer small.
        """
        fmt = self.policy.output
        bits = min(fmt.p, self.policy.accumulate.p, max(2 * self.policy.operands.p, 1))

        def squares(axis: _Axis, scale: Array, errors: Array) -> Array:
            nodes, n = axis.O, axis.O.inputs
            true = np.einsum("vj,jk,vk->v", nodes.rows, axis.hadamard, nodes.rows, optimize=True)
            variance = scale[:, None] * true + errors @ (nodes.rows**2).T
            plain = unit(fmt) * variance[:, n:] * nodes.factors(variance, bits, fmt.p)
            return underflow(plain, variance[:, n:], fmt, nodes.is_sum)

        first, *rest = self.axes
        if not rest:
            of_nodes = squares(first, np.array([self.scale]), errors[None])[0]
            return first.O.gain**2 @ of_nodes, np.zeros(first.alg.m), (of_nodes,)
        (second,) = rest
        columns = squares(first, self.scale * second.size, errors.T)
        passed = first.O.gain**2 @ columns.T
        rows = squares(second, self.scale * first.through(first.hadamard), first.A2 @ errors + passed)
        of_first = np.asarray(columns.mean(axis=0))
        of_second = of_first if second is first else squares(second, self.scale * first.size, errors).mean(axis=0)
        return passed @ second.A2.T, rows @ (second.O.gain**2).T, (of_first, of_second)

    def constants(self) -> Array:
        """Return the variance at the outputs from inexact constants: ``|K' (x) K' - K (x) K|**2`` in two dimensions."""
        told = []
        for axis in self.axes:
            exact, change = axis.perturbation()
            told.append(((change**2).sum(axis=(1, 2)), (change * exact).sum(axis=(1, 2)), axis.alg.r))
        if len(told) == 1:
            return np.asarray(self.scale * told[0][0])
        (d, x, r), (d2, x2, r2) = told
        both = np.multiply.outer
        square = both(d, d2) + 2 * both(x, x2 + d2) + 2 * both(d, x2)
        return np.asarray(self.scale * (square + np.add.outer(r2 * d, r * d2)))

    def forms(self, axis: _Axis, of_K: Array, of_I: Array, of_O: Array) -> tuple[dict[str, Array], dict[str, Array], Array]:
        """Return the forms in w and in x along an axis by source, and the roundings of its output transform.

        Letters name the sources: K, I, O the roundings of a transform, M whole products, E the exact map, K0 and I0 underflow,
        C the change of the map by inexact constants.
        """
        G, B, A2 = axis.G, axis.B, axis.A2
        at_K = (B**2).sum(axis=1)[:, None] * axis.K.gain**2 * of_K
        at_I = (G**2).sum(axis=1)[:, None] * axis.I.gain**2 * of_I
        at_O = axis.O.gain**2 * of_O
        maps = np.einsum("vj,jk,jl->vkl", axis.O.rows[axis.O.inputs :], G, B, optimize=True)
        maps = maps / np.sqrt(np.maximum((maps**2).sum(axis=(1, 2)), 1e-300))[:, None, None]
        exact, change = axis.perturbation()
        w = {
            "K": mixed(A2 @ at_K, axis.K.rows[axis.K.inputs :]),
            "I": mixed(A2 * at_I.sum(axis=1), G),
            "M": mixed(A2 * axis.size, G),
            "O": normed(np.einsum("iv,vkl,vhl->ikh", at_O, maps, maps, optimize=True)),
            "E": normed(np.einsum("ikl,ihl->ikh", exact, exact)),
            "C": normed(np.einsum("ikl,ihl->ikh", change, change)),
        }
        x = {
            "K": mixed(A2 * at_K.sum(axis=1), B),
            "I": mixed(A2 @ at_I, axis.I.rows[axis.I.inputs :]),
            "M": mixed(A2 * axis.size, B),
            "O": normed(np.einsum("iv,vkl,vkh->ilh", at_O, maps, maps, optimize=True)),
            "E": normed(np.einsum("ikl,ikh->ilh", exact, exact)),
            "C": normed(np.einsum("ikl,ikh->ilh", change, change)),
        }
        w |= {"K0": np.zeros_like(w["K"]), "I0": w["I"]}  # underflow errors no longer depend on the inputs
        x |= {"K0": x["K"], "I0": np.zeros_like(x["I"])}
        return w, x, at_O

    def shape(self, found: _Variances) -> Array:
        """Return E sqrt(Q) of each output, see `fastconv.error.predict.shape`."""
        kernel, input, first, m, C = found.kernel, found.input, found.first, self.moments, self.channels
        w, x, at_O = zip(*map(self.forms, self.axes, kernel.nodes, input.nodes, found.nodes), strict=True)
        safe = np.maximum(found.total, 1e-300)
        v = {name: part / safe for name, part in found.parts.items()}
        one, two = first / safe, v["output"] - first / safe
        k0, i0, k2, i2 = kernel.stored / safe, input.stored / safe, kernel.flat / safe, input.flat / safe
        whole = v["product"] + v["sum"] + k0 + i0
        shares: dict[Pair, Array]
        if len(self.axes) == 1:
            shares = {
                ("K", ""): v["kernel"] - k0 - k2,
                ("I", ""): v["input"] - i0 - i2,
                ("K0", ""): k2,
                ("I0", ""): i2,
                ("M", ""): whole,
                ("O", ""): one,
                ("C", ""): v["constants"],
            }
            late: dict[Pair, Array] = {("M", ""): v["sum"], ("O", ""): one}
        else:
            k1, i1 = kernel.first / safe, input.first / safe
            shares = {
                ("K", "E"): k1,
                ("M", "K"): v["kernel"] - k1 - k0 - k2,
                ("M", "K0"): k2,
                ("I", "E"): i1,
                ("M", "I"): v["input"] - i1 - i0 - i2,
                ("M", "I0"): i2,
                ("M", "M"): whole,
                ("O", "M"): one,
                ("E", "O"): two,
                ("C", "E"): v["constants"] / 2,
                ("E", "C"): v["constants"] / 2,
            }
            late = {("M", "M"): v["sum"], ("O", "M"): one, ("E", "O"): two}
        (square_w, quartic_w), (square_x, quartic_x) = overlaps(w, shares), overlaps(x, shares)
        square_x = square_x / C
        if C > 1:
            square_x = square_x + (1 - 1 / C) * self.late(late, at_O)
        rest_w, rest_x = (min(3, C * math.prod(getattr(axis.alg, size) for axis in self.axes) - 1) for size in ("r", "n"))
        return mean_root(square_w / C, m.w_kurtosis * quartic_w / C, rest_w) * mean_root(square_x, m.x_kurtosis * quartic_x / C, rest_x)

    def late(self, shares: dict[Pair, Array], at_O: Sequence[Array]) -> Array:
        """Return the limit of tr P**2 for many channels: sums over them are normal, and correlated."""
        forms = []
        for axis, at in zip(self.axes, at_O, strict=True):
            value, vectors = np.linalg.eigh(axis.hadamard)
            root = vectors * np.sqrt(np.maximum(value, 0.0))
            forms.append(
                {
                    "M": mixed(axis.A2 * axis.size, root),
                    "O": mixed(at, axis.O.rows[axis.O.inputs :] @ root),
                    "E": np.stack([mixed(np.ones(1), row[None]) for row in axis.A @ root]),
                }
            )
        _, itself, others = channel_growth(self.channel_sum, self.channels, 0)
        sums: dict[Pair, Array] = {pair: share for pair, share in shares.items() if set(pair) <= {"M", ""}}
        rest: dict[Pair, Array] = {pair: share for pair, share in shares.items() if pair not in sums}
        of_sums, of_rest, of_all = (overlaps(forms, part)[0] for part in (sums, rest, shares))
        return np.asarray(itself * of_sums + of_rest + others * (of_all - of_sums - of_rest))


def _float(matrix: tuple[tuple[Number, ...], ...]) -> Array:
    return np.array([[float(e) for e in row] for row in matrix])


@lru_cache(maxsize=512)
def _rounding(matrix: tuple[tuple[Number, ...], ...], fmt: Format) -> Array:
    """Return the rounding errors of a matrix's entries in a format."""

    def change(e: Number) -> float:
        near = rounded(e, fmt)
        if isinstance(e, Fraction):
            return float(Fraction(near) - e)
        return float((near - e).evalf(20))

    return np.array([[change(e) for e in row] for row in matrix])

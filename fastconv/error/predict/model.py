"""Predict the error of an algorithm from its programs, without trials."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, channel_sum_named, policy_named
from fastconv.error.measure.shapes import by_name, check_count, check_dims
from fastconv.error.predict.channels import channel_growth
from fastconv.error.predict.moments import MOMENTS, Moments
from fastconv.error.predict.nodes import Nodes, nodes_of
from fastconv.error.predict.rounding import mellin, modulation, underflow, unit
from fastconv.error.predict.shape import Pair, mean_root, mixed, normed, overlaps
from fastconv.exact import Format, Number, rounded, to_text
from fastconv.program import parse_order, programs_of
from fastconv.tables import Shown, Table

Array = npt.NDArray[Any]

LARGEST = 0.25
"""Relative error up to which errors are small against the results, as the closed form takes them to be."""


@dataclass(frozen=True)
class Prediction(Shown):
    """The predicted error.

    Attributes
    ----------
    rms, mean_abs : float
        Root mean square and mean of ``|y - y_ref|``, over inputs and outputs.
    relative_l2 : float
        `rms` over the root mean square of the exact result.
    shares : dict
        Share of each source in ``rms**2``: the stages ``"kernel"``, ``"input"``, ``"product"``, ``"sum"`` (over
        channels), ``"output"``, and ``"constants"``, the matrix entries that the format does not hold.
    rms_of_outputs : tuple
        Root mean square of each output, row by row.
    small : bool
        Whether the errors are small against the results: `relative_l2` is at most 1/4. Past that the prediction is an upper
        estimate: in formats of three or four bits with many channels up to half too large, more where all digits are lost.
    """

    rms: float
    mean_abs: float
    relative_l2: float
    shares: dict[str, float] = field(hash=False)
    rms_of_outputs: tuple[float, ...] = field(repr=False)

    @property
    def small(self) -> bool:
        """Whether the errors are small against the results."""
        return self.relative_l2 <= LARGEST

    def tables(self) -> tuple[Table, ...]:
        """Return the errors, and the share of each source in their square."""
        names = ("rms", "mean_abs", "relative_l2")
        errors = tuple((name, f"{getattr(self, name):.4g}") for name in names)
        notes = () if self.small else ("the errors are as large as the results: the prediction is an upper estimate",)
        return Table(("", "predicted"), errors, notes=notes), Table(
            ("source", "share"), tuple((name, f"{share:.1%}") for name, share in self.shares.items())
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()} | {"small": self.small}


@by_name
def predict_error(
    alg: BilinearAlgorithm,
    dims: int = 1,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
    inputs: str | Moments = "uniform",
) -> Prediction:
    """Predict the error of an algorithm on random tiles, in closed form.

    Parameters
    ----------
    alg : BilinearAlgorithm or str
        F(m, r).
    dims : {1, 2}
        Dimension.
    policy : str or Policy
        Formats of the stages.
    order : str
        Order of summation in the transforms, as `measure_error` takes it.
    channels : int
        Channels summed over.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    inputs : str or Moments
        ``"uniform"``, ``"normal"``, or the moments of inputs of your own.

    Returns
    -------
    Prediction

    Raises
    ------
    TypeError, ValueError
        For wrong kinds, unknown names, counts that are not positive, or matrix entries beyond the range of a format.

    Notes
    -----
    Each rounding of each distinct value of the three programs adds an error of known mean square
    (see `fastconv.error.predict.rounding`); it reaches the outputs through the exact linear map behind it, whose
    random coefficients (transformed inputs for an error in G w, kernels for one in BT x) are correlated as the
    matrices say. Rounded matrix entries err the same way each time, so they enter as a perturbation of the
    whole bilinear map. Nothing is said of overflow. Errors are taken to be small against what is rounded: see `Prediction.small`.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> prediction = predict_error(toom_cook(2, 3, [0, 1, -1, "inf"]))
    >>> 2.7e-8 < prediction.mean_abs < 3.1e-8
    True
    """
    check_dims(dims)
    check_count("channels", channels)
    parse_order(order)
    channel_sum_named(channel_sum)
    policy = policy_named(policy)
    check_range(alg, policy)
    if isinstance(inputs, str) and inputs in MOMENTS:
        moments = MOMENTS[inputs]
    elif isinstance(inputs, Moments):
        moments = inputs
    else:
        raise ValueError(f"inputs is {inputs!r}: a prediction knows {', '.join(MOMENTS)}, or Moments of your own")
    return _Model(alg, dims, policy, order, int(channels), channel_sum, moments).predict()


def relative_error(
    alg: BilinearAlgorithm, dims: int, policy: Policy, order: str, channels: int, channel_sum: str, moments: Moments
) -> float:
    """Return ``predict_error(...).relative_l2`` alone, without the shape of the distribution, which takes most of the time."""
    model = _Model(alg, dims, policy, order, channels, channel_sum, moments)
    return model.relative(float(model.variances().total.mean()))


@dataclass(frozen=True)
class _Noise:
    """Errors of a stage before the product.

    `output` is the variance at each output, `first` the part of it from the first of two passes, `stored` that from
    rounding to the format of the operands, `flat` that from underflow in the last pass, `product` the variance at
    each product, all for all channels together; `nodes` is the variance of each rounding of the first pass.
    """

    output: Array
    first: Array
    stored: Array
    flat: Array
    product: Array
    nodes: Array


@dataclass(frozen=True)
class _Side:
    """A transform before the product, G w or BT x, with what lies across the product from it."""

    nodes: Nodes
    fmt: Format
    operands: Format
    data: Format
    variance: float
    kurtosis: float
    other: Array
    other_variance: float


class _Variances(NamedTuple):
    """Errors of the transforms before the product, the output's of its first pass and at its nodes, all by what they come from."""

    kernel: _Noise
    input: _Noise
    first: Array
    nodes: Array
    parts: dict[str, Array]
    total: Array


def _kurtosis(rows: Array) -> Array:
    """Return the excess kurtosis of sums with these coefficients, over that of their terms."""
    return np.asarray((rows**4).sum(axis=-1) / np.maximum((rows**2).sum(axis=-1) ** 2, 1e-300))


def _kron(v: Array, dims: int) -> Array:
    return v if dims == 1 else np.multiply.outer(v, v)


class _Model:
    def __init__(
        self, alg: BilinearAlgorithm, dims: int, policy: Policy, order: str, channels: int, channel_sum: str, moments: Moments
    ) -> None:
        self.alg, self.dims, self.policy, self.channels, self.channel_sum, self.moments = alg, dims, policy, channels, channel_sum, moments
        programs = programs_of(alg, order)
        self.K, self.I, self.O = (
            nodes_of(program, policy.constants or fmt, fmt)
            for program, fmt in ((programs.kernel, policy.kernel), (programs.input, policy.input), (programs.output, policy.output))
        )
        self.G, self.B, self.A = self.K.matrix, self.I.matrix, self.O.matrix
        self.A2 = self.A**2
        self.hadamard = (self.G @ self.G.T) * (self.B @ self.B.T)
        self.scale = channels * moments.w_variance * moments.x_variance

    def variances(self) -> _Variances:
        """Return the variance at each output by what it comes from."""
        moments, data = self.moments, self.policy.data
        w, x = (moments.w_variance, moments.w_kurtosis), (moments.x_variance, moments.x_kurtosis)
        kernel = self.before(_Side(self.K, self.policy.kernel, self.policy.operands, data, *w, self.B, moments.x_variance))
        input = self.before(_Side(self.I, self.policy.input, self.policy.operands, data, *x, self.G, moments.w_variance))
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
        return math.sqrt(mean) / math.sqrt(self.scale * self.alg.r**self.dims)

    def predict(self) -> Prediction:
        v = self.variances()
        shape = self.shape(v.kernel, v.input, v.parts, v.first, v.nodes, v.total)
        mean = float(v.total.mean())
        return Prediction(
            rms=math.sqrt(mean),
            mean_abs=math.sqrt(2 / math.pi) * float((np.sqrt(v.total) * shape).mean()),
            relative_l2=self.relative(mean),
            shares={name: float(part.mean()) / mean if mean else 0.0 for name, part in v.parts.items()},
            rms_of_outputs=tuple(np.sqrt(v.total).ravel().tolist()),
        )

    def to_outputs(self, products: Array) -> Array:
        """Take independent variances at the products to the outputs."""
        return np.asarray(self.A2 @ products if self.dims == 1 else self.A2 @ products @ self.A2.T)

    def before(self, s: _Side) -> _Noise:
        """Return the errors of a transform before the product.

        An error in U = G w meets V = BT x: its variance at output i is
        ``A_i (other other' * covariance of the errors) A_i'``. In two dimensions the errors of the first pass go
        through the second, those of the second belong to one row.
        """
        nodes, n, p = s.nodes, s.nodes.inputs, s.fmt.p
        bits = min(s.data.p, p)
        relative = (nodes.rows**2).sum(axis=1)
        factors = nodes.factors(relative, bits, p)
        kurtosis, matrix = _kurtosis(nodes.rows[n:]), nodes.matrix
        variance = s.variance * relative[n:]

        def squares(variance: Array, kurtosis: Array) -> tuple[Array, Array]:
            plain = unit(s.fmt) * variance * factors * modulation(mellin(kurtosis), variance)
            square = underflow(plain, variance, s.fmt, nodes.is_sum)
            known = square / np.maximum(variance, 1e-300)  # what underflows to zero errs by its own value
            return np.where(square > plain, plain + (square - plain) * np.minimum(known, 1.0), square), square

        gram, lengths, of_row = s.other @ s.other.T, (s.other**2).sum(axis=1), (matrix**2).sum(axis=1)
        entry = unit(s.fmt) * s.variance * matrix @ matrix.T if p < s.data.p else 0.0
        scale, kept = self.channels * s.other_variance, _kron(lengths, self.dims) * self.stored(s)

        def through(first: Array) -> tuple[Array, Array]:
            covariance = (nodes.gain * first) @ nodes.gain.T + entry
            return np.einsum("ij,jk,ik->i", self.A, gram * covariance, self.A, optimize=True), np.diag(covariance)

        plain, first = squares(variance, s.kurtosis * kurtosis)
        passed, errors = through(first)
        if self.dims == 1:
            flat = np.maximum(passed - through(plain)[0], 0.0)
            output = passed + self.A2 @ kept
            return _Noise(scale * output, scale * passed, scale * (output - passed), scale * flat, scale * (lengths * errors + kept), first)
        exact = np.einsum("ij,jk,ik->i", self.A, gram * (matrix @ matrix.T), self.A, optimize=True)
        plain, second = squares(of_row[:, None] * variance, s.kurtosis * _kurtosis(matrix)[:, None] * kurtosis)
        # what node v of the second pass does to output i along the second axis
        of_node = np.einsum("ij,jv,jk,kv,ik->vi", self.A, nodes.gain, gram, nodes.gain, self.A, optimize=True)
        before, after = np.multiply.outer(passed, exact), (self.A2 * lengths) @ second @ of_node
        flat = np.maximum(after - (self.A2 * lengths) @ plain @ of_node, 0.0)
        stored = self.to_outputs(kept)
        products = (np.multiply.outer(errors, of_row) + second @ (nodes.gain**2).T) * np.multiply.outer(lengths, lengths) + kept
        return _Noise(scale * (before + after + stored), scale * before, scale * stored, scale * flat, scale * products, first)

    def stored(self, s: _Side) -> Array:
        """Return the mean squares of rounding the transformed values to the format they are stored in."""
        variance = s.variance * _kron((s.nodes.matrix**2).sum(axis=1), self.dims)
        if s.operands.p >= s.fmt.p:
            return np.zeros_like(variance)
        n = s.nodes.inputs
        if s.data.p > s.operands.p:
            few = np.ones_like(variance)
        else:  # the bits of the last sum or product; a plain input fits, and a sum of sums has more bits
            bits = np.append(np.zeros(n), s.nodes.factors((s.nodes.rows**2).sum(axis=1), s.data.p, s.operands.p, s.fmt.p))
            last = bits[s.nodes.source]
            few = last if self.dims == 1 else np.where(np.multiply.outer(last, last) > 0, 1.0, np.add.outer(last, last))
        square = unit(s.operands) * variance * few
        return np.where(few > 0, underflow(square, variance, s.operands, np.zeros(square.shape, bool)), 0.0)

    def products(self) -> Array:
        """Return the mean squares of rounding the products, summed over the channels."""
        m, fmt, held = self.moments, self.policy.product, self.policy.operands
        if 2 * min(held.p, max(self.policy.kernel.p, self.policy.input.p)) <= fmt.p:
            return np.zeros((self.alg.products,) * self.dims)
        u, v = (_kron((M**2).sum(axis=1), self.dims) for M in (self.G, self.B))
        moments = mellin(m.w_kurtosis * _kron(_kurtosis(self.G), self.dims)) * mellin(m.x_kurtosis * _kron(_kurtosis(self.B), self.dims))
        variance = m.w_variance * m.x_variance * u * v
        square = underflow(unit(fmt) * variance * modulation(moments, variance), variance, fmt, "product")
        return np.asarray(self.channels * square)

    def sums(self) -> Array:
        """Return the mean squares of rounding the sums over channels."""
        fmt, product = self.policy.accumulate, self.policy.product
        variance = self.scale / self.channels * _kron(np.diag(self.hadamard), self.dims)
        bits = min(product.p, 2 * self.policy.operands.p, fmt.p) - fmt.p
        growth, _, _ = channel_growth(self.channel_sum, self.channels, bits)
        square = growth * unit(fmt) * variance
        if fmt.p < min(product.p, 2 * self.policy.operands.p):
            square = square + self.channels * unit(fmt) * variance
        if self.policy.output.p < fmt.p:
            square = square + self.channels * unit(self.policy.output) * variance
        return np.asarray(square)

    def after(self, errors: Array) -> tuple[Array, Array, Array]:
        """Return the variances at the outputs from the output transform, of its first and second pass, and of its nodes.

        What is rounded there is what is true plus the errors so far: where much cancels, these are no longer small.
        """
        nodes, fmt = self.O, self.policy.output
        n, gain2, rows2 = nodes.inputs, nodes.gain**2, nodes.rows**2
        bits = min(fmt.p, self.policy.accumulate.p, max(2 * self.policy.operands.p, 1))
        true = np.einsum("vj,jk,vk->v", nodes.rows, self.hadamard, nodes.rows, optimize=True)

        def squares(scale: Array, errors: Array) -> Array:
            variance = scale[:, None] * true + errors @ rows2.T
            plain = unit(fmt) * variance[:, n:] * nodes.factors(variance, bits, fmt.p)
            return underflow(plain, variance[:, n:], fmt, nodes.is_sum)

        if self.dims == 1:
            of_nodes = squares(np.array([self.scale]), errors[None])[0]
            return gain2 @ of_nodes, np.zeros(self.alg.m), of_nodes
        columns = squares(self.scale * np.diag(self.hadamard), errors.T)
        passed = gain2 @ columns.T
        exact = np.einsum("ij,jk,ik->i", self.A, self.hadamard, self.A, optimize=True)
        rows = squares(self.scale * exact, self.A2 @ errors + passed)
        return passed @ self.A2.T, rows @ gain2.T, np.asarray(columns.mean(axis=0))

    def perturbation(self) -> tuple[Array, Array]:
        """Return the bilinear map of each output, (m, r, n), and what the rounded constants add to it."""
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

    def constants(self) -> Array:
        """Return the variance at the outputs from inexact constants: ``|K' (x) K' - K (x) K|**2`` in two dimensions."""
        exact, change = self.perturbation()
        d = (change**2).sum(axis=(1, 2))
        if self.dims == 1:
            return np.asarray(self.scale * d)
        x = (change * exact).sum(axis=(1, 2))
        square = np.multiply.outer(d, d) + 2 * np.multiply.outer(x, x + d) + 2 * np.multiply.outer(d, x)
        return np.asarray(self.scale * (square + self.alg.r * np.add.outer(d, d)))

    def shape(self, kernel: _Noise, input: _Noise, variances: dict[str, Array], first: Array, nodes: Array, total: Array) -> Array:
        """Return E sqrt(Q) of each output, see `fastconv.error.predict.shape`.

        Letters name what a form comes from along one axis: K, I, O the roundings of a transform, M whole products,
        E the exact map, K0 and I0 underflow, C the change of it by inexact constants.
        """
        m, C, G, B, A2 = self.moments, self.channels, self.G, self.B, self.A2
        size = np.diag(self.hadamard)
        at_K = (B**2).sum(axis=1)[:, None] * self.K.gain**2 * kernel.nodes
        at_I = (G**2).sum(axis=1)[:, None] * self.I.gain**2 * input.nodes
        at_O = self.O.gain**2 * nodes
        maps = np.einsum("vj,jk,jl->vkl", self.O.rows[self.O.inputs :], G, B, optimize=True)
        maps = maps / np.sqrt(np.maximum((maps**2).sum(axis=(1, 2)), 1e-300))[:, None, None]
        exact, change = self.perturbation()
        w = {
            "K": mixed(A2 @ at_K, self.K.rows[self.K.inputs :]),
            "I": mixed(A2 * at_I.sum(axis=1), G),
            "M": mixed(A2 * size, G),
            "O": normed(np.einsum("iv,vkl,vhl->ikh", at_O, maps, maps, optimize=True)),
            "E": normed(np.einsum("ikl,ihl->ikh", exact, exact)),
            "C": normed(np.einsum("ikl,ihl->ikh", change, change)),
        }
        x = {
            "K": mixed(A2 * at_K.sum(axis=1), B),
            "I": mixed(A2 @ at_I, self.I.rows[self.I.inputs :]),
            "M": mixed(A2 * size, B),
            "O": normed(np.einsum("iv,vkl,vkh->ilh", at_O, maps, maps, optimize=True)),
            "E": normed(np.einsum("ikl,ikh->ilh", exact, exact)),
            "C": normed(np.einsum("ikl,ikh->ilh", change, change)),
        }
        w |= {"K0": np.zeros_like(w["K"]), "I0": w["I"]}  # what underflow cuts off depends on the inputs no more
        x |= {"K0": x["K"], "I0": np.zeros_like(x["I"])}
        safe = np.maximum(total, 1e-300)
        v = {name: part / safe for name, part in variances.items()}
        one, two = first / safe, v["output"] - first / safe
        k0, i0, k2, i2 = kernel.stored / safe, input.stored / safe, kernel.flat / safe, input.flat / safe
        whole = v["product"] + v["sum"] + k0 + i0
        shares: dict[Pair, Array]
        if self.dims == 1:
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
        rest_w, rest_x = (min(3, C * size**self.dims - 1) for size in (self.alg.r, self.alg.n))
        return mean_root(square_w / C, m.w_kurtosis * quartic_w / C, rest_w) * mean_root(square_x, m.x_kurtosis * quartic_x / C, rest_x)

    def late(self, shares: dict[Pair, Array], at_O: Array) -> Array:
        """Return what remains of tr P**2 for many channels: sums over them are normal, and correlated."""
        value, vectors = np.linalg.eigh(self.hadamard)
        root = vectors * np.sqrt(np.maximum(value, 0.0))
        forms = {
            "M": mixed(self.A2 * np.diag(self.hadamard), root),
            "O": mixed(at_O, self.O.rows[self.O.inputs :] @ root),
            "E": np.stack([mixed(np.ones(1), row[None]) for row in self.A @ root]),
        }
        _, itself, others = channel_growth(self.channel_sum, self.channels, 0)
        sums: dict[Pair, Array] = {pair: share for pair, share in shares.items() if set(pair) <= {"M", ""}}
        rest: dict[Pair, Array] = {pair: share for pair, share in shares.items() if pair not in sums}
        of_sums, of_rest, of_all = (overlaps(forms, part)[0] for part in (sums, rest, shares))
        return np.asarray(itself * of_sums + of_rest + others * (of_all - of_sums - of_rest))


def check_range(alg: BilinearAlgorithm, policy: Policy) -> None:
    """Refuse an algorithm with matrix entries beyond the range of a format."""
    for name, matrix, fmt in (("AT", alg.AT, policy.output), ("G", alg.G, policy.kernel), ("BT", alg.BT, policy.input)):
        held = policy.constants or fmt
        for i, row in enumerate(matrix):
            for j, e in enumerate(row):
                if not math.isfinite(rounded(e, held)):
                    entry, largest = f"{name}[{i}][{j}] = {to_text(e)}", float(held.largest)
                    raise ValueError(
                        f"{entry} is beyond the largest number of {held.name}, {largest:g}: scale the algorithm, or use a wider format"
                    )


def _float(matrix: tuple[tuple[Number, ...], ...]) -> Array:
    return np.array([[float(e) for e in row] for row in matrix])


@lru_cache(maxsize=512)
def _rounding(matrix: tuple[tuple[Number, ...], ...], fmt: Format) -> Array:
    """Return what rounding to a format adds to the entries of a matrix."""

    def change(e: Number) -> float:
        near = rounded(e, fmt)
        if isinstance(e, Fraction):
            return float(Fraction(near) - e)
        return float((near - e).evalf(20))

    return np.array([[change(e) for e in row] for row in matrix])

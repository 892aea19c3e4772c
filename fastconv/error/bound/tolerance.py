"""Derive the tolerance of a test that compares a fast layer with a float64 reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm, axes_of, name_of
from fastconv.arithmetic import Policy, Setting, array_reading, check_count, policy_named, setting_of
from fastconv.error.bound.certify import certified_errors
from fastconv.error.bound.tails import Tails, quantile, traces_of
from fastconv.error.measure.evaluate import Axes
from fastconv.error.measure.shapes import Array
from fastconv.error.predict.model import Prediction, predict_error
from fastconv.error.predict.moments import MOMENTS, Moments
from fastconv.exact import Format
from fastconv.program import Program, Reading, programs_of
from fastconv.tables import Shown, Table

_CRITERIA = 4
"""Events that share the risk of a false alarm: roundings, inputs outside the box, the mean square, the gain."""


@dataclass(frozen=True)
class Check:
    """Result of `Tolerance.check`.

    Attributes
    ----------
    passed : bool
        Whether all three criteria hold.
    violations : int
        Outputs with ``|y - reference| > atol + rtol |reference|``, the `atol_of_outputs` of their position in the tile, or
        that are not finite.
    largest : float
        The largest error, relative to its tolerance.
    rms_ratio : float
        Root mean square of the errors over the predicted one.
    rms_limit : float
        Largest `rms_ratio` that passes, for this number of tiles.
    gain : float
        The largest ``|<error, reference> / <reference, reference> - expected|`` of all positions in the tile. It shows
        a wrong coefficient that is still hidden in the noise of a single output.
    gain_limit : float
        Largest `gain` that passes.
    """

    passed: bool
    violations: int
    largest: float
    rms_ratio: float
    rms_limit: float
    gain: float
    gain_limit: float


@dataclass(frozen=True)
class Tolerance(Shown):
    """A tolerance as numpy and torch use it: ``|y - reference| <= atol + rtol |reference|``.

    Attributes
    ----------
    atol, rtol : float
        Absolute and relative tolerance of one output.
    atol_of_outputs : tuple of float
        The same for each position in the tile, row by row; `atol` is the largest. In the middle of a large tile errors
        are up to ten times smaller than in its corners.
    worst_case : float
        Certified bound on the error of each output, for inputs in the box that `reasoning` states, unless a value overflows.
    rms : float
        Predicted root mean square of the error over the outputs.
    factor : float
        `atol` over the predicted root mean square of the worst output, unless the certified bound is smaller.
    confidence : float
        Least probability that a test of a correct layer raises no alarm.
    outputs : int
        Largest number of outputs of that test.
    rms_limit : float
        Largest ratio of the errors' root mean square to `rms` in a test of `outputs`; a smaller test has a larger limit, which
        `check` states.
    overflow : bool
        Whether inputs in the box can leave the range of a format; an overflow shows as inf or NaN.
    reasoning : tuple of str
        The derivation in five lines.
    """

    atol: float
    rtol: float
    atol_of_outputs: tuple[float, ...] = field(repr=False)
    worst_case: float
    rms: float
    factor: float
    confidence: float
    outputs: int
    rms_limit: float
    overflow: bool
    reasoning: tuple[str, ...]
    name: str = ""
    tile: tuple[int, ...] = field(default=(1, 1), repr=False)
    gains: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    spread: tuple[float, float] = field(default=(0.0, 0.0), repr=False)
    tails: Tails = field(default=Tails(), repr=False)
    exact: float = field(default=1.0, repr=False)
    layer: str = field(default="", repr=False)

    def tables(self) -> tuple[Table, ...]:
        """Return the tolerance, with its derivation below."""
        rows = tuple((name, f"{getattr(self, name):.6g}") for name in ("atol", "rtol", "worst_case", "rms", "rms_limit"))
        return (Table(("", self.name or "value"), rows, notes=self.reasoning),)

    def check(self, y: Any, reference: Any) -> Check:
        """Compare a layer's result with its reference: each output, their mean square, and their gain.

        Parameters
        ----------
        y, reference : arrays of one shape
            Tiles ``(..., m[, m])`` or a whole layer ``(..., H[, W])`` whose tiles begin at its first output.

        Returns
        -------
        Check

        Raises
        ------
        ValueError
            If the shapes differ or there are no outputs.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import algorithm, evaluate, reference
        >>> rng = np.random.default_rng(0)
        >>> w, x = rng.normal(size=(200, 8, 3, 3)).astype("f4"), rng.normal(size=(200, 8, 6, 6)).astype("f4")
        >>> limits = tolerance(algorithm("F(4x4,3x3)"), channels=8)
        >>> limits.check(evaluate(algorithm("F(4x4,3x3)"), w, x, dims=2, channels=True), reference(w, x, 2, True)).passed
        True
        """
        y, reference = np.asarray(y, np.float64), np.asarray(reference, np.float64)
        dims = len(self.tile)
        if y.shape != reference.shape or y.ndim < dims or not y.size:
            raise ValueError(
                f"y has shape {y.shape}, the reference {reference.shape}: pass two arrays of one shape with the tile axes last"
            )
        with np.errstate(invalid="ignore", over="ignore"):
            error = y - reference
            sizes = y.shape[-dims:]
            positions = np.ix_(*(np.arange(size) % m for size, m in zip(sizes, self.tile, strict=True)))
            allowed = np.reshape(self.atol_of_outputs, self.tile)[positions] + self.rtol * np.abs(reference)
            violations = int((~(np.abs(error) <= allowed)).sum())
            largest = float(np.max(np.abs(error) / allowed))
            ratio = float(np.sqrt(np.mean(error**2)) / self.rms) if self.rms else (0.0 if not error.any() else math.inf)
            tiles = math.prod(-(-size // m) for size, m in zip(sizes, self.tile, strict=True)) * math.prod(y.shape[:-dims])
            every = np.ndindex(*self.tile)
            excess, limit = max((self._gain(k, error, reference, tiles) for k in every), key=lambda g: g[0] / g[1])
        most = self.tails.rms(tiles, float(np.sqrt(np.mean(reference**2))) / self.exact)
        passed = violations == 0 and ratio <= most and excess <= limit
        return Check(passed, violations, largest, ratio, most, excess, limit)

    def _gain(self, position: tuple[int, ...], error: Array, reference: Array, tiles: int) -> tuple[float, float]:
        """Return the unexpected gain at a position of the tile, and its limit by chance."""
        at: tuple[Any, ...] = (..., *(slice(i, None, m) for i, m in zip(position, self.tile, strict=True)))
        e, truth = error[at].ravel(), reference[at].ravel()
        power = float(truth @ truth)
        if not power:
            return 0.0, 1.0
        expected = math.prod(1 + gains[i] for gains, i in zip(self.gains, position, strict=True)) - 1
        noise, fixed = self.spread
        # Roundings average out over the outputs. Many outputs share those of constants, of one filter's G w and of one
        # tile's BT x: they average out only over the channels.
        noise *= math.sqrt(self.tails.scaled_variance(tiles))
        limit = self.tails.sigmas(math.prod(self.tile)) * (noise / math.sqrt(power) + fixed) + 2.0**-50
        return abs(float(e @ truth) / power - expected), limit

    def to_c_header(self) -> str:
        """Write the tolerance as a C header, the reasoning as its comment.

        Examples
        --------
        >>> from fastconv import algorithm
        >>> header = tolerance(algorithm("F(2x2,3x3)"), 4).to_c_header()
        >>> [line.split()[1].split("_", 7)[-1] for line in header.splitlines() if line.startswith("#define")]
        ['TOLERANCE_H', 'ATOL', 'RTOL', 'RMS', 'WORST_CASE']
        """
        prefix = self._prefix()
        lines = [f"/* {self.name}: |y - reference| <= ATOL + RTOL * |reference|", *(f" * {line}" for line in self.reasoning), " */"]
        guard = f"{prefix}_TOLERANCE_H"
        lines += [f"#ifndef {guard}", f"#define {guard}", ""]
        lines += [f"#define {prefix}_{name} {value:.17g}" for name, value in self._constants() if math.isfinite(value)]
        return "\n".join([*lines, "", f"#endif /* {guard} */", ""])

    def to_python(self) -> str:
        """Write the tolerance as Python constants, the reasoning as comments.

        Examples
        --------
        >>> from fastconv import algorithm
        >>> scope = {}
        >>> limits = tolerance(algorithm("F(2x2,3x3)"), 4)
        >>> exec(limits.to_python(), scope)
        >>> scope["ATOL"] == limits.atol
        True
        """
        lines = [f"# {self.name}: |y - reference| <= ATOL + RTOL * |reference|", *(f"# {line}" for line in self.reasoning)]
        return "\n".join([*lines, *(f"{name} = {value!r}" for name, value in self._constants() if math.isfinite(value)), ""])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        names = ("name", "atol", "rtol", "worst_case", "rms", "rms_limit", "factor", "confidence", "outputs", "overflow")
        return {name: getattr(self, name) for name in names} | {
            "atol_of_outputs": list(self.atol_of_outputs),
            "reasoning": list(self.reasoning),
        }

    def _prefix(self) -> str:
        return "WINOGRAD_" + "_".join("".join(c if c.isalnum() else " " for c in self.layer.upper()).split())

    def _constants(self) -> list[tuple[str, float]]:
        return [("ATOL", self.atol), ("RTOL", self.rtol), ("RMS", self.rms), ("WORST_CASE", self.worst_case)]


def tolerance(
    alg: Axes,
    channels: int = 1,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    confidence: float = 1 - 1e-9,
    order: str = "huffman",
    channel_sum: str = "linear",
    scale_w: float = 1.0,
    scale_x: float = 1.0,
    inputs: str = "normal",
    outputs: int = 10**6,
) -> Tolerance:
    """Derive the tolerance for a test that compares a layer with a float64 reference of the same inputs.

    Parameters
    ----------
    alg : BilinearAlgorithm, str or pair of BilinearAlgorithm
        F(m, r) along all axes; a name; or one along the height and one along the width.
    channels : int
        Channels summed over.
    dims : {1, 2}, optional
        Dimension: that of the name, two for an algorithm.
    policy : str or Policy
        Formats of the stages; the inputs are numbers of its data format.
    confidence : float
        Least probability that a test of a correct layer raises no alarm, between 0 and 1.
    order, channel_sum : str
        As for `evaluate`.
    scale_w, scale_x : float
        Root mean squares of weights and inputs.
    inputs : str
        ``"normal"`` or ``"uniform"``: their distribution, with mean zero. Heavier tails are not covered.
    outputs : int
        Number of outputs that the test checks, for a union bound.

    Returns
    -------
    Tolerance

    Raises
    ------
    TypeError, ValueError
        For wrong types, unknown names, or numbers out of range.

    Notes
    -----
    `predict_error` gives the root mean square of each output's error. For given data that error is a sum of
    roundings, each uniform on half a unit in the last place. Its moments are thus at most those of a normal variable
    of the same variance. The variance is a sum of squares of forms linear in the weights and in the inputs, with known
    moments. Markov's inequality for the best even moment gives a factor that holds for the tails of these products,
    which are far heavier than normal. docs/error-bounds.md derives it.

    Examples
    --------
    >>> from fastconv import algorithm
    >>> limits = tolerance(algorithm("F(4x4,3x3)"), channels=64, policy="fp16")
    >>> 0 < limits.atol <= limits.worst_case
    True
    """
    axes = axes_of(alg, 2 if dims is None and isinstance(alg, BilinearAlgorithm) else dims)
    setting = setting_of(policy, order, channels, channel_sum)
    data = _Data(confidence, outputs, scale_w, scale_x, inputs)
    data.check()
    prediction = predict_error(axes, None, setting.policy, order, channels, channel_sum, data.moments)
    if not math.isfinite(prediction.rms):
        raise ValueError(
            f"the predicted error is {prediction.rms}: {setting.policy} does not hold the transformed values of {name_of(axes)}"
        )
    return _derived(axes, setting, data, prediction)


def _derived(axes: tuple[BilinearAlgorithm, ...], setting: Setting, data: _Data, prediction: Prediction) -> Tolerance:
    """Return the tolerance from the predicted error and the certified one."""
    p, channels, shares = setting.policy, setting.channels, prediction.shares
    risk = (1 - data.confidence) / _CRITERIA
    taps, products = (math.prod(getattr(one, size) for one in axes) for size in ("r", "products"))
    traces = traces_of(axes)
    factor = quantile(risk / data.outputs, channels, shares, traces)
    tails = Tails(risk, channels, shares, traces, products)
    reach = data.reach(channels * (taps + math.prod(one.n for one in axes)), risk)
    box = Fraction(reach * data.scale_w), Fraction(reach * data.scale_x)
    certified = certified_errors(axes, setting, box)
    overflow = bool(np.isinf(certified).any())
    if overflow:
        certified = certified_errors(axes, setting, box, finite=True)
    atols = np.minimum(factor * np.array(prediction.rms_of_outputs), certified.ravel())
    atol, worst_case = float(atols.max()), float(certified.max())
    rms, exact = max(prediction.rms_of_outputs), data.scale_w * data.scale_x * math.sqrt(channels * taps)
    before = shares["constants"] + shares["kernel"] + shares["input"]
    name, tile = name_of(axes), tuple(one.m for one in axes)
    told = repr((*(one.to_json() for one in axes), setting, data))
    found = Tolerance(
        atol=atol,
        rtol=float(p.output.u) if atol < worst_case else 0.0,
        atol_of_outputs=tuple(atols.tolist()),
        worst_case=worst_case,
        rms=prediction.rms,
        factor=factor,
        confidence=float(data.confidence),
        outputs=int(data.outputs),
        rms_limit=tails.rms(max(1, data.outputs // math.prod(tile))),
        overflow=overflow,
        reasoning=(),
        name=name,
        tile=tile,
        gains=tuple(_gains(one, p, setting.order) for one in axes),
        tails=tails,
        exact=exact,
        # Unique to a tolerance: size, policy and channels for people, a hash for everything else.
        layer=f"{name} {p} {channels} {hashlib.sha256(told.encode()).hexdigest()[:8]}",
        spread=(rms, rms * math.sqrt(before / channels) / exact),
    )
    return replace(found, reasoning=_reasoning(found, setting, data, shares, box))


class _Data(NamedTuple):
    """Data of a test."""

    confidence: float
    outputs: int
    scale_w: float
    scale_x: float
    inputs: str

    def check(self) -> None:
        """Reject values out of range."""
        check_count("outputs", self.outputs)
        for name in ("confidence", "scale_w", "scale_x"):
            value = getattr(self, name)
            if not isinstance(value, (int, float, np.floating)) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}: pass a number")
            if not 0 < value < (1 if name == "confidence" else math.inf):
                raise ValueError(f"{name} is {value!r}: pass {'a probability below 1' if name == 'confidence' else 'a positive number'}")
        if self.inputs not in MOMENTS:
            raise ValueError(f"inputs is {self.inputs!r}: pass one of {', '.join(map(repr, MOMENTS))}")

    @property
    def moments(self) -> Moments:
        """Moments of weights and inputs."""
        shape = MOMENTS[self.inputs]
        return Moments(self.scale_w**2, self.scale_x**2, shape.w_kurtosis, shape.x_kurtosis)

    def reach(self, numbers: int, risk: float) -> float:
        """Return the largest magnitude of `numbers` values per output, over their root mean square."""
        return math.sqrt(3) if self.inputs == "uniform" else math.sqrt(2 * math.log(2 * numbers * self.outputs / risk))


def _reasoning(
    found: Tolerance, setting: Setting, data: _Data, shares: Mapping[str, float], box: tuple[Fraction, Fraction]
) -> tuple[str, ...]:
    largest = max(shares, key=lambda k: shares[k])
    smaller = "the smaller of the two applies" if found.atol < found.worst_case else "which is smaller and applies"
    rms, risk = found.spread[0], 1 - data.confidence
    return (
        f"predicted rms error of the worst output {rms:.3g}, from the programs of {found.name} in {setting.policy}, {setting.channels} "
        f"channels ({setting.channel_sum}); the exact output has rms {found.exact:.3g}",
        f"largest source: {largest} ({shares[largest]:.0%} of the variance); "
        f"inputs {data.inputs}, rms {data.scale_w:g} (weights) and {data.scale_x:g}",
        f"factor {found.factor:.3g}: Markov's inequality on the best even moment, for {data.outputs} outputs and confidence 1 - {risk:.2g}",
        f"atol = factor * rms = {found.factor * rms:.3g}; "
        f"certified in |w| <= {float(box[0]):.3g}, |x| <= {float(box[1]):.3g}: {found.worst_case:.3g}, {smaller}",
        f"rtol = {found.rtol:.3g}, the rounding of the result; "
        + ("inputs in that box can overflow, which shows as inf or NaN" if found.overflow else "no input in that box overflows"),
    )


def _gains(alg: BilinearAlgorithm, p: Policy, order: str) -> tuple[float, ...]:
    """Return the change of ``E y y_ref / E y_ref**2`` by rounded constants, for each output of an axis."""
    programs = programs_of(alg, order)
    A, G, B = (
        _held(program, fmt, p.constants)
        for program, fmt in ((programs.output, p.output), (programs.kernel, p.kernel), (programs.input, p.input))
    )
    maps = np.einsum("ij,jk,jl->ikl", A, G, B)
    i, k = np.indices((alg.m, alg.r))
    return tuple((maps[i, k, alg.stride * i + k].mean(axis=1) - 1).tolist())


def _held(program: Program, fmt: Format, constants: Format | None) -> Array:
    """Return a program's matrix with its constants as the format holds them."""
    rounded = array_reading(fmt, constants).constant
    plain = array_reading(policy_named("fp64").kernel)
    held: Reading[Array, Any] = replace(plain, constant=lambda c: np.float64(rounded(c)))
    rows: list[Array] = program.read(list(np.eye(program.inputs)), held)
    return np.stack(rows)

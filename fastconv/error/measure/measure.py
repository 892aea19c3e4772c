"""Measure the error of an algorithm by trials, as the papers do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm, axes_of
from fastconv.arithmetic import Policy, Setting, check_count, setting_of
from fastconv.error.measure.evaluate import Axes, direct, stages
from fastconv.error.measure.inputs import Generator, draw, generator_named
from fastconv.error.measure.reference import direct_in_double_double, direct_in_float64
from fastconv.error.measure.shapes import Array
from fastconv.exact import Format
from fastconv.tables import Shown, Table

_VALUES_A_CHUNK = 2**18
"""Numbers held at a time: small enough for the cache. The draws of a seed depend on it."""

_TITLES = {
    "mean |error|": "mean_abs",
    "its standard error": "mean_abs_stderr",
    "largest |error|": "max_abs",
    "root mean square": "rms",
    "relative L2": "relative_l2",
    "largest in ulp": "max_ulp",
}
"""Lines of the table, and their attributes."""


@dataclass(frozen=True)
class ErrorReport(Shown):
    """Errors against the exact result, over all trials and outputs.

    Attributes
    ----------
    mean_abs, max_abs, rms : float
        Mean, largest and root mean square of ``|y - y_ref|``; the mean is the measure of Barabasz et al. 2020.
    relative_l2 : float
        ``||y - y_ref||_2 / ||y_ref||_2``.
    max_ulp : float
        Largest error in units in the last place of the exact result, in the format of the data.
    mean_abs_stderr : float
        Standard error of `mean_abs`, from the spread over trials.
    overflows : dict
        Number of values out of range, by stage. Each tile counts at the first stage where a value overflows.
    direct : ErrorReport or None
        The same for direct convolution in the same policy on the same inputs.
    """

    mean_abs: float
    max_abs: float
    rms: float
    relative_l2: float
    max_ulp: float
    mean_abs_stderr: float
    trials: int
    overflows: dict[str, int] = field(default_factory=dict)
    direct: ErrorReport | None = None

    def tables(self) -> tuple[Table, ...]:
        """Return the table, with a column for direct convolution if it was measured."""
        columns = [self] if self.direct is None else [self, self.direct]
        rows = [(text, *(f"{getattr(e, name):.4g}" for e in columns)) for text, name in _TITLES.items()]
        rows.append(("overflows", *(str(sum(e.overflows.values())) for e in columns)))
        return (Table(("", "algorithm", "direct")[: 1 + len(columns)], tuple(rows)),)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        data = {k: v for k, v in vars(self).items() if k != "direct"}
        return data | ({"direct": self.direct.to_dict()} if self.direct else {})


class _Tally:
    """Running sums of one contender's errors."""

    def __init__(self, data: Format) -> None:
        self.data = data
        self.means: list[Array] = []
        self.squares = self.reference = 0.0
        self.largest = self.ulps = 0.0
        self.count = 0
        self.overflows: dict[str, int] = {}

    def add(self, error: Array, truth: Array) -> None:
        flat = np.abs(error.reshape(len(error), -1).astype(np.float64))
        exponent = np.frexp(np.abs(truth.reshape(flat.shape)))[1] - 1
        ulp = np.ldexp(1.0, np.maximum(exponent, self.data.emin) - self.data.p + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            self.means.append(flat.mean(axis=1))
            self.squares += float((flat**2).sum())
            self.reference += float((truth**2).sum())
            self.largest = float(np.fmax(self.largest, flat.max())) if not np.isnan(flat).any() else float("nan")
            self.ulps = float(np.maximum(self.ulps, (flat / ulp).max()))
        self.count += flat.size

    def report(self, direct: ErrorReport | None = None) -> ErrorReport:
        means = np.concatenate(self.means)
        with np.errstate(invalid="ignore"):
            stderr = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")
            relative = float(np.sqrt(self.squares / self.reference)) if self.reference else float("nan")
            rms = float(np.sqrt(self.squares / self.count))
        return ErrorReport(float(means.mean()), self.largest, rms, relative, self.ulps, stderr, len(means), self.overflows, direct)


def measure_error(
    alg: Axes,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
    inputs: str | Generator = "uniform-libstdcxx",
    trials: int = 5000,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> ErrorReport:
    """Measure the error of an algorithm on random tiles.

    Parameters
    ----------
    alg : BilinearAlgorithm, str or pair of BilinearAlgorithm
        F(m, r) along all axes; a name; or one along the height and one along the width.
    dims : {1, 2}, optional
        Dimension: that of the name or the pair, one for one algorithm.
    policy : str or Policy
        Formats of the stages.
    order : str
        Order of summation in the transforms: ``"huffman"``, ``"sequential"`` or ``"pairwise"``, and ``+shared``, ``+folded``, ``+fma``.
    channels : int
        Channels summed over.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    inputs : str or callable
        ``"uniform-libstdcxx"`` (the protocol of Barabasz et al. 2020), ``"uniform"``, ``"uniform-grid"``, ``"normal"``, or a callable
        ``(rng, shape) -> array``. It draws the kernels and the tiles.
    trials : int
        Number of tiles, each with its own kernel.
    seed : int
        Seed of numpy's PCG64 generator.
    progress : callable, optional
        Called with the share of trials done.

    Returns
    -------
    ErrorReport
        With `direct`, the same for direct convolution.

    Raises
    ------
    TypeError, ValueError
        For wrong types, unknown names, or counts that are not positive.

    Notes
    -----
    The reference is direct convolution of the same rounded inputs in float64. Its error is below 2**-24 of that of
    fp32. If products or sums are in fp64, the reference has twice that precision.

    References
    ----------
    Barabasz et al., ACM TOMS 46(4), 2020, section 6.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> report = measure_error(toom_cook(2, 3, [0, 1, -1, "inf"]), trials=1000)
    >>> 2.2e-8 < report.mean_abs < 2.7e-8
    True
    """
    axes, setting = axes_of(alg, dims), setting_of(policy, order, channels, channel_sum)
    check_count("trials", trials)
    generator_named(inputs)
    fast, plain = _Tally(setting.policy.data), _Tally(setting.policy.data)
    done = 0
    for w, x in _chunks(axes, setting, inputs, trials, seed):
        _compare(axes, setting, w, x, fast, plain)
        done += len(w)
        if progress:
            progress(done / trials)
    return fast.report(plain.report())


def _compare(axes: Sequence[BilinearAlgorithm], setting: Setting, w: Array, x: Array, fast: _Tally, plain: _Tally) -> None:
    """Add the errors of tiles to the tallies of the algorithm and of direct convolution."""
    strides = tuple(alg.stride for alg in axes)
    results = stages(axes, w, x, setting, True)
    y = direct(w, x, strides, setting, True)
    double_double = "fp64" in (setting.policy.product.name, setting.policy.accumulate.name)
    high, low = direct_in_double_double(w, x, strides, True) if double_double else (direct_in_float64(w, x, strides, True), 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        fast.add((results["output"] - high) - low, high)
        plain.add((y - high) - low, high)
    _count(fast.overflows, results)
    _count(plain.overflows, {"output": y})


def _chunks(
    axes: Sequence[BilinearAlgorithm], setting: Setting, inputs: str | Generator, trials: int, seed: int
) -> Iterator[tuple[Array, Array]]:
    rng, channels, data = np.random.default_rng(seed), setting.channels, setting.policy.data
    size = max(1, min(trials, _VALUES_A_CHUNK // (channels * math.prod(alg.n for alg in axes))))
    for start in range(0, trials, size):
        count = min(size, trials - start)
        yield (
            draw(inputs, rng, (count, channels, *(alg.r for alg in axes)), data),
            draw(inputs, rng, (count, channels, *(alg.n for alg in axes)), data),
        )


def _count(overflows: dict[str, int], results: dict[str, Array]) -> None:
    """Count values that are not finite, for each tile at the first stage that has any."""
    clean: Any = True
    for stage, values in results.items():
        wrong = values.size // len(values) - np.isfinite(values.reshape(len(values), -1)).sum(axis=1)
        count = int(np.where(clean, wrong, 0).sum())
        if count:
            overflows[stage] = overflows.get(stage, 0) + count
        clean = clean & (wrong == 0)

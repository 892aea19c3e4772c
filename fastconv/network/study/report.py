"""The results of a comparison: rows, a table, plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastconv.tables import Shown, Table, listed

LOW, HIGH = "_low", "_high"
"""Suffixes of the names of a metric's confidence interval."""

_METRICS: Mapping[str, tuple[str, str]] = {
    "top1": ("top1", "share of the images classified correctly"),
    "agreement": ("agree", "share classified as by direct convolution"),
    "agreement_direct": ("agree", "share classified as by direct convolution"),
    "agreement_fp64": ("agree64", "share classified as in float64"),
    "logit_error": ("logits", "root mean square error of the logits"),
    "psnr_fp64": ("PSNR", "against float64, in dB"),
}
"""Titles and meanings of metrics in a table; other metrics use their names."""


@dataclass(frozen=True)
class Row:
    """Cost and error of one algorithm.

    `multiplications_per_output` is nominal: n^2 / m^2 for a fast algorithm, the kernel's size for direct convolution, None
    for a heuristic choice. `ran` counts the convolutions that the algorithm ran; the others ran direct. Errors are against
    float64, accumulated through the network; `layer_relative_l2` is in the order of `Comparison.layers`. `seconds` is for all
    images. The time of an emulation is not comparable, so its `speed_vs_direct` is NaN; `seconds` is NaN if it was not timed.
    `overflows` counts, per layer and stage, values beyond the range of their format. `scales` are the exponents of two of the
    factors of a layer's input and kernels.
    """

    algorithm: str
    points: str
    multiplications_per_output: float | None
    relative_l2: float
    max_abs: float
    metric: Mapping[str, float]
    seconds: float
    speed_vs_direct: float
    layer_relative_l2: tuple[float, ...]
    policy: str = "fp32"
    channel_sum: str | None = None
    overflows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    scales: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ran: int = 0


_Cell = Callable[[Row], str]


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """The result of `compare`: one row per algorithm, direct convolution first."""

    network: str
    images: int
    reference: str
    layers: tuple[str, ...]
    rows: tuple[Row, ...]
    own_precision: tuple[str, ...] = ()
    """Nodes that the reference computed in the precision of the model, as "name (operator)": their errors are not in the rows."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for `json.dumps`; non-finite numbers become None."""
        rows = [
            {
                "algorithm": row.algorithm,
                "points": row.points,
                "multiplications_per_output": row.multiplications_per_output,
                "relative_l2": _finite(row.relative_l2),
                "max_abs": _finite(row.max_abs),
                "metric": {name: _finite(value) for name, value in row.metric.items()},
                "seconds": _finite(row.seconds),
                "speed_vs_direct": _finite(row.speed_vs_direct),
                "layer_relative_l2": [_finite(value) for value in row.layer_relative_l2],
                "policy": row.policy,
                "channel_sum": row.channel_sum,
                "overflows": {layer: dict(stages) for layer, stages in row.overflows.items()},
                "scales": {layer: list(pair) for layer, pair in row.scales.items()},
                "ran": row.ran,
            }
            for row in self.rows
        ]
        return {
            "network": self.network,
            "images": self.images,
            "reference": self.reference,
            "layers": list(self.layers),
            "rows": rows,
            "own_precision": list(self.own_precision),
        }

    def tables(self) -> tuple[Table, ...]:
        """Return the table: one row per algorithm, direct convolution first.

        Examples
        --------
        >>> row = Row("direct", "", 9.0, 2e-7, 1e-6, {"top1": 0.93}, 1.5, 1.0, ())
        >>> print(Comparison("tiny", 10, "fp64", (), (row,)).table(80))  # doctest: +NORMALIZE_WHITESPACE
        algorithm  points  mult   rel. L2  max err  top1      s  speed
        direct     -          9  2.00e-07  1.0e-06  0.93  1.500  1.00x
        <BLANKLINE>
        mult: multiplications per output and channel; rel. L2, max err: error of the
        output against the same network in fp64; top1: share of the images classified
        correctly; s: median seconds for all images; speed: relative to direct
        """
        text, numbers = self._columns()
        columns = text | numbers
        cells = tuple(tuple(cell(row) for cell in columns.values()) for row in self.rows)
        return (Table(tuple(columns), cells, len(text), len(text), ("points",), notes=(self._legend(),)),)

    def _columns(self) -> tuple[dict[str, _Cell], dict[str, _Cell]]:
        """Return the text and number columns, each a title and a function from row to cell."""
        text: dict[str, _Cell] = {"algorithm": lambda row: row.algorithm, "points": lambda row: row.points or "-"}
        numbers: dict[str, _Cell] = {}
        if not self._runs_everywhere():
            numbers["layers"] = lambda row: f"{row.ran}/{len(self.layers)}"
        if any(row.channel_sum or row.policy != "fp32" for row in self.rows):
            text["policy"] = lambda row: row.policy
            numbers["overflows"] = lambda row: str(sum(sum(stages.values()) for stages in row.overflows.values()))
        if any(row.channel_sum for row in self.rows):
            text["sum"] = lambda row: row.channel_sum or "-"
        numbers["mult"] = lambda row: "-" if row.multiplications_per_output is None else f"{row.multiplications_per_output:.3g}"
        numbers |= {"rel. L2": lambda row: f"{row.relative_l2:.2e}", "max err": lambda row: f"{row.max_abs:.1e}"}
        for name in self._metrics():
            numbers[_METRICS.get(name, (name, ""))[0]] = _metric_cell(name)
        numbers["s"] = lambda row: "-" if math.isnan(row.seconds) else f"{row.seconds:.3f}" if row.seconds < 10 else f"{row.seconds:.3g}"
        numbers["speed"] = lambda row: "-" if math.isnan(row.speed_vs_direct) else f"{row.speed_vs_direct:.2f}x"
        return text, numbers

    def _legend(self) -> str:
        """Return the meanings of the columns."""
        parts = [] if self._runs_everywhere() else ["layers: those that ran the algorithm; the others ran direct"]
        parts += ["mult: multiplications per output and channel"]
        parts.append(f"rel. L2, max err: error of the output against the same network in {self.reference}")
        for name in self._metrics():
            title, what = _METRICS.get(name, (name, ""))
            ends = [(row.metric[name + LOW], row.metric[name + HIGH]) for row in self.rows if name + LOW in row.metric]
            interval = f" (95 % interval: ±{max(high - low for low, high in ends) / 2:.2g} at most)" if ends else ""
            if what or interval:
                parts.append(f"{title}: {what}{interval}")
        parts += ["s: median seconds for all images", "speed: relative to direct"]
        if self.own_precision:
            parts.append(f"not in {self.reference} but in the precision of the model: {listed(self.own_precision)}")
        return "; ".join(parts)

    def _runs_everywhere(self) -> bool:
        """Return whether every row ran its algorithm in every layer."""
        return all(row.ran == len(self.layers) for row in self.rows)

    def _metrics(self) -> list[str]:
        """Return the names of the metrics, without the ends of intervals, which the legend states."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.metric))
        return [name for name in names if not (name.endswith((LOW, HIGH)) and name.rsplit("_", 1)[0] in names)]

    def __repr__(self) -> str:
        policies = ", ".join(dict.fromkeys(row.policy for row in self.rows))
        return f"<Comparison on {self.network}: {len(self.rows)} rows, {self.images} images, {policies}>"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _metric_cell(name: str) -> _Cell:
    return lambda row: _number(row.metric[name]) if name in row.metric else "-"


def _number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"

"""What a comparison found, as rows, as a table, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOW, HIGH = "_low", "_high"
"""What the names of a metric's confidence interval end with."""


@dataclass(frozen=True)
class Row:
    """What one algorithm costs and loses.

    `multiplications_per_output` is nominal: n^2 / m^2 for a fast algorithm, the kernel's size for direct convolution, None
    where the choice is left to a heuristic. `ran` counts the convolutions that the algorithm ran; the others ran direct.
    Errors are against float64, accumulated through the network. `layer_relative_l2` belongs to `Comparison.layers`. `seconds` is
    for all images; an emulation's says nothing of the policy's speed, so that its `speed_vs_direct` is NaN, and `seconds` too
    where it was not timed. `overflows` counts, layer by layer, values that left the range of their format, by the stage at which
    they did; `scales` are the exponents of two by which input and kernels of a layer were scaled.
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


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: one row an algorithm, direct convolution first."""

    network: str
    images: int
    reference: str
    layers: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers, ready for `json.dumps`; a number that is not finite becomes None."""
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
        }

    def header(self) -> list[str]:
        """Return the column titles of `cells`."""
        policies = ["policy", "sum", "overflows"] if self._has_policies() else []
        return ["algorithm", "points", "layers", *policies, "mult/output", "relative L2", "max error", *self._metrics(), "seconds", "speed"]

    def cells(self) -> list[list[str]]:
        """Return each row as text, in the order of `header`."""
        return [
            [
                row.algorithm,
                row.points or "-",
                f"{row.ran}/{len(self.layers)}",
                *self._policy_cells(row),
                "-" if row.multiplications_per_output is None else f"{row.multiplications_per_output:.3g}",
                f"{row.relative_l2:.2e}",
                f"{row.max_abs:.2e}",
                *(_with_interval(row.metric, name) for name in self._metrics()),
                "-" if math.isnan(row.seconds) else f"{row.seconds:.3f}",
                "-" if math.isnan(row.speed_vs_direct) else f"{row.speed_vs_direct:.2f}x",
            ]
            for row in self.rows
        ]

    def _has_policies(self) -> bool:
        return any(row.policy != "fp32" or row.channel_sum for row in self.rows)

    def _policy_cells(self, row: Row) -> list[str]:
        overflows = sum(sum(stages.values()) for stages in row.overflows.values())
        return [row.policy, row.channel_sum or "-", str(overflows)] if self._has_policies() else []

    def _metrics(self) -> list[str]:
        """Names of the metrics; the ends of an interval are shown with what they belong to."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.metric))
        return [name for name in names if not (name.endswith((LOW, HIGH)) and name.rsplit("_", 1)[0] in names)]

    def table(self) -> str:
        """Return the comparison as a table in plain text.

        Examples
        --------
        >>> row = Row("direct", "", 9.0, 2e-7, 1e-6, {"top1": 0.93}, 1.5, 1.0, (2e-7,), ran=1)
        >>> print(Comparison("tiny", 10, "fp64", ("c",), (row,)).table())
        algorithm  points  layers  mult/output  relative L2  max error  top1  seconds  speed
        direct     -          1/1            9     2.00e-07   1.00e-06  0.93    1.500  1.00x
        """
        lines = [self.header(), *self.cells()]
        width = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, width, strict=True))).rstrip()
            for line in lines
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _with_interval(metric: Mapping[str, float], name: str) -> str:
    if name not in metric:
        return "-"
    text = f"{metric[name]:.4g}"
    if name + LOW in metric and name + HIGH in metric:
        text += f" ±{(metric[name + HIGH] - metric[name + LOW]) / 2:.1g}"
    return text

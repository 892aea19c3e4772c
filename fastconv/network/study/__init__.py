"""Compare algorithms and policies on a network."""

from fastconv.network.study.compare import Metric, agreement
from fastconv.network.study.contenders import Contender, contenders, counted, crossed
from fastconv.network.study.race import final_error, ratio, square
from fastconv.network.study.report import Comparison, Row

__all__ = [
    "Comparison",
    "Contender",
    "Metric",
    "Row",
    "agreement",
    "contenders",
    "counted",
    "crossed",
    "final_error",
    "ratio",
    "square",
]

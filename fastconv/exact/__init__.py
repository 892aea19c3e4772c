"""Exact numbers, number formats, and the one rounding between them."""

from fastconv.exact.formats import FORMATS, Format, dtype_of, format_named, format_of_dtype, round_rational, rounded
from fastconv.exact.gaussian import Gaussian, gaussian, half_angle_root
from fastconv.exact.numbers import INF, PLAIN, Field, Infinity, Number, exact_number, exact_point, simplified, to_sympy, to_text

__all__ = [
    "FORMATS",
    "INF",
    "Field",
    "Format",
    "Gaussian",
    "Infinity",
    "Number",
    "PLAIN",
    "dtype_of",
    "exact_number",
    "exact_point",
    "format_named",
    "format_of_dtype",
    "gaussian",
    "half_angle_root",
    "round_rational",
    "rounded",
    "simplified",
    "to_sympy",
    "to_text",
]

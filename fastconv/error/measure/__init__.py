"""Measure the error of an algorithm against an exact or a float64 reference."""

from fastconv.error.measure.shapes import check_dims

__all__ = ["check_dims"]

"""Exact bilinear algorithms, their construction, and the catalogue of point sets."""

from fastconv.algebra.bilinear import BilinearAlgorithm, Matrices, VerificationError
from fastconv.algebra.catalogue import (
    algorithm,
    best_algorithm,
    best_points,
    best_row,
    best_source,
    parse_name,
    published_points,
    published_sources,
    split_name,
)
from fastconv.algebra.complex_points import circle_points, complex_points, complex_sizes
from fastconv.algebra.construct import toom_cook
from fastconv.algebra.strided import phase_taps, strided

__all__ = [
    "BilinearAlgorithm",
    "Matrices",
    "VerificationError",
    "algorithm",
    "best_algorithm",
    "best_points",
    "best_row",
    "best_source",
    "circle_points",
    "complex_points",
    "complex_sizes",
    "parse_name",
    "phase_taps",
    "published_points",
    "published_sources",
    "split_name",
    "strided",
    "toom_cook",
]

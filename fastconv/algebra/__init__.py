"""Exact bilinear algorithms, their construction, and the catalogue of point sets."""

from fastconv.algebra.bilinear import BilinearAlgorithm, Matrices, VerificationError
from fastconv.algebra.catalogue import best_points, best_row, best_source, check_dims, published_points, published_sources
from fastconv.algebra.complex_points import circle_points, complex_points, complex_sizes
from fastconv.algebra.construct import toom_cook
from fastconv.algebra.families import FAMILIES, Family, Size, best_algorithm, identity
from fastconv.algebra.named import algorithm, algorithms, axes_of
from fastconv.algebra.names import Name, name_of, parse_name
from fastconv.algebra.strided import phase_taps, strided

__all__ = [
    "BilinearAlgorithm",
    "FAMILIES",
    "Family",
    "Matrices",
    "Name",
    "Size",
    "VerificationError",
    "algorithm",
    "algorithms",
    "axes_of",
    "best_algorithm",
    "best_points",
    "best_row",
    "best_source",
    "check_dims",
    "circle_points",
    "complex_points",
    "complex_sizes",
    "identity",
    "name_of",
    "parse_name",
    "phase_taps",
    "published_points",
    "published_sources",
    "strided",
    "toom_cook",
]

"""Exact bilinear algorithms, their construction, and the catalogue of point sets."""

from fastconv.algebra.bilinear import BilinearAlgorithm, Matrices, VerificationError
from fastconv.algebra.catalogue import algorithm, best_points, best_row, parse_name, published_points, published_sources
from fastconv.algebra.construct import toom_cook

__all__ = [
    "BilinearAlgorithm",
    "Matrices",
    "VerificationError",
    "algorithm",
    "best_points",
    "best_row",
    "parse_name",
    "published_points",
    "published_sources",
    "toom_cook",
]

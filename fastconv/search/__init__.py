"""Search for interpolation points with a small error."""

from fastconv.search.limit.certified import CertifiedLimit, certified_limit, first_order_error
from fastconv.search.points.result import PointSet, SearchResult
from fastconv.search.points.run import search_points
from fastconv.search.points.store import Store

__all__ = ["CertifiedLimit", "PointSet", "SearchResult", "Store", "certified_limit", "first_order_error", "search_points"]

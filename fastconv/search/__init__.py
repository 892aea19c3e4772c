"""Search for interpolation points of small error."""

from fastconv.search.run import PointSet, SearchResult, search_points
from fastconv.search.store import Store

__all__ = ["PointSet", "SearchResult", "Store", "search_points"]

"""Search for interpolation points of small error."""

from fastconv.search.limit import certified_limit, first_order_error
from fastconv.search.run import PointSet, SearchResult, search_points
from fastconv.search.store import Store

__all__ = ["PointSet", "SearchResult", "Store", "certified_limit", "first_order_error", "search_points"]

"""Search for better points."""

from fastconv.search.points.units import policy_data, policy_from

__all__ = ["policy_data", "policy_from"]

"""Run a network."""

from fastconv.network.run.assign import Choice, fits, resolved

__all__ = ["Choice", "fits", "resolved"]

"""Run a network."""

from fastconv.network.run.assign import Choice, fits, resolved
from fastconv.network.run.execute import Kept

__all__ = ["Choice", "Kept", "fits", "resolved"]

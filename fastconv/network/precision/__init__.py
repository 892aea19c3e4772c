"""Run a network in a precision policy."""

from fastconv.network.precision.emulated import Emulation, Extents, Precision, Shape, emulation_on
from fastconv.network.precision.names import Scales, split_policy

__all__ = ["Emulation", "Extents", "Precision", "Scales", "Shape", "emulation_on", "split_policy"]

"""Choose what runs a layer: candidates, their cost and their error."""

from fastconv.kernels.choose.accuracy import POLICY
from fastconv.kernels.choose.method import check_limit, method_of

__all__ = ["POLICY", "check_limit", "method_of"]

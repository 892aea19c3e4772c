"""Choose how a layer runs: candidates, their cost and their error."""

from fastconv.kernels.choose.accuracy import relative_error
from fastconv.kernels.choose.method import PLAIN, THREADS, Estimate, Method, check_limit, cycles_of, estimated, method_of

__all__ = ["PLAIN", "THREADS", "Estimate", "Method", "check_limit", "cycles_of", "estimated", "method_of", "relative_error"]

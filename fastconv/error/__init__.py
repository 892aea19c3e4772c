"""The error of fast convolution algorithms: evaluated and measured."""

from fastconv.error.evaluate import evaluate
from fastconv.error.inputs import GENERATORS
from fastconv.error.measure import ErrorReport, measure_error
from fastconv.error.reference import reference

__all__ = ["GENERATORS", "ErrorReport", "evaluate", "measure_error", "reference"]

"""The error of fast convolution algorithms: evaluated and measured."""

from fastconv.error.bound import bound_error
from fastconv.error.certify import certified_constant
from fastconv.error.evaluate import evaluate
from fastconv.error.inputs import GENERATORS
from fastconv.error.measure import ErrorReport, measure_error
from fastconv.error.predict import Prediction, predict_error, relative_error
from fastconv.error.predict_inputs import MOMENTS, Moments
from fastconv.error.predict_sample import Sample, SampledPrediction, predict_direct
from fastconv.error.reference import reference
from fastconv.error.theorem import error_constants, theorem_bound
from fastconv.error.tolerance import Tolerance, tolerance

__all__ = [
    "ErrorReport",
    "GENERATORS",
    "MOMENTS",
    "Moments",
    "Prediction",
    "Sample",
    "SampledPrediction",
    "Tolerance",
    "bound_error",
    "certified_constant",
    "error_constants",
    "evaluate",
    "measure_error",
    "predict_direct",
    "predict_error",
    "reference",
    "relative_error",
    "theorem_bound",
    "tolerance",
]

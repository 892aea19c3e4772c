"""The error of fast convolution algorithms: measured, predicted and bounded."""

from fastconv.error.bound.certify import certified_constant
from fastconv.error.bound.running import bound_error
from fastconv.error.bound.theorem import Constants, error_constants, theorem_bound
from fastconv.error.bound.tolerance import Tolerance, tolerance
from fastconv.error.measure.evaluate import evaluate
from fastconv.error.measure.inputs import GENERATORS
from fastconv.error.measure.measure import ErrorReport, measure_error
from fastconv.error.measure.reference import reference
from fastconv.error.predict.channels import channel_growth
from fastconv.error.predict.model import Prediction, predict_error, relative_error
from fastconv.error.predict.moments import MOMENTS, Moments
from fastconv.error.predict.sample import Sample, SampledPrediction, predict_direct

__all__ = [
    "Constants",
    "ErrorReport",
    "GENERATORS",
    "MOMENTS",
    "Moments",
    "Prediction",
    "Sample",
    "SampledPrediction",
    "Tolerance",
    "bound_error",
    "channel_growth",
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

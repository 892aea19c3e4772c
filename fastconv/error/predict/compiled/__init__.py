"""Predict the errors of many point sets at once, in compiled code."""

from fastconv.error.predict.compiled.bulk import bulk_predictor, predict_errors

__all__ = ["bulk_predictor", "predict_errors"]

"""Predict the error of a network, and fit its points."""

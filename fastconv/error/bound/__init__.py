"""Bound the error of an algorithm, and derive what a test may allow."""

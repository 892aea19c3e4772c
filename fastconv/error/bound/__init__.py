"""Bound the error of an algorithm, and derive tolerances for tests."""

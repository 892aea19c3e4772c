"""Measure the error of an algorithm against an exact or a float64 reference."""

"""Operators that move numbers: shapes, indices, resizing, quantization."""

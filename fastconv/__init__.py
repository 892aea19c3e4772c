"""Fast convolution algorithms: exact matrices, their floating-point error, and layers that run them.

"Convolution" is correlation, as in deep learning: ``y_i = sum_k w_k x_{i+k}``. Names are loaded when they are
first used, so that ``import fastconv`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "INF": "exact",
    "Gaussian": "exact",
    "BilinearAlgorithm": "algebra",
    "VerificationError": "algebra",
    "algorithm": "algebra",
    "best_points": "algebra",
    "circle_points": "algebra",
    "complex_points": "algebra",
    "published_points": "algebra",
    "strided": "algebra",
    "toom_cook": "algebra",
    "conv1d": "kernels",
    "conv2d": "kernels",
    "flush_subnormals": "kernels",
    "plan_conv1d": "kernels",
    "plan_conv2d": "kernels",
    "Policy": "arithmetic",
    "bound_error": "error",
    "certified_constant": "error",
    "error_constants": "error",
    "evaluate": "error",
    "measure_error": "error",
    "Moments": "error",
    "Sample": "error",
    "predict_error": "error",
    "reference": "error",
    "theorem_bound": "error",
    "tolerance": "error",
    "certified_limit": "search",
    "search_points": "search",
    "Comparison": "network",
    "KnownNetwork": "network",
    "Network": "network",
    "compare": "network",
    "fitted": "network",
    "known_network": "network",
    "known_networks": "network",
    "load_onnx": "network",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "torch":  # called by the name of its floor, for it needs another package
        return importlib.import_module("fastconv.torch")
    if name not in _HOME:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastconv.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

"""Run the operators between convolutions: pools, curves, element-wise and dense operators."""

from fastconv.kernels.operators.curves import curve
from fastconv.kernels.operators.dense import FEW, dense
from fastconv.kernels.operators.pixelwise import Windows, average_pool, kind_of, mean, planewise
from fastconv.kernels.operators.pool import max_pool

__all__ = ["FEW", "Windows", "average_pool", "curve", "dense", "kind_of", "max_pool", "mean", "planewise"]

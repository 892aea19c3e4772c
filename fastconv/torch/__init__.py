"""PyTorch modules with fast convolutions: ``fastconv.torch.convert(module)``. torch is imported when one of these is called."""

from fastconv.torch.convert import convert
from fastconv.torch.report import compare

__all__ = ["compare", "convert"]

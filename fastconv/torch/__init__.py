"""Convert PyTorch modules to fast convolutions; imports torch at the first call."""

from fastconv.torch.convert import convert
from fastconv.torch.report import compare

__all__ = ["compare", "convert"]

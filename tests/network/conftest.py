"""The network of six convolutions that comparisons and policies are tested on, and its input."""

import numpy as np
import pytest
from support.models import chain

import fastconv as fc


@pytest.fixture(scope="module")
def net():
    return fc.load_onnx(chain())


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(2).standard_normal((5, 3, 16, 16)).astype(np.float32)

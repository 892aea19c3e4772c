"""A network of six convolutions and its input, for the tests of comparisons and policies."""

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

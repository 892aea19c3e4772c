"""Input generators by name: the spacing of the numbers that a generator draws changes small errors by up to 38 %."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.arithmetic import round_to
from fastconv.exact import Format

Array = npt.NDArray[Any]
Generator = Callable[[np.random.Generator, tuple[int, ...]], Array]


def _uniform_libstdcxx(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw as libstdc++'s ``uniform_real_distribution<float>(-1, 1)`` does from a 32-bit engine.

    ``generate_canonical``: the 32-bit integer rounded to float, over 2**32, and 1 - 2**-24 instead of 1;
    then ``u * 2 + (-1)`` in float. Positive results are multiples of 2**-23, negative ones of 2**-24.
    """
    u = rng.integers(0, 2**32, shape, np.uint32).astype(np.float32) * np.float32(2.0**-32)
    values: Array = np.minimum(u, np.float32(1 - 2.0**-24)) * np.float32(2) - np.float32(1)
    return values


def _uniform_libstdcxx_double(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw as libstdc++'s ``uniform_real_distribution<double>(-1, 1)`` does: two 32-bit integers per number."""
    low, high = (rng.integers(0, 2**32, shape, np.uint32).astype(np.float64) for _ in range(2))
    u = (low + high * 2.0**32) * 2.0**-64
    return np.minimum(u, 1 - 2.0**-53) * 2.0 - 1.0


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw uniformly from (-1, 1) with full significands: a float64 draw, to be rounded to the format."""
    return rng.random(shape) * 2.0 - 1.0


def _uniform_grid(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw multiples of 2**-23: numpy's float32 ``random() * 2 - 1``."""
    return rng.random(shape, np.float32) * np.float32(2) - np.float32(1)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw from the standard normal distribution, in float64, to be rounded to the format."""
    return rng.standard_normal(shape)


GENERATORS: dict[str, Generator] = {
    "uniform-libstdcxx": _uniform_libstdcxx,
    "uniform": _uniform,
    "uniform-grid": _uniform_grid,
    "normal": _normal,
}


def generator_named(inputs: str | Generator) -> Generator:
    """Return the generator of that name, or the callable itself: ``f(rng, shape) -> array``.

    Raises
    ------
    ValueError
        Lists the known generators.
    """
    if callable(inputs):
        return inputs
    if inputs not in GENERATORS:
        raise ValueError(f"unknown generator {inputs!r}: the generators are {', '.join(GENERATORS)}, or a callable (rng, shape) -> array")
    return GENERATORS[inputs]


def draw(inputs: str | Generator, rng: np.random.Generator, shape: tuple[int, ...], data: Format) -> Array:
    """Draw values of a data format.

    Parameters
    ----------
    inputs : str or callable
        See `generator_named`. ``"uniform-libstdcxx"`` draws doubles where the data are fp64.
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        Shape.
    data : Format
        The draws are rounded to it.
    """
    generate = generator_named(inputs)
    if generate is _uniform_libstdcxx and data.name == "fp64":
        generate = _uniform_libstdcxx_double
    values = np.asarray(generate(rng, shape))
    if values.shape != shape or values.dtype.kind != "f":
        raise ValueError(f"the generator gave {values.dtype} of shape {values.shape} for {shape}: it must return floats of that shape")
    return round_to(values, data)

"""The public functions: convolution layers with torch's names, argument order and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastconv.kernels.activation import Activation
from fastconv.kernels.choose.accuracy import order_of
from fastconv.kernels.choose.method import Method, method_of
from fastconv.kernels.layer import Array, Ints, Layer, array_of, layer_of
from fastconv.kernels.runners import pointwise
from fastconv.kernels.runners.depthwise import DepthwiseRunner, fits
from fastconv.kernels.runners.fourier import FourierRunner
from fastconv.kernels.runners.phases import PhasedRunner
from fastconv.kernels.runners.plan import BlockRunner, Plan, Runner
from fastconv.native import machine, threads_of
from fastconv.program import parse_order


def plan_conv2d(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    input_shape: Sequence[int],
    algorithm: Any = "auto",
    threads: int | None = None,
    order: str | None = None,
    activation: Activation | None = None,
    max_error: float | None = None,
) -> Plan:
    """Make a plan: a 2-D convolution layer to apply to many inputs of one shape.

    Parameters
    ----------
    weight : array (filters, channels / groups, height, width)
        float32 or float64; the layer computes in this format. It is copied.
    bias : array (filters,), optional
        Added to the output.
    stride, dilation : int or (int, int)
        As in torch. A fast algorithm takes the stride in its name, such as 2 for ``"F(4x4,3x3)s2"``, and dilation 1.
    padding : int, (int, int), "valid" or "same"
        Zeros around the input; "same" takes stride 1.
    groups : int
        Groups of channels, each convolved separately.
    input_shape : (batch, channels, height, width) or (channels, height, width)
        The shape of the inputs; the outputs have a batch axis if the inputs have one.
    algorithm : str, BilinearAlgorithm or a pair of them
        ``"auto"``, ``"direct"``, ``"im2col"``, ``"fft"``, a name such as ``"F(4x4,3x3)"`` (also rectangular,
        ``"F(2x4,5x3)"``), an algorithm for both axes, or one for the height and one for the width. ``"phases"`` runs a stride-2
        layer as a stride-1 layer, with the fastest algorithm within the error limit.
    threads : int, optional
        Threads per call; by default one per CPU available to this process. The result does not depend on it, bit for bit.
    order : str, optional
        Order of summation of the transforms, as in `measure_error`: by default ``"huffman+shared"``, for complex points
        ``"huffman+shared+folded"``, with ``+fma`` where the CPU fuses.
    activation : Activation, optional
        Activation applied to the sums, bias included, before they are written.
    max_error : float, optional
        Limit of ``algorithm="auto"`` on the relative L2 error, by `predict_error` for normal inputs; by default 1e-6 in
        float32, and that times the ratio of the machine epsilons in float64.

    Returns
    -------
    Plan
        Call it with an input. ``plan.algorithm``, ``plan.workspace_bytes``, ``plan.weight_bytes`` and
        ``plan.explain()`` describe it.

    Raises
    ------
    TypeError
        For integer, complex or mixed dtypes.
    ValueError
        For shapes that do not fit together, or an algorithm that does not fit the layer.

    Notes
    -----
    A fast algorithm computes ``Y = AT [sum_c (G W_c G^T) * (BT X_c BT^T)] A`` on tiles: height first, then width.
    The kernel transform runs once in float64, and its result is rounded once to the format. Everything else runs in the format.
    Products are summed over blocks of 32 channels, each a chain of fused multiply-adds where the CPU has them.
    The sums of the blocks are added in order, before the output transform. A direct convolution sums
    chains of 128 products the same way, over channels, then rows, then columns of the kernel. The bias is added last.

    NaN and infinity in the input reach at most the outputs of the tiles that read them: within a tile a fast
    algorithm spreads them further than a direct convolution would. With ``"fft"`` they reach all outputs of their image and group.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.ones((2, 3, 3, 3), np.float32)
    >>> plan = plan_conv2d(weight, padding=1, input_shape=(1, 3, 8, 8), algorithm="F(2x2,3x3)")
    >>> plan(np.ones((1, 3, 8, 8), np.float32))[0, 0, 0, :3]
    array([12., 18., 18.], dtype=float32)
    """
    how = How(algorithm, threads, order, activation, max_error)
    return _plan(2, weight, bias, (stride, padding, dilation, groups), input_shape, how)


def plan_layer(layer: Layer, weight: Array, bias: Array | None, how: How) -> Plan:
    """Make a layer of a network ready: as `plan_conv2d`, with the channels-blocked layout where `layer` asks for it and it fits."""
    return _made(layer, array_of("weight", weight, 4), None if bias is None else array_of("bias", bias), how, 2, True)


def blocks_of(layer: Layer, method: Method, blocks: tuple[bool, bool] = (True, True)) -> tuple[bool, bool]:
    """Return whether input and output are channels-blocked: requested and supported.

    The block engine writes this layout with any algorithm. It reads it only if it transforms along both axes.
    """
    lanes = machine().vector_bytes // layer.dtype.itemsize
    alone = method.name == "fft" or method.name == "direct" and pointwise.fits(layer)
    if layer.groups > 1 or method.phases or alone:
        return False, False
    both = method.axes is not None and all(alg.n > 1 for alg in method.axes)
    return blocks[0] and both and layer.channels % lanes == 0, blocks[1] and layer.filters % lanes == 0


def plan_conv1d(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    input_shape: Sequence[int],
    algorithm: Any = "auto",
    threads: int | None = None,
    order: str | None = None,
    activation: Activation | None = None,
    max_error: float | None = None,
) -> Plan:
    """Make a plan for a 1-D convolution layer: `plan_conv2d` with one dimension less.

    Examples
    --------
    >>> import numpy as np
    >>> plan = plan_conv1d(np.ones((1, 1, 3)), input_shape=(1, 1, 6), algorithm="F(2,3)")
    >>> plan(np.arange(6.0)[None, None])
    array([[[ 3.,  6.,  9., 12.]]])
    """
    how = How(algorithm, threads, order, activation, max_error)
    return _plan(1, weight, bias, (stride, padding, dilation, groups), input_shape, how)


def conv2d(
    input: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    algorithm: Any = "auto",
    threads: int | None = None,
    order: str | None = None,
    max_error: float | None = None,
) -> Array:
    """Convolve (correlate, as in deep learning) a batch of images with filters.

    `input` is an array (batch, channels, height, width) of the weights' dtype, or one image (channels, height, width).
    The other parameters are those of `plan_conv2d`. Each call makes a plan: to apply one layer many times, make it once.

    Returns
    -------
    array (batch, filters, height, width)
        Output of the same dtype, without the batch axis if `input` has none.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    array([[[[4., 4.],
             [4., 4.]]]])
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups, algorithm, threads, order, max_error)


def conv1d(
    input: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    algorithm: Any = "auto",
    threads: int | None = None,
    order: str | None = None,
    max_error: float | None = None,
) -> Array:
    """Convolve signals (batch, channels, length) or (channels, length) with filters, as `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> conv1d(np.arange(5.0)[None, None], np.array([[[1.0, 0.0, -1.0]]]))
    array([[[-2., -2., -2.]]])
    >>> conv1d(np.arange(5.0)[None], np.array([[[1.0, 0.0, -1.0]]]))
    array([[-2., -2., -2.]])
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups, algorithm, threads, order, max_error)


def _convolve(dims: int, given: npt.ArrayLike, weight: npt.ArrayLike, bias: npt.ArrayLike | None, *arguments: Any) -> Array:
    one = np.ndim(given) == dims + 1  # without a batch, as in torch
    x = array_of("input", np.asarray(given)[None] if one else given, dims + 2)
    stride, padding, dilation, groups, algorithm, threads, order, max_error = arguments
    how = How(algorithm, threads, order, None, max_error)
    y = _plan(dims, weight, bias, (stride, padding, dilation, groups), x.shape, how)(x)
    return y[0] if one else y


class How(NamedTuple):
    """How a layer is to run: arguments of `plan_conv2d`, which tells their defaults."""

    algorithm: Any
    threads: int | None = None
    order: str | None = None
    activation: Activation | None = None
    max_error: float | None = None


def _plan(
    dims: int,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None,
    geometry: tuple[Ints, Ints | str, Ints, int],
    input_shape: Sequence[int],
    how: How,
) -> Plan:
    """Make a plan; `geometry` is stride, padding, dilation and groups."""
    w = array_of("weight", weight, dims + 2)
    b = None if bias is None else array_of("bias", bias)
    return _made(layer_of(w, b, *geometry, input_shape), w, b, how, dims, len(input_shape) == dims + 2)


def _made(layer: Layer, weight: Array, bias: Array | None, how: How, dims: int, batched: bool) -> Plan:
    count, method = threads_of(how.threads), method_of(how.algorithm, layer, how.max_error)
    if any(layer.blocks):
        layer = replace(layer, blocks=blocks_of(layer, method, layer.blocks))
    order = how.order or max((order_of(alg) for alg in method.axes or ()), default="huffman", key=len)
    order, w = str(parse_order(order)), weight.reshape(layer.filters, layer.channels // layer.groups, *layer.kernel)
    return Plan(layer, method, order, count, dims, batched, _runner(layer, method, w, bias, order, count, how.activation))


def _runner(
    layer: Any, method: Method, weight: Array, bias: Array | None, order: str, threads: int, activation: Activation | None
) -> Runner:
    if method.name == "fft":
        return FourierRunner(layer, weight, bias, threads, activation)
    if method.name == "direct":
        if fits(layer):
            return DepthwiseRunner(layer, weight, bias, threads, activation)
        if pointwise.fits(layer):
            return pointwise.PointwiseRunner(layer, weight, bias, threads, activation)
    if method.phases:
        return PhasedRunner(layer, method, weight, bias, order, threads, activation)
    return BlockRunner(layer, method, weight, bias, order, threads, activation)

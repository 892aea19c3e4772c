"""Compare algorithms on a PyTorch module, as `fastconv.compare` does on an ONNX network."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.network.compare import Metric, agreement
from fastconv.network.contenders import contenders
from fastconv.network.graph import Array
from fastconv.network.report import Comparison, Row
from fastconv.torch.convert import convert, imported


def compare(
    module: Any,
    inputs: Any,
    algorithms: Iterable[Any] = ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"),
    *,
    metric: Metric | None = None,
    threads: int | None = None,
    repeats: int = 3,
    name: str | None = None,
) -> Comparison:
    """Run a module by several algorithms and say what each costs and loses, against the same module in float64.

    Parameters
    ----------
    module : torch.nn.Module
        A module of float32 on the CPU, in evaluation mode. It is not changed.
    inputs : tensor or tuple of tensors
        What it is called with.
    algorithms : iterable
        As `fastconv.compare` takes them; each runs the convolutions that it can (`convert`).
    metric : callable, optional
        ``metric(outputs, reference, direct)`` -> {name: value}; outputs are called "0", "1" and so on. Without it agreement or
        PSNR, as in `fastconv.compare`.
    threads, repeats : int
        Threads of each convolution; runs to time.
    name : str, optional
        Name in the report, the class of the module if None.

    Returns
    -------
    Comparison
        Layers are the module's convolutions; a layer's error is that of its own output.
    """
    torch = imported()
    feeds = inputs if isinstance(inputs, tuple) else (inputs,)
    layers = tuple(key for key, child in module.named_modules() if isinstance(child, (torch.nn.Conv1d, torch.nn.Conv2d)))
    double = tuple(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in feeds)
    truth, exact = _watched(copy.deepcopy(module).double(), double, layers)
    rivals = contenders(algorithms)
    found = []
    for rival in rivals:
        made = convert(module, rival.algorithm, threads=threads)
        outputs, seen = _watched(made, feeds, layers)  # compiles and transforms weights besides
        found.append((rival, outputs, seen, float(np.median([_timed(made, feeds) for _ in range(repeats)]))))
    rows = []
    for rival, outputs, seen, seconds in found:
        with np.errstate(all="ignore"):
            numbers = (metric or agreement)(outputs, truth, found[0][1])
        fast = isinstance(rival.algorithm, BilinearAlgorithm)
        rows.append(
            Row(
                rival.label,
                rival.points,
                rival.algorithm.products**2 / rival.algorithm.m**2 if isinstance(rival.algorithm, BilinearAlgorithm) and fast else None,
                math.sqrt(sum(_square(outputs[k] - truth[k]) for k in truth) / max(sum(map(_square, truth.values())), 1e-300)),
                max(float(np.abs(outputs[k] - truth[k]).max(initial=0)) for k in truth),
                {key: float(value) for key, value in numbers.items()},
                seconds,
                found[0][3] / seconds,
                tuple(math.sqrt(_square(seen[key] - exact[key]) / max(_square(exact[key]), 1e-300)) for key in layers if key in exact),
            )
        )
    images = len(feeds[0]) if torch.is_tensor(feeds[0]) and feeds[0].ndim else 1
    return Comparison(name or type(module).__name__, images, "fp64", tuple(key for key in layers if key in exact), tuple(rows))


def _square(x: Array) -> float:
    return float(np.sum(np.square(x, dtype=np.float64)))


def _watched(module: Any, feeds: tuple[Any, ...], layers: Iterable[str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run a module; return its outputs and those of its convolutions as arrays."""
    seen: dict[str, Array] = {}
    children = dict(module.named_modules())

    def keep(key: str) -> Any:
        return lambda _module, _inputs, output: seen.__setitem__(key, output.detach().numpy().astype(np.float64))

    handles = [children[key].register_forward_hook(keep(key)) for key in layers]
    try:
        with imported().inference_mode():
            result = module(*feeds)
    finally:
        for handle in handles:
            handle.remove()
    parts: Any = result.values() if isinstance(result, Mapping) else result if isinstance(result, (tuple, list)) else (result,)
    return {str(k): part.detach().numpy() for k, part in enumerate(parts)}, seen


def _timed(module: Any, feeds: tuple[Any, ...]) -> float:
    with imported().inference_mode():
        begun = time.perf_counter()
        module(*feeds)
        return time.perf_counter() - begun

"""Compare algorithms on a PyTorch module, as `fastconv.compare` does on an ONNX network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.network.graph import Array
from fastconv.network.precision import Scales
from fastconv.network.run import resolved
from fastconv.network.study import Comparison, Contender, Metric, Row, agreement, contenders, counted, crossed, final_error, ratio, square
from fastconv.torch.convert import convert, copied, imported, is_eligible

_USUAL = ("F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)")


def compare(
    module: Any,
    inputs: Any,
    algorithms: Iterable[Any] | None = None,
    *,
    policies: Iterable[str] = ("fp32",),
    channel_sums: Iterable[str | None] = (None,),
    metric: Metric | None = None,
    threads: int | None = None,
    repeats: int = 3,
    name: str | None = None,
) -> Comparison:
    """Compare the cost and error of several algorithms on a module, against the module in float64.

    Parameters
    ----------
    module : torch.nn.Module
        A module of float32 on the CPU, in evaluation mode. It is not changed.
    inputs : tensor or tuple of tensors
        Arguments of the call.
    algorithms : iterable
        As in `fastconv.compare`; each runs the convolutions that it can (`convert`). None means those of F(2x2,3x3),
        F(4x4,3x3) and F(6x6,3x3) that fit a convolution of the module.
    policies, channel_sums : iterable
        Precision policies and sums over channels; all algorithms run in each, as in `fastconv.compare`.
    metric : callable, optional
        ``metric(outputs, reference, direct)`` -> {name: value}; outputs are named "0", "1" and so on. By default agreement or
        PSNR, as in `fastconv.compare`.
    threads, repeats : int
        Threads per convolution; timed runs, interleaved. Emulated convolutions are not timed.
    name : str, optional
        Name in the report, the class of the module if None.

    Returns
    -------
    Comparison
        Layers are the module's convolutions; a layer's error is that of its own output.
    """
    torch = imported()
    feeds = inputs if isinstance(inputs, tuple) else (inputs,)
    layers = {key: child for key, child in module.named_modules() if isinstance(child, (torch.nn.Conv1d, torch.nn.Conv2d))}
    double = tuple(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in feeds)
    exact = _seen(copied(module).double(), double, layers)
    if algorithms is None:
        algorithms = [name for name in _USUAL if any(is_eligible(layer, resolved(name)) for layer in layers.values())]
    rivals = crossed(contenders(algorithms), policies, channel_sums)
    modules = [convert(module, rival.algorithm, policy=rival.policy, channel_sum=rival.channel_sum, threads=threads) for rival in rivals]
    ran = [_ran(rival, tuple(layers.values())) for rival in rivals]
    runs = [_seen(made, feeds, layers) for made in modules]  # also compiles and transforms weights
    seconds = _in_turns([None if rival.is_emulated else made for rival, made in zip(rivals, modules, strict=True)], feeds, repeats)
    direct = next((s for s, rival in zip(seconds, rivals, strict=True) if rival.algorithm == "direct" and not rival.is_emulated), math.nan)
    rows, plain = [], runs[0]
    for rival, run, took, count in zip(rivals, runs, seconds, ran, strict=True):
        plain = run if rival.algorithm == "direct" else plain  # it comes first in each policy
        with np.errstate(all="ignore"):
            numbers = (metric or agreement)(run.outputs, exact.outputs, plain.outputs)
        rows.append(_row(rival, run, exact, {key: float(value) for key, value in numbers.items()}, (took, direct / took), count))
    images = len(feeds[0]) if torch.is_tensor(feeds[0]) and feeds[0].ndim else 1
    return Comparison(name or type(module).__name__, images, "fp64", tuple(exact.layers), tuple(rows))


class _Run(NamedTuple):
    """What one run of a module gave: outputs and layers, and of emulated layers overflows by stage and scales."""

    outputs: dict[str, Array]
    layers: dict[str, Array]
    overflows: dict[str, dict[str, int]]
    scales: dict[str, tuple[int, int]]


def _row(rival: Contender, run: _Run, exact: _Run, metric: dict[str, float], time: tuple[float, float], ran: int) -> Row:
    """Return the row of a contender; `time` are seconds and speed."""
    with np.errstate(all="ignore"):
        error, largest = final_error(run.outputs, exact.outputs)
        each = tuple(ratio(square(run.layers[key], truth), square(truth)) for key, truth in exact.layers.items())
    products = None if rival.fast is None else rival.fast.products**2 / rival.fast.m**2
    known = (rival.label, rival.points, products, error, largest, metric, *time, each)
    return Row(*known, policy=rival.policy, channel_sum=rival.channel_sum, overflows=run.overflows, scales=run.scales, ran=ran)


def _ran(rival: Contender, layers: Sequence[Any]) -> int:
    """Return how many convolutions run a contender's algorithm; reject it if none does."""
    if isinstance(rival.algorithm, str) and rival.is_emulated:
        return len(layers)
    choice: Any = rival.algorithm
    return counted(rival.label, choice, [choice if is_eligible(layer, choice) else "torch" for layer in layers])


def _in_turns(modules: Sequence[Any], feeds: tuple[Any, ...], repeats: int) -> list[float]:
    """Return the median seconds of each module (NaN for None), run alternately."""
    times: list[list[float]] = [[] for _ in modules]
    for turn in range(repeats):
        for k in range(len(modules)):
            who = (k + turn) % len(modules)
            if modules[who] is not None:
                times[who].append(_timed(modules[who], feeds))
    return [float(np.median(some)) if some else math.nan for some in times]


def _seen(module: Any, feeds: tuple[Any, ...], layers: Iterable[str]) -> _Run:
    """Run a module and return its outputs and those of its convolutions as arrays."""
    from fastconv.torch.layers import memory_of

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
    states = {key: state for key in layers if (state := memory_of(children[key])) is not None}
    return _Run(
        {str(k): part.detach().numpy() for k, part in enumerate(parts)},
        {key: seen[key] for key in layers if key in seen},
        {key: stages for key, state in states.items() if (stages := dict(state.extents.overflows))},
        {key: (state.scales.input, state.scales.kernel) for key, state in states.items() if state.scales != Scales()},
    )


def _timed(module: Any, feeds: tuple[Any, ...]) -> float:
    with imported().inference_mode():
        begun = time.perf_counter()
        module(*feeds)
        return time.perf_counter() - begun

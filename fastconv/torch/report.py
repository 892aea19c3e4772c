"""Compare algorithms on a PyTorch module, as `fastconv.compare` does on an ONNX network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
    from fastconv.torch.layers import memory_of

    feeds = inputs if isinstance(inputs, tuple) else (inputs,)
    layers = tuple(key for key, child in module.named_modules() if isinstance(child, (torch.nn.Conv1d, torch.nn.Conv2d)))
    double = tuple(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in feeds)
    truth, exact = _watched(copied(module).double(), double, layers)
    if isinstance(policies, str):
        raise TypeError(f"policies must be a list of policies, not the one string {policies!r}")
    convolutions = [child for key, child in module.named_modules() if key in layers]
    if algorithms is None:
        algorithms = [name for name in _USUAL if any(is_eligible(layer, resolved(name)) for layer in convolutions)]
    rivals = crossed(contenders(algorithms), policies, channel_sums)
    if not rivals:
        raise ValueError("there is nothing to compare: name at least one policy and one sum over channels")
    modules = [convert(module, rival.algorithm, policy=rival.policy, channel_sum=rival.channel_sum, threads=threads) for rival in rivals]
    ran = [_ran(rival, convolutions) for rival in rivals]
    found = [_watched(made, feeds, layers) for made in modules]  # also compiles and transforms weights
    emulated = [{key: memory_of(child) for key, child in made.named_modules() if key in layers} for made in modules]
    reached = [{key: dict(state.extents.overflows) for key, state in states.items() if state} for states in emulated]
    seconds = _in_turns([None if rival.is_emulated else made for rival, made in zip(rivals, modules, strict=True)], feeds, repeats)
    beside = next((s for s, rival in zip(seconds, rivals, strict=True) if rival.algorithm == "direct" and not rival.is_emulated), math.nan)
    rows, direct = [], found[0][0]
    for rival, (outputs, seen), states, overflows, took, count in zip(rivals, found, emulated, reached, seconds, ran, strict=True):
        direct = outputs if rival.algorithm == "direct" else direct  # it comes first in each policy
        with np.errstate(all="ignore"):
            numbers = (metric or agreement)(outputs, truth, direct)
            error, largest = final_error(outputs, truth)
            each = tuple(ratio(square(seen[key], exact[key]), square(exact[key])) for key in layers if key in exact)
        scales = {key: state.scales for key, state in states.items() if state and state.scales != Scales()}
        rows.append(
            Row(
                rival.label,
                rival.points,
                None if rival.fast is None else rival.fast.products**2 / rival.fast.m**2,
                error,
                largest,
                {key: float(value) for key, value in numbers.items()},
                took,
                beside / took,
                each,
                rival.policy,
                rival.channel_sum,
                {key: stages for key, stages in overflows.items() if stages},
                {key: (scale.input, scale.kernel) for key, scale in scales.items()},
                count,
            )
        )
    images = len(feeds[0]) if torch.is_tensor(feeds[0]) and feeds[0].ndim else 1
    return Comparison(name or type(module).__name__, images, "fp64", tuple(key for key in layers if key in exact), tuple(rows))


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


def _watched(module: Any, feeds: tuple[Any, ...], layers: Iterable[str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run a module and return its outputs and those of its convolutions as arrays."""
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

"""Convolutions of a PyTorch module in a precision policy: the emulation that networks from ONNX have."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, channel_sum_named
from fastconv.kernels.threads import processors
from fastconv.network.assign import Choice
from fastconv.network.emulated import Emulation, Extents, Shape, emulation_on
from fastconv.network.policy_name import Scales, split_policy
from fastconv.torch.convert import arrays_of, classes_of, imported, in_class, is_eligible, version_of


class State:
    """How a layer is emulated, what it was made into, and what its stages have reached since `extents` was emptied."""

    def __init__(self, algorithm: BilinearAlgorithm | None, policy: str | Policy, channel_sum: str, threads: int) -> None:
        self.algorithm, self.channel_sum, self.threads = algorithm, channel_sum, threads
        self.policy, self.balanced = split_policy(policy)
        self.extents = Extents()
        self.made: tuple[Any, Emulation] | None = None

    @property
    def scales(self) -> Scales:
        """The powers of two by which the layer is scaled."""
        return Scales() if self.made is None else self.made[1].scales


def emulating(choice: Choice, policy: str | Policy, channel_sum: str, threads: int | None) -> Callable[[Any], Any]:
    """Return what makes an emulated layer of a convolution of float32, and None of any other module."""
    split_policy(policy)
    channel_sum_named(channel_sum)
    torch = imported()

    def replace(layer: Any) -> Any:
        if type(layer) not in (torch.nn.Conv1d, torch.nn.Conv2d) or layer.weight.dtype != torch.float32:
            return None
        fits = isinstance(choice, BilinearAlgorithm) and is_eligible(layer, choice) and len(layer.kernel_size) == 2
        state = State(choice if fits and isinstance(choice, BilinearAlgorithm) else None, policy, channel_sum, threads or processors())
        return in_class(layer, _classes(), state)

    return replace


def state_of(layer: Any) -> State | None:
    """Return how a layer is emulated, None if it is not."""
    state = getattr(layer, "_fastconv", None)
    return state if isinstance(state, State) else None


@cache
def _classes() -> dict[Any, Any]:
    return classes_of("Emulated", ", emulated", _run, _refused)


def _refused(layer: Any, x: Any) -> Any:
    rank = len(layer.kernel_size)
    given = f"{x.dtype} on {x.device}, shape {tuple(x.shape)}"
    raise ValueError(f"an emulated convolution takes float32 on the CPU, {rank + 1} or {rank + 2} axes, not {given}")


def _run(layer: Any, batch: Any) -> Any:
    """Convolve images, or signals as images of one row."""
    if batch.dtype != imported().float32:
        _refused(layer, batch)
    state: State = layer._fastconv
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = imported().nn.functional.pad(batch, layer._reversed_padding_repeated_twice, mode=mode).numpy()
    weight, bias = arrays_of(layer)
    flat = len(layer.kernel_size) == 1
    stride, dilation = (((1, *pair) if flat else tuple(pair)) for pair in (layer.stride, layer.dilation))
    x, weight = (x[:, :, None], weight[:, :, None]) if flat else (x, weight)
    key = version_of(layer)
    if state.made is None or state.made[0] != key:
        shape = Shape(stride, dilation, layer.groups)
        made = emulation_on(x, weight, bias, shape, state.algorithm, state.policy, state.channel_sum, state.balanced, state.threads)
        state.made = (key, made)
    y, reached = state.made[1](x, state.threads)
    state.extents.join(reached)
    return y[:, :, 0] if flat else y

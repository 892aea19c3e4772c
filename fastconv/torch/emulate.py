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
from fastconv.network.operators import Call
from fastconv.network.operators.convolution import in_a_plane
from fastconv.network.policy_name import Scales, split_policy
from fastconv.torch.convert import Weights, arrays_of, classes_of, imported, in_class, is_eligible


class State:
    """How a layer is emulated, what it was made into, and what its stages have reached since `extents` was emptied."""

    def __init__(self, algorithm: BilinearAlgorithm | None, policy: str | Policy, channel_sum: str, threads: int) -> None:
        self.given = algorithm, policy, channel_sum, threads
        self.algorithm, self.channel_sum, self.threads = algorithm, channel_sum, threads
        self.policy, self.balanced = split_policy(policy)
        self.extents = Extents()
        self.weights = Weights()
        self.made: Emulation | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and save what was asked for; the layer is made again."""
        return type(self), self.given

    @property
    def scales(self) -> Scales:
        """The powers of two by which the layer is scaled."""
        return Scales() if self.made is None else self.made.scales


def emulating(choice: Choice, policy: str | Policy, channel_sum: str, threads: int | None) -> Callable[[Any], Any]:
    """Return what makes an emulated layer of a convolution of float32, and None of any other module."""
    split_policy(policy)
    channel_sum_named(channel_sum)
    torch = imported()

    def replace(layer: Any) -> Any:
        if type(layer) not in _parents():
            return None
        if layer.weight.dtype != torch.float32:
            kind = f"{type(layer).__name__} of {layer.weight.dtype}"
            raise ValueError(f"the policy {policy!r} cannot act on a {kind}: convolutions of float32 are emulated, call .float() first")
        fits = isinstance(choice, BilinearAlgorithm) and is_eligible(layer, choice) and len(layer.kernel_size) == 2
        state = State(choice if fits and isinstance(choice, BilinearAlgorithm) else None, policy, channel_sum, threads or processors())
        return in_class(layer, _classes(), state)

    return replace


def state_of(layer: Any) -> State | None:
    """Return how a layer is emulated, None if it is not."""
    state = getattr(layer, "_fastconv", None)
    return state if isinstance(state, State) else None


def _parents() -> tuple[Any, ...]:
    nn = imported().nn
    return nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d


@cache
def _classes() -> dict[Any, Any]:
    return classes_of("Emulated", ", emulated", _parents(), _run, _refused)


def __getattr__(name: str) -> Any:
    """Return a class of layers by its name: so torch finds it again in what was saved."""
    found = next((made for made in _classes().values() if made.__name__ == name), None) if name.startswith("EmulatedConv") else None
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def _refused(parent: Any, layer: Any, x: Any) -> Any:
    rank = len(layer.kernel_size)
    given = f"{x.dtype} on {x.device}, shape {tuple(x.shape)}"
    raise ValueError(f"an emulated convolution takes float32 on the CPU, {rank + 1} or {rank + 2} axes, not {given}")


def _run(layer: Any, batch: Any) -> Any:
    """Convolve images, or signals and volumes as images."""
    if batch.dtype != imported().float32:
        _refused(None, layer, batch)
    state: State = layer._fastconv
    attributes = {"strides": layer.stride, "dilations": layer.dilation, "group": layer.groups}
    if layer.transposed:
        operator, x = "ConvTranspose", batch
        attributes |= {"pads": (*layer.padding, *layer.padding), "output_padding": layer.output_padding}
    else:
        operator, mode = "Conv", "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = imported().nn.functional.pad(batch, layer._reversed_padding_repeated_twice, mode=mode)
    weight, bias = arrays_of(layer)
    flat = in_a_plane(operator, Call(attributes, 17), x.numpy(), weight)
    changed = state.weights.changed((weight, bias))
    if changed or state.made is None:
        shape = Shape(flat.view.strides, flat.view.dilations, layer.groups)  # type: ignore[arg-type]
        settings = (state.algorithm, state.policy, state.channel_sum, state.balanced, state.threads)
        state.made = emulation_on(flat.x, flat.weight, bias, shape, *settings)
    y, reached = state.made(flat.x, state.threads)
    state.extents.join(reached)
    return flat.restored(y)

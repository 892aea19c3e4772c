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
from fastconv.torch.convert import imported, is_eligible, refuse_gradients


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
        made = _classes()[type(layer)]
        emulated = made.__new__(made)
        emulated.__dict__.update(layer.__dict__)
        state = State(choice if fits and isinstance(choice, BilinearAlgorithm) else None, policy, channel_sum, threads or processors())
        emulated.__dict__["_fastconv"] = state
        return emulated

    return replace


def state_of(layer: Any) -> State | None:
    """Return how a layer is emulated, None if it is not."""
    state = getattr(layer, "_fastconv", None)
    return state if isinstance(state, State) else None


@cache
def _classes() -> dict[Any, Any]:
    """Make the layers, once torch is there: torch's own, whose forward is emulated."""
    torch = imported()

    def forward(self: Any, x: Any) -> Any:
        tensors = [t for t in (x, self.weight, self.bias) if t is not None]
        refuse_gradients(*tensors)
        rank = len(self.kernel_size)
        if x.dtype != torch.float32 or x.device.type != "cpu" or x.ndim not in (rank + 1, rank + 2):
            raise ValueError(
                f"an emulated convolution takes float32 on the CPU, {rank + 1} or {rank + 2} axes, not {x.dtype} on {x.device}, "
                f"shape {tuple(x.shape)}"
            )
        batch = x if x.ndim == rank + 2 else x[None]
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = torch.nn.functional.pad(batch, self._reversed_padding_repeated_twice, mode=mode)
        y = torch.from_numpy(_run(self, padded.detach().numpy()))
        return y if x.ndim == rank + 2 else y[0]

    return {
        parent: type(f"Emulated{parent.__name__}", (parent,), {"forward": forward, "__doc__": f"torch.nn.{parent.__name__}, emulated."})
        for parent in (torch.nn.Conv1d, torch.nn.Conv2d)
    }


def _run(layer: Any, x: Any) -> Any:
    """Convolve padded images, or signals as images of one row; a changed weight has another address or version."""
    state: State = layer._fastconv
    weight, bias = layer.weight.detach().numpy(), None if layer.bias is None else layer.bias.detach().numpy()
    flat = len(layer.kernel_size) == 1
    stride, dilation = (((1, *pair) if flat else tuple(pair)) for pair in (layer.stride, layer.dilation))
    x, weight = (x[:, :, None], weight[:, :, None]) if flat else (x, weight)
    key = tuple((t.data_ptr(), t._version) for t in (layer.weight, layer.bias) if t is not None)
    if state.made is None or state.made[0] != key:
        shape = Shape(stride, dilation, layer.groups)
        made = emulation_on(x, weight, bias, shape, state.algorithm, state.policy, state.channel_sum, state.balanced, state.threads)
        state.made = (key, made)
    y, reached = state.made[1](x, state.threads)
    state.extents.join(reached)
    return y[:, :, 0] if flat else y

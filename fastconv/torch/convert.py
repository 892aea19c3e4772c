"""Replace the convolutions of a PyTorch module by fast ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy
from fastconv.network.assign import Choice, resolved

_PLANS = 4
"""Input shapes for which a layer keeps its transformed weights; the oldest goes first."""


def imported() -> Any:
    """Return torch.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; the message says how to get it.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("fastconv.torch needs PyTorch: pip install 'fastconv[torch]'", name="torch") from error
    return torch


def convert(
    module: Any, algorithm: Any = "auto", *, policy: str | Policy = "fp32", channel_sum: str | None = None, threads: int | None = None
) -> Any:
    """Return a module whose eligible convolutions run on fastconv's kernels, for inference on the CPU.

    Eligible are Conv1d and Conv2d of stride 1 (or that of the algorithm), dilation 1, one group, zero padding and a kernel of at
    least 3 (3x3), in float32 or float64. All other modules stay what they are.

    Parameters
    ----------
    module : torch.nn.Module
        Any module, also a single convolution. It is not changed.
    algorithm : str or BilinearAlgorithm
        ``"auto"`` chooses for each layer and input shape; a fast algorithm, such as ``"F(4x4,3x3)"``, is given to the layers whose
        kernel it fits, in one dimension as well, and the others stay torch's; also ``"direct"``, ``"im2col"``, ``"fft"``.
    policy : str or Policy
        "fp32" runs on the kernels. In any other policy ("fp16", "bf16", "mixed", "fp16-balanced", ...) every Conv1d and Conv2d of
        float32 is emulated, as `fastconv.Network.prepare` says: by the algorithm where it fits, else directly.
    channel_sum : {"linear", "pairwise", "blocked"}, optional
        How an emulated convolution sums over channels, "linear" by default. With it "fp32" is emulated too.
    threads : int, optional
        Threads of each convolution; as many as there are processors if None.

    Returns
    -------
    torch.nn.Module
        A copy of the module's structure with the same parameters and buffers: the very tensors, under the same names in
        `state_dict`. Weights are transformed at the first call with an input shape, and again after they have been changed.

    Raises
    ------
    ModuleNotFoundError
        If torch is not installed.
    TypeError, ValueError
        For something that is no module, or an unknown algorithm, policy or sum.

    Notes
    -----
    There are no gradients: where torch would record one, the layer raises RuntimeError, so call the module under
    ``torch.inference_mode()`` or ``torch.no_grad()``. Inputs on other devices or of other types go through torch's own layer.
    """
    torch = imported()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"a module is a torch.nn.Module, not {type(module).__name__}")
    choice = resolved(algorithm)
    replace: Callable[[Any], Any] = lambda layer: _fast(layer, choice, threads) if is_eligible(layer, choice) else None
    if policy != "fp32" or channel_sum is not None:
        from fastconv.torch.emulate import emulating

        replace = emulating(choice, policy, channel_sum or "linear", threads)
    # Tensors are shared, all else is copied.
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return _replaced(copy.deepcopy(module, shared), replace)


def _replaced(module: Any, replace: Callable[[Any], Any]) -> Any:
    if (layer := replace(module)) is not None:
        return layer
    done: dict[int, Any] = {}
    for child in module.children():
        if id(child) not in done:  # one layer in two places stays one
            done[id(child)] = _replaced(child, replace)
    for name, child in module._modules.items():
        if child is not None:
            module._modules[name] = done[id(child)]
    return module


def is_eligible(module: Any, choice: Choice = "auto") -> bool:
    """Tell whether a module is a convolution that an algorithm can run."""
    nn = imported().nn
    if type(module) not in (nn.Conv1d, nn.Conv2d) or module.padding_mode != "zeros" or module.groups != 1:
        return False
    r, stride = (choice.r, choice.stride) if isinstance(choice, BilinearAlgorithm) else (None, 1)
    plain = set(module.stride) == {stride} and set(module.dilation) == {1} and min(module.kernel_size) >= 3
    fits = r is None or set(module.kernel_size) == {r}
    return plain and fits and module.weight.dtype in (imported().float32, imported().float64)


def refuse_gradients(*tensors: Any) -> None:
    """Raise RuntimeError where torch would record a gradient."""
    if imported().is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise RuntimeError("a converted convolution records no gradient: call the module under torch.inference_mode() or no_grad()")


@cache
def _classes() -> dict[Any, Any]:
    """Make the layers, once torch is there: torch's own, whose forward runs on a plan."""
    torch = imported()

    def forward(self: Any, x: Any) -> Any:
        tensors = [t for t in (x, self.weight, self.bias) if t is not None]
        refuse_gradients(*tensors)
        rank = len(self.kernel_size)
        if x.device.type != "cpu" or x.dtype != self.weight.dtype or x.ndim not in (rank + 1, rank + 2):
            return super(type(self), self).forward(x)
        batch = x if x.ndim == rank + 2 else x[None]
        y = torch.from_numpy(_planned(self, tuple(batch.shape))(batch.detach().contiguous().numpy()))
        return y if x.ndim == rank + 2 else y[0]

    return {
        parent: type(
            f"Fast{parent.__name__}", (parent,), {"forward": forward, "__doc__": f"torch.nn.{parent.__name__} on fastconv's kernels."}
        )
        for parent in (torch.nn.Conv1d, torch.nn.Conv2d)
    }


def _fast(conv: Any, choice: Choice, threads: int | None) -> Any:
    made = _classes()[type(conv)]
    layer = made.__new__(made)
    layer.__dict__.update(conv.__dict__)
    layer.__dict__["_fastconv"] = (choice, threads, {})
    return layer


def _planned(layer: Any, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return the plan for an input shape; a changed weight has another address or version."""
    choice, threads, plans = layer._fastconv
    tensors = [t for t in (layer.weight, layer.bias) if t is not None]
    key = (shape, *((t.data_ptr(), t._version) for t in tensors))
    plan = plans.get(key)
    if plan is None:
        from fastconv import kernels

        make = kernels.plan_conv1d if len(layer.kernel_size) == 1 else kernels.plan_conv2d
        weight, bias = layer.weight.detach().numpy(), None if layer.bias is None else layer.bias.detach().numpy()
        padding = layer.padding if isinstance(layer.padding, str) or len(layer.padding) > 1 else layer.padding[0]
        plan = make(weight, bias, layer.stride[0], padding, 1, 1, input_shape=shape, algorithm=choice, threads=threads)
        while len(plans) >= _PLANS:
            plans.pop(next(iter(plans)))
        plans[key] = plan
    return plan  # type: ignore[no-any-return]

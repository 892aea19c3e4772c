"""Replace the convolutions of a PyTorch module by fast ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from fastconv.arithmetic import Policy
from fastconv.network.assign import Choice, fits, resolved

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
    replace: Callable[[Any], Any] = lambda layer: in_class(layer, _classes(), (choice, threads, {})) if is_eligible(layer, choice) else None
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
    plain = set(module.dilation) == {1} and min(module.kernel_size) >= 3
    return plain and fits(choice, module.kernel_size, module.stride) and module.weight.dtype in (imported().float32, imported().float64)


def classes_of(prefix: str, about: str, run: Callable[[Any, Any], Any], other: Callable[[Any, Any], Any]) -> dict[Any, Any]:
    """Make layers, once torch is there: torch's own, whose forward runs otherwise.

    Parameters
    ----------
    prefix, about : str
        What their names begin with, and what is said of them.
    run, other : callable
        ``run(layer, batch)`` gives the outputs, as an array, of a batch on the CPU in the format of the weights; ``other(layer, x)``
        takes whatever else comes.
    """
    torch = imported()

    def forward(self: Any, x: Any) -> Any:
        tensors = [t for t in (x, self.weight, self.bias) if t is not None]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            raise RuntimeError("a converted convolution records no gradient: call the module under torch.inference_mode() or no_grad()")
        rank = len(self.kernel_size)
        if x.device.type != "cpu" or x.dtype != self.weight.dtype or x.ndim not in (rank + 1, rank + 2):
            return other(self, x)
        batch = x if x.ndim == rank + 2 else x[None]
        y = torch.from_numpy(run(self, batch.detach()))
        return y if x.ndim == rank + 2 else y[0]

    return {
        parent: type(f"{prefix}{parent.__name__}", (parent,), {"forward": forward, "__doc__": f"torch.nn.{parent.__name__}{about}."})
        for parent in (torch.nn.Conv1d, torch.nn.Conv2d)
    }


def in_class(conv: Any, classes: Mapping[Any, Any], state: Any) -> Any:
    """Return a layer of another class that has all that a convolution has, and a state besides."""
    made = classes[type(conv)]
    layer = made.__new__(made)
    layer.__dict__.update(conv.__dict__)
    layer.__dict__["_fastconv"] = state
    return layer


def version_of(layer: Any) -> tuple[Any, ...]:
    """Return what is another when the weights are: a changed tensor has another address or version."""
    return tuple((t.data_ptr(), t._version) for t in (layer.weight, layer.bias) if t is not None)


def arrays_of(layer: Any) -> tuple[Any, Any]:
    """Return weight and bias as arrays, None for no bias."""
    return layer.weight.detach().numpy(), None if layer.bias is None else layer.bias.detach().numpy()


@cache
def _classes() -> dict[Any, Any]:
    return classes_of(
        "Fast",
        " on fastconv's kernels",
        lambda layer, batch: _planned(layer, tuple(batch.shape))(batch.contiguous().numpy()),
        lambda layer, x: super(type(layer), layer).forward(x),
    )


def _planned(layer: Any, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return the plan for an input shape."""
    choice, threads, plans = layer._fastconv
    key = (shape, version_of(layer))
    plan = plans.get(key)
    if plan is None:
        from fastconv import kernels

        make = kernels.plan_conv1d if len(layer.kernel_size) == 1 else kernels.plan_conv2d
        weight, bias = arrays_of(layer)
        padding = layer.padding if isinstance(layer.padding, str) or len(layer.padding) > 1 else layer.padding[0]
        plan = make(weight, bias, layer.stride[0], padding, 1, 1, input_shape=shape, algorithm=choice, threads=threads)
        while len(plans) >= _PLANS:
            plans.pop(next(iter(plans)))
        plans[key] = plan
    return plan  # type: ignore[no-any-return]

"""Replace the convolutions of a PyTorch module by fast ones."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, channel_sum_named
from fastconv.native import threads_of
from fastconv.network.precision import split_policy
from fastconv.network.run import Choice, fits, resolved
from fastconv.torch.how import How


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
    module: Any,
    algorithm: Any = "auto",
    *,
    policy: str | Policy = "fp32",
    channel_sum: str | None = None,
    threads: int | None = None,
    frozen: bool = False,
) -> Any:
    """Return a module whose eligible convolutions run on fastconv's kernels, for inference on the CPU.

    Conv1d and Conv2d layers are eligible with stride 1 (or that of the algorithm), dilation 1, one group, a kernel of at least 3
    (3x3), and float32 or float64. Their weights may be computed (weight_norm, parametrizations). Other modules are unchanged.

    Parameters
    ----------
    module : torch.nn.Module
        Any module, also a single convolution. It is not changed.
    algorithm : str or BilinearAlgorithm
        ``"auto"`` chooses for each layer and input shape. ``"F(4x4,3x3)"``, for example, runs the layers whose kernel it fits, also
        1-D ones; torch runs the others. Also ``"direct"``, ``"im2col"``, ``"fft"``.
    policy : str or Policy
        "fp32" runs on the kernels. In any other policy ("fp16", "bf16", "mixed", "fp16-balanced", ...) every convolution is
        emulated, also 3-D and transposed ones, as in `fastconv.Network.prepare`: with the algorithm where it fits, else directly.
    channel_sum : {"linear", "pairwise", "blocked"}, optional
        Order of an emulated convolution's sum over channels, "linear" by default. If given, "fp32" is emulated too.
    threads : int, optional
        Threads per convolution; one per available CPU if None.
    frozen : bool
        Assume that the weights do not change after a layer's first call. By default each call compares them with a copy, bit by bit,
        which is slow for many weights and few pixels, such as 512 channels on 7x7 pixels.

    Returns
    -------
    torch.nn.Module
        A copy of the module. Its parameters and buffers have the same names and share their memory with the module's: an in-place
        change affects both; an assignment or a change of type, such as ``half()``, affects one. The first call with an input shape
        transforms the weights, as does the first call after a change of them. A converted module can be converted again.

    Raises
    ------
    ModuleNotFoundError
        If torch is not installed.
    TypeError, ValueError
        If `module` is not a module, or the algorithm, policy or sum is unknown.

    Notes
    -----
    There are no gradients: a layer raises RuntimeError where torch would record one, and so does ``backward()`` of a traced or
    exported module. Call the module under ``torch.inference_mode()`` or ``torch.no_grad()``. On other devices, in half precision
    and under `torch.autocast`, torch runs the layers; emulated layers accept only float32 on the CPU. An input whose type differs
    from that of the weights raises TypeError.

    Layers call the operators ``torch.ops.fastconv``, which `torch.jit.trace`, `torch.compile`, `torch.export`, `torch.fx`
    and `torch.func.vmap` preserve. A program that loads a traced or exported module imports `fastconv.torch.layers` first.
    `torch.onnx.export` writes Conv nodes for layers that are not emulated. `torch.jit.script` raises TypeError.

    Examples
    --------
    >>> import torch
    >>> conv = torch.nn.Conv2d(3, 8, 3, padding=1)
    >>> fast, x = convert(conv, "F(4x4,3x3)"), torch.ones(1, 3, 8, 8)
    >>> fast
    FastConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    >>> with torch.inference_mode():
    ...     torch.allclose(fast(x), conv(x), atol=1e-5)
    True
    """
    torch = imported()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"a module is a torch.nn.Module, not {type(module).__name__}")
    choice = resolved(algorithm)
    threads = None if threads is None else threads_of(threads)
    emulated = policy != "fp32" or channel_sum is not None
    if emulated:
        split_policy(policy)
        channel_sum_named(channel_sum or "linear")
    how = How(algorithm, threads, policy, channel_sum or "linear", frozen) if emulated else How(algorithm, threads, frozen=frozen)
    return _changed(copied(module), choice, how, emulated)


def _changed(module: Any, choice: Choice, how: How, emulated: bool) -> Any:
    """Return a module whose convolutions run by `how`, with its algorithm, resolved to `choice`, where it fits."""
    from fastconv.torch.layers import Emulated, Fast, change, plain_class

    for layer in [layer for layer in module.modules() if plain_class(layer) is not None]:
        fit = is_eligible(layer, choice)
        if emulated and layer.weight.dtype != imported().float32:
            kind = f"{plain_class(layer).__name__} of {layer.weight.dtype}"
            raise ValueError(f"the policy {how.policy!r} cannot act on a {kind}: convolutions of float32 are emulated, call .float() first")
        if emulated:
            runs = fit and isinstance(choice, BilinearAlgorithm) and len(layer.kernel_size) == 2
            change(layer, Emulated, (how if runs else replace(how, algorithm="direct")).text())
        elif fit:
            change(layer, Fast, how.text())
        else:
            change(layer, None, "")
    return module


def copied(module: Any) -> Any:
    """Return a copy of a module with new tensors that share the memory of the module's."""
    torch = imported()
    aliases: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if type(tensor) not in (torch.nn.Parameter, torch.Tensor):
            aliases[id(tensor)] = tensor  # a subclass, or not initialised yet
            continue
        with torch.inference_mode(tensor.is_inference()):
            alias = torch.nn.Parameter(tensor.detach(), tensor.requires_grad) if type(tensor) is torch.nn.Parameter else tensor.detach()
        alias.__dict__.update(tensor.__dict__)
        aliases[id(tensor)] = alias
    # Tensors computed from parameters, such as the weights of weight_norm, have a history, and deepcopy rejects them.
    computed = (value for child in module.modules() for value in vars(child).values() if torch.is_tensor(value) and not value.is_leaf)
    return copy.deepcopy(module, aliases | {id(tensor): tensor for tensor in computed})


def is_eligible(module: Any, choice: Choice = "auto") -> bool:
    """Return whether a module is a convolution that an algorithm can run."""
    from fastconv.torch.layers import plain_class

    nn = imported().nn
    if (
        plain_class(module) not in (nn.Conv1d, nn.Conv2d)
        or module.groups != 1
        or set(module.dilation) != {1}
        or min(module.kernel_size) < 3
    ):
        return False
    torch = imported()
    return fits(choice, module.kernel_size, module.stride) and module.weight.dtype in (torch.float32, torch.float64)

"""Replace the convolutions of a PyTorch module by fast ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

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
    module: Any,
    algorithm: Any = "auto",
    *,
    policy: str | Policy = "fp32",
    channel_sum: str | None = None,
    threads: int | None = None,
    frozen: bool = False,
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
        "fp32" runs on the kernels. In any other policy ("fp16", "bf16", "mixed", "fp16-balanced", ...) every convolution is emulated,
        transposed ones too, as `fastconv.Network.prepare` says: by the algorithm where it fits, else directly.
    channel_sum : {"linear", "pairwise", "blocked"}, optional
        How an emulated convolution sums over channels, "linear" by default. With it "fp32" is emulated too.
    threads : int, optional
        Threads of each convolution; as many as there are processors if None.
    frozen : bool
        A promise that weights do not change any more. Without it each call compares them with those that it has transformed, which
        takes as long as reading them twice.

    Returns
    -------
    torch.nn.Module
        A copy of the module's structure with the same parameters and buffers: the same memory, under the same names in
        `state_dict`. Weights are transformed at the first call with an input shape, and again after they have been changed,
        in whatever way. It can be copied, and saved with `torch.save`.

    Raises
    ------
    ModuleNotFoundError
        If torch is not installed.
    TypeError, ValueError
        For something that is no module, an unknown algorithm, policy or sum, or a policy for a module that is not of float32.

    Notes
    -----
    There are no gradients: where torch would record one, the layer raises RuntimeError, so call the module under
    ``torch.inference_mode()`` or ``torch.no_grad()``. Inputs on other devices or of other types go through torch's own layer, under
    autocast too; so does what `torch.jit.trace`, `torch.compile` and `torch.onnx.export` make of the module.
    """
    torch = imported()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"a module is a torch.nn.Module, not {type(module).__name__}")
    choice = resolved(algorithm)
    replace: Callable[[Any], Any] = lambda layer: (
        in_class(layer, _classes(), State(choice, threads, frozen)) if is_eligible(layer, choice) else None
    )
    if policy != "fp32" or channel_sum is not None:
        from fastconv.torch.emulate import emulating

        replace = emulating(choice, policy, channel_sum or "linear", threads)
    return _replaced(copy.deepcopy(module, _shared(module)), replace)


def _shared(module: Any) -> dict[int, Any]:
    """Return what `copy.deepcopy` is to take for the tensors of a module: tensors of their own on the same memory.

    Theirs, so that converting the copy to another type leaves the module alone. What hooks compute before each call
    (`torch.nn.utils.weight_norm`) is shared: torch copies no tensors that have a history.
    """
    torch = imported()
    shared: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_inference():
            shared[id(tensor)] = tensor
        elif isinstance(tensor, torch.nn.Parameter):
            shared[id(tensor)] = torch.nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
        else:
            shared[id(tensor)] = tensor.detach()
    for child in module.modules():
        shared |= {id(value): value for value in vars(child).values() if torch.is_tensor(value) and value.grad_fn is not None}
    return shared


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


def classes_of(
    prefix: str, about: str, parents: Sequence[Any], run: Callable[[Any, Any], Any], other: Callable[..., Any]
) -> dict[Any, Any]:
    """Make layers, once torch is there: torch's own, whose forward runs otherwise.

    Parameters
    ----------
    prefix, about : str
        What their names begin with, and what is said of them.
    parents : sequence of classes
        Of torch.
    run, other : callable
        ``run(layer, batch)`` gives the outputs, as an array, of a batch on the CPU in the format of the weights;
        ``other(parent, layer, x)`` takes whatever else comes.
    """
    torch = imported()
    formats = (torch.float32, torch.float64)

    def forward_of(parent: Any) -> Callable[..., Any]:
        def forward(self: Any, x: Any, *rest: Any) -> Any:
            if rest or torch.jit.is_tracing() or torch.compiler.is_compiling():
                return parent.forward(self, x, *rest)
            tensors = [t for t in (x, self.weight, self.bias) if t is not None]
            if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
                raise RuntimeError("a converted convolution records no gradient: call the module under torch.inference_mode() or no_grad()")
            rank = len(self.kernel_size)
            plain = all(t.device.type == "cpu" and t.dtype == x.dtype for t in tensors) and x.dtype in formats and type(x) is torch.Tensor
            if not plain or x.ndim not in (rank + 1, rank + 2) or torch.is_autocast_enabled("cpu"):
                return other(parent, self, x)
            batch = x if x.ndim == rank + 2 else x[None]
            y = torch.from_numpy(run(self, batch.detach().resolve_neg()))
            if rank == 2 and not batch.is_contiguous() and batch.is_contiguous(memory_format=torch.channels_last):
                y = y.contiguous(memory_format=torch.channels_last)
            return y if x.ndim == rank + 2 else y[0]

        return forward

    def made(parent: Any) -> Any:
        name = f"{prefix}{parent.__name__}"
        about_it = {"forward": forward_of(parent), "__doc__": f"torch.nn.{parent.__name__}{about}.", "__module__": run.__module__}
        return type(name, (parent,), about_it)

    return {parent: made(parent) for parent in parents}


class Weights:
    """Weight and bias of a layer as they were at the last look."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def changed(self, arrays: Sequence[Any]) -> bool:
        """Whether they are others now; then these are kept. Torch counts only some of the changes, so the numbers are compared."""
        same = len(arrays) == len(self.kept) and all(map(_identical, arrays, self.kept))
        if not same:
            self.kept = [array if array is None else array.copy() for array in arrays]
        return not same


def _identical(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = f"u{a.itemsize}"  # a NaN is itself
    return np.array_equal(np.ascontiguousarray(a).view(bits), b.view(bits))


class State:
    """How a layer runs on the kernels, and its plans by input shape."""

    def __init__(self, choice: Choice, threads: int | None, frozen: bool) -> None:
        self.choice, self.threads, self.frozen = choice, threads, frozen
        self.weights, self.plans = Weights(), dict[tuple[int, ...], Any]()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and save what was asked for; plans are made again."""
        return type(self), (self.choice, self.threads, self.frozen)


def in_class(conv: Any, classes: Mapping[Any, Any], state: Any) -> Any:
    """Return a layer of another class that has all that a convolution has, and a state besides."""
    made = classes[type(conv)]
    layer = made.__new__(made)
    layer.__dict__.update(conv.__dict__)
    layer.__dict__["_fastconv"] = state
    return layer


def arrays_of(layer: Any) -> tuple[Any, ...]:
    """Return weight and bias as arrays, None for no bias."""
    return tuple(None if part is None else part.detach().resolve_neg().numpy() for part in (layer.weight, layer.bias))


@cache
def _classes() -> dict[Any, Any]:
    nn = imported().nn
    return classes_of("Fast", " on fastconv's kernels", (nn.Conv1d, nn.Conv2d), _run, lambda parent, layer, x: parent.forward(layer, x))


def __getattr__(name: str) -> Any:
    """Return a class of layers by its name: so torch finds it again in what was saved."""
    if name in ("FastConv1d", "FastConv2d"):
        return next(made for made in _classes().values() if made.__name__ == name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _run(layer: Any, batch: Any) -> Any:
    """Run a layer by the plan for the shape of the batch."""
    state: State = layer._fastconv
    arrays = arrays_of(layer)
    if not (state.frozen and state.plans) and state.weights.changed(arrays):
        state.plans.clear()
    shape = tuple(batch.shape)
    plan = state.plans.get(shape)
    if plan is None:
        from fastconv import kernels

        make = kernels.plan_conv1d if len(layer.kernel_size) == 1 else kernels.plan_conv2d
        padding = layer.padding if isinstance(layer.padding, str) or len(layer.padding) > 1 else layer.padding[0]
        weight, bias = arrays
        stride = layer.stride[0]
        plan = make(weight, bias, stride, padding, 1, 1, input_shape=shape, algorithm=state.choice, threads=state.threads)
        while len(state.plans) >= _PLANS:
            state.plans.pop(next(iter(state.plans)))
        state.plans[shape] = plan
    return plan(batch.contiguous().numpy())

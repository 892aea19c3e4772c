"""The layers of a converted module and the operator that they call; this module imports torch.

PyTorch's tracers, exporters and compilers see an operator with its shapes; without it they would see a constant or fail in numpy.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.forward_ad import unpack_dual
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.weak import WeakTensorKeyDictionary

from fastconv.torch.how import how_of
from fastconv.torch.memory import Geometry, Memory

_OWN = (torch.float32, torch.float64)
"""Types that the kernels run; torch runs the others."""
_CONVOLVE = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)
_MEMORIES: Any = WeakTensorKeyDictionary()
_NUMBERS = itertools.count()
_NO_GRADIENT = "a converted convolution records no gradient: call the module under torch.inference_mode() or no_grad()"


@torch.library.custom_op(
    "fastconv::convolution",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups, str how, Tensor layer)"
    " -> Tensor",
)
def convolution(
    input: Any, weight: Any, bias: Any, stride: list[int], padding: list[int], dilation: list[int], groups: int, how: str, layer: Any
) -> Any:
    """Convolve with the options `how` (see `fastconv.torch.how.How`); `layer` is the cache key."""
    if how_of(how).policy is not None:
        _check_emulated(input, weight)
    else:  # a traced or exported module reaches this without the checks of its layers
        _check_types(input, weight)
        if weight.dtype not in _OWN:
            return _CONVOLVE[weight.ndim - 3](input, weight, bias, stride, padding, dilation, groups)
    geometry = Geometry(tuple(stride), tuple(padding), tuple(dilation), groups)
    shift = None if bias is None else bias.detach().numpy()
    y = torch.from_numpy(_memory_of(layer)(input.detach().numpy(), weight.detach().numpy(), shift, geometry, how))
    return _laid_out(y, input, weight, _CONVOLVE[weight.ndim - 3], geometry)


@convolution.register_fake
def _fake(
    input: Any, weight: Any, bias: Any, stride: list[int], padding: list[int], dilation: list[int], groups: int, how: str, layer: Any
) -> Any:
    return _CONVOLVE[weight.ndim - 3](input, weight, bias, stride, padding, dilation, groups)


def _autocast(
    input: Any, weight: Any, bias: Any, stride: list[int], padding: list[int], dilation: list[int], groups: int, how: str, layer: Any
) -> Any:
    """Leave a layer under `torch.autocast` to torch, as the layer itself does; an emulated one keeps its policy."""
    if how_of(how).policy is None:
        return _CONVOLVE[weight.ndim - 3](input, weight, bias, stride, padding, dilation, groups)
    with torch.autocast("cpu", enabled=False):
        return torch.ops.fastconv.convolution(input, weight, bias, stride, padding, dilation, groups, how, layer)


@torch.library.custom_op(
    "fastconv::emulated",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, int[] output_padding, int groups,"
    " bool transposed, str how, Tensor layer) -> Tensor",
)
def emulated(input: Any, weight: Any, bias: Any, *options: Any) -> Any:
    """Convolve in a policy: in three dimensions, or transposed."""
    stride, padding, dilation, more, groups, transposed, how, layer = options
    _check_emulated(input, weight)
    attributes = {"strides": tuple(stride), "dilations": tuple(dilation), "group": groups, "pads": (*padding, *padding)}
    if transposed:
        attributes["output_padding"] = tuple(more)
    batch, shift = input if input.ndim == weight.ndim else input[None], None if bias is None else bias.detach().numpy()
    found = _memory_of(layer).in_a_plane(batch.detach().numpy(), weight.detach().numpy(), shift, attributes, how, transposed)
    y = torch.from_numpy(found if input.ndim == weight.ndim else found[0])
    return _laid_out(y, input, weight, *_of_torch(weight, *options[:6]))


@emulated.register_fake
def _fake_emulated(input: Any, weight: Any, bias: Any, *options: Any) -> Any:
    function, arguments = _of_torch(weight, *options[:6])
    return function(input, weight, bias, *arguments)


def _of_torch(weight: Any, stride: Any, padding: Any, dilation: Any, more: Any, groups: int, transposed: bool) -> tuple[Any, Any]:
    """Return torch's function of a convolution, and its arguments after the bias."""
    function = getattr(torch.nn.functional, f"conv_transpose{weight.ndim - 2}d" if transposed else f"conv{weight.ndim - 2}d")
    rest = (tuple(more), groups, tuple(dilation)) if transposed else (tuple(dilation), groups)
    return function, (tuple(stride), tuple(padding), *rest)


def _autocast_emulated(*arguments: Any) -> Any:
    """Keep the policy under `torch.autocast`."""
    with torch.autocast("cpu", enabled=False):
        return torch.ops.fastconv.emulated(*arguments)


_LIBRARY = torch.library.Library("fastconv", "FRAGMENT")  # holds what it registers
_LIBRARY.impl("convolution", _autocast, "AutocastCPU")
_LIBRARY.impl("emulated", _autocast_emulated, "AutocastCPU")


def _refuse_backward(context: Any, *gradients: Any) -> Any:
    raise RuntimeError(_NO_GRADIENT)


convolution.register_autograd(_refuse_backward)
emulated.register_autograd(_refuse_backward)


def _laid_out(y: Any, input: Any, weight: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return a result in the strides that torch's function gives it: channels-last if input or weights are."""
    strides = _strides((input.shape, input.stride()), (weight.shape, weight.stride()), function, arguments)
    if all(n == 1 or a == b for n, a, b in zip(y.shape, y.stride(), strides, strict=True)):
        return y
    return torch.empty_strided(y.shape, strides, dtype=y.dtype).copy_(y)


@lru_cache(maxsize=1024)
def _strides(input: tuple[Any, Any], weight: tuple[Any, Any], function: Any, arguments: tuple[Any, ...]) -> tuple[int, ...]:
    with FakeTensorMode():  # the meta device ignores channels-last
        result: tuple[int, ...] = function(torch.empty_strided(*input), torch.empty_strided(*weight), None, *arguments).stride()
    return result


def _memory_of(layer: Any) -> Memory:
    memory: Memory | None = _MEMORIES.get(layer)
    return memory or _MEMORIES.setdefault(layer, Memory())


def memory_of(layer: torch.nn.Module) -> Memory | None:
    """Return the memory of an emulated layer, or None for any other module."""
    return _memory_of(layer._fastconv[1]) if isinstance(layer, (Emulated, EmulatedOther)) else None


class Converted:
    """Base of a torch convolution that fastconv runs."""

    _fastconv: tuple[str, Any]
    """The options, and the tensor that identifies the layer."""

    def __prepare_scriptable__(self) -> Any:
        """Reject `torch.jit.script`, which compiles a layer's source."""
        raise TypeError("a converted convolution is not scripted: use torch.jit.trace, torch.export or torch.compile")

    def _run(self: Any, x: Any, weight: Any, bias: Any) -> Any:
        pads = self._reversed_padding_repeated_twice  # the last axis first, before and after
        padding = list(pads[-2::-2])
        if self.padding_mode != "zeros" or padding != list(pads[::-2]):
            x = torch.nn.functional.pad(x, pads, "constant" if self.padding_mode == "zeros" else self.padding_mode)
            padding = [0] * len(padding)
        how, layer = self._fastconv
        return torch.ops.fastconv.convolution(x, weight, bias, self.stride, padding, self.dilation, self.groups, how, layer)


class Fast(Converted):
    """A convolution on fastconv's kernels."""

    def _conv_forward(self: Any, input: Any, weight: Any, bias: Any) -> Any:
        if isinstance(input, torch.fx.Proxy):  # the operator checks what it gets
            return self._run(input, weight, bias)
        own = super()._conv_forward  # type: ignore[misc]
        on_cpu = isinstance(input, torch.Tensor) and input.device.type == weight.device.type == "cpu"
        if not on_cpu or torch.is_autocast_enabled("cpu") or torch.onnx.is_in_onnx_export():
            return own(input, weight, bias)
        _check_types(input, weight)
        strided = input.layout == weight.layout == torch.strided and input.ndim in (weight.ndim - 1, weight.ndim)
        if not strided or weight.dtype not in _OWN:
            return own(input, weight, bias)
        _refuse_gradients(input, weight, bias)
        return self._run(input, weight, bias)


class Emulated(Converted):
    """A convolution emulated in a precision policy."""

    def _conv_forward(self: Any, input: Any, weight: Any, bias: Any) -> Any:
        if isinstance(input, torch.fx.Proxy):
            return self._run(input, weight, bias)
        if not isinstance(input, torch.Tensor):
            return super()._conv_forward(input, weight, bias)  # type: ignore[misc]
        _check_emulated(input, weight)
        _refuse_gradients(input, weight, bias)
        return self._run(input, weight, bias)


class EmulatedOther(Converted):
    """A 3-D or transposed convolution emulated in a precision policy."""

    def forward(self: Any, input: Any, *rest: Any) -> Any:
        """Convolve in the policy."""
        if not isinstance(input, torch.fx.Proxy):  # the operator checks what it gets
            _check_emulated(input, self.weight, rest)
            _refuse_gradients(input, self.weight, self.bias)
        padding, more = self.padding, (0,) * len(self.kernel_size)
        if self.transposed:
            more = self.output_padding
        else:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input, padding = torch.nn.functional.pad(input, self._reversed_padding_repeated_twice, mode), more
        sizes = (self.stride, padding, self.dilation, more)
        return torch.ops.fastconv.emulated(input, self.weight, self.bias, *sizes, self.groups, self.transposed, *self._fastconv)


def _check_types(input: Any, weight: Any) -> None:
    if input.dtype != weight.dtype:
        raise TypeError(f"input is {input.dtype}, the weights are {weight.dtype}: convert one, as with x.to({weight.dtype})")


def _check_emulated(input: Any, weight: Any, rest: tuple[Any, ...] = ()) -> None:
    """Reject what no emulated convolution takes; `rest` are further arguments of a call."""
    rank, kinds = weight.ndim - 2, {(t.dtype, t.device.type, t.layout) for t in (input, weight)}
    if rest or kinds != {(torch.float32, "cpu", torch.strided)} or input.ndim not in (rank + 1, rank + 2):
        given = f"{input.dtype} on {input.device}, shape {tuple(input.shape)}, with weights of {weight.dtype} on {weight.device}"
        given += ", and an output_size" if rest else ""
        raise ValueError(f"an emulated convolution takes float32 on the CPU, {rank + 1} or {rank + 2} axes, not {given}")


def _refuse_gradients(*tensors: Any) -> None:
    given = [t for t in tensors if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given) or any(unpack_dual(t).tangent is not None for t in given):
        raise RuntimeError(_NO_GRADIENT)


class FastConv1d(Fast, torch.nn.Conv1d):
    """torch.nn.Conv1d on fastconv's kernels."""


class FastConv2d(Fast, torch.nn.Conv2d):
    """torch.nn.Conv2d on fastconv's kernels."""


class EmulatedConv1d(Emulated, torch.nn.Conv1d):
    """torch.nn.Conv1d, emulated."""


class EmulatedConv2d(Emulated, torch.nn.Conv2d):
    """torch.nn.Conv2d, emulated."""


class EmulatedConv3d(EmulatedOther, torch.nn.Conv3d):
    """torch.nn.Conv3d, emulated."""


class EmulatedConvTranspose1d(EmulatedOther, torch.nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d, emulated."""


class EmulatedConvTranspose2d(EmulatedOther, torch.nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d, emulated."""


class EmulatedConvTranspose3d(EmulatedOther, torch.nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d, emulated."""


CLASSES: dict[Any, dict[Any, Any]] = {
    torch.nn.Conv1d: {None: torch.nn.Conv1d, Fast: FastConv1d, Emulated: EmulatedConv1d},
    torch.nn.Conv2d: {None: torch.nn.Conv2d, Fast: FastConv2d, Emulated: EmulatedConv2d},
    torch.nn.Conv3d: {None: torch.nn.Conv3d, Emulated: EmulatedConv3d},
    torch.nn.ConvTranspose1d: {None: torch.nn.ConvTranspose1d, Emulated: EmulatedConvTranspose1d},
    torch.nn.ConvTranspose2d: {None: torch.nn.ConvTranspose2d, Emulated: EmulatedConvTranspose2d},
    torch.nn.ConvTranspose3d: {None: torch.nn.ConvTranspose3d, Emulated: EmulatedConvTranspose3d},
}
"""Converted classes of each torch class; None is the torch class."""


def plain_class(module: Any) -> Any:
    """Return the torch class of a (converted) convolution, or None for other modules."""
    cls = type(module).__bases__[0] if is_parametrized(module) else type(module)
    return next((plain for plain, kinds in CLASSES.items() if cls in kinds.values()), None)


def change(layer: Any, kind: Any, how: str) -> None:
    """Make a convolution run as `Fast` or `Emulated`, or in torch for None."""
    cls = CLASSES[plain_class(layer)][kind]
    if is_parametrized(layer):  # torch made a class for this layer, with properties that compute the weights
        own = {name: value for name, value in vars(type(layer)).items() if name not in ("__dict__", "__weakref__", "__doc__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), own)
    layer.__class__ = cls
    layer.__dict__.pop("_fastconv", None)
    if kind is not None:
        # A plain tensor: deep copies and saved modules get a new one, and it is not in the state_dict. Numbered, because tracers
        # merge equal constants.
        layer._fastconv = how, torch.tensor(next(_NUMBERS))

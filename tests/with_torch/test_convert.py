"""PyTorch modules with fast convolutions give the same answers and state, on a small ResNet and a small U-Net."""

from __future__ import annotations

import copy
import io
import math
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv as fc
import fastconv.torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'fastconv[torch]'")
nn = torch.nn


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs or stride > 1 else nn.Identity()

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.skip(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(Block(8, 8), Block(8, 16, 2))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 8, 3, padding="same"), nn.Conv2d(8, 16, 3, padding="same")
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 1, 5, padding=2)

    def forward(self, x):
        a = torch.relu(self.down1(x))
        b = torch.relu(self.down2(nn.functional.max_pool2d(a, 2)))
        return self.out(torch.cat([a, self.up(b)], 1))


def made(kind):
    torch.manual_seed(1)
    module = kind().eval()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_()
            child.running_var.uniform_(0.5, 2)
    return module, torch.randn(2, 3 if kind is ResNet else 1, 20, 24)


def fast_ones(module):
    return sorted(name for name, child in module.named_modules() if type(child).__name__.startswith("Fast"))


@pytest.mark.parametrize("kind", [ResNet, UNet])
@pytest.mark.parametrize("algorithm", ["auto", "direct", "F(2x2,3x3)", "F(4x3,3x3)", "F(4x4,3x3)"])
def test_answers_are_those_of_torch(kind, algorithm):
    module, x = made(kind)
    fast = fastconv.torch.convert(module, algorithm)
    with torch.inference_mode():
        exact = copy.deepcopy(module).double()(x.double())
        got, plain = fast(x), module(x)
    assert got.dtype == torch.float32
    assert got.shape == plain.shape
    # Both are float32 through a few layers of at most 400 products; F(4x4) multiplies roundings by less than 60.
    assert torch.linalg.norm(got - exact) < 60 * 2**-24 * 10 * torch.linalg.norm(exact)


def test_eligible_layers_are_replaced_and_no_others():
    module, _ = made(ResNet)
    assert fast_ones(fastconv.torch.convert(module)) == ["body.0.conv1", "body.0.conv2", "body.1.conv2", "stem"]
    assert fast_ones(module) == []
    unet, _ = made(UNet)
    assert fast_ones(fastconv.torch.convert(unet)) == ["down1", "down2", "out"]
    for name in ("F(4x4,3x3)", "F(4x3,3x3)"):  # the last layer has 5x5 taps
        assert fast_ones(fastconv.torch.convert(unet, name)) == ["down1", "down2"]


def test_state_is_untouched():
    module, _ = made(ResNet)
    fast = fastconv.torch.convert(module)
    ours, theirs = fast.state_dict(), module.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in theirs)


def new(layer):
    return torch.randn(layer.weight.shape)


CHANGES = {
    "a new parameter": lambda layer, _: setattr(layer, "weight", nn.Parameter(new(layer))),
    "a new bias": lambda layer, _: setattr(layer, "bias", nn.Parameter(torch.randn(6))),
    "no bias": lambda layer, _: setattr(layer, "bias", None),
    "other data": lambda layer, _: setattr(layer.weight, "data", layer.weight.data * 2),
    "data in place": lambda layer, _: layer.weight.data.mul_(-1),
    "one filter of the data": lambda layer, _: layer.weight.data[3].zero_(),
    "filters that change places": lambda layer, _: layer.weight.data.copy_(layer.weight.data.flip(0)),
    "the bias's data": lambda layer, _: layer.bias.data.add_(1),
    "numpy": lambda layer, _: np.copyto(layer.weight.detach().numpy(), new(layer).numpy()),
    "a state": lambda layer, _: layer.load_state_dict({"weight": new(layer), "bias": torch.randn(6)}),
    "a state that is assigned": lambda layer, _: layer.load_state_dict({"weight": new(layer), "bias": torch.randn(6)}, assign=True),
    "no_grad": lambda layer, _: layer.weight.requires_grad_(False).mul_(2),
    "shared memory": lambda layer, _: layer.share_memory().weight.data.mul_(2),
    "channels-last weights": lambda layer, _: setattr(layer.weight, "data", layer.weight.data.transpose(0, 1).contiguous().transpose(0, 1)),
    "the original's data": lambda _, original: original.weight.data.mul_(3),
    "a step of the original": lambda _, original: step(original),
}


def step(layer):
    optimiser = torch.optim.SGD(layer.parameters(), 0.5)
    with torch.enable_grad():
        layer(torch.ones(1, 5, *(9,) * len(layer.kernel_size))).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("policy", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_weights_are_those_of_the_call_however_they_were_changed(kind, policy, change):
    """The result equals, bit for bit, that of a new layer with these weights."""
    torch.manual_seed(3)
    original = kind(5, 6, 3)
    fast, x = fastconv.torch.convert(original, policy=policy), torch.randn(2, 5, *(9,) * len(original.kernel_size))
    with torch.no_grad():
        for _ in range(3):
            CHANGES[change](fast, original)
            fresh = kind(5, 6, 3, bias=fast.bias is not None)
            fresh.load_state_dict(fast.state_dict())
            assert torch.equal(fast(x), fastconv.torch.convert(fresh, policy=policy)(x))
            error = torch.linalg.norm(fast(x) - fresh(x)) / torch.linalg.norm(fresh(x))
            assert error < (1e-6 if policy == "fp32" else 2**-6)


def test_frozen_weights_are_those_of_the_first_call():
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    fast = fastconv.torch.convert(conv, frozen=True)
    with torch.no_grad():
        first = fast(x)
        conv.weight.mul_(2)
        assert torch.equal(fast(x), first)


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrized_layers_run_fast_and_become_plain_ones(how):
    from torch.nn.utils import parametrizations, parametrize

    torch.manual_seed(0)
    conv, x = getattr(parametrizations, how)(nn.Conv2d(5, 6, 3)).eval(), torch.randn(2, 5, 9, 9)
    fast = fastconv.torch.convert(nn.Sequential(conv))
    assert type(fast[0]).__mro__[1].__name__ == "FastConv2d"
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(fast(x), conv(x), rtol=0, atol=2**-17)
            for parameter in conv.parameters():
                parameter.mul_(1.5)
        want = copy.deepcopy(fast)(x)
        parametrize.remove_parametrizations(fast[0], "weight")
        assert type(fast[0]).__name__ == "FastConv2d"
        torch.testing.assert_close(fast(x), want, rtol=0, atol=2**-17)
    assert parametrize.is_parametrized(conv)


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_hooks_that_compute_weights_are_kept(how):
    conv, x = getattr(nn.utils, how)(nn.Conv1d(5, 6, 3)).eval(), torch.randn(2, 5, 20)
    fast = fastconv.torch.convert(conv)  # before any call: its weights have a history
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fast(x), conv(x), rtol=0, atol=2**-16)
            next(conv.parameters()).mul_(1.5)
    fresh = getattr(nn.utils, how)(nn.Conv1d(5, 6, 3)).eval()
    assert fastconv.torch.compare(fresh, x, ["F(2,3)"]).rows[-1].relative_l2 < 1e-6
    assert fresh.weight.dtype == torch.float32


def padded_in_all_ways():
    torch.manual_seed(4)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 3, padding="same", padding_mode="reflect"), nn.Conv2d(5, 4, 4, padding="same")
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(4, 2, 5, padding=(2, 1), padding_mode="circular")).eval()


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def traced_and_saved(module, x):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, x), file)
    file.seek(0)
    return torch.jit.load(file)


USES = {
    "pickle": lambda module, x: pickle.loads(pickle.dumps(module)),
    "save": lambda module, x: saved(module),
    "deepcopy": lambda module, x: copy.deepcopy(module),
    "trace": lambda module, x: torch.jit.trace(module, x),
    "trace, save": traced_and_saved,
    "fx": lambda module, x: torch.fx.symbolic_trace(module),
    "export": lambda module, x: torch.export.export(module, (x,)).module(),
    "compile": lambda module, x: torch.compile(module, backend="aot_eager", fullgraph=True),
    "vmap": lambda module, x: lambda batch: torch.vmap(module)(batch),
    "data parallel": lambda module, x: nn.DataParallel(module),
    "functional": lambda module, x: lambda y: torch.func.functional_call(module, dict(module.named_parameters()), (y,)),
}


@pytest.mark.parametrize(
    ("mode", "policy", "use"),
    [(torch.inference_mode, "fp32", use) for use in USES] + [(torch.no_grad, "bf16", use) for use in ("save", "trace", "compile")],
)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_what_pytorch_makes_of_a_converted_module_computes(mode, use, policy, monkeypatch):
    """New inputs give the same bits, with weights transformed once."""
    fast = fastconv.torch.convert(padded_in_all_ways(), "im2col", policy=policy)
    x, y = torch.randn(2, 2, 3, 12, 11)
    with mode():
        want = fast(x.clone()), fast(y)
        made = USES[use](fast, x)
        assert torch.equal(made(y), want[1])
        for name in ("_plan", "_emulation"):
            monkeypatch.setattr(f"fastconv.torch.memory.{name}", None)
        assert torch.equal(made(x), want[0])


MADE = {use: USES[use] for use in ("trace", "trace, save", "export", "compile")}


@pytest.mark.parametrize("use", MADE)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_what_pytorch_makes_follows_autocast_and_types_as_torch_does(use):
    """A dense layer before the convolution gives it bfloat16 under autocast."""
    torch.manual_seed(5)
    plain = nn.Sequential(nn.Linear(9, 9), nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 9)
    with torch.no_grad():
        fast = MADE[use](fastconv.torch.convert(plain), x)
        exact = fast(x)
        with torch.autocast("cpu", torch.bfloat16):
            got, want = fast(x), plain(x)
        assert (got.dtype, want.dtype) == (torch.bfloat16, torch.bfloat16)
        assert torch.equal(got, want)
        assert torch.equal(fast(x), exact)
        if use.startswith("trace"):  # other modules cannot change their types
            for kind in (torch.float16, torch.bfloat16, torch.float64):
                made = MADE[use](fastconv.torch.convert(plain), x).to(kind)
                assert torch.equal(made(x.to(kind)), fastconv.torch.convert(copy.deepcopy(plain).to(kind))(x.to(kind)))
                assert plain[1].weight.dtype == torch.float32


@pytest.mark.parametrize("use", MADE)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_emulated_layers_keep_their_policy_under_autocast(use):
    emulated, x = fastconv.torch.convert(nn.Conv2d(3, 4, 3), policy="fp16"), torch.randn(2, 3, 8, 9)
    with torch.no_grad():
        made, want = MADE[use](emulated, x), emulated(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(made(x), want)
            if use != "compile":  # whose compiler says so in its own words
                with pytest.raises((ValueError, RuntimeError), match=r"takes float32 on the CPU, 3 or 4 axes, not torch.bfloat16"):
                    made(x.bfloat16())


@pytest.mark.parametrize("use", ["trace", "export"])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_gradients_of_what_pytorch_makes_are_refused_in_one_sentence(use):
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        made = MADE[use](fastconv.torch.convert(nn.Conv2d(3, 4, 3)), x)
    with pytest.raises(RuntimeError, match="a converted convolution records no gradient: call the module under"):
        made(x).sum().backward()


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_one_compiled_program_serves_all_layers_of_a_shape(kind):
    """Neither the number of a layer nor its weights are constants of the program."""
    from torch._dynamo import config, reset

    torch.manual_seed(6)
    layers = [fastconv.torch.convert(kind(4, 4, 3, padding=1).requires_grad_(False)) for _ in range(12)]
    x = torch.randn(2, 4, *(9,) * len(layers[0].kernel_size))
    reset()
    run = torch.compile(lambda layer, y: layer(y), backend="aot_eager", fullgraph=True)
    with torch.no_grad(), config.patch(error_on_recompile=True):
        for layer in layers:
            assert torch.equal(run(layer, x), layer(x))
        layers[0].weight.data.mul_(2)
        assert torch.equal(run(layers[0], x), layers[0](x))


def test_a_compiled_module_is_compiled_once_and_for_any_length_once_more():
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    fast = fastconv.torch.convert(padded_in_all_ways())
    reset()
    counters.clear()
    run = torch.compile(fast, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for batch, graphs in ((2, 1), (2, 1), (3, 2), (4, 2), (7, 2)):
            x = torch.randn(batch, 3, 12, 11)
            assert torch.equal(run(x), fast(x))
            assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.parametrize("use", MADE)
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_outputs_of_what_pytorch_makes_lie_as_those_of_torch(use, last):
    """Made from a contiguous input, called with one in channels-last and one of another size."""
    plain, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).eval(), torch.randn(2, 3, 12, 11)
    y = torch.randn(2, 3, 12, 11).to(memory_format=torch.channels_last) if last else torch.randn(2, 3, 12, 11)
    with torch.no_grad():
        got, want = MADE[use](fastconv.torch.convert(plain), x)(y), plain(y)
    assert got.stride() == want.stride()
    torch.testing.assert_close(got, want, rtol=0, atol=2**-17)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_an_exported_module_has_conv_nodes():
    import onnx

    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(fastconv.torch.convert(nn.Conv2d(3, 4, 3)), (torch.randn(1, 3, 8, 8),), file, dynamo=False)
    assert [node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node] == ["Conv"]


def test_the_operator_keeps_the_rules_of_operators():
    fast = fastconv.torch.convert(nn.Conv2d(3, 4, 3))
    how, layer = fast._fastconv
    for shape in ((2, 3, 8, 9), (3, 8, 9)):
        arguments = torch.randn(shape), fast.weight.detach(), fast.bias.detach(), [1, 1], [2, 0], [1, 1], 1, how, layer
        torch.library.opcheck(torch.ops.fastconv.convolution.default, arguments)


def test_types_of_the_copy_are_its_own():
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        for kind in (torch.float16, torch.bfloat16, torch.float64, torch.float32):
            y = fastconv.torch.convert(conv).to(kind)(x.to(kind))
            assert (y.dtype, conv.weight.dtype) == (kind, torch.float32)
            torch.testing.assert_close(y.float(), conv(x), rtol=0, atol=8 * float(torch.finfo(min(kind, torch.float32, key=eps)).eps))


def eps(kind):
    return -torch.finfo(kind).eps


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.complex64])
def test_another_type_than_the_weights_is_refused_in_one_sentence(kind):
    fast, x = fastconv.torch.convert(nn.Conv2d(3, 4, 3)), torch.ones(1, 3, 8, 8).to(kind)
    with torch.no_grad(), pytest.raises(TypeError, match=f"^input is {kind}, the weights are torch.float32: convert one"):
        fast(x)


def test_autocast_and_other_devices_are_left_to_torch():
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    fast = fastconv.torch.convert(conv)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), conv(x))
        assert fast(fast(x)[:, :3]).dtype == torch.bfloat16
    with torch.no_grad():
        assert fast.to("meta")(x.to("meta")).shape == (1, 4, 6, 6)


@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 3, 9, 8), (2, 1, 9, 8), (2, 3, 3, 8), (3, 9, 8)])
@pytest.mark.parametrize("last", [{"input"}, {"weight"}, {"input", "weight"}, set()])
def test_outputs_lie_as_those_of_torch(shape, last):
    conv = nn.Conv2d(shape[-3], 4, 3)
    if "weight" in last:
        conv = conv.to(memory_format=torch.channels_last)
    x = torch.randn(shape)
    if "input" in last:
        x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x[None].to(memory_format=torch.channels_last)[0]
    with torch.no_grad():
        got, want = fastconv.torch.convert(conv)(x), conv(x)
    torch.testing.assert_close(got, want, rtol=0, atol=2**-17)
    assert [s for s, n in zip(got.stride(), got.shape, strict=True) if n > 1] == [
        s for s, n in zip(want.stride(), want.shape, strict=True) if n > 1
    ]


def test_views_that_are_negated_when_read():
    conv, z = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8, dtype=torch.complex64)
    x = z.conj().imag
    assert x.is_neg()
    with torch.no_grad():
        torch.testing.assert_close(fastconv.torch.convert(conv)(x), conv(x), rtol=0, atol=2**-17)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_scripting_is_refused_in_one_sentence():
    module = nn.Sequential(fastconv.torch.convert(nn.Conv2d(3, 4, 3)), nn.ReLU())
    with pytest.raises(TypeError, match=r"use torch.jit.trace, torch.export or torch.compile"):
        torch.jit.script(module)


CALLS = [  # of the kinds of torch's own samples
    ((1, 3, 4), (3, 3, 3), {}),
    ((3, 4), (2, 3, 2), {"bias": 2, "stride": 2}),
    ((2, 8, 8), (2, 4, 3), {"groups": 2, "padding": "same"}),
    ((4, 5), (4, 1, 2), {"groups": 4, "padding": "valid", "dilation": (2,)}),
    ((1, 4, 5), (1, 4, 3), {"stride": (2,), "padding": (1,)}),
    ((1, 3, 4, 4), (3, 3, 3, 3), {"bias": 3, "stride": (2, 2), "padding": 2}),
    ((4, 6, 6), (4, 1, 2, 3), {"bias": 4, "stride": 3, "padding": 1, "groups": 4, "dilation": 2}),
    ((4, 8, 8), (2, 4, 2, 2), {"padding": "same"}),
    ((2, 4, 6, 6), (1, 4, 2, 3), {"padding": "valid", "stride": (1, 2)}),
    ((4, 6, 6), (4, 4, 1, 2), {"dilation": 2, "padding": (0, 3)}),
]


@pytest.mark.parametrize("algorithm", ["auto", "direct", "im2col", "fft"])
@pytest.mark.parametrize(("input", "weight", "options"), CALLS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_layers_take_the_calls_of_torch(kind, input, weight, options, algorithm):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(kind) for shape in (input, weight))
    b = rng.standard_normal(options["bias"]).astype(kind) if "bias" in options else None
    name, rest = f"conv{w.ndim - 2}d", {key: value for key, value in options.items() if key != "bias"}
    want = getattr(nn.functional, name)(*(t if t is None else torch.from_numpy(t) for t in (x, w, b)), **rest).numpy()
    got = getattr(fastconv, name)(x, w, b, algorithm=algorithm, **rest)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert np.linalg.norm(got - want) < 32 * np.finfo(kind).eps * np.linalg.norm(want)  # "auto" allows for 8


def test_a_converted_module_is_converted_again():
    fast = fastconv.torch.convert(padded_in_all_ways())
    assert fast_ones(fast) == ["0", "1", "2", "4"]
    assert fast_ones(again := fastconv.torch.convert(fast, "F(4x4,3x3)")) == ["0", "1"]
    assert type(again[2]) is nn.Conv2d
    emulated = fastconv.torch.convert(again, policy="fp16")
    assert [type(layer).__name__ for layer in emulated if not isinstance(layer, nn.ReLU)] == ["EmulatedConv2d"] * 4


def test_layers_run_in_many_threads():
    fast = fastconv.torch.convert(nn.Conv2d(3, 4, 3))
    inputs = [torch.randn(1 + k % 6, 3, 9, 8) for k in range(24)]  # more shapes than cached plans
    with torch.inference_mode():
        want = [fast(x) for x in inputs]

    def run(x):
        with torch.inference_mode():
            return fast(x)

    with ThreadPoolExecutor(6) as threads:
        assert all(map(torch.equal, threads.map(run, inputs), want))


def test_one_dimension_and_single_images():
    torch.manual_seed(0)
    conv, x = nn.Conv1d(4, 6, 5, padding=2), torch.randn(3, 4, 50)
    fast = fastconv.torch.convert(conv, threads=np.int64(1))
    assert type(fast).__name__ == "FastConv1d"
    with torch.no_grad():
        torch.testing.assert_close(fast(x), conv(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast(x[0]), conv(x[0]), rtol=1e-4, atol=1e-5)


def test_one_layer_in_two_places_stays_one():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    fast = fastconv.torch.convert(nn.Sequential(conv, nn.ReLU(), conv))
    assert fast[0] is fast[2]


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_gradients_are_refused_and_other_types_left_to_torch():
    conv = nn.Conv2d(3, 4, 3)
    fast = fastconv.torch.convert(conv)
    with pytest.raises(RuntimeError, match="records no gradient"):
        fast(torch.randn(1, 3, 8, 8))
    with torch.no_grad(), pytest.raises(RuntimeError, match="records no gradient"):
        torch.func.jvp(fast, (torch.ones(1, 3, 8, 8),), (torch.ones(1, 3, 8, 8),))
    wide = fastconv.torch.convert(copy.deepcopy(conv).double())
    with torch.no_grad():
        assert wide(torch.randn(1, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64
        assert type(fastconv.torch.convert(copy.deepcopy(conv).to(torch.bfloat16))) is nn.Conv2d


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"a module is a torch.nn.Module, not int"):
        fastconv.torch.convert(3)
    with pytest.raises(ValueError, match="unknown algorithm"):
        fastconv.torch.convert(nn.Conv2d(1, 1, 3), "fastest")
    with pytest.raises(ValueError, match="threads is 0"):
        fastconv.torch.convert(nn.Conv2d(1, 1, 3), threads=0)


@pytest.mark.parametrize("kind", [ResNet, UNet])
def test_report_of_a_module(kind):
    module, x = made(kind)
    rep = fastconv.torch.compare(module, x, ["F(2x2,3x3)", "F(4x4,3x3)"])
    assert [row.algorithm for row in rep.rows] == ["direct", "F(2x2,3x3)", "F(4x4,3x3)"]
    assert (rep.network, rep.images) == (kind.__name__, 2)
    assert len(rep.layers) == len(rep.rows[0].layer_relative_l2) == (6 if kind is ResNet else 3)
    with torch.inference_mode():
        exact = copy.deepcopy(module).double()(x.double()).numpy()
        got = fastconv.torch.convert(module, "F(4x4,3x3)")(x).numpy()
    error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    assert rep.rows[2].relative_l2 == pytest.approx(error, rel=1e-6)
    direct, _, fast = rep.rows
    assert 0 < direct.layer_relative_l2[0] < fast.layer_relative_l2[0] < 1e-5
    assert fast.speed_vs_direct == pytest.approx(direct.seconds / fast.seconds)


def test_torch_is_loaded_only_when_called():
    code = "import sys, fastconv; fastconv.torch.convert; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("policy", ["fp16", "bf16", "fp16-balanced", "mixed"])
def test_a_policy_does_what_it_does_in_a_network_from_onnx(policy):
    from onnx import TensorProto, helper, numpy_helper

    torch.manual_seed(2)
    conv, x = nn.Conv2d(5, 7, 3, padding=1), torch.randn(2, 5, 11, 14)
    weights = [numpy_helper.from_array(t.detach().numpy(), name) for t, name in ((conv.weight, "w"), (conv.bias, "b"))]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", pads=[1, 1, 1, 1])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, c, 11, 14]) for name, c in (("x", 5), ("y", 7))]
    graph = helper.make_graph([node], "one", info[:1], info[1:], weights)
    net = fastconv.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    want = net.run({"x": x.numpy()}, "F(4x4,3x3)", policy, channel_sum="pairwise")["y"]
    with torch.inference_mode():
        got = fastconv.torch.convert(conv, "F(4x4,3x3)", policy=policy, channel_sum="pairwise")(x).numpy()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv1d(4, 6, 5, stride=2, padding=3), (3, 4, 50)),
        (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect", dilation=2), (2, 4, 12, 9)),
        (nn.Conv2d(4, 8, (3, 5), padding="same", groups=2), (4, 12, 9)),
    ],
)
def test_every_convolution_is_emulated(conv, shape):
    emulated, x = fastconv.torch.convert(conv, policy="fp16"), torch.randn(shape)
    assert type(emulated).__name__ == f"Emulated{type(conv).__name__}"
    with torch.inference_mode():
        got, want = emulated(x), conv(x)
        error = torch.linalg.norm(got - want) / torch.linalg.norm(want)
        conv.weight.mul_(2)
        conv.bias.mul_(2)
        again = emulated(x)
    assert got.shape == want.shape
    assert 2**-15 < error < 2**-9  # inputs, weights and at most 31 sums of them, each rounded to 2**-11
    assert torch.linalg.norm(again - 2 * got) < 2**-9 * torch.linalg.norm(again)


def test_a_report_in_policies_counts_what_overflows():
    module, x = made(ResNet)
    rep = fastconv.torch.compare(
        module, 4000 * x, ["F(6x6,3x3)"], policies=["fp32", "fp16", "fp16-balanced"], channel_sums=[None, "pairwise"]
    )
    assert [(row.algorithm, row.policy, row.channel_sum) for row in rep.rows] == [
        (algorithm, policy, total)
        for policy in ("fp32", "fp16", "fp16-balanced")
        for total in (None, "pairwise")
        for algorithm in ("direct", "F(6x6,3x3)")
    ]
    rows = {(row.algorithm, row.policy, row.channel_sum): row for row in rep.rows}
    plain, balanced = (rows["F(6x6,3x3)", policy, None] for policy in ("fp16", "fp16-balanced"))
    assert "stem" in plain.overflows
    assert set(balanced.scales) == {"stem", "body.0.conv1", "body.0.conv2", "body.1.conv2"}
    assert not balanced.overflows
    assert balanced.relative_l2 < 0.1
    assert np.isnan(plain.speed_vs_direct)
    assert rows["F(6x6,3x3)", "fp32", None].speed_vs_direct > 0
    assert rows["direct", "fp32", None].relative_l2 < 1e-5 < rows["direct", "fp16", None].relative_l2


@pytest.mark.parametrize("policy", ["fp32", "fp16", "fp16-balanced"])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_inputs_that_do_not_fit_are_refused_in_one_sentence_and_empty_batches_are_not(kind, policy):
    conv = kind(2, 4, 3)
    size, padded = (8,) * len(conv.kernel_size), kind(2, 4, 3, padding=2**40)
    for algorithm in ("direct", "F(2x2,3x3)"):
        fast = fastconv.torch.convert(conv, algorithm, policy=policy)
        with torch.no_grad():
            assert fast(torch.ones(0, 2, *size)).shape == conv(torch.ones(0, 2, *size)).shape
            with pytest.raises(ValueError, match=r"^input has 3 channels, weight .* takes 2: "):
                fast(torch.ones(1, 3, *size))
            with pytest.raises(ValueError, match=r"^the kernel reaches over 3 along axis 2, more than the padded input, 2: pad more$"):
                fast(torch.ones(1, 2, *(2 for _ in size)))
            with pytest.raises(ValueError, match=r"^the padded input .* bytes, more than .*: pass less padding"):
                fastconv.torch.convert(padded, algorithm, policy=policy)(torch.ones(1, 2, *size))


def test_bad_policies():
    conv = nn.Conv2d(3, 4, 3)
    with pytest.raises(ValueError, match="fp17"):
        fastconv.torch.convert(conv, policy="fp17")
    with pytest.raises(ValueError, match="sideways"):
        fastconv.torch.convert(conv, channel_sum="sideways")
    with pytest.raises(TypeError, match="not the one string 'fp16'"):
        fastconv.torch.compare(conv, torch.randn(1, 3, 8, 8), policies="fp16")
    with torch.no_grad(), pytest.raises(ValueError, match=r"takes float32 on the CPU, 3 or 4 axes, not torch.float64"):
        fastconv.torch.convert(conv, policy="fp16")(torch.randn(1, 3, 8, 8).double())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(4, 6, (2, 3, 3), stride=(2, 1, 1), padding=(1, 0, 1), groups=2),
        nn.ConvTranspose1d(4, 6, 5, stride=3, padding=1, output_padding=2),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.ConvTranspose3d(4, 6, 2, stride=2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_policies_act_on_convolutions_of_every_kind(layer):
    torch.manual_seed(0)
    x = torch.randn(2, 4, *(7,) * len(layer.kernel_size))
    emulated = fastconv.torch.convert(layer.eval(), policy="bf16-fp32")
    with torch.no_grad():
        got, want = emulated(x), layer(x)
    assert got.shape == want.shape
    assert 2.0**-10 < float((got - want).norm() / want.norm()) < 2.0**-6


OTHERS = {
    "Conv3d": lambda: (nn.Conv3d(4, 6, (2, 3, 3), stride=(2, 1, 1), padding=(1, 0, 1), groups=2, padding_mode="circular"), (7, 7, 7)),
    "ConvTranspose1d": lambda: (nn.ConvTranspose1d(4, 6, 5, stride=3, padding=1, output_padding=2, bias=False), (9,)),
    "ConvTranspose2d": lambda: (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2), (7, 8)),
}


@pytest.mark.parametrize("use", [use for use in USES if use != "data parallel"])
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_what_pytorch_makes_of_other_emulated_layers_computes(kind, use):
    """No output of an earlier input is a constant of a trace."""
    torch.manual_seed(7)
    layer, size = OTHERS[kind]()
    emulated = fastconv.torch.convert(layer.eval(), policy="fp16")
    x, y = torch.randn(2, 2, 4, *size)
    with torch.no_grad():
        if use == "vmap":
            x, y = torch.randn(2, 3, 2, 4, *size)
            assert torch.equal(USES[use](emulated, x)(y), torch.stack([emulated(part) for part in y]))
            return
        made = USES[use](emulated, x)
        assert torch.equal(made(y), emulated(y))
        layer.weight.data.mul_(2)
        assert torch.equal(emulated(y), fastconv.torch.convert(layer, policy="fp16")(y))


@pytest.mark.parametrize("kind", OTHERS)
def test_other_emulated_layers_lie_as_those_of_torch(kind):
    layer, size = OTHERS[kind]()
    emulated = fastconv.torch.convert(layer.eval(), policy="fp16")
    x = torch.randn(2, 4, *size)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    with torch.no_grad():
        for given in (x, x[0], *([x.to(memory_format=formats[x.ndim])] if x.ndim in formats else [])):
            got, want = emulated(given), layer(given)
            assert (got.shape, got.stride()) == (want.shape, want.stride())
        want = emulated(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(emulated(x), want)
    options = layer.stride, (1,) * (x.ndim - 2), layer.dilation, layer.output_padding, layer.groups, layer.transposed
    bias = None if layer.bias is None else layer.bias.detach()
    torch.library.opcheck(torch.ops.fastconv.emulated.default, (x, layer.weight.detach(), bias, *options, *emulated._fastconv))


def test_a_policy_for_another_format_is_refused():
    with pytest.raises(ValueError, match=r"cannot act on a Conv2d of torch.float64: .* call .float\(\) first"):
        fastconv.torch.convert(nn.Sequential(nn.Conv2d(3, 4, 3).double()), policy="bf16")


def test_algorithms_that_no_layer_can_run_are_refused_in_a_comparison():
    with pytest.raises(ValueError, match=r"no convolution of the network can run F\(4x4,3x3\)"):
        fastconv.torch.compare(nn.Conv2d(3, 4, 5).eval(), torch.randn(1, 3, 9, 9), ["F(4x4,3x3)"], repeats=1)
    report = fastconv.torch.compare(nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 9, 9), repeats=1)
    assert [row.ran for row in report.rows] == [1, 1, 1, 1]


class Several(nn.Module):
    """A layer that returns a tensor, a tuple or a dict."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(2, 3, 3), how

    def forward(self, x):
        y = self.conv(x)
        return {"one": y, "two": (y, 2 * y), "named": {"a": y, "b": 2 * y}}[self.how]


@pytest.mark.parametrize("how", ["one", "two", "named"])
def test_a_report_takes_every_output(how):
    """Doubling is exact, so a second output that is twice the first has the same relative error, as have both together."""
    torch.manual_seed(4)
    module, x = Several(how), torch.randn(2, 2, 12, 12)
    row = fastconv.torch.compare(module, x, ["F(4x4,3x3)"]).rows[1]
    with torch.inference_mode():
        exact = copy.deepcopy(module.conv).double()(x.double())
        got = fastconv.torch.convert(module.conv, "F(4x4,3x3)")(x)
        error = float(torch.linalg.norm(got - exact) / torch.linalg.norm(exact))
    assert row.relative_l2 == pytest.approx(error, rel=1e-6)


def test_outputs_of_every_kind_are_compared_one_by_one():
    class Many(nn.Module):
        def __init__(self, pack):
            super().__init__()
            self.conv, self.pack = nn.Conv2d(2, 3, 3), pack

        def forward(self, x):
            y = self.conv(x)
            return self.pack(y, -2 * y)

    x, seen = torch.randn(2, 2, 9, 9), []

    def metric(outputs, reference, direct):
        seen.append({name: array.shape for name, array in outputs.items()})
        assert list(outputs) == list(reference) == list(direct)
        assert all(array.dtype == np.float64 for array in reference.values())
        return {"double": float(np.abs(outputs.get("1", 0) + 2 * outputs["0"]).max())}

    for pack in (lambda a, b: (a, b), lambda a, b: [a, b], lambda a, b: {"p": a, "q": b}):
        report = fastconv.torch.compare(Many(pack).eval(), x, ["F(2x2,3x3)"], metric=metric, repeats=1, name="many")
        assert [row.metric for row in report.rows] == [{"double": 0.0}] * 2
        assert report.network == "many"
    fastconv.torch.compare(Many(lambda a, b: a).eval(), x, ["F(2x2,3x3)"], metric=metric, repeats=1)
    pair = (2, 3, 7, 7)
    assert seen == [{"0": pair, "1": pair}] * 6 + [{"0": pair}] * 2


def test_a_report_counts_images_layers_and_products():
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2), nn.Conv2d(4, 2, 5, padding=2)).eval()
    report = fastconv.torch.compare(module, torch.randn(3, 2, 12, 12), ["F(2x2,3x3)"], policies=["fp32", "fp16"], repeats=1)
    assert (report.network, report.images, report.layers) == ("Sequential", 3, ("0", "1", "2"))
    rows = [(row.algorithm, row.policy, row.ran, row.multiplications_per_output) for row in report.rows]
    assert rows == [("direct", "fp32", 2, None), ("F(2x2,3x3)", "fp32", 1, 4), ("direct", "fp16", 3, None), ("F(2x2,3x3)", "fp16", 1, 4)]
    assert [math.isnan(row.speed_vs_direct) for row in report.rows] == [False, False, True, True]
    assert report.rows[0].speed_vs_direct == 1
    one = nn.Conv1d(2, 4, 3).eval()
    assert fastconv.torch.compare(one, (torch.randn(2, 9),), ["direct"], repeats=1).layers == ("",)
    with pytest.raises(ValueError, match="there is nothing to compare: name at least one policy and one sum over channels"):
        fastconv.torch.compare(one, torch.randn(1, 2, 9), policies=[])


def test_modules_are_timed_in_turns(monkeypatch):
    from fastconv.torch import report

    calls = []
    monkeypatch.setattr(report, "_timed", lambda module, feeds: calls.append(module) or float(len(calls)))
    times = report._in_turns(["a", None, "b"], (), 3)
    assert calls == ["a", "b", "b", "a", "b", "a"]
    assert (times[0], times[2]) == (4.0, 3.0)
    assert math.isnan(times[1])


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Conv3d])
def test_emulated_layers_say_what_they_were_given(kind):
    layer = fastconv.torch.convert(kind(2, 4, 3).eval(), policy="fp16")
    rank = len(layer.kernel_size)
    x = torch.randn(1, 2, *(5,) * rank)
    shape = lambda *n: str(tuple(n)).replace("(", r"\(").replace(")", r"\)")
    weights = ", with weights of torch.float32 on cpu"
    takes = rf"^an emulated convolution takes float32 on the CPU, {rank + 1} or {rank + 2} axes, not "
    with torch.no_grad():
        with pytest.raises(ValueError, match=takes + "torch.float64 on cpu, shape " + shape(*x.shape) + weights + "$"):
            layer(x.double())
        with pytest.raises(ValueError, match=takes + "torch.float32 on cpu, shape " + shape(*x.shape, 1) + weights + "$"):
            layer(x[..., None])
        with pytest.raises(ValueError, match=takes + "torch.float32 on cpu, shape " + shape(*x.shape[2:]) + weights + "$"):
            layer(x[0, 0])
        with pytest.raises(ValueError, match=takes + "torch.float64 on cpu, shape " + shape(*x.shape[1:]) + weights + "$"):
            layer(x[0].double())
        if kind is not nn.Conv3d:
            with pytest.raises(ValueError, match=", shape " + shape(*x.shape) + weights + ", and an output_size$"):
                layer(x, (8,) * rank)
        np.testing.assert_array_equal(layer(x[0]), layer(x)[0])


def test_emulated_convolutions_say_what_they_were_given():
    layer = fastconv.torch.convert(nn.Conv1d(2, 4, 3), policy="fp16")
    with torch.no_grad():
        for x in (torch.randn(1, 1, 2, 5), torch.randn(5), torch.randn(1, 2, 5).double()):
            given = f"{x.dtype} on cpu, shape {tuple(x.shape)}, with weights of torch.float32 on cpu"
            with pytest.raises(
                ValueError, match="^" + re.escape(f"an emulated convolution takes float32 on the CPU, 2 or 3 axes, not {given}") + "$"
            ):
                layer(x)


def test_layers_are_eligible_by_kernel_stride_dilation_groups_and_type():
    from fastconv.torch.convert import is_eligible

    def eligible(*algorithms, kind=nn.Conv2d, taps=3, **options):
        return [is_eligible(kind(4, 4, taps, **options), fc.algorithm(a) if "F" in a else a) for a in algorithms]

    assert eligible("auto", "direct", "F(2x2,3x3)", "F(2x2,5x5)") == [True, True, True, False]
    assert eligible("auto", kind=nn.Conv1d) == [True]
    assert eligible("auto", taps=2) == [False]
    assert eligible("auto", taps=(3, 2)) == [False]
    assert eligible("auto", taps=(3, 5)) == [True]
    assert eligible("auto", stride=2) == [False]
    assert eligible("auto", groups=2) == [False]
    assert eligible("auto", dilation=(1, 2)) == [False]
    assert eligible("auto", kind=nn.Conv3d) == eligible("auto", kind=nn.ConvTranspose2d) == [False]
    assert [is_eligible(nn.Conv2d(4, 4, 3).to(t)) for t in (torch.float64, torch.float16, torch.bfloat16)] == [True, False, False]
    assert not is_eligible(nn.ReLU())


def test_how_a_layer_runs_is_read_as_it_was_written():
    from fastconv.arithmetic import POLICIES
    from fastconv.torch.how import How, how_of

    two, other = fc.algorithm("F(2x2,3x3)"), fc.algorithm("F(4x4,3x3)")
    for algorithm in ("direct", two, (two, other)):
        for policy in (None, "fp16", POLICIES["mixed"]):
            how = How(algorithm, 3, policy, "blocked", True)
            assert how_of(how.text()) == how
    assert how_of(How("F(2x2,3x3)").text()) == How(two, None, None, "linear", False)

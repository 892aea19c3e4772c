"""PyTorch modules with fast convolutions: the same answers, the same state; a small ResNet and a small U-Net."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest

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


def test_changed_weights_are_seen():
    module, x = made(UNet)
    fast = fastconv.torch.convert(module, "F(2x2,3x3)")
    with torch.inference_mode():
        before = fast(x)
    with torch.no_grad():
        module.down1.weight.mul_(2)
    fast.load_state_dict({**fast.state_dict(), "down2.bias": torch.ones(16)})
    with torch.inference_mode():
        after, want = fast(x), module(x)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, want, rtol=1e-4, atol=1e-5)


def test_one_dimension_and_single_images():
    torch.manual_seed(0)
    conv, x = nn.Conv1d(4, 6, 5, padding=2), torch.randn(3, 4, 50)
    fast = fastconv.torch.convert(conv)
    assert type(fast).__name__ == "FastConv1d"
    with torch.no_grad():
        torch.testing.assert_close(fast(x), conv(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast(x[0]), conv(x[0]), rtol=1e-4, atol=1e-5)


def test_one_layer_in_two_places_stays_one():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    fast = fastconv.torch.convert(nn.Sequential(conv, nn.ReLU(), conv))
    assert fast[0] is fast[2]


def test_gradients_are_refused_and_other_types_left_to_torch():
    conv = nn.Conv2d(3, 4, 3)
    fast = fastconv.torch.convert(conv)
    with pytest.raises(RuntimeError, match="records no gradient"):
        fast(torch.randn(1, 3, 8, 8))
    wide = fastconv.torch.convert(copy.deepcopy(conv).double())
    with torch.no_grad():
        assert wide(torch.randn(1, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64
        assert type(fastconv.torch.convert(copy.deepcopy(conv).to(torch.bfloat16))) is nn.Conv2d


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"a module is a torch.nn.Module, not int"):
        fastconv.torch.convert(3)
    with pytest.raises(ValueError, match="unknown algorithm"):
        fastconv.torch.convert(nn.Conv2d(1, 1, 3), "fastest")


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


def distance(fast, x):
    """How far a converted layer is from torch's own on the same parameters, in units of float32 at the largest output."""
    with torch.no_grad():
        want = nn.functional.conv2d(x, fast.weight, fast.bias, padding=1)
        return float((fast(x) - want).abs().max() / want.abs().max()) * 2**24


CHANGES = {
    "another parameter": lambda f: setattr(f, "weight", nn.Parameter(torch.randn(8, 8, 3, 3))),
    "another bias": lambda f: setattr(f, "bias", nn.Parameter(torch.randn(8))),
    "data set": lambda f: setattr(f.weight, "data", f.weight.data * 2),
    "data copied": lambda f: f.weight.data.copy_(torch.randn(8, 8, 3, 3)),
    "data multiplied": lambda f: f.weight.data.mul_(0.5),
    "one number": lambda f: f.weight.data[0, 0].fill_(3.0),
    "bias data": lambda f: f.bias.data.add_(1),
    "by numpy": lambda f: f.weight.detach().numpy().__imul__(2),
    "no bias": lambda f: setattr(f, "bias", None),
    "state": lambda f: f.load_state_dict({name: torch.randn_like(value) for name, value in f.state_dict().items()}),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("algorithm", ["auto", "F(4x4,3x3)"])
def test_weights_changed_in_whatever_way_are_seen(how, algorithm):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 20, 22)
    fast = fastconv.torch.convert(nn.Conv2d(8, 8, 3, padding=1).eval(), algorithm)
    emulated = fastconv.torch.convert(nn.Conv2d(8, 8, 3, padding=1).eval(), policy="fp32", channel_sum="pairwise")
    for layer in (fast, emulated):
        assert distance(layer, x) < 200
        for _ in range(3):
            CHANGES[how](layer)
            assert distance(layer, x) < 200


def test_frozen_weights_are_transformed_once():
    torch.manual_seed(0)
    x, conv = torch.randn(2, 8, 20, 22), nn.Conv2d(8, 8, 3, padding=1).eval()
    fast = fastconv.torch.convert(conv, frozen=True)
    with torch.no_grad():
        before = fast(x)
        conv.weight.mul_(2)
        assert torch.equal(fast(x), before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_weights_that_are_computed_before_each_call(make):
    module, x = make(nn.Conv2d(8, 8, 3)).eval(), torch.randn(1, 8, 9, 9)
    fast = fastconv.torch.convert(module)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fast(x), module(x), rtol=1e-4, atol=1e-5)
            next(fast.parameters()).mul_(1.5)
            for name, value in fast.named_parameters():
                module.get_parameter(name).copy_(value)


@pytest.mark.parametrize("policy", ["fp32", "bf16"])
def test_a_converted_module_is_copied_and_saved(policy, tmp_path):
    module, x = made(ResNet)
    fast = fastconv.torch.convert(module, "F(2x2,3x3)", policy=policy)
    with torch.inference_mode():
        want = fast(x)
        torch.save(fast, tmp_path / "fast.pt")
        again = torch.load(tmp_path / "fast.pt", weights_only=False)
        assert fast_ones(again) == fast_ones(fast)
        assert torch.equal(again(x), want)
        assert torch.equal(copy.deepcopy(fast)(x), want)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_and_compiled_graphs_hold_torchs_own_convolution():
    module, x = made(UNet)
    fast, other = fastconv.torch.convert(module), torch.randn_like(x)
    with torch.no_grad():
        traced = torch.jit.trace(fast, x)
        torch.testing.assert_close(traced(other), module(other), rtol=1e-4, atol=1e-5)
        compiled = torch.compile(fast, backend="eager")
        torch.testing.assert_close(compiled(other), module(other), rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(torch.compile(fast, backend="eager")(x), module(x), rtol=1e-4, atol=1e-5)


def test_types_and_layouts_that_torch_takes():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 8, 3).eval(), torch.randn(2, 3, 12, 12)
    with torch.inference_mode():
        inside = fastconv.torch.convert(nn.Conv2d(3, 8, 3).eval())  # tensors without a version
        assert inside(x).shape == (2, 8, 10, 10)
    with torch.no_grad():
        fast = fastconv.torch.convert(conv)
        last = fast(x.to(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last, conv(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast(torch._neg_view(x)), conv(-x), rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert fast(x).dtype == conv(x).dtype == torch.bfloat16
        with pytest.raises(RuntimeError, match="double|Double"):
            fast(x.double())
        narrow = fastconv.torch.convert(conv).half()
        assert narrow(x.half()).dtype == torch.float16
        assert conv.weight.dtype == fast.weight.dtype == torch.float32
        assert fastconv.torch.convert(conv).double()(x.double()).dtype == torch.float64


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


def test_a_policy_for_another_format_is_refused():
    with pytest.raises(ValueError, match=r"cannot act on a Conv2d of torch.float64: .* call .float\(\) first"):
        fastconv.torch.convert(nn.Sequential(nn.Conv2d(3, 4, 3).double()), policy="bf16")


def test_algorithms_that_no_layer_can_run_are_refused_in_a_comparison():
    with pytest.raises(ValueError, match=r"no convolution of the network can run F\(4x4,3x3\)"):
        fastconv.torch.compare(nn.Conv2d(3, 4, 5).eval(), torch.randn(1, 3, 9, 9), ["F(4x4,3x3)"], repeats=1)
    report = fastconv.torch.compare(nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 9, 9), repeats=1)
    assert [row.ran for row in report.rows] == [1, 1, 1, 1]


SAMPLES = [
    # input, weight, bias, and what torch.nn.functional takes by name
    ((1, 3, 4), (3, 3, 3), True, {"stride": (2,), "padding": 2}),
    ((2, 4, 5), (4, 4, 3), False, {"stride": 1, "padding": "same"}),
    ((3, 4), (3, 3, 3), True, {"stride": 2, "padding": 2}),
    ((4, 9), (6, 2, 2), True, {"groups": 2, "dilation": 3}),
    ((2, 4, 9), (6, 2, 2), False, {"padding": "valid"} | {"groups": 2}),
    ((1, 3, 4, 4), (3, 3, 3, 3), True, {"stride": 2, "padding": 1}),
    ((2, 4, 8, 8), (2, 2, 3, 3), False, {"groups": 2, "padding": (2, 1), "dilation": (4, 4)}),
    ((2, 4, 6, 6), (4, 1, 3, 3), True, {"groups": 4, "padding": "same"}),
    ((4, 5, 5), (1, 4, 5, 3), True, {"padding": "same"}),
    ((3, 7, 6), (4, 3, 3, 1), False, {"stride": (2, 1), "padding": "valid"}),
    ((4, 6, 6), (4, 2, 1, 1), True, {"groups": 2}),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "bias", "options"), SAMPLES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_functions_take_what_torchs_own_take(x_shape, w_shape, bias, options, dtype):
    """With a batch and without one."""
    rng, dims = np.random.default_rng(0), len(w_shape) - 2
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    b = rng.standard_normal(w_shape[0]).astype(dtype) if bias else None
    theirs = (nn.functional.conv1d, nn.functional.conv2d)[dims - 1]
    want = theirs(torch.from_numpy(x), torch.from_numpy(w), None if b is None else torch.from_numpy(b), **options).numpy()
    scale = np.abs(x).max() * np.abs(w).reshape(len(w), -1).sum(axis=1).max() + 3
    for algorithm in ("auto", "direct", "im2col"):
        got = (fastconv.conv1d, fastconv.conv2d)[dims - 1](x, w, b, **options, algorithm=algorithm)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=20 * np.finfo(dtype).eps * scale)

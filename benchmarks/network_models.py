"""The networks of benchmarks/networks.py as ONNX models: random weights (fixed seed), scaled as by He et al."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


class Builder:
    """Builder of a model; each method adds an operator and returns the name of its output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.rng = np.random.default_rng(seed)

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add an operator; return the name of its output."""
        from onnx import helper

        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def weight(self, values: np.ndarray) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def normal(self, *shape: int, fan: int) -> str:
        """Add normal weights, scaled as by He et al."""
        return self.weight(self.rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan)))

    def conv(self, x: str, channels: int, filters: int, kernel: int = 3, stride: int = 1, pad: int | None = None, bias: bool = True) -> str:
        """Add a convolution."""
        pad = kernel // 2 if pad is None else pad
        inputs = [x, self.normal(filters, channels, kernel, kernel, fan=channels * kernel**2)]
        if bias:
            inputs.append(self.weight(self.rng.standard_normal(filters) / 10))
        return self.node("Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def norm(self, x: str, channels: int, scale: float = 1.0) -> str:
        """Add batch normalisation with statistics that roughly keep the scale of the values."""
        r = self.rng
        values = (
            scale * r.uniform(0.8, 1.2, channels),
            r.normal(0, 0.1, channels),
            r.normal(0, 0.1, channels),
            r.uniform(0.8, 1.2, channels),
        )
        return self.node("BatchNormalization", [x, *map(self.weight, values)])

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """Add a dense layer."""
        bias = self.weight(self.rng.standard_normal(outputs) / 10)
        return self.node("Gemm", [x, self.normal(outputs, inputs, fan=inputs), bias], transB=1)

    def model(self, name: str, shape: tuple[int, ...], output: str, out_shape: tuple[int, ...]) -> Any:
        """Return the model."""
        from onnx import TensorProto, helper

        self.nodes[-1].output[0] = "y"
        assert output == self.nodes[-1].name
        tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in (("x", shape), ("y", out_shape))]
        graph = helper.make_graph(self.nodes, name, tensors[:1], tensors[1:], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def vgg16() -> Any:
    """Return VGG-16 (Simonyan and Zisserman 2015), 224x224."""
    b, x, channels = Builder(), "x", 3
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x, channels = b.node("Relu", [b.conv(x, channels, filters)]), filters
        x = b.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Flatten", [x])
    x = b.node("Relu", [b.dense(x, 512 * 49, 4096)])
    x = b.node("Relu", [b.dense(x, 4096, 4096)])
    return b.model("vgg16", (1, 3, 224, 224), b.dense(x, 4096, 1000), (1, 1000))


def resnet(depth: int) -> Any:
    """Return ResNet-18 or ResNet-50 (He et al. 2016; the latter with the stride in the 3x3 convolution), 224x224."""
    blocks, deep = {18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True)}[depth]
    b = Builder()

    def step(x: str, channels: int, filters: int, kernel: int = 3, stride: int = 1, scale: float = 1.0) -> str:
        return b.norm(b.conv(x, channels, filters, kernel, stride, bias=False), filters, scale)

    x = b.node("Relu", [step("x", 3, 64, 7, 2)])
    x = b.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        wide = 4 * width if deep else width
        for block in range(count):
            stride = 2 if stage and not block else 1
            short = x if stride == 1 and channels == wide else step(x, channels, wide, 1, stride)
            if deep:
                inner = b.node("Relu", [step(x, channels, width, 1)])
                inner = b.node("Relu", [step(inner, width, width, 3, stride)])
                inner = step(inner, width, wide, 1, scale=0.3)
            else:
                inner = step(b.node("Relu", [step(x, channels, width, 3, stride)]), width, width, scale=0.3)
            x, channels = b.node("Relu", [b.node("Add", [inner, short])]), wide
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x])])
    return b.model(f"resnet{depth}", (1, 3, 224, 224), b.dense(x, channels, 1000), (1, 1000))


def waifu2x() -> Any:
    """Return the seven convolutions of waifu2x's vgg7, 256x256, without padding."""
    b, x = Builder(), "x"
    widths = (3, 32, 32, 64, 64, 128, 128)
    for channels, filters in zip(widths, widths[1:], strict=False):
        x = b.node("LeakyRelu", [b.conv(x, channels, filters, pad=0)], alpha=0.1)
    return b.model("waifu2x-vgg7", (1, 3, 256, 256), b.conv(x, 128, 3, pad=0), (1, 3, 242, 242))


def demosaic() -> Any:
    """Return the demosaicking network (Gharbi et al. 2016) with random weights, 512x512."""
    from fastconv.network.zoo.demosaic import SHAPES, model

    rng = np.random.default_rng(0)
    fans = {name: int(np.prod(shape[1:])) for name, shape in SHAPES.items()}
    made = model({n: (rng.standard_normal(s) * np.sqrt(2 / fans[n])).astype("f4") for n, s in SHAPES.items()})
    for value, size in ((made.graph.input[0], 512), (made.graph.output[0], 450)):
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for length in (1, 3, size, size):
            shape.dim.add().dim_value = length
    return made


@dataclass(frozen=True)
class Case:
    """A network: its maker, and the shape and names of its input and output."""

    make: Callable[[], Any]
    shape: tuple[int, ...]
    input: str = "x"
    output: str = "y"

    def feed(self) -> np.ndarray:
        """Return the input: normal numbers."""
        return np.random.default_rng(1).standard_normal(self.shape, np.float32)


CASES = {
    "VGG-16 224x224": Case(vgg16, (1, 3, 224, 224)),
    "ResNet-18 224x224": Case(lambda: resnet(18), (1, 3, 224, 224)),
    "ResNet-50 224x224": Case(lambda: resnet(50), (1, 3, 224, 224)),
    "demosaic 512x512": Case(demosaic, (1, 3, 512, 512), "mosaic", "picture"),
    "waifu2x vgg7 256x256": Case(waifu2x, (1, 3, 256, 256)),
}

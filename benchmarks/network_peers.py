"""Call each peer for a whole network: the ONNX file loaded once, the input as a numpy array.

Each maker imports its library itself, so this file loads in a Python that has only some of them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]
Network = tuple[Path, str, str, np.ndarray]
"""The model's file, the names of its input and output, and the input."""


def onnxruntime_network(network: Network, threads: int) -> Call:
    import onnxruntime

    path, given, made, x = network
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run([made], {given: x})[0]


def openvino_network(network: Network, threads: int) -> Call:
    import openvino

    path, _, _, x = network
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def call() -> Any:
        request.infer()
        return request.get_output_tensor().data

    return call


def ncnn_network(network: Network, threads: int) -> Call:
    import ncnn

    path, _, _, x = network
    with tempfile.TemporaryDirectory() as folder:
        param, weights = Path(folder) / "net.param", Path(folder) / "net.bin"
        shape = ",".join(map(str, x.shape))
        command = [str(Path(sys.executable).parent / "pnnx"), str(path), f"inputshape=[{shape}]f32", "fp16=0"]
        scratch = [f"{option}={Path(folder) / 'net'}.{end}" for option, end in (("pnnxparam", "pp"), ("pnnxbin", "pb"), ("pnnxpy", "py"))]
        scratch += [f"pnnxonnx={Path(folder) / 'net.onnx'}", f"ncnnpy={Path(folder) / 'ncnn.py'}"]
        subprocess.run(
            [*command, f"ncnnparam={param}", f"ncnnbin={weights}", *scratch],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        net = ncnn.Net()
        net.opt.num_threads = threads
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
        net.load_param(str(param))
        net.load_model(str(weights))
    image = ncnn.Mat(x[0]).clone()

    def call() -> Any:
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], image)
        return np.array(extractor.extract(net.output_names()[0])[1], copy=False)

    return call


def mnn_network(network: Network, threads: int) -> Call:
    import MNN

    path, given, made, x = network
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "net.mnn"
        command = [str(Path(sys.executable).parent / "mnnconvert"), "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted)]
        subprocess.run([*command, "--bizCode", "net"], check=True, stdout=subprocess.DEVNULL)
        runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": threads},))
        net = MNN.nn.load_module_from_file(str(converted), [given], [made], runtime_manager=runtime)
    image = MNN.expr.convert(MNN.expr.const(x, x.shape, MNN.expr.NCHW), MNN.expr.NC4HW4)
    image.read()

    def call() -> Any:
        return MNN.expr.convert(net.forward(image), MNN.expr.NCHW).read()

    return call


def torch_network(network: Network, threads: int) -> Call:
    """Trace the graph node by node, and let torch freeze and fuse it, channels last, as its users would."""
    import onnx
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    path, given, made, x = network
    graph = onnx.load(str(path)).graph
    weights = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
    steps = [
        (n.op_type, list(n.input), list(n.output), {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}) for n in graph.node
    ]
    del graph

    def one(kind: str, inputs: list[Any], a: dict[str, Any]) -> Any:
        t, *rest = inputs
        if kind in ("Conv", "ConvTranspose"):
            f = functional.conv2d if kind == "Conv" else functional.conv_transpose2d
            return f(t, *rest, stride=a.get("strides", [1, 1]), padding=a.get("pads", [0] * 4)[:2], groups=a.get("group", 1))
        if kind == "BatchNormalization":
            scale, shift, mean, var = rest
            return functional.batch_norm(t, mean, var, scale, shift, eps=1e-5)
        if kind == "MaxPool":
            return functional.max_pool2d(t, a["kernel_shape"], a["strides"], a.get("pads", [0] * 4)[:2])
        if kind == "Gemm":
            return functional.linear(t, *rest)
        if kind == "Slice":
            return t[:, :, 30:-30, 30:-30]
        if kind == "Split":
            return t.chunk(2, a["axis"])
        plain: dict[str, Callable[[], Any]] = {
            "Relu": lambda: functional.relu(t),
            "LeakyRelu": lambda: functional.leaky_relu(t, a["alpha"]),
            "GlobalAveragePool": lambda: t.mean((2, 3), keepdim=True),
            "Flatten": lambda: t.flatten(1),
            "Add": lambda: t + rest[0],
            "Mul": lambda: t * rest[0],
            "Concat": lambda: torch.cat(inputs, a["axis"]),
        }
        return plain[kind]()

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in weights.items():
                self.register_buffer("weight_" + name.replace(".", "_"), tensor)

        def forward(self, image: Any) -> Any:
            values = {given: image} | {name: getattr(self, "weight_" + name.replace(".", "_")) for name in weights}
            for kind, inputs, outputs, attributes in steps:
                result = one(kind, [values[i] for i in inputs], attributes)
                values.update(zip(outputs, result if isinstance(result, tuple) else (result,), strict=True))
            return values[made]

    image = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(False), torch.no_grad():
        net = torch.jit.freeze(torch.jit.trace(Net().eval(), image))
        net = torch.jit.optimize_for_inference(net)

    def call() -> Any:
        with torch.inference_mode():
            return net(image)

    return call


PEERS: dict[str, tuple[str, Callable[[Network, int], Call]]] = {
    "torch": ("torch", torch_network),
    "onnxruntime": ("onnxruntime", onnxruntime_network),
    "OpenVINO": ("openvino", openvino_network),
    "ncnn": ("ncnn", ncnn_network),
    "MNN": ("MNN", mnn_network),
}
"""Name to package and maker."""

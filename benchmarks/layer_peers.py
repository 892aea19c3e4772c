"""Call each peer for one convolution layer: weights prepared once, the input as a numpy array.

Each maker imports its library itself, so this file loads in a Python that has only some of them. An input in the
peer's own layout is prepared outside the call, as its users would do. The output keeps the peer's layout.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A layer: batch, channels, filters, height = width (or length), kernel size; zeros at the border keep the size at stride 1."""

    batch: int
    channels: int
    filters: int
    size: int
    kernel: int = 3
    dims: int = 2
    stride: int = 1
    groups: int = 1

    @property
    def output(self) -> int:
        """Output height = width."""
        return (self.size - 1) // self.stride + 1

    @property
    def operations(self) -> int:
        """Floating-point operations of the direct convolution."""
        return 2 * self.batch * self.channels * self.filters // self.groups * (self.output * self.kernel) ** self.dims

    @property
    def pad(self) -> int:
        """Zeros at each border."""
        return self.kernel // 2

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return input and weights: normal numbers, weights scaled as by He et al."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch, self.channels, *(self.size,) * self.dims))
        taken = self.channels // self.groups
        w = rng.standard_normal((self.filters, taken, *(self.kernel,) * self.dims))
        return x.astype("f4"), (w * np.sqrt(2 / (taken * self.kernel**self.dims))).astype("f4")


def onnx_model(case: Case) -> bytes:
    """Return the layer as an ONNX model."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x, w = case.arrays()
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], pads=[case.pad] * (2 * case.dims), strides=[case.stride] * case.dims, group=case.groups
    )
    shape = [case.batch, case.filters, *(case.output,) * case.dims]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", list(x.shape)), ("y", shape))]
    graph = helper.make_graph([node], "layer", tensors[:1], tensors[1:], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def plain(case: Case) -> None:
    """Reject strides and groups for makers that do not support them."""
    if case.stride != 1 or case.groups != 1:
        raise ValueError("strides and groups are not implemented for this peer")


def torch_layer(case: Case, threads: int, channels_last: bool = False) -> Call:
    import torch

    torch.set_num_threads(threads)
    x, w = (torch.from_numpy(a) for a in case.arrays())
    convolve = torch.nn.functional.conv2d if case.dims == 2 else torch.nn.functional.conv1d
    if channels_last:
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))

    def call() -> Any:
        with torch.inference_mode():
            return convolve(x, w, padding=case.pad, stride=case.stride, groups=case.groups)

    return call


def torch_channels_last(case: Case, threads: int) -> Call:
    if case.dims == 1:
        raise ValueError("torch has no channels-last layout in one dimension")
    return torch_layer(case, threads, True)


def onnxruntime_layer(case: Case, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(onnx_model(case), options, providers=["CPUExecutionProvider"])
    x = case.arrays()[0]
    return lambda: session.run(None, {"x": x})[0]


def openvino_layer(case: Case, threads: int) -> Call:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(onnx_model(case)), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(case.arrays()[0]))

    def call() -> Any:
        request.infer()
        return request.get_output_tensor().data

    return call


def ncnn_layer(case: Case, threads: int) -> Call:
    plain(case)
    import ncnn

    if case.batch != 1:
        raise ValueError("ncnn computes one image at a time")
    x, w = case.arrays()
    kind = "Convolution1D" if case.dims == 1 else "Convolution"
    layer = f"{kind} conv 1 1 x y 0={case.filters} 1={case.kernel} 4={case.pad} 5=0 6={w.size}"
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder:
        param, weights = Path(folder) / "layer.param", Path(folder) / "layer.bin"
        param.write_text(f"7767517\n2 2\nInput x 0 1 x\n{layer}\n")
        weights.write_bytes(b"\0\0\0\0" + w.tobytes())
        net.load_param(str(param))
        net.load_model(str(weights))
    image = ncnn.Mat(x[0]).clone()

    def call() -> Any:
        extractor = net.create_extractor()
        extractor.input("x", image)
        return np.array(extractor.extract("y")[1], copy=False)

    call.net = net  # type: ignore[attr-defined]
    return call


def mnn_layer(case: Case, threads: int) -> Call:
    import sys

    import MNN

    if case.dims == 1:
        raise ValueError("MNN takes a one-dimensional layer only as an image of height one")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "layer.onnx", Path(folder) / "layer.mnn"
        given.write_bytes(onnx_model(case))
        convert = [str(Path(sys.executable).parent / "mnnconvert"), "-f", "ONNX", "--modelFile", str(given), "--MNNModel", str(made)]
        subprocess.run([*convert, "--bizCode", "layer"], check=True, stdout=subprocess.DEVNULL)
        runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": threads},))
        net = MNN.nn.load_module_from_file(str(made), ["x"], ["y"], runtime_manager=runtime)
    x = case.arrays()[0]
    image = MNN.expr.convert(MNN.expr.const(x, x.shape, MNN.expr.NCHW), MNN.expr.NC4HW4)
    image.read()

    def call() -> Any:
        return MNN.expr.convert(net.forward(image), MNN.expr.NCHW).read()

    return call


def litert_layer(case: Case, threads: int) -> Call:
    plain(case)
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    x, w = case.arrays()
    if case.dims == 1:
        x, w = x[:, :, None], w[:, :, None]
    x, w = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, w))

    def tensor(name: str, shape: tuple[int, ...], buffer: int) -> Any:
        t = schema.TensorT()
        t.name, t.shape, t.buffer, t.type = name, list(shape), buffer, schema.TensorType.FLOAT32
        return t

    model, graph, operator, options = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.Conv2DOptionsT()
    model.version, model.description = 3, "layer"
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    model.operatorCodes = [code]
    buffers = [schema.BufferT() for _ in range(4)]
    buffers[1].data = np.frombuffer(w.tobytes(), np.uint8)
    buffers[2].data = np.zeros(4 * case.filters, np.uint8)
    model.buffers = buffers
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    graph.tensors = [tensor("x", x.shape, 0), tensor("w", w.shape, 1), tensor("b", (case.filters,), 2)]
    graph.tensors.append(tensor("y", (*x.shape[:-1], case.filters), 3))
    graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=threads)
    interpreter.allocate_tensors()
    place, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.set_tensor(place, x)

    def call() -> Any:
        interpreter.invoke()
        return np.moveaxis(interpreter.tensor(result)(), -1, 1)

    return call


def jax_layer(case: Case, threads: int) -> Call:
    plain(case)
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # the pool has one thread per allowed core
    import jax

    x, w = case.arrays()
    kept = "HW"[: case.dims]
    layouts = (f"N{kept}C", f"{kept}IO", f"N{kept}C")
    image = jax.device_put(np.ascontiguousarray(np.moveaxis(x, 1, -1)))
    kernel = jax.device_put(np.ascontiguousarray(np.moveaxis(w, (0, 1), (-1, -2))))
    run = jax.jit(lambda a: jax.lax.conv_general_dilated(a, kernel, (1,) * case.dims, "SAME", dimension_numbers=layouts))
    return lambda: np.moveaxis(np.asarray(run(image).block_until_ready()), -1, 1)


PEERS: dict[str, tuple[str, Callable[[Case, int], Call]]] = {
    "torch": ("torch", torch_layer),
    "torch channels-last": ("torch", torch_channels_last),
    "onnxruntime": ("onnxruntime", onnxruntime_layer),
    "OpenVINO": ("openvino", openvino_layer),
    "ncnn": ("ncnn", ncnn_layer),
    "MNN": ("MNN", mnn_layer),
    "LiteRT": ("ai-edge-litert", litert_layer),
    "jax": ("jax", jax_layer),
}
"""Name to package and maker."""

"""Write a part of a network in onnxruntime's channels-blocked operators, so that it hands blocked tensors to fastconv and back.

onnxruntime runs convolutions in the same layout (nChw8c or nChw16c) by operators of the domain com.microsoft.nchwc, which its
own optimiser makes. A tensor in this layout keeps the shape of the model, and the memory of blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fastconv.native import Machine, machine, remembered
from fastconv.network.graph.graph import Array, Attribute, Node
from fastconv.network.operators.table import operator_of
from fastconv.network.rewrite.cut import reads
from fastconv.network.rewrite.export import leaves_of

DOMAIN = "com.microsoft.nchwc"
_POOLS = ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")
_JOINS = ("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min")

Shape = tuple[int, ...]
QUIET = 4
"""onnxruntime's level of logging for fatal errors: every other error is raised."""

_LARGE = 2**26
"""Bytes from which memory inside sessions is taken in one piece: below that, pieces waste little."""


class Terms(NamedTuple):
    """How a session runs.

    Attributes
    ----------
    threads : int
        Threads of each operator.
    alone : bool
        Whether the session is the whole network. The threads of others stop between calls: threads that wait for work take the
        processors from fastconv's own.
    """

    threads: int = 1
    alone: bool = False


def opened(model: Any, terms: Terms, outside: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return a session for an ONNX model; `outside` are the constants that the model holds without their values."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(QUIET)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = terms.threads, 1
    options.log_severity_level = QUIET
    if not terms.alone:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if _share_memory():
        _sharing(options)
    if outside:
        options.add_external_initializers(list(outside), list(outside.values()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@lru_cache(maxsize=1)
def _share_memory() -> bool:
    """Make one allocator for all sessions, which takes no more from the system than it is asked for; tell whether there is one."""
    import onnxruntime

    try:
        where = onnxruntime.OrtMemoryInfo("Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
        onnxruntime.create_and_register_allocator(where, onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1}))
    except Exception:  # another library has made one, or this release has none
        return False
    return True


def _sharing(options: Any) -> None:
    """Let a session share the memory of its tensors with others, piece by piece: a plan of memory would take one whole piece more."""
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_env_allocators", "1")


def reserve(size: int) -> None:
    """Take a piece of memory for the tensors inside all sessions: they are cut from it, and do not each take their own."""
    if size >= _LARGE and _share_memory():
        _reserving().run(None, {"size": np.array([size])})


@lru_cache(maxsize=1)
def _reserving() -> Any:
    """Return a session that makes a tensor of a given size, and drops it."""
    import onnxruntime
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("size", "shape")]
    zero = helper.make_tensor("zero", TensorProto.UINT8, [1], [0])
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["tensor"], value=zero), helper.make_node("Shape", ["tensor"], ["shape"])]
    model = helper.make_model(
        helper.make_graph(nodes, "reserve", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = QUIET
    _sharing(options)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@lru_cache(maxsize=1)
def copies_constants() -> bool:
    """Tell whether a session of onnxruntime has its own copy of the constants from outside the model, by an experiment."""
    from onnxruntime import __version__

    return bool(_copied(__version__)[0])


@remembered
def _copied(version: str) -> tuple[float, ...]:
    """Make the experiment, once for each release: a constant changes after the session is made."""
    from onnx import TensorProto, helper
    from onnxruntime import OrtValue

    w = np.zeros(1 << 14, np.float32)
    held = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=w.shape, data_location=TensorProto.EXTERNAL)
    held.external_data.add(key="location", value="outside")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, w.shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "probe", ends[:1], ends[1:], [held])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = opened(model, Terms(), {"w": OrtValue.ortvalue_from_numpy(w)})
        w[...] = 1
        return (float(not session.run(None, {"x": np.zeros_like(w)})[0].any()),)
    except Exception:  # its errors have no common class
        return (0.0,)


@lru_cache(maxsize=1)
def block_length() -> int:
    """Return the channels of a block in onnxruntime on this processor, by an experiment; 1 where it has no such layout."""
    from onnxruntime import __version__

    return int(_found(__version__, machine())[0])


@remembered
def _found(version: str, here: Machine) -> tuple[float, ...]:
    """Make the experiment, once for each release and processor."""
    from onnx import TensorProto, helper

    channels = 64
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 1, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("ReorderInput", ["x"], ["y"], domain=DOMAIN)], "probe", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)], ir_version=8)
    x = np.arange(2 * channels, dtype=np.float32).reshape(1, channels, 1, 2)
    try:
        found = opened(model, Terms()).run(None, {"x": x})[0].reshape(-1)
    except Exception:  # its errors have no common class; another release may lack the operator
        return (1,)
    return (next((b for b in (4, 8, 16, 32) if np.array_equal(found, blocked(x, b).reshape(-1))), 1),)


def shares_layout() -> bool:
    """Tell whether onnxruntime's blocks of channels are as long as the vectors of the kernels."""
    return block_length() == machine().vector_bytes // 4


def blocked(x: Array, lanes: int) -> Array:
    """Return a tensor (batch, channels, height, width) in blocks: (batch, channels / lanes, height, width, lanes).

    Examples
    --------
    >>> blocked(np.arange(8).reshape(1, 4, 1, 2), 2).reshape(-1).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    batch, channels, height, width = x.shape
    return np.ascontiguousarray(np.moveaxis(x.reshape(batch, channels // lanes, lanes, height, width), 2, 4))


class Writer:
    """Writes the nodes of a part: in blocks what can be, from inputs in blocks and to outputs wished so.

    Parameters
    ----------
    nodes : sequence of Node
        The nodes of the part.
    constants : mapping
        Constants that they read.
    shapes : mapping
        Shapes of tensors, as far as they are known.
    lanes : int
        Channels of a block.

    Attributes
    ----------
    constants : dict
        Those given, and the weights in blocks.
    """

    def __init__(self, nodes: Sequence[Node], constants: Mapping[str, Array], shapes: Mapping[str, Shape], lanes: int) -> None:
        self.constants = dict(constants)
        self._nodes, self._shapes, self._lanes = nodes, shapes, lanes
        self._leaves: list[Node] = []
        self._blocked: set[str] = set()
        self._plain: set[str] = set()

    def leaves(self, given: frozenset[str], wished: frozenset[str], outputs: Sequence[str]) -> tuple[list[Node], frozenset[str]]:
        """Return the nodes as onnxruntime takes them, and which of the wished outputs they give in blocks.

        A tensor ``t`` in blocks is called ``t, blocked``, an input too.
        """
        self._leaves, self._blocked = [], set(given)
        made = {name for node in self._nodes for name in node.outputs}
        self._plain = {name for node in self._nodes for name in reads(node) if name not in made} - given
        chosen = self._chosen(given, wished)
        for node in self._nodes:
            if node.name in chosen:
                self._write(node)
            else:
                for name in reads(node):
                    self.plain(name)
                self._leaves += leaves_of(node, self.constants)
                self._plain.update(node.outputs)
        for name in outputs:
            if name not in wished:
                self.plain(name)
        return self._leaves, frozenset(wished & self._blocked)

    def plain(self, name: str) -> None:
        """Write what gives a tensor in the layout of the model, if nothing does yet."""
        if name in self._blocked and name not in self._plain:
            channels = self._shapes[name][1]
            self._add("ReorderOutput", [f"{name}, blocked"], name, {"channels": channels})
            self._plain.add(name)

    def takes(self, name: str) -> bool:
        """Tell whether a tensor that enters is better in blocks: a node that serves the layout reads it."""
        return self._fits(name) and any(name in self._data(node) and self._serves(node) for node in self._nodes)

    def _chosen(self, given: frozenset[str], wished: frozenset[str]) -> set[str]:
        """Return the nodes to write in blocks: those that blocked inputs reach, and those that blocked outputs need."""
        reached, chosen = set(given), set[str]()
        for node in self._nodes:
            if not reached.isdisjoint(self._data(node)) and self._serves(node):
                chosen.add(node.name)
                reached.update(node.outputs)
        needed = set(wished)
        for node in reversed(self._nodes):
            if node.name in chosen or not needed.isdisjoint(node.outputs) and self._serves(node):
                chosen.add(node.name)
                needed.update(self._data(node))
        return chosen

    def _data(self, node: Node) -> list[str]:
        """Return the tensors that a node reads and whose layout matters."""
        names = (node.inputs[0], *node.inputs[3:4]) if node.operator == "Conv" else node.inputs
        return [name for name in names if name and name not in self.constants]

    def _fits(self, name: str) -> bool:
        shape: Shape = self._shapes.get(name, ())
        return len(shape) == 4 and shape[1] % self._lanes == 0 and min(shape) > 0

    def _serves(self, node: Node) -> bool:
        operator, data = node.operator, self._data(node)
        if operator == "Conv":
            same = all(self._shapes.get(name) == self._shapes.get(node.outputs[0]) for name in data[1:])
            return same and self._convolves(node) and self._fits(node.outputs[0])
        if operator == "BatchNormalization":
            return self._normalises(node)
        if operator == "ReduceMean":
            return self._averages(node)
        rest = [self.constants[name] for name in node.inputs if name in self.constants]
        if node.fused or len(node.outputs) > 1 or not data or not all(map(self._fits, data)) or any(a.size > 1 for a in rest):
            return False
        if operator in _POOLS:
            return not any(node.attributes.get(name, 0) for name in ("ceil_mode", "storage_order")) and _ones(node, "dilations")
        if operator in _JOINS:
            shape = self._shapes.get(node.outputs[0])
            return all(self._shapes[name] == shape for name in data) or self._scales(node)
        return operator_of(node).curve and len(data) == 1 or operator == "Concat" and node.attributes.get("axis") in (1, -3)

    def _scales(self, node: Node) -> bool:
        """Tell whether a node multiplies channels by one number each."""
        shapes = [self._shapes[name] for name in node.inputs if name in self._shapes]
        return node.operator == "Mul" and len(shapes) == 2 and shapes[0][:2] == shapes[1][:2] and shapes[1][2:] == (1, 1)

    def _averages(self, node: Node) -> bool:
        """Tell whether a mean is that of each channel's pixels."""
        axes = self.constants.get(node.inputs[1]) if node.inputs[1:] else node.attributes.get("axes")
        fits = self._fits(node.inputs[0]) and not node.fused and node.attributes.get("keepdims", 1) == 1
        return bool(fits) and axes is not None and sorted(int(axis) % 4 for axis in np.asarray(axes).reshape(-1)) == [2, 3]

    def _convolves(self, node: Node) -> bool:
        weight = self.constants.get(node.inputs[1])
        if weight is None or weight.dtype != np.float32 or weight.ndim != 4 or any(n and n not in self.constants for n in node.inputs[2:3]):
            return False
        group, lanes = int(node.attributes.get("group", 1)), self._lanes  # type: ignore[arg-type]
        filters, channels = weight.shape[:2]
        if filters % lanes or self._activation(node) is None:
            return False
        if group == 1:
            return bool(channels < lanes or channels % lanes == 0)
        return bool(channels == 1 and filters == group or channels % lanes == 0 and filters // group % lanes == 0)

    def _normalises(self, node: Node) -> bool:
        constants = [self.constants[name] for name in node.inputs[1:] if name in self.constants]
        if len(constants) != 4 or len(node.outputs) != 1 or node.attributes.get("training_mode", 0) or not self._fits(node.inputs[0]):
            return False
        fits = all(a.dtype == np.float32 and a.shape == (self._shapes[node.inputs[0]][1],) for a in constants)
        return fits and self._activation(node) is not None

    def _activation(self, node: Node) -> dict[str, Attribute] | None:
        """Return the attributes of what is fused to a node: a sum, and an activation; None if that is something else."""
        fused = node.fused[1:] if node.operator == "Conv" and len(node.inputs) > 3 else node.fused
        if not fused:
            return {}
        slopes = operator_of(fused[0]).activation
        found = None if slopes is None or len(fused) > 1 else slopes(fused[0], self.constants, None)
        if found is None or not np.isscalar(found[0]):
            return None
        slope, low, high = (float(number) for number in found)
        if slope != 1:
            return {"activation": "LeakyRelu", "activation_params": (slope,)} if (low, high) == (-np.inf, np.inf) else None
        if (low, high) == (0, np.inf):
            return {"activation": "Relu"}
        largest = float(np.finfo(np.float32).max)
        return {"activation": "Clip", "activation_params": (max(low, -largest), min(high, largest))}

    def _write(self, node: Node) -> None:
        """Write a node that serves the layout."""
        if node.operator == "Conv":
            self._write_convolution(node)
        elif node.operator == "BatchNormalization":
            self._write_normalisation(node)
        elif node.operator == "ReduceMean":
            self._add("GlobalAveragePool", [self._as_blocked(node.inputs[0])], f"{node.outputs[0]}, blocked", {})
        elif node.operator in _POOLS:
            told = ("auto_pad", "kernel_shape", "pads", "strides", "count_include_pad")
            kept = {name: value for name, value in node.attributes.items() if name in told}
            self._add(node.operator, [self._as_blocked(node.inputs[0])], f"{node.outputs[0]}, blocked", kept)
        elif node.operator in _JOINS and any(self._shapes.get(n) != self._shapes[node.outputs[0]] for n in self._data(node)):
            self._write_scaling(node)
        else:
            names = {name: self._as_blocked(name) for name in self._data(node)} | {node.outputs[0]: f"{node.outputs[0]}, blocked"}
            for leaf in leaves_of(node, self.constants):
                inputs, outputs = (tuple(names.get(name, name) for name in ends) for ends in (leaf.inputs, leaf.outputs))
                self._leaves.append(replace(leaf, inputs=inputs, outputs=outputs))
        self._blocked.update(node.outputs)

    def _write_convolution(self, node: Node) -> None:
        weight, lanes = self.constants[node.inputs[1]], self._lanes
        filters, channels, *kernel = weight.shape
        name = f"{node.inputs[1]}, blocked"
        if channels < lanes:
            weight = weight.reshape(filters // lanes, lanes, channels, *kernel).transpose(0, 2, 3, 4, 1)
        else:
            weight = weight.reshape(filters // lanes, lanes, channels // lanes, lanes, *kernel).transpose(0, 2, 4, 5, 3, 1)
        self.constants[name] = np.ascontiguousarray(weight).reshape(self.constants[node.inputs[1]].shape)
        inputs = [node.inputs[0], name, *node.inputs[2:3]]
        if channels < lanes and int(node.attributes.get("group", 1)) == 1:  # type: ignore[arg-type]
            self.plain(node.inputs[0])
        else:
            inputs[0] = self._as_blocked(node.inputs[0])
        if node.inputs[3:]:
            inputs = [*inputs, ""][:3] + [self._as_blocked(node.inputs[3])]
        kept = {name: node.attributes[name] for name in ("auto_pad", "dilations", "group", "pads", "strides") if name in node.attributes}
        self._add("Conv", inputs, f"{node.outputs[0]}, blocked", kept | (self._activation(node) or {}))

    def _write_normalisation(self, node: Node) -> None:
        """Write a normalisation as onnxruntime's optimiser does: a convolution of one tap, each channel apart."""
        scale, shift, mean, var = (self.constants[name].astype(np.float64) for name in node.inputs[1:])
        factor = scale / np.sqrt(var + float(node.attributes.get("epsilon", 1e-5)))  # type: ignore[arg-type]
        weight, bias = f"{node.name}, factor", f"{node.name}, shift"
        self.constants[weight] = factor.astype(np.float32).reshape(-1, 1, 1, 1)
        self.constants[bias] = (shift - mean * factor).astype(np.float32)
        inputs = [self._as_blocked(node.inputs[0]), weight, bias]
        self._add("Conv", inputs, f"{node.outputs[0]}, blocked", {"group": factor.size} | (self._activation(node) or {}))

    def _write_scaling(self, node: Node) -> None:
        """Write a product of images and one number per channel, whose memory is the same in both layouts."""
        (x, scale), out = node.inputs, node.outputs[0]
        x, scale = self._as_blocked(x), f"{scale}, blocked" if scale in self._blocked else scale
        rows = self._shapes[node.inputs[0]][1] // self._lanes
        for name, pixels in ((f"{out}, rows", -1), (f"{out}, row", 1)):
            self.constants[name] = np.array([0, rows, pixels, self._lanes])
        for operator, inputs, name in (
            ("Reshape", (x, f"{out}, rows"), f"{out}, images"),
            ("Reshape", (scale, f"{out}, row"), f"{out}, scales"),
            ("Mul", (f"{out}, images", f"{out}, scales"), f"{out}, scaled"),
            ("Shape", (x,), f"{out}, shape"),
            ("Reshape", (f"{out}, scaled", f"{out}, shape"), f"{out}, blocked"),
        ):
            self._leaves.append(Node(name, operator, inputs, (name,), {}, node.opset))

    def _as_blocked(self, name: str) -> str:
        if name not in self._blocked:
            self._add("ReorderInput", [name], f"{name}, blocked", {})
            self._blocked.add(name)
        return f"{name}, blocked"

    def _add(self, operator: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Attribute]) -> None:
        name = f"{output}, {operator}"  # a model may call a node as its output
        self._leaves.append(Node(name, operator, tuple(inputs), (output,), attributes, 1, domain=DOMAIN))


def _ones(node: Node, name: str) -> bool:
    return all(value == 1 for value in node.attributes.get(name, ()))  # type: ignore[union-attr]

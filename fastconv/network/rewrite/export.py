"""Write nodes of a network as an ONNX model, for onnxruntime and for the inference of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.graph.types import code_of, packed, schema_of
from fastconv.network.operators.table import STANDARD
from fastconv.network.operators.window import CROPPED

_INSIDE = 2**10
"""Largest constant in bytes that is stored in a model, where the inference of shapes reads it."""
_OLDEST_IR = 8
"""The first version of the format in which every constant may be no input; onnxruntime reads it since 2021."""


@dataclass(frozen=True)
class Kind:
    """What is declared of a tensor: element type, and lengths or at least how many, or that it is a list of tensors."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None = None
    is_list: bool = False

    @staticmethod
    def of(value: Any, lengths: bool = False) -> Kind:
        """Return the kind of a value, with its lengths or only their number.

        Examples
        --------
        >>> Kind.of(np.ones((2, 3), np.float32)).shape
        (None, None)
        """
        if value is None:
            return Kind(np.dtype(np.float32))
        if isinstance(value, list):
            return Kind(value[0].dtype if value else np.dtype(np.float32), None, True)
        return Kind(value.dtype, tuple(value.shape) if lengths else (None,) * value.ndim)

    @property
    def nbytes(self) -> int:
        """Bytes of a tensor whose lengths are known, else 0."""
        lengths = (0,) if self.shape is None else self.shape
        return math.prod(length or 0 for length in lengths) * self.dtype.itemsize


def model_of(
    leaves: Sequence[Node], given: Mapping[str, Kind], outputs: Iterable[str], constants: Mapping[str, Array]
) -> tuple[Any, dict[str, Array]]:
    """Return nodes as an ONNX model, and the constants that the model takes from outside.

    Parameters
    ----------
    leaves : sequence of Node
        Nodes with nothing fused to them (`leaves_of`), in an order in which they can run.
    given : mapping
        The kinds of the tensors that enter.
    outputs : iterable of str
    constants : mapping
        The constants that the nodes read.

    Returns
    -------
    model : onnx.ModelProto
    outside : dict
        Constants of which the model holds only type and shape.
    """
    from onnx import ValueInfoProto, helper

    opsets: dict[str, int] = {}
    for leaf in leaves:
        opsets[leaf.domain] = min(leaf.opset, opsets.get(leaf.domain, leaf.opset))
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    enter, leave = [info_of(*pair) for pair in given.items()], [ValueInfoProto(name=name) for name in outputs]
    held = [_initializer(*pair) for pair in constants.items()]
    model = helper.make_model(helper.make_graph([proto_of(leaf) for leaf in leaves], "part", enter, leave, held), opset_imports=imports)
    model.ir_version = max(helper.find_min_ir_version_for(imports, ignore_unknown=True), _OLDEST_IR)
    return model, {name: array for name, array in constants.items() if _is_outside(array)}


def leaves_of(node: Node, constants: Mapping[str, Array]) -> Iterator[Node]:
    """Write out what is fused to a node, and what a composed node stands for.

    Examples
    --------
    >>> relu = Node("r", "Relu", ("c",), ("y",), {}, 17)
    >>> fused = Node("conv", "Conv", ("x", "w"), ("y",), {}, 17, (relu,))
    >>> [(leaf.operator, leaf.inputs, leaf.outputs) for leaf in leaves_of(fused, {"w": np.ones((1, 1, 3, 3))})]
    [('Conv', ('x', 'w'), ('c',)), ('Relu', ('c',), ('y',))]
    """
    known, parts = set(node.inputs), (node, *node.fused)
    for part, following in zip(parts, (*parts[1:], None), strict=True):
        between = () if following is None else following.inputs
        made = node.outputs if following is None else tuple(n for n in between if n and n not in known and n not in constants)
        known.update(made)
        if part.body:
            yield from (leaf for inner in part.body for leaf in leaves_of(inner, constants))
        else:  # a shortcut is the fourth input of a convolution
            inputs = part.inputs[:3] if part.operator == "Conv" else part.inputs
            yield replace(part, inputs=inputs, outputs=made, fused=())


def proto_of(node: Node) -> Any:
    """Write one node."""
    from onnx import helper

    if node.proto is not None:
        return node.proto
    made = helper.make_node(node.operator, node.inputs, node.outputs, node.name, domain=node.domain)
    known = schema_of(node.operator, node.opset, node.domain).attributes if node.domain in STANDARD and node.attributes else {}
    for name, value in node.attributes.items():
        if name == CROPPED:
            continue
        kind = int(known[name].type.value) if name in known else None  # which tells an empty list of numbers from one of strings
        held = _tensor(name, value) if isinstance(value, np.ndarray) else value
        made.attribute.append(helper.make_attribute(name, held, attr_type=kind))
    return made


def with_graphs(proto: Any, graphs: Mapping[str, Graph]) -> Any:
    """Return a node of a model with other graphs inside it."""
    from onnx import NodeProto, ValueInfoProto, helper

    made = NodeProto()
    made.CopyFrom(proto)
    for attribute in made.attribute:
        if attribute.name in graphs:
            graph, own = graphs[attribute.name], {value.name for value in attribute.g.input}
            enter = [ValueInfoProto(name=value.name) for value in graph.inputs if value.name in own]
            leave = [ValueInfoProto(name=value.name) for value in graph.outputs]
            held = [_tensor(name, array) for name, array in graph.constants.items()]
            attribute.g.CopyFrom(helper.make_graph([proto_of(node) for node in graph.nodes], graph.name or "body", enter, leave, held))
    return made


def info_of(name: str, kind: Kind) -> Any:
    """Declare a tensor."""
    from onnx import helper

    make = helper.make_tensor_sequence_value_info if kind.is_list else helper.make_tensor_value_info
    return make(name, code_of(kind.dtype), kind.shape)


def _is_outside(array: Array) -> bool:
    return array.nbytes > _INSIDE and array.dtype.isbuiltin == 1


def _initializer(name: str, array: Array) -> Any:
    """Store a constant, or only its type and shape where onnxruntime takes the values from outside the model."""
    from onnx import TensorProto

    if not _is_outside(array):
        return _tensor(name, array)
    made = TensorProto(name=name, data_type=code_of(array.dtype), dims=array.shape, data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value="outside")
    return made


def _tensor(name: str, array: Array) -> Any:
    from onnx import TensorProto, numpy_helper

    if array.dtype.isbuiltin == 1 or array.dtype.kind == "O":
        return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    return TensorProto(name=name, data_type=code_of(array.dtype), dims=array.shape, raw_data=packed(array))

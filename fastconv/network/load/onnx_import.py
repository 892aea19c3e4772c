"""Read an ONNX model into a `Graph`. Any invalid file raises ValueError."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Attribute, Dimension, Graph, Node, Value
from fastconv.network.graph.types import NARROW, Schema, dtype_of, narrow_array, schema_of
from fastconv.network.graph.weights_file import Bulk, outside_weights, split_weights
from fastconv.network.load.onnx_settle import settled
from fastconv.network.operators.table import OPERATORS, STANDARD
from fastconv.network.rewrite.optimise import folded_weights

OLDEST_OPSET = 7
"""Oldest supported opset; before it, attributes controlled broadcasting."""
_SCHEMAS = ("", "ai.onnx.ml")
"""Domains whose operators onnx describes."""
_DOMAINS = (*_SCHEMAS, "com.microsoft", "ai.onnx.preview", "ai.onnx.preview.training")
"""Domains of which onnxruntime runs operators."""


def read_onnx(source: str | os.PathLike[str] | bytes | Any) -> Graph:
    """Read an ONNX model: a file, its bytes, or an `onnx.ModelProto`.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        The model. External weights are read from the model's folder if the model is given by its path.

    Returns
    -------
    Graph
        The main graph, with operators, attributes and constants checked and the standard's defaults filled in.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an ONNX model, is damaged or cyclic, has an opset older than 7, misses a file of weights, or uses
        an operator that fastconv does not support; the message names the node and the operator.

    Examples
    --------
    >>> read_onnx(b"not a model")
    Traceback (most recent call last):
    ValueError: the bytes are not an ONNX model: ...
    """
    import onnx

    bulk: Bulk = {}
    if isinstance(source, onnx.ModelProto):
        model, what = source, "the model"
    elif isinstance(source, bytes | bytearray):
        model, what = _parse(bytes(source), "the bytes"), "the bytes"
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"there is no file {str(path)!r}")
        if not path.is_file():
            raise ValueError(f"{str(path)!r} is not a file")
        # Protocol buffers are limited to 2 GiB, so a larger file is not a model and is not read into memory.
        if path.stat().st_size >= 2**31:
            raise ValueError(f"{str(path)!r} has {path.stat().st_size} bytes; an ONNX file has less than 2 GiB")
        what = repr(str(path))
        slim, bulk = split_weights(path)
        model = _parse(slim, what)
        bulk |= outside_weights(model.graph.initializer, path.parent)
        _read_outside(model, path.parent)
    else:
        raise TypeError(f"a model is a path, bytes or an onnx.ModelProto, not {type(source).__name__}")
    if not model.HasField("graph") or not model.opset_import:
        raise ValueError(f"{what} {'are' if what == 'the bytes' else 'is'} not an ONNX model: no graph and no opset in it")
    return _graph(_inlined(model), bulk)


def _parse(data: bytes, what: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    verb = "are" if what == "the bytes" else "is"
    if not data:
        raise ValueError(f"{what} {verb} empty, not an ONNX model")
    try:
        return onnx.ModelProto.FromString(data)
    except (DecodeError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {verb} not an ONNX model: {_line(error)}") from None


def _read_outside(model: Any, folder: Path) -> None:
    """Load the model's external data from its folder into the model."""
    from onnx import external_data_helper

    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:  # onnx's checker is C++ and raises various exceptions
        raise ValueError(f"weights in another file cannot be read: {_line(error)}") from None


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _inlined(model: Any) -> Any:
    """Inline the functions that the model defines."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # the inliner is C++ and raises various exceptions
        raise ValueError(f"the functions of the model cannot be inlined: {_line(error)}") from None


def _graph(model: Any, bulk: Bulk) -> Graph:
    opsets = _opsets(model)
    graph = model.graph
    if graph.sparse_initializer:
        raise ValueError("sparse initialisers are not supported; store the weights densely")
    graph = settled(graph)
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise ValueError(f"initialiser {tensor.name!r}: the name is {'used twice' if tensor.name else 'empty'}")
        constants[tensor.name] = bulk[tensor.name] if tensor.name in bulk else _tensor(tensor, f"initialiser {tensor.name!r}")
    # Before IR version 4 every initialiser was listed as an input as well; such an input is a constant.
    inputs = [_value(info, "input") for info in graph.input if info.name not in constants]
    outputs = [_value(info, "output") for info in graph.output]
    if not outputs:
        raise ValueError("the model has no outputs")
    if len({value.name for value in outputs}) < len(outputs):
        raise ValueError("the model gives one output twice")
    read = {name for node in graph.node for name in (*node.input, *_captured(node))} | {value.name for value in outputs}
    nodes = [_node(node, name, opsets, read) for node, name in zip(graph.node, _names(graph.node), strict=True)]
    return folded_weights(Graph.build(graph.name, inputs, outputs, constants, nodes))


def _opsets(model: Any) -> Mapping[str, int]:
    """Return the version of each operator set."""
    import onnx

    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain in STANDARD}
    newest = onnx.defs.onnx_opset_version()
    if not versions:
        raise ValueError(f"the model imports no standard operator set, only {sorted(e.domain for e in model.opset_import)}")
    opset = int(max(versions.values()))
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f"opset {opset} is not supported; {OLDEST_OPSET} to {newest} are")
    others = {entry.domain: int(entry.version) for entry in model.opset_import if entry.domain not in STANDARD}
    return {"": opset, **others}


def _names(nodes: Iterable[Any]) -> list[str]:
    """Return unique node names: the node's, else its first output's, with a number if already used."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for node in nodes:
        name = node.name or next((o for o in node.output if o), node.op_type)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def _node(node: Any, name: str, opsets: Mapping[str, int], read: Container[str]) -> Node:
    """Return a node without optional outputs that nothing reads."""
    label = f"node {name!r} ({node.op_type})"
    domain = "" if node.domain in STANDARD else node.domain
    if domain not in _DOMAINS or domain not in opsets:
        raise ValueError(f"{label}: operators of the domain {domain!r} are not supported")
    opset = opsets[domain]
    schema = _schema(node.op_type, domain, opset, label) if domain in _SCHEMAS else None
    if schema is None or domain or node.op_type not in OPERATORS:
        return _foreign(node, name, domain, opsets)
    inputs, outputs = list(node.input), list(node.output)
    while inputs and not inputs[-1]:
        inputs.pop()
    known = schema.record
    if not known.min_input <= len(inputs) <= known.max_input:
        raise ValueError(f"{label}: has {len(inputs)} inputs; the operator takes {_span(known.min_input, known.max_input)}")
    if not max(1, known.min_output) <= len(outputs) <= known.max_output:
        raise ValueError(f"{label}: has {len(outputs)} outputs; the operator gives {_span(known.min_output, known.max_output)}")
    while len(outputs) > 1 and outputs[-1] not in read and _optional(known.outputs, len(outputs) - 1):
        outputs.pop()
    for i, entry in enumerate(inputs):
        if not entry and not _optional(known.inputs, i):
            raise ValueError(f"{label}: input {i} is missing")
    return Node(name, node.op_type, tuple(inputs), tuple(outputs), _attributes(node, schema, label), opset)


def _schema(operator: str, domain: str, opset: int, label: str) -> Schema:
    import onnx

    try:
        schema = schema_of(operator, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # a name in no encoding comes as bytes
        raise ValueError(f"{label}: opset {opset} has no operator {operator}") from None
    if schema.record.deprecated:
        raise ValueError(f"{label}: opset {opset} has no operator {operator} any more")
    return schema


def _foreign(node: Any, name: str, domain: str, opsets: Mapping[str, int]) -> Node:
    """Read a node that only onnxruntime runs; it reads what the graphs inside it read from outside."""
    import onnx

    proto = onnx.NodeProto()
    proto.CopyFrom(node)
    proto.name = name
    inputs = dict.fromkeys(name for name in (*node.input, *_captured(node)) if name)
    graphs = {attribute.name: _body(attribute.g, opsets) for attribute in node.attribute if attribute.HasField("g")}
    return Node(name, node.op_type, tuple(inputs), tuple(node.output), {}, opsets[domain], domain=domain, proto=proto, graphs=graphs)


def _body(graph: Any, opsets: Mapping[str, int]) -> Graph:
    """Read a graph inside a node: its inputs are its own, then those that it reads from outside."""
    constants = {tensor.name: _tensor(tensor, f"initialiser {tensor.name!r}") for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    outputs = [_value(info, "output") for info in graph.output]
    read = {name for node in graph.node for name in (*node.input, *_captured(node))} | {value.name for value in outputs}
    nodes = [_node(node, name, opsets, read) for node, name in zip(graph.node, _names(graph.node), strict=True)]
    entering = [Value(name, None, None) for name in (*inputs, *_captured_by(graph))]
    return Graph.build(graph.name, entering, outputs, constants, nodes)


def _captured(node: Any) -> list[str]:
    """Return the tensors that the graphs inside a node read from outside."""
    graphs = (graph for attribute in node.attribute for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs))
    return list(dict.fromkeys(name for graph in graphs for name in _captured_by(graph)))


def _captured_by(graph: Any) -> list[str]:
    found: dict[str, None] = {}
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for inner in graph.node:
        found |= dict.fromkeys(name for name in (*inner.input, *_captured(inner)) if name and name not in known)
        known.update(inner.output)
    return list(found | dict.fromkeys(value.name for value in graph.output if value.name not in known))


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} or more" if high > 2**30 else f"{low} to {high}"


def _optional(parameters: Any, index: int) -> bool:
    return index < len(parameters) and parameters[index].option == parameters[index].option.Optional


def _attributes(node: Any, schema: Schema, label: str) -> Mapping[str, Attribute]:
    import onnx

    result: dict[str, Attribute] = {}
    for name, known in schema.attributes.items():
        if known.default_value.name:
            result[name] = _attribute(known.default_value, label)
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is None:
            raise ValueError(f"{label}: the operator has no attribute {attribute.name!r}")
        if attribute.ref_attr_name:
            raise ValueError(f"{label}: the attribute {attribute.name!r} refers to a function that it is not in")
        if int(attribute.type) != int(known.type.value):
            kinds = onnx.AttributeProto.AttributeType
            given = kinds.Name(attribute.type) if attribute.type in kinds.values() else attribute.type
            raise ValueError(f"{label}: the attribute {attribute.name!r} must be of the kind {known.type.name}, not {given}")
        result[attribute.name] = _attribute(attribute, label)
    for name, known in schema.attributes.items():
        if known.required and name not in result:
            raise ValueError(f"{label}: the attribute {name!r} is missing")
    return result


def _attribute(attribute: Any, label: str) -> Attribute:
    import onnx

    kinds = onnx.AttributeProto
    where = f"{label}: the attribute {attribute.name!r}"
    try:
        if attribute.type == kinds.FLOAT:
            return float(attribute.f)
        if attribute.type == kinds.INT:
            return int(attribute.i)
        if attribute.type == kinds.STRING:
            return str(attribute.s.decode("utf-8"))
        if attribute.type == kinds.FLOATS:
            return tuple(float(v) for v in attribute.floats)
        if attribute.type == kinds.INTS:
            return tuple(int(v) for v in attribute.ints)
        if attribute.type == kinds.STRINGS:
            return tuple(v.decode("utf-8") for v in attribute.strings)
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not text") from None
    if attribute.type == kinds.TENSOR:
        return _tensor(attribute.t, where)
    raise ValueError(f"{where} is of a kind that is not supported")


def _tensor(tensor: Any, what: str) -> Array:
    """Return a tensor as a read-only array; its size is checked before anything is allocated."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError(f"{what} is stored in another file: give the model by its path, or save it with its weights inside")
    if tensor.HasField("segment"):
        raise ValueError(f"{what} is stored in segments, which is not supported")
    if any(d < 0 for d in tensor.dims):
        raise ValueError(f"{what} has the shape {list(tensor.dims)}; lengths must not be negative")
    try:
        dtype = dtype_of(tensor.data_type)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if math.prod(tensor.dims) * dtype.itemsize >= 2**31:
        raise ValueError(f"{what} has the shape {list(tensor.dims)}; no tensor in an ONNX file can have 2 GiB or more")
    try:
        # Both already have separate memory.
        array = narrow_array(tensor, dtype) if tensor.data_type in NARROW else np.asarray(onnx.numpy_helper.to_array(tensor), dtype)
    except Exception as error:  # numpy and onnx raise many kinds here; all mean that data, type and shape disagree
        raise ValueError(f"{what} of type {dtype} and shape {list(tensor.dims)} is damaged: {_line(error)}") from None
    array.flags.writeable = False
    return array


def _value(info: Any, role: str) -> Value:
    if not info.name:
        raise ValueError(f"the model has an {role} without a name")
    kind = info.type.WhichOneof("value")
    if kind in ("sequence_type", "optional_type") or role == "output" and kind not in (None, "tensor_type"):
        return Value(info.name, None, None)
    if kind not in (None, "tensor_type"):
        raise ValueError(f"the {role} {info.name!r} is a {kind.removesuffix('_type')}; tensors, sequences and optionals are supported")
    tensor = info.type.tensor_type
    dtype = None
    if kind and tensor.elem_type:
        try:
            dtype = dtype_of(tensor.elem_type)
        except ValueError as error:
            raise ValueError(f"the {role} {info.name!r}: {error}") from None
    if not kind or not tensor.HasField("shape"):
        return Value(info.name, dtype, None)
    return Value(info.name, dtype, tuple(_dimension(d) for d in tensor.shape.dim))


def _dimension(dimension: Any) -> Dimension:
    kind = dimension.WhichOneof("value")
    if kind == "dim_param" and dimension.dim_param not in ("", "?"):  # "?" is not a name: exporters write it for any length
        return str(dimension.dim_param)
    # Exporters write -1 for a length that the input sets.
    return int(dimension.dim_value) if kind == "dim_value" and dimension.dim_value >= 0 else None

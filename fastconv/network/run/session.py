"""Run a part of a network in onnxruntime: a model of its nodes, and a session made once."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np

from fastconv.network.graph.graph import Array, Node
from fastconv.network.graph.types import NARROW, code_of, dtype_of, is_packed
from fastconv.network.graph.weights_file import letting_go
from fastconv.network.operators.record import Allocate
from fastconv.network.rewrite.cut import PART
from fastconv.network.rewrite.export import Kind, leaves_of, model_of
from fastconv.network.run.blocks import plain_shape
from fastconv.network.run.nchwc import Terms, Writer, block_length, copies_constants, opened

_PACKED = re.compile(r"float4|int4|int2\b")
_LACKED = re.compile("bfloat|float8")
"""Types of onnxruntime's that numpy lacks, with several numbers in a byte and without."""
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
"""Types of large tensors."""
_NONE: frozenset[str] = frozenset()


class Session:
    """Nodes that onnxruntime runs. Its sessions are made when first used, one for each set of input types and ranks.

    Parameters
    ----------
    node : Node
        A part of the network, or a node.
    constants : mapping
        Constants of the network.
    shapes : mapping
        Shapes of tensors, as far as they are known.
    terms : Terms
        How its sessions run.
    """

    def __init__(self, node: Node, constants: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], terms: Terms) -> None:
        self._terms, self._shapes = terms, shapes
        self._nodes = node.body if node.operator == PART else (node,)
        self._held = {name: constants[name] for name in node.inputs if name in constants}
        self._at = [k for k, name in enumerate(node.inputs) if name and name not in constants]
        self._inputs, self._outputs = [node.inputs[k] for k in self._at], tuple(filter(None, node.outputs))
        self._is_settled = all(name in shapes for inner in self._nodes for name in inner.outputs if name)
        self._made: dict[Any, _Made] = {}
        self.refused = ""
        """Why onnxruntime does not take the nodes, if so."""
        self.plain_only = False
        """Whether it does not take them in blocks of channels: another release may lack an operator."""

    @property
    def is_lacking(self) -> bool:
        """Whether onnxruntime has no kernel for the nodes, or not for their types."""
        return "NOT_IMPLEMENTED" in self.refused or "bits a number" in self.refused

    def takes(self, name: str) -> bool:
        """Tell whether an input is better in blocks of channels."""
        return not self.plain_only and Writer(self._nodes, self._held, self._shapes, block_length()).takes(name)

    def __call__(
        self,
        inputs: Sequence[Any],
        blocked: frozenset[str] = _NONE,
        wished: frozenset[str] = _NONE,
        allocate: Allocate | None = None,
    ) -> tuple[Any, ...]:
        """Run the nodes; an input or output is an array, or a list of arrays.

        Parameters
        ----------
        inputs : sequence
        blocked : frozenset of str
            The inputs that are in blocks of channels.
        wished : frozenset of str
            Outputs that may be so.
        allocate : callable, optional
            Returns an array for an output whose shape is known: onnxruntime would make it in its own memory, and copy it.

        Raises
        ------
        ValueError
            If onnxruntime does not take the model or the inputs; the message is its own.
        """
        given = [_declared(inputs[k]) if name in blocked else inputs[k] for k, name in zip(self._at, self._inputs, strict=True)]
        made = self._session(given, blocked, wished)
        results: Sequence[Any]
        ends = [] if allocate is None or made.lacked else [end for y in made.session.get_outputs() if (end := _known(y)) is not None]
        if allocate is not None and len(ends) == len(made.outputs) and all(isinstance(value, np.ndarray) for value in given):
            results = [allocate(*end) for end in ends]
            given = [np.require(value, requirements=["C", "A"]) for value in given]  # read until the call ends
            with suppress(ValueError):  # where a shape is another than declared
                self._bound(made, given, results)()
                return tuple(_in_blocks(y) if name in made.blocked else y for name, y in zip(self._outputs, results, strict=True))
        with _Refusals():
            if not made.lacked:
                results = made.session.run(made.outputs, dict(zip(made.inputs, given, strict=True)))
            else:
                feeds = {name: _entering(value) for name, value in zip(made.inputs, given, strict=True)}
                results = [_leaving(value) for value in made.session.run_with_ort_values(made.outputs, feeds)]
        return tuple(_in_blocks(y) if name in made.blocked else y for name, y in zip(self._outputs, results, strict=True))

    def bound(self, inputs: Sequence[Any], outputs: Sequence[Array], blocked: frozenset[str]) -> Bound:
        """Return a call that reads and writes these arrays, some of them blocked; ValueError when it runs and a shape has changed."""
        given = [_declared(inputs[k]) if name in blocked else inputs[k] for k, name in zip(self._at, self._inputs, strict=True)]
        made = self._session(given, blocked.intersection(self._inputs), blocked.intersection(self._outputs))
        return self._bound(
            made, given, [_declared(y) if name in made.blocked else y for name, y in zip(self._outputs, outputs, strict=True)]
        )

    def _bound(self, made: _Made, given: Sequence[Array], outputs: Sequence[Array]) -> Bound:
        call = Bound(made.session, dict(zip(self._inputs, made.inputs, strict=True)))
        for name, array in zip(self._inputs, given, strict=True):
            call.give(name, array)
        for out, array in zip(made.outputs, outputs, strict=True):
            call.binding.bind_output(out, "cpu", 0, _element(array), array.shape, array.ctypes.data)
        return call

    def settle(self) -> None:
        """Let go of the constants: from now on, inputs are of the types and ranks that have been seen."""
        self._held = {}

    def _session(self, given: Sequence[Any], blocked: frozenset[str], wished: frozenset[str]) -> _Made:
        key = (tuple(map(self._kind, self._inputs, given)), blocked, wished)
        if key not in self._made:
            try:
                made = self._started(given, blocked, wished)
            except ValueError as error:
                if blocked or wished:
                    self.plain_only = True
                else:
                    self.refused = str(error)
                raise
            self._made[key] = self._made[(*key[:2], made.blocked)] = made
        return self._made[key]

    def _kind(self, name: str, value: Any) -> Kind:
        """Declare an input; with lengths, by which onnxruntime optimises more, if all shapes inside follow from them.

        Its own inference of shapes ends the process on some damaged models, for which ours finds no shape.
        """
        return Kind.of(value, lengths=self._is_settled and isinstance(value, np.ndarray) and self._shapes.get(name) == value.shape)

    def _started(self, given: Sequence[Any], blocked: frozenset[str], wished: frozenset[str]) -> _Made:
        if blocked or wished:
            writer = Writer(self._nodes, self._held, self._shapes, block_length())
            leaves, made = writer.leaves(blocked, wished, self._outputs)
            read = {name for leaf in leaves for name in leaf.inputs}
            held = {name: array for name, array in writer.constants.items() if name in read}
        else:
            leaves, made, held = [leaf for node in self._nodes for leaf in leaves_of(node, self._held)], _NONE, self._held
        if any(isinstance(value, np.ndarray) and is_packed(value.dtype) for value in given):
            raise ValueError("onnxruntime: tensors of fewer than 8 bits a number cannot enter it")
        enter = [f"{name}, blocked" if name in blocked else name for name in self._inputs]
        leave = [f"{name}, blocked" if name in made else name for name in self._outputs]
        model, outside = model_of(leaves, dict(zip(enter, map(self._kind, self._inputs, given), strict=True)), leave, held)
        copies = copies_constants() if outside else True
        values = {name: _entering(array, ("C",) if copies else ("C", "A")) for name, array in outside.items()}
        with _Refusals(), letting_go(outside.values()):
            session = opened(model, self._terms, values)
        ends = (*session.get_inputs(), *session.get_outputs())
        if any(_PACKED.search(end.type) for end in session.get_outputs()):
            raise ValueError("onnxruntime: tensors of fewer than 8 bits a number cannot leave it")
        return _Made(session, enter, leave, made, any(_LACKED.search(end.type) for end in ends), [] if copies else list(values.values()))


class Bound:
    """A session on arrays that stay in place."""

    def __init__(self, session: Any, names: Mapping[str, str]) -> None:
        self._session, self._names = session, names
        self.binding = session.io_binding()

    def give(self, name: str, array: Array) -> None:
        """Read an input from this array from now on; the caller keeps it alive."""
        self.binding.bind_input(self._names[name], "cpu", 0, _element(array), array.shape, array.ctypes.data)

    def __call__(self) -> None:
        """Run; ValueError if a shape has changed."""
        with _Refusals():
            self._session.run_with_iobinding(self.binding)


class _Made(NamedTuple):
    """A session, what it calls its inputs and outputs, which outputs are in blocks, and whether numpy lacks one of their types."""

    session: Any
    inputs: list[str]
    outputs: list[str]
    blocked: frozenset[str]
    lacked: bool
    values: list[Any]
    """The constants whose memory the session reads."""


def _known(end: Any) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Return shape and type of an output, if both are known and numpy has the type."""
    dtype = _TYPES.get(end.type)
    if dtype is None or not end.shape or not all(isinstance(length, int) and length > 0 for length in end.shape):  # (): or unknown
        return None
    return tuple(end.shape), np.dtype(dtype)


def _element(array: Array) -> Any:
    """Return an array's type as a binding takes it: old releases of onnxruntime know no codes."""
    return array.dtype.type if array.dtype.isbuiltin == 1 else code_of(array.dtype)


def _declared(array: Array) -> Array:
    """Return a tensor in blocks in the shape that onnxruntime declares for it, that of the model."""
    return array.reshape(plain_shape(array))


def _in_blocks(array: Array) -> Array:
    (batch, channels, height, width), lanes = array.shape, block_length()
    return array.reshape(batch, channels // lanes, height, width, lanes)


class _Refusals:
    """Turn onnxruntime's errors, which have no common class, into a ValueError of one line."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        """Raise what was refused."""
        if isinstance(error, Exception):
            text = str(error).replace("[ONNXRuntimeError] : ", "").strip() or type(error).__name__
            raise ValueError(f"onnxruntime: {text.splitlines()[0]}") from error


def _entering(value: Any, needs: Sequence[Literal["C", "A"]] = ("C", "A")) -> Any:
    """Return an array as onnxruntime takes it: in place where numpy has its type; `needs` are the flags of numpy that it has to have."""
    from onnxruntime import OrtValue

    if isinstance(value, list):
        return value
    array = np.require(value, requirements=needs)
    if array.dtype.isbuiltin == 1 and array.dtype.kind != "O":
        return OrtValue.ortvalue_from_numpy(array)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(f"u{array.dtype.itemsize}"), code_of(array.dtype))


def _leaving(value: Any) -> Array:
    """Return a tensor of onnxruntime's as an array that owns its memory."""
    code = value.element_type()
    if code not in NARROW:
        return np.asarray(value.numpy())
    dtype, shape = dtype_of(code), value.shape()
    memory = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(value.data_ptr())
    return np.frombuffer(memory, dtype).reshape(shape).copy()


def by_reference(node: Node, inputs: Sequence[Any], constants: Mapping[str, Array]) -> tuple[Any, ...]:
    """Run a node by onnx's reference evaluator, in the types of the inputs.

    Raises
    ------
    ValueError
        If it does not know the operator, or refuses the inputs.
    """
    from onnx.reference import ReferenceEvaluator

    feeds = {name: constants[name] if name in constants else value for name, value in zip(node.inputs, inputs, strict=True) if name}
    outputs = [name for name in node.outputs if name]
    model, _ = model_of([node], {name: Kind.of(value) for name, value in feeds.items()}, outputs, {})
    try:
        with np.errstate(all="ignore"):
            found = dict(zip(outputs, ReferenceEvaluator(model).run(outputs, feeds), strict=True))
    except Exception as error:  # it is made to teach, and raises what it likes
        raise ValueError(f"onnx.reference: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}") from error
    return tuple(found.get(name) for name in node.outputs)

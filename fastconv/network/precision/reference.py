"""Run a network in float64, and say which nodes could not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.large import LargeRunner
from fastconv.network.operators.call import MEMORY_LIMIT
from fastconv.network.operators.record import Place
from fastconv.network.precision.control import controlled, is_controlled
from fastconv.network.rewrite.passes import is_float, widened
from fastconv.network.run.nchwc import Terms
from fastconv.network.run.session import Session, by_reference


class ReferenceRunner(LargeRunner):
    """A network ready to run in float64: weights converted exactly, convolutions direct, nothing rewritten.

    Operators run by their definitions in numpy, and If, Loop and Scan by running what is inside them. Any other operator runs in
    onnx's reference evaluator, or in onnxruntime if that has no definition. Where neither takes float64, onnxruntime runs the node
    in the precision of the model, and `own_precision` names it.

    Parameters
    ----------
    model : Graph
        The network in its own types.
    graph : Graph, optional
        The network in float64, converted from `model` by default.
    threads : int, optional
        Threads per operator.
    memory_limit : int
        Most bytes for all tensors of one run together.
    """

    def __init__(self, model: Graph, graph: Graph | None = None, threads: int | None = None, memory_limit: int = MEMORY_LIMIT) -> None:
        graph = graph or widened(model)
        direct = {node.name: "direct" for node in graph.convolutions}
        super().__init__(graph, direct, threads, memory_limit, optimise=False)
        self.model = model
        self._own = {node.name: node for node in model.nodes}
        self._types = {value.name: value.dtype for value in model.inputs} | {name: array.dtype for name, array in model.constants.items()}
        self._kinds = [kind for kind, _ in Counter(filter(is_float, self._types.values())).most_common()] or [np.dtype(np.float32)]
        self._narrow: dict[str, None] = {}
        self._narrow_sessions: dict[str, Session] = {}
        self._bodies: dict[tuple[str, str], ReferenceRunner] = {}

    @property
    def own_precision(self) -> tuple[str, ...]:
        """Nodes that runs so far computed in the precision of the model, in order, as "name (operator)"."""
        return tuple(self._narrow)

    def _run_part(self, node: Node, inputs: list[Array | None], left: int, place: Place) -> tuple[Array, ...]:
        if is_controlled(node):
            values = dict(zip(node.inputs, inputs, strict=True))
            given = [values.get(name) for name in node.proto.input]
            try:
                found = controlled(node, given, lambda name, own: self._inside(node, name, own, values))
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise ValueError(f"{node}: {error}") from error
            return tuple(found)
        wide: tuple[Any, ...] | None = None
        with suppress(ValueError):
            wide = by_reference(node, inputs, place.constants)
        if wide is None:
            with suppress(ValueError):
                wide = self._session(node, place)(inputs)
        if wide is None:
            wide = self._narrowly(node, inputs, place)
        if any(map(_is_narrow, wide)):
            self._narrow[f"{node.name} ({node.operator})"] = None
        return tuple(map(_wide, wide))

    def _inside(self, node: Node, name: str, own: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
        """Run a graph inside a node: it reads its own inputs, and values from outside."""
        key = (node.name, name)
        if key not in self._bodies:
            body = ReferenceRunner(self._own[node.name].graphs[name], node.graphs[name], self.threads, self.memory_limit)
            body._types, body._kinds, body._narrow = self._types | body._types, self._kinds, self._narrow
            self._bodies[key] = body
        runner = self._bodies[key]
        names = [value.name for value in runner.graph.inputs]
        results = runner(dict(zip(names, own, strict=False)) | {name: values[name] for name in names[len(own) :]})
        return [results[value.name] for value in runner.graph.outputs]

    def _narrowly(self, node: Node, inputs: Sequence[Any], place: Place) -> tuple[Any, ...]:
        """Run a node in onnxruntime in the types of the model; those of tensors inside are not known, and tried."""
        if node.name not in self._narrow_sessions:
            self._narrow_sessions[node.name] = Session(self._own[node.name], self.model.constants, {}, Terms(place.threads))
        reason: ValueError | None = None
        for kind in self._kinds:
            types = (self._types.get(name) or kind for name in node.inputs)
            try:
                return self._narrow_sessions[node.name]([_as(value, kind) for value, kind in zip(inputs, types, strict=True)])
            except ValueError as error:
                reason = reason or error
        raise ValueError(f"{node}: {reason}") from reason


def _as(value: Any, kind: Any) -> Any:
    if isinstance(value, list):
        return [_as(part, kind) for part in value]
    return value.astype(kind) if isinstance(value, np.ndarray) and value.dtype == np.float64 and is_float(kind) else value


def _is_narrow(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_narrow, value))
    return isinstance(value, np.ndarray) and is_float(value.dtype) and value.dtype != np.float64


def _wide(value: Any) -> Any:
    if isinstance(value, list):
        return [_wide(part) for part in value]
    return value.astype(np.float64) if _is_narrow(value) else value

"""Which nodes of a network run on fastconv's kernels; onnxruntime runs the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np

from fastconv.kernels import Layer
from fastconv.kernels.choose import PLAIN, THREADS, Estimate, cycles_of, estimated, method_of
from fastconv.native import machine, threads_of
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.operators.table import operator_of
from fastconv.network.rewrite.cut import connected, cut
from fastconv.network.rewrite.divide import divided
from fastconv.network.rewrite.export import Kind
from fastconv.network.rewrite.optimise import optimised
from fastconv.network.rewrite.shapes import known_of, shapes_of
from fastconv.network.run.assign import Choice
from fastconv.network.run.convolve import layer_at

SHARE = 0.7
"""Time of onnxruntime's direct convolution relative to the estimate for that of the layer kernels: 0.6 to 0.8, and what is written
to memory in between (687 layers of 50 networks on a Xeon with AVX-512); 0.7 to 1.0 on a Zen 4."""

NARROW, SLIM = 48, 0.5
"""The same for a layer of fewer channels on one of its sides."""

FEW, FIRST = 8, 0.4
"""The same for a layer of fewer channels, such as the first of a network."""

UNALIGNED = 0.45
"""Largest estimated time relative to that of onnxruntime where neither end of a layer fills blocks of channels: what is before and
after it then changes the layout."""

SWITCH, CALL = 400_000.0, 40_000.0
"""Cycles that a change of sides costs with several threads, and with one. Threads of the other side are woken, which sleep
meanwhile: 0.2 to 0.25 ms on two threads (isolated layers of ResNet-50, on a Xeon with AVX-512 and a Zen 4)."""


@dataclass(frozen=True)
class Wish:
    """What is asked of the convolutions of a network: an algorithm each, the error that ``"auto"`` keeps to, and threads."""

    algorithms: Mapping[str, Choice]
    max_error: float | None = None
    threads: int | None = None
    flushes: bool = False
    """Whether convolutions take subnormal numbers for zero, which onnxruntime's do not."""


class Form(NamedTuple):
    """A network for inputs of some shapes: rewritten, what follows from the shapes, and who runs what.

    Attributes
    ----------
    graph : Graph
    kinds, values : mapping
        Of its tensors (`fastconv.network.rewrite.shapes.known_of`).
    mine : frozenset of str
        Nodes that fastconv runs.
    """

    graph: Graph
    kinds: Mapping[str, Kind]
    values: Mapping[str, Array]
    mine: frozenset[str]

    def divided(self, wanted: Iterable[str] = ()) -> Graph:
        """Return the network divided between fastconv and onnxruntime, with these tensors available."""
        return cut(self.graph, tuple(wanted), lambda node: node.name in self.mine)


def formed(graph: Graph, wanted: Sequence[str], given: Mapping[str, Any], wish: Wish | None) -> Form:
    """Return a network for some inputs, with these tensors available: rewritten and divided by a wish, or all ours without one."""
    known = known_of(graph, given)
    if wish is None:
        return Form(graph, *known, frozenset(node.name for node in graph.nodes))
    graph = optimised(graph, wanted, shapes_of(known[0]))
    kinds, values = known_of(graph, given, known)
    return Form(graph, kinds, values, owned(graph, shapes_of(kinds), wish))


def owned(graph: Graph, shapes: Mapping[str, tuple[int, ...]], wish: Wish) -> frozenset[str]:
    """Return the names of the nodes that fastconv runs: convolutions, and compiled operators between them.

    A convolution that is left to ``"auto"`` runs here if a fast algorithm is estimated to pay for the changes of sides, or if it
    saves some between two that do; onnxruntime's direct convolution runs it otherwise. One with any other algorithm runs here
    wherever its weights are constant, and so does a transposed one.

    Parameters
    ----------
    graph : Graph
    shapes : mapping
        Shapes of tensors, as far as they are known (`fastconv.network.rewrite.shapes.kinds_of`).
    wish : Wish
    """
    gains = {node.name: gain for node in graph.nodes if (gain := _gain(graph, node, shapes, wish)) is not None}
    price = CALL if threads_of(wish.threads) == 1 else SWITCH
    if sum(max(gain, 0.0) for gain in gains.values()) <= price:  # it would not pay for a single change of sides
        return frozenset()
    gains |= {node.name: -_loss(graph, node, shapes) for node in graph.nodes if gains.get(node.name) == 0.0}
    ours = divided(graph.nodes, gains, price)
    found: set[str] = set()
    for group in connected(node for node in graph.nodes if node.name in ours):
        if any(operator_of(node).weights is not None for node in group):
            found.update(node.name for node in group)
    return frozenset(found)


def _gain(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]], wish: Wish) -> float | None:
    """Return the cycles that are gained if fastconv runs a node, infinite where it has to; None if it does not serve it."""
    operator = operator_of(node)
    if operator.weights is None:
        return None if operator.compiled is None else 0.0
    weight = graph.constants.get(node.inputs[1])
    if weight is None or any(name and name not in graph.constants for name in node.inputs[2:3]):
        return None
    real = weight.dtype in (np.float32, np.float64) and weight.ndim in (3, 4)
    if node.operator != "Conv":
        return inf if operator.compiled is not None and real else None
    if wish.algorithms.get(node.name, "auto") != "auto":
        return None if wish.algorithms[node.name] == "onnxruntime" else inf
    if wish.flushes and real:
        return inf
    return _saved(node, weight, shapes[node.inputs[0]], wish.max_error) if node.inputs[0] in shapes and real else None


def _saved(node: Node, weight: Array, shape: tuple[int, ...], max_error: float | None) -> float | None:
    """Return the cycles that a fast algorithm is estimated to save; zero for direct convolution, of which `_loss` knows more."""
    if len(shape) != weight.ndim:
        return None
    try:
        layer = layer_at(node, shape, weight)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # which the run will say
        return None
    if max_error is None and (layer.kernel == (1, 1) or layer.groups > 1 or layer.dilation != (1, 1)):
        return inf if weight.dtype == np.float64 else 0.0
    try:
        method = method_of("auto", layer, max_error)
    except ValueError as error:
        raise ValueError(f"{node}: {error}") from error
    if weight.dtype == np.float64:  # onnxruntime has no such convolution
        return inf
    if method.name in PLAIN:
        return 0.0
    lanes = machine().vector_bytes // layer.dtype.itemsize
    share = UNALIGNED if layer.channels % lanes and layer.filters % lanes else 1.0
    return share * _share(layer) * method.direct - method.cycles


def _loss(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Return the cycles that are lost if fastconv runs a direct convolution, by which two others are joined; zero for another node."""
    if node.operator != "Conv":
        return 0.0
    layer = layer_at(node, shapes[node.inputs[0]], graph.constants[node.inputs[1]])
    return (1 - _share(layer)) * cycles_of(layer)


def estimated_direct(layer: Layer, threads: int = THREADS) -> Estimate:
    """Return the estimate for onnxruntime's direct convolution."""
    direct = estimated(layer, threads=threads)
    return direct._replace(cycles=direct.cycles * _share(layer))


def _share(layer: Layer) -> float:
    return FIRST if layer.channels < FEW else SLIM if min(layer.channels, layer.filters) < NARROW else SHARE

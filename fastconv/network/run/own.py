"""Which nodes of a network run on fastconv's kernels; onnxruntime runs the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv.kernels import Layer
from fastconv.kernels.choose import PLAIN, THREADS, Estimate, estimated, method_of
from fastconv.native import machine
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.operators.table import operator_of
from fastconv.network.rewrite.cut import connected, cut
from fastconv.network.rewrite.export import Kind
from fastconv.network.rewrite.optimise import optimised
from fastconv.network.rewrite.shapes import known_of, shapes_of
from fastconv.network.run.assign import Choice
from fastconv.network.run.convolve import layer_at

SHARE = 0.6
"""Time of onnxruntime's direct convolution relative to the estimate for that of the layer kernels: 0.6 to 0.8, and what is written
to memory in between (687 layers of 50 networks on a Xeon with AVX-512)."""

FEW, FIRST = 8, 0.4
"""The same for a layer of fewer channels, such as the first of a network."""

UNALIGNED = 0.45
"""Largest estimated time relative to that of onnxruntime where neither end of a layer fills blocks of channels: what is before and
after it then changes the layout."""

SWITCH = 800_000.0
"""Cycles that a layer has to gain: before and after it, threads of the other side are woken, which sleep meanwhile. With
300,000 residual networks lose on two threads, with 1,200,000 they gain nothing on one (13 networks on a Xeon with AVX-512)."""


@dataclass(frozen=True)
class Wish:
    """What is asked of the convolutions of a network: an algorithm each, and the error that ``"auto"`` keeps to."""

    algorithms: Mapping[str, Choice]
    max_error: float | None = None
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

    A convolution that is left to ``"auto"`` runs here if a fast algorithm is estimated to pay; onnxruntime's direct convolution
    runs it otherwise. One with any other algorithm runs here wherever its weights are constant.

    Parameters
    ----------
    graph : Graph
    shapes : mapping
        Shapes of tensors, as far as they are known (`fastconv.network.rewrite.shapes.kinds_of`).
    wish : Wish
    """
    found: set[str] = set()
    for group in connected(node for node in graph.nodes if _serves(graph, node, shapes, wish)):
        if any(operator_of(node).weights is not None for node in group):
            found.update(node.name for node in group)
    return frozenset(found)


def _serves(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]], wish: Wish) -> bool:
    operator = operator_of(node)
    if operator.weights is None:
        return operator.compiled is not None
    weight = graph.constants.get(node.inputs[1])
    if weight is None or any(name and name not in graph.constants for name in node.inputs[2:3]):
        return False
    if node.operator != "Conv":
        return operator.compiled is not None and weight.dtype in (np.float32, np.float64) and weight.ndim in (3, 4)
    if wish.algorithms.get(node.name, "auto") != "auto":
        return wish.algorithms[node.name] != "onnxruntime"
    if wish.flushes and weight.dtype in (np.float32, np.float64) and weight.ndim in (3, 4):
        return True
    return node.inputs[0] in shapes and _pays(node, weight, shapes[node.inputs[0]], wish.max_error)


def _pays(node: Node, weight: Array, shape: tuple[int, ...], max_error: float | None) -> bool:
    """Tell whether a fast algorithm is estimated to be faster than direct convolution."""
    if weight.dtype not in (np.float32, np.float64) or weight.ndim not in (3, 4) or len(shape) != weight.ndim:
        return False
    try:
        layer = layer_at(node, shape, weight)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # which the run will say
        return False
    if max_error is None and (layer.kernel == (1, 1) or layer.groups > 1 or layer.dilation != (1, 1)):
        return weight.dtype == np.float64
    try:
        method = method_of("auto", layer, max_error)
    except ValueError as error:
        raise ValueError(f"{node}: {error}") from error
    if weight.dtype == np.float64:  # onnxruntime has no such convolution
        return True
    if method.name in PLAIN:
        return False
    lanes = machine().vector_bytes // layer.dtype.itemsize
    share = UNALIGNED if layer.channels % lanes and layer.filters % lanes else 1.0
    return estimated(layer, method.axes or (), method.phases).cycles + SWITCH < share * estimated_direct(layer).cycles


def estimated_direct(layer: Layer, threads: int = THREADS) -> Estimate:
    """Return the estimate for onnxruntime's direct convolution."""
    direct = estimated(layer, threads=threads)
    return direct._replace(cycles=direct.cycles * (SHARE if layer.channels >= FEW else FIRST))

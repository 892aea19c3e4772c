"""Rewrite a network: fold constants and normalisations, fuse activations and sums.

Each is a pure function from graph to graph. Only the folding of a normalisation changes rounding: the scaled weights are
computed in float64 and rounded once, while the original network rounds the convolution's result first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from fastconv.native import lasting
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.operators.call import Call
from fastconv.network.operators.table import operator_of

_ROOM = 2**20
"""Most bytes of a folded constant, plus twice those of its inputs: a damaged model may ask for any amount."""


def optimised(graph: Graph, protected: Collection[str], shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Graph:
    """Apply all rewrites, keeping the outputs and the tensors in `protected` available; `shapes` are those that are known."""
    kept = frozenset(protected) | {value.name for value in graph.outputs}
    if len({node.name for node in graph.nodes}) < len(graph.nodes):
        return graph  # the passes tell nodes apart by their names
    graph = composed_swish(folded_normalisations(folded_constants(graph, kept), kept), kept)
    return fused_activations(fused_sums(graph, kept, shapes), kept)


def folded_constants(graph: Graph, kept: Collection[str] = ()) -> Graph:
    """Replace nodes that depend only on constants by their results, unless large or failing.

    Examples
    --------
    >>> from fastconv.network.graph.graph import Value
    >>> two = Node("two", "Constant", (), ("c",), {"value": np.array(2.0)}, 17)
    >>> product = Node("m", "Mul", ("x", "c"), ("y",), {}, 17)
    >>> graph = Graph.build("g", [Value("x", None, None)], [Value("y", None, None)], {}, [two, product])
    >>> [node.name for node in folded_constants(graph).nodes]
    ['m']
    """
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        results = _computed(node, constants) if all(not name or name in constants for name in node.inputs) else None
        if results is None:
            nodes.append(node)
        else:
            constants.update(results)
    return _rebuilt(graph, constants, nodes, kept)


def folded_weights(graph: Graph) -> Graph:
    """Replace Constant and dequantisation nodes by their values, for any runner and policy.

    Convolutions with such weights then have constant weights.
    """
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        stored = operator_of(node).stores and all(not name or name in constants for name in node.inputs)
        results = _computed(node, constants) if stored else None
        if results is None:
            nodes.append(node)
        else:
            constants.update(results)
    return _rebuilt(graph, constants, nodes) if len(nodes) < len(graph.nodes) else graph


def _computed(node: Node, constants: Mapping[str, Array]) -> dict[str, Array] | None:
    inputs = [constants[name] if name else None for name in node.inputs]
    room = _ROOM + 2 * sum(a.nbytes for a in inputs if a is not None)
    try:
        with np.errstate(all="ignore"):
            result = operator_of(node).run(Call(node.attributes, node.opset, len(node.outputs), room), *inputs)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError):
        return None  # it will fail again, and be reported, when the network runs
    outputs = tuple(np.asarray(r) for r in (result if isinstance(result, tuple) else (result,)))
    if len(outputs) < len(node.outputs) or sum(a.nbytes for a in outputs) > room:
        return None
    return {name: array for name, array in zip(node.outputs, outputs, strict=False) if name}


def folded_normalisations(graph: Graph, kept: Collection[str]) -> Graph:
    """Fold BatchNormalization into the weights of the preceding layer."""
    readers = _readers(graph)
    makers = {node.outputs[0]: node for node in graph.nodes if _scales(node)}
    constants = dict(graph.constants)
    folded: dict[str, Node | None] = {}
    for node in graph.nodes:
        maker = makers.get(node.inputs[0]) if node.operator == "BatchNormalization" else None
        if maker is None or readers[maker.outputs[0]] != 1 or maker.outputs[0] in kept:
            continue
        arrays = _scaled(maker, node, graph.constants)
        if arrays is not None:
            names = f"{maker.inputs[1]} in {maker.name}, {node.name}", f"bias of {maker.name}, {node.name}"
            if not any(name in constants or name in readers for name in names):
                constants.update(zip(names, arrays, strict=True))
                folded[maker.name] = replace(maker, inputs=(maker.inputs[0], *names), outputs=node.outputs[:1])
                folded[node.name] = None
    nodes = [folded.get(node.name, node) for node in graph.nodes]
    return _rebuilt(graph, constants, [node for node in nodes if node is not None], kept)


def _scales(node: Node) -> bool:
    weights = operator_of(node).weights
    return weights is not None and weights.scaled is not None


def _scaled(maker: Node, norm: Node, constants: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """Return weight and bias with the normalisation folded in, or None if it does not fit."""
    names = (*maker.inputs[1:], *norm.inputs[1:])
    if norm.attributes.get("training_mode", 0) or norm.attributes.get("spatial", 1) != 1 or len([o for o in norm.outputs if o]) != 1:
        return None
    if len(norm.inputs) != 5 or any(name and name not in constants for name in names):
        return None
    weight, how = constants[maker.inputs[1]], operator_of(maker).weights
    bias = constants[maker.inputs[2]] if len(maker.inputs) > 2 and maker.inputs[2] else None
    dtypes = {constants[name].dtype for name in names if name}
    scale, shift, mean, var = (constants[name].astype(np.float64) for name in norm.inputs[1:])
    if len(dtypes) != 1 or weight.dtype not in (np.float32, np.float64) or weight.ndim < 2:
        return None
    if how is None or how.scaled is None or how.channels is None:
        return None
    channels = how.channels(maker, weight)
    if any(part.shape != (channels,) for part in (scale, shift, mean, var)) or maker.attributes.get("beta", 1.0) != 1:
        return None
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + float(norm.attributes.get("epsilon", 1e-5)))  # type: ignore[arg-type]
        wide = how.scaled(maker, weight, factor)
        if wide is None:
            return None
        old: Any = 0.0
        if bias is not None:
            if bias.shape not in ((channels,), *(((), (1,), (1, channels)) if how.bias_broadcasts else ())):
                return None
            old = bias.reshape(-1).astype(np.float64)
        new = np.broadcast_to((old - mean) * factor + shift, (channels,))
        arrays = lasting(weight.shape, weight.dtype), new.astype(weight.dtype)
        arrays[0][...] = wide
    # Non-finite values would spread differently from the original network.
    return arrays if all(np.isfinite(a).all() for a in arrays) else None


def composed_swish(graph: Graph, kept: Collection[str]) -> Graph:
    """Replace x times its sigmoid, the usual form in models, by one Swish node."""
    readers, makers = _readers(graph), {node.outputs[0]: node for node in graph.nodes if node.operator == "Sigmoid"}
    gone, nodes = set(), []
    for node in graph.nodes:
        for gate in node.inputs if node.operator == "Mul" else ():
            maker = makers.get(gate)
            if maker is not None and sorted(node.inputs) == sorted((gate, maker.inputs[0])) and readers[gate] == 1 and gate not in kept:
                node = replace(
                    node, operator="Swish", inputs=maker.inputs, attributes={"alpha": 1.0}, opset=max(node.opset, 24), body=(maker, node)
                )
                gone.add(maker.name)
                break
        nodes.append(node)
    return _rebuilt(graph, graph.constants, [node for node in nodes if node.name not in gone], kept)


def fused_activations(graph: Graph, kept: Collection[str]) -> Graph:
    """Fuse an activation into the node that computes its input, if nothing else reads that."""
    readers = _readers(graph)
    makers: dict[str, Node] = {}
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        maker = makers.get(node.inputs[0]) if operator_of(node).activation is not None else None
        inner = node.inputs[0] if node.inputs else ""
        constant = all(not name or name in graph.constants for name in node.inputs[1:])
        if maker is not None and constant and readers[inner] == 1 and inner not in kept:
            fused = replace(maker, outputs=node.outputs, fused=(*maker.fused, node))
            nodes[maker.name] = fused
            del makers[inner]
        else:
            nodes[node.name] = node
            if operator_of(node).takes_activation and len(node.outputs) == 1:
                makers[node.outputs[0]] = node
    return _rebuilt(graph, graph.constants, list(nodes.values()), kept)


def fused_sums(graph: Graph, kept: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Fuse the sum with a shortcut into the later convolution, as its fourth input.

    Only where nothing reads the shortcut later: the sum is written in its place.
    """
    readers, makers = _readers(graph), {node.outputs[0]: node for node in graph.nodes if node.outputs}
    at = {name: k for k, node in enumerate(graph.nodes) for name in node.outputs}
    last = {name: k for k, node in enumerate(graph.nodes) for name in node.inputs}
    gone: set[str] = set()
    nodes = []
    for k, node in enumerate(graph.nodes):
        nodes.append(node)
        if node.operator != "Add" or not makers.keys() >= set(node.inputs) or len(set(node.inputs)) < 2:
            continue
        for name in sorted(node.inputs, key=lambda name: -at[name]):
            maker, other = makers[name], next(one for one in node.inputs if one != name)
            fits = readers[name] == 1 and name not in kept and _can_add(maker, graph.constants)
            alike = shapes.get(name, ()) == shapes.get(other, ())
            if fits and alike and last[other] == k and other not in kept and other not in maker.inputs:
                nodes[-1] = replace(maker, inputs=(*(*maker.inputs, "")[:3], other), outputs=node.outputs, fused=(node,))
                gone.add(maker.name)
                break
    return _rebuilt(graph, graph.constants, [node for node in nodes if node.name not in gone or len(node.inputs) == 4], kept)


def _can_add(node: Node, constants: Mapping[str, Array]) -> bool:
    weight = constants.get(node.inputs[1]) if node.operator == "Conv" and not node.fused and len(node.inputs) < 4 else None
    return weight is not None and weight.ndim in (3, 4) and node.attributes.get("group", 1) == 1


def _readers(graph: Graph) -> Counter[str]:
    return Counter(name for node in graph.nodes for name in node.inputs if name)


def _rebuilt(graph: Graph, constants: Mapping[str, Array], nodes: list[Node], kept: Collection[str] = ()) -> Graph:
    """Return the graph with other nodes, and only the constants that are read, output or `kept`."""
    read = (
        set(kept)
        | {name for node in nodes for part in (node, *node.fused) for name in part.inputs}
        | {value.name for value in graph.outputs}
    )
    return Graph.build(graph.name, graph.inputs, graph.outputs, {name: a for name, a in constants.items() if name in read}, nodes)

"""Assign algorithms to the convolutions of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm, algorithms
from fastconv.network.graph.graph import Graph, Node

Choice = str | BilinearAlgorithm | tuple[BilinearAlgorithm, BilinearAlgorithm]
"""A name, an algorithm for both axes, or one along the height and one along the width."""
_GENERAL = ("auto", "direct", "im2col", "fft", "phases", "onnxruntime")


def _kernel(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """Return the kernel size of a convolution whose weights are constant, else None."""
    weight = graph.constants.get(node.inputs[1])
    return None if weight is None else weight.shape[2:]


def is_eligible(graph: Graph, node: Node, choice: Choice | int = "auto") -> bool:
    """Return whether an algorithm, or any with a given number of taps, can run a layer.

    The convolution needs two or more dimensions, one group, constant weights, and along its last two axes dilation 1 and the
    algorithm's stride (one for a name or number) and taps. The taps of earlier axes are summed like channels.
    """
    kernel, attributes = _kernel(graph, node), node.attributes
    if node.operator != "Conv" or not kernel or len(kernel) < 2:
        return False
    strides, dilations = (np.broadcast_to(attributes.get(name, 1), len(kernel)).tolist()[-2:] for name in ("strides", "dilations"))
    return dilations == [1, 1] and attributes.get("group", 1) == 1 and fits(choice, kernel[-2:], strides)


def fits(choice: Choice | int, kernel: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether an algorithm, or any of stride one with given taps, fits a kernel."""
    axes = choice if isinstance(choice, tuple) else (choice,) * len(kernel)
    taps = [axis.r if isinstance(axis, BilinearAlgorithm) else axis for axis in axes if not isinstance(axis, str)]
    own = [axis.stride if isinstance(axis, BilinearAlgorithm) else 1 for axis in axes]
    return list(strides) == own and (not taps or list(kernel) == taps)


def _has_phases(graph: Graph, node: Node) -> bool:
    """Return whether a convolution has stride 2, kernel > 2, dilation 1 and one group."""
    kernel, attributes = _kernel(graph, node), node.attributes
    if kernel is None or len(kernel) < 2:
        return False
    strides, dilations = (np.broadcast_to(attributes.get(name, 1), len(kernel)).tolist()[-2:] for name in ("strides", "dilations"))
    return min(kernel[-2:]) > 2 and strides == [2, 2] and dilations == [1, 1] and attributes.get("group", 1) == 1


def resolved(choice: Any) -> Choice:
    """Return the algorithm of a name; names of general methods stay names."""
    if isinstance(choice, BilinearAlgorithm) or isinstance(choice, str) and choice in _GENERAL:
        return choice
    if isinstance(choice, tuple) and len(choice) == 2 and all(isinstance(axis, BilinearAlgorithm) for axis in choice):
        return choice
    if isinstance(choice, str):
        axes = algorithms(choice)
        return axes[0] if axes[0] == axes[-1] else (axes[0], axes[-1])
    raise TypeError(f"an algorithm is a name, a BilinearAlgorithm or a mapping from layers to these, not {type(choice).__name__}")


def assigned(graph: Graph, algorithm: Choice | Mapping[str, Choice]) -> dict[str, Choice]:
    """Return the algorithm of each convolution of a network, by layer name.

    A single algorithm runs the convolutions that are eligible for it (`is_eligible`); the others run direct. A mapping sets
    layers by name; other layers run "auto".

    Raises
    ------
    ValueError
        For an unknown algorithm or layer, or a layer set to an algorithm that cannot run it.
    """
    layers = {node.name: node for node in graph.convolutions}
    if isinstance(algorithm, Mapping):
        result: dict[str, Choice] = dict.fromkeys(layers, "auto")
        for name, wanted in algorithm.items():
            if name not in layers:
                raise ValueError(f"the network has no convolution {name!r}; it has {', '.join(layers) or 'none'}")
            choice = resolved(wanted)
            if not isinstance(choice, str) and not is_eligible(graph, layers[name], choice):
                h, w = choice if isinstance(choice, tuple) else (choice, choice)
                what = f"{h.r}x{w.r} convolution of stride {h.stride}" + (f"x{w.stride}" if w.stride != h.stride else "")
                raise ValueError(f"{layers[name]} is not a dense {what} and cannot run {wanted!r}")
            result[name] = choice
        return result
    choice = resolved(algorithm)
    if isinstance(choice, str):
        plain = choice in ("auto", "direct", "onnxruntime")
        fits = _has_phases if choice == "phases" else is_eligible
        return {name: choice if plain or fits(graph, node) else "direct" for name, node in layers.items()}
    return {name: choice if is_eligible(graph, node, choice) else "direct" for name, node in layers.items()}

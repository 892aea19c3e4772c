"""Build an ONNX model for weights that were published without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array

PARTS = (".weight", ".bias")


def with_biases(kernels: Mapping[str, tuple[int, ...]], parts: tuple[str, str] = PARTS) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights and biases of convolutions.

    Examples
    --------
    >>> with_biases({"c": (8, 3, 5, 5)})
    {'c.weight': (8, 3, 5, 5), 'c.bias': (8,)}
    """
    return {layer + part: size for layer, shape in kernels.items() for part, size in zip(parts, (shape, shape[:1]), strict=True)}


class Draft:
    """A builder of an ONNX graph; each node has the name of its output.

    Parameters
    ----------
    tensors : mapping
        The weights by name.
    shapes : mapping
        The shape that each weight must have; see `with_biases`.
    parts : pair of str
        Suffixes of the names of a convolution's weight and bias.

    Raises
    ------
    ValueError
        If a tensor is missing, has another shape, or is not float32.

    Examples
    --------
    >>> draft = Draft({"c.weight": np.ones((1, 1, 3, 3), "f4"), "c.bias": np.ones(1, "f4")}, with_biases({"c": (1, 1, 3, 3)}))
    >>> made = draft.model("tiny", ("x", 1), draft.conv("x", "c", "y"))
    >>> [node.name for node in made.graph.node]
    ['y']
    """

    def __init__(self, tensors: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], parts: tuple[str, str] = PARTS) -> None:
        from onnx import numpy_helper

        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._parts = parts
        for name, shape in shapes.items():
            if name not in tensors or tensors[name].shape != shape or tensors[name].dtype != np.float32:
                found = f"{tensors[name].dtype} {tensors[name].shape}" if name in tensors else "nothing"
                raise ValueError(f"the weights have {found} as {name}; the network needs float32 {shape}")
            self._weights.append(numpy_helper.from_array(np.ascontiguousarray(tensors[name]), name))

    def constant(self, name: str, value: Array) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its first output."""
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def conv(self, x: str, layer: str, name: str, **attributes: Any) -> str:
        """Add a convolution with the weight and bias of a layer, and return the name of its output."""
        return self.node("Conv", [x, *(layer + part for part in self._parts)], name, **attributes)

    def relu(self, x: str, slope: float = 0.0) -> str:
        """Add a rectifier, leaky if it has a slope, and return the name of its output."""
        return self.node("LeakyRelu", [x], f"{x}.relu", alpha=slope) if slope else self.node("Relu", [x], f"{x}.relu")

    def model(self, name: str, input: tuple[str, int], output: str) -> Any:
        """Return the model: one input (N, channels, H, W), one output, opset 17."""
        from onnx import TensorProto, helper

        enters = helper.make_tensor_value_info(input[0], TensorProto.FLOAT, ["N", input[1], "H", "W"])
        leaves = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, name, [enters], [leaves], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

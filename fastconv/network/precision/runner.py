"""Run a network in a precision policy: convolutions emulated, all else in float32."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, channel_sum_named
from fastconv.native import processors
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.operators.call import MEMORY_LIMIT, Call
from fastconv.network.operators.table import operator_of
from fastconv.network.precision.emulated import Emulation, Extents, Precision, Shape, emulation_on
from fastconv.network.precision.names import Scales, split_policy
from fastconv.network.rewrite.cut import cut
from fastconv.network.rewrite.passes import narrowed
from fastconv.network.run.assign import Choice
from fastconv.network.run.execute import Program, Runner, Watch
from fastconv.network.run.feeds import converted_feeds, named_feeds


class EmulatedRunner(Runner):
    """A network ready to run in a precision policy.

    Each convolution is emulated in the policy (`fastconv.network.precision.emulated.Emulation`): with its fast algorithm if it has
    one, else ("auto", "direct", "im2col", "fft") directly, in any number of dimensions. Transposed convolutions run directly. All
    other operators run in float32.

    In a policy whose name ends with ``"-balanced"`` a fast algorithm runs with balanced rows
    (`BilinearAlgorithm.balanced`). Each layer scales its input and kernels by powers of two and undoes this after the output
    transform. The layer's first input determines the scales (`fastconv.network.precision.emulated.scales_of`).

    Parameters
    ----------
    graph : Graph
        The network. Constants and inputs of another format are rounded to float32 first.
    algorithms : mapping
        Algorithm of each convolution, by layer name.
    policy : str or Policy
        The policy.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    threads : int, optional
        Threads per convolution; one per available CPU if None.
    memory_limit : int
        Most bytes for all tensors of one run together.
    """

    def __init__(
        self,
        graph: Graph,
        algorithms: Mapping[str, Choice],
        policy: str | Policy,
        channel_sum: str = "linear",
        threads: int | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        super().__init__(narrowed(graph), algorithms, threads, memory_limit, optimise=False)
        self._model = graph
        self.policy, self.balanced = split_policy(policy)
        channel_sum_named(channel_sum)
        self.channel_sum = channel_sum
        self._layers: dict[str, Emulation] = {}
        self._call = threading.local()

    def __call__(self, feeds: Mapping[str, Array] | Array, keep: Iterable[str] = (), *, watch: Watch | None = None) -> dict[str, Array]:
        """Run the network; see `Runner`. Inputs have the types of the model."""
        return super().__call__(converted_feeds(self._model, named_feeds(self.graph.inputs, feeds)), keep, watch=watch)

    def counted(self, feeds: Mapping[str, Array], keep: Iterable[str] = ()) -> tuple[dict[str, Array], dict[str, Extents]]:
        """Run the network, and return the outputs and the extents of each layer.

        Parameters
        ----------
        feeds : mapping
            Input name to array.
        keep : iterable of str
            Internal tensors to return in addition to the outputs.

        Returns
        -------
        values : dict
            Name to array.
        extents : dict
            Layer to `Extents`: counts of non-finite values at each stage, and the largest finite magnitudes.
        """
        extents: dict[str, Extents] = {}
        self._call.extents = extents
        try:
            return self(feeds, keep), extents
        finally:
            del self._call.extents

    @property
    def scales(self) -> dict[str, Scales]:
        """Powers of two that scale each layer that has run."""
        return {name: layer.scales for name, layer in self._layers.items() if layer.algorithm is not None}

    def _rewritten(self, wanted: list[str], given: Mapping[str, Any]) -> Program:
        return Program.of(cut(self.graph, wanted, lambda node: operator_of(node).plane is not None), wanted, {})

    def _apply(self, node: Node, inputs: list[Array | None], left: int, *rest: Any) -> tuple[Array, ...]:
        x, weight, bias = (*inputs, None, None, None)[:3]
        if operator_of(node).plane is None or x is None or weight is None:
            return super()._apply(node, inputs, left, *rest)
        try:
            return (self._emulate(node, Call(node.attributes, node.opset, 1, left), x, weight, bias),)
        except (ArithmeticError, MemoryError, TypeError, ValueError) as error:
            raise ValueError(f"{node}: {error}") from error

    def _emulate(self, node: Node, call: Call, x: Array, weight: Array, bias: Array | None) -> Array:
        plane = operator_of(node).plane
        assert plane is not None
        flat = plane(call, x, weight, bias)
        if flat.x.size == 0 or flat.weight.size == 0:
            return np.zeros(flat.shape, np.float32)
        shape = Shape(flat.view.strides, flat.view.dilations, int(call["group"]))  # type: ignore[arg-type]
        constant = all(not name or name in self.graph.constants for name in node.inputs[1:])
        layer = self._layers.get(node.name) if constant else None
        if layer is None:
            layer = self._made(node.name, flat.weight, bias, shape, flat.x)
            if constant:
                self._layers.setdefault(node.name, layer)
        y, reached = layer(flat.x, self.threads or processors())
        if hasattr(self._call, "extents"):
            self._call.extents[node.name] = reached
        return flat.restored(y)

    def _made(self, name: str, weight: Array, bias: Array | None, shape: Shape, x: Array) -> Emulation:
        choice = self.algorithms.get(name, "direct")
        algorithm = choice if isinstance(choice, BilinearAlgorithm) else None
        precision = Precision(self.policy, self.channel_sum, self.balanced)
        return emulation_on(x, weight, bias, shape, algorithm, precision, self.threads or processors())

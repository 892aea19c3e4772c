"""Run a network in a precision policy: each convolution emulated, all else in float32."""

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
from fastconv.network.rewrite.passes import narrowed
from fastconv.network.run.assign import Choice
from fastconv.network.run.execute import Runner, Watch
from fastconv.network.run.feeds import converted_feeds


class EmulatedRunner(Runner):
    """A network made ready to run in a precision policy.

    Each convolution is computed as the policy says (`fastconv.network.precision.emulated.Emulation`), by its algorithm where that is a
    fast one, else ("auto", "direct", "im2col", "fft") directly, in any number of dimensions; transposed ones directly. Everything
    between convolutions is computed in float32.

    In a policy whose name ends with ``"-balanced"`` a fast algorithm runs with balanced rows
    (`BilinearAlgorithm.balanced`), and each layer scales its input and its kernels by powers of two, which are found from the
    first input that the layer meets (`fastconv.network.precision.emulated.scales_of`), and undone after the output transform.

    Parameters
    ----------
    graph : Graph
        The network. One of another format is rounded to float32 first, its inputs too.
    algorithms : mapping
        Algorithm of each convolution, by layer name.
    policy : str or Policy
        The policy.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    threads : int, optional
        Threads of each convolution; as many as there are cores if None.
    memory_limit : int
        Bytes that the tensors inside may take together.
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

    def __call__(self, feeds: Mapping[str, Array], keep: Iterable[str] = (), *, watch: Watch | None = None) -> dict[str, Array]:
        """Run the network; see `Runner`. Inputs have the types of the model."""
        return super().__call__(converted_feeds(self._model, feeds), keep, watch=watch)

    def counted(self, feeds: Mapping[str, Array], keep: Iterable[str] = ()) -> tuple[dict[str, Array], dict[str, Extents]]:
        """Run the network; say beside the outputs what the stages of each layer reached.

        Parameters
        ----------
        feeds : mapping
            Input name to array.
        keep : iterable of str
            Tensors inside the network to return beside its outputs.

        Returns
        -------
        values : dict
            Name to array.
        extents : dict
            Layer to `Extents`: values that are not finite at each stage, and the largest that are.
        """
        extents: dict[str, Extents] = {}
        self._call.extents = extents
        try:
            return self(feeds, keep), extents
        finally:
            del self._call.extents

    @property
    def scales(self) -> dict[str, Scales]:
        """The powers of two by which each layer that has run is scaled."""
        return {name: layer.scales for name, layer in self._layers.items() if layer.algorithm is not None}

    def _apply(self, node: Node, inputs: list[Array | None], left: int, *rest: Any) -> tuple[Array, ...]:
        x, weight, bias = (*inputs, None, None)[:3]
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

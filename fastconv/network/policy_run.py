"""Run a network in a precision policy: each convolution emulated, all else in float32."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, channel_sum_named
from fastconv.kernels.threads import processors
from fastconv.network.emulated import Emulation, Extents, Shape, emulation_on
from fastconv.network.graph import Array, Graph, Node
from fastconv.network.operators import MEMORY_LIMIT, Call
from fastconv.network.operators.convolution import check_convolution
from fastconv.network.operators.window import planar, window
from fastconv.network.policy_name import Scales, split_policy
from fastconv.network.run import Choice, Runner


class EmulatedRunner(Runner):
    """A network made ready to run in a precision policy.

    Each convolution is computed as the policy says (`fastconv.network.emulated.Emulation`), by its algorithm where that is a
    fast one, else ("auto", "direct", "im2col", "fft") directly. Everything between convolutions is computed in float32.

    In a policy whose name ends with ``"-balanced"`` a fast algorithm runs with balanced rows
    (`BilinearAlgorithm.balanced`), and each layer scales its input and its kernels by powers of two, which are found from the
    first input that the layer meets (`fastconv.network.emulated.scales_of`), and undone after the output transform.

    Parameters
    ----------
    graph : Graph
        The network in float32.
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
        super().__init__(graph, algorithms, threads, memory_limit, optimise=False)
        self.policy, self.balanced = split_policy(policy)
        channel_sum_named(channel_sum)
        self.channel_sum = channel_sum
        self._layers: dict[str, Emulation] = {}
        self._call = threading.local()

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
        x, weight = (*inputs, None, None)[:2]
        plain = x is not None and weight is not None and x.dtype == np.float32 and x.ndim in (3, 4)
        if node.operator != "Conv" or not plain:
            return super()._apply(node, inputs, left, *rest)
        try:
            return (self._emulate(node, Call(node.attributes, node.opset, 1, left), *(*inputs, None)[:3]),)
        except (ArithmeticError, MemoryError, TypeError, ValueError) as error:
            raise ValueError(f"{node}: {error}") from error

    def _emulate(self, node: Node, call: Call, x: Any, weight: Any, bias: Array | None) -> Array:
        check_convolution(call, x, weight, bias)
        view = window(call, x.shape[2:], weight.shape[2:])
        out = call.reserve((x.shape[0], weight.shape[0], *view.out), x.dtype)
        view, x, weight = planar(view, x, weight)
        if x.size == 0 or weight.size == 0:
            return np.zeros(out, np.float32)
        x = np.pad(x, view.pads)
        shape = Shape(view.strides, view.dilations, int(call["group"]))  # type: ignore[arg-type]
        constant = all(not name or name in self.graph.constants for name in node.inputs[1:])
        layer = self._layers.get(node.name) if constant else None
        if layer is None:
            layer = self._made(node.name, weight, bias, shape, x)
            if constant:
                self._layers.setdefault(node.name, layer)
        y, reached = layer(x, self.threads or processors())
        if hasattr(self._call, "extents"):
            self._call.extents[node.name] = reached
        return y.reshape(out)

    def _made(self, name: str, weight: Array, bias: Array | None, shape: Shape, x: Array) -> Emulation:
        choice = self.algorithms.get(name, "direct")
        algorithm = choice if isinstance(choice, BilinearAlgorithm) else None
        return emulation_on(x, weight, bias, shape, algorithm, self.policy, self.channel_sum, self.balanced, self.threads or processors())

"""Networks that `load_onnx` returns, ready to run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

from fastconv.arithmetic import Policy
from fastconv.kernels.choose import check_limit
from fastconv.native import Kept
from fastconv.network.explain import Explanation, explain
from fastconv.network.graph.graph import Array, Graph
from fastconv.network.graph.weights_file import check_unchanged, files_of
from fastconv.network.large import LargeRunner
from fastconv.network.load.onnx_import import read_onnx
from fastconv.network.operators.call import limit_of
from fastconv.network.precision.reference import ReferenceRunner
from fastconv.network.precision.runner import EmulatedRunner
from fastconv.network.rewrite.passes import POLICIES
from fastconv.network.run.arena import Arena
from fastconv.network.run.assign import Choice, assigned
from fastconv.network.run.execute import Runner
from fastconv.network.run.feeds import Lengths, drawn_feeds

_RUNNERS = 16
"""Most combinations of algorithm, policy and threads for which a network caches its plans."""


class Network:
    """A network to run, repeatedly and from any number of threads.

    Parameters
    ----------
    graph : Graph
        The computation.
    memory_limit : int, optional
        Most bytes for all tensors of one run together, without the weights; by default half of the memory that is free now.

    Attributes
    ----------
    graph : Graph
    name : str
    inputs, outputs : tuple of Value
    layers : tuple of str
        Names of the convolutions, in the order in which they run.
    """

    def __init__(self, graph: Graph, memory_limit: int | None = None) -> None:
        self.graph, self.name, self.memory_limit = graph, graph.name, limit_of(memory_limit)
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.layers = tuple(node.name for node in graph.convolutions)
        self._arena = Arena()
        self._graphs, self._runners = Kept(len(POLICIES)), Kept(_RUNNERS)

    def __repr__(self) -> str:
        return f"<Network {self.name!r}: {len(self.graph.nodes)} nodes, {len(self.layers)} convolutions>"

    def prepare(
        self,
        algorithm: Choice | Mapping[str, Choice] = "auto",
        policy: str | Policy = "fp32",
        *,
        threads: int | None = None,
        channel_sum: str | None = None,
        max_error: float | None = None,
    ) -> Runner:
        """Return a runner for an algorithm; the same arguments return the same runner with its plans.

        Parameters
        ----------
        algorithm : str, BilinearAlgorithm, or mapping from layer name to either
            A single algorithm runs the convolutions that it supports (stride 1, dilation 1, one group, kernel r x r); all
            others run direct. A mapping sets the algorithm of single layers; other layers run "auto".
        policy : str or Policy
            "fp32" runs in the types of the model, on the fast kernels; float16 and bfloat16 in float32, rounded where the
            model casts and at the outputs, as onnxruntime does with float16. "fp64" is the reference: everything in float64, weights
            converted exactly, convolutions direct for any `algorithm`. A node that nothing computes in float64 runs in the
            precision of the model: `ReferenceRunner.own_precision` names it, and `run` warns. Any other policy ("fp16", "bf16",
            "tf32", "mixed", "fp16-fp32", a `Policy`) is emulated: each convolution as `fastconv.evaluate` computes it, or
            directly where `algorithm` names no F(m, r); all else in float32. The suffix "-balanced" balances rows and scales
            layers by powers of two, which the first inputs determine: see
            `fastconv.network.precision.runner.EmulatedRunner`, the type then returned.
        threads : int, optional
            Threads per convolution.
        channel_sum : {"linear", "pairwise", "blocked"}, optional
            Order of an emulated convolution's sum over channels, "linear" by default. If given, "fp32" is emulated too.
        max_error : float, optional
            Limit of "auto" on the relative L2 error of each layer, by `predict_error` for normal inputs, as in `plan_conv2d`;
            1e-6 by default. For the error of the output see `explain`.

        Returns
        -------
        Runner

        Raises
        ------
        ValueError
            For an unknown policy, algorithm or layer, an invalid error limit, or one with no layer to choose for.
        """
        choice = assigned(self.graph, algorithm)
        if max_error is not None:
            check_limit(max_error, algorithm, "auto" in choice.values())
            if policy != "fp32" or channel_sum is not None:
                raise ValueError(f"max_error is {max_error} and policy {policy!r}: only policy 'fp32' takes a limit; leave it out")
        if not isinstance(policy, str) or policy not in POLICIES or policy == "fp32" and channel_sum is not None:
            return self._emulated(choice, policy, threads, channel_sum or "linear")
        if policy == "fp64":
            return self.reference(threads=threads)
        graph = self._graphs.get(policy, lambda: self._rewritten(POLICIES[policy]))
        key = (policy, threads, max_error, tuple(choice.items()))
        make = lambda: LargeRunner(graph, choice, threads, self.memory_limit, arena=self._arena, max_error=max_error)
        return cast(Runner, self._runners.get(key, make))

    def reference(self, *, threads: int | None = None) -> ReferenceRunner:
        """Return the runner of policy "fp64".

        Parameters
        ----------
        threads : int, optional
            Threads per operator.

        Returns
        -------
        ReferenceRunner
            Its ``own_precision`` names the nodes that ran in the precision of the model.
        """
        graph = self._graphs.get("fp64", lambda: self._rewritten(POLICIES["fp64"]))
        make = lambda: ReferenceRunner(self.graph, graph, threads, self.memory_limit)
        return cast(ReferenceRunner, self._runners.get(("fp64", threads), make))

    def _rewritten(self, rewrite: Callable[[Graph], Graph]) -> Graph:
        files = files_of(self.graph.constants.values())
        check_unchanged(files)
        graph = rewrite(self.graph)
        check_unchanged(files)
        return graph

    def run(
        self,
        feeds: Mapping[str, Array] | Array,
        algorithm: Choice | Mapping[str, Choice] = "auto",
        policy: str | Policy = "fp32",
        *,
        threads: int | None = None,
        channel_sum: str | None = None,
        max_error: float | None = None,
    ) -> dict[str, Array]:
        """Run the network; see `prepare` for the options.

        Parameters
        ----------
        feeds : mapping or array
            Input name to array; one array for a network of one input.

        Returns
        -------
        dict
            Output name to array.

        Raises
        ------
        TypeError, ValueError
            If inputs or options do not fit; the message says which and what is needed.
        """
        runner = self.prepare(algorithm, policy, threads=threads, channel_sum=channel_sum, max_error=max_error)
        results = runner(feeds)
        if isinstance(runner, ReferenceRunner) and runner.own_precision:
            warnings.warn(f"not in float64 but in the precision of the model: {', '.join(runner.own_precision)}", stacklevel=2)
        return results

    def random_inputs(self, lengths: Lengths | None = None, *, images: int = 1, seed: int = 0) -> dict[str, Array]:
        """Return random inputs in the types and shapes that the model states.

        Floating-point inputs are normal numbers of variance one. Inputs of 8 bits have all their values, as pixels do. Wider
        integers and booleans are zeros and ones, which are valid as indices.

        Parameters
        ----------
        lengths : mapping, optional
            Open lengths by name, as in ``{"H": 224}``, or an input's whole shape, as in ``{"x": (1, 3, 224, 224)}``.
        images : int
            The first length of each input that leaves it open and that `lengths` does not name.
        seed : int
            Seed of the generator.

        Returns
        -------
        dict
            Input name to array.

        Raises
        ------
        ValueError
            For a length that stays open, an unknown name, or an input that is no tensor of numbers.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.network.graph.graph import Node, Value
        >>> image = Value("x", np.dtype(np.float32), ("N", 3, "H", "H"))
        >>> relu = Node("relu", "Relu", ("x",), ("y",), {}, 17)
        >>> net = Network(Graph.build("small", [image], [Value("y", None, None)], {}, [relu]))
        >>> net.random_inputs({"H": 8})["x"].shape
        (1, 3, 8, 8)
        """
        return drawn_feeds(self.inputs, lengths, seed, images)

    def _emulated(self, choice: Mapping[str, Choice], policy: str | Policy, threads: int | None, channel_sum: str) -> Runner:
        key = ("emulated", policy, channel_sum, threads, tuple(choice.items()))
        make = lambda: EmulatedRunner(self.graph, choice, policy, channel_sum, threads, self.memory_limit)
        runner: Runner = self._runners.get(key, make)
        return runner

    def explain(
        self,
        feeds: Mapping[str, Array] | Array | None = None,
        *,
        max_error: float | None = None,
        algorithm: Choice | Mapping[str, Choice] = "auto",
        measure: bool = False,
        threads: int | None = None,
    ) -> Explanation:
        """Explain which algorithm runs each convolution, why, and with what expected error and cost.

        Parameters
        ----------
        feeds : mapping or array, optional
            Inputs whose statistics the prediction uses; one array for a network of one input. Without them it assumes
            independent numbers of variance one, in the shapes of `random_inputs`.
        max_error : float, optional
            Limit on the relative L2 error of the output: each layer gets the fastest algorithm such that the expected errors
            of all layers together stay below it. Pass ``.algorithms`` of the result to `run`.
        algorithm : str, BilinearAlgorithm, or mapping from layer name to either
            Algorithms to explain if `max_error` is not given, as in `prepare`.
        measure : bool
            Measure the time and error of every option on the layer's input, instead of estimating from operation counts.
        threads : int, optional
            Threads per convolution.

        Returns
        -------
        Explanation
            Print it, or see its ``layers``, ``algorithms``, ``to_dict()``.

        Raises
        ------
        TypeError, ValueError
            If the inputs or options do not fit, or there are no inputs and the model leaves a length open other than the first.
        """
        return explain(self, feeds, max_error, algorithm, measure, threads)


def load_onnx(source: str | os.PathLike[str] | bytes | Any, *, memory_limit: int | None = None) -> Network:
    """Load an ONNX model (opset 7 or newer) from a file, from bytes or from an `onnx.ModelProto`.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        The model, with its weights inside.
    memory_limit : int, optional
        Most bytes for all tensors of one run together, without the weights; by default half of the memory that is free now. A
        model that needs more for its inputs is rejected before allocation, as a damaged model may ask for any amount.

    Returns
    -------
    Network

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the model is invalid, or uses an operator that fastconv does not support: the message names node and operator.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> from onnx import TensorProto, helper
    >>> info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"])
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "rectifier", [info("x")], [info("y")])
    >>> net = fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    >>> net
    <Network 'rectifier': 1 nodes, 0 convolutions>
    >>> net.run({"x": np.array([-1, 2], np.float32)})["y"].tolist()
    [0.0, 2.0]
    """
    return Network(read_onnx(source), memory_limit)

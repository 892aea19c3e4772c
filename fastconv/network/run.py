"""Run a network: plans for its convolutions, kept between runs, and one pass over the nodes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.network.graph import Array, Graph, Node, Value
from fastconv.network.onnx_import import read_onnx
from fastconv.network.operators import MEMORY_LIMIT, OPERATORS, Call
from fastconv.network.operators.convolution import check_convolution
from fastconv.network.operators.window import window
from fastconv.network.passes import POLICIES

Choice = str | BilinearAlgorithm
_GENERAL = ("auto", "direct", "im2col", "fft")
_PLANS = 4
"""Input shapes for which a convolution keeps its transformed weights; the least recently used goes first."""
_RUNNERS = 16
"""Combinations of algorithm, policy and threads for which a network keeps its plans."""


class _Kept:
    """A small thread-safe memory of the last `size` things made. Two threads may make one thing twice, never a wrong one."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._things: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
                return self._things[key]
        thing = make()
        with self._lock:
            thing = self._things.setdefault(key, thing)
            while len(self._things) > self._size:
                self._things.popitem(last=False)
        return thing


def _kernel(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """Return the kernel size of a convolution whose weights are constant, else None."""
    weight = graph.constants.get(node.inputs[1])
    return None if weight is None else weight.shape[2:]


def is_eligible(graph: Graph, node: Node, r: int | None = None) -> bool:
    """Tell whether a fast algorithm with `r` taps (or any, if None) can run a convolution.

    It can where the convolution is two-dimensional, dense, has stride 1, dilation 1, one group, constant weights and a kernel
    of r x r.
    """
    kernel, attributes = _kernel(graph, node), node.attributes
    plain = all(set(np.ravel(attributes.get(name, 1))) == {1} for name in ("strides", "dilations", "group"))
    return node.operator == "Conv" and kernel is not None and len(kernel) == 2 and plain and (r is None or kernel == (r, r))


def resolved(choice: Any) -> Choice:
    """Turn the name of an algorithm into the algorithm; the general methods stay names."""
    if isinstance(choice, BilinearAlgorithm) or isinstance(choice, str) and choice in _GENERAL:
        return choice
    if isinstance(choice, str):
        from fastconv.algebra import algorithm

        return algorithm(choice)
    raise TypeError(f"an algorithm is a name, a BilinearAlgorithm or a mapping from layers to these, not {type(choice).__name__}")


def assigned(graph: Graph, algorithm: Choice | Mapping[str, Choice]) -> dict[str, Choice]:
    """Say by which algorithm each convolution of a network runs.

    One algorithm is given to the convolutions that are eligible for it (`is_eligible`), the others run direct. A mapping pins
    layers by name; those that it leaves out run "auto".

    Raises
    ------
    ValueError
        For an unknown algorithm or layer, or a layer pinned to an algorithm that cannot run it.
    """
    layers = {node.name: node for node in graph.convolutions}
    if isinstance(algorithm, Mapping):
        result: dict[str, Choice] = dict.fromkeys(layers, "auto")
        for name, wanted in algorithm.items():
            if name not in layers:
                raise ValueError(f"the network has no convolution {name!r}; it has {', '.join(layers) or 'none'}")
            choice = resolved(wanted)
            if isinstance(choice, BilinearAlgorithm) and not is_eligible(graph, layers[name], choice.r):
                raise ValueError(f"{layers[name]} is no dense {choice.r}x{choice.r} convolution of stride 1 and cannot run {wanted!r}")
            result[name] = choice
        return result
    choice = resolved(algorithm)
    if isinstance(choice, str):
        plain = choice in ("auto", "direct")
        return {name: choice if plain or is_eligible(graph, node) else "direct" for name, node in layers.items()}
    return {name: choice if is_eligible(graph, node, choice.r) else "direct" for name, node in layers.items()}


class Runner:
    """A network made ready for one choice of algorithms and one precision policy.

    Plans are made at the first run with an input shape and kept: weights are transformed once. Runners may be shared by
    threads.

    Parameters
    ----------
    graph : Graph
        The network, in the types in which it is to run.
    algorithms : mapping
        Algorithm of each convolution, by layer name (`assigned`).
    threads : int, optional
        Threads of each convolution; None leaves it to the kernels.
    memory_limit : int
        Bytes that the tensors inside may take together.
    """

    def __init__(
        self, graph: Graph, algorithms: Mapping[str, Choice], threads: int | None = None, memory_limit: int = MEMORY_LIMIT
    ) -> None:
        self.graph, self.algorithms, self.threads, self.memory_limit = graph, dict(algorithms), threads, memory_limit
        self._plans = {node.name: _Kept(_PLANS) for node in graph.convolutions}
        last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
        outputs = {value.name for value in graph.outputs}
        self._dead: list[tuple[str, ...]] = [()] * len(graph.nodes)
        for index, node in enumerate(graph.nodes):
            # A result that nobody reads dies where it is born.
            names = {name for name in (*node.inputs, *node.outputs) if name and last.get(name, index) == index}
            self._dead[index] = tuple(names - outputs)

    def __call__(self, feeds: Mapping[str, Array], keep: Iterable[str] = ()) -> dict[str, Array]:
        """Run the network.

        Parameters
        ----------
        feeds : mapping
            Input name to array.
        keep : iterable of str
            Tensors inside the network to return beside its outputs.

        Returns
        -------
        dict
            Output name to array.

        Raises
        ------
        TypeError, ValueError
            If the feeds do not fit the inputs, or a node does not fit its inputs: the message names it.
        """
        wanted = list(dict.fromkeys([value.name for value in self.graph.outputs] + list(keep)))
        values: dict[str, Array] = dict(checked_feeds(self.graph, feeds))
        constants = self.graph.constants
        used = sum(array.nbytes for array in values.values())
        for node, dead in zip(self.graph.nodes, self._dead, strict=True):
            inputs = [(values[name] if name in values else constants[name]) if name else None for name in node.inputs]
            results = self._apply(node, inputs, self.memory_limit - used)
            used += sum(array.nbytes for array in results[: len(node.outputs)])
            if used > self.memory_limit:
                raise ValueError(f"{node}: {_too_large(self.memory_limit)}")
            values.update(zip(node.outputs, results, strict=False))
            for name in dead:
                if name not in wanted and name in values:
                    used -= values.pop(name).nbytes
        unknown = [name for name in wanted if name not in values and name not in constants]
        if unknown:
            raise ValueError(f"the network has no tensor {unknown[0]!r}")
        given = set(map(id, feeds.values())) | set(map(id, constants.values()))
        found = {name: values[name] if name in values else constants[name] for name in wanted}
        # Never hand out a view of the model's weights or of the caller's own arrays.
        return {name: array.copy() if array.base is not None or id(array) in given else array for name, array in found.items()}

    def _apply(self, node: Node, inputs: list[Array | None], left: int) -> tuple[Array, ...]:
        call = Call(node.attributes, node.opset, len(node.outputs), left)
        try:
            with np.errstate(all="ignore"):
                result = self._convolve(node, call, inputs) if node.operator == "Conv" else None
                result = OPERATORS[node.operator](call, *inputs) if result is None else result
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{node}: {text[0]}") from error
        outputs = result if isinstance(result, tuple) else (result,)
        if len(outputs) < len(node.outputs):
            raise ValueError(f"{node}: gives {len(outputs)} outputs, the model names {len(node.outputs)}")
        return tuple(np.asarray(output) for output in outputs)

    def _convolve(self, node: Node, call: Call, inputs: list[Array | None]) -> Array | None:
        """Run a convolution on the layer kernels; None where they do not serve (weights that are computed, 3-D, fp16)."""
        x, weight, bias = (*inputs, None)[:3]
        constant = all(not name or name in self.graph.constants for name in node.inputs[1:])
        if x is None or weight is None or not constant or x.ndim not in (3, 4) or x.dtype not in (np.float32, np.float64):
            return None
        check_convolution(call, x, weight, bias)
        view = window(call, x.shape[2:], weight.shape[2:])
        call.reserve((x.shape[0], weight.shape[0], *view.out), x.dtype)
        begin, end, strides, dilations = view.begin, view.end, view.strides, view.dilations
        flat = x.ndim == 3
        if flat:  # one dimension is two with a height of one
            x, weight = x[:, :, None], weight[:, :, None]
            begin, end, strides, dilations = (0, *begin), (0, *end), (1, *strides), (1, *dilations)
        if begin != end:
            call.reserve((*x.shape[:2], *(n + b + e for n, b, e in zip(x.shape[2:], begin, end, strict=True))), x.dtype)
            x, begin = np.pad(x, [(0, 0), (0, 0), *zip(begin, end, strict=True)]), (0, 0)
        if x.size == 0:
            return None
        x = np.ascontiguousarray(x)
        y = self._plan(node, weight, bias, x.shape, strides, begin, dilations)(x)
        return y[:, :, 0] if flat else np.asarray(y)

    def _plan(
        self, node: Node, weight: Array, bias: Array | None, shape: tuple[int, ...], strides: Any, padding: Any, dilations: Any
    ) -> Any:
        def make() -> Any:
            from fastconv import kernels

            return kernels.plan_conv2d(
                weight,
                bias,
                strides,
                padding,
                dilations,
                int(node.attributes.get("group", 1)),  # type: ignore[arg-type]
                input_shape=shape,
                algorithm=self.algorithms.get(node.name, "direct"),
                threads=self.threads,
            )

        return self._plans[node.name].get(shape, make)


def _too_large(limit: int) -> str:
    needs = f"the network needs more than {limit / 2**30:.2g} GiB for these inputs"
    return f"{needs}; give it smaller ones, or load it with a higher memory_limit"


def checked_feeds(graph: Graph, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the feeds in the types of the inputs, or say what does not fit.

    Raises
    ------
    TypeError
        For something that is no array, or an array of another element type.
    ValueError
        For a missing or unknown name, a wrong rank or length, or two lengths of one name that differ.
    """
    if not isinstance(feeds, Mapping):
        raise TypeError(f"inputs are a mapping from names to arrays, not {type(feeds).__name__}")
    names = [value.name for value in graph.inputs]
    for name in feeds:
        if name not in names:
            raise ValueError(f"the network has no input {name!r}; its inputs are {', '.join(map(repr, names)) or 'none'}")
    lengths: dict[str, tuple[int, str]] = {}
    return {value.name: _checked(value, feeds, lengths) for value in graph.inputs}


def _checked(value: Value, feeds: Mapping[str, Array], lengths: dict[str, tuple[int, str]]) -> Array:
    if value.name not in feeds:
        raise ValueError(f"the input {value.name!r} is missing; the network needs {value}")
    given = feeds[value.name]
    if not isinstance(given, np.ndarray | np.generic):
        raise TypeError(f"the input {value.name!r} must be a numpy array, not {type(given).__name__}")
    array = np.asarray(given)
    # The reference takes what the network itself takes: going from float32 to float64 loses nothing.
    if value.dtype == np.float64 and array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = array.astype(np.float64)
    if value.dtype is not None and array.dtype != value.dtype:
        raise TypeError(f"the input {value.name!r} must have the type {value.dtype}, not {array.dtype}; convert it with .astype")
    if value.shape is None:
        return array
    if array.ndim != len(value.shape):
        raise ValueError(f"the input {value.name!r} has the shape {array.shape}; the network needs {value}")
    for length, wanted in zip(array.shape, value.shape, strict=True):
        if isinstance(wanted, int) and length != wanted:
            raise ValueError(f"the input {value.name!r} has the shape {array.shape}; the network needs {value}")
        if isinstance(wanted, str) and lengths.setdefault(wanted, (length, value.name))[0] != length:
            first, other = lengths[wanted]
            raise ValueError(f"the length {wanted} is {first} in the input {other!r} and {length} in {value.name!r}")
    return array


class Network:
    """A network that can be run, as often and by as many threads as one likes.

    Parameters
    ----------
    graph : Graph
        What it computes.
    memory_limit : int
        Bytes that the tensors of one run may take together, beside the weights.

    Attributes
    ----------
    graph : Graph
    name : str
    inputs, outputs : tuple of Value
    layers : tuple of str
        Names of the convolutions, in the order in which they run.
    """

    def __init__(self, graph: Graph, memory_limit: int = MEMORY_LIMIT) -> None:
        self.graph, self.name, self.memory_limit = graph, graph.name, memory_limit
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.layers = tuple(node.name for node in graph.convolutions)
        self._graphs, self._runners = _Kept(len(POLICIES)), _Kept(_RUNNERS)

    def __repr__(self) -> str:
        return f"<Network {self.name!r}: {len(self.graph.nodes)} nodes, {len(self.layers)} convolutions>"

    def prepare(self, algorithm: Choice | Mapping[str, Choice] = "auto", policy: str = "fp32", *, threads: int | None = None) -> Runner:
        """Return the network made ready for an algorithm; asking again returns the same runner with its plans.

        Parameters
        ----------
        algorithm : str, BilinearAlgorithm, or mapping from layer name to either
            One algorithm is used for the convolutions that it can run (dense, stride 1, dilation 1, one group, kernel r x r); all
            others run direct. A mapping pins single layers; those that it leaves out run "auto".
        policy : {"fp32", "fp64"}
            "fp32" runs in the types of the model. "fp64" is the reference: all of it in float64, weights converted exactly,
            convolutions direct whatever `algorithm` says.
        threads : int, optional
            Threads of each convolution.

        Returns
        -------
        Runner

        Raises
        ------
        ValueError
            For an unknown policy, algorithm or layer.
        """
        if policy not in POLICIES:
            raise ValueError(f"unknown policy {policy!r}; the known ones are {', '.join(POLICIES)}")
        choice = assigned(self.graph, algorithm)
        if policy == "fp64":
            choice = dict.fromkeys(choice, "direct")
        graph = self._graphs.get(policy, lambda: POLICIES[policy](self.graph))
        key = (policy, threads, tuple(choice.items()))
        runner: Runner = self._runners.get(key, lambda: Runner(graph, choice, threads, self.memory_limit))
        return runner

    def run(
        self,
        feeds: Mapping[str, Array],
        algorithm: Choice | Mapping[str, Choice] = "auto",
        policy: str = "fp32",
        *,
        threads: int | None = None,
    ) -> dict[str, Array]:
        """Run the network; see `prepare` for the options.

        Parameters
        ----------
        feeds : mapping
            Input name to array.

        Returns
        -------
        dict
            Output name to array.

        Raises
        ------
        TypeError, ValueError
            If inputs or options do not fit; the message says which and what is needed.
        """
        return self.prepare(algorithm, policy, threads=threads)(feeds)


def load_onnx(source: str | os.PathLike[str] | bytes | Any, *, memory_limit: int = MEMORY_LIMIT) -> Network:
    """Load an ONNX model (opset 7 or newer) from a file, from bytes or from an `onnx.ModelProto`.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        The model, with its weights inside.
    memory_limit : int
        Bytes that the tensors of one run may take together, beside the weights: 1 GiB unless given. A model that needs more
        for its inputs is refused before it allocates, since a damaged one asks for any amount.

    Returns
    -------
    Network

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no sound model, or uses an operator that fastconv does not run: the message names node and operator.

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

"""Explain the algorithm of each layer of a network, with expected error and cost."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastconv.algebra import BilinearAlgorithm, complex_points, toom_cook
from fastconv.kernels import Layer, Plan, plan_conv2d
from fastconv.kernels.choose import estimated
from fastconv.native import threads_of
from fastconv.network.graph.graph import Array, Attribute, Graph, Node, Value
from fastconv.network.operators.call import Call, is_narrow
from fastconv.network.operators.window import Window, planar, window
from fastconv.network.rewrite.optimise import folded_constants
from fastconv.network.rewrite.passes import is_float
from fastconv.network.run.assign import Choice, is_eligible, resolved
from fastconv.network.run.convolve import layer_under
from fastconv.network.run.execute import Runner
from fastconv.network.run.feeds import drawn_feeds
from fastconv.network.run.nchwc import Terms
from fastconv.network.run.own import estimated_direct
from fastconv.network.run.session import Session
from fastconv.tables import Shown, Table, listed

_SIZES = {3: (2, 4, 6), 5: (2, 4)}
"""Outputs per tile and axis of the options for an r x r kernel; 2 for other r."""
_OPSET = 17
"""Opset of a layer that is measured in onnxruntime."""
_PAIRS = {3: ((8, 3),), 5: ((8, 2), (6, 3)), 7: ((8, 5), (4, 3))}
"""Outputs, and pairs of complex points, of further options: few products for their error."""


@dataclass(frozen=True)
class Option:
    """An algorithm that could run a layer.

    `predicted_error` is the expected relative L2 rounding error of the layer's output; `measured_error` is the
    same, measured against float64 on the layer's input. `seconds` are measured, or estimated as for ``algorithm="auto"``.
    """

    algorithm: str
    multiplications_per_output: float
    predicted_error: float
    seconds: float
    weight_bytes: int
    workspace_bytes: int | None = None
    measured_error: float | None = None


@dataclass(frozen=True)
class LayerChoice:
    """A convolution's shape, the algorithm that runs it and why, and its other options."""

    name: str
    kernel: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_rms: float
    algorithm: str
    why: str
    options: tuple[Option, ...]
    subnormal_weights: int = 0
    """Number of subnormal packed weights, on which arithmetic may be slow: see `flush_subnormals`."""

    @property
    def chosen(self) -> Option:
        """The option that runs."""
        return next(option for option in self.options if option.algorithm == self.algorithm)


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """The result of `Network.explain`.

    Attributes
    ----------
    network : str
    inputs : str
        Source of the input statistics.
    measured : bool
        Whether times are measured.
    max_error : float or None
        Requested error limit.
    layers : tuple of LayerChoice
    inside : tuple of str
        Convolutions inside If, Loop and Scan, which onnxruntime runs. They have no layer: their inputs are not known.
    computed : tuple of str
        Convolutions whose weights are no constants, which onnxruntime runs too.
    """

    network: str
    inputs: str
    measured: bool
    threads: int
    max_error: float | None
    layers: tuple[LayerChoice, ...]
    inside: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()

    @property
    def algorithms(self) -> dict[str, str]:
        """The choice for `Network.run`: layer name to algorithm."""
        return {layer.name: layer.algorithm for layer in self.layers}

    @property
    def predicted_error(self) -> float:
        """Expected error at the output, if the layers' errors are independent and pass on unchanged."""
        return math.sqrt(sum(layer.chosen.predicted_error**2 for layer in self.layers))

    @property
    def within(self) -> bool:
        """Whether the expected error is within the limit."""
        return self.max_error is None or self.predicted_error <= self.max_error

    def growth(self, name: str = "") -> list[float]:
        """Return the expected error after each layer if `name` ran wherever it can, or as chosen."""
        total, errors = 0.0, []
        for layer in self.layers:
            total += _option(layer, name).predicted_error ** 2
            errors.append(math.sqrt(total))
        return errors

    def seconds(self, name: str = "") -> list[float]:
        """Return each layer's time if `name` ran wherever it can, or as chosen."""
        return [_option(layer, name).seconds for layer in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers, ready for `json.dumps`."""
        head = {"network": self.network, "inputs": self.inputs, "measured": self.measured, "threads": self.threads}
        tail = {"predicted_error": self.predicted_error, "within": self.within, "seconds": sum(self.seconds())}
        rest = {"inside": list(self.inside), "computed": list(self.computed)}
        return {**head, "max_error": self.max_error, **tail, "layers": [asdict(layer) for layer in self.layers], **rest}

    def tables(self) -> tuple[Table, ...]:
        """Return the table, one row per layer."""
        rows = []
        for layer in self.layers:
            chosen, direct = layer.chosen, _option(layer, "direct")
            memory = "-" if chosen.workspace_bytes is None else f"{(chosen.workspace_bytes + chosen.weight_bytes) / 2**20:.2f}"
            shape, kernel = ("x".join(map(str, s)) for s in (layer.input_shape[1:], layer.kernel))
            numbers = (f"{chosen.predicted_error:.1e}", f"{chosen.seconds * 1e3:.3f}", f"{direct.seconds * 1e3:.3f}", memory)
            rows.append((layer.name, shape, kernel, layer.algorithm, layer.why, *numbers))
        legend = (
            "input: channels and size of one image; taps: size of the kernel; error: relative L2 error expected of the layer's output; "
        )
        legend += "ms, direct: milliseconds of the algorithm and of direct convolution; MiB: workspace and weights"
        header = ("layer", "input", "taps", "algorithm", "why", "error", "ms", "direct", "MiB")
        return (Table(header, tuple(rows), 5, long=("why",), notes=(legend, self.summary())),)

    def summary(self) -> str:
        """Return a summary of the whole network, in a sentence or two."""
        kind = "measured" if self.measured else "estimated"
        text = f"{len(self.layers)} layers, {sum(self.seconds()) * 1e3:.3g} ms {kind}, {sum(self.seconds('direct')) * 1e3:.3g} ms direct; "
        text += f"relative L2 error of {self.predicted_error:.1e} expected at the output; statistics of {self.inputs}"
        slow = [layer.name for layer in self.layers if layer.subnormal_weights]
        if slow:
            text += f"; weights of {listed(slow)} are subnormal and may be slow: fastconv.flush_subnormals takes them for zero"
        if self.inside:
            text += f"; inside If, Loop and Scan, onnxruntime runs {_count_of(self.inside)}: {listed(self.inside)}"
        if self.computed:
            text += f"; onnxruntime runs {_count_of(self.computed)} of computed weights: {listed(self.computed)}"
        if self.max_error is None:
            return text
        if self.within:
            return f"{text}; {self.max_error:.1e} is allowed"
        return f"{text}; {self.max_error:.1e} is allowed, which no choice of algorithms keeps in float32"

    def __repr__(self) -> str:
        kind = "measured" if self.measured else "estimated"
        time, error = sum(self.seconds()) * 1e3, self.predicted_error
        return (
            f"<Explanation of {self.network}: {len(self.layers)} layers, {time:.3g} ms {kind}, relative L2 error of {error:.1e} expected>"
        )


def _count_of(names: tuple[str, ...]) -> str:
    """Return a number of convolutions in words."""
    return f"{len(names)} convolution{'' if len(names) == 1 else 's'}"


def _option(layer: LayerChoice, name: str) -> Option:
    return next((o for o in layer.options if o.algorithm == name), layer.chosen if not name else layer.options[0])


class Preparable(Protocol):
    """A network to explain."""

    name: str
    graph: Graph
    inputs: tuple[Value, ...]

    def prepare(self, algorithm: Choice | Mapping[str, Choice], *, threads: int | None = None) -> Runner:
        """Return a runner of the network for an algorithm."""


def explain(
    net: Preparable,
    feeds: Mapping[str, Array] | Array | None = None,
    max_error: float | None = None,
    chosen: Choice | Mapping[str, Choice] = "auto",
    measure: bool = False,
    threads: int | None = None,
) -> Explanation:
    """Explain a network; see `Network.explain`."""
    if max_error is not None and not (isinstance(max_error, int | float) and max_error > 0):
        raise ValueError(f"max_error is {max_error!r}: pass a positive relative error, such as 1e-5")
    given, known = (drawn_feeds(net.inputs), False) if feeds is None else (feeds, True)
    runner, count = net.prepare(chosen, threads=threads), threads_of(threads)
    keep = [name for node in net.graph.convolutions for name in (node.inputs[0], node.outputs[0]) if name]
    values = runner(given, dict.fromkeys(keep))
    runner(given)
    layers = []
    pace = None if measure else _pace(count)
    live = {node.name for node in folded_constants(net.graph).nodes}
    for node in net.graph.convolutions:
        x, weight, y = (values[node.inputs[0]], net.graph.constants.get(node.inputs[1]), values[node.outputs[0]])
        if weight is not None and node.name in live and x.size and is_float(x.dtype):
            layers.append(_layer(net.graph, node, (x, weight, y if known else None), runner.plan(node.name), count, pace))
    inputs = "the given inputs" if known else "independent numbers of variance one"
    inside = tuple(node.name for node in net.graph.inner_convolutions)
    computed = tuple(node.name for node in net.graph.convolutions if node.inputs[1] not in net.graph.constants and node.name in live)
    found = Explanation(net.name, inputs, measure, count, max_error, tuple(layers), inside, computed)
    return found if max_error is None else _bounded(found, max_error)


class _Run(NamedTuple):
    """How a layer ran: by an algorithm, or by onnxruntime."""

    algorithm: str
    why: str
    layer: Layer
    threads: int
    axes: tuple[BilinearAlgorithm, ...] = ()
    phases: bool = False


def _of_plan(plan: Plan) -> _Run:
    name = "direct" if plan.algorithm == "im2col" else plan.algorithm
    return _Run(name, plan.method.why, plan.layer, plan.threads, plan.method.axes or (), plan.method.phases)


def _of_onnxruntime(node: Node, x: Array, weight: Array, view: Window, threads: int) -> _Run:
    layer = layer_under(view, node, x.shape, weight)
    return _Run("onnxruntime", "onnxruntime: no fast algorithm is estimated to pay on this layer", layer, threads)


def _layer(
    graph: Graph, node: Node, values: tuple[Array, Array, Array | None], plan: Plan | None, threads: int, pace: float | None
) -> LayerChoice:
    x, weight, y = values
    view = window(Call(node.attributes, node.opset), x.shape[2:], weight.shape[2:])
    kernel, entering, output = weight.shape[2:], x.shape, (x.shape[0], weight.shape[0], *view.out)
    x, weight = (np.asarray(part, np.float32 if is_narrow(part.dtype) else part.dtype) for part in (x, weight))
    if x.ndim > 4:
        flat = planar(view, x, weight)
        view, x, weight = flat.view, flat.x, flat.weight
    run = _of_onnxruntime(node, x, weight, view, threads) if plan is None else _of_plan(plan)
    offered: dict[str, Choice] = {"direct": "direct"}
    if x.dtype == np.float32:
        offered["onnxruntime"] = "onnxruntime"
    if is_eligible(graph, node) and len(set(weight.shape[2:])) == 1 and weight.shape[2] > 1:
        offered |= _offered(weight.shape[2], weight.ndim - 2)
    elif len(set(weight.shape[2:])) == len(set(view.strides)) == 1 and 1 < view.strides[0] <= weight.shape[2]:
        known = (resolved(f"F({m}x{m},{weight.shape[2]}x{weight.shape[2]})s{view.strides[0]}") for m in (2, 4))
        offered |= {alg.name(): alg for alg in known if isinstance(alg, BilinearAlgorithm) and is_eligible(graph, node, alg)}
    if run.phases:
        offered["phases"] = "phases"
    elif run.axes:  # perhaps with other points than the options of that name
        offered[run.algorithm] = (run.axes[0], run.axes[-1])
    elif run.algorithm == "fft":
        offered["fft"] = "fft"
    x_square = _square(x) or 1.0
    w_square = _square(weight) or 1.0
    terms, dims = int(np.prod(weight.shape[1:])), weight.ndim - 2
    # Without an observed output, assume independent numbers: a sum of so many products.
    scale = (_square(y) if y is not None else 0.0) or terms * x_square * w_square
    noise = math.sqrt(terms * x_square * w_square / scale)
    options = []
    for label, how in offered.items():
        axes, phases = _axes(how, dims), 1
        if label == "phases":
            axes, phases = run.axes, math.prod(view.strides)
        taps = phases * math.prod(alg.products / alg.m for alg in axes) if axes else float(np.prod(weight.shape[2:]))
        estimate = estimated_direct(run.layer, threads) if how == "onnxruntime" else estimated(run.layer, axes, phases > 1, run.threads)
        size = weight.nbytes * math.prod(alg.products for alg in axes) // math.prod(alg.r for alg in axes)
        option = Option(label, taps, estimate.error * noise, 0.0, size)
        if label == run.algorithm and plan is not None:
            option = replace(option, workspace_bytes=plan.workspace_bytes, weight_bytes=plan.weight_bytes)
        if pace is not None:
            option = replace(option, seconds=estimate.cycles * pace)
        else:
            option = _measured(option, how, node, x, weight, view, threads)
        options.append(option)
    subnormal = 0 if plan is None else plan.subnormal_weights
    return LayerChoice(node.name, kernel, entering, output, math.sqrt(x_square), run.algorithm, run.why, tuple(options), subnormal)


def _offered(r: int, dims: int) -> dict[str, Choice]:
    """Return the algorithms for r x r kernels, with real points and with complex pairs."""
    real = [f"F({m}x{m},{r}x{r})" for m in _SIZES.get(r, (2,)) if m + r - 1 <= 16]
    made = [toom_cook(m, r, complex_points(m, r, pairs, dims)) for m, pairs in (_PAIRS.get(r, ()) if dims == 2 else ())]
    return {name: resolved(name) for name in real} | {alg.name(): alg for alg in made}


def _axes(how: Choice, dims: int) -> tuple[BilinearAlgorithm, ...]:
    """Return the algorithm of each axis, empty for a direct convolution."""
    return how if isinstance(how, tuple) else (how,) * dims if isinstance(how, BilinearAlgorithm) else ()


def _square(x: Array) -> float:
    """Return the mean square, in float64; zero if it is not finite."""
    value = float(np.square(x, dtype=np.float64).mean()) if x.size else 0.0
    return value if math.isfinite(value) else 0.0


def _pace(threads: int) -> float:
    """Return the seconds per estimated cycle, measured within a few milliseconds."""
    plan = plan_conv2d(np.ones((64, 64, 3, 3), np.float32), padding=1, input_shape=(1, 64, 28, 28), algorithm="direct", threads=threads)
    x = np.ones(plan.input_shape, np.float32)
    return _timed(lambda: plan(x)) / estimated(plan.layer, threads=threads).cycles


def _timed(call: Any) -> float:
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.01 and len(times) < 20:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _measured(option: Option, how: Choice, node: Node, x: Array, weight: Array, view: Window, threads: int | None) -> Option:
    """Return the option with its time and error measured on the layer's input."""
    flat = planar(view, x, weight)
    view, x, weight = flat.view, flat.x, flat.weight
    even = view.begin == view.end
    image = np.ascontiguousarray(x if even else np.pad(x, view.pads))
    padding = view.begin if even else (0, 0)
    arguments = (view.strides, padding, view.dilations, int(node.attributes.get("group", 1)))  # type: ignore[arg-type]
    wide = plan_conv2d(weight.astype(np.float64), None, *arguments, input_shape=image.shape, algorithm="direct", threads=threads)
    truth = wide(image.astype(np.float64))
    size = float(np.linalg.norm(truth.reshape(-1)))
    if how == "onnxruntime":
        pads, group = (*padding, *padding), arguments[-1]
        attributes: dict[str, Attribute] = {"strides": view.strides, "pads": pads, "dilations": view.dilations, "group": group}
        session = Session(Node(node.name, "Conv", ("x", "w"), ("y",), attributes, _OPSET), {"w": weight}, {}, Terms(threads_of(threads)))
        (y,) = session((image, weight))
        call = session.bound((image, weight), (y,), frozenset())
    else:
        plan = plan_conv2d(weight, None, *arguments, input_shape=image.shape, algorithm=how, threads=threads)
        y = plan(image)
        call = lambda: plan(image, y)  # type: ignore[assignment]
        option = replace(option, workspace_bytes=plan.workspace_bytes, weight_bytes=plan.weight_bytes)
    error = float(np.linalg.norm((y - truth).reshape(-1))) / size if size else 0.0
    return replace(option, seconds=_timed(call), measured_error=error)


def _bounded(found: Explanation, max_error: float) -> Explanation:
    """Return the explanation with the fastest algorithms that keep the error limit.

    Greedy: start from the fastest of each layer, then take the step with the least time per error removed, until within the limit.
    """
    fastest = [min(layer.options, key=lambda o: o.seconds) for layer in found.layers]
    chosen = list(fastest)
    while math.sqrt(sum(o.predicted_error**2 for o in chosen)) > max_error:
        steps = [
            ((o.seconds - now.seconds) / (now.predicted_error**2 - o.predicted_error**2), k, o)
            for k, (layer, now) in enumerate(zip(found.layers, chosen, strict=True))
            for o in layer.options
            if o.predicted_error < now.predicted_error
        ]
        if not steps:
            break
        _, k, option = min(steps, key=lambda step: step[0])
        chosen[k] = option
    layers = []
    for layer, option, first in zip(found.layers, chosen, fastest, strict=True):
        kind = "measured" if found.measured else "estimated"
        why = f"chosen: the fastest, {kind}" if option is first else f"chosen: {first.algorithm} is faster, but its error is too large here"
        layers.append(replace(layer, algorithm=option.algorithm, why=why))
    return replace(found, layers=tuple(layers))

"""Predict each layer's error, propagate it to the output, and measure it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy
from fastconv.error import SampledPrediction, predict_direct
from fastconv.error.predict import unit
from fastconv.exact import FORMATS
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.network import Network
from fastconv.network.operators.call import Call
from fastconv.network.operators.table import OPERATORS
from fastconv.network.operators.window import planar, window
from fastconv.network.precision.emulated import Emulation, Shape
from fastconv.network.precision.names import split_policy
from fastconv.network.precision.reference import ReferenceRunner
from fastconv.network.precision.rounded import converted
from fastconv.network.predict.samples import sample_for, some, windows
from fastconv.network.run.assign import Choice, assigned
from fastconv.network.run.execute import Runner
from fastconv.tables import Shown, Table

_NOISE = 1e-7
"""Relative size of the noise that measures sensitivities in float64: small enough to be linear, far above rounding."""
_GROUPS = 4
"""Most groups of a convolution for which the error is predicted."""


@dataclass(frozen=True)
class LayerError:
    """Relative L2 errors of a convolution's output.

    Attributes
    ----------
    layer, algorithm : str
    predicted, measured : float
        Error of the layer alone, on its exact input.
    carried, accumulated : float
        Error within the network: predicted from all layers up to this one, and measured.
    gain : float
        Relative error at the network's output per relative error here, to first order, for errors that differ between pixels.
    systematic : float
        The part of `predicted` that is the same wherever the input is: from rounded kernels and constants.
    systematic_gain : float
        The `gain` of that part: that of an error of the layer's kernels.
    """

    layer: str
    algorithm: str
    predicted: float
    measured: float
    carried: float
    accumulated: float
    gain: float
    systematic: float
    systematic_gain: float


@dataclass(frozen=True, repr=False)
class NetworkErrors(Shown):
    """The result of `predict_errors`: errors of layers and of the output."""

    layers: tuple[LayerError, ...]
    predicted: float
    measured: float

    def tables(self) -> tuple[Table, ...]:
        """Return the table, one row per layer."""
        names = ("predicted", "measured", "carried", "accumulated", "gain")
        rows = tuple((e.layer, e.algorithm, *(f"{getattr(e, name):.2e}" for name in names)) for e in self.layers)
        note = f"relative L2 error of the output: {self.predicted:.2e} predicted, {self.measured:.2e} measured"
        return (Table(("layer", "algorithm", *names), rows, 2, notes=(note,)),)

    def __repr__(self) -> str:
        return f"<NetworkErrors of {len(self.layers)} layers: {self.predicted:.2e} predicted, {self.measured:.2e} measured>"


class _Noisy(ReferenceRunner):
    """A network in float64 that adds white noise to the result of one node."""

    def __init__(self, exact: ReferenceRunner, node: str) -> None:
        super().__init__(exact.model, exact.graph, None, exact.memory_limit)
        self._node = node

    def _apply(self, node: Node, inputs: list[Array | None], left: int, *rest: Any) -> tuple[Array, ...]:
        results = super()._apply(node, inputs, left, *rest)
        if node.name != self._node:
            return results
        return (disturbed(results[0]), *results[1:])


def _with_noisy_weights(exact: ReferenceRunner, node: Node) -> Runner:
    weights = {**exact.graph.constants, node.inputs[1]: disturbed(exact.graph.constants[node.inputs[1]])}
    return ReferenceRunner(exact.model, replace(exact.graph, constants=weights), None, exact.memory_limit)


def disturbed(x: Array) -> Array:
    """Return x with normal noise of relative size 1e-7 added."""
    noise = np.random.default_rng(0).standard_normal(x.shape)
    return np.asarray(x + noise * (_NOISE * math.sqrt(float(np.mean(np.square(x))))))


def predict_errors(
    net: Network,
    feeds: Mapping[str, Array],
    algorithm: Choice | Mapping[str, Choice],
    policy: str | Policy = "fp32",
    channel_sum: str = "linear",
) -> NetworkErrors:
    """Predict each convolution's error from its weights and its input's statistics.

    Parameters
    ----------
    net : Network
        A network of float32 with constant weights.
    feeds : mapping
        Input name to array, for statistics, sensitivities and measured errors. A few images are enough.
    algorithm : str, BilinearAlgorithm, or mapping from layer name to either
        Algorithm of the convolutions that it can run; the others run direct.
    policy : str or Policy
        The precision policy to emulate.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.

    Returns
    -------
    NetworkErrors

    Notes
    -----
    The error of a layer alone comes from the second moments of a sample of its weights and input (`fastconv.Sample`), and from
    rounding weights and stored outputs to the policy's data format. Errors of different layers are assumed independent and
    propagated to first order: noise is added to one layer of the network in float64 and measured in the later tensors. Noise at
    the output represents rounding errors that differ between pixels. Noise in the weights represents those that do not, which no
    average over pixels reduces.
    """
    return Propagation(net, feeds).errors(algorithm, policy, channel_sum)


class Propagation:
    """A network run once in float64, with the effect of an error in each layer on later ones.

    Parameters
    ----------
    net : Network
    feeds : mapping
        As in `predict_errors`.
    """

    def __init__(self, net: Network, feeds: Mapping[str, Array]) -> None:
        self.net, self.feeds, self.exact = net, feeds, net.reference()
        self.nodes = [node for node in net.graph.convolutions if node.inputs[1] in net.graph.constants]
        self.seen = [node.outputs[0] for node in self.nodes]
        self.watched = [*self.seen, *(value.name for value in net.outputs)]
        self.truth = self.exact(feeds, dict.fromkeys([name for node in self.nodes for name in (node.inputs[0], *node.outputs)]))
        self.gains = np.array([self._gain(_Noisy(self.exact, node.name), k) for k, node in enumerate(self.nodes)])
        self.systematic = np.array([self._gain(_with_noisy_weights(self.exact, node), k) for k, node in enumerate(self.nodes)])

    def _gain(self, noisy: Runner, layer: int) -> Array:
        """Return the change of all watched tensors by noise, relative to the change at its layer."""
        change = _change(noisy(self.feeds, self.seen), self.truth, self.watched)
        return np.asarray(change / max(float(change[layer]), 1e-300))

    def errors(self, algorithm: Choice | Mapping[str, Choice], policy: str | Policy = "fp32", channel_sum: str = "linear") -> NetworkErrors:
        """Predict the errors of an algorithm in a policy, see `predict_errors`."""
        found, balanced = split_policy(policy)
        if balanced:
            raise ValueError(f"the policy {policy} scales layers by what they meet, which is not predicted: pass {found}")
        choice, count = assigned(self.net.graph, algorithm), len(self.nodes)
        entering = _entering(self.exact, self.feeds, self.truth, self.watched, found)
        runner = self.net.prepare(algorithm, policy, channel_sum=channel_sum)
        accumulated = _change(runner(self.feeds, self.seen), self.truth, self.watched)
        own = [_own_errors(self.net.graph, node, choice[node.name], self.truth, found, channel_sum) for node in self.nodes]
        # A layer's error counts fully at its own output; errors of earlier layers are scaled by their gains.
        white, alike = np.square([error[:2] for error in own]).T
        carried = np.sqrt(white @ self.gains**2 + alike @ self.systematic**2 + entering**2)
        layers = tuple(
            LayerError(
                node.name,
                _title(choice[node.name]),
                math.hypot(random, systematic),
                measured,
                float(carried[k]),
                float(accumulated[k]),
                _joined(self.gains[k, count:]),
                systematic,
                _joined(self.systematic[k, count:]),
            )
            for k, (node, (random, systematic, measured)) in enumerate(zip(self.nodes, own, strict=True))
        )
        return NetworkErrors(layers, _joined(carried[count:]), _joined(accumulated[count:]))


def _joined(values: Array) -> float:
    return math.sqrt(float(np.mean(np.square(values))))


def _title(choice: Choice) -> str:
    return choice.name() if isinstance(choice, BilinearAlgorithm) else "direct"


def _change(got: Mapping[str, Array], truth: Mapping[str, Array], names: Iterable[str]) -> Array:
    with np.errstate(all="ignore"):
        return np.array([_distance(got[name], truth[name]) for name in names])


def _distance(got: Array, truth: Array) -> float:
    size = float(np.linalg.norm(truth.reshape(-1)))
    return float(np.linalg.norm((got.astype(np.float64) - truth).reshape(-1))) / size if size else 0.0


def _entering(exact: Runner, feeds: Mapping[str, Array], truth: Mapping[str, Array], names: list[str], policy: Policy) -> Array:
    """Return the measured errors from rounding the input to the data format."""
    fp32 = FORMATS["fp32"]
    stored = {
        name: np.asarray(converted(array, fp32, policy.data), np.float32) if array.dtype == np.float32 else array
        for name, array in feeds.items()
    }
    if all(np.array_equal(stored[name], feeds[name]) for name in feeds):
        return np.zeros(len(names))
    return _change(exact(stored, names), truth, names)


def _own_errors(
    graph: Graph, node: Node, choice: Choice, truth: Mapping[str, Array], policy: Policy, channel_sum: str
) -> tuple[float, float, float]:
    """Return a layer's predicted random and systematic error, and its measured error."""
    fp32 = FORMATS["fp32"]
    weight = graph.constants[node.inputs[1]]
    bias = graph.constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    call = Call(node.attributes, node.opset, 1, 2**62)
    x = np.asarray(converted(truth[node.inputs[0]].astype(np.float32), fp32, policy.data), np.float32)
    wide = [None if part is None else part.astype(np.float64) for part in (x, weight, bias)]
    right = np.asarray(OPERATORS["Conv"].run(call, *wide))
    flat = planar(window(call, x.shape[2:], weight.shape[2:]), x, weight)
    view, weight, x = flat.view, flat.weight, np.pad(flat.x, flat.view.pads)
    alg = choice if isinstance(choice, BilinearAlgorithm) else None
    shape = Shape(view.strides, view.dilations, int(call["group"]))  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        got, _ = Emulation(weight, bias, shape, alg, policy, channel_sum)(x)
        measured = _distance(flat.restored(got), right)
    size = float(np.mean(np.square(right)))
    found = [_predicted(w, part, shape, alg, policy, channel_sum) for w, part in _groups(weight, x, shape.groups)]
    random, systematic = (float(np.mean([getattr(one, kind) ** 2 for one in found])) for kind in ("random", "systematic"))
    result = policy.accumulate if alg is None else policy.output
    if policy.data.p < 24:  # rounded weights
        of_w = np.square(weight).mean(axis=0).sum(axis=(1, 2))
        of_x = np.square(x).mean(axis=(0, 2, 3)).reshape(shape.groups, -1)
        systematic += unit(policy.data) * float((of_w * of_x).sum(axis=1).mean())
    if policy.data.p < result.p:
        random += unit(policy.data) * size  # rounded outputs
    if bias is not None and result.p <= 24:
        random += unit(result) * size
    return (math.sqrt(random / size), math.sqrt(systematic / size), measured) if size else (0.0, 0.0, measured)


def _groups(weight: Array, x: Array, groups: int) -> Iterator[tuple[Array, Array]]:
    """Yield kernels and channels of some groups of a convolution."""
    for g in np.linspace(0, groups - 1, min(groups, _GROUPS)).astype(int):
        filters, channels = len(weight) // groups, x.shape[1] // groups
        yield weight[g * filters : (g + 1) * filters], x[:, g * channels : (g + 1) * channels]


def _predicted(weight: Array, x: Array, shape: Shape, alg: BilinearAlgorithm | None, policy: Policy, channel_sum: str) -> SampledPrediction:
    """Predict the error of a convolution of a padded input, without bias."""
    if alg is not None:
        return sample_for(x, weight, alg.m, alg.stride).predict(alg, policy, channel_sum)
    size = weight.shape[2:]
    count = [
        (have - apart * (length - 1) - 1) // step + 1
        for have, length, step, apart in zip(x.shape[2:], size, shape.strides, shape.dilations, strict=True)
    ]
    met = windows(x, size, shape.strides, count, shape.dilations)
    kernels, met = (part.reshape(*part.shape[:2], -1) for part in (some(weight), met))
    return predict_direct(kernels, met, policy, channel_sum)

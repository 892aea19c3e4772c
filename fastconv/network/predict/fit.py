"""Fit points to a network: choose the best known set for each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial

import numpy as np

from fastconv.algebra import BilinearAlgorithm, best_points, published_points, published_sources, toom_cook
from fastconv.arithmetic import Policy
from fastconv.error import SampledPrediction
from fastconv.exact import Number
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.network import Network
from fastconv.network.operators.call import Call
from fastconv.network.operators.window import planar, window
from fastconv.network.precision.names import split_policy
from fastconv.network.predict.samples import sample_for
from fastconv.network.run.assign import Choice, is_eligible

_SEARCHED = ("fp32", "bf16", "fp16")
_LAYERS = Policy("fp64", "fp32", "fp32", "fp32", "fp32")

_KERNELS, _CONSTANTS = 2.0, 6.0
"""See `at_output`."""


@lru_cache(maxsize=64)
def known_algorithms(m: int, r: int) -> tuple[BilinearAlgorithm, ...]:
    """Return F(m x m, r x r) with every published or `fastconv.best_points` set.

    Examples
    --------
    >>> len(known_algorithms(2, 3)) >= 2
    True
    """
    ways = [partial(published_points, source, m + r - 1, 2) for source in published_sources()]
    ways += [partial(best_points, m, r, 2, policy, infinity=infinity) for policy in _SEARCHED for infinity in (True, False)]
    found: dict[frozenset[Number], tuple[Number, ...]] = {}
    for way in ways:
        with suppress(ValueError):  # no set of this size
            points = way()
            found.setdefault(frozenset(points), points)
    return tuple(toom_cook(m, r, points) for points in found.values())


def fitted(
    net: Network,
    feeds: Mapping[str, Array],
    m: int,
    policy: str | Policy = "fp32",
    channel_sum: str | None = None,
    candidates: Sequence[BilinearAlgorithm] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Choice]:
    """Choose points for each layer by the error predicted from its weights and inputs.

    Parameters
    ----------
    net : Network
    feeds : mapping
        Input name to array; a few images are enough.
    m : int
        Outputs per tile and axis: each eligible convolution gets F(m x m, r x r) if a point set of that size is known; all
        others run direct.
    policy : str or Policy
    channel_sum : str, optional
        Arithmetic for which to minimise the error, as in `Network.prepare`. Without a channel sum, "fp32" means that of the fast
        kernels, which transform kernels in fp64 and sum channels in blocks.
    candidates : sequence of BilinearAlgorithm, optional
        Algorithms to choose from, by default `known_algorithms`.
    progress : callable, optional
        ``progress(layer)``, called before points are chosen for a layer.

    Returns
    -------
    dict
        Layer to algorithm, for `Network.run`.

    Raises
    ------
    TypeError, ValueError
        If m or the inputs do not fit.

    Notes
    -----
    The prediction uses the second moments of a sample (`fastconv.Sample`), so it accounts for the correlation of neighbours and the
    sign of rectified numbers. A further search around the best known set for a layer lowers its error by another 0 to 2 %.

    The choice minimises the error at the output. Rounded kernels and matrix entries cause errors that are alike in all pixels;
    these reach the output, while later averages, as at the end of a classifier, reduce the others. `at_output` weights them.

    Examples
    --------
    >>> import fastconv as fc
    >>> known = fc.known_network("fashion")
    >>> feeds = {name: array[:4] for name, array in known.inputs().items()}
    >>> chosen = fc.fitted(known.load(), feeds, 4)
    >>> len(chosen["conv2_1"].points)
    6
    """
    if isinstance(m, bool) or not isinstance(m, int) or m < 1:
        raise ValueError(f"m is {m!r}: pass the outputs of a tile, such as 4 for F(4x4,3x3)")
    way = (_LAYERS, "blocked") if policy == "fp32" and channel_sum is None else (split_policy(policy)[0], channel_sum or "linear")
    offered = {node.name: _offered(net.graph, node, m, candidates) for node in net.graph.convolutions}
    chosen: dict[str, Choice] = dict.fromkeys(offered, "direct")

    def watch(node: Node, inputs: list[Array | None], results: tuple[Array, ...], seconds: float) -> None:
        x, weight = (*inputs, None)[:2]
        if x is None or weight is None or not x.size or not offered.get(node.name):
            return
        if progress is not None:
            progress(node.name)
        view = window(Call(node.attributes, node.opset), x.shape[2:], weight.shape[2:])
        flat = planar(view, x, weight)
        sample = sample_for(np.pad(flat.x, flat.view.pads), flat.weight, m)
        chosen[node.name] = min(offered[node.name], key=lambda alg: at_output(sample.predict(alg, *way)))

    net.prepare("direct", "fp64")(feeds, watch=watch)
    return chosen


def at_output(found: SampledPrediction) -> float:
    """Return a layer's error weighted by its effect on the output, up to a factor.

    In trained networks later layers average errors that differ between pixels down to 0.1 to 0.3 of their size. Of the errors of
    rounded kernels about twice as much remains. The errors of rounded constants are alike in channels too, and count fully.
    """
    return found.rms * math.sqrt(1 + (_KERNELS**2 - 1) * found.shares["kernel"] + (_CONSTANTS**2 - 1) * found.shares["constants"])


def _offered(graph: Graph, node: Node, m: int, candidates: Sequence[BilinearAlgorithm] | None) -> tuple[BilinearAlgorithm, ...]:
    weight = graph.constants.get(node.inputs[1])
    if weight is None or (r := weight.shape[-1]) == 1 or not is_eligible(graph, node, r):
        return ()
    return tuple(a for a in (known_algorithms(m, r) if candidates is None else candidates) if (a.m, a.r) == (m, r))

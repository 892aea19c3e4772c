"""Compare cost and error of algorithms on one network and set of inputs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastconv.algebra import parse_name
from fastconv.network.graph.graph import Array, Graph, Node
from fastconv.network.network import Network, load_onnx
from fastconv.network.operators.table import operator_of
from fastconv.network.precision.names import Scales
from fastconv.network.run.assign import assigned, is_eligible
from fastconv.network.run.execute import Runner
from fastconv.network.run.feeds import checked_feeds, named_feeds
from fastconv.network.study.contenders import (
    FITTED,
    SOURCES,
    Contender,
    contenders,
    counted,
    crossed,
    fitted_contenders,
    published_contenders,
)
from fastconv.network.study.race import Progress, Race, arrays_of, final_error, length, ratio
from fastconv.network.study.report import HIGH, LOW, Comparison, Row

__all__ = ["Comparison", "Contender", "Metric", "Progress", "Row", "after", "agreement", "compare", "contenders", "published_contenders"]

Metric = Callable[[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]], Mapping[str, float]]
"""``metric(outputs, reference, direct)`` returns named numbers from dictionaries of all outputs."""
_FIT_IMAGES = 8
"""Images whose statistics are used to fit points."""


def compare(
    net: Network | str | os.PathLike[str] | bytes | Any,
    feeds: Mapping[str, Array] | Array,
    algorithms: Iterable[Any] | None = None,
    reference: str = "fp64",
    *,
    policies: Iterable[str] = ("fp32",),
    channel_sums: Iterable[str | None] = (None,),
    metric: Metric | None = None,
    threads: int | None = None,
    repeats: int = 5,
    batch: int | None = None,
    progress: Progress | None = None,
    name: str | None = None,
) -> Comparison:
    """Compare the cost and error of several algorithms on a network.

    The images run in batches. On each batch the contenders run one after the other, each time starting with another one, so that a
    slow phase of the machine affects all. A first run of each compiles and transforms weights. If all transformed weights exceed a
    quarter of the network's memory limit, contenders run in groups, each together with direct convolution.

    Parameters
    ----------
    net : Network, path, bytes or onnx.ModelProto
        The network, or what `load_onnx` loads.
    feeds : mapping or array
        Input name to array, or the array of a single input; `Network.random_inputs` draws some. The first axis holds the images,
        if the network leaves its length free or fixes it to a divisor of the arrays' first length.
    algorithms : iterable
        Names, `BilinearAlgorithm` objects, ``(label, points, algorithm)``, or "fitted F(4x4,3x3)" for points that `fitted` chooses
        for each layer on the first images. Direct convolution is the first row. Convolutions that an algorithm cannot run are direct.
        None means F(2x2,rxr), F(4x4,rxr) and F(6x6,rxr) for the most frequent kernel r x r that a fast algorithm can run.
    reference : {"fp64"}
        Reference for errors: the same network in float64 with direct convolution.
    policies : iterable of str
        Precision policies; all algorithms run in each, see `Network.prepare`. Emulated ones are not timed.
    channel_sums : iterable
        Sums over channels of emulated policies: "linear", "pairwise", "blocked", or None, which means "linear" and runs fp32 on
        the fast kernels.
    metric : callable, optional
        ``metric(outputs, reference, direct)`` -> {name: value}, called once per row with the outputs for all images. By default the
        agreement of the largest output with float64 and with direct for (images, classes), else the PSNR against float64.
    threads : int, optional
        Threads per convolution.
    repeats : int
        Least number of timed runs; each batch is one run.
    batch : int, optional
        Most images per batch; by default as many as the network's memory limit allows, at most 100.
    progress : callable, optional
        ``progress(done, total, label)``, called before each run, of the name `label`, and at the end; a total of 0 is not known yet.
    name : str, optional
        Name in the report, by default the model's.

    Returns
    -------
    Comparison
        Layers have the names of the model; a layer's error is that after its batch normalisation and activation.

    Raises
    ------
    TypeError, ValueError
        If algorithms, options or inputs do not fit, or no convolution can run one of the algorithms.
    """
    _check_options(reference, repeats, batch)
    net = net if isinstance(net, Network) else load_onnx(net)
    feeds = checked_feeds(net.graph, named_feeds(net.inputs, feeds))
    if 0 in _lengths(feeds):
        raise ValueError("the inputs hold no images: their first length is 0; pass at least one")
    tell = progress or (lambda done, total, label: None)
    wanted = usual_contenders(net, sources=("fastconv",), fit=False) if algorithms is None else algorithms
    rivals = crossed(contenders(_resolved(wanted, net, feeds, tell)), policies, channel_sums)
    ran = [counted(rival.label, rival.algorithm, assigned(net.graph, rival.algorithm).values()) for rival in rivals]
    exact = net.reference(threads=threads)
    tell(0, 0, "first run in float64")
    watched = {node.name: after(net.graph, node) for node in net.graph.convolutions}
    keep = tuple(dict.fromkeys(watched.values()))
    images, parts = _batches(net, feeds, batch or _fitting(net, feeds, exact, keep))
    race = Race(net, exact, keep, parts, threads, repeats, progress)
    rows = _rows(race, rivals, ran, tuple(watched.values()), metric or agreement)
    return Comparison(name or net.name, images, reference, tuple(watched), rows, exact.own_precision)


def _check_options(reference: str, repeats: Any, batch: Any) -> None:
    """Reject options of no use, whatever the network is."""
    if reference != "fp64":
        raise ValueError(f"unknown reference {reference!r}; the known one is fp64")
    for what, value in (("repeats", repeats), ("batch", 1 if batch is None else batch)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{what} must be a positive integer, not {value!r}")


def _rows(race: Race, rivals: Sequence[Contender], ran: Sequence[int], watched: Sequence[str], metric: Metric) -> tuple[Row, ...]:
    """Run the race and return a row for each contender, which ran `ran` layers; `watched` are the tensors of the layers."""
    graph, images = race.net.graph, sum(map(length, race.parts))
    tallies = race.run(rivals)
    outputs, truth = [_joined(tally.outputs) for tally in tallies], _joined(race.truths)
    kernel, direct = _usual_kernel(graph, rivals), outputs[0]
    rows: list[Row] = []
    for rival, tally, output, count in zip(rivals, tallies, outputs, ran, strict=True):
        # Direct convolution comes first in each policy.
        direct = output if rival.algorithm == "direct" else direct
        seconds = float(np.median(tally.seconds))
        with np.errstate(all="ignore"):
            final, numbers = final_error(output, truth), metric(output, truth, direct)
        rows.append(
            Row(
                rival.label,
                rival.points,
                _multiplications(rival, kernel),
                *final,
                {key: float(value) for key, value in numbers.items()},
                seconds * images,
                math.nan if rival.is_emulated else float(np.median(tally.direct)) / seconds,
                tuple(ratio(tally.error[tensor], race.sizes[tensor]) for tensor in watched),
                rival.policy,
                rival.channel_sum,
                tally.overflows,
                {layer: (scale.input, scale.kernel) for layer, scale in tally.scales.items() if scale != Scales()},
                count,
            )
        )
    return tuple(rows)


def usual_contenders(net: Network, sources: Sequence[str] = SOURCES, fit: bool = True) -> tuple[Any, ...]:
    """Return F(2x2,rxr), F(4x4,rxr), F(6x6,rxr) for a network's most frequent kernel.

    Parameters
    ----------
    net : Network
        If no fast algorithm can run any of its convolutions, the result is empty.
    sources : sequence of str
        Sources of the points, as in `published_contenders`.
    fit : bool
        Whether to add points fitted to the network.
    """
    kernels = [net.graph.constants[node.inputs[1]].shape[-2:] for node in net.graph.convolutions if is_eligible(net.graph, node)]
    sizes = Counter(kernel[0] for kernel in kernels if kernel[0] == kernel[1] > 1)
    if not sizes:
        return ()
    r = sizes.most_common(1)[0][0]
    return (*published_contenders(r, sources=sources), *([f"{FITTED} F(4x4,{r}x{r})"] if fit else []))


def _resolved(algorithms: Iterable[Any], net: Network, feeds: Mapping[str, Array], tell: Progress) -> Iterator[Any]:
    """Yield the algorithms, with those named "fitted F(m x m, r x r)" fitted."""
    if isinstance(algorithms, str):
        raise TypeError(f"algorithms must be a list of algorithms, not the one string {algorithms!r}")
    for entry in algorithms:
        if isinstance(entry, str) and entry.startswith(FITTED):
            tell(0, 0, f"choosing points, {entry}")
            found = parse_name(entry.removeprefix(FITTED))
            if len({*found.m}) > 1 or len({*found.r}) > 1:
                raise ValueError(f"{entry!r} is a rectangle: points are fitted for squares, such as '{FITTED} F(4x4,3x3)'")
            m, r = found.m[0], found.r[0]
            yield from fitted_contenders(net, _batches(net, feeds, _FIT_IMAGES)[1][0], (m,), r, None, partial(_choosing, tell, entry))
        else:
            yield entry


def _choosing(tell: Progress, entry: str, layer: str) -> None:
    tell(0, 0, f"choosing points, {entry}: {layer}")


def after(graph: Graph, node: Node) -> str:
    """Return a convolution's output after the normalisation and activation that are its only readers."""
    name = node.outputs[0]
    outputs = {value.name for value in graph.outputs}
    while name not in outputs:
        readers = graph.consumers(name)
        if len(readers) != 1 or not operator_of(readers[0]).follower or readers[0].inputs[0] != name:
            break
        name = readers[0].outputs[0]
    return name


def _lengths(feeds: Mapping[str, Array]) -> set[int]:
    """Return the first lengths of the inputs that have axes; scalars are the same for all images."""
    return {int(array.shape[0]) for array in feeds.values() if np.ndim(array)}


def first_images(feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
    """Return the first images of all inputs; scalars are unchanged.

    Raises
    ------
    ValueError
        If the count is not positive, or the first lengths of the inputs differ, so that the axis of images is unknown.
    """
    if count < 1:
        raise ValueError(f"the number of images is {count}: pass a positive one")
    if len(_lengths(feeds)) > 1:
        raise ValueError(f"the inputs have the first lengths {sorted(_lengths(feeds))}: pass as many images in each")
    return {name: array[:count] if np.ndim(array) else array for name, array in feeds.items()}


def _batches(net: Network, feeds: Mapping[str, Array], batch: int) -> tuple[int, list[Mapping[str, Array]]]:
    """Return the number of images, and the inputs in batches if the network allows it."""
    lengths = _lengths(feeds)
    firsts = {value.shape[0] if value.shape else None for value in net.inputs if np.ndim(feeds.get(value.name, 0))}
    count = max(lengths, default=1)
    if len(lengths) == len(firsts) == 1 and count > 0:
        fixed = next(iter(firsts))
        size = fixed if isinstance(fixed, int) else batch
        if size and (not isinstance(fixed, int) or count % size == 0):
            return count, [dict(_cut(feeds, start, size)) for start in range(0, count, size)]
    return max(count, 1), [feeds]


def _fitting(net: Network, feeds: Mapping[str, Array], exact: Runner, keep: Iterable[str]) -> int:
    """Return the batch size for which the float64 layers take a quarter of the memory limit."""
    one = _batches(net, feeds, 1)[1][0]
    bytes_each = sum(array.nbytes for array in arrays_of(exact(one, keep)).values())
    return max(1, min(100, net.memory_limit // max(1, 4 * bytes_each)))


def _cut(feeds: Mapping[str, Array], start: int, size: int) -> Iterator[tuple[str, Array]]:
    for name, array in feeds.items():
        yield name, np.ascontiguousarray(array[start : start + size]) if np.ndim(array) else array


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    if len(parts) == 1:
        return dict(parts[0])
    joined: dict[str, Array] = {}
    for name in parts[0]:
        arrays = [np.atleast_1d(part[name]) for part in parts if name in part]
        if len(arrays) < len(parts) or len({array.shape[1:] for array in arrays}) > 1:
            shapes = ", ".join(str(array.shape) for array in arrays[:2])
            raise ValueError(f"the output {name!r} differs in shape between batches ({shapes}): pass one batch of images")
        joined[name] = np.concatenate(arrays)
    return joined


def _usual_kernel(graph: Graph, rivals: Iterable[Contender]) -> int | None:
    """Return the taps of the contenders' kernel, else of the most frequent one."""
    sizes = Counter(rival.fast.r**2 for rival in rivals if rival.fast is not None)
    if not sizes:
        weights = [graph.constants[node.inputs[1]] for node in graph.convolutions if is_eligible(graph, node)]
        sizes = Counter(int(np.prod(weight.shape[2:])) for weight in weights)
    return sizes.most_common(1)[0][0] if sizes else None


def _multiplications(rival: Contender, kernel: int | None) -> float | None:
    if isinstance(rival.algorithm, tuple):
        return math.prod(alg.products / alg.m for alg in rival.algorithm)
    if rival.fast is not None:
        return rival.fast.products**2 / rival.fast.m**2
    return float(kernel) if kernel is not None and rival.algorithm in ("direct", "im2col") else None


def agreement(outputs: Mapping[str, Array], reference: Mapping[str, Array], direct: Mapping[str, Array]) -> dict[str, float]:
    """Return the top-1 agreement for outputs (images, classes), else the PSNR; nothing for outputs that are no numbers."""
    name = next((name for name, truth in reference.items() if truth.dtype.kind != "O"), "")
    if not name or name not in outputs or outputs[name].shape != reference[name].shape:
        return {}
    truth = reference[name]
    if truth.ndim == 2 and truth.shape[1] > 1 and name in direct and direct[name].shape == truth.shape:
        best = outputs[name].argmax(axis=1)
        return {
            "agreement_fp64": float((best == truth.argmax(axis=1)).mean()),
            "agreement_direct": float((best == direct[name].argmax(axis=1)).mean()),
            "logit_error": logit_error(outputs[name], truth),
        }
    if truth.size == 0 or truth.dtype.kind != "f":
        return {}
    error = float(np.mean((outputs[name] - truth) ** 2))
    peak = float(truth.max() - truth.min())
    if not (math.isfinite(error) and peak > 0):
        return {"psnr_fp64": math.nan}
    return {"psnr_fp64": 10 * math.log10(peak**2 / error) if error else math.inf}


def logit_error(logits: Array, truth: Array) -> float:
    """Return the root mean square error of all logits.

    Examples
    --------
    >>> logit_error(np.array([[3.0, 4.0]]), np.zeros((1, 2)))  # doctest: +ELLIPSIS
    3.53...
    """
    return float(np.sqrt(np.mean((logits.astype(np.float64) - truth) ** 2)))


def with_interval(name: str, right: int, count: int) -> dict[str, float]:
    """Return a share and its 95 % confidence interval (Wilson 1927).

    Examples
    --------
    >>> with_interval("top1", 90, 100)  # doctest: +ELLIPSIS
    {'top1': 0.9, 'top1_low': 0.825..., 'top1_high': 0.944...}
    """
    z, share = 1.959963984540054, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return {name: share, name + LOW: middle - half, name + HIGH: middle + half}

"""Compare algorithms on one network and one set of inputs: cost, error against float64, and what it does to the answer."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm, published_points, toom_cook
from fastconv.algebra.catalogue import best_source
from fastconv.network.graph import Array, Graph, Node
from fastconv.network.run import Choice, Network, Runner, is_eligible, resolved

Metric = Callable[[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]], Mapping[str, float]]
"""``metric(outputs, reference, direct)`` of whole output dictionaries gives named numbers."""
Progress = Callable[[int, int, str], None]
"""``progress(done, total, label)`` is called after each run."""

_FOLLOWERS = frozenset(
    "BatchNormalization Celu Clip Elu Gelu HardSigmoid HardSwish LeakyRelu Mish PRelu Relu Selu Sigmoid Softplus Softsign "
    "Swish Tanh ThresholdedRelu".split()
)


@dataclass(frozen=True)
class Contender:
    """One row to be: its name, where its points come from ("" for none) and the algorithm."""

    label: str
    points: str
    algorithm: Choice


@dataclass(frozen=True)
class Row:
    """What one algorithm costs and loses.

    `multiplications_per_output` is nominal: n^2 / m^2 for a fast algorithm, the kernel's size for direct convolution, None
    where the choice is left to a heuristic. Errors are against float64, accumulated through the network. `layer_relative_l2`
    belongs to `Comparison.layers`. `seconds` is for all images.
    """

    algorithm: str
    points: str
    multiplications_per_output: float | None
    relative_l2: float
    max_abs: float
    metric: Mapping[str, float]
    seconds: float
    speed_vs_direct: float
    layer_relative_l2: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: one row an algorithm, direct convolution first."""

    network: str
    images: int
    reference: str
    layers: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers, ready for `json.dumps`; a number that is not finite becomes None."""
        rows = [
            {
                "algorithm": row.algorithm,
                "points": row.points,
                "multiplications_per_output": row.multiplications_per_output,
                "relative_l2": _finite(row.relative_l2),
                "max_abs": _finite(row.max_abs),
                "metric": {name: _finite(value) for name, value in row.metric.items()},
                "seconds": _finite(row.seconds),
                "speed_vs_direct": _finite(row.speed_vs_direct),
                "layer_relative_l2": [_finite(value) for value in row.layer_relative_l2],
            }
            for row in self.rows
        ]
        return {
            "network": self.network,
            "images": self.images,
            "reference": self.reference,
            "layers": list(self.layers),
            "rows": rows,
        }

    def header(self) -> list[str]:
        """Return the column titles of `cells`."""
        metrics = list(dict.fromkeys(name for row in self.rows for name in row.metric))
        return ["algorithm", "points", "mult/output", "relative L2", "max error", *metrics, "seconds", "speed"]

    def cells(self) -> list[list[str]]:
        """Return each row as text, in the order of `header`."""
        metrics = self.header()[5:-2]
        return [
            [
                row.algorithm,
                row.points or "-",
                "-" if row.multiplications_per_output is None else f"{row.multiplications_per_output:.3g}",
                f"{row.relative_l2:.2e}",
                f"{row.max_abs:.2e}",
                *(_short(row.metric.get(name)) for name in metrics),
                f"{row.seconds:.3f}",
                f"{row.speed_vs_direct:.2f}x",
            ]
            for row in self.rows
        ]

    def table(self) -> str:
        """Return the comparison as a table in plain text.

        Examples
        --------
        >>> row = Row("direct", "", 9.0, 2e-7, 1e-6, {"top1": 0.93}, 1.5, 1.0, ())
        >>> print(Comparison("tiny", 10, "fp64", (), (row,)).table())
        algorithm  points  mult/output  relative L2  max error  top1  seconds  speed
        direct     -                 9     2.00e-07   1.00e-06  0.93    1.500  1.00x
        """
        lines = [self.header(), *self.cells()]
        width = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, width, strict=True))).rstrip()
            for line in lines
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def contenders(algorithms: Iterable[Any]) -> tuple[Contender, ...]:
    """Name the algorithms to compare; direct convolution comes first, whether it is asked for or not.

    Parameters
    ----------
    algorithms : iterable
        Each a name ("direct", "im2col", "F(4x4,3x3)"), a `BilinearAlgorithm`, or ``(label, points, algorithm)``, where
        `points` says in words where the points come from.

    Raises
    ------
    TypeError, ValueError
        For something else, or an unknown name.

    Examples
    --------
    >>> [c.label for c in contenders(["F(2x2,3x3)"])]
    ['direct', 'F(2x2,3x3)']
    """
    if isinstance(algorithms, str):
        raise TypeError(f"algorithms must be a list of algorithms, not the one string {algorithms!r}")
    result = [Contender("direct", "", "direct")]
    for entry in algorithms:
        if isinstance(entry, Contender):
            contender = entry
        elif isinstance(entry, BilinearAlgorithm):
            contender = Contender(_name(entry), ", ".join(map(str, entry.points or ())), entry)
        elif isinstance(entry, str):
            contender = _named(entry)
        elif isinstance(entry, tuple) and len(entry) == 3 and isinstance(entry[0], str) and isinstance(entry[1], str):
            contender = Contender(entry[0], entry[1], _named(entry[2]).algorithm if isinstance(entry[2], str) else entry[2])
        else:
            raise TypeError(f"an algorithm is a name, a BilinearAlgorithm or (label, points, algorithm), not {entry!r}")
        if contender.algorithm != "direct":
            result.append(contender)
    return tuple(result)


def _name(algorithm: BilinearAlgorithm) -> str:
    return f"F({algorithm.m}x{algorithm.m},{algorithm.r}x{algorithm.r})"


def _named(name: str) -> Contender:
    algorithm = resolved(name)
    if isinstance(algorithm, str):
        return Contender(name, "", algorithm)
    return Contender(_name(algorithm), best_source(algorithm.m, algorithm.r), algorithm)


def published_contenders(
    r: int = 3, sizes: Sequence[int] = (2, 4, 6), sources: Sequence[str] = ("lavin2016", "barabasz2020", "alam2022")
) -> tuple[Contender, ...]:
    """Return F(m x m, r x r) with the published point sets that exist, sets that give one algorithm in one row.

    Examples
    --------
    >>> [(c.label, c.points) for c in published_contenders(sizes=(2,))]
    [('F(2x2,3x3)', 'lavin2016, barabasz2020')]
    """
    found: dict[tuple[int, frozenset[Any]], tuple[BilinearAlgorithm, list[str]]] = {}
    for m in sizes:
        for source in sources:
            try:
                points = published_points(source, m + r - 1, 2)
            except ValueError:
                continue  # this source has no set of this size
            found.setdefault((m, frozenset(points)), (toom_cook(m, r, points), []))[1].append(source)
    return tuple(Contender(_name(algorithm), ", ".join(names), algorithm) for algorithm, names in found.values())


def compare(
    net: Network,
    feeds: Mapping[str, Array],
    algorithms: Iterable[Any] = ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"),
    reference: str = "fp64",
    *,
    metric: Metric | None = None,
    threads: int | None = None,
    repeats: int = 5,
    batch: int | None = None,
    progress: Progress | None = None,
    name: str | None = None,
) -> Comparison:
    """Run a network by several algorithms and say what each costs and loses.

    The images go through in batches. For each batch the contenders run one after the other, beginning with another one
    each time, so that a slow phase of the machine meets all of them; each has run once before, to compile and to transform
    its weights.

    Parameters
    ----------
    net : Network
        The network.
    feeds : mapping
        Input name to array. Where the network leaves the first length free, or fixes it to a divisor of the arrays' first
        length, that axis holds the images.
    algorithms : iterable
        Names, `BilinearAlgorithm` objects or ``(label, points, algorithm)``. Direct convolution is always the first row.
        Each algorithm is used for the convolutions that it can run, the rest of the network runs direct.
    reference : {"fp64"}
        What errors are measured against: the same network in float64 with direct convolution.
    metric : callable, optional
        ``metric(outputs, reference, direct)`` -> {name: value}, called once a row with the outputs for all images. Without
        it: agreement of the largest output with float64 and with direct where the output is (images, classes), else the
        PSNR against float64 with its range as the peak.
    threads : int, optional
        Threads of each convolution.
    repeats : int
        Runs to time, at least; every batch is one.
    batch : int, optional
        Images that go through at once, at most; None takes as many as leave room in the network's memory limit, at most 100.
    progress : callable, optional
        ``progress(done, total, label)``.
    name : str, optional
        Name in the report, the model's own if None.

    Returns
    -------
    Comparison
        Layers are named as in the model; a layer's error is that of its output after the batch normalisation and activation
        that follow, which is what the next layer reads.

    Raises
    ------
    TypeError, ValueError
        If algorithms, options or inputs do not fit.
    """
    if reference != "fp64":
        raise ValueError(f"unknown reference {reference!r}; the known one is fp64")
    for what, value in (("repeats", repeats), ("batch", 1 if batch is None else batch)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{what} must be a positive integer, not {value!r}")
    rivals = contenders(algorithms)
    runners = [net.prepare(rival.algorithm, threads=threads) for rival in rivals]
    exact = net.prepare("direct", reference, threads=threads)
    watched = {node.name: after(net.graph, node) for node in net.graph.convolutions}
    keep = tuple(dict.fromkeys(watched.values()))
    images, parts = _batches(net, feeds, batch or _fitting(net, feeds, exact, keep))
    rounds = max(repeats, len(parts))
    done, total = 0, rounds * len(rivals) + len(parts) + len(rivals)

    def step(label: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, label)

    for rival, runner in zip(rivals, runners, strict=True):
        runner(parts[0], keep)
        step(f"{rival.label}: first run")
    tallies = [_Tally(keep) for _ in rivals]
    truths: list[Mapping[str, Array]] = []
    sizes = dict.fromkeys(keep, 0.0)
    for turn in range(rounds):
        part, first = parts[turn % len(parts)], turn < len(parts)
        if first:
            truth = exact(part, keep)
            truths.append({value.name: truth[value.name] for value in net.outputs})
            for tensor in keep:
                sizes[tensor] += _square(truth[tensor])
            step("float64")
        for i in range(len(rivals)):
            who = (i + turn) % len(rivals)
            begun = time.perf_counter()
            got = runners[who](part, keep)
            tallies[who].seconds.append((time.perf_counter() - begun) / _length(part))
            if first:
                tallies[who].add(got, truth, [value.name for value in net.outputs])
            step(rivals[who].label)
        truth = {}
    outputs = [_joined(tally.outputs) for tally in tallies]
    whole = _joined(truths)
    measure = metric or agreement
    kernel = _usual_kernel(net.graph, rivals)
    direct_seconds = float(np.median(tallies[0].seconds))
    rows = []
    for rival, tally, output in zip(rivals, tallies, outputs, strict=True):
        seconds = float(np.median(tally.seconds))
        with np.errstate(all="ignore"):
            final, numbers = _final_error(output, whole), measure(output, whole, outputs[0])
        rows.append(
            Row(
                rival.label,
                rival.points,
                _multiplications(rival.algorithm, kernel),
                *final,
                {key: float(value) for key, value in numbers.items()},
                seconds * _length(feeds) if parts else 0.0,
                direct_seconds / seconds,
                tuple(_ratio(tally.error[tensor], sizes[tensor]) for tensor in watched.values()),
            )
        )
    return Comparison(name or net.name, images, reference, tuple(watched), tuple(rows))


class _Tally:
    """What one contender gathers over the batches: the squared error of each layer, its outputs, its times."""

    def __init__(self, keep: Iterable[str]) -> None:
        self.error = dict.fromkeys(keep, 0.0)
        self.outputs: list[Mapping[str, Array]] = []
        self.seconds: list[float] = []

    def add(self, got: Mapping[str, Array], truth: Mapping[str, Array], outputs: Iterable[str]) -> None:
        for name in self.error:
            self.error[name] += _square(got[name], truth[name])
        self.outputs.append({name: got[name] for name in outputs})


def _square(x: Array, minus: Array | None = None) -> float:
    """Sum of squares of an array, or of a difference, in float64; in pieces that stay in the cache."""
    x, total, piece = x.reshape(-1), 0.0, 2**15
    other = None if minus is None else minus.reshape(-1)
    with np.errstate(all="ignore"):  # what overflowed before is reported as such
        for start in range(0, x.size, piece):
            part = x[start : start + piece].astype(np.float64)
            if other is not None:
                part -= other[start : start + piece]
            # Not part @ part: BLAS would start its threads, which fight with those of the kernels.
            total += float(np.square(part, out=part).sum())
    return total


def _ratio(error: float, size: float) -> float:
    return math.sqrt(error / size) if size else (0.0 if error == 0 else math.inf)


def _final_error(got: Mapping[str, Array], truth: Mapping[str, Array]) -> tuple[float, float]:
    """Relative L2 and maximal error over all floating-point outputs together (over all outputs, if none is)."""
    names = [name for name in truth if truth[name].dtype.kind == "f"] or list(truth)
    differences = {name: np.asarray(got[name], np.float64) - truth[name] for name in names}
    relative = _ratio(sum(_square(d) for d in differences.values()), sum(_square(truth[name]) for name in names))
    return relative, max((float(np.abs(d).max(initial=0)) for d in differences.values()), default=0.0)


def after(graph: Graph, node: Node) -> str:
    """Return the tensor that a convolution hands on: behind the normalisation and activation that alone read its output."""
    name = node.outputs[0]
    outputs = {value.name for value in graph.outputs}
    while name not in outputs:
        readers = graph.consumers(name)
        if len(readers) != 1 or readers[0].operator not in _FOLLOWERS or readers[0].inputs[0] != name:
            break
        name = readers[0].outputs[0]
    return name


def _length(feeds: Mapping[str, Array]) -> int:
    return max((int(np.shape(array)[0]) for array in feeds.values() if np.ndim(array)), default=1)


def _batches(net: Network, feeds: Mapping[str, Array], batch: int) -> tuple[int, list[Mapping[str, Array]]]:
    """Cut the inputs along their first axis where the network allows it; return the number of images and the parts."""
    lengths = {int(array.shape[0]) if isinstance(array, np.ndarray) and array.ndim else 0 for array in feeds.values()}
    firsts = {value.shape[0] if value.shape else None for value in net.inputs}
    count = max(lengths, default=1)
    if len(lengths) == len(firsts) == 1 and count > 0:
        fixed = next(iter(firsts))
        size = fixed if isinstance(fixed, int) else batch
        if size and (not isinstance(fixed, int) or count % size == 0):
            return count, [dict(_cut(feeds, start, size)) for start in range(0, count, size)]
    return max(count, 1), [feeds]


def _fitting(net: Network, feeds: Mapping[str, Array], exact: Runner, keep: Iterable[str]) -> int:
    """Batch for which float64's layers take a quarter of the memory limit; the rest is for the run itself and the rivals."""
    one = _batches(net, feeds, 1)[1][0]
    bytes_each = sum(array.nbytes for array in exact(one, keep).values())
    return max(1, min(100, net.memory_limit // max(1, 4 * bytes_each)))


def _cut(feeds: Mapping[str, Array], start: int, size: int) -> Iterator[tuple[str, Array]]:
    for name, array in feeds.items():
        yield name, np.ascontiguousarray(array[start : start + size])


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def _usual_kernel(graph: Graph, rivals: Iterable[Contender]) -> int | None:
    """Taps of the kernel that the comparison is about: the contenders', else that of most eligible convolutions."""
    sizes = Counter(rival.algorithm.r**2 for rival in rivals if isinstance(rival.algorithm, BilinearAlgorithm))
    if not sizes:
        weights = [graph.constants[node.inputs[1]] for node in graph.convolutions if is_eligible(graph, node)]
        sizes = Counter(int(np.prod(weight.shape[2:])) for weight in weights)
    return sizes.most_common(1)[0][0] if sizes else None


def _multiplications(algorithm: Choice, kernel: int | None) -> float | None:
    if isinstance(algorithm, BilinearAlgorithm):
        return algorithm.n**2 / algorithm.m**2
    return float(kernel) if kernel is not None and algorithm in ("direct", "im2col") else None


def agreement(outputs: Mapping[str, Array], reference: Mapping[str, Array], direct: Mapping[str, Array]) -> dict[str, float]:
    """Agreement of the strongest class for outputs of the shape (images, classes); otherwise the PSNR against float64."""
    name = next(iter(reference))
    truth = reference[name]
    if truth.ndim == 2 and truth.shape[1] > 1:
        best = outputs[name].argmax(axis=1)
        return {
            "agreement_fp64": float((best == truth.argmax(axis=1)).mean()),
            "agreement_direct": float((best == direct[name].argmax(axis=1)).mean()),
        }
    if truth.size == 0 or truth.dtype.kind != "f":
        return {}
    error = float(np.mean((outputs[name] - truth) ** 2))
    peak = float(truth.max() - truth.min())
    if not (math.isfinite(error) and peak > 0):
        return {"psnr_fp64": math.nan}
    return {"psnr_fp64": 10 * math.log10(peak**2 / error) if error else math.inf}

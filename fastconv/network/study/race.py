"""Run contenders alternately on batches of inputs; collect times and errors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.network.graph.graph import Array
from fastconv.network.network import Network
from fastconv.network.precision.names import Scales
from fastconv.network.precision.runner import EmulatedRunner
from fastconv.network.run.assign import assigned
from fastconv.network.run.execute import Runner
from fastconv.network.study.contenders import Contender

Progress = Callable[[int, int, str], None]
"""``progress(done, total, label)`` is called before each run and at the end; a total of 0 means not known yet."""


class Tally:
    """Results of one contender over the batches: squared error of each layer, outputs, times.

    `direct` are the times of direct convolution in the same rounds; `scales` are the powers of two that scale layers.
    """

    def __init__(self, keep: Iterable[str]) -> None:
        self.error = dict.fromkeys(keep, 0.0)
        self.outputs: list[Mapping[str, Array]] = []
        self.seconds: list[float] = []
        self.direct: list[float] = []
        self.overflows: dict[str, dict[str, int]] = {}
        self.scales: Mapping[str, Scales] = {}

    def counted(self, runner: Runner, feeds: Mapping[str, Array], keep: Iterable[str]) -> Mapping[str, Array]:
        """Run, and add the overflows if the runner counts them."""
        if not isinstance(runner, EmulatedRunner):
            return runner(feeds, keep)
        got, extents = runner.counted(feeds, keep)
        self.scales = runner.scales
        for layer, extent in extents.items():
            for stage, count in extent.overflows.items():
                stages = self.overflows.setdefault(layer, {})
                stages[stage] = stages.get(stage, 0) + count
        return got

    def add(self, got: Mapping[str, Array], truth: Mapping[str, Array], outputs: Iterable[str]) -> None:
        """Add the errors of a batch."""
        for name in self.error:
            self.error[name] += square(got[name], truth[name])
        self.outputs.append(arrays_of({name: got[name] for name in outputs}))


class Race:
    """A comparison of contenders that alternate on batches.

    Contenders run in groups whose transformed weights take at most a quarter of the network's memory limit, or one by one
    if they take more (`groups`). Within a group the contenders and direct convolution run one after the other on each
    batch, each time starting with another one, so that a slow phase of the machine affects all of them.

    Parameters
    ----------
    net : Network
    exact : Runner
        The reference.
    keep : sequence of str
        The tensors whose errors are measured.
    parts : sequence of mapping
        The batches.
    repeats : int
        Least number of timed runs.
    """

    def __init__(
        self,
        net: Network,
        exact: Runner,
        keep: Sequence[str],
        parts: Sequence[Mapping[str, Array]],
        threads: int | None,
        repeats: int,
        progress: Progress | None,
    ) -> None:
        self.net, self.exact, self.keep, self.parts, self.threads, self.progress = net, exact, keep, parts, threads, progress
        self.rounds = max(repeats, len(parts))
        self.truths: list[Mapping[str, Array]] = []
        self.sizes = dict.fromkeys(keep, 0.0)
        self._only: Mapping[str, Array] | None = None
        self._done = self._total = 0

    def run(self, rivals: Sequence[Contender]) -> list[Tally]:
        """Run all contenders, and set the exact outputs `truths` and squared norms `sizes`."""
        groups = list(self.groups(rivals))
        timed = sum(not rival.is_emulated for rival in rivals)
        exact = len(self.parts) * (1 if len(self.parts) == 1 else len(groups))
        self._total = timed * (1 + self.rounds) + (len(rivals) - timed) * len(self.parts) + exact
        tallies = [tally for group in groups for tally in self._together(group)]
        self._tell("done")
        return tallies

    def groups(self, rivals: Sequence[Contender]) -> Iterator[Sequence[Contender]]:
        """Yield the contenders in groups that fit in memory together."""
        start, used = 0, 0
        for k, rival in enumerate(rivals):
            size = self._weights(rival)
            if k > start and used + size > self.net.memory_limit // 4:
                yield rivals[start:k]
                start, used = k, 0
            used += size
        yield rivals[start:]

    def _weights(self, rival: Contender) -> int:
        """Return the bytes of a contender's transformed weights, which an emulation may store in float64."""
        graph, total = self.net.graph, 0.0
        algorithms = assigned(graph, rival.algorithm)
        for node in graph.convolutions:
            weight, algorithm = graph.constants.get(node.inputs[1]), algorithms[node.name]
            if weight is not None:
                growth = algorithm.n**2 / algorithm.r**2 if isinstance(algorithm, BilinearAlgorithm) else 1.0
                total += weight.nbytes * growth * (2 if rival.is_emulated else 1)
        return int(total)

    def _together(self, rivals: Sequence[Contender]) -> list[Tally]:
        # A new network for this group, as a network caches its runners.
        net = Network(self.net.graph, self.net.memory_limit)
        runners = [net.prepare(rival.algorithm, rival.policy, threads=self.threads, channel_sum=rival.channel_sum) for rival in rivals]
        tallies = [Tally(self.keep) for _ in rivals]
        timed = [not rival.is_emulated for rival in rivals]
        direct = next((k for k, rival in enumerate(rivals) if timed[k] and rival.algorithm == "direct"), None)
        pacemaker = net.prepare("direct", threads=self.threads) if direct is None and any(timed) else None
        for rival, runner, once in zip(rivals, runners, timed, strict=True):
            if once:
                with self._step(f"{rival}, first run: compiles and transforms weights"):
                    runner(self.parts[0], self.keep)
        for turn in range(self.rounds if any(timed) else len(self.parts)):
            part, first = self.parts[turn % len(self.parts)], turn < len(self.parts)
            truth = self._truth(turn) if first else {}
            pace = 0.0 if pacemaker is None else _timed(pacemaker, part, self.keep)[0] / length(part)
            for i in range(len(rivals)):
                who = (i + turn) % len(rivals)
                if not (first or timed[who]):
                    continue
                with self._step(str(rivals[who])):
                    seconds, got = _timed(tallies[who].counted, runners[who], part, self.keep)
                tallies[who].seconds.append(seconds / length(part))
                if first:
                    tallies[who].add(got, truth, [value.name for value in self.net.outputs])
            if direct is not None:
                pace = tallies[direct].seconds[-1]
            for tally in tallies:
                tally.direct.append(pace)
            truth = {}
        return tallies

    def _truth(self, turn: int) -> Mapping[str, Array]:
        """Return the exact tensors of a batch, cached only if there is a single batch."""
        if self._only is not None:
            return self._only
        with self._step("reference in float64"):
            truth = self.exact(self.parts[turn], self.keep)
        if len(self.truths) <= turn:
            self.truths.append(arrays_of({value.name: truth[value.name] for value in self.net.outputs}))
            for tensor in self.keep:
                self.sizes[tensor] += square(truth[tensor])
        self._only = truth if len(self.parts) == 1 else None
        return truth

    @contextmanager
    def _step(self, label: str) -> Iterator[None]:
        self._tell(label)
        yield
        self._done += 1

    def _tell(self, label: str) -> None:
        if self.progress is not None:
            self.progress(self._done, self._total, label)


def _timed(call: Callable[..., Mapping[str, Array]], *arguments: Any) -> tuple[float, Mapping[str, Array]]:
    begun = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - begun, result


def length(feeds: Mapping[str, Array]) -> int:
    """Return the number of images."""
    return max((int(np.shape(array)[0]) for array in feeds.values() if np.ndim(array)), default=1)


def square(x: Array, minus: Array | None = None) -> float:
    """Return the sum of squares of an array or a difference, in float64; infinite for arrays of different shapes."""
    if minus is not None and minus.shape != x.shape:
        return math.inf
    x, total, piece = x.reshape(-1), 0.0, 2**15
    other = None if minus is None else minus.reshape(-1)
    with np.errstate(all="ignore"):  # earlier overflows are reported elsewhere
        for start in range(0, x.size, piece):
            part = x[start : start + piece].astype(np.float64)
            if other is not None:
                part -= other[start : start + piece]
            # Not part @ part: BLAS would start its threads, which compete with those of the kernels.
            total += float(np.square(part, out=part).sum())
    return total


def ratio(error: float, size: float) -> float:
    """Return the relative error of two sums of squares."""
    return math.sqrt(error / size) if size else (0.0 if error == 0 else math.inf)


def arrays_of(values: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays among values, those of a list as ``name[0]``, ``name[1]`` and so on.

    Examples
    --------
    >>> list(arrays_of({"y": [np.zeros(2), np.ones(3)], "z": np.ones(1), "nothing": None}))
    ['y[0]', 'y[1]', 'z']
    """
    found: dict[str, Array] = {}
    for name, value in values.items():
        if isinstance(value, list):
            found |= arrays_of({f"{name}[{k}]": part for k, part in enumerate(value)})
        elif value is not None:
            found[name] = np.asarray(value)
    return found


def final_error(got: Mapping[str, Array], truth: Mapping[str, Array]) -> tuple[float, float]:
    """Return the relative L2 and maximal error over all outputs: those of floats, else of numbers, else of text.

    A text that differs counts as an error of one. An output that is missing or has another shape has an infinite error.

    Examples
    --------
    >>> final_error({"y": np.array([3.0, 5.0])}, {"y": np.array([3.0, 4.0])})
    (0.2, 1.0)
    >>> final_error({"y": np.zeros(3)}, {"y": np.zeros(2)})
    (inf, inf)
    """
    kinds = {name: 2 if array.dtype.kind == "O" else 0 if array.dtype.kind == "f" else 1 for name, array in truth.items()}
    names = [name for name, kind in kinds.items() if kind == min(kinds.values())]
    if any(name not in got or got[name].shape != truth[name].shape for name in names):
        return math.inf, math.inf
    differences = [got[n] != truth[n] if kinds[n] == 2 else np.asarray(got[n], np.float64) - truth[n] for n in names]
    size = sum(float(truth[name].size) if kinds[name] == 2 else square(truth[name]) for name in names)
    largest = max((float(np.abs(d).max(initial=0)) for d in differences), default=0.0)
    return ratio(sum(map(square, differences)), size), largest

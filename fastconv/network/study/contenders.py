"""Name the contenders of a comparison: algorithms, policies, sums over channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastconv.algebra import BilinearAlgorithm, best_points, best_source, name_of, published_points, toom_cook
from fastconv.arithmetic import channel_sum_named
from fastconv.network.graph.graph import Array
from fastconv.network.network import Network
from fastconv.network.precision.names import split_policy
from fastconv.network.predict.fit import fitted, known_algorithms
from fastconv.network.run.assign import Choice, resolved

FITTED = "fitted"


@dataclass(frozen=True)
class Contender:
    """One row of a comparison: label, source of points, algorithm, policy, channel sum.

    `algorithm` may be a mapping from all layers to algorithms, as from `fastconv.fitted`.

    Without a `channel_sum` the policy fp32 runs on the fast kernels; everything else is emulated.
    """

    label: str
    points: str
    algorithm: Choice | Mapping[str, Choice]
    policy: str = "fp32"
    channel_sum: str | None = None

    def __str__(self) -> str:
        return " ".join(part for part in (self.label, self.points, self.policy if self.is_emulated else "") if part)

    @property
    def is_emulated(self) -> bool:
        """Whether its time is not comparable."""
        return self.policy != "fp32" or self.channel_sum is not None

    @property
    def fast(self) -> BilinearAlgorithm | None:
        """The (first) fast algorithm, or None."""
        used = self.algorithm.values() if isinstance(self.algorithm, Mapping) else [self.algorithm]
        return next((algorithm for algorithm in used if isinstance(algorithm, BilinearAlgorithm)), None)


def crossed(rivals: Iterable[Contender], policies: Iterable[str], channel_sums: Iterable[str | None]) -> tuple[Contender, ...]:
    """Return each contender in each policy with each sum over channels, in the given order.

    Examples
    --------
    >>> rows = crossed(contenders(["F(2x2,3x3)"]), ["fp32", "fp16"], [None])
    >>> [(row.label, row.policy) for row in rows]
    [('direct', 'fp32'), ('F(2x2,3x3)', 'fp32'), ('direct', 'fp16'), ('F(2x2,3x3)', 'fp16')]
    """
    if isinstance(policies, str):
        raise TypeError(f"policies must be a list of policies, not the one string {policies!r}")
    sums = [None if name is None or name == "default" else name for name in channel_sums]
    for name in sums:
        if name is not None:
            channel_sum_named(name)
    rivals, known = tuple(rivals), tuple(policies)
    for policy in known:
        if policy != "fp32":
            split_policy(policy)
    found = tuple(replace(rival, policy=policy, channel_sum=name) for policy in known for name in sums for rival in rivals)
    if not found:
        raise ValueError("there is nothing to compare: name at least one policy and one sum over channels")
    return found


def counted(label: str, rival: Choice | Mapping[str, Choice], given: Iterable[Choice]) -> int:
    """Return how many layers run a contender's algorithm, from the algorithm given to each layer.

    Raises
    ------
    ValueError
        If there are layers and none of them can run it.
    """
    wanted = None if isinstance(rival, Mapping) else resolved(rival)
    given = list(given)
    ran = sum(not isinstance(choice, str) if wanted is None else choice == wanted for choice in given)
    if given and not ran and not isinstance(wanted, str):
        raise ValueError(f"no convolution of the network can run {label}: kernel, stride, dilation or groups of all differ; leave it out")
    return ran


def contenders(algorithms: Iterable[Any]) -> tuple[Contender, ...]:
    """Return the contenders of algorithms; direct convolution always comes first.

    Parameters
    ----------
    algorithms : iterable
        Each a name ("direct", "im2col", "F(4x4,3x3)"), a `BilinearAlgorithm`, or ``(label, points, algorithm)``, where
        `points` names the source of the points.

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
            contender = Contender(entry.name(), ", ".join(map(str, entry.points or ())), entry)
        elif isinstance(entry, str):
            contender = _named(entry)
        elif isinstance(entry, tuple) and len(entry) == 3 and isinstance(entry[0], str) and isinstance(entry[1], str):
            contender = Contender(entry[0], entry[1], _named(entry[2]).algorithm if isinstance(entry[2], str) else entry[2])
        else:
            raise TypeError(f"an algorithm is a name, a BilinearAlgorithm or (label, points, algorithm), not {entry!r}")
        if contender.algorithm != "direct":
            result.append(contender)
    return tuple(result)


def _named(name: str) -> Contender:
    algorithm = resolved(name)
    if isinstance(algorithm, str):
        return Contender(name, "", algorithm)
    axes = algorithm if isinstance(algorithm, tuple) else (algorithm, algorithm)
    sources = dict.fromkeys(best_source(axis.m, axis.r) for axis in axes if axis.n > 1)
    return Contender(name_of(axes), ", ".join(sources), algorithm)


SOURCES = ("lavin2016", "barabasz2020", "alam2022")
"""Sources of published points."""


def published_contenders(r: int = 3, sizes: Sequence[int] = (2, 4, 6), sources: Sequence[str] = SOURCES) -> tuple[Contender, ...]:
    """Return F(m x m, r x r) with the published point sets, one row per distinct set.

    The source ``"fastconv"`` means the sets of `fastconv.best_points`, whatever their origin.

    Examples
    --------
    >>> [(c.label, c.points) for c in published_contenders(sizes=(2,))]
    [('F(2x2,3x3)', 'lavin2016, barabasz2020')]
    """
    found: dict[tuple[int, frozenset[Any]], tuple[BilinearAlgorithm, list[str]]] = {}
    for m in sizes:
        for source in sources:
            try:
                points = best_points(m, r, 2) if source == "fastconv" else published_points(source, m + r - 1, 2)
            except ValueError:
                continue  # this source has no set of this size
            found.setdefault((m, frozenset(points)), (toom_cook(m, r, points), []))[1].append(source)
    return tuple(Contender(algorithm.name(), ", ".join(names), algorithm) for algorithm, names in found.values())


def fitted_contenders(
    net: Network,
    feeds: Mapping[str, Array],
    sizes: Iterable[int] = (4, 6),
    r: int = 3,
    channel_sum: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Contender, ...]:
    """Return F(m x m, r x r) with fitted points, for `fastconv.compare`; see `fitted`."""
    choices = ((m, fitted(net, feeds, m, "fp32", channel_sum, known_algorithms(m, r), progress)) for m in sizes)
    return tuple(Contender(f"F({m}x{m},{r}x{r})", FITTED, choice) for m, choice in choices)

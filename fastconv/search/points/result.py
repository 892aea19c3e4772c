"""The result of a search for points: ranked sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from fastconv.algebra import BilinearAlgorithm, toom_cook
from fastconv.exact import Number, to_text
from fastconv.tables import Shown, Table


@dataclass(frozen=True)
class PointSet:
    """A set of points that a search found.

    Attributes
    ----------
    points : tuple
        n points, infinity last if it is included.
    value : float
        The objective: for ``"predicted"`` the mean error by `predict_error`, with rows balanced in narrow formats as for
        the measurement; inf if the format does not hold the matrices.
    measured, stderr : float or None
        Mean error measured, with its standard error; None if it was not measured, or overflowed.
    additions, multiplications : int
        Operations of the three transforms in one dimension, Huffman order; scalings by powers of two do not count.
    """

    points: tuple[Number, ...]
    value: float
    measured: float | None
    stderr: float | None
    additions: int
    multiplications: int

    @property
    def operations(self) -> int:
        """Additions and multiplications."""
        return self.additions + self.multiplications

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return vars(self) | {"points": list(map(to_text, self.points))}


@dataclass(frozen=True, repr=False)
class SearchResult(Shown, Sequence[PointSet]):
    """Ranked sets: first the measured ones by measured error, then the others by the objective.

    Attributes
    ----------
    m, r, dims : int
        Size and dimension.
    sets : tuple of PointSet
        The best first.
    evaluated : int
        Candidates evaluated, in this run and in the stored units that it reuses.
    reused, computed : int
        Units of work found in the store, and computed by this run.
    """

    m: int
    r: int
    dims: int
    sets: tuple[PointSet, ...]
    evaluated: int
    reused: int = field(compare=False)
    computed: int = field(compare=False)

    @overload
    def __getitem__(self, index: int) -> PointSet: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[PointSet, ...]: ...
    def __getitem__(self, index: int | slice) -> PointSet | tuple[PointSet, ...]:
        return self.sets[index]

    def __len__(self) -> int:
        return len(self.sets)

    def tables(self) -> tuple[Table, ...]:
        """Return the ten best sets."""
        return (self.ranking(10),)

    def ranking(self, count: int, objective: str = "objective") -> Table:
        """Return the first `count` sets as a table."""
        rows = tuple(
            (
                " ".join(map(to_text, s.points)),
                f"{s.value:.4g}",
                "" if s.measured is None else f"{s.measured:.4g}",
                "" if s.stderr is None else f"{s.stderr:.0e}",
                str(s.additions),
                str(s.multiplications),
            )
            for s in self.sets[:count]
        )
        note = f"F({self.m},{self.r}) in {self.dims}-D: {self.evaluated} sets evaluated, {len(rows)} of {len(self)} ranked ones shown"
        return Table(("points", objective, "measured", "+-", "add", "mult"), rows, long=("points",), notes=(note,))

    def __repr__(self) -> str:
        best = f", the best {' '.join(map(to_text, self.sets[0].points))}" if self.sets else ""
        return f"<SearchResult for F({self.m},{self.r}) in {self.dims}-D: {len(self)} sets{best}>"

    def algorithm(self, rank: int = 0) -> BilinearAlgorithm:
        """Return the algorithm of that rank."""
        return toom_cook(self.m, self.r, self.sets[rank].points)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return vars(self) | {"sets": [s.to_dict() for s in self.sets]}

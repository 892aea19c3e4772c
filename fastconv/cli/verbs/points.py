"""`fastconv points`: the known point sets of a size, measured, and the matrices of the best."""

from __future__ import annotations

import argparse

from fastconv.algebra import best_points, best_row, published_points, published_sources, toom_cook
from fastconv.cli.options import add_measurement, add_size, dims_of, measurement_of, print_json, print_tables, square_of
from fastconv.error import measure_error
from fastconv.exact import to_text
from fastconv.search import certified_limit
from fastconv.tables import Table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_size(parser)
    add_measurement(parser)


def run(args: argparse.Namespace) -> int:
    """Measure each known set and print them, the most accurate first."""
    (m, r), dims = square_of(args), dims_of(args)
    best = best_points(m, r, dims, args.policy)
    sets: dict[tuple[str, ...], list[str]] = {}
    for infinity in (True, False):
        row = best_row(m, r, dims, args.policy, infinity=infinity)
        if row is not None:
            sets[tuple(row["points"].split())] = ["fastconv"]
    for source in published_sources():
        try:
            points = published_points(source, m + r - 1, dims)
        except ValueError:
            continue  # this source has no set of this size
        sets.setdefault(tuple(map(to_text, points)), []).append(source)
    rows = []
    for points_text, sources in sets.items():
        alg = toom_cook(m, r, points_text)
        alg.verify()
        report = measure_error(alg, **measurement_of(args, dims))
        rows.append((report, points_text, sources, alg.points == best))
    rows.sort(key=lambda row: row[0].mean_abs)
    if args.json:
        found = {kind: certified_limit(m, r, dims, given) for kind, given in (("all", None), ("infinity", True)) if args.policy == "fp32"}
        limits = {kind: None if one is None else one.to_dict() for kind, one in found.items()}
        marked = [{"points": p, "sources": s, "best": b, "error": e.to_dict()} | ({"limits": limits} if b else {}) for e, p, s, b in rows]
        print_json(marked)
        return 0
    cells = tuple(
        (
            " ".join(p),
            ", ".join(s),
            "*" if b else "",
            f"{e.mean_abs:.3e}",
            f"{e.mean_abs_stderr:.0e}",
            f"{e.mean_abs / e.direct.mean_abs:.2f}",
        )
        for e, p, s, b in rows
        if e.direct
    )
    what = f"F({m},{r}) in {dims}-D, {args.policy}, {args.inputs}, {args.trials} trials, seed {args.seed}; * is what best_points gives"
    chosen = toom_cook(m, r, best)
    chosen.verify()
    header = ("points", "source", "best", "mean |error|", "+-", "of direct")
    print_tables(Table(header, cells, 3, long=header[:2], notes=(what,)))
    print(f"\n{chosen!r}, verified in exact arithmetic\n")
    print_tables(*chosen.tables())
    for line in _limits(m, r, dims, args.policy):
        print(line)
    return 0


_TELLING = 1.0
"""Largest relative gap at which a limit is printed: beyond it, it tells little about the best known set."""


def _limits(m: int, r: int, dims: int, policy: str) -> list[str]:
    """Return lines on how close the best known sets are to the certified limits."""
    lines = []
    for infinity, what in ((None, "all real point sets"), (True, "sets with infinity")):
        limit = certified_limit(m, r, dims, infinity) if policy == "fp32" else None
        if limit is not None and limit.gap <= _TELLING:
            best = f"the best known set, {limit.best:.3e}, is within {limit.gap:.1%} of the best possible (certified)"
            lines.append(f"\n{what}: none has a first-order predicted error below {limit.limit:.3e}; {best}")
    return lines

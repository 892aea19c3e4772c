"""`fastconv search`: search for points with a small error."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastconv.cli.options import add_formats, add_size, dims_of, print_json, print_tables, square_of
from fastconv.cli.progress import progress
from fastconv.search import Store, search_points


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_size(parser)
    add_formats(parser)
    parser.add_argument("--candidates", help="points to choose from, 'p,q,...'; by default rationals, refined to the best simple ones")
    parser.add_argument("--objective", default="predicted", help="predicted (mean error) or condition (of the Vandermonde matrix)")
    parser.add_argument(
        "--store",
        default="search.sqlite",
        help="file of finished work, from which a repeated run resumes (search.sqlite in the current folder)",
    )
    parser.add_argument("--merge", nargs="+", default=[], metavar="FILE", help="first copy the work in these stores, such as other shards")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="run only shard I of N, 0 <= I < N")
    parser.add_argument("--workers", type=int, help="processes; all cores by default, or one if the work is small")
    parser.add_argument("--infinity", choices=("yes", "no", "both"), default="both", help="whether infinity is a point")
    parser.add_argument("--starts", type=int, default=32, help="random starts, in addition to the known sets")
    parser.add_argument("--height", type=int, default=16, help="largest numerator and denominator of refined points")
    parser.add_argument("--bits", type=int, default=5, help="or largest number of significand bits of refined points")
    parser.add_argument("--keep", type=int, default=64, help="number of sets that are ranked")
    parser.add_argument("--confirm", type=int, default=16, help="number of best sets that are measured")
    parser.add_argument("--trials", type=int, default=5000, help="tiles of each measurement")
    parser.add_argument("--seed", type=int, default=0, help="seed of starts, orders and measurements")
    parser.add_argument("--show", type=int, default=10, help="number of sets that are printed")


def run(args: argparse.Namespace) -> int:
    """Search and print the ranking."""
    (m, r), dims = square_of(args), dims_of(args)
    if args.show < 1:
        raise ValueError(f"--show is {args.show}: pass a positive number")
    options = {
        name: getattr(args, name) for name in ("objective", "store", "starts", "height", "bits", "keep", "confirm", "trials", "seed")
    }
    options["candidates"] = None if args.candidates is None else [p.strip() for p in args.candidates.split(",")]
    options["infinity"] = {"yes": True, "no": False, "both": None}[args.infinity]
    options["shard"] = _shard(args.shard)
    if not Path(args.store).exists():
        print(f"fastconv search: finished work is kept in {args.store}, which --store names", file=sys.stderr)
    if args.merge:
        with Store(args.store) as store:
            store.merge(args.merge)
    begun = time.perf_counter()
    with _executor(args.workers) as executor, _progress(f"F({m},{r}) in {dims}-D") as tell:
        found = search_points(m, r, dims, args.policy, executor=executor, progress=tell, **options)
    seconds = time.perf_counter() - begun
    if args.json:
        print_json(found.to_dict() | {"seconds": seconds, "store": args.store})
        return 0
    work = f"{args.policy}, seed {args.seed}; units of work: {found.computed} computed, {found.reused} reused; {seconds:.1f} s"
    kept = f"finished work is kept in {args.store}: a repeated run resumes from it, and it may be deleted"
    table = found.ranking(args.show, args.objective)
    print_tables(replace(table, notes=(*table.notes, work, kept)))
    return 0


def _shard(text: str) -> tuple[int, int]:
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit()):
        raise ValueError(f"--shard is {text!r}: write I/N with 0 <= I < N, as in 0/4")
    return int(first), int(last)


@contextmanager
def _executor(workers: int | None) -> Iterator[Any]:
    """Yield processes if their number is given; None lets the search decide."""
    if workers is None:
        yield None
        return
    if workers < 1:
        raise ValueError(f"--workers is {workers}: pass a positive number")
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield executor


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """Show how many units are done and how fast; yield the callback ``(done, total, evaluated)`` of `search_points`."""
    begun = time.perf_counter()

    def told(done: int, total: int, evaluated: int) -> None:
        rate = evaluated / max(time.perf_counter() - begun, 1e-9)
        tell(done, total, f"{done}/{total} units, {rate:,.0f} sets/s", "")

    with progress(what) as tell:
        yield told

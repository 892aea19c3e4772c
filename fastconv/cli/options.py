"""Arguments that several verbs share, and the output of results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from fastconv.algebra import BilinearAlgorithm, Name, algorithms, best_algorithm, name_of, parse_name, published_points, toom_cook
from fastconv.tables import Table, terminal_width


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add an algorithm's size: ``4 3`` or ``F(4x4,3x3)``."""
    parser.add_argument(
        "size", nargs="+", metavar="SIZE", help="outputs and taps, as in '4 3', or a name, as in 'F(4x4,3x3)' or 'F(8,5)/14'"
    )


def add_algorithm(parser: argparse.ArgumentParser) -> None:
    """Add an algorithm: its size, and points other than the best."""
    add_size(parser)
    parser.add_argument(
        "--points",
        help="points 'p,q,...,inf', complex ones with 'I', or a source such as barabasz2020; the best known by default",
    )


def size_of(args: argparse.Namespace) -> Name:
    """Return the size as a name: ``4 3`` is a square, of the dimension in ``--dims``."""
    if len(args.size) == 1 and not args.size[0].isdigit():
        return parse_name(args.size[0])
    if len(args.size) != 2 or not all(text.isdigit() for text in args.size):
        raise ValueError(f"size is {' '.join(args.size)!r}: write outputs and taps, as in '4 3', or a name, as in 'F(4x4,3x3)'")
    m, r = map(int, args.size)
    return Name((m, m), (r, r), (1, 1), (None, None))


def dims_of(args: argparse.Namespace) -> int:
    """Return the dimension: that of ``--dims``, else of the name."""
    return getattr(args, "dims", None) or size_of(args).dims


def square_of(args: argparse.Namespace) -> tuple[int, int]:
    """Return outputs and taps of a size that is the same along all axes."""
    size = size_of(args)
    if len({*size.m}) > 1 or len({*size.r}) > 1 or {*size.stride} != {1} or {*size.products} != {None}:
        raise ValueError(f"{args.size[0]} is not F(m,r) of stride one: point sets are known for those; name one of its axes: 'F(4,3)'")
    return size.m[0], size.r[0]


def axes_given(args: argparse.Namespace) -> tuple[BilinearAlgorithm, ...]:
    """Make the algorithm along each axis from size and points, and verify it."""
    size, dims = size_of(args), dims_of(args)
    sides = list(zip(size.m, size.r, size.stride, size.products, strict=True))
    if dims > len(sides) or dims < len(sides) and sides[0] != sides[1]:
        raise ValueError(f"--dims is {dims}, but {args.size[0]} has {size.dims}: leave it out, or name another algorithm")
    if args.points is None:
        one = len({*sides}) == 1
        axes = (best_algorithm(*sides[0][:2], dims, sides[0][3], sides[0][2]),) * dims if one else algorithms(args.size[0])
    else:
        m, r = square_of(args)
        if "," in args.points or args.points.strip().lstrip("-").isdigit():
            axes = (toom_cook(m, r, [p.strip() for p in args.points.split(",")]),) * dims
        else:
            axes = (toom_cook(m, r, published_points(args.points, m + r - 1, dims)),) * dims
    for alg in dict.fromkeys(axes):
        alg.verify()
    return axes


def told(axes: Sequence[BilinearAlgorithm]) -> str:
    """Describe the algorithms of the axes in one line."""
    return repr(axes[0]) if axes[0] == axes[-1] else f"{name_of(axes)}: {axes[0]!r} along the height, {axes[1]!r} along the width"


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Add the dimension and the precision policy."""
    parser.add_argument("--dims", type=int, choices=(1, 2), help="dimension; 2 unless the name says 1")
    parser.add_argument("--policy", default="fp32", help="formats of the stages: fp64, fp32, mixed, tf32, bf16, fp16, ...")


def add_measurement(parser: argparse.ArgumentParser) -> None:
    """Add the options of an error measurement."""
    add_formats(parser)
    parser.add_argument("--order", default="huffman", help="order of summation: huffman, sequential, pairwise, with +shared, +folded, +fma")
    parser.add_argument("--channels", type=int, default=1, help="channels summed over")
    parser.add_argument("--channel-sum", default="linear", help="linear, pairwise or blocked")
    parser.add_argument("--inputs", default="uniform-libstdcxx", help="generator: uniform-libstdcxx, uniform, uniform-grid, normal")
    parser.add_argument("--trials", type=int, default=5000, help="tiles to measure on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (PCG64)")


def measurement_of(args: argparse.Namespace, dims: int) -> dict[str, Any]:
    """Return the options of `measure_error` that were given."""
    names = ("policy", "order", "channels", "channel_sum", "inputs", "trials", "seed")
    return {"dims": dims} | {name: getattr(args, name) for name in names}


def print_json(data: Any) -> None:
    """Print data as JSON."""
    print(json.dumps(data, indent=1))


def print_tables(*tables: Table) -> None:
    """Print tables: within the width of a terminal, each row on one line in a file or a pipe."""
    width = terminal_width()
    print("\n\n".join(table.text(width) for table in tables))

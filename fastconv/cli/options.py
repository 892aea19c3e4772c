"""Arguments that several verbs share, and how results are printed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastconv.algebra import BilinearAlgorithm, best_algorithm, parse_name, published_points, split_name, toom_cook
from fastconv.tables import Table, terminal_width


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add an algorithm's size: ``4 3`` or ``F(4x4,3x3)``."""
    parser.add_argument(
        "size", nargs="+", metavar="SIZE", help="outputs and taps, as in '4 3', or a name, as in 'F(4x4,3x3)' or 'F(8,5)/14'"
    )


def add_algorithm(parser: argparse.ArgumentParser) -> None:
    """Add an algorithm: its size, and its points if they are not to be the best."""
    add_size(parser)
    parser.add_argument(
        "--points",
        help="points 'p,q,...,inf', 'I' among them for a pair of complex ones, or a source such as barabasz2020; the best known by default",
    )


def size_of(args: argparse.Namespace) -> tuple[int, int, int | None]:
    """Return m, r and, where a name tells it, the dimension."""
    if len(args.size) == 1 and not args.size[0].isdigit():
        return parse_name(split_name(args.size[0])[0])
    if len(args.size) != 2 or not all(text.isdigit() for text in args.size):
        raise ValueError(f"size is {' '.join(args.size)!r}: write outputs and taps, as in '4 3', or a name, as in 'F(4x4,3x3)'")
    return int(args.size[0]), int(args.size[1]), None


def algorithm_of(args: argparse.Namespace, dims: int) -> BilinearAlgorithm:
    """Make the algorithm that size and points ask for."""
    m, r, _ = size_of(args)
    if args.points is None:
        name = split_name(args.size[0])
        return best_algorithm(m, r, dims, name.products, name.stride)
    if split_name(args.size[0]).stride != 1:
        raise ValueError(f"{args.size[0]} has a stride, whose points are the best ones for each phase: leave --points out")
    if "," in args.points or args.points.strip().lstrip("-").isdigit():
        return toom_cook(m, r, [p.strip() for p in args.points.split(",")])
    return toom_cook(m, r, published_points(args.points, m + r - 1, dims))


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Add the dimension and the precision policy."""
    parser.add_argument("--dims", type=int, choices=(1, 2), help="dimension; 2 unless the name says 1")
    parser.add_argument("--policy", default="fp32", help="formats of the stages: fp64, fp32, mixed, tf32, bf16, fp16, ...")


def add_measurement(parser: argparse.ArgumentParser) -> None:
    """Add what decides an error measurement."""
    add_formats(parser)
    parser.add_argument("--order", default="huffman", help="order of summation: huffman, sequential, pairwise, with +shared, +folded, +fma")
    parser.add_argument("--channels", type=int, default=1, help="channels that are summed over")
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

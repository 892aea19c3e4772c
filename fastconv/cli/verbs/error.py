"""`fastconv error`: measure the error of an algorithm."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fastconv.cli.options import add_algorithm, add_measurement, algorithm_of, measurement_of, print_json, print_tables, size_of
from fastconv.error import measure_error


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_algorithm(parser)
    add_measurement(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    dims = args.dims or size_of(args)[2] or 2
    alg = algorithm_of(args, dims)
    alg.verify()
    report = measure_error(alg, **measurement_of(args, dims))
    if args.json:
        print_json({"algorithm": repr(alg), **measurement_of(args, dims), **report.to_dict()})
        return 0
    what = (
        f"{alg!r} in {dims}-D, {args.policy}, {args.order}, {args.channels} channels, {args.inputs}, {args.trials} trials, seed {args.seed}"
    )
    (table,) = report.tables()
    print_tables(replace(table, header=("", repr(alg).split(" ")[0], "direct"), notes=(what,)))
    return 0

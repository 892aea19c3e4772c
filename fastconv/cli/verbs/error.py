"""`fastconv error`: measure the error of an algorithm."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fastconv.algebra import name_of
from fastconv.cli.options import add_algorithm, add_measurement, axes_given, measurement_of, print_json, print_tables, told
from fastconv.error import measure_error


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_algorithm(parser)
    add_measurement(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    axes = axes_given(args)
    options = measurement_of(args, len(axes))
    report = measure_error(axes, **options)
    if args.json:
        print_json({"algorithm": told(axes), **options, **report.to_dict()})
        return 0
    what = (
        f"{told(axes)} in {len(axes)}-D, {args.policy}, {args.order}, {args.channels} channels, {args.inputs}, {args.trials} trials, "
        f"seed {args.seed}"
    )
    (table,) = report.tables()
    print_tables(replace(table, header=("", name_of(axes), "direct"), notes=(what,)))
    return 0

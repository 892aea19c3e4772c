"""`fastconv error`: measure the error of an algorithm."""

from __future__ import annotations

import argparse

from fastconv.cli.options import add_algorithm, add_measurement, algorithm_of, measurement_of, print_json, print_table, size_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_algorithm(parser)
    add_measurement(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from fastconv.error import measure_error

    dims = args.dims or size_of(args)[2] or 2
    alg = algorithm_of(args, dims)
    alg.verify()
    report = measure_error(alg, **measurement_of(args, dims))
    if args.json:
        print_json({"algorithm": repr(alg), **measurement_of(args, dims), **report.to_dict()})
        return 0
    assert report.direct is not None
    names = {
        "mean |error|": "mean_abs",
        "its standard error": "mean_abs_stderr",
        "largest |error|": "max_abs",
        "root mean square": "rms",
        "relative L2": "relative_l2",
        "largest in ulp": "max_ulp",
    }
    rows = [[text, f"{getattr(report, name):.4g}", f"{getattr(report.direct, name):.4g}"] for text, name in names.items()]
    rows.append(["overflows", *(str(sum(e.overflows.values())) for e in (report, report.direct))])
    what = (
        f"{alg!r} in {dims}-D, {args.policy}, {args.order}, {args.channels} channels, {args.inputs}, {args.trials} trials, seed {args.seed}"
    )
    print_table(["", repr(alg).split(" ")[0], "direct"], rows, caption=what)
    return 0

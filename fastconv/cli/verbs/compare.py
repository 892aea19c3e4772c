"""`fastconv compare`: run a network by several algorithms and show time and error."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastconv.cli.files import add_figure, add_input, check_own_images, figure_path, inputs_of, save_figure
from fastconv.cli.options import print_json, print_tables
from fastconv.cli.progress import progress
from fastconv.network import compare, first_images, known_network, known_networks, load_onnx, usual_contenders


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("model", nargs="?", help="an ONNX file; or leave it out and name a network")
    parser.add_argument("--network", default=None, help="a network that `fastconv networks` lists (fashion if nothing is given)")
    add_input(parser)
    parser.add_argument("--algorithms", help="names separated by semicolons, as in 'F(2x2,3x3);fitted F(4x4,3x3)'")
    parser.add_argument("--policies", help="precision policies separated by semicolons, as in 'fp32;fp16;fp16-balanced' (fp32)")
    parser.add_argument("--sums", help="sums over channels of emulated policies, as in 'linear;pairwise;blocked'")
    parser.add_argument("--images", type=int, help="use only the first N images; with random inputs, N images (1)")
    parser.add_argument("--threads", type=int, help="threads (all cores by default)")
    parser.add_argument("--repeats", type=int, default=5, help="least number of timed runs of each algorithm")
    add_figure(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print the table and draw the figure."""
    from fastconv.plot import comparison_figure

    title, net, feeds, note, options, baseline = _job(args)
    if args.images is not None and not note:
        feeds = first_images(feeds, args.images)
    target = figure_path(args, "compare", title)
    algorithms: Any = usual_contenders(net) if args.algorithms is None else _names(args.algorithms)
    if args.policies is not None:
        options["policies"] = _names(args.policies)
    if args.sums is not None:
        options["channel_sums"] = _names(args.sums)
    with _progress(f"compare {title}") as tell:
        report = compare(net, feeds, algorithms, threads=args.threads, repeats=args.repeats, progress=tell, name=title, **options)
    figure = save_figure(comparison_figure(report.to_dict()), target, args.overwrite)
    if args.json:
        print_json(report.to_dict() | {"figure": str(figure)})
        return 0
    (table,) = report.tables()
    notes = [*table.notes, *([note] if note else []), f"{report.images} image{'' if report.images == 1 else 's'}; figure in {figure}"]
    if baseline:
        reached = ", ".join(f"{key} {baseline[1][key]:.2f}" for key in report.rows[0].metric if key in baseline[1])
        notes.insert(1, f"{baseline[0]} for comparison: {reached}")
    print_tables(replace(table, notes=tuple(notes)))
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(";") if name.strip()]


def _job(args: argparse.Namespace) -> tuple[str, Any, Mapping[str, Any], str, dict[str, Any], tuple[str, Mapping[str, float]] | None]:
    """Return title, network, inputs and a note on them, options of `compare`, and the baseline."""
    if args.model is not None and args.network is not None:
        raise ValueError(f"both the model {args.model} and --network {args.network} are given: choose one")
    if args.model is not None and args.model not in known_networks():
        net = load_onnx(args.model)
        return Path(args.model).stem, net, *inputs_of(net, args), {}, None
    check_own_images(args)
    known = known_network(args.network or args.model or "fashion")
    baseline = (known.baseline_name, known.baseline()) if known.baseline_name else None
    return known.name, known.load(), known.inputs(), "", {"batch": known.batch, "metric": known.metric}, baseline


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """Show how many runs are done; yield the callback ``(done, total, label)`` of `compare`."""
    with progress(what) as tell:
        tell(0, 0, "", "loading")
        yield lambda done, total, label: tell(done, total, f"{done}/{total} runs" if total else "", label)

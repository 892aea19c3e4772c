"""`fastconv compare`: the main job."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastconv.cli.files import check_writable, feeds_of, save_figure
from fastconv.cli.options import print_json, print_table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("model", nargs="?", help="an ONNX file; or leave it out and name a network")
    parser.add_argument("--network", default=None, help="a network that `fastconv networks` lists (fashion if nothing is given)")
    parser.add_argument("--input", type=Path, help="input of the model: .npy for one array, .npz for arrays by name")
    parser.add_argument("--algorithms", help="names apart by semicolons, as in 'F(2x2,3x3);fitted F(4x4,3x3)'")
    parser.add_argument("--policies", help="precision policies apart by semicolons, as in 'fp32;fp16;fp16-balanced' (fp32)")
    parser.add_argument("--sums", help="sums over channels of emulated policies, as in 'linear;pairwise;blocked'")
    parser.add_argument("--images", type=int, help="use only the first so many images")
    parser.add_argument("--threads", type=int, help="threads (all cores by default)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each algorithm, at least")
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for the figure (the current one by default)")


def run(args: argparse.Namespace) -> int:
    """Compare, print the table and draw the figure."""
    from fastconv.network import compare, first_images, usual_contenders
    from fastconv.plot import comparison_figure

    title, net, feeds, options, baseline = _job(args)
    if args.images is not None:
        feeds = first_images(feeds, args.images)
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in title)
    target = args.output / f"fastconv-compare-{name}.png"
    check_writable(args.output)
    algorithms: Any = usual_contenders(net) if args.algorithms is None else _names(args.algorithms)
    if args.policies is not None:
        options["policies"] = _names(args.policies)
    if args.sums is not None:
        options["channel_sums"] = _names(args.sums)
    with _progress(f"compare {title}") as progress:
        report = compare(net, feeds, algorithms, threads=args.threads, repeats=args.repeats, progress=progress, name=title, **options)
    save_figure(comparison_figure(report.to_dict()), target)
    if args.json:
        print_json(report.to_dict())
        return 0
    caption = f"{report.images} images; errors against the same network in {report.reference}; figure in {target}"
    if baseline:
        reached = ", ".join(f"{key} {value:.2f}" for key, value in baseline[1].items())
        caption = f"{baseline[0]} for comparison: {reached}\n{caption}"
    print_table(report.header(), report.cells(), left=2, caption=caption)
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(";") if name.strip()]


def _job(args: argparse.Namespace) -> tuple[str, Any, Mapping[str, Any], dict[str, Any], tuple[str, Mapping[str, float]] | None]:
    """Return title, network, inputs, options of `compare` and the baseline to show beside."""
    from fastconv.network import known_network, known_networks, load_onnx

    if args.model is not None and args.network is not None:
        raise ValueError(f"both the model {args.model} and --network {args.network} are given: choose one")
    if args.model is not None and args.model not in known_networks():
        net = load_onnx(args.model)
        return Path(args.model).stem, net, feeds_of(net, args.input), {}, None
    if args.input is not None:
        raise ValueError("--input goes with a model file: the known networks bring their own images")
    known = known_network(args.network or args.model or "fashion")
    options: dict[str, Any] = {"batch": known.batch}
    feeds = known.inputs()
    if args.images is None:  # the metric knows the truth for all images
        options["metric"] = known.metric
    baseline = (known.baseline_name, known.baseline()) if known.baseline_name and args.images is None else None
    return known.name, known.load(), feeds, options, baseline


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """Show a bar on standard error where that is a terminal; yield the callback ``(done, total, label)``."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    text, share = TextColumn("{task.description}"), TextColumn("{task.percentage:.0f} %")
    console = Console(file=sys.stderr)
    columns = (text, BarColumn(), share, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, label: bar.update(task, completed=done, total=total, description=f"{what}: {label}")

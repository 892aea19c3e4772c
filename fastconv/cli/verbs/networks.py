"""`fastconv networks`: the networks that fastconv knows; which algorithm runs each layer of one, and why."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastconv.cli.files import add_figure, add_input, check_own_images, figure_path, inputs_of, save_figure
from fastconv.cli.options import print_json, print_tables
from fastconv.network import known_network, known_networks, load_onnx
from fastconv.tables import Table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("model", nargs="?", help="a network to explain: one that is listed, or an ONNX file")
    parser.add_argument("--explain", action="store_true", help="show which algorithm runs each layer, and why")
    add_input(parser)
    parser.add_argument("--images", type=int, default=1, help="images of a listed network, or random ones (1 by default)")
    parser.add_argument("--algorithm", default="auto", help="explain this choice; 'layer=F(2x2,3x3);other=direct' pins layers")
    parser.add_argument("--max-error", type=float, help="largest relative error of the output: choose algorithms by it")
    parser.add_argument("--measure", action="store_true", help="time every option and measure its error")
    parser.add_argument("--threads", type=int, help="threads (all cores by default)")
    add_figure(parser)


def run(args: argparse.Namespace) -> int:
    """List the networks, or explain one."""
    if args.explain:
        return _explain(args)
    if args.model is not None:
        raise ValueError(f"nothing to do for {args.model!r}: add --explain")
    known = known_networks().values()
    if args.json:
        print_json(
            [
                {
                    "name": k.name,
                    "about": k.about,
                    "licence": k.licence,
                    "source": k.source,
                    "bytes": k.size,
                    "fast_share": k.fast_share,
                    "metric": k.measure,
                }
                for k in known
            ]
        )
        return 0
    long = ("about", "metric", "licence", "source")
    rows = tuple((k.name, k.about, k.measure, k.licence, k.source, f"{k.fast_share:.0%}", f"{k.size / 1e6:.1f}") for k in known)
    legend = "fast: share of the multiply-adds in convolutions of stride 1 and at least 3x3; MB: size of the weights"
    print_tables(Table(("name", *long, "fast", "MB"), rows, left=5, long=long, notes=(legend,)))
    return 0


def _explain(args: argparse.Namespace) -> int:
    """Print the table and draw the figure."""
    from fastconv.plot import explanation_figure

    if args.model is None:
        raise ValueError(f"--explain takes a network: {', '.join(known_networks())}, or an ONNX file")
    if args.images < 1:
        raise ValueError(f"--images is {args.images}: pass a positive number")
    feeds: Any = None
    note = ""
    if args.model in known_networks():
        check_own_images(args)
        known = known_network(args.model)
        net, title = known.load(), known.name
        feeds = {name: array[: args.images] for name, array in known.inputs().items()}
    else:
        net, title = load_onnx(args.model), Path(args.model).stem
        if args.input is not None or args.lengths is not None:
            feeds, note = inputs_of(net, args)
    target = figure_path(args, "explain", title)
    found = net.explain(feeds, max_error=args.max_error, algorithm=_choice(args.algorithm), measure=args.measure, threads=args.threads)
    figure = save_figure(explanation_figure(found), target, args.overwrite)
    if args.json:
        print_json(found.to_dict() | {"figure": str(figure)})
    else:
        (table,) = found.tables()
        print_tables(replace(table, notes=(*table.notes, *([note] if note else []), f"figure in {figure}")))
    return 0 if found.within else 1


def _choice(text: str) -> str | dict[str, str]:
    """Read one algorithm, or pairs of layer and algorithm."""
    if "=" not in text:
        return text
    pairs = [part.rpartition("=") for part in text.split(";") if part.strip()]
    return {name.strip(): algorithm.strip() for name, _, algorithm in pairs}

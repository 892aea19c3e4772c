"""`fastconv networks`: the networks that fastconv knows."""

from __future__ import annotations

import argparse

from fastconv.cli.options import print_json, print_table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments: none."""


def run(args: argparse.Namespace) -> int:
    """List them."""
    from fastconv.network import known_networks

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
    header = ["name", "about", "metric", "licence", "source", "fast", "MB"]
    rows = [[k.name, k.about, k.measure, k.licence, k.source, f"{k.fast_share:.0%}", f"{k.size / 1e6:.1f}"] for k in known]
    print_table(header, rows, left=5, caption="fast: share of the multiply-adds in convolutions of stride 1 and at least 3x3")
    return 0

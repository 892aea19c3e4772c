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
        print_json([{"name": k.name, "about": k.about, "licence": k.licence, "source": k.source, "bytes": k.size} for k in known])
        return 0
    print_table(
        ["name", "about", "licence", "source", "MB"], [[k.name, k.about, k.licence, k.source, f"{k.size / 1e6:.1f}"] for k in known], left=4
    )
    return 0

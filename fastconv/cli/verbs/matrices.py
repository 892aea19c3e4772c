"""`fastconv matrices`: an algorithm's matrices, exact and proved."""

from __future__ import annotations

import argparse
import json

from fastconv.cli.options import add_algorithm, algorithm_of, print_json, print_tables, size_of
from fastconv.program import programs_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_algorithm(parser)
    parser.add_argument("--program", metavar="ORDER", help="print the straight-line programs of that order of summation instead")


def run(args: argparse.Namespace) -> int:
    """Print the matrices."""
    alg = algorithm_of(args, size_of(args)[2] or 2)
    alg.verify()
    programs = programs_of(alg, args.program) if args.program else None
    texts = {} if programs is None else {"AT": str(programs.output), "G": str(programs.kernel), "BT": str(programs.input)}
    if args.json:
        print_json(json.loads(alg.to_json()) | {"verified": True} | ({"programs": texts} if texts else {}))
        return 0
    print(f"{alg!r}: verified in exact arithmetic")
    if texts:
        for name, text in texts.items():
            print(f"\n{name}\n{text}")
    else:
        print()
        print_tables(*alg.tables())
    return 0

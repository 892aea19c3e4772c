"""`fastconv matrices`: an algorithm's matrices, exact and proved."""

from __future__ import annotations

import argparse
import json

from fastconv.algebra import BilinearAlgorithm
from fastconv.cli.options import add_algorithm, axes_given, print_json, print_tables
from fastconv.program import programs_of

_SIDES = ("height", "width")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_algorithm(parser)
    parser.add_argument("--program", metavar="ORDER", help="print the straight-line programs of that order of summation instead")


def run(args: argparse.Namespace) -> int:
    """Print the matrices."""
    found = [_found(alg, args.program) for alg in dict.fromkeys(axes_given(args))]
    if args.json:
        shown = [json.loads(alg.to_json()) | {"verified": True} | ({"programs": texts} if texts else {}) for alg, texts in found]
        print_json(shown[0] if len(shown) == 1 else dict(zip(_SIDES, shown, strict=True)))
        return 0
    for side, (alg, texts) in zip(_SIDES, found, strict=False):
        print(f"{f'{side}: ' if len(found) > 1 else ''}{alg!r}: verified in exact arithmetic")
        for name, text in texts.items():
            print(f"\n{name}\n{text}")
        if not texts:
            print()
            print_tables(*alg.tables())
    return 0


def _found(alg: BilinearAlgorithm, order: str | None) -> tuple[BilinearAlgorithm, dict[str, str]]:
    """Return an algorithm with the text of its programs, if an order asks for them."""
    if order is None:
        return alg, {}
    programs = programs_of(alg, order)
    return alg, {"AT": str(programs.output), "G": str(programs.kernel), "BT": str(programs.input)}

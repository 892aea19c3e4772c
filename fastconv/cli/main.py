"""Read the arguments, run one verb, and report an error in one line."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

VERBS = {
    "matrices": "print AT, G and BT of an algorithm, proved",
    "points": "list the known point sets of a size with their measured error",
    "error": "measure the error of an algorithm",
    "tolerance": "derive the tolerance of a test of a Winograd layer",
    "search": "search for points with a small error, in several processes, resumable",
    "compare": "run a network by several algorithms and show the time and error of each",
    "networks": "list the networks that come with fastconv",
    "bench": "time the algorithms on one convolution layer",
}
"""Verbs in the order of the help; each is a module of `fastconv.cli` with ``arguments(parser)`` and ``run(args)``."""


class _Parser(argparse.ArgumentParser):
    """A parser whose error message is one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def _joined(arguments: list[str]) -> list[str]:
    """Join an option to a value such as the points -1,0,1, which argparse would read as another option."""
    joined: list[str] = []
    for argument in arguments:
        number = argument.startswith("-") and argument[1:2] and argument[1] in ".0123456789"
        if number and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 on verified success, 2 for unusable arguments, 130 if interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(prog="fastconv", description="Fast convolution: exact algorithms, their error, and networks that run on them.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", parser_class=_Parser)
    for verb, about in VERBS.items():
        sub = verbs.add_parser(verb, help=about, description=about[0].upper() + about[1:] + ".")
        if arguments[:1] == [verb]:  # only the requested verb is imported
            module = importlib.import_module(f"fastconv.cli.verbs.{verb}")
            module.arguments(sub)
            sub.add_argument("--json", action="store_true", help="print JSON for programs")
    args = parser.parse_args(_joined(arguments))
    if args.version:
        from fastconv import __version__

        print(f"fastconv {__version__}")
        return 0
    if args.verb is None:
        parser.print_help()
        return 0
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = module.run(args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"fastconv {args.verb}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError) as e:
        text = str(e) or type(e).__name__
        print(f"fastconv {args.verb}: {' '.join(text.split())}", file=sys.stderr)
        return 2
    return status

"""`fastconv tolerance`: the tolerance of a test, and its derivation."""

from __future__ import annotations

import argparse

from fastconv.cli.options import add_algorithm, add_formats, axes_given, print_json
from fastconv.error import tolerance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_algorithm(parser)
    parser.add_argument("--channels", type=int, default=1, help="channels summed over")
    add_formats(parser)
    parser.add_argument("--confidence", type=float, default=1 - 1e-9, help="probability that a correct layer passes")
    parser.add_argument("--outputs", type=int, default=10**6, help="outputs that the test compares")
    parser.add_argument("--order", default="huffman", help="order of summation in the transforms")
    parser.add_argument("--channel-sum", default="linear", help="linear, pairwise or blocked")
    parser.add_argument("--scale-w", type=float, default=1.0, help="root mean square of the weights")
    parser.add_argument("--scale-x", type=float, default=1.0, help="root mean square of the inputs")
    parser.add_argument("--inputs", default="normal", help="distribution of weights and inputs: normal or uniform")
    parser.add_argument("--emit", choices=("c", "python"), help="print constants for a test instead")


def run(args: argparse.Namespace) -> int:
    """Derive the tolerance and print it with its reasoning."""
    names = ("channels", "policy", "confidence", "order", "channel_sum", "scale_w", "scale_x", "inputs", "outputs")
    found = tolerance(axes_given(args), **{name: getattr(args, name) for name in names})
    text = {"c": found.to_c_header, "python": found.to_python}[args.emit]() if args.emit else None
    if args.json:
        print_json(found.to_dict() | ({} if text is None else {args.emit: text}))
    elif text is not None:
        print(text, end="")
    else:
        print(f"atol = {found.atol:.6g}   rtol = {found.rtol:.6g}\n")
        print("\n".join(found.reasoning))
    return 0

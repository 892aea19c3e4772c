"""The programs of an algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from fastconv.algebra import BilinearAlgorithm
from fastconv.program.ir import Program
from fastconv.program.order import program_of


@dataclass(frozen=True)
class Programs:
    """The three programs of an algorithm, for one order of summation."""

    output: Program
    kernel: Program
    input: Program


def programs_of(alg: BilinearAlgorithm, order: str = "huffman") -> Programs:
    """Make the programs of AT (output), G (kernel) and BT (input).

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> programs_of(toom_cook(2, 3, [0, 1, -1, "inf"])).input.counts.adds
    4
    """
    return Programs(program_of(alg.AT, order), program_of(alg.G, order), program_of(alg.BT, order))

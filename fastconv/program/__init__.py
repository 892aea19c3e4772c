"""Straight-line programs made from exact matrices and an order of summation."""

from fastconv.program.ir import Counts, Kind, Op, Program, Reading, is_power_of_two
from fastconv.program.order import ORDERS, parse_order, program_of
from fastconv.program.programs import Programs, programs_of

__all__ = [
    "ORDERS",
    "Counts",
    "Kind",
    "Op",
    "Program",
    "Programs",
    "Reading",
    "is_power_of_two",
    "parse_order",
    "program_of",
    "programs_of",
]

"""Straight-line programs made from exact matrices and an order of summation."""

from fastconv.program.ir import Counts, Kind, Op, Program, Reading, is_power_of_two
from fastconv.program.order import ORDERS, parse_order, program_of
from fastconv.program.programs import Programs, programs_of
from fastconv.program.shape import Shape, program_of_text, shape_of

__all__ = [
    "ORDERS",
    "Counts",
    "Kind",
    "Op",
    "Program",
    "Programs",
    "Reading",
    "Shape",
    "is_power_of_two",
    "parse_order",
    "program_of",
    "program_of_text",
    "programs_of",
    "shape_of",
]

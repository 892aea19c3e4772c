"""Make straight-line programs from a matrix and an order of summation."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from fastconv.exact import Number, to_text
from fastconv.program.fold import folded, transposed
from fastconv.program.ir import Kind, Op, Program

Matrix = Sequence[Sequence[Number]]


class Term(NamedTuple):
    """``sign * factor * value``, with a positive factor that is not yet multiplied."""

    sign: int
    factor: Number
    value: int


Combine = Callable[[Term, Term], Term]


def _sequential(terms: Sequence[Term], combine: Combine) -> Term:
    """Sum left to right, in the order of the columns."""
    total = terms[0]
    for term in terms[1:]:
        total = combine(total, term)
    return total


def _pairwise(terms: Sequence[Term], combine: Combine) -> Term:
    """Sum by halves, in the order of the columns; the first half is the larger."""
    if len(terms) == 1:
        return terms[0]
    half = (len(terms) + 1) // 2
    return combine(_pairwise(terms[:half], combine), _pairwise(terms[half:], combine))


def _huffman(terms: Sequence[Term], combine: Combine) -> Term:
    """Merge the two lightest terms first (Huffman order).

    The weight of a leaf is the magnitude of its coefficient, that of a sum the sum of its parts. Equal weights are common, and
    the choice among them changes the error by up to 10 %. The rule is a binary heap that compares only weights, built bottom-up
    from the leaves in the order of their columns (`heapq.heapify`, ``make_heap`` in C++). Sums are pushed as they arise.

    References
    ----------
    Barabasz et al., ACM TOMS 46(4), 2020, section 4.2.
    """
    heap = [_Weighed(_magnitude(t.factor), t) for t in terms]
    heapq.heapify(heap)
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, _Weighed(a.weight + b.weight, combine(a.term, b.term)))
    return heap[0].term


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A term in the heap; equal weights compare as equal."""

    weight: Fraction
    term: Term

    def __lt__(self, other: _Weighed) -> bool:
        return self.weight < other.weight


ORDERS: dict[str, Callable[[Sequence[Term], Combine], Term]] = {"huffman": _huffman, "sequential": _sequential, "pairwise": _pairwise}
"""Orders of summation by name: ``order(terms, combine)`` sums the terms of a row with ``combine`` and returns the total."""

OPTIONS = ("shared", "folded", "fma")


@dataclass(frozen=True)
class Order:
    """An order of summation and its options, as `parse_order` reads them from a name."""

    base: str
    shared: bool
    folded: bool
    fma: bool

    def __str__(self) -> str:
        return "+".join([self.base] + [name for name in OPTIONS if getattr(self, name)])


def parse_order(name: str) -> Order:
    """Read an order's name: ``"huffman"``, ``"sequential"`` or ``"pairwise"``, with options after ``+``.

    - ``+shared`` computes the common parts of two rows or columns that differ only in signs once (the even and odd parts at
      points a and -a).
    - ``+folded`` sums and subtracts mirrored inputs or outputs first where that saves operations, as for complex points
      (`fastconv.program.fold`).
    - ``+fma`` fuses each multiplication with the addition that follows.

    To add an order, put a function into `ORDERS`. Its arguments are the terms of a row and a function that adds two of them.

    Raises
    ------
    TypeError, ValueError
        For anything but a name, or an unknown name.

    Examples
    --------
    >>> str(parse_order("huffman+fma"))
    'huffman+fma'
    """
    if not isinstance(name, str):
        raise TypeError(f"order is {name!r}: pass a name, such as 'huffman'; add your own order to fastconv.program.ORDERS")
    base, *options = name.split("+")
    if base not in ORDERS or any(option not in OPTIONS for option in options):
        known = ", ".join(ORDERS)
        raise ValueError(f"unknown order {name!r}: the orders are {known}, each followed by any of +shared, +folded and +fma")
    return Order(base, *(option in options for option in OPTIONS))


def program_of(matrix: Matrix, order: str = "huffman") -> Program:
    """Make the program that multiplies by a matrix, with rows summed in a given order.

    Parameters
    ----------
    matrix : sequence of rows of exact numbers
        Entries 0, 1 and -1 cost nothing.
    order : str
        See `parse_order`.

    Returns
    -------
    Program
        The same matrix and order give the same program. Equal operations are computed once.

    Raises
    ------
    ValueError
        For an unknown order, a row of zeros, or an entry that contains symbols.

    Examples
    --------
    >>> program_of(((4, 2, 1), (4, -2, 1)), "huffman").counts.adds
    4
    >>> program_of(((4, 2, 1), (4, -2, 1)), "huffman+shared").counts.adds
    3
    """
    exact = tuple(tuple(Fraction(e) if isinstance(e, int) else e for e in row) for row in matrix)
    return _program_of(exact, parse_order(order))


@lru_cache(maxsize=1024)
def _program_of(matrix: tuple[tuple[Number, ...], ...], order: Order) -> Program:
    for i, row in enumerate(matrix):
        if not any(row):
            raise ValueError(f"row {i} is all zeros: a row needs an entry other than zero")
        for e in row:
            if not isinstance(e, Fraction) and e.free_symbols:
                raise ValueError(f"{to_text(e)} holds symbols: replace them by numbers first, with alg.subs(symbol, value)")
    ways = [(True, True), (False, True), (True, False), (False, False)] if order.shared else [(False, False)]
    programs = [_Builder(len(matrix[0]), order).build(matrix, *way) for way in ways]
    if order.folded:
        backwards = tuple(transposed(factor) for factor in reversed(folded(transposed(matrix))))
        programs += [_Builder(len(matrix[0]), order).chain(factors) for factors in (folded(matrix), backwards)]
    return min(programs, key=lambda p: (p.counts.adds + p.counts.fmas, p.counts.muls + p.counts.shifts))


class _Builder:
    """Collect operations without duplicates; share pairs of columns, of rows, both or neither."""

    def __init__(self, inputs: int, order: Order) -> None:
        self.inputs = inputs
        self.order = order
        self.index: dict[Op, int] = {}

    def build(self, matrix: tuple[tuple[Number, ...], ...], columns: bool, pairs: bool) -> Program:
        rows = [[_term(e, j) for j, e in enumerate(row) if e] for row in matrix]
        if columns:
            rows = self.share_columns(matrix)
        partner = _row_pairs(rows) if pairs else {}
        outputs: dict[int, int] = {}
        for i, row in enumerate(rows):
            if i in outputs:
                continue
            if i not in partner:
                outputs[i] = self.value(self.sum(row))
                continue
            signs = {t.value: t.sign for t in rows[partner[i]]}
            even = self.value_of_sum([t for t in row if signs[t.value] == t.sign])
            odd = self.value_of_sum([t for t in row if signs[t.value] != t.sign])
            outputs[i] = self.value(self.combine(even, odd))
            outputs[partner[i]] = self.value(self.combine(even, negated(odd)))
        return Program(self.inputs, tuple(self.index), tuple(outputs[i] for i in range(len(rows))), str(self.order))

    def chain(self, factors: Sequence[Sequence[Sequence[Number]]]) -> Program:
        """Multiply by one matrix after the other."""
        values = list(range(self.inputs))
        for factor in factors:
            values = [self.value(self.sum([_term(e, values[j]) for j, e in enumerate(row) if e])) for row in factor]
        return Program(self.inputs, tuple(self.index), tuple(values), str(self.order))

    def share_columns(self, matrix: tuple[tuple[Number, ...], ...]) -> list[list[Term]]:
        """Replace columns that are equal up to signs by sums and differences of inputs."""
        columns = list(zip(*matrix, strict=True))
        partner: dict[int, int] = {}
        for j, column in enumerate(columns):
            for k in range(j + 1, len(columns)):
                alike = all(abs_equal(a, b) for a, b in zip(column, columns[k], strict=True)) and sum(map(bool, column)) > 1
                if alike and j not in partner.values() and k not in partner.values() and j not in partner:
                    partner[j] = k
        rows: list[list[Term]] = []
        for row in matrix:
            terms = []
            for j, e in enumerate(row):
                if not e or j in partner.values():
                    continue
                if j in partner:
                    kind: Kind = "add" if row[partner[j]] == e else "sub"
                    terms.append(_term(e, self.emit(kind, j, partner[j])))
                else:
                    terms.append(_term(e, j))
            rows.append(terms)
        return rows

    def sum(self, terms: Sequence[Term]) -> Term:
        return ORDERS[self.order.base](terms, self.combine)

    def value_of_sum(self, terms: Sequence[Term]) -> Term:
        total = self.sum(terms)
        return Term(total.sign, Fraction(1), self.product(total))

    def combine(self, a: Term, b: Term) -> Term:
        if self.order.fma:
            for leaf, other in ((b, a), (a, b)):
                if leaf.factor != 1:
                    factor = leaf.factor if leaf.sign == other.sign else -leaf.factor
                    return Term(other.sign, Fraction(1), self.emit("fma", leaf.value, self.product(other), factor))
        x, y = self.product(a), self.product(b)
        if a.sign == b.sign:
            return Term(a.sign, Fraction(1), self.emit("add", x, y))
        return Term(1, Fraction(1), self.emit("sub", x, y) if a.sign > 0 else self.emit("sub", y, x))

    def product(self, term: Term) -> int:
        return term.value if term.factor == 1 else self.emit("mul", term.value, c=term.factor)

    def value(self, term: Term) -> int:
        x = self.product(term)
        return x if term.sign > 0 else self.emit("neg", x)

    def emit(self, kind: Kind, a: int, b: int = -1, c: Number = None) -> int:
        return self.inputs + self.index.setdefault(Op(kind, a, b, c), len(self.index))


def negated(term: Term) -> Term:
    """Return the negated term."""
    return Term(-term.sign, term.factor, term.value)


def _term(e: Number, value: int) -> Term:
    negative = e < 0
    return Term(-1 if negative else 1, -e if negative else e, value)


def abs_equal(a: Number, b: Number) -> bool:
    """Return whether two numbers are equal up to their sign."""
    return bool(a == b or a == -b)


def _magnitude(factor: Number) -> Fraction:
    """Return a positive number as a fraction, which compares exactly."""
    if isinstance(factor, Fraction):
        return factor
    return Fraction(str(factor.evalf(40)))


def _row_pairs(rows: Sequence[Sequence[Term]]) -> dict[int, int]:
    """Pair rows whose terms are equal up to signs, some equal and some negated."""
    partner: dict[int, int] = {}
    for i, row in enumerate(rows):
        if i in partner or i in partner.values() or len(row) < 3:
            continue
        for k in range(i + 1, len(rows)):
            other = {t.value: t for t in rows[k]}
            alike = len(other) == len(row) and all(t.value in other and other[t.value].factor == t.factor for t in row)
            same = sum(other[t.value].sign == t.sign for t in row) if alike else 0
            if alike and 0 < same < len(row) and k not in partner.values():
                partner[i] = k
                break
    return partner

"""Straight-line programs: the matrix they multiply by, their counts, their canonical form."""

from fractions import Fraction

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from fastconv.program import ORDERS, is_power_of_two, parse_order, program_of, programs_of

ENTRIES = st.sampled_from([Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-1, 2), Fraction(3, 4), Fraction(-5, 3)])
NAMES = [base + option for base in ORDERS for option in ("", "+shared", "+folded", "+fma", "+shared+fma", "+shared+folded+fma")]


@st.composite
def matrices(draw):
    columns = draw(st.integers(1, 6))
    rows = draw(st.lists(st.lists(ENTRIES, min_size=columns, max_size=columns).filter(any), min_size=1, max_size=5))
    if draw(st.booleans()):  # a partner with some signs turned, as the rows at a and -a are
        signs = draw(st.lists(st.sampled_from([1, -1]), min_size=columns, max_size=columns))
        rows.append([s * e for s, e in zip(signs, rows[0], strict=True)])
    if draw(st.booleans()):  # and a partner column
        signs = draw(st.lists(st.sampled_from([1, -1]), min_size=len(rows), max_size=len(rows)))
        rows = [[*row, s * row[0]] for s, row in zip(signs, rows, strict=True)]
    return tuple(map(tuple, rows))


@given(matrices(), st.sampled_from(NAMES))
def test_a_program_in_rationals_is_its_matrix(matrix, order):
    assert program_of(matrix, order).matrix() == matrix


@given(matrices(), st.sampled_from(NAMES))
def test_programs_are_canonical(matrix, order):
    """Making it anew, past the cache, gives the same operations."""
    from fastconv.program.order import _program_of

    assert _program_of.__wrapped__(matrix, parse_order(order)) == program_of(matrix, order)


@given(matrices(), st.sampled_from(list(ORDERS)))
def test_sharing_and_fusing_never_cost(matrix, base):
    plain, shared = program_of(matrix, base).counts, program_of(matrix, base + "+shared").counts
    fused = program_of(matrix, base + "+fma").counts
    assert fused.roundings <= plain.roundings
    assert shared.adds <= plain.adds


@pytest.mark.parametrize("order", NAMES)
def test_irrational_matrices_are_kept(order):
    alg = fc.toom_cook(4, 3, fc.published_points("ncnn", 6))
    programs = programs_of(alg, order)
    for program, matrix in ((programs.output, alg.AT), (programs.kernel, alg.G), (programs.input, alg.BT)):
        assert sympy.Matrix(program.matrix()) - sympy.Matrix(matrix) == sympy.zeros(len(matrix), len(matrix[0]))


def test_huffman_merges_the_lightest_first():
    text = str(program_of(((8, 1, 2, 1),), "huffman"))
    assert text.splitlines() == ["t4 = x3 + x1", "t5 = 2*x2", "t6 = t5 + t4", "t7 = 8*x0", "y0 = t6 + t7"]


def test_sharing_takes_the_even_and_odd_parts_once():
    """F(6,3) at 0, +-1, +-2, +-1/2: each of three pairs of rows of BT costs 4 + 2 additions instead of 10 (once 9)."""
    alg = fc.toom_cook(6, 3, fc.published_points("wincnn", 8))
    plain, shared = (programs_of(alg, order).input.counts.adds for order in ("huffman", "huffman+shared"))
    assert (plain, shared) == (35, 24)
    assert programs_of(alg, "huffman+shared").output.counts.adds < programs_of(alg, "huffman").output.counts.adds


@pytest.mark.parametrize(
    ("rows", "adds"),
    [
        ("1 1 1 1; -1 0 -1 1; -1 1 -1 -1; 1 1 -1 2", 8),  # by columns, then by rows; 9 by either alone
        ("1 1 2 1 -1; 1 -1 2 -1 1; 1 2 1 1 1", 9),  # by rows alone; 11 with columns
        ("2 1 -1 -1; 1 -1 -1 1; -1 -1 -1 -1; 1 -1 -1 1", 8),  # by columns alone; 9 with rows
    ],
)
def test_sharing_takes_the_way_of_fewest_additions(rows, adds):
    """One matrix for each way that beats the other two, found among 3,000 random ones."""
    matrix = tuple(tuple(map(Fraction, row.split())) for row in rows.split(";"))
    program = program_of(matrix, "huffman+shared")
    assert program.counts.adds == adds


def test_powers_of_two_are_known():
    assert [is_power_of_two(Fraction(v)) for v in ("1", "-4", "1/8", "3", "0", "3/4")] == [True, True, True, False, False, False]
    assert program_of(((Fraction(1, 2), 4, -1),), "sequential").counts == (2, 0, 2, 0)


@pytest.mark.parametrize("name", ["random", "", "huffman+fast", "huffman+"])
def test_unknown_orders_list_the_known(name):
    with pytest.raises(ValueError, match="huffman, sequential, pairwise"):
        parse_order(name)


@pytest.mark.parametrize("given", [None, 3, [3, 2, 1, 0], (0, 1)])
def test_what_is_no_name_of_an_order_is_told_how_to_add_one(given):
    with pytest.raises(TypeError, match=r"add your own order to fastconv.program.ORDERS"):
        parse_order(given)


def test_rows_of_zeros_and_symbols_are_refused():
    with pytest.raises(ValueError, match="row 1 is all zeros"):
        program_of(((1, 2), (0, 0)))
    c = sympy.Symbol("c")
    with pytest.raises(ValueError, match="holds symbols"):
        programs_of(fc.toom_cook(2, 3, [0, c, -c, fc.INF]))


def test_a_program_counts_its_inputs():
    with pytest.raises(ValueError, match="the program takes 2"):
        program_of(((1, 2),)).read([1], None)

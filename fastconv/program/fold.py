"""Factor a matrix whose columns mirror each other: sums and differences of inputs, then sums that rows share."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from fastconv.exact import Number

Matrix = tuple[tuple[Number, ...], ...]
_FEW = 2


def folded(matrix: Sequence[Sequence[Number]]) -> tuple[Matrix, ...]:
    """Return three matrices whose product is `matrix`, in the order they are applied.

    The first forms sums and differences of mirrored inputs j and n - 1 - j. The second sums over one kind of them. The third
    adds these sums. Rows that are symmetric or antisymmetric save half of the multiplications. Other rows that share one of the
    halves, such as those of a pair of complex points, compute it once.

    Examples
    --------
    >>> for factor in folded(((1, 2, 2, 1), (1, 2, -2, -1))):
    ...     print([[int(e) for e in row] for row in factor])
    [[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 0, -1], [0, 1, -1, 0]]
    [[1, 2, 0, 0], [0, 0, 1, 2]]
    [[1, 0], [0, 1]]
    """
    n = len(matrix[0])
    half = n // 2
    zero, one = Fraction(0), Fraction(1)
    first: dict[tuple[Number, ...], int] = {}
    second: dict[tuple[tuple[int, Number], ...], int] = {}
    third: list[dict[int, Number]] = []

    def input_of(j: int, sign: int) -> int:
        row = [zero] * n
        row[j] = one
        if sign:
            row[n - 1 - j] = Fraction(sign)
        return first.setdefault(tuple(row), len(first))

    def sum_of(terms: list[tuple[int, Number]]) -> tuple[int, Number]:
        if terms[0][1] < 0:
            index, sign = sum_of([(j, -e) for j, e in terms])
            return index, -sign
        return second.setdefault(tuple(terms), len(second)), one

    for row in matrix:
        plain = [(j, 0, e) for j, e in enumerate(row) if e]
        sums = [(j, 1, (row[j] + row[n - 1 - j]) / 2) for j in range(half)] + [(half, 0, row[half])] * (n % 2)
        parts = [[t for t in sums if t[2]], [(j, -1, (row[j] - row[n - 1 - j]) / 2) for j in range(half) if row[j] != row[n - 1 - j]]]
        if len(plain) <= _FEW or sum(map(len, parts)) > len(plain):
            parts = [plain]
        third.append(dict(sum_of([(input_of(j, sign), e) for j, sign, e in part]) for part in parts if part))

    def dense(rows: Sequence[dict[int, Number]], width: int) -> Matrix:
        return tuple(tuple(row.get(j, zero) for j in range(width)) for row in rows)

    return tuple(first), dense([dict(terms) for terms in second], len(first)), dense(third, len(second))


def transposed(matrix: Sequence[Sequence[Number]]) -> Matrix:
    """Return the transpose."""
    return tuple(zip(*matrix, strict=True))

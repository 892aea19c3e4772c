"""The bilinear algorithm ``y = AT [(G w) * (BT x)]``: exact, frozen, hashable, and proved on demand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from html import escape
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastconv.algebra.interpolate import Matrix, matrices_at
from fastconv.algebra.names import name_of
from fastconv.exact import (
    FORMATS,
    PLAIN,
    Field,
    Format,
    Gaussian,
    Infinity,
    Number,
    dtype_of,
    exact_number,
    exact_point,
    format_named,
    format_of_dtype,
    rounded,
    simplified,
    to_sympy,
    to_text,
)
from fastconv.tables import Shown, Table

_JSON_FORMAT = "fastconv-bilinear-1"


class VerificationError(ValueError):
    """The matrices do not compute a convolution; the message names the first coefficient that is wrong."""


class Matrices(NamedTuple):
    """``AT (m, n)``, ``G (n, r)`` and ``BT (n, n)`` as numpy arrays."""

    AT: npt.NDArray[Any]
    G: npt.NDArray[Any]
    BT: npt.NDArray[Any]

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in _tables(self, str))


@dataclass(frozen=True)
class BilinearAlgorithm(Shown):
    """An algorithm F(m, r) for ``y_i = sum_k w_k x_{i+k}``, i = 0..m-1, on tiles of n = m + r - 1.

    With real points it takes n multiplications, the fewest possible. A pair of complex points takes three. With a stride s
    it computes ``y_i = sum_k w_k x_{s i + k}`` on tiles of n = s (m - 1) + r.

    In two dimensions the same matrices serve F(m x m, r x r): ``Y = AT [(G W G^T) * (BT X BT^T)] A``.

    Attributes
    ----------
    m, r : int
        Outputs and taps.
    points : tuple
        The interpolation points, `Fraction`, sympy expressions, `Gaussian` (a pair of them) or `INF`; empty for given matrices.
    AT, G, BT : tuple of tuples
        The matrices, (m, products), (products, r) and (products, n), of exact numbers.
    stride : int
        Inputs from one output to the next.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> alg = toom_cook(2, 3, [0, 1, -1, "inf"])
    >>> alg
    F(2,3) at 0, 1, -1, inf
    >>> alg.verify()
    >>> alg.G[1]
    (Fraction(1, 2), Fraction(1, 2), Fraction(1, 2))
    """

    m: int
    r: int
    points: tuple[Number, ...]
    AT: Matrix = field(repr=False)
    G: Matrix = field(repr=False)
    BT: Matrix = field(repr=False)
    stride: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        for name, value in (("m", self.m), ("r", self.r), ("stride", self.stride)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}: outputs, taps and the stride are integers of at least 1")
        k = self.products
        if k < self.n:
            raise ValueError(f"G has {k} rows: {self.name(1)} takes at least {self._size} multiplications")
        for name, matrix, shape in (("AT", self.AT, (self.m, k)), ("G", self.G, (k, self.r)), ("BT", self.BT, (k, self.n))):
            if len(matrix) != shape[0] or any(len(row) != shape[1] for row in matrix):
                rule = f"F({self.m},{self.r}){self._strides} of {k} products has {self._size}"
                raise ValueError(f"{name} is not {shape[0]} rows of {shape[1]}: {rule}")

    def __hash__(self) -> int:
        return hash((self.m, self.r, self.stride, self.points, self.AT, self.G, self.BT))

    def __repr__(self) -> str:
        at = " at " + ", ".join(map(to_text, self.points)) if self.points else " of given matrices"
        return f"F({self.m},{self.r}){self._strides}{at}"

    __str__ = __repr__

    def tables(self) -> tuple[Table, ...]:
        """Return AT, G and BT."""
        return _tables((self.AT, self.G, self.BT), to_text)

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{super()._repr_html_()}"

    @property
    def n(self) -> int:
        """Tile size, m + r - 1, or stride (m - 1) + r."""
        return self.stride * (self.m - 1) + self.r

    @property
    def _size(self) -> str:
        return f"n = m + r - 1 = {self.n}" if self.stride == 1 else f"n = stride (m - 1) + r = {self.n}"

    @property
    def _strides(self) -> str:
        return "" if self.stride == 1 else f"s{self.stride}"

    @property
    def products(self) -> int:
        """Number of multiplications: n plus one per pair of complex points, or the sum over the phases of a stride."""
        return len(self.G)

    def name(self, dims: int = 2) -> str:
        """Return the name that `fastconv.algorithm` reads: outputs, taps, stride and, with complex points, products.

        Examples
        --------
        >>> from fastconv import circle_points, toom_cook
        >>> toom_cook(4, 3, [0, 1, -1, 2, -2, "inf"]).name(), toom_cook(4, 3, circle_points(6)).name(1)
        ('F(4x4,3x3)', 'F(4,3)/7')
        """
        return name_of((self,) * dims)

    @classmethod
    def from_matrices(
        cls, AT: Sequence[Sequence[Any]], G: Sequence[Sequence[Any]], BT: Sequence[Sequence[Any]], stride: int = 1
    ) -> BilinearAlgorithm:
        """Return the algorithm with given matrices, after proving it correct.

        Parameters
        ----------
        AT, G, BT : sequences of rows of exact numbers
            Each an int, a `Fraction`, text or a sympy expression; no floats.
        stride : int
            Inputs from one output to the next.

        Raises
        ------
        VerificationError
            If they do not compute a convolution.

        Examples
        --------
        >>> AT, G = [[1, 1, 0], [0, 1, 1]], [[1, 0], ["1/2", "1/2"], [0, 1]]
        >>> BilinearAlgorithm.from_matrices(AT, G, [[1, -1, 0], [0, 2, 0], [0, -1, 1]])
        F(2,2) of given matrices
        """
        exact = [tuple(tuple(exact_number(e) for e in row) for row in matrix) for matrix in (AT, G, BT)]
        if not all(exact) or not exact[1][0]:
            raise ValueError("a matrix is empty: AT (m, n), G (n, r) and BT (n, n) need rows and columns")
        alg = cls(len(exact[0]), len(exact[1][0]), (), *exact, stride=stride)
        alg.verify()
        return alg

    def verify(self) -> None:
        """Prove the algorithm in exact arithmetic, for every w and x, symbols included.

        Checks ``sum_j AT[i,j] G[j,k] BT[j,l] = [l == stride i + k]`` for all i, k, l.

        Raises
        ------
        VerificationError
            Names the first coefficient that is wrong.
        """
        K = Field(e for matrix in (self.AT, self.G, self.BT) for row in matrix for e in row)
        AT, G, BT = ([[K(e) for e in row] for row in matrix] for matrix in (self.AT, self.G, self.BT))
        zero, one = K(Fraction(0)), K(Fraction(1))
        for i, k in product(range(self.m), range(self.r)):
            weights = [(j, AT[i][j] * G[j][k]) for j in range(self.products) if AT[i][j] and G[j][k]]
            for l in range(self.n):  # noqa: E741 - i, k, l index y, w, x
                total = sum((weight * BT[j][l] for j, weight in weights if BT[j][l]), zero)
                if total != (one if l == self.stride * i + k else zero):
                    expected = 1 if l == self.stride * i + k else 0
                    found = K.number(total)
                    raise VerificationError(f"{self!r} is wrong: the coefficient of w_{k} x_{l} in y_{i} is {found} instead of {expected}")

    def matrices(self, dtype: npt.DTypeLike = np.float64) -> Matrices:
        """Return AT, G and BT as arrays, each entry rounded once from its exact value.

        Parameters
        ----------
        dtype : dtype or str
            float64, float32, float16, or bfloat16 and the float8 formats of ml_dtypes; or the name of a format, ``"fp16"``.

        Raises
        ------
        ValueError
            If entries hold symbols, or an entry overflows the format.
        """
        dtype = dtype_of(dtype)
        fmt = format_of_dtype(dtype)

        def array(name: str, matrix: Matrix) -> npt.NDArray[Any]:
            values = np.array([[rounded(e, fmt) for e in row] for row in matrix])
            if not np.isfinite(values).all():
                i, j = np.argwhere(~np.isfinite(values))[0]
                entry, largest = f"{name}[{i}][{j}] = {to_text(matrix[i][j])}", float(fmt.largest)
                raise ValueError(f"{entry} is beyond the largest number of {fmt.name}, {largest:g}")
            return values.astype(dtype)

        return Matrices(array("AT", self.AT), array("G", self.G), array("BT", self.BT))

    def subs(self, symbol: Any, value: Any) -> BilinearAlgorithm:
        """Return the algorithm with a symbol replaced by an exact number.

        Parameters
        ----------
        symbol : sympy.Symbol or str
            The symbol.
        value : int, Fraction, str or sympy expression
            Its value.

        Raises
        ------
        ValueError
            If no entry holds the symbol, or the value makes two points coincide.
        """
        expressions = [e for e in self._entries() if not isinstance(e, PLAIN)]
        known = {s for e in expressions for s in e.free_symbols}
        target = next((s for s in known if s == symbol or str(s) == str(symbol)), None)
        if target is None:
            raise ValueError(f"{self!r} holds no symbol {symbol}: it holds {', '.join(sorted(map(str, known))) or 'none'}")
        number = to_sympy(exact_number(value))

        def replaced(e: Number) -> Number:
            return e if isinstance(e, PLAIN) else exact_number(e.subs(target, number))

        try:
            points = tuple(map(replaced, self.points))
            finite = [p for p in simplified([p for p in points if not isinstance(p, (Infinity, Gaussian))])]
            if len(set(finite)) < len(finite):
                raise ValueError("two points coincide")
            new = [tuple(simplified([replaced(e) for e in row]) for row in matrix) for matrix in (self.AT, self.G, self.BT)]
        except (ValueError, ZeroDivisionError) as e:
            raise ValueError(f"{symbol} = {value} does not fit {self!r}: {e}") from None
        return BilinearAlgorithm(self.m, self.r, points, *new, stride=self.stride)

    def scaled(
        self, dA: Sequence[Any] | None = None, dG: Sequence[Any] | None = None, dB: Sequence[Any] | None = None
    ) -> BilinearAlgorithm:
        """Return the same algorithm with product j scaled by ``dA[j] dG[j] dB[j] = 1``.

        Any two of the diagonals determine the third. If only one is given, its inverse goes into `dG`
        (or into `dB`, if `dG` is given).

        Parameters
        ----------
        dA, dG, dB : sequences of exact numbers
            Factors of the columns of AT, the rows of G and the rows of BT.

        Examples
        --------
        >>> from fastconv import toom_cook
        >>> toom_cook(2, 3, [0, 1, -1, "inf"]).scaled(dB=[1, "1/2", "1/2", 1]).BT[1]
        (Fraction(0, 1), Fraction(1, 2), Fraction(1, 2), Fraction(0, 1))
        """
        given = {k: [exact_number(e) for e in d] for k, d in (("dA", dA), ("dG", dG), ("dB", dB)) if d is not None}
        for name, d in given.items():
            if len(d) != self.products or any(e == 0 for e in d):
                raise ValueError(f"{name} is not {self.products} numbers other than zero: one factor per product")
        one = [Fraction(1)] * self.products
        factors = {k: given.get(k, one) for k in ("dA", "dG", "dB")}
        if len(given) < 3:
            free = next(k for k in ("dG", "dB", "dA") if k not in given)
            factors[free] = [1 / (a * b) for a, b in zip(*(factors[k] for k in factors if k != free), strict=True)]
        if any(simplified([a * b * c])[0] != 1 for a, b, c in zip(*factors.values(), strict=True)):
            raise ValueError("dA, dG and dB do not multiply to one: leave one of them out and it follows")
        AT = tuple(simplified([e * f for e, f in zip(row, factors["dA"], strict=True)]) for row in self.AT)
        G = tuple(simplified([e * f for e in row]) for row, f in zip(self.G, factors["dG"], strict=True))
        BT = tuple(simplified([e * f for e in row]) for row, f in zip(self.BT, factors["dB"], strict=True))
        return BilinearAlgorithm(self.m, self.r, self.points, AT, G, BT, stride=self.stride)

    def balanced(self, format: str | Format = "fp16") -> BilinearAlgorithm:
        """Return the same algorithm with rows balanced by powers of two, for narrow formats.

        The rows of BT and G get Euclidean norms between 1/sqrt(2) and sqrt(2), so that transformed tensors have the
        scale of the data. The columns of AT take the inverse. Powers of two round nothing: in a format of wide range
        the error does not change.

        Parameters
        ----------
        format : str or Format
            The format that the balanced matrices must fit.

        Raises
        ------
        ValueError
            Names the entry that does not fit the format, and by how much.

        Examples
        --------
        >>> from fastconv import toom_cook
        >>> alg = toom_cook(4, 3, [0, 1, -1, 8, -8, "inf"]).balanced("fp16")
        >>> max(abs(e) for row in alg.BT for e in row)
        Fraction(65, 128)
        """
        fmt = format_named(format)
        wide = FORMATS["fp64"]
        shifts = {}
        for name, rows in (("dG", self.G), ("dB", self.BT)):
            norms = [math.hypot(*(rounded(e, wide) for e in row)) for row in rows]
            shifts[name] = [Fraction(2) ** -round(math.log2(norm)) for norm in norms]
        scaled = self.scaled(**shifts)
        for name, matrix in (("AT", scaled.AT), ("G", scaled.G), ("BT", scaled.BT)):
            for i, row in enumerate(matrix):
                for j, e in enumerate(row):
                    magnitude = abs(rounded(e, wide))
                    if magnitude > float(fmt.largest):
                        excess = f"{magnitude / float(fmt.largest):.3g} times the largest number of {fmt.name}"
                        raise ValueError(f"{name}[{i}][{j}] = {to_text(e)} is {excess}: no scaling of rows fits that format")
        return scaled

    def to_sympy(self) -> Matrices:
        """Return AT, G and BT as sympy matrices (named ``AT``, ``G``, ``BT``)."""
        import sympy

        return Matrices(*(sympy.Matrix([[to_sympy(e) for e in row] for row in matrix]) for matrix in (self.AT, self.G, self.BT)))

    def to_json(self) -> str:
        """Write the algorithm as JSON text: numbers are strings ``"p/q"`` or expressions."""
        data: dict[str, Any] = {"format": _JSON_FORMAT, "m": self.m, "r": self.r, "points": [to_text(p) for p in self.points]}
        data |= {"stride": self.stride} if self.stride > 1 else {}
        data |= {name: [[to_text(e) for e in row] for row in matrix] for name, matrix in (("AT", self.AT), ("G", self.G), ("BT", self.BT))}
        symbols = {s for e in self._entries() if not isinstance(e, PLAIN) for s in e.free_symbols}
        if symbols:  # sympy's symbols are equal only with the same assumptions
            data["symbols"] = {s.name: dict(s.assumptions0) for s in sorted(symbols, key=str)}
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str | bytes) -> BilinearAlgorithm:
        """Read an algorithm that `to_json` wrote, and prove it.

        Raises
        ------
        ValueError
            If the text is not JSON in that format.
        VerificationError
            If the matrices in it do not compute a convolution.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"not JSON: {e}") from None
        if not isinstance(data, dict) or data.get("format") != _JSON_FORMAT:
            raise ValueError(f"not an algorithm: expected a JSON object whose 'format' is {_JSON_FORMAT!r}")
        try:
            given = _assumed(data.get("symbols", {}))
            points = tuple(given(exact_point(p)) for p in data["points"])
            matrices = [tuple(tuple(given(exact_number(e)) for e in row) for row in data[name]) for name in ("AT", "G", "BT")]
            alg = cls(data["m"], data["r"], points, *matrices, stride=data.get("stride", 1))
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"not an algorithm: {type(e).__name__} {e}") from None
        alg.verify()
        alg._check_points()
        return alg

    def _check_points(self) -> None:
        """Reject points that do not match the matrices: each needs its row in G, up to a factor."""
        if self.stride != 1 or not self.points or len(self.points) != self.n:
            return
        expected = matrices_at(self.m, self.r, self.points)[1]
        field = Field([e for matrix in (self.G, expected) for row in matrix for e in row])
        rows, wanted = ([[field(e) for e in row] for row in matrix] for matrix in (self.G, expected))
        for point, row in zip(self.points, wanted, strict=False):
            if not any(all(a * d == b * c for (a, b), (c, d) in combinations(zip(row, other, strict=True), 2)) for other in rows):
                raise ValueError(f"the points do not belong to the matrices: no row of G is that of the point {point}; leave them out")

    def _entries(self) -> list[Number]:
        return [*self.points, *(e for matrix in (self.AT, self.G, self.BT) for row in matrix for e in row)]


def _tables(matrices: Sequence[Any], text: Callable[[Any], str]) -> tuple[Table, ...]:
    named = zip(("AT", "G", "BT"), matrices, strict=True)
    return tuple(Table((), tuple(tuple(map(text, row)) for row in matrix), 0, 0, title=name) for name, matrix in named)


def _assumed(symbols: Mapping[str, Mapping[str, bool]]) -> Any:
    """Return a function that gives plain symbols the stated assumptions."""
    if not symbols:
        return lambda e: e
    import sympy

    table = {sympy.Symbol(name): sympy.Symbol(name, **assumptions) for name, assumptions in symbols.items()}
    return lambda e: e if isinstance(e, PLAIN) else e.xreplace(table)

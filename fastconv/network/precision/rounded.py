"""Compiled programs and channel sums that round every operation to a format.

Values are stored in a wider format, the carrier, and rounded in registers. One operation in the carrier followed by one rounding
is correctly rounded. For products this holds if the carrier represents them exactly, otherwise by Figueroa's theorem, which needs
2 p + 2 bits in the carrier. float32 carries fp16 (p = 11) and bf16 (p = 8). The smallest product of two fp16 numbers, 2**-48, is
far above float32's subnormals. A subnormal product of two bf16 numbers could round twice only just below half of the smallest
bf16 number; it would need the sixteen bits 2**16 - 1, which are not a product of two 8-bit numbers. float64 carries the rest.

References
----------
S. Figueroa, "When is double rounding innocuous?", ACM SIGNUM Newsletter 30(3), 1995.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.arithmetic import BLOCK, carrier, channel_sum_named, round_to
from fastconv.exact import Format, rounded
from fastconv.native import digest_of
from fastconv.program import Program

Array = NDArray[Any]
_KINDS = {"mul": 0, "add": 1, "sub": 2, "neg": 3}
_SOURCE = Path(__file__).read_text(encoding="utf-8")


def carrier_of(*formats: Format) -> type[np.floating[Any]]:
    """Return the carrier type of operations whose operands and results are in these formats.

    Examples
    --------
    >>> from fastconv.exact import format_named
    >>> carrier_of(format_named("fp16")), carrier_of(format_named("fp16"), format_named("fp64"))
    (<class 'numpy.float32'>, <class 'numpy.float64'>)
    """
    return np.float32 if {fmt.name for fmt in formats} in ({"fp32"}, {"fp16"}, {"bf16"}) else np.float64


def rounding(fmt: Format, hold: type[np.floating[Any]]) -> tuple[Any, ...]:
    """Return the parameters of the compiled rounding to a format.

    Integers round normal numbers. For subnormals, adding 1.5 ulp(carrier) / tiny rounds to multiples of the smallest subnormal,
    and subtracting it again is exact.
    """
    bits, whole = (24, np.uint32) if hold is np.float32 else (53, np.uint64)
    drop = bits - fmt.p
    if drop <= 0:
        raise ValueError(f"{np.dtype(hold).name} carries no {fmt.name} that must be rounded")
    width = 8 * np.dtype(hold).itemsize
    integers = (drop, (1 << (drop - 1)) - 1, (1 << width) - (1 << drop))
    floats = (2.0**fmt.emin, 1.5 * 2.0 ** (bits - 1) * float(fmt.tiny), float(fmt.largest), fmt.overflow)
    return (*map(whole, integers), *map(hold, floats))


def unrounded(hold: type[np.floating[Any]]) -> tuple[Any, ...]:
    """Return parameters of the right types for a kernel that does not round."""
    whole = np.uint32 if hold is np.float32 else np.uint64
    return (*map(whole, (1, 0, 0)), *map(hold, (0, 0, 0, 0)))


@cache
def _near(hold: Any) -> Any:
    """Compile rounding to nearest, ties to even: it adds half a unit minus one, and the last kept bit."""
    whole: Any = np.uint32 if hold is np.float32 else np.uint64

    def near(x, fmt):  # type: ignore[no-untyped-def]
        drop, half, cut, smallest, magic, largest, beyond = fmt
        bits = hold(x).view(whole)
        last = whole(whole(bits >> drop) & whole(1))
        y = whole(whole(whole(bits + half) + last) & cut).view(hold)
        tiny = hold(hold(x + magic) - magic)
        y = tiny if abs(x) < smallest else y
        return y if abs(y) <= largest else hold(x * beyond)  # NaN stays NaN

    return _jit(near, hold)


def _jit(function: Any, *parameters: object, keep: bool = False) -> Any:
    """Compile a function under a name unique to its sources and parameters, as numba caches by name."""
    from fastconv.native.source import kept

    function.__qualname__ = f"{function.__name__}_{digest_of('native', _SOURCE, *parameters)}"
    return kept(function, keep)


def _compiled(function: Any, *parameters: object) -> Any:
    """Compile a function that Python calls, and cache it on disk."""
    return _jit(function, *parameters, keep=True)


@cache
def _runner(hold: Any, rounds: bool) -> Any:
    near = _near(hold)
    whole: Any = np.uint32 if hold is np.float32 else np.uint64
    positive = whole(2**31 - 1) if hold is np.float32 else whole(2**63 - 1)

    def run(ops, constants, outputs, src, dst, work, fmt):  # type: ignore[no-untyped-def]
        """Return the largest magnitude of all operands and results: magnitudes and bit patterns have the same order."""
        inputs, lanes, peak = src.shape[1], src.shape[2], whole(0)
        for b in range(src.shape[0]):
            work[:inputs] = src[b]
            for k in range(ops.shape[0]):
                to, first, second = work[inputs + k], work[ops[k, 1]], work[ops[k, 2]]
                if ops[k, 0] == 0:
                    c = constants[k]
                    for i in range(lanes):
                        to[i] = near(c * first[i], fmt) if rounds else c * first[i]
                elif ops[k, 0] == 1:
                    for i in range(lanes):
                        to[i] = near(first[i] + second[i], fmt) if rounds else first[i] + second[i]
                elif ops[k, 0] == 2:
                    for i in range(lanes):
                        to[i] = near(first[i] - second[i], fmt) if rounds else first[i] - second[i]
                else:
                    for i in range(lanes):
                        to[i] = -first[i]
            for k in range(work.shape[0]):
                row = work[k]
                for i in range(lanes):
                    peak = max(peak, whole(hold(row[i]).view(whole) & positive))
            for k in range(outputs.size):
                dst[b, k] = work[outputs[k]]
        return whole(peak).view(hold)

    return _compiled(run, hold, rounds)


class Transform:
    """A program on rows of numbers, with every operation rounded to a format.

    Parameters
    ----------
    program : Program
        Program of multiplications, sums, differences and negations; fused operations are rejected.
    fmt : Format
        Format of the operations.
    constants : Format, optional
        Format of the constants; `fmt` if None.
    """

    def __init__(self, program: Program, fmt: Format, constants: Format | None) -> None:
        if any(op.kind not in _KINDS for op in program.ops):
            raise ValueError(f"a program in the order {program.order!r} has fused operations, which are not emulated here")
        self.fmt = fmt
        self.hold: Any = carrier_of(fmt, constants or fmt)
        self.rounds = fmt.name not in ("fp64", np.dtype(self.hold).name.replace("float", "fp"))
        self._ops = np.array([(_KINDS[op.kind], op.a, max(op.b, 0)) for op in program.ops], np.int64).reshape(-1, 3)
        held = [0.0 if op.c is None else rounded(op.c, constants or fmt) for op in program.ops]
        self._constants = np.array(held, self.hold)
        self._outputs = np.array(program.outputs, np.int64)
        self._rounding = rounding(fmt, self.hold) if self.rounds else unrounded(self.hold)

    def __call__(self, values: Array) -> tuple[Array, float]:
        """Run on ``(batch, inputs, lanes)``.

        Returns
        -------
        array (batch, outputs, lanes)
        float
            The largest magnitude of all intermediate values; not finite if one of them is not.
        """
        batch, inputs, lanes = values.shape
        result = np.empty((batch, self._outputs.size, lanes), self.hold)
        work = np.empty((inputs + len(self._ops), lanes), self.hold)
        source = np.ascontiguousarray(values, self.hold)
        peak = _runner(self.hold, self.rounds)(self._ops, self._constants, self._outputs, source, result, work, self._rounding)
        return result, float(peak)

    def in_two_dimensions(self, tiles: Array) -> tuple[Array, float]:
        """Run on tiles ``(batch, n, n, lanes)``: along the first axis, then the second."""
        batch, n, _, lanes = tiles.shape
        once, first = self(tiles.reshape(batch, n, n * lanes))
        once = once.reshape(batch, -1, n, lanes).swapaxes(1, 2)
        twice, second = self(once.reshape(batch, n, -1))
        return twice.reshape(batch, twice.shape[1], once.shape[2], lanes).swapaxes(1, 2), max(first, second)


@cache
def _contractor(hold: Any, products: bool, terms: bool, sums: bool) -> Any:
    near = _near(hold)

    def term(u, x, product, total):  # type: ignore[no-untyped-def]
        value = u * x
        if products:
            value = near(value, product)
        return near(value, total) if terms else value

    term_of: Any = _jit(term, hold, products, terms)

    def add(a, b, total):  # type: ignore[no-untyped-def]
        return near(a + b, total) if sums else a + b

    plus: Any = _jit(add, hold, sums)

    def channel(u, v, to, product, total):  # type: ignore[no-untyped-def]
        """Sum one channel's taps, left to right."""
        for i in range(to.size):
            to[i] = term_of(u[0], v[0, i], product, total)
        for q in range(1, u.size):
            for i in range(to.size):
                to[i] = plus(to[i], term_of(u[q], v[q, i], product, total), total)

    taps_of: Any = _jit(channel, hold, products, terms, sums)

    def contract(u, v, out, part, block, product, total):  # type: ignore[no-untyped-def]
        """Sum u (filters, channels, taps) times v (channels, taps, lanes) in blocks of channels, or pairwise if block is 0."""
        filters, channels, taps = u.shape
        lanes = out.shape[1]
        for k in range(filters):
            if block:
                for start in range(0, channels, block):
                    to = part[0] if start else out[k]
                    taps_of(u[k, start], v[start], to, product, total)
                    for c in range(start + 1, min(start + block, channels)):
                        if taps == 1:
                            w, row = u[k, c, 0], v[c, 0]
                            for i in range(lanes):
                                to[i] = plus(to[i], term_of(w, row[i], product, total), total)
                        else:
                            taps_of(u[k, c], v[c], part[1], product, total)
                            for i in range(lanes):
                                to[i] = plus(to[i], part[1, i], total)
                    if start:
                        for i in range(lanes):
                            out[k, i] = plus(out[k, i], to[i], total)
            else:
                # A binary counter: row l waits with the sum of 2**l channels until its right neighbour is ready.
                for c in range(channels):
                    level, rest = 0, c
                    row = part[part.shape[0] - 1]
                    taps_of(u[k, c], v[c], row, product, total)
                    while rest & 1:
                        for i in range(lanes):
                            row[i] = plus(part[level, i], row[i], total)
                        rest >>= 1
                        level += 1
                    part[level] = row
                level, rest, empty = 0, channels, True
                while rest:
                    if rest & 1:
                        if empty:
                            out[k] = part[level]
                        else:
                            for i in range(lanes):
                                out[k, i] = plus(part[level, i], out[k, i], total)
                        empty = False
                    rest >>= 1
                    level += 1

    return _compiled(contract, hold, products, terms, sums)


class Contraction:
    """A sum over taps and channels of products of kernels and tiles, with each operation rounded.

    Parameters
    ----------
    operands, product, accumulate : Format
        Formats of the factors, the products and the sums.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    """

    def __init__(self, operands: Format, product: Format, accumulate: Format, channel_sum: str) -> None:
        channel_sum_named(channel_sum)
        self.block = {"linear": 2**31, "blocked": BLOCK, "pairwise": 0}[channel_sum]
        # fastconv.evaluate converts the factors of a product to the carrier of the product.
        self.narrowed = operands.p > 24 and carrier(product) is np.float32
        self.hold: Any = carrier_of(operands, product, accumulate)
        if product.name == accumulate.name == "fp32":
            self.hold = np.float32
        own = 24 if self.hold is np.float32 else 53
        self._rounds = (product.p < own, accumulate.name != product.name and accumulate.p < own, accumulate.p < own)
        self._formats = tuple(rounding(fmt, self.hold) if fmt.p < own else unrounded(self.hold) for fmt in (product, accumulate))

    def __call__(self, u: Array, v: Array) -> Array:
        """Return the sums of u ``(filters, channels, taps)`` times v ``(channels, taps, lanes)``: ``(filters, lanes)``."""
        if self.narrowed:
            u, v = u.astype(np.float32), v.astype(np.float32)
        filters, channels, _ = u.shape
        out = np.empty((filters, v.shape[-1]), self.hold)
        part = np.empty((max(2, channels.bit_length() + 1), v.shape[-1]), self.hold)
        u, v = np.ascontiguousarray(u, self.hold), np.ascontiguousarray(v, self.hold)
        _contractor(self.hold, *self._rounds)(u, v, out, part, self.block, *self._formats)
        return out


@cache
def _converter(hold: Any) -> Any:
    near = _near(hold)

    def convert(x, fmt):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            x[i] = near(x[i], fmt)

    return _compiled(convert, hold)


def converted(x: Array, source: Format, target: Format) -> Array:
    """Return values of one format rounded once to another; unchanged if the other contains the first.

    Parameters
    ----------
    x : array
        Values of the format `source`, in float32 or float64.
    source, target : Format
        The formats.
    """
    if target.p >= source.p and target.emin <= source.emin and target.emax >= source.emax:
        return x
    if target.name == "fp32":
        return np.asarray(round_to(x, target))
    hold: Any = np.float32 if x.dtype == np.float32 else np.float64
    y = np.array(x, hold, order="C")
    _converter(hold)(y.reshape(-1), rounding(target, hold))
    return y


def extent(x: Array) -> tuple[int, float]:
    """Return the number of non-finite values, and the largest magnitude of the finite ones."""
    size = np.abs(x)
    finite = np.isfinite(size)
    if finite.all():
        return 0, float(size.max(initial=0))
    return int(size.size - finite.sum()), float(np.where(finite, size, 0).max(initial=0))

"""Emit panels of a matrix product: the sums of a step, or from the first term to the finished output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.native.machine import SIZE, lanes_of
from fastconv.native.source.vectors import (
    I64,
    activate,
    chains,
    load_at,
    multiplied_and_added,
    offset_by,
    pair_of,
    prefetch,
    splat,
    store_at,
    vector_of,
)


@dataclass(frozen=True)
class Panel:
    """The panel of sums that an inner product keeps in registers.

    Attributes
    ----------
    kind : str
        Format of the numbers.
    rows, columns : int
        Numbers of u and vectors of v per term.
    fused : bool
        Whether products are added with one rounding.
    ahead_u, ahead_v : int
        Prefetch distances in bytes; 0 for no prefetch.
    terms : int
        Terms per step: contiguous in v and, number by number, in u.
    """

    kind: str
    rows: int
    columns: int
    fused: bool
    ahead_u: int = 0
    ahead_v: int = 0
    terms: int = 1

    @property
    def vector(self) -> ir.Type:
        """The type of a vector."""
        return vector_of(self.kind, lanes_of(self.kind))

    @property
    def width(self) -> int:
        """Bytes of a vector."""
        return lanes_of(self.kind) * SIZE[self.kind]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column of each sum."""
        return [(i, j) for i in range(self.rows) for j in range(self.columns)]

    def at(self, builder: Any, base: Any, stride: Any, i: int, j: int) -> Any:
        """Return the address of a sum."""
        return builder.add(offset_by(builder, base, stride, i), I64(j * self.width))

    def number(self, builder: Any, address: Any, k: int) -> Any:
        """Return the number `k` at an address in all lanes."""
        return splat(builder, load_at(builder, builder.add(address, I64(k * SIZE[self.kind])), self.vector.element), self.vector)


def panel_multiplier(panel: Panel) -> Any:
    """Return ``multiply(depth, (u, ldu), (v, ldv), (out, ldo), add)``: ``out = [out +] u v``, the inner product of a layer.

    A step of `u` starts every `ldu` bytes, one of `v` every `ldv`, a row of `out` every `ldo`. Each output is one chain of
    multiply-adds over the `depth` steps, starting from zero; `add` then adds it to `out`.
    """
    columns, size, vector, width = panel.columns, SIZE[panel.kind], panel.vector, panel.width

    def steps_of(builder: Any, u: Any, v: Any, depth: Any) -> list[Any]:
        def term(at_u: Any, at_v: Any, sums: Sequence[Any]) -> Iterator[Any]:
            vectors = [load_at(builder, builder.add(at_v, I64(k * width)), vector) for k in range(columns)]
            for stream, ahead in ((at_u, panel.ahead_u), (at_v, panel.ahead_v)):
                if ahead:
                    prefetch(builder, builder.add(stream, I64(ahead)))
            for i in range(panel.rows):
                factor = panel.number(builder, at_u, i * panel.terms)
                for k in range(columns):
                    yield multiplied_and_added(builder, factor, vectors[k], sums[i * columns + k], panel.fused)

        def step(at_u: Any, at_v: Any, sums: Sequence[Any]) -> Sequence[Any]:
            for t in range(panel.terms):
                sums = list(term(builder.add(at_u, I64(t * size)), builder.add(at_v, I64(t * columns * width)), sums))
            return sums

        return chains(builder, vector, panel.rows * columns, depth, (u[0], v[0]), (u[1], v[1]), step)

    @intrinsic
    def multiply(typingctx: Any, depth: Any, u: Any, v: Any, out: Any, add: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            depth, u, v, out, add = args
            after = steps_of(builder, pair_of(builder, u), pair_of(builder, v), depth)
            to, ldo = pair_of(builder, out)

            def each(write: Callable[[Any, Any], Any]) -> None:
                for (i, j), value in zip(panel.places, after, strict=True):
                    at = panel.at(builder, to, ldo, i, j)
                    store_at(builder, write(at, value), at)

            with builder.if_else(builder.icmp_signed("!=", add, I64(0))) as (adding, setting):
                with adding:
                    each(lambda at, value: builder.fadd(load_at(builder, at, vector), value))
                with setting:
                    each(lambda at, value: value)
            return context.get_dummy_value()

        return types.void(depth, u, v, out, add), codegen

    return multiply


def panel_finisher(panel: Panel, step: int, shaped: int) -> Any:
    """Return ``finish(depth, (u, apart), (v, ldv), (sums, lds), (add, last), table, (other, out, ldo))``.

    It computes the sums of a panel, or its outputs. The rows are filters, stored at `u` in panels of `step` that are `apart` bytes
    apart, with contiguous terms; a term of `v` starts every `ldv` bytes. Each sum is one chain of multiply-adds over `depth` terms
    from zero; `add` adds the values at `sums`, in rows `lds` bytes apart. The `last` chain adds the bias in `table` and the values at
    `other` (unless that is zero), applies the activation in `table` if `shaped` (see `lane_joiner`), and writes rows at `out`;
    rows of `other` and `out` are `ldo` bytes apart. Other chains store the sums at `sums`.
    """

    @intrinsic
    def finish(typingctx: Any, depth: Any, u: Any, v: Any, sums: Any, which: Any, table: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            depth, u, v, sums, which, table, out = args
            (base, lds), (add, last) = pair_of(builder, sums), pair_of(builder, which)
            after = _sums(builder, panel, step, pair_of(builder, u), pair_of(builder, v), depth)
            added = _either(builder, add, lambda: _added(builder, panel, after, base, lds), after)
            with builder.if_else(builder.icmp_signed("!=", last, I64(0))) as (finishing, keeping):
                with finishing:
                    _finish(builder, panel, shaped, added, table, tuple(builder.extract_value(out, k) for k in range(3)))
                with keeping:
                    for (i, j), value in zip(panel.places, added, strict=True):
                        store_at(builder, value, panel.at(builder, base, lds, i, j))
            return context.get_dummy_value()

        return types.void(depth, u, v, sums, which, table, out), codegen

    return finish


def _sums(builder: Any, panel: Panel, step: int, u: Any, v: Any, depth: Any) -> list[Any]:
    """Return the sums over `depth` terms, for rows stored in panels of `step`."""
    size = SIZE[panel.kind]
    offsets = [offset_by(builder, I64(0), u[1], k) for k in range(-(-panel.rows // step))]

    def term(at_u: Any, at_v: Any, totals: Sequence[Any]) -> Iterator[Any]:
        vectors = [load_at(builder, builder.add(at_v, I64(k * panel.width)), panel.vector) for k in range(panel.columns)]
        for k, offset in enumerate(offsets):
            at = builder.add(at_u, offset)
            prefetch(builder, builder.add(at, I64(panel.ahead_u)))
            for i in range(k * step, min(panel.rows, (k + 1) * step)):
                factor = panel.number(builder, at, i - k * step)
                for j in range(panel.columns):
                    yield multiplied_and_added(builder, factor, vectors[j], totals[i * panel.columns + j], panel.fused)

    return chains(builder, panel.vector, panel.rows * panel.columns, depth, (u[0], v[0]), (I64(step * size), v[1]), term)


def _either(builder: Any, test: Any, then: Callable[[], list[Any]], otherwise: list[Any]) -> list[Any]:
    """Return `then` if the test is not zero, else `otherwise`."""
    here = builder.block
    with builder.if_then(builder.icmp_signed("!=", test, I64(0))):
        made, end = then(), builder.block
    merged = []
    for new, old in zip(made, otherwise, strict=True):
        phi = builder.phi(new.type)
        phi.add_incoming(new, end)
        phi.add_incoming(old, here)
        merged.append(phi)
    return merged


def _added(builder: Any, panel: Panel, values: list[Any], base: Any, stride: Any) -> list[Any]:
    """Return the values plus those in memory at `base`."""
    pairs = zip(panel.places, values, strict=True)
    return [builder.fadd(load_at(builder, panel.at(builder, base, stride, i, j), panel.vector), value) for (i, j), value in pairs]


def _finish(builder: Any, panel: Panel, shaped: int, values: list[Any], table: Any, given: tuple[Any, ...]) -> None:
    """Add the bias, add the values at `other`, activate, and write the outputs."""
    (other, out, ldo), columns, fields = given, panel.columns, 4 if shaped else 1
    z = []
    for i in range(panel.rows):
        shift = panel.number(builder, table, i * fields)
        z += [builder.fadd(values[i * columns + j], shift) for j in range(columns)]
    z = _either(builder, other, lambda: _added(builder, panel, z, other, ldo), z)
    for i in range(panel.rows):
        row = z[i * columns : (i + 1) * columns]
        if shaped:
            row = activate(builder, row, *(panel.number(builder, table, i * fields + k) for k in (1, 2, 3)))
        for j, value in enumerate(row):
            store_at(builder, value, panel.at(builder, out, ldo, i, j))

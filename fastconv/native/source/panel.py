"""Emit a panel of a matrix product, from its first term to the finished output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from fastconv.native.machine import SIZE, lanes_of
from fastconv.native.source.vectors import (
    I64,
    Panel,
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


def panel_finisher(panel: Panel, step: int, shaped: int) -> Any:
    """Return ``finish(depth, (u, apart), (v, ldv), (sums, lds), (add, last), table, (other, out, ldo))``.

    It computes the sums of a panel, or its outputs. The rows are filters, stored at `u` in panels of `step` that are `apart` bytes
    apart, with contiguous terms; a term of `v` starts every `ldv` bytes. Each sum is one chain of multiply-adds over `depth` terms
    from zero; `add` adds the values at `sums`, in rows `lds` bytes apart. The `last` chain adds the bias in `table` and the values at
    `other` (unless that is zero), applies the activation in `table` if `shaped` (see `lane_joiner`), and writes rows at `out`;
    rows of `other` and `out` are `ldo` bytes apart. Other chains store the sums at `sums`.
    """
    count, columns, size, vector = panel.rows, panel.columns, SIZE[panel.kind], vector_of(panel.kind, lanes_of(panel.kind))
    width, fields = vector.count * size, 4 if shaped else 1
    pairs = [(i, j) for i in range(count) for j in range(columns)]

    def sums_of(builder: Any, u: Any, v: Any, depth: Any) -> list[Any]:
        panels = [offset_by(builder, I64(0), u[1], k) for k in range(-(-count // step))]

        def term(at_u: Any, at_v: Any, totals: Sequence[Any]) -> Iterator[Any]:
            vectors = [load_at(builder, builder.add(at_v, I64(k * width)), vector) for k in range(columns)]
            for k, offset in enumerate(panels):
                at = builder.add(at_u, offset)
                prefetch(builder, builder.add(at, I64(panel.ahead_u)))
                for i in range(k * step, min(count, (k + 1) * step)):
                    factor = splat(builder, load_at(builder, builder.add(at, I64((i - k * step) * size)), vector.element), vector)
                    for j in range(columns):
                        yield multiplied_and_added(builder, factor, vectors[j], totals[i * columns + j], panel.fused)

        return chains(builder, vector, count * columns, depth, (u[0], v[0]), (I64(step * size), v[1]), term)

    def place(builder: Any, base: Any, stride: Any, i: int, j: int) -> Any:
        return builder.add(offset_by(builder, base, stride, i), I64(j * width))

    def either(builder: Any, test: Any, then: Callable[[], list[Any]], otherwise: list[Any]) -> list[Any]:
        """Return `then` if the test is not zero, else `otherwise`."""
        here = builder.block
        with builder.if_then(builder.icmp_signed("!=", test, I64(0))):
            made, end = then(), builder.block
        merged = []
        for new, old in zip(made, otherwise, strict=True):
            phi = builder.phi(vector)
            phi.add_incoming(new, end)
            phi.add_incoming(old, here)
            merged.append(phi)
        return merged

    def added_to(builder: Any, values: list[Any], base: Any, stride: Any) -> list[Any]:
        """Return the values plus those in memory at `base`."""
        sums = []
        for (i, j), value in zip(pairs, values, strict=True):
            sums.append(builder.fadd(load_at(builder, place(builder, base, stride, i, j), vector), value))
        return sums

    def finished(builder: Any, values: list[Any], table: Any, given: tuple[Any, Any, Any]) -> None:
        """Write the outputs."""
        other, out, ldo = given

        def record(i: int, k: int) -> Any:
            return splat(builder, load_at(builder, builder.add(table, I64((i * fields + k) * size)), vector.element), vector)

        z = []
        for i in range(count):
            shift = record(i, 0)
            z += [builder.fadd(values[i * columns + j], shift) for j in range(columns)]
        z = either(builder, other, lambda: added_to(builder, z, other, ldo), z)
        for i in range(count):
            row = z[i * columns : (i + 1) * columns]
            if fields == 4:
                row = activate(builder, row, *(record(i, k) for k in (1, 2, 3)))
            for j, value in enumerate(row):
                store_at(builder, value, place(builder, out, ldo, i, j))

    @intrinsic
    def finish(typingctx: Any, depth: Any, u: Any, v: Any, sums: Any, which: Any, table: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            depth, u, v, sums, which, table, out = args
            (base, lds), (add, last) = pair_of(builder, sums), pair_of(builder, which)
            after = sums_of(builder, pair_of(builder, u), pair_of(builder, v), depth)
            added = either(builder, add, lambda: added_to(builder, after, base, lds), after)
            with builder.if_else(builder.icmp_signed("!=", last, I64(0))) as (finishing, keeping):
                with finishing:
                    finished(builder, added, table, tuple(builder.extract_value(out, k) for k in range(3)))
                with keeping:
                    for (i, j), value in zip(pairs, added, strict=True):
                        store_at(builder, value, place(builder, base, lds, i, j))
            return context.get_dummy_value()

        return types.void(depth, u, v, sums, which, table, out), codegen

    return finish

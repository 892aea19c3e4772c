"""One intrinsic: a panel of a matrix product from its first term to the finished output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from fastconv.native.machine import SIZE
from fastconv.native.source.vectors import (
    I64,
    activate,
    chains,
    load_at,
    multiplied_and_added,
    offset_by,
    prefetch,
    splat,
    store_at,
    vector_of,
)


@intrinsic(prefer_literal=True)
def finish_panel(
    typingctx: Any,
    kind: Any,
    lanes: Any,
    mr: Any,
    rows: Any,
    nv: Any,
    fused: Any,
    ahead: Any,
    shaped: Any,
    depth: Any,
    u: Any,
    panel: Any,
    v: Any,
    ldv: Any,
    sums: Any,
    lds: Any,
    add: Any,
    last: Any,
    table: Any,
    other: Any,
    out: Any,
    ldo: Any,
) -> Any:
    """Multiply `rows` filters by `nv` vectors of outputs over `depth` terms; then keep the sums, or finish them.

    Filters lie in panels of `mr`, `panel` bytes apart at `u`, their terms one after the other; a term of `v` starts every `ldv`
    bytes. Each output is one chain of multiply-adds from zero; `add` adds what is at `sums`, rows `lds` bytes apart. If it is
    the `last` chain, the bias in `table`, then the numbers at `other`, if that is not zero, are added, what `table` holds besides is
    applied (`shaped`, as in `join_lanes`), and rows are written at `out`, `ldo` bytes apart, as those at `other`. Else the sums are kept.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        *_, depth, u, panel, v, ldv, sums, lds, add, last, table, other, out, ldo = args
        count, columns, size, step = rows.literal_value, nv.literal_value, SIZE[kind.literal_value], mr.literal_value
        vector = vector_of(kind.literal_value, lanes.literal_value)
        width = vector.count * size
        panels = [offset_by(builder, I64(0), panel, k) for k in range(-(-count // step))]

        def term(at_u: Any, at_v: Any, totals: Sequence[Any]) -> Iterator[Any]:
            vectors = [load_at(builder, builder.add(at_v, I64(k * width)), vector) for k in range(columns)]
            for k, offset in enumerate(panels):
                at = builder.add(at_u, offset)
                prefetch(builder, builder.add(at, I64(ahead.literal_value)))
                for i in range(k * step, min(count, (k + 1) * step)):
                    factor = splat(builder, load_at(builder, builder.add(at, I64((i - k * step) * size)), vector.element), vector)
                    for j in range(columns):
                        yield multiplied_and_added(builder, factor, vectors[j], totals[i * columns + j], fused.literal_value)

        after = chains(builder, vector, count * columns, depth, (u, v), (I64(step * size), ldv), term)

        def place(base: Any, stride: Any, i: int, j: int) -> Any:
            return builder.add(offset_by(builder, base, stride, i), I64(j * width))

        def either(test: Any, then: Callable[[], list[Any]], otherwise: list[Any]) -> list[Any]:
            """Return `then` where the test is not zero."""
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

        pairs = [(i, j) for i in range(count) for j in range(columns)]
        added = either(
            add,
            lambda: [builder.fadd(load_at(builder, place(sums, lds, i, j), vector), a) for (i, j), a in zip(pairs, after, strict=True)],
            after,
        )
        fields = 4 if shaped.literal_value else 1
        with builder.if_else(builder.icmp_signed("!=", last, I64(0))) as (finishing, keeping):
            with finishing:

                def record(i: int, k: int) -> Any:
                    at = builder.add(table, I64((i * fields + k) * size))
                    return splat(builder, load_at(builder, at, vector.element), vector)

                z = []
                for i in range(count):
                    shift = record(i, 0)
                    z += [builder.fadd(added[i * columns + j], shift) for j in range(columns)]
                z = either(
                    other,
                    lambda: [
                        builder.fadd(a, load_at(builder, place(other, ldo, i, j), vector)) for (i, j), a in zip(pairs, z, strict=True)
                    ],
                    z,
                )
                for i in range(count):
                    row = z[i * columns : (i + 1) * columns]
                    if fields == 4:
                        row = activate(builder, row, *(record(i, k) for k in (1, 2, 3)))
                    for j, value in enumerate(row):
                        store_at(builder, value, place(out, ldo, i, j))
            with keeping:
                for (i, j), value in zip(pairs, added, strict=True):
                    store_at(builder, value, place(sums, lds, i, j))
        return context.get_dummy_value()

    given = (kind, lanes, mr, rows, nv, fused, ahead, shaped, depth, u, panel, v, ldv, sums, lds, add, last, table, other, out, ldo)
    return types.void(*given), codegen

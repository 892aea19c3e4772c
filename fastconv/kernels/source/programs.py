"""Emit programs on vectors, and the conversion of image rows to lanes and back.

To compile a program of `fastconv.program`, it is *read* with a `Reading` whose operations emit vector instructions,
so no transform is written twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.records import tiles_transposed
from fastconv.native import SIZE, lanes_of
from fastconv.native.source import ELEMENT, I64, activate, fuse, load_at, offset_by, pair_of, shuffle, splat, store_at, vector_of
from fastconv.program import Reading, program_of_text


def _vectors(builder: Any, kind: str, vector: ir.Type, constants: Any) -> Reading[Any, Any]:
    """Return the reading that emits vector instructions, with constants from the table at an address."""
    invariant = builder.module.add_metadata([])

    def constant(slot: Fraction) -> Any:
        scalar = load_at(builder, builder.add(constants, I64(int(slot) * SIZE[kind])), vector.element)
        scalar.set_metadata("invariant.load", invariant)
        return splat(builder, scalar, vector)

    return Reading(
        constant=constant,
        mul=lambda c, a: builder.fmul(c, a),
        add=lambda a, b: builder.fadd(a, b),
        sub=lambda a, b: builder.fsub(a, b),
        neg=lambda a: builder.fneg(a),
        fma=lambda c, a, b: fuse(builder, c, a, b),
    )


def program_runner(kind: str, text: str) -> Any:
    """Return ``run((src, src_stride), (dst, dst_stride), constants)``, which runs a program on vectors.

    Input i is at ``src + i src_stride``, output o at ``dst + o dst_stride``, strides in bytes.
    """
    program, vector = program_of_text(text), vector_of(kind, lanes_of(kind))

    @intrinsic
    def run(typingctx: Any, source: Any, target: Any, constants: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            (src, src_stride), (dst, dst_stride) = (pair_of(builder, pair) for pair in args[:2])
            inputs = [load_at(builder, offset_by(builder, src, src_stride, i), vector) for i in range(program.inputs)]
            for o, value in enumerate(program.read(inputs, _vectors(builder, kind, vector, args[2]))):
                store_at(builder, value, offset_by(builder, dst, dst_stride, o))
            return context.get_dummy_value()

        return types.void(source, target, constants), codegen

    return run


def lane_splitter(kind: str, step: int, offsets: Sequence[int], text: str) -> Any:
    """Return ``split(src, (dst, dst_stride), constants)``, which splits a row and runs a program on the parts.

    Lane l of part j is element ``l step + offsets[j]`` of `src`; output o of the program goes to ``dst + o dst_stride``.
    """
    program, vector, shifts = program_of_text(text), vector_of(kind, lanes_of(kind)), list(offsets)

    @intrinsic
    def split(typingctx: Any, src: Any, target: Any, constants: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            dst, dst_stride = pair_of(builder, args[1])
            if step > 1 and shifts == list(range(len(shifts))) and len(shifts) > 3:
                parts = _columns(builder, args[0], step * SIZE[kind], len(shifts), vector)
            else:
                parts = _strided(builder, args[0], step, shifts, vector)
            for o, value in enumerate(program.read(parts, _vectors(builder, kind, vector, args[2]))):
                store_at(builder, value, offset_by(builder, dst, dst_stride, o))
            return context.get_dummy_value()

        return types.void(src, target, constants), codegen

    return split


def _strided(builder: Any, src: Any, m: int, shifts: list[int], vector: ir.Type) -> list[Any]:
    """Return vectors whose lane l is element ``l m + shift`` of `src`."""
    width, size = vector.count, 16 // _quarter(vector)[0]
    wide = ir.VectorType(vector.element, m * width)
    rows: dict[int, Any] = {}
    parts = []
    for shift in shifts:
        q, b = divmod(shift, m)
        if q not in rows:
            rows[q] = load_at(builder, builder.add(src, I64(q * m * size)), wide)
        parts.append(rows[q] if m == 1 else shuffle(builder, rows[q], rows[q], [m * lane + b for lane in range(width)]))
    return parts


def _columns(builder: Any, src: Any, pitch: int, count: int, vector: ir.Type) -> list[Any]:
    """Return `count` columns, as vectors, of as many rows as a vector has lanes, `pitch` bytes apart.

    Pieces of 128 bits of each row are loaded into their final lanes, so only unpacking remains.
    """
    quarter, width = _quarter(vector)
    size = 16 // quarter
    piece = ir.VectorType(vector.element, quarter)
    columns: list[Any] = []
    for j in range(0, count, quarter):
        rows = []
        for i in range(quarter):
            row = None
            for lane in range(i, width, quarter):
                part = load_at(builder, builder.add(src, I64(lane * pitch + j * size)), piece)
                have = 0 if row is None else row.type.count
                row = part if row is None else shuffle(builder, row, _widened(builder, part, have), _joined(have, quarter))
            rows.append(row)
        columns += _unpacked(builder, rows)
    return columns[:count]


def _widened(builder: Any, part: Any, size: int) -> Any:
    """Return a vector of `size` numbers that begins with a shorter one."""
    return part if part.type.count == size else shuffle(builder, part, part, [min(i, part.type.count - 1) for i in range(size)])


def _joined(first: int, second: int) -> list[int]:
    """Return the shuffle mask that appends `second` numbers of a widened vector to `first` numbers."""
    return [*range(first), *range(first, first + second)]


def _quarter(vector: ir.Type) -> tuple[int, int]:
    """Return how many numbers 128 bits hold (the unit of unpacking), and a vector."""
    return (4 if vector.element == ELEMENT["f4"] else 2), vector.count


def _unpacked(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose the squares in the 128-bit lanes of rows, as many rows as such a lane has numbers."""
    quarter, width = len(rows), rows[0].type.count
    turns = quarter.bit_length() - 1
    for _ in range(turns):
        following = []
        for a, b in zip(rows[: quarter // 2], rows[quarter // 2 :], strict=True):
            for half in (0, quarter // 2):
                pairs = [(at + half + k, width + at + half + k) for at in range(0, width, quarter) for k in range(quarter // 2)]
                following.append(shuffle(builder, a, b, [lane for pair in pairs for lane in pair]))
        rows = following
    return rows


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square of vectors: lane c of row l comes from lane l of row c."""
    quarter, width = _quarter(rows[0].type)
    rows = [row for i in range(0, width, quarter) for row in _unpacked(builder, rows[i : i + quarter])]
    step = quarter
    while step < width:
        low = [lane if not lane & step else width + lane - step for lane in range(width)]
        high = [lane + step if not lane & step else width + lane for lane in range(width)]
        for i in range(width):
            if not i & step:
                a, b = rows[i], rows[i + step]
                rows[i], rows[i + step] = shuffle(builder, a, b, low), shuffle(builder, a, b, high)
        step *= 2
    return rows


@intrinsic(prefer_literal=True)
def turn_square(typingctx: Any, kind: Any, lanes: Any, src: Any, src_row: Any, dst: Any) -> Any:
    """Transpose a square of rows, `src_row` bytes apart: lane l of vector c at `dst` is number c of row l."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, _, src, src_row, dst = args
        vector = vector_of(kind.literal_value, lanes.literal_value)
        rows = [load_at(builder, offset_by(builder, src, src_row, k), vector) for k in range(vector.count)]
        for k, row in enumerate(_transposed(builder, rows)):
            store_at(builder, row, builder.add(dst, I64(k * vector.count * SIZE[kind.literal_value])))
        return context.get_dummy_value()

    return types.void(kind, lanes, src, src_row, dst), codegen


def lane_joiner(kind: str, step: int, shaped: int, adds: int) -> Any:
    """Return ``join((src, src_stride), dst, bias)``, which interleaves `step` vectors to a row.

    Element ``l step + b`` of `dst` is lane l of vector b plus the number at `bias`. With `adds`, it then adds the values in `dst`.
    With `shaped`, it activates; slope, low and high of `Activation` follow the bias.
    """
    vector = vector_of(kind, lanes_of(kind))
    width = vector.count

    def joined(builder: Any, parts: list[Any]) -> Any:
        """Interleave vectors by one concatenation and permutation, for unpack instructions."""
        row, size = parts[0], width
        for part in parts[1:]:
            widened = shuffle(builder, part, part, [min(i, width - 1) for i in range(size)]) if size > width else part
            row = shuffle(builder, row, widened, [*range(size), *range(size, size + width)])
            size += width
        return row if step == 1 else shuffle(builder, row, row, [b * width + lane for lane in range(width) for b in range(step)])

    @intrinsic
    def join(typingctx: Any, source: Any, dst: Any, bias: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            source, dst, bias = args
            src, src_stride = pair_of(builder, source)
            shift = splat(builder, load_at(builder, bias, vector.element), vector)
            parts = [builder.fadd(load_at(builder, offset_by(builder, src, src_stride, b), vector), shift) for b in range(step)]

            def activated(parts: list[Any]) -> list[Any]:
                if not shaped:
                    return parts
                scalars = [load_at(builder, builder.add(bias, I64(k * SIZE[kind])), vector.element) for k in (1, 2, 3)]
                return activate(builder, parts, *(splat(builder, scalar, parts[0].type) for scalar in scalars))

            row = joined(builder, parts if adds else activated(parts))
            if adds:
                (row,) = activated([builder.fadd(row, load_at(builder, dst, row.type))])
            store_at(builder, row, dst)
            return context.get_dummy_value()

        return types.void(source, dst, bias), codegen

    return join


def filter_turner(kind: str, text: str, shaped: int, adds: int) -> Any:
    """Return ``turn((src, src_tap, src_tile), (dst, dst_filter), bias, constants)``: a program with filters in the lanes.

    The outputs are transposed to one row per filter. Input j of tile t is at ``src + t src_tile + j src_tap``. A row holds the
    outputs of as many tiles as fill whole vectors; the row of lane l is at ``dst + l dst_filter``. Lane l of the vector at `bias`
    is added, then, with `adds`, the values at `dst`. With `shaped`, it activates; vectors of slope, low and high of `Activation`
    follow the bias.
    """
    program, vector = program_of_text(text), vector_of(kind, lanes_of(kind))
    width, size, fields = vector.count, SIZE[kind], 4 if shaped else 1

    def finished(builder: Any, row: Any, place: Any, bias: Any, lane: int) -> Any:
        """Add the values at `place` to a row of one filter, and activate it."""
        row = builder.fadd(row, load_at(builder, place, vector))
        scalars = [load_at(builder, builder.add(bias, I64((k * width + lane) * size)), vector.element) for k in range(1, fields)]
        return activate(builder, [row], *(splat(builder, scalar, vector) for scalar in scalars))[0] if scalars else row

    @intrinsic
    def turn(typingctx: Any, source: Any, target: Any, bias: Any, constants: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            source, target, bias, constants = args
            src, src_tap, src_tile = (builder.extract_value(source, k) for k in range(3))
            at, dst_filter = pair_of(builder, target)
            reading = _vectors(builder, kind, vector, constants)
            record = [load_at(builder, builder.add(bias, I64(k * width * size)), vector) for k in range(fields)]
            waiting: list[Any] = []
            for t in range(tiles_transposed(len(program.outputs), width)):
                tile = offset_by(builder, src, src_tile, t)
                inputs = [load_at(builder, offset_by(builder, tile, src_tap, j), vector) for j in range(program.inputs)]
                values = [builder.fadd(value, record[0]) for value in program.read(inputs, reading)]
                waiting += activate(builder, values, *record[1:]) if shaped and not adds else values
                while len(waiting) >= width:
                    for lane, row in enumerate(_transposed(builder, waiting[:width])):
                        place = offset_by(builder, at, dst_filter, lane)
                        store_at(builder, finished(builder, row, place, bias, lane) if adds else row, place)
                    waiting, at = waiting[width:], builder.add(at, I64(width * size))
            return context.get_dummy_value()

        return types.void(source, target, bias, constants), codegen

    return turn


def tile_finisher(kind: str, text: str, shaped: int, adds: int) -> Any:
    """Return ``finish((src, src_tap), dst, bias, constants)``: a program on vectors of filters with outputs contiguous at `dst`.

    Input j is at ``src + j src_tap``. The vector at `bias` is added to each output, then, with `adds`, the values at `dst`. With
    `shaped`, it activates; vectors of slope, low and high of `Activation` follow the bias.
    """
    program, vector = program_of_text(text), vector_of(kind, lanes_of(kind))
    width = vector.count * SIZE[kind]

    @intrinsic
    def finish(typingctx: Any, source: Any, dst: Any, bias: Any, constants: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            source, dst, bias, constants = args
            src, src_tap = pair_of(builder, source)
            invariant = builder.module.add_metadata([])
            record = [load_at(builder, builder.add(bias, I64(k * width)), vector) for k in range(4 if shaped else 1)]
            for field in record:
                field.set_metadata("invariant.load", invariant)
            values = [load_at(builder, offset_by(builder, src, src_tap, j), vector) for j in range(program.inputs)]
            values = [builder.fadd(value, record[0]) for value in program.read(values, _vectors(builder, kind, vector, constants))]
            places = [builder.add(dst, I64(k * width)) for k in range(len(values))]
            if adds:
                values = [builder.fadd(value, load_at(builder, place, vector)) for value, place in zip(values, places, strict=True)]
            if shaped:
                values = activate(builder, values, *record[1:])
            for value, place in zip(values, places, strict=True):
                store_at(builder, value, place)
            return context.get_dummy_value()

        return types.void(source, dst, bias, constants), codegen

    return finish

"""Vector instructions for compiled kernels: intrinsics that work on memory.

All functions take addresses as integers. `fastconv.kernels.source.programs` runs programs of `fastconv.program` with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.native.machine import SIZE, lanes_of

I64 = ir.IntType(64)
I32 = ir.IntType(32)
ELEMENT = {"f4": ir.FloatType(), "f8": ir.DoubleType()}


def vector_of(kind: str, lanes: int) -> ir.Type:
    """Return the type of a vector of numbers."""
    return ir.VectorType(ELEMENT[kind], lanes)


def pointer_to(builder: Any, address: Any, to: ir.Type) -> Any:
    """Return an address as a pointer."""
    return builder.inttoptr(address, to.as_pointer())


def load_at(builder: Any, address: Any, to: ir.Type) -> Any:
    """Load a vector or a number; addresses are multiples of four."""
    return builder.load(pointer_to(builder, address, to), align=4)


def load_every(builder: Any, address: Any, kind: str, lanes: int, step: int) -> Any:
    """Load a vector of every `step`-th number."""
    wide = load_at(builder, address, vector_of(kind, lanes * step))
    return wide if step == 1 else shuffle(builder, wide, wide, [step * lane for lane in range(lanes)])


def store_at(builder: Any, value: Any, address: Any) -> None:
    """Store a vector or a number; addresses are multiples of four."""
    builder.store(value, pointer_to(builder, address, value.type), align=4)


def offset_by(builder: Any, address: Any, stride: Any, k: int) -> Any:
    """Return the address plus `k` strides."""
    return address if k == 0 else builder.add(address, builder.mul(stride, I64(k)))


def shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Return the lanes of two vectors, by their numbers."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def splat(builder: Any, scalar: Any, vector: ir.Type) -> Any:
    """Return a vector with the same number in all lanes."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    return shuffle(builder, one, ir.Constant(vector, ir.Undefined), [0] * vector.count)


def external(builder: Any, name: str, kind: ir.FunctionType) -> Any:
    """Return a function of LLVM or of the process, declared in the module if needed."""
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def fuse(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Multiply and add with one rounding."""
    name = f"llvm.fma.v{a.type.count}{'f32' if a.type.element == ELEMENT['f4'] else 'f64'}"
    return builder.call(external(builder, name, ir.FunctionType(a.type, [a.type] * 3)), [a, b, c])


def prefetch(builder: Any, address: Any) -> None:
    """Prefetch the cache line at an address, to read soon and more than once."""
    pointer = pointer_to(builder, address, ir.IntType(8))
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    builder.call(external(builder, "llvm.prefetch.p0i8", kind), [pointer, I32(0), I32(3), I32(1)])


@intrinsic(prefer_literal=True)
def move(typingctx: Any, size: Any, dst: Any, src: Any) -> Any:
    """Copy `size` bytes (4, or those of a vector) from `src` to `dst`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(I32, size.literal_value // 4)
        store_at(builder, load_at(builder, args[2], kind), args[1])
        return context.get_dummy_value()

    return types.void(size, dst, src), codegen


@intrinsic(prefer_literal=True)
def move_past(typingctx: Any, size: Any, dst: Any, src: Any) -> Any:
    """Copy `size` bytes (4, or those of a vector) to `dst`, a multiple of `size`, past the caches."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(I32, size.literal_value // 4) if size.literal_value > 4 else I32
        store = builder.store(load_at(builder, args[2], kind), pointer_to(builder, args[1], kind), align=size.literal_value)
        store.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return types.void(size, dst, src), codegen


@intrinsic(prefer_literal=True)
def clear(typingctx: Any, size: Any, dst: Any) -> Any:
    """Write `size` zero bytes at `dst`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        store_at(builder, ir.Constant(ir.VectorType(I32, size.literal_value // 4), [0] * (size.literal_value // 4)), args[1])
        return context.get_dummy_value()

    return types.void(size, dst), codegen


@intrinsic
def fetch(typingctx: Any, address: Any) -> Any:
    """Prefetch the cache line at an address, which need not be valid memory."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(address), codegen


@intrinsic
def integers(typingctx: Any, address: Any) -> Any:
    """Return the address as a pointer to 64-bit integers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(types.int64)(address), codegen  # type: ignore[attr-defined]


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """Return the address as a pointer to anything."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.voidptr(address), codegen


@intrinsic
def claim(typingctx: Any, counter: Any) -> Any:
    """Return the 64-bit integer at an address and add one to it, atomically."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", pointer_to(builder, args[0], I64), I64(1), "monotonic")

    return types.int64(counter), codegen


@intrinsic(prefer_literal=True)
def call(typingctx: Any, address: Any, args: Any) -> Any:
    """Call the compiled function at `address` with a tuple of integers."""

    def codegen(context: Any, builder: Any, sig: Any, given: Any) -> Any:
        count = len(sig.args[1])
        function = ir.FunctionType(ir.VoidType(), [I64] * count)
        values = [builder.extract_value(given[1], i) for i in range(count)]
        builder.call(builder.inttoptr(given[0], function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(address, args), codegen


def pair_of(builder: Any, pair: Any) -> tuple[Any, Any]:
    """Return the two values of a tuple: an address, and the stride there in bytes."""
    return builder.extract_value(pair, 0), builder.extract_value(pair, 1)


def activate(builder: Any, parts: list[Any], slope: Any, low: Any, high: Any) -> list[Any]:
    """Apply an `Activation`. Ordered comparisons: NaN is neither below nor above anything and stays."""
    zero = ir.Constant(slope.type, [0.0] * slope.type.count)
    parts = [builder.select(builder.fcmp_ordered("<", z, zero), builder.fmul(slope, z), z) for z in parts]
    parts = [builder.select(builder.fcmp_ordered("<", z, low), low, z) for z in parts]
    return [builder.select(builder.fcmp_ordered(">", z, high), high, z) for z in parts]


def multiplied_and_added(builder: Any, a: Any, b: Any, total: Any, fused: bool) -> Any:
    """Add a product to a total, rounded once if it is `fused`."""
    return fuse(builder, a, b, total) if fused else builder.fadd(total, builder.fmul(a, b))


def chains(
    builder: Any,
    vector: ir.Type,
    count: int,
    depth: Any,
    starts: tuple[Any, Any],
    steps: tuple[Any, Any],
    term: Callable[[Any, Any, Sequence[Any]], Iterable[Any]],
) -> list[Any]:
    """Emit a loop that adds terms to `count` sums in registers by ``term(at_u, at_v, sums)``."""
    before = builder.block
    body, done = builder.append_basic_block("term"), builder.append_basic_block("terms_done")
    builder.branch(body)
    builder.position_at_end(body)
    left, at_u, at_v = (builder.phi(I64) for _ in range(3))
    sums = [builder.phi(vector) for _ in range(count)]
    zero = ir.Constant(vector, [0.0] * vector.count)
    for phi, start in zip((left, at_u, at_v, *sums), (depth, *starts, *[zero] * count), strict=True):
        phi.add_incoming(start, before)
    after = list(term(at_u, at_v, sums))
    next_left = builder.sub(left, I64(1))
    following = (next_left, builder.add(at_u, steps[0]), builder.add(at_v, steps[1]), *after)
    for phi, value in zip((left, at_u, at_v, *sums), following, strict=True):
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed(">", next_left, I64(0)), body, done)
    builder.position_at_end(done)
    return after


def depthwise_summer(kind: str, step: int, rows: int, offsets: Sequence[int], fused: bool, shaped: int) -> Any:
    """Return ``vector((src, src_row), w, record, dst)``: a vector of outputs of one channel.

    Lane l sums the taps at `w` times the elements ``l step + offset`` of `rows` rows, `src_row` bytes apart, in one chain of
    multiply-adds from zero. Then the bias and activation in `record` are applied, as in `lane_joiner`.
    """
    size, vector = SIZE[kind], vector_of(kind, lanes_of(kind))

    @intrinsic
    def depthwise(typingctx: Any, src: Any, w: Any, record: Any, dst: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            source, w, record, dst = args
            src, src_row = pair_of(builder, source)
            invariant = builder.module.add_metadata([])

            def scalar(address: Any, k: int) -> Any:
                value = load_at(builder, builder.add(address, I64(k * size)), vector.element)
                value.set_metadata("invariant.load", invariant)
                return splat(builder, value, vector)

            total = ir.Constant(vector, [0.0] * vector.count)
            for i in range(rows):
                row = offset_by(builder, src, src_row, i)
                for j, offset in enumerate(offsets):
                    part = load_every(builder, builder.add(row, I64(offset * size)), kind, vector.count, step)
                    total = multiplied_and_added(builder, scalar(w, i * len(offsets) + j), part, total, fused)
            total = builder.fadd(total, scalar(record, 0))
            if shaped:
                total = activate(builder, [total], *(scalar(record, k) for k in (1, 2, 3)))[0]
            store_at(builder, total, dst)
            return context.get_dummy_value()

        return types.void(src, w, record, dst), codegen

    return depthwise

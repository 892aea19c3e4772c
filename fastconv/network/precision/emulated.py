"""Emulate one convolution in a precision policy, with every operation rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy, array_reading, carrier, policy_named
from fastconv.exact import FORMATS, Format
from fastconv.network.graph.graph import Array
from fastconv.network.precision.names import Scales
from fastconv.network.precision.rounded import Contraction, Transform, converted, extent
from fastconv.program import programs_of

_ORDER = "huffman"
_MARGIN = 4.0
"""Ratio of a format's largest number to the largest scaled value seen: headroom for other data and for intermediate sums."""
_BLOCK = 2**17
"""Numbers of a block's transformed input: they stay in the cache while all filters use them."""


@dataclass
class Extents:
    """Counts of non-finite values and largest finite magnitudes of a layer's stages."""

    overflows: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, values: Array, peak: float = 0.0) -> None:
        """Add the values of a stage; `peak` is the largest magnitude of its intermediate values."""
        wrong, largest = extent(values)
        largest = max(largest, peak) if math.isfinite(peak) else largest
        if wrong:
            self.overflows[stage] = self.overflows.get(stage, 0) + wrong
        self.largest[stage] = max(self.largest.get(stage, 0.0), largest)

    def join(self, other: Extents) -> None:
        """Add the counts and magnitudes of another object to this one."""
        for stage, count in other.overflows.items():
            self.overflows[stage] = self.overflows.get(stage, 0) + count
        for stage, largest in other.largest.items():
            self.largest[stage] = max(self.largest.get(stage, 0.0), largest)


@dataclass(frozen=True)
class Shape:
    """Strides, dilations and groups of a convolution whose input is already padded."""

    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1


class Emulation:
    """A convolution of float32 images (N, C, H, W) in a policy.

    The input is rounded to the policy's data format and goes through the stages as in `fastconv.evaluate`. The bias is added in
    the format of the result, which is then stored in the data format. Without an algorithm the convolution is direct.

    Parameters
    ----------
    weight : array, (K, C / groups, r, r)
        The kernels.
    bias : array (K,), optional
    shape : Shape
    algorithm : BilinearAlgorithm or None
    policy : Policy
        Policy whose data format fits in float32.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    scales : Scales
        Scales of a fast algorithm.
    """

    def __init__(
        self,
        weight: Array,
        bias: Array | None,
        shape: Shape,
        algorithm: BilinearAlgorithm | None,
        policy: Policy,
        channel_sum: str,
        scales: Scales | None = None,
    ) -> None:
        self.shape, self.algorithm, self.policy, self.scales = shape, algorithm, policy, scales or Scales()
        self.bias, self.extents = bias, Extents()
        fp32 = FORMATS["fp32"]
        w = converted(weight, fp32, policy.data)
        if algorithm is None:
            self.taps, self.result = weight.shape[2:], policy.accumulate
            self.contraction = Contraction(policy.data, policy.product, policy.accumulate, channel_sum)
            self.kernels = w.reshape(1, *w.shape[:2], -1)
            return
        programs = programs_of(algorithm, _ORDER)
        self.result = policy.output
        self.contraction = Contraction(policy.operands, policy.product, policy.accumulate, channel_sum)
        transform = Transform(programs.kernel, policy.kernel, policy.constants)
        self.input = Transform(programs.input, policy.input, policy.constants)
        self.output = Transform(programs.output, policy.output, policy.constants)
        w = converted(_scaled(w, self.scales.kernel), FORMATS["fp64"], policy.kernel)
        u, peak = transform.in_two_dimensions(np.ascontiguousarray(w.transpose(1, 2, 3, 0)))  # (C, n, n, K)
        u = converted(u, policy.kernel, policy.operands)
        self.extents.add("kernel", u, peak)
        self.kernels = np.ascontiguousarray(u.transpose(1, 2, 3, 0).reshape(algorithm.products**2, u.shape[3], u.shape[0], 1))

    def __call__(self, x: Array, threads: int = 1) -> tuple[Array, Extents]:
        """Return the convolution and the extents of its stages."""
        policy = self.policy
        x = converted(x, FORMATS["fp32"], policy.data)
        if self.algorithm is not None:
            x = converted(_scaled(x, self.scales.input), FORMATS["fp64"], policy.input)
        y, reached = (self._direct if self.algorithm is None else self._fast)(x, threads)
        if self.bias is not None:
            shift = converted(self.bias, FORMATS["fp32"], self.result)[:, None, None]
            with np.errstate(all="ignore"):
                y = _added(y, shift, self.result)
        y = converted(y, self.result, policy.data)
        reached.add("output", y)
        reached.join(self.extents)
        return np.asarray(y, np.float32), reached

    def _direct(self, x: Array, threads: int) -> tuple[Array, Extents]:
        (r, s), (sy, sx), (dy, dx) = self.taps, self.shape.strides, self.shape.dilations
        groups = self.shape.groups
        rows, columns = (
            (size - d * (k - 1) - 1) // step + 1 for size, d, k, step in zip(x.shape[2:], (dy, dx), (r, s), (sy, sx), strict=True)
        )
        taps = [(i * dy, j * dx) for i in range(r) for j in range(s)]
        where = np.indices((len(x), rows, columns)).reshape(3, -1)
        starts = _starts(x, where[0], where[1] * sy, where[2] * sx)
        y = np.empty((self.kernels.shape[1], starts.size), self.contraction.hold)
        inside, outside = x.shape[1] // groups, len(y) // groups

        def work(part: slice) -> Extents:
            v = _gathered(x, starts[part], taps)
            for g in range(groups):
                mine = slice(g * outside, (g + 1) * outside)
                y[mine, part] = self.contraction(self.kernels[0, mine], v[g * inside : (g + 1) * inside])
            reached = Extents()
            reached.add("sum", y[:, part])
            return reached

        reached = _run(work, _blocks(starts.size, x.shape[1] * len(taps)), threads)
        return y.reshape(len(y), len(x), rows, columns).swapaxes(0, 1), reached

    def _fast(self, x: Array, threads: int) -> tuple[Array, Extents]:
        alg, policy, filters = self.algorithm, self.policy, self.kernels.shape[1]
        assert alg is not None
        m, n, k = alg.m, alg.n, alg.products
        height, width = ((size - alg.r) // alg.stride + 1 for size in x.shape[2:])
        down, across = -(-height // m), -(-width // m)
        step = m * alg.stride
        need = [(0, max(0, (count - 1) * step + n - size)) for count, size in zip((down, across), x.shape[2:], strict=True)]
        x = np.pad(x, [(0, 0), (0, 0), *need])
        where = np.indices((len(x), down, across)).reshape(3, -1)
        starts = _starts(x, where[0], where[1] * step, where[2] * step)
        tile = [(i, j) for i in range(n) for j in range(n)]
        y = np.empty((starts.size, filters, m, m), self.output.hold)
        back = -(self.scales.input + self.scales.kernel)

        def work(part: slice) -> Extents:
            reached = Extents()
            tiles = _gathered(x, starts[part], tile)
            v, peak = self.input.in_two_dimensions(tiles.reshape(-1, n, n, tiles.shape[-1]))
            v = converted(np.ascontiguousarray(v.transpose(1, 2, 0, 3)), policy.input, policy.operands)
            reached.add("input", v, peak)
            v = v.reshape(k * k, -1, 1, v.shape[-1])
            total = np.stack([self.contraction(kernel, one) for kernel, one in zip(self.kernels, v, strict=True)])
            reached.add("sum", total)
            total = converted(total, policy.accumulate, policy.output)
            rest = total.reshape(k, k, filters, -1).transpose(2, 0, 1, 3)
            out, peak = self.output.in_two_dimensions(np.ascontiguousarray(rest))
            reached.add("output", out, peak)
            y[part] = converted(_scaled(out, back), FORMATS["fp64"], policy.output).transpose(3, 0, 1, 2)
            return reached

        reached = _run(work, _blocks(starts.size, len(self.kernels) * x.shape[1]), threads)
        image = y.reshape(len(x), down, across, filters, m, m).transpose(0, 3, 1, 4, 2, 5)
        return image.reshape(len(x), filters, down * m, across * m)[:, :, :height, :width], reached


class Precision(NamedTuple):
    """How a layer rounds: its policy, its sum over channels, and whether it is balanced."""

    policy: Policy
    channel_sum: str
    balanced: bool


def emulation_on(
    x: Array,
    weight: Array,
    bias: Array | None,
    shape: Shape,
    algorithm: BilinearAlgorithm | None,
    precision: Precision,
    threads: int,
) -> Emulation:
    """Return a layer; if `balanced`, with balanced rows, and scaled by its extents on the input `x`."""
    policy, channel_sum, balanced = precision
    if algorithm is None or not balanced:
        return Emulation(weight, bias, shape, algorithm, policy, channel_sum)
    algorithm = algorithm.balanced(min((policy.kernel, policy.input, policy.output), key=lambda fmt: fmt.largest))
    _, reached = Emulation(weight, bias, shape, algorithm, policy_named("fp32"), channel_sum)(x, threads)
    return Emulation(weight, bias, shape, algorithm, policy, channel_sum, scales_of(policy, reached))


def scales_of(policy: Policy, reached: Extents) -> Scales:
    """Choose powers of two that keep a layer's stages below the largest numbers of its formats.

    Parameters
    ----------
    policy : Policy
        Policy of the layer.
    reached : Extents
        Extents of the stages without scaling, in a format of sufficient range.

    Returns
    -------
    Scales
        Input and kernel are scaled so that the largest magnitude of their transforms is just below a quarter of the largest
        number. If the sums or outputs would then be too large, both scales are reduced equally.
    """
    seen = reached.largest
    x = _room(_narrower(policy.input, policy.operands), seen.get("input", 0.0))
    w = _room(_narrower(policy.kernel, policy.operands), seen.get("kernel", 0.0))
    sums = _room(_narrower(policy.product, policy.accumulate), seen.get("sum", 0.0))
    excess = max(0, x + w - min(sums, _room(policy.output, seen.get("output", 0.0))))
    return Scales(x - excess // 2, w - (excess - excess // 2))


def _narrower(a: Format, b: Format) -> Format:
    return a if a.largest <= b.largest else b


def _room(fmt: Format, largest: float) -> int:
    return math.floor(math.log2(float(fmt.largest) / _MARGIN / largest)) if largest > 0 else 0


def _scaled(x: Array, exponent: int) -> Array:
    """Return x times a power of two in float64, which is exact."""
    return np.ldexp(x.astype(np.float64), exponent) if exponent else x


def _added(y: Array, shift: Array, fmt: Format) -> Array:
    hold = carrier(fmt)
    return array_reading(fmt).add(y.astype(hold), shift.astype(hold))


def _starts(x: Array, image: Array, row: Array, column: Array) -> Array:
    """Return the offsets of windows in the flat input."""
    start: Array = image * (x.shape[1] * x.shape[2] * x.shape[3]) + row * x.shape[3] + column
    return start


def _gathered(x: Array, starts: Array, offsets: Sequence[tuple[int, int]]) -> Array:
    """Return ``(channels, offsets, windows)``: window values at given offsets."""
    channels, height, width = x.shape[1:]
    flat = x.reshape(-1)
    within = np.array([i * width + j for i, j in offsets])
    planes = np.arange(channels) * (height * width)
    found: Array = flat[planes[:, None, None] + within[None, :, None] + starts[None, None, :]]
    return found


def _blocks(count: int, depth: int) -> Iterator[slice]:
    size = max(32, min(1024, _BLOCK // max(depth, 1) // 16 * 16))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _run(work: Callable[[slice], Extents], parts: Iterator[slice], threads: int) -> Extents:
    """Run the work on all blocks in threads, and return the joined extents."""
    reached = Extents()

    def quiet(part: slice) -> Extents:
        with np.errstate(all="ignore"):  # overflows are counted
            return work(part)

    if threads == 1:
        found: Any = map(quiet, parts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(quiet, parts))
    for one in found:
        reached.join(one)
    return reached

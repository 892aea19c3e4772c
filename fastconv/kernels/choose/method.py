"""Choose how a layer runs: read the name of an algorithm, check that it fits the layer, or pick one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.algebra import BilinearAlgorithm, algorithms, best_algorithm, complex_sizes, identity, name_of, parse_name
from fastconv.kernels.choose.accuracy import relative_error
from fastconv.kernels.choose.cut import Size, cut, size_of, work_of
from fastconv.kernels.layer import Layer
from fastconv.native import machine

MAX_ERROR = 1e-6
"""Relative L2 error that ``"auto"`` keeps to in float32 if no limit is given; in float64 as many roundings."""

THREADS = 2
"""Threads that times are estimated for."""

OUTPUTS = {1: (2, 3, 4, 5, 6, 7, 8), 2: (2, 3, 4, 5, 6)}
"""Outputs an axis of the fast algorithms that are tried, of one dimension and of two."""

MORE_OUTPUTS = {1: (9, 10), 2: (7, 8)}
"""Those that are tried besides where the limit is `LOOSE` times the default: they err by more than three times as much."""

LOOSE = 3.0

ALIKE = 1.03
"""Estimates that differ by no more say nothing: of such algorithms the one of the smallest error is taken."""

PHASE = 8.0
"""Cycles that a vector of the phases costs, of one of two threads."""

PAYS = 0.9
"""Phases are taken where they are estimated to take no more of the time of a direct convolution: they take memory besides."""

LEAST_PHASE = 3
"""Taps an axis that phases have where they are tried unasked: of 3x3 taps at stride two they save too little."""

LONGER = 2
"""By how many outputs the sides of a tile may differ."""

CIRCLES = {1: (10, 18, 34, 50), 2: (10, 14, 18)}
"""Tile sizes of sets on the unit circle that are tried, in one dimension and in two."""

LARGEST_TILE = 16
"""Tiles of real points past this lose all accuracy in single precision."""

LARGEST_COMPLEX_TILE = 66
"""Larger ones save hardly more, and their transforms take long to compile."""

PLAIN = ("direct", "im2col", "fft")


@dataclass(frozen=True)
class Method:
    """How a layer runs.

    Attributes
    ----------
    name : str
        ``"direct"``, ``"im2col"``, ``"fft"``, ``"phases"`` or the name of a fast algorithm.
    axes : tuple of BilinearAlgorithm
        Of a fast algorithm: one along the height, one along the width.
    why : str
        Who chose it.
    phases : bool
        Whether the algorithm is that of the layer's phases (`Layer.phased`).
    """

    name: str
    axes: tuple[BilinearAlgorithm, BilinearAlgorithm] | None = None
    why: str = "asked for"
    phases: bool = False

    @property
    def sizes(self) -> tuple[Size, Size] | None:
        """What the cost depends on."""
        return None if self.axes is None else (size_of(self.axes[0]), size_of(self.axes[1]))


def method_of(given: Any, layer: Layer, max_error: float | None = None) -> Method:
    """Read what was given as `algorithm`.

    Raises
    ------
    TypeError, ValueError
        For what is no algorithm, or does not fit the layer; says the rule and the remedy.
    """
    automatic = isinstance(given, str) and given.strip().lower() == "auto"
    if max_error is not None:
        check_limit(max_error, given, automatic)
    if isinstance(given, str) and given.strip().lower() in PLAIN:
        return Method(given.strip().lower())
    if automatic or isinstance(given, str) and given.strip().lower() == "phases":
        return choose(layer, max_error, phases=not automatic)
    if isinstance(given, BilinearAlgorithm):
        axes = _fitted(given, layer)
    elif isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(a, BilinearAlgorithm) for a in given):
        axes = (given[0], given[1])
    elif isinstance(given, str):
        axes = _named(given, layer)
    else:
        raise TypeError(
            f"algorithm is {given!r}: pass 'auto', 'direct', 'im2col', 'fft', a name such as 'F(4x4,3x3)', "
            "a BilinearAlgorithm, or a pair of them for height and width"
        )
    _check(axes, layer)
    return Method(name_of(axes), axes)


def check_limit(max_error: Any, given: Any, automatic: bool) -> None:
    """Refuse an error limit that is none, or that comes with an algorithm."""
    if not isinstance(max_error, (int, float)) or isinstance(max_error, bool):
        raise TypeError(f"max_error is {max_error!r}: pass a number, the relative L2 error that algorithm='auto' keeps to")
    if not max_error > 0:
        raise ValueError(f"max_error is {max_error}: it is more than 0, such as 1e-6")
    if not automatic:
        raise ValueError(f"max_error is {max_error} and algorithm {given!r}: a limit is kept by choosing; pass algorithm='auto'")


def choose(layer: Layer, max_error: float | None = None, phases: bool = False) -> Method:
    """Choose what is estimated to be the fastest of what keeps the error limit by the closed form.

    Of fast algorithms, the best real points for m outputs an axis, m = 2 to 6, or 8 where the limit is loose, and sets with pairs of
    complex points; of a layer of a stride those of that stride, and those of its `phases`, which may be all that is asked for. Times
    are estimated from counts, see `fastconv.kernels.choose.cut`. The choice does not depend on the plan's threads, so that results do not.
    """
    default = MAX_ERROR * float(np.finfo(layer.dtype).eps / np.finfo(np.float32).eps)
    limit = default if max_error is None else max_error
    if phases and not layer.has_phases:
        given = f"stride {layer.stride[0]}x{layer.stride[1]}, dilation {layer.dilation[0]}x{layer.dilation[1]}, {layer.groups} groups"
        raise ValueError(f"'phases' does not fit {given}: it takes stride 2, more taps than that, and no more of the others; pass 'auto'")
    timed = sorted((way.cycles, k, way) for k, way in enumerate(_ways(layer, phases, limit >= LOOSE * default)))
    direct = next(cycles for cycles, _, way in timed if way.pair is None)
    found: list[tuple[float, float, int, Way]] = []
    for cycles, k, way in [one for one in timed if one[2].phased or not phases]:
        if found and cycles > ALIKE * found[0][1]:
            break
        if way.pair is None and max_error is None:
            found.append((0.0, cycles, k, way))  # whatever it errs by
            break
        error = way.error
        if error <= limit:
            found.append((error, cycles, k, way))
    if found:
        error, cycles, _, way = min(found)
        axes = way.axes
        if axes is None and max_error is None:
            return Method("direct", None, "chosen: no fast algorithm is estimated to pay on this layer")
        name, on = "direct" if axes is None else name_of(axes), ""
        if way.phased:
            name, on = "phases", f"{name} on the phases of the image, "
        speed = f", {direct / cycles:.1f} times faster than direct by estimate" if axes else ""
        return Method(name, axes, f"chosen: {on}predicted relative error {error:.1e}, the limit is {limit:.1e}{speed}", way.phased)
    if phases:
        raise ValueError(f"no algorithm for 'phases' keeps an error of {limit:.1e} on this layer: pass 'auto' or 'direct'")
    error = _error(layer, None)
    raise ValueError(
        f"max_error is {max_error:g}: a direct {layer.dtype} convolution of this layer errs by {error:.1e} already; "
        "pass a larger limit, or float64 arrays"
    )


@dataclass(frozen=True)
class Way:
    """A way to run a layer: a pair of algorithms, None for direct, and the layer that they run on, which may be that of the phases."""

    layer: Layer
    pair: tuple[Candidate, Candidate] | None = None
    phased: bool = False

    @property
    def cycles(self) -> float:
        """Return the estimated time."""
        cycles = _cycles(self.layer, self.pair and (self.pair[0].size, self.pair[1].size), self.phased)
        return cycles / PAYS if self.phased else cycles

    @property
    def error(self) -> float:
        """Return the error that is expected."""
        return _error(self.layer, self.axes)

    @property
    def axes(self) -> tuple[BilinearAlgorithm, BilinearAlgorithm] | None:
        """Make the algorithms."""
        return None if self.pair is None else (self.pair[0].algorithm(), self.pair[1].algorithm())


class Estimate(NamedTuple):
    """What is expected of a layer and an algorithm: the relative L2 error, and the cycles of the busiest thread."""

    error: float
    cycles: float


def estimated(layer: Layer, axes: tuple[BilinearAlgorithm, ...] = (), phased: bool = False, threads: int = THREADS) -> Estimate:
    """Estimate a layer that an algorithm along each axis runs, direct without; `phased`, on the phases of the image."""
    inner = layer.phased if phased else layer
    height, width = (*(identity(),) * (2 - len(axes)), *axes)
    sizes = (size_of(height), size_of(width)) if axes else None
    return Estimate(_error(inner, axes), _cycles(inner, sizes, phased, threads))


def _error(inner: Layer, axes: tuple[BilinearAlgorithm, ...] | None) -> float:
    return relative_error(axes, inner.channels // inner.groups, inner.kernel, inner.dtype)


def _cycles(inner: Layer, sizes: tuple[Size, Size] | None, phased: bool, threads: int = THREADS) -> float:
    """Return the estimated cycles, with those of taking the phases of the image apart."""
    cycles = cut(work_of(inner, sizes), threads).cycles
    numbers = inner.batch * inner.channels * inner.height * inner.width
    return cycles + PHASE * numbers * inner.dtype.itemsize / machine().vector_bytes if phased else cycles


def _ways(layer: Layer, phases: bool, loose: bool) -> list[Way]:
    """Return the ways that are tried: direct first; the phases alone, if they are asked for."""
    inner = layer.phased if layer.has_phases else layer
    apart = [Way(inner, pair, True) for pair in _candidates(*inner.kernel, loose)] if layer.has_phases else []
    if phases:
        return [Way(layer), *apart]
    dense = layer.dilation == (1, 1) and layer.groups == 1 and min(layer.channels, layer.filters) > 1
    if not dense:
        return [Way(layer)]
    if layer.stride == (1, 1):
        return [Way(layer), *(Way(layer, pair) for pair in (_candidates(*layer.kernel, loose) if layer.kernel != (1, 1) else ()))]
    whole = [Way(layer, pair) for pair in _strided(layer.kernel, layer.stride)]
    return [Way(layer), *whole, *(apart if max(inner.kernel) >= LEAST_PHASE else ())]


class Candidate(NamedTuple):
    """An algorithm for one axis, not made yet: outputs, taps, pairs of complex points, stride."""

    m: int
    r: int
    pairs: int
    dims: int
    stride: int = 1

    @property
    def n(self) -> int:
        """Tile size."""
        return self.stride * (self.m - 1) + self.r

    @property
    def size(self) -> Size:
        """What its cost depends on."""
        return Size(self.m, self.r, self.n + self.pairs, self.stride)

    def algorithm(self) -> BilinearAlgorithm:
        """Make it."""
        if self.m == self.r == 1:
            return identity()
        return best_algorithm(self.m, self.r, self.dims, self.n + self.pairs if self.stride == 1 else None, self.stride)


@lru_cache(maxsize=64)
def _candidates(rh: int, rw: int, loose: bool) -> tuple[tuple[Candidate, Candidate], ...]:
    """Return what is tried for a kernel: the same tile on both axes, nearly the same, or one axis alone."""
    dims, r = 1 if 1 in (rh, rw) else 2, max(rh, rw)
    sizes = [m for m in OUTPUTS[dims] + MORE_OUTPUTS[dims] * loose if m + r - 1 <= LARGEST_TILE]
    pairs = [(m, 0) for m in sizes]
    if dims == 1 or rh == rw:
        pairs += complex_sizes(r, dims)
        pairs += [(n - r + 1, (n - 3) // 2) for n in CIRCLES[dims] if n - r + 1 >= 2]
    one = Candidate(1, 1, 0, dims)
    tried = [(one if rh == 1 else Candidate(m, rh, p, dims), one if rw == 1 else Candidate(m, rw, p, dims)) for m, p in pairs]
    if dims == 2:
        tried += [(Candidate(a, rh, 0, 2), Candidate(b, rw, 0, 2)) for a in sizes for b in sizes if 0 < abs(a - b) <= LONGER]
    return tuple(tried)


@lru_cache(maxsize=64)
def _strided(kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[tuple[Candidate, Candidate], ...]:
    """Return what is tried for a kernel and a stride: tiles of about as many outputs on both axes."""
    dims = 1 if 1 in kernel else 2

    def axis(r: int, s: int) -> list[Candidate]:
        some = [Candidate(m, r, 0, dims, s) for m in OUTPUTS[dims]]
        return [Candidate(1, 1, 0, dims)] if r == s == 1 else [c for c in some if c.n <= LARGEST_TILE]

    if any(s > r or r == 1 < s for r, s in zip(kernel, stride, strict=True)):
        return ()
    h, w = (axis(r, s) for r, s in zip(kernel, stride, strict=True))
    return tuple((a, b) for a in h for b in w if 1 in kernel or abs(a.m - b.m) <= 1)


def _named(name: str, layer: Layer) -> tuple[BilinearAlgorithm, BilinearAlgorithm]:
    found = parse_name(name)
    sides = list(zip(found.m, found.r, found.stride, found.products, strict=True))
    for m, r, stride, products in sides:
        _check_size(m, r, 0 if products is None or stride > 1 else max(products - (m + r - 1), 0), stride)
    if len(sides) == 2 and sides[0] != sides[1]:
        height, width = algorithms(name)
        return height, width
    m, r, stride, products = sides[0]
    return _fitted(best_algorithm(m, r, 1 if layer.kernel.count(1) == 1 else 2, products, stride), layer)


def _fitted(alg: BilinearAlgorithm, layer: Layer) -> tuple[BilinearAlgorithm, BilinearAlgorithm]:
    """Put an algorithm on both axes, or on the one axis that has its taps where the other has one."""
    if alg.r > 1 and layer.kernel == (1, alg.r):
        return identity(), alg
    if alg.r > 1 and layer.kernel == (alg.r, 1):
        return alg, identity()
    return alg, alg


def _check(axes: tuple[BilinearAlgorithm, BilinearAlgorithm], layer: Layer) -> None:
    name = name_of(axes)
    (rh, rw), (kh, kw) = (axes[0].r, axes[1].r), layer.kernel
    if (rh, rw) != (kh, kw):
        m = (1 if kh == 1 else axes[0].m, 1 if kw == 1 else axes[1].m)
        raise ValueError(f"{name} is for {rh}x{rw} kernels, the layer's is {kh}x{kw}: pass 'F({m[0]}x{m[1]},{kh}x{kw})' or 'direct'")
    if any(alg.stride != s for alg, s in zip(axes, layer.stride, strict=True)):
        own = "x".join(str(alg.stride) for alg in axes)
        remedy = f"'F({axes[0].m}x{axes[1].m},{kh}x{kw})s{layer.stride[0]}', " if len(set(layer.stride)) == 1 else ""
        raise ValueError(
            f"{name} does not fit stride {layer.stride[0]}x{layer.stride[1]}: it is for {own}; pass {remedy}'auto' or 'direct'"
        )
    if layer.dilation != (1, 1):
        given = f"{layer.dilation[0]}x{layer.dilation[1]}"
        raise ValueError(f"{name} does not fit dilation {given}: fast algorithms take dilation 1; pass 'auto' or 'direct'")
    if layer.groups > 1:
        raise ValueError(f"{name} does not fit {layer.groups} groups: fast algorithms take groups 1; pass 'auto' or 'direct'")
    for alg in axes:
        _check_size(alg.m, alg.r, alg.products - alg.n, alg.stride)


def _check_size(m: int, r: int, pairs: int, stride: int) -> None:
    largest, n = LARGEST_COMPLEX_TILE if pairs else LARGEST_TILE, stride * (m - 1) + r
    if n > largest and stride > 1:
        raise ValueError(f"F({m},{r})s{stride} has tiles of {n}: layers run tiles of at most {largest}; take a smaller m")
    if n > largest:
        other = "take a smaller m" if pairs else f"take a smaller m, or complex points, 'F({m}x{m},{r}x{r})/{n + (n - 3) // 2}'"
        raise ValueError(f"F({m},{r}) has tiles of n = m + r - 1 = {n}: layers run tiles of at most {largest}; {other}")

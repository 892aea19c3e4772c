"""Read the name of a layer's algorithm and check that it fits, or choose one."""

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
"""Default limit of ``"auto"`` on the relative L2 error in float32; scaled by the machine epsilon in float64."""

THREADS = 2
"""Threads assumed when times are estimated."""

OUTPUTS = {1: (2, 3, 4, 5, 6, 7, 8), 2: (2, 3, 4, 5, 6)}
"""Outputs per axis of the fast algorithms that are tried, in one dimension and in two."""

MORE_OUTPUTS = {1: (9, 10), 2: (7, 8)}
"""Further ones, tried where the limit is at least `LOOSE` times the default: their error is over three times as large."""

LOOSE = 3.0

ALIKE = 1.03
"""Largest ratio of two estimates that count as equal: of equally fast algorithms the most accurate is chosen."""

PHASE = 8.0
"""Cycles per vector of the phases, for one of two threads."""

PAYS = 0.9
"""Largest estimated time of phases, relative to the other methods, at which they are chosen: they need extra memory."""

LEAST_PHASE = 3
"""Fewest taps per axis of phases that ``"auto"`` tries: with 3x3 taps at stride two they save too little."""

LONGER = 2
"""Largest difference of the sides of a tile, in outputs."""

CIRCLES = {1: (10, 18, 34, 50), 2: (10, 14, 18)}
"""Tile sizes of sets on the unit circle that are tried, in one dimension and in two."""

LARGEST_TILE = 16
"""Largest tile with real points: larger ones lose all accuracy in single precision."""

LARGEST_COMPLEX_TILE = 66
"""Largest tile with complex points: larger ones save hardly more, and their transforms take long to compile."""

PLAIN = ("direct", "im2col", "fft")


@dataclass(frozen=True)
class Method:
    """How a layer runs.

    Attributes
    ----------
    name : str
        ``"direct"``, ``"im2col"``, ``"fft"``, ``"phases"`` or the name of a fast algorithm.
    axes : tuple of BilinearAlgorithm
        The fast algorithms along the height and along the width; None for another method.
    why : str
        Who chose it.
    phases : bool
        Whether the algorithm runs on the layer's phases (`Layer.phased`).
    """

    name: str
    axes: tuple[BilinearAlgorithm, BilinearAlgorithm] | None = None
    why: str = "asked for"
    phases: bool = False

    @property
    def sizes(self) -> tuple[Size, Size] | None:
        """Sizes of the algorithms, which determine the cost."""
        return None if self.axes is None else (size_of(self.axes[0]), size_of(self.axes[1]))


def method_of(given: Any, layer: Layer, max_error: float | None = None) -> Method:
    """Return the method that the argument `algorithm` names, or choose one for ``"auto"``; a `Method` is returned as it is.

    Raises
    ------
    TypeError, ValueError
        If it is not an algorithm, or does not fit the layer.
    """
    if isinstance(given, Method):
        return given
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
    """Reject an invalid error limit, or one given together with a fixed algorithm."""
    if not isinstance(max_error, (int, float)) or isinstance(max_error, bool):
        raise TypeError(f"max_error is {max_error!r}: pass a number, the relative L2 error that algorithm='auto' keeps to")
    if not max_error > 0:
        raise ValueError(f"max_error is {max_error}: pass a number above 0, such as 1e-6")
    if not automatic:
        raise ValueError(f"max_error is {max_error} and algorithm {given!r}: only 'auto' keeps a limit; pass algorithm='auto'")


def choose(layer: Layer, max_error: float | None = None, phases: bool = False) -> Method:
    """Choose the method with the least estimated time whose predicted error is within the limit.

    Candidates have the best real points for m outputs per axis, m = 2 to 6, or to 8 where the limit is loose, or pairs of complex
    points. A strided layer has those of its stride and those of its phases; `phases` allows only the latter. Times are estimated
    from counts, see `fastconv.kernels.choose.cut`. Neither the choice nor the results depend on the plan's threads.
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
            found.append((0.0, cycles, k, way))  # without a limit, direct is always accurate enough
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
        f"max_error is {max_error:g}: a direct {layer.dtype} convolution of this layer has an error of {error:.1e}; "
        "pass a larger limit, or float64 arrays"
    )


@dataclass(frozen=True)
class Way:
    """A candidate: a layer, perhaps the phased one, and a pair of algorithms (None: direct)."""

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
        """Return the expected relative error."""
        return _error(self.layer, self.axes)

    @property
    def axes(self) -> tuple[BilinearAlgorithm, BilinearAlgorithm] | None:
        """Build the algorithms."""
        return None if self.pair is None else (self.pair[0].algorithm(), self.pair[1].algorithm())


class Estimate(NamedTuple):
    """Relative L2 error and cycles of the busiest thread, for a layer and an algorithm."""

    error: float
    cycles: float


def estimated(layer: Layer, axes: tuple[BilinearAlgorithm, ...] = (), phased: bool = False, threads: int = THREADS) -> Estimate:
    """Return the estimate for an algorithm per axis, or direct; `phased`: on the image's phases."""
    inner = layer.phased if phased else layer
    height, width = (*(identity(),) * (2 - len(axes)), *axes)
    sizes = (size_of(height), size_of(width)) if axes else None
    return Estimate(_error(inner, axes), _cycles(inner, sizes, phased, threads))


def _error(inner: Layer, axes: tuple[BilinearAlgorithm, ...] | None) -> float:
    return relative_error(axes, inner.channels // inner.groups, inner.kernel, inner.dtype)


def _cycles(inner: Layer, sizes: tuple[Size, Size] | None, phased: bool, threads: int = THREADS) -> float:
    """Return the estimated cycles, including the split of the image into phases."""
    cycles = cut(work_of(inner, sizes), threads).cycles
    numbers = inner.batch * inner.channels * inner.height * inner.width
    return cycles + PHASE * numbers * inner.dtype.itemsize / machine().vector_bytes if phased else cycles


def _ways(layer: Layer, phases: bool, loose: bool) -> list[Way]:
    """Return the candidate methods: direct first, then only the phased ones if `phases`."""
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
    """Outputs, taps, complex pairs, dimensions and stride of an algorithm for one axis."""

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
        """Sizes of the algorithm, which determine its cost."""
        return Size(self.m, self.r, self.n + self.pairs, self.stride)

    def algorithm(self) -> BilinearAlgorithm:
        """Build the algorithm."""
        if self.m == self.r == 1:
            return identity()
        return best_algorithm(self.m, self.r, self.dims, self.n + self.pairs if self.stride == 1 else None, self.stride)


@lru_cache(maxsize=64)
def _candidates(rh: int, rw: int, loose: bool) -> tuple[tuple[Candidate, Candidate], ...]:
    """Return the candidates for a kernel: similar tiles on both axes, or one axis alone."""
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
    """Return the candidates for a kernel and a stride: tiles with about as many outputs on both axes."""
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
    """Return the algorithm on both axes, or on one if the other has a single tap."""
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

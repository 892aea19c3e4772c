"""The machine that code is compiled for, as frozen data; the compiler is not imported."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

SIZE = {"f4": 4, "f8": 8}
"""Bytes of a number, by the kernels' name for its format."""

KIND = {size: kind for kind, size in SIZE.items()}
"""The kernels' name for a format, by its bytes."""

VARIABLE = "FASTCONV_MACHINE"
"""Environment variable that replaces fields of the record: ``"vector_bytes=32 fma=0"``."""

_WIDTHS = (16, 32, 64)


class Vectors(NamedTuple):
    """The vector unit of CPUs with an LLVM feature ("" for all of an architecture)."""

    feature: str
    vector_bytes: int
    registers: int
    fma: bool | str
    """Whether it has fused multiply-add, or the feature that tells."""


VECTORS = {
    "x86_64": (Vectors("avx512f", 64, 32, True), Vectors("avx2", 32, 16, "fma"), Vectors("", 16, 16, "fma")),
    "aarch64": (Vectors("", 16, 32, True),),  # NEON
}
"""Vector units by architecture, the widest first: a CPU has the first whose feature it has. VSX, z13 and all others count as NEON."""


@dataclass(frozen=True)
class Machine:
    """The properties of a CPU and its system on which compiled code depends.

    Attributes
    ----------
    triple, cpu, features : str
        Compilation target, in LLVM's names. Objects are ELF or Mach-O: the triple of Windows ends in ``-elf``.
    model : str
        The CPU's name, for display.
    vector_bytes : int
        Bytes of a vector: 16, 32 or 64. If the CPU lacks this width, LLVM uses several registers.
    registers : int
        Vector registers.
    fma : bool
        Whether kernels multiply and add in one instruction, rounded once.
    line : int
        Bytes of a cache line.
    l1, l2, l3 : int
        Bytes of the data caches of one core; 0 if unknown.
    """

    triple: str
    cpu: str
    features: str
    model: str
    vector_bytes: int
    registers: int
    fma: bool
    line: int
    l1: int
    l2: int
    l3: int

    @property
    def architecture(self) -> str:
        """``"x86_64"``, ``"aarch64"`` or the name in the triple."""
        name = self.triple.split("-")[0]
        return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)

    @property
    def system(self) -> str:
        """``"linux"``, ``"darwin"``, ``"windows"``, or ``"other"``."""
        named = (("linux", "linux"), ("darwin", "darwin"), ("macos", "darwin"), ("windows", "windows"))
        return next((system for part, system in named if part in self.triple), "other")

    def __str__(self) -> str:
        """Return a one-line description."""
        caches = " / ".join(f"{size >> 10} KiB" for size in (self.l1, self.l2, self.l3) if size)
        fused = "fused multiply-add" if self.fma else "no fused multiply-add"
        return f"{self.model} ({self.cpu}), vectors of {self.vector_bytes} bytes, {fused}" + (f", caches {caches}" if caches else "")


@cache
def machine() -> Machine:
    """Return the machine to compile for: this one, with fields from `VARIABLE`.

    numba's settings NUMBA_CPU_NAME and NUMBA_CPU_FEATURES apply too.

    Raises
    ------
    ValueError
        If `VARIABLE` has an unknown field or an invalid value.

    Examples
    --------
    >>> machine().vector_bytes in (16, 32, 64)
    True
    """
    given = _given(os.environ.get(VARIABLE, ""))
    name = given.get("cpu") or os.environ.get("NUMBA_CPU_NAME")
    features = given.get("features", os.environ.get("NUMBA_CPU_FEATURES", "" if (name or "").lower() == "generic" else None))
    triple = given.get("triple")
    if triple is None or name is None or features is None:
        from llvmlite import binding

        if triple is None:
            triple = binding.get_process_triple()
            name = name or binding.get_host_cpu_name()
            features = binding.get_host_cpu_features().flatten() if features is None else features
    if "windows" in triple and not triple.endswith("-elf"):
        triple += "-elf"  # the loader aborts on COFF
    found = machine_of(triple, name or "generic", features or "")
    return replace(found, **{key: value for key, value in given.items() if key not in ("triple", "cpu", "features")})


def machine_of(triple: str, cpu: str, features: str) -> Machine:
    """Return the record of a CPU given by LLVM's name, with the caches and model of this machine.

    Examples
    --------
    >>> arm = machine_of("aarch64-unknown-linux-gnu", "neoverse-n1", "")
    >>> arm.vector_bytes, arm.registers, arm.fma
    (16, 32, True)
    """
    known = frozenset(feature[1:] for feature in features.split(",") if feature.startswith("+"))
    line, l1, l2, l3 = _caches()
    plain = Machine(triple, cpu, features, _model() or cpu, 16, 32, True, line, l1, l2, l3)
    unit = next(one for one in VECTORS.get(plain.architecture, VECTORS["aarch64"]) if not one.feature or one.feature in known)
    fused = unit.fma if isinstance(unit.fma, bool) else unit.fma in known
    apple = plain.system == "darwin" and plain.architecture == "aarch64"
    return replace(plain, vector_bytes=unit.vector_bytes, registers=unit.registers, fma=fused, line=128 if apple else line)


def _given(text: str) -> dict[str, Any]:
    """Return the fields that the text of `VARIABLE` sets."""
    kinds = {field.name: field.type for field in fields(Machine)}
    given: dict[str, Any] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if name not in kinds or not equals:
            raise ValueError(f"{VARIABLE} says {part!r}: give FIELD=VALUE, separated by blanks, with the fields {', '.join(kinds)}")
        if kinds[name] == "str":
            given[name] = value
            continue
        if not value.isdecimal():
            raise ValueError(f"{VARIABLE} says {part!r}: {name} is a whole number")
        given[name] = bool(int(value)) if kinds[name] == "bool" else int(value)
    if given.get("vector_bytes", 16) not in _WIDTHS:
        raise ValueError(f"{VARIABLE} says vector_bytes={given['vector_bytes']}: a vector has 16, 32 or 64 bytes")
    line = given.get("line", 64)
    if line < 64 or line & (line - 1):
        raise ValueError(f"{VARIABLE} says line={line}: a cache line is a power of two of at least 64 bytes")
    return given


def lanes_of(kind: str) -> int:
    """Return how many numbers of a kind (``"f4"``, ``"f8"``) a vector holds."""
    return machine().vector_bytes // SIZE[kind]


def target_machine(given: Machine) -> Any:
    """Return a new LLVM target machine; the caller owns it."""
    from llvmlite import binding

    if given.triple.removesuffix("-elf") == binding.get_process_triple().removesuffix("-elf"):
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
    else:
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(given.triple)
    return target.create_target_machine(given.cpu, given.features, opt=3, reloc="pic", codemodel="small", jit=True)


def _caches() -> tuple[int, int, int, int]:
    """Return the bytes of a cache line and of the three data caches, 0 for an unknown cache."""
    read = {"Linux": _caches_of_linux, "Darwin": _caches_of_macos}.get(platform.system(), dict)
    found: Mapping[str, int] = {}
    with suppress(OSError, ValueError, AttributeError):
        found = read()
    line = found.get("line", 0) or (128 if platform.machine() == "arm64" else 64)
    return max(line, 64), found.get("l1", 0), found.get("l2", 0), found.get("l3", 0)


def _caches_of_linux() -> dict[str, int]:
    found: dict[str, int] = {}
    for place in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = (place / "level").read_text().strip(), (place / "type").read_text().strip()
        if kind in ("Data", "Unified"):
            size = (place / "size").read_text().strip()
            found[f"l{level}"] = int(size.rstrip("KM")) << {"K": 10, "M": 20}.get(size[-1], 0)
            found["line"] = int((place / "coherency_line_size").read_text())
    return found


def _caches_of_macos() -> dict[str, int]:
    names = {"line": "hw.cachelinesize", "l1": "hw.l1dcachesize", "l2": "hw.l2cachesize", "l3": "hw.l3cachesize"}
    fast = {"l1": "hw.perflevel0.l1dcachesize", "l2": "hw.perflevel0.l2cachesize", "l3": "hw.perflevel0.l3cachesize"}
    return {key: _sysctl(fast.get(key, "")) or _sysctl(name) for key, name in names.items()}


def _sysctl(name: str) -> int:
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    wrong = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if wrong else value.value


def _model() -> str:
    """Return the CPU's name, empty if unknown."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return "" if platform.system() == "Linux" else platform.processor()

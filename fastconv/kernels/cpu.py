"""The processor that kernels are compiled for, known without the compiler."""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

SIZE = {"f4": 4, "f8": 8}
"""Bytes of a number, by the name that kernels have for its kind."""

KIND = {size: kind for kind, size in SIZE.items()}
"""The name by the bytes."""


class Target(NamedTuple):
    """What code is made for: as numba and LLVM name it."""

    triple: str
    cpu: str
    features: str


@cache
def target() -> Target:
    """Return what numba compiles for: this processor, or the one that its settings NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name."""
    from llvmlite import binding

    name = os.environ.get("NUMBA_CPU_NAME")
    features = os.environ.get("NUMBA_CPU_FEATURES", "" if (name or "").lower() == "generic" else None)
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    return Target(binding.get_process_triple(), name or binding.get_host_cpu_name(), features)


@cache
def host_features() -> frozenset[str]:
    """Return the CPU features that are compiled for."""
    return frozenset(feature[1:] for feature in target().features.split(",") if feature.startswith("+"))


def vector_bytes() -> int:
    """Return the width of a vector register in bytes: 64 with AVX-512, 32 with AVX2, otherwise 16."""
    features = host_features()
    return 64 if "avx512f" in features else 32 if "avx2" in features else 16


def has_fma() -> bool:
    """Whether the CPU multiplies and adds in one instruction."""
    return "fma" in host_features() or "avx512f" in host_features()


def lanes_of(kind: str) -> int:
    """Return how many numbers of a kind (``"f4"``, ``"f8"``) a vector holds."""
    return vector_bytes() // SIZE[kind]

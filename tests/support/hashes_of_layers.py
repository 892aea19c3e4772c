"""Print the machine and a hash of the results of five layers, equal on all CPUs with fused multiply-add."""

from __future__ import annotations

import hashlib
import sys
import time

import numpy as np

import fastconv as fc
from fastconv.native import machine

LAYERS = (
    ("F(4x4,3x3)", (1, 35, 21, 18), 3, {}),  # tiles in the lanes of vectors
    ("F(4x4,3x3)", (2, 32, 7, 20), 41, {}),  # filters in the lanes
    ("F(8x8,3x3)/13", (1, 5, 20, 23), 3, {}),  # complex points
    ("direct", (1, 6, 20, 23), 9, {"stride": 2, "groups": 3}),
    ("direct", (1, 5, 20, 23), 5, {"groups": 5}),  # depthwise
)


def main():
    """Run each layer on two threads and on one."""
    print(machine(), file=sys.stderr)
    for name, shape, filters, settings in LAYERS:
        rng = np.random.default_rng(0)
        x = rng.standard_normal(shape).astype("f4")
        w = rng.standard_normal((filters, shape[1] // settings.get("groups", 1), 3, 3)).astype("f4")
        begun = time.perf_counter()
        one, two = (fc.plan_conv2d(w, padding=1, input_shape=shape, algorithm=name, threads=t, **settings)(x) for t in (1, 2))
        assert np.array_equal(one, two), "the result depends on the threads"
        print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)
        print(name, *shape, filters, hashlib.sha256(one.tobytes()).hexdigest()[:16], flush=True)


if __name__ == "__main__":
    main()

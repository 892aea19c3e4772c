"""Stored values of predictions, bounds and tolerances; ``python -m support.values`` in ``tests/`` rewrites them.

Other tests compare the error analysis with measurements, within their noise, which may hide a term that is ten times too small.
Here any change of a formula shows. Rewrite the values only with a reason, and give it in the commit message.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.arithmetic import POLICIES

FILE = Path(__file__).with_name("values.json")
NAMES = ["F(2,3)", "F(4,3)", "F(3x3,3x3)", "F(4x2,3x5)", "F(8x8,3x3)/13", "F(4,3)s2", "F(5,3)", "F(2x2,5x5)", "F(6,3)/10"]
ORDERS = ["huffman", "sequential", "pairwise", "huffman+shared", "huffman+folded", "sequential+fma"]
SUMS = ["linear", "pairwise", "blocked"]
INPUTS = ["uniform", "normal"]


def settings(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield settings that together cover every choice several times."""
    rng = random.Random(seed)
    policies = list(POLICIES)
    for k in range(count):
        yield {
            "alg": NAMES[k % len(NAMES)],
            "policy": policies[k % len(policies)],
            "order": rng.choice(ORDERS),
            "channels": rng.choice([1, 2, 7, 64, 300]),
            "channel_sum": rng.choice(SUMS),
        }


def predicted(**setting: Any) -> list[float]:
    """Return the numbers of a prediction."""
    found = fc.predict_error(**setting)
    return [found.rms, found.mean_abs, found.relative_l2, *found.shares.values(), *np.ravel(found.rms_of_outputs)]


def certified(**setting: Any) -> list[float]:
    """Return the constant of the bound for all inputs of a box, for small and large boxes."""
    boxes = [(1, 1), (Fraction(1, 1 << 20), 3), (1 << 12, 1 << 10)]
    return [fc.certified_constant(**setting, box=box) for box in boxes]


def bounded(**setting: Any) -> list[float]:
    """Return the running bound of a few inputs of three sizes."""
    rng = np.random.default_rng(5)
    axes = fc.algorithms(setting["alg"])
    C = min(setting["channels"], 7)
    own = setting | {"channels": True}
    found = []
    for scale in (1.0, 2.0**-10, 2.0**5):
        w = scale * rng.standard_normal((2, C, *(a.r for a in axes)))
        x = scale * rng.standard_normal((2, C, *(a.n for a in axes)))
        found += [float(v) for v in np.ravel(fc.bound_error(w=w, x=x, **own))]
    return found


def tolerated(**setting: Any) -> list[float]:
    """Return the numbers of a tolerance."""
    found = fc.tolerance(**setting, scale_w=0.25, outputs=10**4)
    return [found.atol, found.rtol, found.worst_case, found.rms, found.factor, found.rms_limit, *np.ravel(found.atol_of_outputs)]


READINGS: dict[str, tuple[Callable[..., list[float]], int, dict[str, list[Any]]]] = {
    "predicted": (predicted, 90, {"inputs": INPUTS}),
    "certified": (certified, 40, {}),
    "bounded": (bounded, 40, {}),
    "tolerated": (tolerated, 30, {"inputs": INPUTS}),
}
"""Function, number of settings and further arguments of each kind."""


def cases(kind: str) -> list[dict[str, Any]]:
    """Return the settings of one kind."""
    _, count, besides = READINGS[kind]
    rng = random.Random(kind)
    return [one | {name: rng.choice(values) for name, values in besides.items()} for one in settings(count, seed=3)]


def read(kind: str) -> list[list[float]]:
    """Return the values of each setting of one kind."""
    reading = READINGS[kind][0]
    return [reading(**setting) for setting in cases(kind)]


def main() -> None:
    """Write the file."""
    text = json.dumps({kind: read(kind) for kind in READINGS})
    FILE.write_text(text.replace("], [", "],\n[") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

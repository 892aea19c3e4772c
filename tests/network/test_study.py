"""The stored measurements of whole networks are consistent."""

from __future__ import annotations

import math
import sys

import pytest
from support import ROOT

if not (ROOT / "figures" / "networks.csv").exists():
    pytest.skip("the stored measurements are in the repository, not in the source distribution", allow_module_level=True)
sys.path.insert(0, str(ROOT / "analysis"))
import networks_tables as study
from common import read_csv

ROWS = read_csv("networks.csv")


def test_rows_of_a_network_are_of_the_same_images():
    """Errors are compared across rows, so all rows must use the same images."""
    samples = {(row["network"], row["images"], row["pixels"]) for row in ROWS}
    assert len(samples) == len({network for network, *_ in samples}) == 6


def test_rows_are_told_apart_and_stand_beside_direct_convolution():
    keys = [tuple(row[key] for key in ("network", "policy", "channel_sum", "algorithm", "points")) for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert {(*key[:3], "direct", "") for key in keys} <= set(keys)


def test_what_overflows_is_counted():
    """A NaN error comes from counted overflows."""
    assert all(float(row["overflows"]) > 0 for row in ROWS if not math.isfinite(float(row["relative_l2"])))


def test_the_dyadic_sets_that_ran_are_the_best_of_their_families():
    rows = sorted(read_csv("dyadic_points.csv"), key=lambda row: float(row["at_output"]))
    best = {row["algorithm"] + "*": row["points"] for row in reversed(rows)}
    assert best == study.DYADIC

"""Predictions, bounds and tolerances have the values that were held against measurements."""

from __future__ import annotations

import json
import random

import pytest
from support.values import FILE, READINGS, cases, predicted, read

import fastconv as fc

KEPT = json.loads(FILE.read_text(encoding="utf-8"))
CLOSE = 1e-9
"""Ten million roundings of float64: libraries of linear algebra sum in other orders on other machines."""


@pytest.mark.parametrize("kind", READINGS)
def test_values_are_those_that_were_kept(kind):
    settings = cases(kind)
    assert len(settings) == len(KEPT[kind])
    for setting, kept in zip(settings, KEPT[kind], strict=True):
        found = read(kind, setting)
        if isinstance(kept, str):
            assert found == kept, setting
        else:
            assert found == pytest.approx(kept, rel=CLOSE, abs=1e-30, nan_ok=True), setting


def test_kept_predictions_are_what_is_measured():
    """A few of them, drawn anew by who writes the file anew: 3,000 tiles tell an rms error to 5 %, a tenth with few outputs."""
    plain = [setting for setting in cases("predicted") if setting["policy"] in ("fp32", "mixed", "bf16") and setting["channels"] <= 64]
    for setting in random.Random(1).sample(plain, 6):
        measured = fc.measure_error(**setting | {"trials": 3000, "inputs": setting["inputs"]})
        assert predicted(**setting)[0] == pytest.approx(measured.rms, rel=0.1), setting

"""Predictions, bounds and tolerances have the values that were kept; some are measured again."""

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
    for setting, found, kept in zip(cases(kind), read(kind), KEPT[kind], strict=True):
        assert found == pytest.approx(kept, rel=CLOSE, abs=1e-30, nan_ok=True), setting


def test_kept_predictions_are_what_is_measured():
    """Six of them, within the model's 5 % and as much for 3,000 tiles."""
    plain = [setting for setting in cases("predicted") if setting["policy"] in ("fp32", "mixed", "bf16") and setting["channels"] <= 64]
    for setting in random.Random(1).sample(plain, 6):
        measured = fc.measure_error(**setting, trials=3000)
        assert predicted(**setting)[0] == pytest.approx(measured.rms, rel=0.1), setting

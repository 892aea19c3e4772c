"""Run the kernel tests for other machines: vectors of 16, 32 and 64 bytes, with and without fused multiply-add.

Vectors wider than the CPU's are allowed: LLVM uses several registers for one. So is a multiply-add that the CPU lacks: the
compiler calls the C library's.

Each machine compiles its own kernels, which takes most of the time. So a machine runs half of the cases of each test, chosen so
that each case runs with vectors of each width, and both with and without fused multiply-add.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from fastconv.native import machine
from fastconv.native.machine import VARIABLE

HERE = Path(__file__).parent
APART = {"test_machines.py", "test_targets.py", "test_auto.py", "test_estimate.py", "test_input.py"}
"""Tests that set a machine themselves, and those of choices and arguments, which do not depend on vectors."""
TESTS = [
    *sorted(path for path in HERE.glob("test_*.py") if path.name not in APART),
    ROOT / "tests" / "native" / "test_threads.py",
    ROOT / "tests" / "network" / "test_tape.py",
]

OWN = (machine().vector_bytes, machine().fma)
SETTINGS = [(width, fma) for width in (16, 32, 64) for fma in (False, True)]


def half_of(width, fma):
    """Return the half of the cases that a machine runs: the halves of one width differ, and so do those of one `fma`."""
    return int(fma != (width == OWN[0]))


def test_each_case_runs_with_each_width_and_each_way_to_add():
    ran = {(*one, half) for one in SETTINGS for half in ((0, 1) if one == OWN else (half_of(*one),))}
    assert {(width, half) for width, _, half in ran} == {(width, half) for width in (16, 32, 64) for half in (0, 1)}
    assert {(fma, half) for _, fma, half in ran} == {(fma, half) for fma in (False, True) for half in (0, 1)}


@pytest.mark.parametrize(("width", "fma"), [one for one in SETTINGS if one != OWN])
def test_the_tests_of_the_kernels_pass_on_another_machine(width, fma, tmp_path):
    own = os.environ | {VARIABLE: f"vector_bytes={width} fma={int(fma)}"}
    own_folder = ["--basetemp", str(tmp_path / "of_pytest"), "-p", "no:cacheprovider"]
    chosen = ["-k", "not auto and not next_process", *map(str, TESTS)]  # nor choices, nor caching between processes
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--half={half_of(width, fma)}", *own_folder, *chosen]
    done = subprocess.run(command, env=own, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-20000:]
    assert " skipped" not in done.stdout

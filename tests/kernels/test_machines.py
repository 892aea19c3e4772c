"""Run the kernel tests for other machines: vectors of 16, 32 and 64 bytes, with and without fused multiply-add.

Vectors wider than the CPU's are allowed: LLVM uses several registers for one. So is a multiply-add that the CPU lacks: the
compiler calls the C library's.
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

SETTINGS = [(width, fma) for width in (16, 32, 64) for fma in (False, True)]


@pytest.mark.parametrize(("width", "fma"), [one for one in SETTINGS if one != (machine().vector_bytes, machine().fma)])
def test_the_tests_of_the_kernels_pass_on_another_machine(width, fma, tmp_path):
    own = os.environ | {VARIABLE: f"vector_bytes={width} fma={int(fma)}"}
    own_folder = ["--basetemp", str(tmp_path / "of_pytest"), "-p", "no:cacheprovider"]
    chosen = ["-k", "not auto and not next_process", *map(str, TESTS)]  # nor choices, nor caching between processes
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *own_folder, *chosen]
    done = subprocess.run(command, env=own, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-20000:]
    assert " skipped" not in done.stdout

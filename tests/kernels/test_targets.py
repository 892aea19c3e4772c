"""Compile every kernel for other CPUs and systems, without running it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest
from support import ROOT
from support.every_kernel import PRODUCTS

from fastconv.native.machine import VARIABLE
from fastconv.native.source.emit import OUTSIDE

SCRIPT = ROOT / "tests" / "support" / "every_kernel.py"
ARM = ["aarch64-unknown-linux-gnu:neoverse-n1", "aarch64-unknown-linux-gnu:neoverse-v1", "arm64-apple-darwin:apple-m1"]
OWN = {"x86_64": ["x86_64-apple-darwin:haswell", "x86_64-pc-windows-msvc-elf:haswell"], "aarch64": ["arm64-apple-darwin:apple-m1"]}


def compiled_for(targets, folder, **settings):
    own = os.environ | {"XDG_CACHE_HOME": str(folder)} | settings
    done = subprocess.run([sys.executable, str(SCRIPT), *targets], env=own, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    said = json.loads(done.stdout)
    assert said["made"] == said["sources"]
    assert set(said["found"]) == set(targets)
    for told in said["found"].values():
        assert told["objects"] >= len(said["sources"])
        assert set(told["outside"]) <= OUTSIDE
    return said["found"]


def test_arm_multiplies_and_adds_in_one_instruction_and_spills_nothing(tmp_path):
    triple, cpu = ARM[0].split(":")
    for target, told in compiled_for(ARM, tmp_path, **{VARIABLE: f"triple={triple} cpu={cpu}"}).items():
        for product in PRODUCTS:
            loops = [loop for name, found in told["loops"].items() if name.rpartition("_")[0] == product for loop in found]
            assert loops, f"{target}: no loop of {product} has fmla"
            assert [spills for _, spills in loops] == [0] * len(loops), f"{target}: {product} spills"
        assert "fmaf" not in told["outside"]


def test_objects_for_other_systems_of_this_architecture_are_loaded(tmp_path):
    """Objects are Mach-O, and ELF for Windows: the loader aborts on COFF."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if machine not in OWN:
        pytest.skip(f"nothing is known of other systems on {machine}")
    for told in compiled_for(OWN[machine], tmp_path).values():
        assert told["loaded"] == told["objects"]

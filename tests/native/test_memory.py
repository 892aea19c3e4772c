"""What the system tells of free memory."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from fastconv.native import free_memory
from fastconv.native.memory import left_in_groups


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_free_memory_is_at_most_what_the_kernel_counts_as_available():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) << 10
    assert 0 < free_memory() < total


def test_a_container_of_version_2_leaves_what_its_groups_do(tmp_path):
    group(tmp_path / "slice", max=1000, current=400, stat="anon 300\ninactive_file 100")
    group(tmp_path / "slice" / "box", max="max", current=100, stat="inactive_file 10")
    assert list(left_in_groups("0::/slice/box", tmp_path)) == [700]
    group(tmp_path / "slice" / "box", max=300, current=100, stat="inactive_file 10")
    assert list(left_in_groups("0::/slice/box", tmp_path)) == [210, 700]
    group(tmp_path, max=50, current=20, stat="")  # the group itself is mounted at the root, under another path
    assert list(left_in_groups("0::/elsewhere", tmp_path)) == [30]


def test_a_container_of_version_1_leaves_what_its_groups_do(tmp_path):
    files = {"limit_in_bytes": 900, "usage_in_bytes": 500, "stat": "cache 300\ntotal_inactive_file 50"}
    group(tmp_path / "memory" / "box", **files)
    text = "5:cpu,cpuacct:/box\n4:memory:/box\n0::/"
    assert list(left_in_groups(text, tmp_path)) == [450]

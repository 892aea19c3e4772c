"""The recipes of CONTRIBUTING.md work: each is followed to the letter in a copy of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "CONTRIBUTING.md"


def section(title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found[1]


def codes(text):
    return [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)]


def add(path, before, text):
    """Put a text before the one place where another stands."""
    whole = path.read_text(encoding="utf-8")
    assert whole.count(before) == 1
    path.write_text(whole.replace(before, f"{text}{before}"), encoding="utf-8")


def test_an_operator_is_one_record_and_one_example(tmp_path):
    definition, record, example = codes(section("An ONNX operator"))
    shutil.copytree(ROOT / "fastconv", tmp_path / "fastconv", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "support", tmp_path / "tests" / "support", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py", "tests/test_network_operator_records.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    operators = tmp_path / "fastconv" / "network" / "operators" / "tensors" / "shape.py"
    add(operators, "OPERATORS: tuple[", f"{definition}\n\n")
    add(operators, '    Operator("Identity",', textwrap.indent(record, "    "))
    add(tmp_path / "tests" / "support" / "examples.py", '    "Identity":', textwrap.indent(example, "    "))
    command = [sys.executable, "-m", "pytest", "-n", "0", "-v", "-p", "no:cacheprovider", "tests/test_network_operator_records.py"]
    done = subprocess.run([*command, "-k", "HannWindow"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for claim in ("standard", "inputs", "shaped_by", "wide"):
        assert f"[HannWindow-{claim}] PASSED" in done.stdout


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)#]+)", PAGE.read_text(encoding="utf-8")))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()

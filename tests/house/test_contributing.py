"""The recipes of CONTRIBUTING.md work: each is followed to the letter in a copy of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from support import ROOT

PAGE = ROOT / "CONTRIBUTING.md"


def section(title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found[1]


def codes(text):
    return [textwrap.dedent(block) for block in re.findall(r"^ *```(?:python|json)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)]


def add(path, before, text):
    """Put a text before the one place where another stands."""
    whole = path.read_text(encoding="utf-8")
    assert whole.count(before) == 1
    path.write_text(whole.replace(before, f"{text}{before}"), encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    """Copy the package and its tests."""
    for name in ("fastconv", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def passed(copy, *arguments):
    command = [sys.executable, "-m", "pytest", "-n", "0", "-v", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def said(copy, code):
    done = subprocess.run([sys.executable, "-c", f"import fastconv as fc; {code}"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_operator_is_one_record_and_one_example(copy):
    definition, record, example = codes(section("An ONNX operator"))
    operators = copy / "fastconv" / "network" / "operators" / "tensors" / "shape.py"
    add(operators, "OPERATORS: tuple[", f"{definition}\n\n")
    add(operators, '    Operator("Identity",', textwrap.indent(record, "    "))
    add(copy / "tests" / "support" / "examples.py", '    "Identity":', textwrap.indent(example, "    "))
    output = passed(copy, "tests/network/test_operator_records.py", "-k", "HannWindow")
    for claim in ("standard", "inputs", "wide"):
        assert f"[HannWindow-{claim}] PASSED" in output


def test_a_published_point_set_is_two_lines(copy):
    source, points = codes(section("A published point set"))
    file = copy / "fastconv" / "algebra" / "points.json"
    add(file, '"fastconv": "measured by fastconv"', source)
    add(file, '["lavin2016", [1, 2], "0 1 -1"],', points)
    assert said(copy, "print(*fc.algorithm('F(4x4,3x3)', 'toy2026').points)") == "0 1/2 -1/2 2 -2 inf"
    assert "test_the_catalogue_is_whole PASSED" in passed(copy, "tests/algebra/test_toom_cook.py", "-k", "catalogue")


def test_a_number_format_is_one_line(copy):
    (line,) = codes(section("A number format"))
    add(copy / "fastconv" / "exact" / "formats.py", '        _ieee("tf32", 19, 8),', textwrap.indent(line, "        "))
    wide, narrow = (float(said(copy, f"print(fc.measure_error('F(2x2,3x3)', policy={name!r}).mean_abs)")) for name in ("fp24", "tf32"))
    assert wide == pytest.approx(narrow / 2**6, rel=0.1)  # 17 bits and 11
    assert "[fp24]" in passed(copy, "tests/exact/test_exact.py", "-k", "fp24")


def test_a_processor_is_one_entry(copy):
    (entry,) = codes(section("A processor"))
    add(copy / "fastconv" / "native" / "machine.py", '    "aarch64": (', textwrap.indent(entry, "    "))
    code = "from fastconv.native import machine_of; "
    code += "print([(m.vector_bytes, m.registers, m.fma) for m in (machine_of('riscv64-unknown-linux-gnu', 'x', f) for f in ('+v', ''))])"
    assert said(copy, code) == "[(16, 32, True), (16, 32, False)]"


def test_an_algorithm_family_is_a_module_and_an_entry(copy):
    module, entry = codes(section("An algorithm family"))
    (copy / "fastconv" / "algebra" / "pairs.py").write_text(module, encoding="utf-8")
    families = copy / "fastconv" / "algebra" / "families.py"
    add(families, "from fastconv.algebra.strided", "from fastconv.algebra.pairs import pairs\n")
    add(families, '    Family("complex points"', textwrap.indent(entry, "    "))
    add(copy / "tests" / "algebra" / "test_families.py", '"F(4x4,3x3)", ', '"F(2x2,3x3)/6", ')
    assert passed(copy, "tests/algebra/test_families.py").count("[F(2x2,3x3)/6] PASSED") == 3


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)#]+)", PAGE.read_text(encoding="utf-8")))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()

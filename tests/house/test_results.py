"""The pages of docs/results are what analysis/results.py writes from the stored measurements."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from support import ROOT

if not (ROOT / "figures" / "recorded.csv").exists():
    pytest.skip("the stored measurements are in the repository, not in the source distribution", allow_module_level=True)
sys.path.insert(0, str(ROOT / "analysis"))
import recorded
import results

PAGES = results.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_script_writes(name):
    assert (results.RESULTS / name).read_text(encoding="utf-8") == PAGES[name]


def test_no_page_is_left_without_a_script():
    assert {path.name for path in results.RESULTS.iterdir()} == set(PAGES)


def test_ranges():
    assert (results.span([9, 4, 6, 5]), results.span([])) == ("4 to 6, 9", "-")


def test_what_is_not_recorded_is_said(monkeypatch):
    row = {"file": "x.csv", "version": "1.0", "cpu": "", "date": "", "command": "python x.py"}
    monkeypatch.setattr(results, "recorded", lambda: {"x.csv": row})
    text = results.Page("Title", "About.", ("x.csv",), ()).text()
    assert "| `python x.py` | 1.0 | recorded before CPUs were kept | recorded before dates were kept |" in text


def test_a_measurement_is_recorded_with_version_cpu_date_and_command(tmp_path, monkeypatch):
    (tmp_path / "recorded.csv").write_text("file,version,cpu,date,command\nb.csv,1.0,,,python b.py\n", encoding="utf-8")
    monkeypatch.setattr(recorded, "FIGURES", tmp_path.resolve())
    monkeypatch.setattr(sys, "argv", [str(tmp_path.parent / "a.py"), "--n", "4"])
    recorded.record(tmp_path / "a.csv")
    recorded.record(Path("elsewhere.csv"))
    with (tmp_path / "recorded.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["file"], second) == ("a.csv", {"file": "b.csv", "version": "1.0", "cpu": "", "date": "", "command": "python b.py"})
    assert first["command"] == "python a.py --n 4"
    assert all(first.values())

"""Results of slow functions stay on disk: the same numbers, never of other arguments, and never from a damaged line."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from fastconv.native import remember
from fastconv.native.remember import remembered

CALLS: list[tuple[object, ...]] = []


def slow(*given: float) -> tuple[float, ...]:
    CALLS.append(given)
    return sum(given), math.inf, 0.1 + 0.2, *given


slow.__module__ = "fastconv.native.digests"  # a module of the package, whose sources name the file


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, and functions to begin and end a process."""
    CALLS.clear()
    monkeypatch.setattr(remember, "cache_folder", lambda: tmp_path / "cache")
    remember._known.cache_clear()
    yield tmp_path / "cache"
    remember._known.cache_clear()


def anew():
    remember._known.cache_clear()
    return remembered(slow)


def test_a_result_is_computed_once_for_all_processes(home):
    results = [anew()(1, 2.5), anew()(1, 2.5), anew()(1, 2.5)]
    assert CALLS == [(1, 2.5)]
    assert results == [(3.5, math.inf, 0.1 + 0.2, 1, 2.5)] * 3
    assert [type(number) for number in results[2]] == [float, float, float, int, float]


def test_arguments_are_told_apart(home):
    call = anew()
    for given in ((1,), (1.0,), (2,), (1, 2), (-0.0,), (0.0,)):
        assert call(*given)[0] == sum(given)
    assert len(CALLS) == 6


def test_a_damaged_line_is_computed_again(home):
    anew()(1)
    anew()(2)
    (place,) = (home / "choices").iterdir()
    lines = place.read_bytes().splitlines(keepends=True)
    for damaged in (lines[0] + lines[1][:-9], lines[0] + b'["x", 3]\n{}\n\xff\n[1]\n' + lines[1][:5], lines[0] + b'["a", ["b"]]\n'):
        place.write_bytes(damaged)
        CALLS.clear()
        call = anew()
        assert call(1)[0] == 1
        assert call(2)[0] == 2
        assert CALLS == [(2,)]


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_what_others_can_write_is_not_read(home):
    anew()(1)
    (place,) = (home / "choices").iterdir()
    place.chmod(0o666)
    with pytest.warns(RuntimeWarning, match="may be written by others"):
        assert anew()(1)[0] == 1
    assert CALLS == [(1,), (1,)]


def test_without_a_folder_nothing_is_kept(home, monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(remember, "write_own", refused)
    call = anew()
    assert call(1) == call(1)
    assert CALLS == [(1,)]
    assert not home.exists()


def test_processes_write_to_one_file(tmp_path):
    """Two processes choose for the same layers at once; a third reads what both wrote, and computes nothing."""
    code = (
        "from fastconv.kernels.choose import cut; from fastconv.kernels.choose.cut import Work\n"
        "for k in range(1, 9): print(cut.cut(Work(100 * k, 36, 64, 32, 64, 1, 4, 3.0, 3.0, 10), 2))\n"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    first, second = (one.communicate(timeout=120)[0] for one in both)
    places = list(tmp_path.rglob("*.jsonl"))
    sizes = [place.stat().st_size for place in places]
    third = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, check=True, timeout=120).stdout
    assert first == second == third
    assert b"Cut(" in first
    assert len(places) == 1
    assert sizes == [place.stat().st_size for place in places]

"""Object code on disk: cached, damaged, or in an unwritable folder; and the functions that compiled code may call."""

from __future__ import annotations

import ast
import ctypes
import importlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv.native import digests, lanes_of, link, load, machine
from fastconv.native import objects as store
from fastconv.native.source.emit import emitted

PROGRAM = "2|add 0 1 -;sub 0 1 -|2,3"
"""The sum and the difference of two inputs."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for object code, without the objects that other tests loaded."""
    monkeypatch.setattr(store, "folder", lambda: tmp_path / "kernels")
    monkeypatch.setattr(store, "_compiled", store._compiled.__wrapped__)
    loaders, make = [], link._loader.__wrapped__  # a loader knows each name once, and its code goes with it

    def another(here):
        loaders.append(make(here))
        return loaders[-1]

    monkeypatch.setattr(link, "_loader", another)
    yield tmp_path / "kernels"
    assert loaders


def sums_of(step):
    """Run the compiled program on eight pairs."""
    x = np.arange(2 * 16, dtype=np.float32).reshape(2, 16)
    y, none = np.zeros_like(x), np.zeros(1, np.float32)
    lanes = lanes_of("f4")
    row = x.strides[0]
    step.ctypes(x.ctypes.data, row, 0, lanes * 4, y.ctypes.data, row, 0, lanes * 4, 1, 16 // lanes, none.ctypes.data)
    return np.array_equal(y, [x[0] + x[1], x[0] - x[1]])


def test_code_is_written_once_and_read_again(folder, monkeypatch):
    first = store.compiled("kernels.steps.transform", "f4", PROGRAM)
    assert sums_of(first)
    (path,) = folder.iterdir()
    assert path.name == f"{first.name}.o"
    monkeypatch.setattr("fastconv.native.source.emit.emitted", lambda *_: pytest.fail("compiled again"))
    again = store.compiled("kernels.steps.transform", "f4", PROGRAM)
    assert again.name == first.name
    assert again.address != first.address
    assert sums_of(again)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1], lambda b: b[:-9] + b"x" + b[-8:], lambda b: b"x" + b[1:]])
def test_damaged_code_is_not_run_but_made_again(folder, damage):
    store.compiled("kernels.steps.transform", "f4", PROGRAM)
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert store._read(path) is None
    assert sums_of(store.compiled("kernels.steps.transform", "f4", PROGRAM))
    assert store._read(path) is not None


def test_a_folder_that_cannot_be_written_keeps_nothing(folder):
    folder.write_text("a file where the folder would be")
    assert sums_of(store.compiled("kernels.steps.transform", "f4", PROGRAM))
    assert folder.is_file()


def test_another_machine_or_parameter_has_another_name(monkeypatch):
    here = machine()
    names = {digests.digest_of("native", "a", 1), digests.digest_of("native", "a", 2), digests.digest_of("native", "b", 1)}
    for other in (replace(here, vector_bytes=8), replace(here, fma=not here.fma), replace(here, cpu="another"), replace(here, line=256)):
        monkeypatch.setattr(digests, "machine", lambda other=other: other)
        digests._compiler.cache_clear()
        names.add(digests.digest_of("native", "a", 1))
    digests._compiler.cache_clear()
    assert len(names) == 7


CALLED = """from fastconv.native.source import jit


@jit
def called(x):
    return x + {added}
"""
CALLER = """from fastconv.called import called
from fastconv.native.source import jit


@jit
def caller(x):
    return 10 * called(x)
"""


def test_functions_that_numba_keeps_are_compiled_again_when_one_that_they_call_changes(tmp_path, monkeypatch):
    shutil.copytree(digests._PACKAGE / "native", tmp_path / "native", ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(digests, "_PACKAGE", tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(fastconv, "__path__", [*fastconv.__path__, str(tmp_path)])
    (tmp_path / "caller.py").write_text(CALLER)
    results, found = [], []
    for added in (1, 1, 5):
        (tmp_path / "called.py").write_text(CALLED.format(added=added))
        for name in ("caller", "called"):
            monkeypatch.delitem(sys.modules, f"fastconv.{name}", raising=False)
        importlib.invalidate_caches()
        digests._digest.cache_clear()
        function = importlib.import_module("fastconv.caller").caller
        results.append(function(1))
        found.append(sum(function.stats.cache_hits.values()))
        monkeypatch.delattr(fastconv, "caller", raising=False)
        monkeypatch.delattr(fastconv, "called", raising=False)
    digests._digest.cache_clear()
    assert results == [20, 20, 60]
    assert found == [0, 1, 0]


SOURCES = sorted(path.stem for path in (digests._PACKAGE / "kernels" / "source").glob("*.py") if path.stem != "__init__")


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Return the sources of kernels whose digests change when a line is added to a file, in a copy of the package."""
    shutil.copytree(digests._PACKAGE, tmp_path / "fastconv", ignore=shutil.ignore_patterns("*.pyc", "data"))
    monkeypatch.setattr(digests, "_PACKAGE", tmp_path / "fastconv")

    def named():
        digests._digest.cache_clear()
        return {name: digests.digest_of(f"kernels.source.{name}") for name in SOURCES}

    before = named()

    def edit(name):
        path = tmp_path / "fastconv" / name
        text = path.read_text(encoding="utf-8")
        path.write_text(text + "# another line\n", encoding="utf-8")
        after = named()
        path.write_text(text, encoding="utf-8")
        return {name for name in SOURCES if after[name] != before[name]}

    yield edit
    assert named() == before
    digests._digest.cache_clear()


def test_names_change_with_what_code_is_made_from(edited):
    users = {"pool": {"pool"}, "programs": {"programs", "steps", "phases"}}
    assert {name: edited(f"kernels/source/{name}.py") for name in users} == users
    assert {"engine", "pool"} < edited("kernels/source/engine.py") < {*SOURCES}
    assert edited("program/ir.py") == {"programs", "steps", "phases"}
    for name in ("native/source/emit.py", "native/threads.py", "native/records.py"):
        assert edited(name) == {*SOURCES}
    for name in ("kernels/choose/cut.py", "kernels/runners/blocked.py", "kernels/pool.py", "exact/formats.py"):
        assert edited(name) == set()


@pytest.mark.parametrize("source", SOURCES)
def test_names_change_with_all_that_a_source_loads(source, edited):
    """A new process loads the source, from a package whose `__init__` contains only a docstring."""
    assert len(ast.parse((digests._PACKAGE / "kernels/source/__init__.py").read_text(encoding="utf-8")).body) == 1
    script = (
        f"import sys, fastconv.kernels.source.{source}\nprint(*(m.__file__ for n, m in sys.modules.items() if n.startswith('fastconv')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    package = Path(store.__file__).parents[1]
    loaded = {Path(file).relative_to(package).as_posix() for file in done.stdout.split()} - {"kernels/source/__init__.py"}
    made_from = {name for name in loaded if name.startswith(("kernels/source/", "kernels/records", "native/"))}
    assert {f"kernels/source/{source}.py", "native/source/emit.py", "native/machine.py"} <= made_from
    assert {name for name in made_from if source not in edited(name)} == set()


def test_functions_of_integers_take_what_they_are_given(folder):
    def swapped(a, b, c):
        from_, to = (a, b) if c else (b, a)
        store_(to, load_(from_))

    from fastconv.native.source.members import load as load_
    from fastconv.native.source.members import store as store_

    code = emitted("swapped_of_a_test", swapped)
    assert code[0] == 3
    address = load("swapped_of_a_test", code[1:])
    values = np.array([5, 7])
    at = values.ctypes.data
    ctypes.CFUNCTYPE(None, *[ctypes.c_ssize_t] * 3)(address)(at, at + 8, 1)
    assert values.tolist() == [5, 5]


def test_what_calls_into_python_is_refused():
    def printed(a):
        print(a)

    with pytest.raises(RuntimeError, match="kernel printed_of_a_test calls .*Py"):
        emitted("printed_of_a_test", printed)


FAR_APART = """
import numpy as np
import fastconv as fc

x, w = np.ones((1, 8, 16, 16), np.float32), np.ones((8, 8, 3, 3), np.float32)
try:
    held = np.zeros({size}, np.float32)
except MemoryError:  # a system that promises no more than it has
    held = None
first = fc.conv2d(x, w, algorithm="direct")
del held
print(first[0, 0, 0, 0], fc.conv2d(x, w, algorithm="F(2x2,3x3)")[0, 0, 0, 0])
"""


@pytest.mark.parametrize("gibibytes", [0, 2, 3, 5])
def test_objects_load_where_free_memory_lies_more_than_two_gibibytes_apart(gibibytes):
    """Code and constants so far apart make LLVM's loader abort the process. The mappings are never touched and use no memory."""
    script = FAR_APART.format(size=gibibytes * 2**28)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["72.0", "72.0"]), done.stderr

"""Object code on disk: found again, damaged, nowhere to be kept; and what compiled code may call."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from fastconv.native import lanes_of, link, load, machine
from fastconv.native import objects as store
from fastconv.native.source.emit import emitted

PROGRAM = "2|add 0 1 -;sub 0 1 -|2,3"
"""The sum and the difference of two inputs."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for object code; what other tests have loaded is not looked at."""
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
    names = {store.digest_of("a", 1), store.digest_of("a", 2), store.digest_of("b", 1)}
    for other in (replace(here, vector_bytes=8), replace(here, fma=not here.fma), replace(here, cpu="another"), replace(here, line=256)):
        monkeypatch.setattr(store, "machine", lambda other=other: other)
        store._stamp.cache_clear()
        names.add(store.digest_of("a", 1))
    store._stamp.cache_clear()
    assert len(names) == 7


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

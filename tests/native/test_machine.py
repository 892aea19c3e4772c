"""The record of the machine, files that only this user can write, and the undefined symbols of object code."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from llvmlite import binding

from fastconv.native import (
    COUNTER,
    ROOM,
    Compiled,
    Job,
    Machine,
    described,
    lanes_of,
    link,
    load,
    machine,
    machine_of,
    read_own,
    record,
    target_machine,
    threads,
    undefined,
    write_own,
)
from fastconv.native import machine as of_this_process

LINUX, DARWIN, WINDOWS = "x86_64-unknown-linux-gnu", "x86_64-apple-darwin", "x86_64-pc-windows-msvc-elf"
CODE = """
declare void @{name}(i64)
define void @{function}(i64 %a) {{
  call void @{name}(i64 %a)
  ret void
}}
"""
CODE += ROOM.format("{function}")


def compiled(triple, function, name):
    here = machine_of(triple, "", "")
    target = target_machine(here)
    module = binding.parse_assembly(CODE.format(function=function, name=name))
    module.triple, module.data_layout = triple, str(target.target_data)
    return here, target.emit_object(module)


@pytest.mark.parametrize(
    ("triple", "features", "expected"),
    [
        (LINUX, "", (16, 16, False)),
        (LINUX, "+avx,+avx2", (32, 16, False)),
        (LINUX, "+avx,+avx2,+fma", (32, 16, True)),
        (LINUX, "+avx2,+fma,+avx512f,+avx512vl", (64, 32, True)),
        ("aarch64-unknown-linux-gnu", "", (16, 32, True)),
        ("arm64-apple-darwin", "+neon", (16, 32, True)),
    ],
)
def test_vectors_registers_and_fused_multiply_add_of_processors(triple, features, expected):
    made = machine_of(triple, "any", features)
    assert (made.vector_bytes, made.registers, made.fma) == expected
    assert made.line == (128 if "darwin" in triple and "arm" in triple else machine().line)


def test_architecture_and_system_come_from_the_triple():
    found = [(machine_of(triple, "", "").architecture, machine_of(triple, "", "").system) for triple in (LINUX, DARWIN, WINDOWS)]
    assert found == [("x86_64", "linux"), ("x86_64", "darwin"), ("x86_64", "windows")]
    assert machine_of("arm64-apple-darwin", "", "").architecture == "aarch64"


def test_the_record_says_what_the_system_tells():
    here = of_this_process()
    assert here.line >= 64
    assert here.line & (here.line - 1) == 0
    assert here.l1 == 0 or 8 << 10 <= here.l1 <= here.l2
    assert here.model
    assert f"vectors of {here.vector_bytes} bytes" in str(here)
    assert lanes_of("f4") == here.vector_bytes // 4
    assert lanes_of("f8") == here.vector_bytes // 8


def said_by(text, **settings):
    code = "from fastconv.native import machine; print(repr(machine()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"FASTCONV_MACHINE": text} | settings, capture_output=True, text=True
    )
    return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


def test_fields_are_replaced():
    made, _ = said_by("vector_bytes=16 fma=0 line=256 registers=8 l2=1024")
    assert "vector_bytes=16, registers=8, fma=False, line=256" in made
    assert "l2=1024" in made
    made, _ = said_by("triple=x86_64-pc-windows-msvc cpu=haswell")
    assert "triple='x86_64-pc-windows-msvc-elf', cpu='haswell', features=''" in made
    made, _ = said_by("", NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+avx2")
    assert "cpu='x86-64', features='+avx2'" in made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vector=16", "FASTCONV_MACHINE says 'vector=16': give FIELD=VALUE, separated by blanks, with the fields triple, cpu"),
        ("fma", "FASTCONV_MACHINE says 'fma': give FIELD=VALUE"),
        ("vector_bytes=24", "FASTCONV_MACHINE says vector_bytes=24: a vector has 16, 32 or 64 bytes"),
        ("vector_bytes=wide", "FASTCONV_MACHINE says 'vector_bytes=wide': vector_bytes is a whole number"),
        ("line=96", "FASTCONV_MACHINE says line=96: a cache line is a power of two of at least 64 bytes"),
    ],
)
def test_what_is_no_field_is_refused(text, message):
    assert message in said_by(text)[1]


@pytest.mark.parametrize("triple", [LINUX, DARWIN, WINDOWS, "aarch64-unknown-linux-gnu", "arm64-apple-darwin"])
def test_names_that_an_object_takes_from_outside(triple):
    assert undefined(compiled(triple, "calls_of_a_test", "abs_of_nobody")[1]) == {"abs_of_nobody"}


@pytest.mark.parametrize("damage", [lambda code: b"MZ" + code, lambda code: b"", lambda code: code[:80], lambda code: code[:16]])
@pytest.mark.parametrize("triple", [LINUX, DARWIN])
def test_what_is_no_object_is_refused(triple, damage):
    with pytest.raises(ValueError, match="object code (begins with|is cut short)"):
        undefined(damage(compiled(triple, "cut_of_a_test", "abs")[1]))


def test_a_missing_name_is_an_error_before_anything_is_loaded(monkeypatch):
    own = machine()
    _, code = compiled(own.triple, "missing_of_a_test", "abs_of_nobody")
    loader = link._loader(own)
    monkeypatch.setattr(loader, "add_object_file", lambda _: pytest.fail("loaded"))
    with pytest.raises(RuntimeError, match="compiled code missing_of_a_test calls abs_of_nobody, which this process does not have"):
        load("missing_of_a_test", code)


def test_a_name_of_the_process_is_found():
    assert load("found_of_a_test", compiled(machine().triple, "found_of_a_test", "free")[1])


def test_the_record_is_frozen():
    with pytest.raises(AttributeError):
        machine().fma = True
    assert isinstance(hash(machine()), int)
    assert isinstance(machine(), Machine)


posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system keeps users apart by itself")


@posix
def test_files_are_for_this_user_alone(tmp_path):
    place = tmp_path / "new" / "newer" / "file"
    before = os.umask(0)
    try:
        write_own(place, b"one")
        write_own(place, b"two")
    finally:
        os.umask(before)
    assert read_own(place) == b"two"
    assert [part.stat().st_mode & 0o777 for part in (place, place.parent, place.parent.parent)] == [0o600, 0o700, 0o700]
    assert [other.name for other in place.parent.iterdir()] == ["file"]


def refused(place, because):
    with pytest.warns(RuntimeWarning, match=because):
        assert read_own(place) is None


@posix
def test_what_others_may_write_is_neither_read_nor_written(tmp_path):
    place = tmp_path / "kept" / "file"
    write_own(place, b"code")
    place.chmod(0o620)
    refused(place, r"file may be written by others \(mode 620\)")
    place.chmod(0o600)
    place.parent.chmod(0o777)
    refused(place, "kept may be written by others")
    with pytest.warns(RuntimeWarning, match="kept may be written"), pytest.raises(PermissionError, match="is not this user's alone"):
        write_own(place, b"other")
    place.parent.chmod(0o700)
    assert read_own(place) == b"code"


@posix
def test_links_are_not_followed(tmp_path):
    place = tmp_path / "kept" / "file"
    write_own(place, b"code")
    (tmp_path / "kept" / "link").symlink_to(place)
    (tmp_path / "folder").symlink_to(place.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_own(tmp_path / "kept" / "link") is None
        assert read_own(tmp_path / "folder" / "file") is None
    with pytest.warns(RuntimeWarning, match="folder is a link"), pytest.raises(PermissionError):
        write_own(tmp_path / "folder" / "another", b"code")
    assert not (place.parent / "another").exists()


@posix
def test_what_another_user_owns_is_refused(tmp_path, monkeypatch):
    place = tmp_path / "kept" / "file"
    write_own(place, b"code")
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    refused(place, f"kept belongs to user {other - 1}")


def test_what_is_missing_is_none(tmp_path):
    assert read_own(tmp_path / "nothing") is None
    assert read_own(tmp_path / "no folder" / "nothing") is None


def test_a_record_takes_one_value_for_each_of_its_names():
    layout = record("rows", "columns", "adds")
    made = described(layout, adds=True, columns=3, rows=2)
    assert np.frombuffer(made.tobytes(), np.int64).tolist() == [2, 3, 1]
    assert made["columns"] == 3
    with pytest.raises(TypeError, match="the record lacks columns, rows: pass one value for each of rows, columns, adds"):
        described(layout, adds=0)
    with pytest.raises(TypeError, match="the record has no widths: pass one value for each of rows, columns, adds"):
        described(layout, rows=2, columns=3, adds=0, widths=1)


def test_words_of_a_job_are_in_the_order_of_its_record():
    x, u, description = (np.zeros(1) for _ in range(3))
    job = Job(Compiled("nothing", 5, 8), description, 7, (x, u, None, x), members=1, each=64)
    told = np.array(job.words(1024)).view(threads.JOB)[0]
    at, weights = x.ctypes.data, u.ctypes.data
    given = {"function": 5, "members": 1, "each": 64, "description": description.ctypes.data, "counter": 1024, "items": 7}
    given |= {"x": at, "u": weights, "bias": 0, "y": at, "workspace": 1024 + COUNTER}
    assert dict(zip(threads.JOB.names, told.item(), strict=True)) == given

"""Run the demosaicking and waifu2x networks on images of 128 to 4096 pixels a side, in fastconv and in onnxruntime.

    python benchmarks/large_images.py [--sides 128 256 512 1024 2048 4096] [--only REGEX]

Each run is a separate process, limited to the free memory of the machine by its address space. "fastconv" has a memory limit
of 1.75 GiB, which keeps the process within 2 GiB, and runs in strips where the whole needs more; "fastconv, whole" has none.
The time is the least of up to three calls after the first, within `SECONDS`; the memory is the largest resident set. "counted"
is what fastconv counts before the run, "strips" the number of strips, 1 for the whole. Writes figures/large_images.csv, where a
run of some sides or networks replaces their rows.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import contest
import numpy as np

from fastconv.native import free_memory
from fastconv.network.large import LargeRunner
from fastconv.network.zoo import demosaic, fetch, torch_file, waifu2x

FIGURES = Path(__file__).parent.parent / "figures"
LIMIT, NONE = 7 << 28, 1 << 50
"""Bytes: 2 GiB less a quarter for the interpreter, libraries, weights and compiled code, 180 to 240 MB; and more than there are."""

RUNNERS = {"fastconv": LIMIT, "fastconv, whole": NONE, "onnxruntime": NONE}
NETWORKS = ("demosaic", "waifu2x-vgg7", "waifu2x-resnet10")
SIDES = (128, 256, 512, 1024, 2048, 4096)
CALLS, SECONDS = 3, 20.0
LONGEST = 1800
"""Seconds of both processors together after which a run is given up: a machine that is shared may pause it for any time."""


def model(name: str) -> bytes:
    """Return a network as an ONNX file."""
    if name == "demosaic":
        found = demosaic.model(torch_file.read_tensors(fetch.fetch(demosaic.WEIGHTS)))
    else:
        which = name.removeprefix("waifu2x-")
        with np.load(io.BytesIO(fetch.fetch(waifu2x.WEIGHTS[which])), allow_pickle=False) as stored:
            tensors = {key: stored[key] for key in stored.files}
        found = {"vgg7": waifu2x.vgg7, "resnet10": waifu2x.resnet10}[which](tensors)
    return bytes(found.SerializeToString())


def opened(which: str, data: bytes, x: np.ndarray) -> tuple[Callable[[np.ndarray], Any], dict[str, Any]]:
    """Return a network ready to call, and what fastconv counts for an image."""
    if which == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0].name
        return lambda x: session.run(None, {given: x})[0], {"counted": "", "strips": ""}
    import fastconv

    net = fastconv.load_onnx(data, memory_limit=RUNNERS[which])
    runner = net.prepare(threads=2)
    assert isinstance(runner, LargeRunner)
    need, strips = runner.needs(x)
    counted = {"counted": need.total, "strips": strips}
    return lambda x: net.run({net.inputs[0].name: x}, threads=2)[net.outputs[0].name], counted


def work(name: str, runner: str, side: int, room: int) -> None:
    """Run one network, and print what was measured."""
    data = model(name)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
    x = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    call, counted = opened(runner, data, x)
    begun = time.perf_counter()
    y = call(x)
    first, times = time.perf_counter() - begun, []
    while len(times) < CALLS and sum(times) < SECONDS:
        del y
        begun = time.perf_counter()
        y = call(x)
        times.append(time.perf_counter() - begun)
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert peak is not None
    digest = hashlib.sha256(np.ascontiguousarray(y).tobytes()).hexdigest()[:12]
    print(json.dumps({"first": first, "seconds": min(times), "bytes": int(peak[1]) << 10, "digest": digest} | counted))


def measured(name: str, runner: str, side: int, room: int) -> dict[str, Any]:
    """Return one row of the table, without numbers if the run does not fit."""
    command = [sys.executable, __file__, "--work", name, runner, str(side), str(room)]
    row: dict[str, Any] = {"network": name, "runner": runner, "side": side, "room": room}
    without = dict.fromkeys(("first", "seconds", "bytes", "digest", "counted", "strips"), "")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return row | without | {"refused": "killed" if done.returncode == -signal.SIGKILL else f"more than {LONGEST} s of processors"}
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]
        short = "does not fit" if re.search("alloc|memory|Memory", said) else said[:80]
        return row | without | {"refused": short}
    found = json.loads(done.stdout)
    return row | found | {"first": round(found["first"], 4), "seconds": round(found["seconds"], 4), "refused": ""}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--only", default="", help="regular expression that the name of a network has to match")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        name, runner, side, room = given.work
        return work(name, runner, int(side), int(room))
    room = free_memory()
    assert room is not None, "the system does not tell its free memory"
    rows = []
    for name in NETWORKS:
        for side in given.sides if re.search(given.only, name) else ():
            for runner in RUNNERS:
                rows.append(measured(name, runner, side, room))
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "room"), flush=True)
    contest.write_rows(FIGURES / "large_images.csv", joined(stored(), rows))


def stored() -> list[dict[str, Any]]:
    """Return the rows measured before."""
    path = FIGURES / "large_images.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def joined(before: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in order; those measured again replace those before."""
    found = {(row["network"], row["runner"], int(row["side"])): row for row in (*before, *rows)}
    order = [(name, runner, side) for name in NETWORKS for side in SIDES for runner in RUNNERS]
    return [found[key] for key in order if key in found]


if __name__ == "__main__":
    main()

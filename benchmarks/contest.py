"""Time contenders against each other, each in a separate process, in rotating order.

Two OpenMP runtimes in one process slow each other down. So every contender is a process that prepares its calls and is
stopped until its turn. A turn is a warm-up, then at least 0.1 s and four calls; its value is the median call. Before and after
each turn, a probe of the multiply-add rate records the state of the machine. A call may have an attribute ``about``, a function
that returns facts in JSON. If these contain ``bytes``, each turn ends with a probe that copies that many bytes. A contender may
run in another Python, which needs only the peer and numpy.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]
Maker = Callable[[Any, int], Call]
"""Maps a case and a number of threads to a call that computes it and returns the output as an array."""


BEFORE = ", before"
"""Suffix of the contender name of an earlier fastconv."""


class RefusedError(Exception):
    """A contender cannot do a case; the text says why."""


@dataclass
class Turns:
    """Measurements of one contender on one case: seconds, machine rates of each turn, peak memory, facts."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    bandwidths: list[float] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    error: float = float("nan")
    refused: str = ""
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        """The median of the turns, in seconds."""
        return statistics.median(self.seconds) if self.seconds else float("inf")


def median_call(call: Call, least: float = 0.1, fewest: int = 4) -> float:
    """Return the median time of a call after a warm-up, over at least `fewest` calls and `least` seconds."""
    call()
    times: list[float] = []
    while len(times) < fewest or sum(times) < least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def serve(makers: Mapping[str, Maker], cases: Mapping[str, Any], name: str, threads: int) -> None:
    """Answer requests for one contender, one JSON line each, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep the output of libraries out of the answers
    calls: dict[str, Call] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        try:
            if request["what"] == "probe":
                answer = multiply_add_rate(threads)
            elif request["what"] == "bandwidth":
                answer = copy_rate(int(request["case"]), threads)
            elif request["what"] == "memory":
                answer = peak_bytes()
            elif request["what"] == "about":
                answer = getattr(calls[request["case"]], "about", dict)()
            elif request["what"] == "drop":
                answer = calls.pop(request["case"], None) is not None
            else:
                case = request["case"]
                if case not in calls:
                    calls[case] = makers[name](cases[case], threads)
                answer = median_call(calls[case]) if request["what"] == "time" else save(calls[case](), request["what"])
        except Exception as error:  # a peer may fail in any way: report its message and continue
            answer = {"refused": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(answer), file=answers, flush=True)


def save(output: Any, path: str) -> bool:
    """Save an output to the requested path."""
    np.save(path, np.asarray(output))
    return True


def peak_bytes() -> int:
    """Return the most memory that this process has held; getrusage would count that of the parent at the fork."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def calls_a_second(make: Callable[[], Call], threads: int, least: float = 0.015) -> float:
    """Return the calls per second of `threads` threads together, each with its own call from `make`.

    It uses the median call of each thread, so that a late start or a lost core does not distort the rate.
    """
    from concurrent.futures import ThreadPoolExecutor

    start = threading.Barrier(threads)

    def one(_: int) -> float:
        call, times = make(), []
        call()
        start.wait()
        end = time.perf_counter() + least
        while (before := time.perf_counter()) < end:
            call()
            times.append(time.perf_counter() - before)
        return 1 / statistics.median(times)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, range(threads)))


def multiply_add_rate(threads: int) -> float:
    """Return GFLOP/s of our inner product on panels that stay in the caches."""
    from fastconv.kernels.choose.cut import tile_panel
    from fastconv.native import lanes_of
    from fastconv.native.objects import compiled

    (mr, nv), lanes, depth, products = tile_panel(), lanes_of("f4"), 256, 256  # long enough to hide the GIL
    multiply = compiled("kernels.steps.product", "f4", mr, nv, 0).ctypes

    def make() -> Call:
        arrays = [np.zeros(size, np.float32) for size in (products * depth * mr, depth * nv * lanes, mr * nv * lanes)]
        a, b, c = (array.ctypes.data for array in arrays)
        arguments = (products, 1, 0, nv * lanes, depth, depth, a, b, 0, nv * lanes * 4, c, 0, nv * lanes * 4)
        return lambda kept=arrays: multiply(*arguments)

    return 2 * mr * nv * lanes * depth * products * calls_a_second(make, threads) / 1e9


def copy_rate(size: int, threads: int) -> float:
    """Return GB/s, read plus written, of copying one half of `size` bytes to the other half.

    Each thread copies its share repeatedly. Like a layer's bytes, these are read and written, and may stay cached.
    """
    half = max(size // (2 * threads), 1 << 16)

    def make() -> Call:
        source, target = np.ones(half, np.uint8), np.zeros(half, np.uint8)
        return lambda: np.copyto(target, source)

    return 2 * half * calls_a_second(make, threads) / 1e9


@contextmanager
def contender(python: str, script: Path, name: str, threads: int) -> Iterator[Callable[..., Any]]:
    """Start a contender and yield the function that sends it requests."""
    command = [python, str(script), "--serve", name, "--threads", str(threads)]
    pinned = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    quiet = {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | pinned | quiet
    ) as child:

        def ask(what: str, case: str = "") -> Any:
            assert child.stdin is not None
            assert child.stdout is not None
            child.send_signal(signal.SIGCONT)
            try:
                child.stdin.write(json.dumps({"what": what, "case": case}) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
            except BrokenPipeError:
                line = ""
            # Its turn is over: idle threads of some libraries spin without end.
            child.send_signal(signal.SIGSTOP)
            if not line:
                raise RefusedError(f"the process of {name} ended")
            answer = json.loads(line)
            if isinstance(answer, dict) and "refused" in answer:
                raise RefusedError(answer["refused"])
            return answer

        try:
            yield ask
        finally:
            child.send_signal(signal.SIGCONT)


def found(pythons: Sequence[str], script: Path) -> dict[str, tuple[str, str]]:
    """Return interpreter and version of each contender of `script`; the first Python that has it counts."""
    where: dict[str, tuple[str, str]] = {}
    for python in pythons:
        answer = subprocess.run([python, str(script), "--list"], capture_output=True, text=True, check=True).stdout
        for name, release in json.loads(answer).items():
            where.setdefault(name, (python, release))
    return where


def arguments(doc: str, what: str, cases: Sequence[str], makers: Sequence[str], turns: int) -> argparse.ArgumentParser:
    """Return the parser of a contest's command line; `what` names the option for the cases."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=[], metavar="PYTHON", help="interpreters with peers installed")
    parser.add_argument("--before", metavar="PYTHON", help="an interpreter with an earlier fastconv, which also runs")
    parser.add_argument(f"--{what}", dest="cases", nargs="+", default=list(cases), choices=cases, metavar="NAME", help=", ".join(cases))
    names = [*makers, f"{makers[0]}{BEFORE}"]
    parser.add_argument("--contenders", nargs="+", choices=names, metavar="NAME", help="by default, fastconv and all peers found")
    parser.add_argument("--turns", type=int, default=turns)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--csv", type=Path, help=f"by default, figures/{what}_THREADS.csv if all {what} ran against all peers")
    parser.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    return parser


def held(mine: Iterable[str], peers: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    """Return the versions of the contenders in this Python: ours and the peers (name to package and maker)."""
    packages = dict.fromkeys(mine, "fastconv") | {name: package for name, (package, _) in peers.items()}
    versions = {}
    for name, package in packages.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def entered(
    parser: argparse.ArgumentParser,
    script: Path,
    mine: Mapping[str, Maker],
    peers: Mapping[str, tuple[str, Maker]],
    cases: Callable[[], Any],
    shown: Sequence[str] = (),
) -> tuple[argparse.Namespace, dict[str, str]] | None:
    """Read the command line; return the options and the Python of each contender to run.

    By default, our contenders in `shown`, or the first, run, and the first one of an earlier fastconv if given. In a process that
    `contender` or `found` started, serve `cases` or list the contenders, and return None.
    """
    options = parser.parse_args()
    first = next(iter(mine))
    mine = {**mine, f"{first}{BEFORE}": mine[first]}
    if options.list:
        print(json.dumps(held(mine, peers)))
        return None
    if options.serve:
        serve({**mine, **{name: maker for name, (_, maker) in peers.items()}}, cases(), options.serve, options.threads)
        return None
    where = found([sys.executable, *options.python], script)
    where.pop(f"{first}{BEFORE}", None)
    if options.before:
        if (earlier := found([options.before], script).get(first)) is None:
            parser.error(f"--before {options.before} has no fastconv installed")
        where[f"{first}{BEFORE}"] = earlier
        shown = [*(shown or [first]), f"{first}{BEFORE}"]
    names = options.contenders or [*(shown or list(mine)[:1]), *(name for name in peers if name in where)]
    if missing := [name for name in names if name not in where]:
        parser.error(f"no given Python has {', '.join(missing)}")
    if not options.json:
        print("versions:", ", ".join(f"{name} {where[name][1]}" for name in names), flush=True)
    return options, {name: where[name][0] for name in names}


def contest(
    script: Path,
    contenders: Mapping[str, str],
    cases: Sequence[str],
    turns: int,
    threads: int,
    truth: Callable[[str], np.ndarray],
    report: Callable[[str, dict[str, Turns]], None],
) -> dict[str, dict[str, Turns]]:
    """Run all turns and return the measurements by case and contender.

    Parameters
    ----------
    script : Path
        Script that serves contenders: ``script --serve NAME --threads N``.
    contenders : mapping
        Name to the Python that runs it; the first name also serves the probe.
    cases : sequence
        Names of the cases.
    turns, threads : int
        Turns of each contender on each case; threads of each contender.
    truth : callable
        The right output of a case.
    """
    results: dict[str, dict[str, Turns]] = {}
    names = list(contenders)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ask = {name: stack.enter_context(contender(python, script, name, threads)) for name, python in contenders.items()}
        probe = stack.enter_context(contender(contenders[names[0]], script, names[0], threads))
        probe("probe")
        for case in cases:
            here = results[case] = {name: Turns() for name in names}
            right = truth(case)
            for name in names:
                try:
                    ask[name](str(scratch / "output.npy"), case)
                    here[name].error = relative_l2(np.load(scratch / "output.npy"), right)
                    here[name].about = ask[name]("about", case)
                except RefusedError as reason:
                    here[name].refused = str(reason)
            runs = [name for name in names if not here[name].refused]
            for turn in range(turns):
                for k in range(len(runs)):
                    name = runs[(turn + k) % len(runs)]
                    before = probe("probe")
                    here[name].seconds.append(ask[name]("time", case))
                    here[name].rates.append(min(before, probe("probe")))
                    if "bytes" in here[name].about:
                        here[name].bandwidths.append(probe("bandwidth", str(here[name].about["bytes"])))
            for name in runs:
                here[name].peak_bytes = ask[name]("memory")
                ask[name]("drop", case)
            report(case, here)
    return results


def relative_l2(y: np.ndarray, truth: np.ndarray) -> float:
    """Return the relative L2 norm of the difference; raise ValueError for another size."""
    if y.size != truth.size:
        raise ValueError(f"an output of shape {y.shape} where {truth.shape} is right")
    return float(np.linalg.norm(y.reshape(truth.shape) - truth) / np.linalg.norm(truth))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return exp(sum(map(log, values)) / len(values))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically, and record their origin."""
    sys.path.append(str(Path(__file__).parent.parent / "analysis"))
    from recorded import record

    from fastconv.files import replacing

    with replacing(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    record(path)

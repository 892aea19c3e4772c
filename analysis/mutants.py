"""Plant small bugs, one at a time, and count those that the tests catch: ``python analysis/mutants.py --count 150 --seed 2``.

A draw is uniform over all places of `fastconv` where one of the changes below can be made: operators, comparisons, conditions,
constants, ``min`` and ``max``, ``abs``, swapped arguments. Changes without effect are excluded: the order of the arguments of
sums and products, and ``zip(strict=True)``, an assertion. The suite runs once under coverage, which records the tests that reach
each line (``pip install pytest-cov pytest-timeout``). Each change is planted into a copy of the tree, and the tests that reach it
run, fast ones first, until one fails. The tests of its package run too if coverage is incomplete (import time, other processes,
cached results) or records only the compilation of a line. A test that hangs has failed. A change that no test catches in time is
not caught. Results are appended to a log, and a repeated run resumes from it. Run it by hand, not in CI.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent.json")
PACKAGE = ROOT / "fastconv"
TESTS = {
    "algebra": ["exact"],
    "program": ["algebra", "error"],
    "arithmetic": ["exact", "error", "network/test_policies.py"],
    "error": ["algebra/test_guards.py"],
    "search": ["error/test_predict_lanes.py"],
    "torch": ["with_torch"],
    "native": ["kernels/test_layers.py"],
    "kernels": ["native", "algebra/test_guards.py"],
    "files": ["native"],
    "tables": ["cli"],
    "plot": ["cli"],
    "cli": ["house/test_readme.py", "tables"],
    "__init__.py": ["house", "cli"],
}
"""Tests of each package other than the folder of its name and its doctests."""
APART = {"kernels/test_machines.py", "kernels/test_targets.py"}
COMPILED = tuple(f"fastconv/{folder}/" for folder in ("kernels", "native", "error/predict/compiled", "search/limit"))
"""Code that runs while it is compiled: only the first test that needs it compiles it."""
FEW = 20
"""Number of tests at which coverage is complete: a function with cached results runs only in the first test."""
SECONDS = 300
"""Seconds of tests per change: later tests do not run."""
HANGS = 120
"""Seconds after which a test counts as hanging, and fails."""

_BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
_COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMMUTATIVE = frozenset(
    "add mul fadd fmul and_ or_ xor maximum minimum multiply logical_and logical_or equal not_equal gcd lcm hypot broadcast_shapes".split()
)


class Change(NamedTuple):
    """A place in a file, its text and the replacement."""

    file: str
    line: int
    column: int
    before: str
    after: str

    @property
    def text(self) -> str:
        """The unchanged line."""
        return (ROOT / self.file).read_text(encoding="utf-8").splitlines()[self.line - 1].strip()

    def planted(self, text: str) -> str:
        """Return the file's text with the change."""
        lines = text.splitlines(keepends=True)
        start = sum(map(len, lines[: self.line - 1])) + len(lines[self.line - 1].encode()[: self.column].decode())
        assert text.startswith(self.before, start), self
        return text[:start] + self.after + text[start + len(self.before) :]


def changes(path: Path) -> Iterator[Change]:
    """Yield every possible change to a module, except in annotations, texts and code for type checkers."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in _code(ast.parse(text)):
        if node.lineno != node.end_lineno:
            continue
        before = lines[node.lineno - 1].encode()[node.col_offset : node.end_col_offset].decode()
        for after in _mutated(node):
            if after != ast.unparse(node):
                yield Change(str(path.relative_to(ROOT)), node.lineno, node.col_offset, before, f"({after})")


def _code(node: ast.AST) -> Iterator[ast.expr]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.JoinedStr, ast.Raise)):
                continue
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.expr):
                yield child
            yield from _code(child)


def _mutated(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.BinOp(left, op, right) if type(op) in _BINARY:
            yield ast.unparse(ast.BinOp(left, _BINARY[type(op)](), right))
        case ast.Compare(left, [op], [right]):
            yield ast.unparse(ast.Compare(left, [_COMPARISONS[type(op)]()], [right]))
        case ast.BoolOp(op, values):
            yield ast.unparse(ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values))
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield ast.unparse(operand)
        case ast.Call(ast.Name("min" | "max" as name), args, keywords) if args:
            yield ast.unparse(ast.Call(ast.Name("max" if name == "min" else "min"), args, keywords))
        case ast.Call(ast.Name("abs"), [argument], []):
            yield ast.unparse(argument)
        case ast.Call(function, [a, b], keywords) if not any(isinstance(x, ast.Starred) for x in (a, b)) and not _commutes(function):
            yield ast.unparse(ast.Call(function, [b, a], keywords))
        case ast.IfExp(test, body, orelse):
            yield ast.unparse(ast.IfExp(test, orelse, body))
        case ast.Constant(value) if isinstance(value, int) and not isinstance(value, bool):
            yield str(value + 1)
        case ast.Constant(value) if isinstance(value, bool):
            yield str(not value)


def _commutes(function: ast.expr) -> bool:
    """Return whether a function of numpy, the standard library or the compiler is commutative."""
    match function:
        case ast.Attribute(ast.Name("builder" | "np" | "math"), name):
            return name in COMMUTATIVE
    return False


def is_equivalent(one: Mapping[str, object]) -> bool:
    """Return whether a change was judged to have no effect; its line may have moved since."""
    found = {name: one[name] for name in ("file", "text", "column", "before", "after")}
    return any(found.items() <= judged.items() for judged in json.loads(EQUIVALENT.read_text(encoding="utf-8")))


def drawn(count: int, seed: int) -> list[Change]:
    """Draw changes, each place at most once."""
    places = [change for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py" for change in changes(path)]
    return random.Random(seed).sample(places, count)


def reached(tree: Path) -> dict[str, dict[int, list[str]]]:
    """Run the suite under coverage; return, by file and line, the tests that reach it, fast ones first."""
    from coverage import CoverageData

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov=fastconv", "--cov-context=test", "--cov-report="]
    left_out = [f"--ignore=tests/{name}" for name in sorted(APART)]
    subprocess.run([*command, "--junitxml=times.xml", *left_out], cwd=tree, env=_environment(tree))
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    broken = set()
    for case in ElementTree.parse(tree / "times.xml").iter("testcase"):
        name = case.get("classname", ""), case.get("name", "")
        seconds[name] += float(case.get("time", 0))
        if case.find("failure") is not None or case.find("error") is not None:
            broken.add(name)
    print(f"excluded because they fail without any change: {sorted(broken)}", flush=True)
    data = CoverageData(str(tree / ".coverage"))
    data.read()
    found: dict[str, dict[int, list[str]]] = {}
    for file in data.measured_files():
        told = {line: {test.partition("|")[0] for test in tests} for line, tests in data.contexts_by_lineno(file).items()}
        lines = {line: [test for test in tests if test and _case(test) not in broken] for line, tests in told.items()}
        name = str(Path(file).relative_to(tree))
        found[name] = {line: sorted(tests, key=lambda test: (seconds[_case(test)], test)) for line, tests in lines.items()}
    return found


def _case(test: str) -> tuple[str, str]:
    path, _, name = test.partition("::")
    return path.removesuffix(".py").replace("/", "."), name


def _environment(tree: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(tree / ".numba")}


def tests_of(change: Change, tree: Path, known: Mapping[str, Mapping[int, list[str]]]) -> list[str]:
    """Return the tests that may catch a change."""
    found = known.get(change.file, {}).get(change.line, [])
    if len(found) >= FEW and not change.file.startswith(COMPILED):
        return found
    floor = change.file.split("/")[1]
    places = [tree / "tests" / name for name in (floor, *TESTS.get(floor, []))]
    files = [file for place in places for file in (sorted(place.glob("test_*.py")) if place.is_dir() else [place]) if file.exists()]
    apart = {tree / "tests" / name for name in APART}
    return found + [str(file) for file in files if file not in apart] + [str(tree / "fastconv" / floor)]


def verdict(change: Change, tree: Path, tests: list[str]) -> tuple[str, float]:
    """Return the test that caught a change, "" if none did, and the seconds it took."""
    path, chosen = tree / change.file, tree / "chosen.txt"
    text = path.read_text(encoding="utf-8")
    chosen.write_text("\n".join(tests), encoding="utf-8")
    begun = time.perf_counter()
    try:
        path.write_text(change.planted(text), encoding="utf-8")
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", f"--timeout={HANGS}", "--timeout-method=thread"]
        command = [sys.executable, "-m", "pytest", *options, f"@{chosen}"]
        process = subprocess.Popen(command, cwd=tree, env=_environment(tree), stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            said, _ = process.communicate(timeout=SECONDS)
        finally:
            with suppress(ProcessLookupError):  # end the processes that the tests started
                os.killpg(process.pid, signal.SIGKILL)
    except subprocess.TimeoutExpired:
        return "", time.perf_counter() - begun
    finally:
        path.write_text(text, encoding="utf-8")
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    caught = (failed or ["the tests did not run"])[0] if process.returncode else ""
    return caught, time.perf_counter() - begun


def copied(tree: Path) -> Path:
    """Copy the project to a path that does not exist yet; return it."""
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache"))
    return tree


def judged(wanted: Sequence[Change], reach: Mapping[str, Mapping[int, list[str]]], jobs: int) -> Iterator[tuple[Change, str, float]]:
    """Yield each change with the test that caught it and the seconds, as soon as known."""
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        free: queue.Queue[Path] = queue.Queue()
        for k in range(jobs):
            free.put(copied(Path(folder) / str(k)))

        def judge(change: Change) -> tuple[Change, str, float]:
            tree = free.get()
            try:
                return change, *verdict(change, tree, tests_of(change, tree, reach))
            finally:
                free.put(tree)

        for done in concurrent.futures.as_completed([pool.submit(judge, change) for change in wanted]):
            yield done.result()


def main() -> None:
    """Plant the changes that the log lacks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="changes at a time")
    parser.add_argument("--log", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--reach", type=Path, default=Path("reach.json"), help="results of coverage; delete it when the tests change")
    args = parser.parse_args()
    if not args.reach.exists():
        with tempfile.TemporaryDirectory() as folder:
            args.reach.write_text(json.dumps(reached(copied(Path(folder) / "tree"))))
    reach = {file: {int(line): tests for line, tests in lines.items()} for file, lines in json.loads(args.reach.read_text()).items()}
    known = [json.loads(line) for line in args.log.read_text().splitlines()] if args.log.exists() else []
    held = {(one["file"], one["line"], one["column"], one["after"]) for one in known}
    wanted = [change for change in drawn(args.count, args.seed) if (change.file, change.line, change.column, change.after) not in held]
    for k, (change, caught, seconds) in enumerate(judged(wanted, reach, args.jobs)):
        told = {"text": change.text, "seed": args.seed, "caught": caught, "seconds": round(seconds, 1)}
        known.append(change._asdict() | told)
        with args.log.open("a") as log:
            log.write(json.dumps(known[-1]) + "\n")
        print(f"{k + 1}/{len(wanted)} {change.file}:{change.line} {change.before} -> {change.after}: {caught or 'NOT CAUGHT'}", flush=True)
    known = [one for one in known if one["seed"] == args.seed]
    counts = Counter((one["file"].split("/")[1], bool(one["caught"])) for one in known)
    for floor in sorted({floor for floor, _ in counts}):
        print(f"{floor:12} {counts[floor, True]:4} of {counts[floor, True] + counts[floor, False]:4}")
    caught = sum(bool(one["caught"]) for one in known)
    same = sum(not one["caught"] and is_equivalent(one) for one in known)
    print(f"{'all':12} {caught:4} of {len(known):4}: {caught / max(1, len(known)):.0%}")
    print(f"{'that matter':12} {caught:4} of {len(known) - same:4}: {caught / max(1, len(known) - same):.0%}")


if __name__ == "__main__":
    main()

"""Measure how easy the package is to read: ``python analysis/house.py [--revision REV] [--json]``.

Prints the modules of each folder, the longest functions, those with the most parameters, the lines of the package, and the
number of repeated places: runs of statements that occur elsewhere up to names and constants. With a revision, counts that one.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import subprocess
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
RUN = 6
"""Number of consecutive statements that count as repeated if they occur in two places."""


class Function(NamedTuple):
    """Counts of a function; `told` are the lines of its docstring."""

    lines: int
    told: int
    parameters: int
    where: str
    kind: str


def functions(package: Path) -> Iterator[Function]:
    """Yield all functions; ``self``, ``cls`` and numba's ``typingctx`` do not count as parameters.

    Public functions must keep their parameters; compiled ones take numbers in registers.
    """
    doors = [door for door in (package / "__init__.pyi", package / "__init__.py", package / "torch" / "__init__.py") if door.exists()]
    told = [node for door in doors for node in ast.walk(ast.parse(door.read_text(encoding="utf-8")))]
    public = {one.name for node in told if isinstance(node, ast.ImportFrom) for one in node.names}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                given = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len(given) - (given[:1] in (["self"], ["cls"], ["typingctx"]))
                first, where = node.body[0], path.relative_to(package)
                told = first.end_lineno - first.lineno + 1 if isinstance(first, ast.Expr) and _is_text(first.value) else 0
                kind = "compiled" if "source" in where.parts else "public" if node.name in public else ""
                yield Function(node.end_lineno - node.lineno + 1, told, count, f"{where}:{node.name}", kind)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


class _Anonymous(ast.NodeTransformer):
    """Remove the names of variables and the values of constants from a statement."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name("_", node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(0)


def _only_says(node: ast.stmt) -> bool:
    """Return whether a statement is a docstring, or the name and type of a field."""
    return isinstance(node, ast.Expr) or isinstance(node, ast.AnnAssign) and node.value is None


def repeated(package: Path) -> dict[str, list[str]]:
    """Return runs of statements that occur in several places, by their places."""
    places = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body = getattr(node, "body", None)
            if not isinstance(body, list) or isinstance(node, ast.Module):
                continue
            told = [(one.lineno, ast.dump(_Anonymous().visit(one))) for one in body if not _only_says(one)]
            for k in range(len(told) - RUN + 1):
                run = "\n".join(text for _, text in told[k : k + RUN])
                places[run].append(f"{path.relative_to(package)}:{told[k][0]}")
    return {where[0]: where[1:] for where in places.values() if len(where) > 1}


def counted(package: Path) -> dict[str, object]:
    """Return all counts."""
    every = list(functions(package))
    files = sorted(package.rglob("*.py"))
    folders = Counter(str(path.parent.relative_to(package)) for path in files if path.name != "__init__.py")
    return {
        "lines": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files),
        "modules": len(files),
        "most modules in a folder": max(folders.values()),
        "modules by folder": dict(sorted(folders.items())),
        "longest functions": [f"{one.lines} {one.where}" for one in sorted(every, reverse=True)[:5]],
        "functions over 80 lines": sum(one.lines > 80 for one in every),
        "of them without their docstrings": sum(one.lines - one.told > 80 for one in every),
        "most parameters": [f"{one.parameters} {one.where}" for one in sorted(every, key=lambda one: -one.parameters)[:5]],
        "functions of over 7 parameters": sum(one.parameters > 7 for one in every),
        "of them neither public nor compiled": [one.where for one in every if one.parameters > 7 and not one.kind],
        "repeated places": sum(map(len, repeated(package).values())),
    }


def main() -> None:
    """Print the counts of the working tree, or of a revision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revision", help="a revision of the repository; by default, the working tree")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = ROOT / "fastconv"
        if args.revision:
            archive = subprocess.run(["git", "archive", args.revision, "fastconv"], cwd=ROOT, capture_output=True, check=True).stdout
            tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder, filter="data")
            package = Path(folder) / "fastconv"
        counts = counted(package)
    if args.json:
        print(json.dumps(counts, indent=2))
        return
    for name, value in counts.items():
        lines = value if isinstance(value, list) else [f"{k}: {v}" for k, v in value.items()] if isinstance(value, dict) else [value]
        print(f"{name}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{name}:", *map(str, lines)]))


if __name__ == "__main__":
    main()

"""The house: imports only run downwards, and light things stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv

FLOORS = (
    "files",
    "tables",
    "exact",
    "algebra",
    "program",
    "arithmetic",
    "native",
    "error",
    "search",
    "kernels",
    "network",
    "torch",
    "plot",
    "cli",
)
"""From the ground up."""
PACKAGE = Path(fastconv.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("numba", "sympy", "scipy", "matplotlib", "onnx", "skimage", "rich", "mpmath")


def floor_of(path):
    parts = path.relative_to(PACKAGE).parts
    return FLOORS.index(parts[0]) if parts[0] in FLOORS else None


def imported(path):
    """Every name that a module imports from fastconv, wherever in its text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from ([node.module] if node.module != "fastconv" else [f"fastconv.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_run_downwards(path):
    here = floor_of(path)
    if here is None:
        assert path.name in ("__init__.py", "__main__.py")
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "fastconv" or len(parts) == 1:
            continue
        if parts[1] in FLOORS:
            assert FLOORS.index(parts[1]) <= here, f"{path} imports {name}, a floor above its own"
        else:
            assert parts[1] == "__version__", f"{path} imports {name} through the roof"


def test_of_the_kernels_only_their_source_knows_the_compiler():
    for path in (PACKAGE / "kernels").glob("*.py"):
        assert not any(name.split(".")[0] == "numba" for name in imported(path)), f"{path} imports numba"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_fit_in_a_head(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_every_floor_is_a_package():
    found = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert found <= set(FLOORS)


def loaded_by(code):
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_is_light():
    """Neither the package nor the help loads anything heavy."""
    assert not loaded_by("import fastconv") & {*HEAVY, "numpy"}
    helped = "import contextlib, io, fastconv.cli\nwith contextlib.redirect_stdout(io.StringIO()):\n    fastconv.cli.main([])"
    assert not loaded_by(helped) & {*HEAVY, "numpy"}


def test_rational_algorithms_need_no_sympy():
    assert not loaded_by("import fastconv as fc\nfc.toom_cook(4, 3, [0, 1, -1, 2, -2, 'inf']).verify()") & {"sympy", "numba", "scipy"}


def test_public_names_exist():
    for name in fastconv.__all__:
        assert getattr(fastconv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fastconv.nothing  # noqa: B018
    assert set(fastconv.__all__) <= set(dir(fastconv))

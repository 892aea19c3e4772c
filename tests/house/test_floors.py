"""The house: imports only run downwards, and light things stay light."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

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
ROOMS = {"network": ("graph", "operators", "rewrite", "load", "run", "large", "precision", "explain", "network", "predict", "study", "zoo")}
"""Of a floor with an order of its own, from the ground up."""
PACKAGE = Path(fastconv.__file__).parent
MODULES = {
    ".".join(("fastconv", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
MOST_MODULES = 10
HEAVY = ("numba", "sympy", "scipy", "matplotlib", "onnx", "skimage", "rich", "mpmath")
LATE = (
    "fastconv.native.source",
    "fastconv.error.predict.compiled",
    "fastconv.search.limit.queue",
    "fastconv.plot",
    "fastconv.torch.layers",
)
"""Imported inside functions alone may be what needs numba, matplotlib or torch."""


def imported(name):
    """Every module or package that a module imports from fastconv: its name, the names taken from it, and whether inside a function."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            if node.module.partition(".")[0] == "fastconv":
                yield node.module, [alias.name for alias in node.names], node.col_offset > 0
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] != "fastconv", f"{name}: import the names from {alias.name}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_only_run_downwards(name):
    floor = name.split(".")[1] if "." in name else None
    if floor not in FLOORS:
        assert floor in (None, "__main__")
        return
    for module, names, _ in imported(name):
        other = module.split(".")[1] if "." in module else None
        if other is None:
            assert names == ["__version__"], f"{name} imports {names} through the roof"
            continue
        assert FLOORS.index(other) <= FLOORS.index(floor), f"{name} imports {module}, a floor above its own"
        if other != floor:
            assert MODULES[module].name == "__init__.py", f"{name} imports {module}: other floors import from the package"
            assert not any(one.startswith("_") for one in names), f"{name} imports {names} of {module}"
        rooms = ROOMS.get(floor, ())
        if other == floor and rooms and name.count(".") > 1 and module.count(".") > 1:
            here, there = name.split(".")[2], module.split(".")[2]
            assert rooms.index(there) <= rooms.index(here), f"{name} imports {module}, a room above its own"


def test_imports_have_no_circles():
    """Not even through imports inside functions."""
    edges = {name: set() for name in MODULES}
    for name in MODULES:
        for module, names, _ in imported(name):
            edges[name] |= {f"{module}.{one}" if f"{module}.{one}" in MODULES else module for one in names}
    graphlib.TopologicalSorter({name: {one for one in others if one != name} for name, others in edges.items()}).prepare()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_stand_at_the_top_but_for_weight(name):
    for module, _, inside in imported(name):
        assert not inside or module == "fastconv" or module.startswith(LATE), f"{name} imports {module} inside a function"


def test_folders_hold_at_most_ten_modules():
    for folder in {path.parent for path in MODULES.values()}:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, f"{folder}: {modules}"


def test_of_the_kernels_only_their_source_knows_the_compiler():
    for name, path in MODULES.items():
        if name.startswith(("fastconv.kernels", "fastconv.native")) and ".source" not in name:
            assert "numba" not in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE), name


def test_sources_of_kernels_import_nothing_that_runs_them():
    """What code is made from is what names it: the sources, `native`, programs, and the records that runners fill in."""
    shared = ("fastconv.kernels.source", "fastconv.kernels.records", "fastconv.native", "fastconv.program")
    sources = [name for name in MODULES if name.startswith("fastconv.kernels.source")]
    assert len(sources) > 5
    for name in sources:
        for module, names, _ in imported(name):
            assert module.startswith(shared), (
                f"{name} imports {names} of {module}: let it be a parameter, or declare it in kernels/records.py"
            )
    assert {module for module, _, _ in imported("fastconv.kernels.records")} == {"fastconv.native"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_fit_in_a_head(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 500


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
    with pytest.raises(AttributeError, match="nothing"):
        fastconv.nothing  # noqa: B018
    assert set(fastconv.__all__) <= set(dir(fastconv))


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_no_test_imports_a_test(path):
    """What several tests need stands in tests/support."""
    names = [node.module or "" for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    assert [name for name in names if name.startswith("test_")] == []


def test_tests_lie_as_the_floors_do():
    """A folder for each floor but those that others test; `with_torch`, for a folder `torch` would pass for the library where it lacks."""
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= {*FLOORS, "house", "with_torch"} - {"torch"}
    assert {*FLOORS} - folders == {"arithmetic", "torch"}

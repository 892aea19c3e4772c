"""What type checkers and editors see of the package."""

import inspect

import pytest
from mypy import api

import fastconv

GOOD = """
from typing import assert_type
import fastconv as fc
assert_type(fc.toom_cook(4, 3, [0, 1, -1, 2, -2, "inf"]), fc.BilinearAlgorithm)
assert_type(fc.measure_error(fc.algorithm("F(2x2,3x3)"), dims=2).mean_abs, float)
assert_type(fc.certified_limit(2, 3), fc.CertifiedLimit | None)
assert_type(fc.__version__, str)
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    def check(code):
        folder = tmp_path_factory.mktemp("face")
        (folder / "program.py").write_text(code, encoding="utf-8")
        said, _, status = api.run(["--strict", "--follow-imports=silent", f"--cache-dir={cache}", str(folder / "program.py")])
        return status, said

    cache = tmp_path_factory.mktemp("cache")
    return check


def test_type_checkers_see_every_public_name(checked):
    every = "import fastconv\n" + "".join(f"fastconv.{name}\n" for name in (*fastconv.__all__, "__version__"))
    assert checked(every + GOOD) == (0, "Success: no issues found in 1 source file\n")
    status, said = checked('import fastconv as fc\nfc.toom_cok(4, 3)\nfc.toom_cook("4", 3, [])\n')
    assert status == 1
    assert 'has no attribute "toom_cok"' in said
    assert 'Argument 1 to "toom_cook" has incompatible type "str"' in said


def test_what_public_functions_return_is_public():
    for name in fastconv.__all__:
        function = getattr(fastconv, name)
        if inspect.isfunction(function):
            kind = str(inspect.signature(function).return_annotation).removesuffix(" | None")
            known = kind.partition("[")[0] in ("Array", "None", "dict", "float", "tuple", "Iterator")
            assert known or kind in fastconv.__all__, f"{name} returns {kind}"

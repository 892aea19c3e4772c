"""The examples of README run, and it says what a reader needs first."""

import re
import shlex

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import ROOT

from fastconv.cli import main
from fastconv.cli.main import VERBS

README = ROOT / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model whose input is called as in README."""
    weight = numpy_helper.from_array(np.ones((2, 3, 3, 3), "f4") / 27, "w")
    nodes = [helper.make_node("Conv", ["input", "w"], ["y"], pads=[1] * 4)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", c, 16, 16]) for name, c in (("input", 3), ("y", 2))]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_examples_run(folder, capsys):
    rng = np.random.default_rng(0)
    names = {"x": rng.standard_normal((1, 3, 20, 20)).astype("f4"), "w": rng.standard_normal((4, 3, 3, 3)).astype("f4")}
    names["images"] = rng.standard_normal((2, 3, 16, 16)).astype("f4")
    code = "".join(text for kind, text in BLOCKS if kind == "python")
    exec(compile(code, str(README), "exec"), names)
    assert names["y"].shape == (1, 4, 20, 20)
    assert names["report"].mean_abs > names["report"].direct.mean_abs
    assert "F(4x4,3x3)" in capsys.readouterr().out


def commands():
    for kind, text in BLOCKS:
        if kind == "sh":
            yield from (shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("fastconv "))


@pytest.mark.parametrize("argv", list(commands()), ids=" ".join)
def test_the_commands_are_understood(argv, capsys):
    """Their options are those that the verb has: an unknown one would stop the parser before --help is seen."""
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--help"])
    assert stop.value.code == 0
    assert argv[0] in VERBS
    usage = capsys.readouterr().out
    assert all(option in usage for option in argv if option.startswith("--"))


def test_the_pictures_are_there():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(pictures) >= 2
    assert all((README.parent / name).stat().st_size > 10_000 for name in pictures)

"""The command line: what it prints, its status, and one line for every complaint."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastconv.cli import main


@pytest.fixture
def run(capsys):
    """Run a command line; return status, standard output and standard error."""

    def call(*argv):
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def model(tmp_path):
    """A model of two convolutions and its input, as files."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / 6).astype("f4"), name)
        for name, shape in (("a", (8, 3, 3, 3)), ("b", (4, 8, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("Conv", ["g", "b"], ["y"], name="second", pads=[1] * 4),
    ]
    value = lambda name, c: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", c, 12, 12])
    graph = helper.make_graph(nodes, "two", [value("x", 3)], [value("y", 4)], weights)
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    np.save(tmp_path / "x.npy", rng.standard_normal((2, 3, 12, 12)).astype("f4"))
    return path


def test_matrices(run):
    status, out, _ = run("matrices", "2", "3", "--points", "0,1,-1,inf")
    assert status == 0
    assert "verified in exact arithmetic" in out
    assert "1/2   1/2  1/2" in out
    status, out, _ = run("matrices", "F(4x4,3x3)", "--json", "--program", "huffman")
    data = json.loads(out)
    assert status == 0
    assert data["verified"] is True
    assert (data["m"], data["r"], len(data["BT"])) == (4, 3, 6)
    assert data["programs"]["AT"].startswith("t")


def test_points_are_listed_with_their_error(run):
    status, out, _ = run("points", "4", "3", "--trials", "200", "--json")
    rows = json.loads(out)
    assert status == 0
    assert sum(row["best"] for row in rows) == 1
    errors = [row["error"]["mean_abs"] for row in rows]
    assert errors == sorted(errors)
    assert {"lavin2016", "barabasz2020"} <= {source for row in rows for source in row["sources"]}
    assert "lavin2016, wincnn" in run("points", "4", "3", "--trials", "50")[1]


def test_error(run):
    status, out, _ = run("error", "F(2,3)", "--trials", "2000", "--seed", "1", "--json")
    data = json.loads(out)
    assert status == 0
    assert data["dims"] == 1
    assert 2.2e-8 < data["mean_abs"] < 2.7e-8
    assert data["direct"]["mean_abs"] < data["mean_abs"]
    assert "largest in ulp" in run("error", "2", "3", "--points", "lavin2016", "--trials", "50")[1]


def test_tolerance(run):
    size = ("tolerance", "F(4x4,3x3)", "--channels", "64", "--policy", "fp16")
    status, out, _ = run(*size)
    assert status == 0
    assert out.startswith("atol = ")
    assert len(out.strip().splitlines()) == 2 + 5  # the numbers, a blank line, five lines of reasoning
    data = json.loads(run(*size, "--json")[1])
    assert 0 < data["atol"] <= data["worst_case"]
    header = run(*size, "--emit", "c")[1]
    assert float(header.split("ATOL ")[-1].split()[0]) == data["atol"]
    names = {}
    exec(run(*size, "--emit", "python")[1], names)
    assert (names["ATOL"], names["RTOL"]) == (data["atol"], data["rtol"])


def test_networks(run):
    assert "fashion" in run("networks")[1]
    known = {row["name"]: row for row in json.loads(run("networks", "--json")[1])}
    assert known["fashion"]["bytes"] < 3e6


def test_bench(run):
    status, out, _ = run("bench", "--channels", "8", "--size", "12", "--turns", "2", "--json")
    rows = json.loads(out)
    assert status == 0
    assert [row["algorithm"] for row in rows] == ["direct", "im2col", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"]
    assert all(row["seconds"] > 0 and row["relative_l2"] < 1e-5 for row in rows)


def test_compare_in_policies(run, model, tmp_path):
    options = ["--policies", "fp32;fp16-balanced", "--sums", "pairwise", "--algorithms", "F(2x2,3x3)", "--output", str(tmp_path), "--json"]
    status, out, _ = run("compare", str(model), "--input", str(tmp_path / "x.npy"), *options)
    rows = json.loads(out)["rows"]
    assert status == 0
    assert [(row["algorithm"], row["policy"], row["channel_sum"]) for row in rows] == [
        (algorithm, policy, "pairwise") for policy in ("fp32", "fp16-balanced") for algorithm in ("direct", "F(2x2,3x3)")
    ]
    assert all(row["speed_vs_direct"] is None and row["overflows"] == {} for row in rows)


def test_compare_a_model_of_ones_own(run, model, tmp_path):
    status, out, _ = run("compare", str(model), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "figures"), "--json")
    data = json.loads(out)
    assert status == 0
    assert list(data) == ["network", "images", "reference", "layers", "rows", "figure"]
    assert (data["network"], data["images"], data["layers"]) == ("two", 2, ["first", "second"])
    names = ["algorithm", "points", "multiplications_per_output", "relative_l2", "max_abs", "metric", "seconds", "speed_vs_direct"]
    for row in data["rows"]:
        assert list(row)[:9] == [*names, "layer_relative_l2"]
        assert len(row["layer_relative_l2"]) == 2
        assert 0 < row["relative_l2"] < 1e-5
    multiplications = {row["algorithm"]: row["multiplications_per_output"] for row in data["rows"]}
    assert multiplications == {"direct": 9.0, "F(2x2,3x3)": 4.0, "F(4x4,3x3)": 2.25, "F(6x6,3x3)": 64 / 36}
    picture = (tmp_path / "figures" / "fastconv-compare-two.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["fastconv-compare-two.png"]


def test_figures_are_numbered_and_never_replaced_unasked(run, model, tmp_path):
    folder = tmp_path / "figures"
    common = [str(model), "--input", str(tmp_path / "x.npy"), "--output", str(folder), "--threads", "1"]
    compare = ["compare", *common, "--algorithms", "direct", "--repeats", "1"]
    for name in ("fastconv-compare-two.png", "fastconv-compare-two-2.png"):
        status, out, _ = run(*compare)
        assert status == 0
        assert f"figure in {folder / name}\n" in out
    first, second = (folder / name for name in ("fastconv-compare-two.png", "fastconv-compare-two-2.png"))
    first.write_text("mine")
    assert json.loads(run(*compare, "--json")[1])["figure"] == str(folder / "fastconv-compare-two-3.png")
    assert first.read_text() == "mine"
    assert run(*compare, "--overwrite")[0] == 0
    assert first.read_bytes().startswith(b"\x89PNG")
    assert second.read_bytes().startswith(b"\x89PNG")
    for name in ("fastconv-explain-two.png", "fastconv-explain-two-2.png"):
        assert json.loads(run("networks", *common, "--explain", "--json")[1])["figure"] == str(folder / name)
    assert len(list(folder.iterdir())) == 5


@pytest.mark.parametrize("images", ["20", "101"])
def test_the_columns_do_not_depend_on_the_images(run, tmp_path, images):
    options = ["--algorithms", "direct", "--repeats", "1", "--output", str(tmp_path), "--json"]
    status, out, _ = run("compare", "--images", images, *options)
    assert status == 0
    assert list(json.loads(out)["rows"][0]["metric"]) == ["top1", "top1_low", "top1_high", "agreement", "logit_error"]


def test_compare_the_shipped_network(run, tmp_path):
    status, out, err = run("compare", "--images", "20", "--algorithms", "F(4x4,3x3)", "--repeats", "1", "--output", str(tmp_path))
    assert status == 0
    assert "F(4x4,3x3)" in out
    assert "agree  " in out
    assert "Traceback" not in err


def damaged(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


BAD = [
    ["nothing"],
    ["matrices"],
    ["matrices", "4", "3", "--points", "0,1,1,2,-2,inf"],
    ["matrices", "4", "3", "--points", "0,1,-1"],
    ["matrices", "4", "3", "--points", "0,1,-1,2,-2,nan"],
    ["matrices", "4", "3", "--points", "nowhere"],
    ["matrices", "4"],
    ["matrices", "F(x)"],
    ["matrices", "400", "3"],
    ["matrices", "2", "3", "--program", "bubble"],
    ["points", "40", "3"],
    ["error", "4", "3", "--policy", "fp31"],
    ["error", "4", "3", "--trials", "0"],
    ["error", "4", "3", "--dims", "3"],
    ["tolerance", "4", "3", "--channels", "0"],
    ["tolerance", "4", "3", "--confidence", "2"],
    ["tolerance", "4", "3", "--emit", "fortran"],
    ["bench", "--size", "0"],
    ["compare", "--network", "nowhere"],
    ["compare", "--images", "0"],
    ["compare", "nowhere.onnx"],
    ["compare", "--input", "x.npy"],
    ["compare", "a.onnx", "--network", "fashion"],
    ["compare", "--repeats", "0"],
]


@pytest.mark.parametrize("argv", BAD, ids=" ".join)
def test_complaints_are_one_line(run, argv):
    status, out, err = run(*argv)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fastconv")
    assert "Traceback" not in err


def test_bad_files_are_one_line_and_leave_nothing(run, model, tmp_path):
    whole = model.read_bytes()
    folder = tmp_path / "out"
    cases = [
        [damaged(tmp_path, "cut.onnx", whole[: len(whole) // 2])],
        [damaged(tmp_path, "text.onnx", b"this is no model")],
        [damaged(tmp_path, "empty.onnx", b"")],
        [str(model)],
        [str(model), "--input", str(tmp_path / "missing.npy")],
        [str(model), "--input", damaged(tmp_path, "bad.npy", b"nothing")],
        [str(model), "--input", str(model)],
    ]
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.zeros((2, 5, 12, 12), "f4"))
    cases.append([str(model), "--input", str(wrong)])
    for case in cases:
        status, out, err = run("compare", *case, "--output", str(folder))
        assert (status, out, err.count("\n")) == (2, "", 1), (case, err)
    assert not folder.exists() or not list(folder.iterdir())


def test_unwritable_folders_are_refused_before_the_work(run, model, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    status, out, err = run("compare", str(model), "--input", str(tmp_path / "x.npy"), "--output", str(blocked / "deeper"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "cannot write into" in err


def test_the_module_runs_as_a_program(tmp_path):
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "fastconv", "")
    bad = subprocess.run([sys.executable, "-m", "fastconv", "matrices", "2", "3", "--points", "0,0,1,inf"], capture_output=True, text=True)
    assert (bad.returncode, bad.stderr.count("\n"), bad.stdout) == (2, 1, "")


def test_points_may_begin_with_a_minus(capsys):
    for given in (["--points", "-1,0,1,2,-2,inf"], ["--points=-1,0,1,2,-2,inf"]):
        assert main(["matrices", "F(4x4,3x3)", *given]) == 0
        assert "verified in exact arithmetic" in capsys.readouterr().out
    assert main(["tolerance", "F(2x2,3x3)", "--scale-w", "-1"]) == 2
    assert "scale_w is -1.0" in capsys.readouterr().err


def test_options_act_in_json_too(capsys):
    assert main(["tolerance", "F(2x2,3x3)", "--emit", "c", "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["c"]
    assert main(["tolerance", "F(2x2,3x3)", "--emit", "c"]) == 0
    assert capsys.readouterr().out == text
    assert main(["matrices", "F(2x2,3x3)", "--program", "huffman", "--json"]) == 0
    programs = json.loads(capsys.readouterr().out)["programs"]
    assert main(["matrices", "F(2x2,3x3)", "--program", "huffman"]) == 0
    printed = capsys.readouterr().out
    assert all(programs[name] in printed for name in ("AT", "G", "BT"))


@pytest.mark.parametrize(("size", "says"), [(("2", "3"), True), (("4", "3"), False)])
def test_a_limit_is_told_where_it_says_something(size, says, capsys):
    assert main(["points", *size]) == 0
    assert ("of the best possible (certified)" in capsys.readouterr().out) == says

"""The command line: what it prints, its status, and one line for every complaint."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv
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
    assert list(data) == ["network", "images", "reference", "layers", "rows", "own_precision", "figure"]
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


def test_a_reader_that_goes_away_is_no_error():
    """As ``fastconv points ... | head -1``: what is written then goes nowhere, and the interpreter has nothing left to flush."""
    script = "import sys; from fastconv.cli import main; status = main(['matrices', '2', '3']); print('more'); sys.exit(status)"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-u", "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


class Bar:
    """A progress bar that keeps what it is told."""

    told = ()

    def __init__(self, *columns, transient, console):
        assert transient
        assert console.is_terminal

    def __enter__(self):
        Bar.told = []
        return self

    def __exit__(self, *_):
        pass

    def add_task(self, description, total, **fields):
        Bar.told.append((0, total, fields["share"], description))
        return "task"

    def update(self, task, completed, total, share, description):
        assert task == "task"
        Bar.told.append((completed, total, share, description))


def test_progress_says_what_is_done_and_how_fast(monkeypatch):
    from fastconv.cli.verbs import compare, search

    monkeypatch.setattr("rich.progress.Progress", Bar)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with compare._progress("compare net") as tell:
        tell(0, 0, "first run")
        tell(2, 7, "direct")
    assert Bar.told == [
        (0, None, "", "compare net"),
        (0, None, "", "compare net: loading"),
        (0, None, "", "compare net: first run"),
        (2, 7, "2/7 runs", "compare net: direct"),
    ]
    ticks = iter([10.0, 10.0, 14.0])
    monkeypatch.setattr(search.time, "perf_counter", lambda: next(ticks))
    with search._progress("F(4,3)") as tell:
        tell(1, 9, 3)
        tell(2, 9, 8000)
    assert Bar.told == [
        (0, None, "", "F(4,3)"),
        (1, 9, "1/9 units, 3,000,000,000 sets/s", "F(4,3)"),
        (2, 9, "2/9 units, 2,000 sets/s", "F(4,3)"),
    ]


def test_no_progress_where_nobody_looks(monkeypatch, capsys):
    from fastconv.cli.progress import progress

    monkeypatch.setattr("rich.progress.Progress", None)
    with progress("work") as tell:
        tell(1, 2, "1/2 units", "now")
    assert capsys.readouterr() == ("", "")


def test_notes_of_a_comparison_come_in_order(run, monkeypatch, model, tmp_path):
    """The legend, a baseline that the network has, then how many images and where the figure is."""
    from fastconv.cli.verbs import compare
    from fastconv.network import load_onnx

    class Known:
        name, baseline_name, batch = "known", "bilinear", 2
        load, inputs = staticmethod(lambda: load_onnx(model)), staticmethod(lambda: {"x": np.load(tmp_path / "x.npy")})
        baseline = staticmethod(lambda: {"b": 2.346, "a": 1.0, "unasked": 3.0})
        metric = staticmethod(lambda *_: {"a": 0.5, "b": 0.25, "c": 0.125})

    monkeypatch.setattr(compare, "known_network", lambda name: Known)
    options = ("--algorithms", "direct", "--repeats", "1", "--output", str(tmp_path / "figures"))
    for many, said in (("1", "1 image"), ("2", "2 images")):
        paragraphs = run("compare", "--network", "fashion", "--images", many, *options, "--overwrite")[1].strip().split("\n\n")
        assert len(paragraphs) == 4
        assert paragraphs[1].startswith("mult: ")
        assert paragraphs[2] == "bilinear for comparison: a 1.00, b 2.35"
        assert paragraphs[3] == f"{said}; figure in {tmp_path / 'figures' / 'fastconv-compare-known.png'}"
    monkeypatch.setattr(Known, "baseline_name", "")
    assert len(run("compare", "fashion", *options, "--overwrite")[1].strip().split("\n\n")) == 3


def test_algorithms_are_named_apart_by_semicolons(run, model, tmp_path):
    from fastconv.cli.verbs.compare import _names
    from fastconv.cli.verbs.networks import _choice

    assert _names(" F(2x2,3x3); direct;;") == ["F(2x2,3x3)", "direct"]
    assert _choice("F(2x2,3x3)") == "F(2x2,3x3)"
    assert _choice(" a=F(2x2,3x3); b=c = direct;") == {"a": "F(2x2,3x3)", "b=c": "direct"}


def test_the_list_of_networks_is_a_table(run):
    status, out, _ = run("networks")
    assert status == 0
    lines, known = out.splitlines(), json.loads(run("networks", "--json")[1])
    assert lines[0].split() == ["name", "about", "metric", "licence", "source", "fast", "MB"]
    assert list(known[0]) == ["name", "about", "licence", "source", "bytes", "fast_share", "metric"]
    for line, one in zip(lines[1:], known, strict=False):
        cells = [one["name"], one["about"], one["metric"], one["licence"], one["source"]]
        at = [line.index(cell, start) for cell, start in zip(cells, range(5), strict=True)]
        assert at == sorted(at)
        assert line.split()[-2:] == [f"{one['fast_share']:.0%}", f"{one['bytes'] / 1e6:.1f}"]
    assert run("networks", "fashion")[2] == "fastconv networks: nothing to do for 'fashion': add --explain\n"
    assert run("networks", "fashion", "--explain", "--images", "0")[2] == "fastconv networks: --images is 0: pass a positive number\n"


def test_bench_prints_what_it_counts(run, monkeypatch):
    """With a clock that ticks once a second each call takes a second."""
    from fastconv.cli.verbs import bench

    ticks = iter(range(10**6))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticks))
    size = ("bench", "--channels", "4", "--filters", "8", "--size", "10", "--batch", "2", "--turns", "3", "--threads", "1")
    rows = json.loads(run(*size, "--json")[1])
    assert [row["effective_gflops"] for row in rows] == [pytest.approx(2 * 2 * 8 * 100 * 4 * 9 / 1e9)] * 5
    assert [row["speed_vs_direct"] for row in rows] == [row["seconds"] for row in rows] == [1] * 5
    table, *notes = run(*size)[1].strip().split("\n\n")
    lines = table.splitlines()
    assert lines[0].split() == ["algorithm", "ms", "GFLOP/s", "speed", "relative", "L2", "workspace", "MiB"]
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.split() == [
            row["algorithm"],
            "1000.000",
            "0.0",
            "1.00",
            f"{row['relative_l2']:.1e}",
            f"{row['workspace_bytes'] / 2**20:.1f}",
        ]
    assert notes[1] == "4 -> 8 channels, 10x10, 3x3, batch 2, fp32; medians of 3 interleaved calls"
    names = lambda kernel: [row["algorithm"] for row in json.loads(run(*size, "--kernel", kernel, "--json")[1])]
    assert names("1") == ["direct", "im2col"]
    assert names("2") == ["direct", "im2col", "F(2x2,2x2)", "F(4x4,2x2)", "F(6x6,2x2)"]
    assert names("11") == ["direct", "im2col", "F(2x2,11x11)", "F(4x4,11x11)", "F(6x6,11x11)"]
    assert names("13") == ["direct", "im2col", "F(2x2,13x13)", "F(4x4,13x13)"]
    for name in ("channels", "size", "kernel", "batch", "turns"):
        assert run("bench", f"--{name}", "0")[2] == f"fastconv bench: --{name} is 0: pass a positive number\n"


def test_sizes_are_read_in_both_spellings():
    from argparse import Namespace

    from fastconv.cli.options import axes_given, dims_of, size_of, square_of, told

    given = lambda *size, **more: Namespace(**{"size": list(size), "points": None, "dims": None} | more)
    assert (size_of(given("4", "3")).m, size_of(given("4", "3")).r) == ((4, 4), (3, 3))
    assert [dims_of(given("F(4,3)")), dims_of(given("4", "3")), dims_of(given("4", "3", dims=1))] == [1, 2, 1]
    assert square_of(given("F(4x4,3x3)")) == (4, 3)
    for size in (("4",), ("4", "x"), ("4", "3", "2")):
        with pytest.raises(ValueError, match=f"size is '{' '.join(size)}': write outputs and taps"):
            size_of(given(*size))
    for name in ("F(4x2,3x3)", "F(4x4,3x5)", "F(2x2,3x3)s2", "F(4x4,3x3)/7"):
        with pytest.raises(ValueError, match="point sets are known for those"):
            square_of(given(name))
    assert [alg.m for alg in axes_given(given("F(4x2,3x3)"))] == [4, 2]
    assert len(axes_given(given("F(4,3)"))) == 1
    assert len(axes_given(given("F(4x4,3x3)", dims=1))) == 1
    assert len(axes_given(given("4", "3"))) == 2
    with pytest.raises(ValueError, match=r"--dims is 2, but F\(4,3\) has 1: leave it out"):
        axes_given(given("F(4,3)", dims=2))
    with pytest.raises(ValueError, match=r"--dims is 1, but F\(4x2,3x3\) has 2: leave it out"):
        axes_given(given("F(4x2,3x3)", dims=1))
    assert len(axes_given(given("1", "1", points="0"))) == 2
    assert axes_given(given("2", "3", points="0, 1,-1 ,inf"))[0].points == axes_given(given("2", "3", points="lavin2016"))[0].points
    assert told(axes_given(given("4", "3"))) == repr(axes_given(given("4", "3"))[0])
    assert told(axes_given(given("F(4x2,3x3)"))).startswith("F(4x2,3x3): ")
    assert told(axes_given(given("F(4x2,3x3)"))).endswith(" along the width")


def test_inputs_come_from_files_by_name(run, model, tmp_path):
    from types import SimpleNamespace

    from fastconv.cli.files import feeds_of, figure_path

    one, two = (SimpleNamespace(inputs=[SimpleNamespace(name=name) for name in names]) for names in ("x", "xy"))
    np.savez(tmp_path / "both.npz", x=np.arange(3), y=np.arange(2))
    np.save(tmp_path / "one.npy", np.arange(3))
    assert {name: a.tolist() for name, a in feeds_of(two, tmp_path / "both.npz").items()} == {"x": [0, 1, 2], "y": [0, 1]}
    assert {name: a.tolist() for name, a in feeds_of(one, tmp_path / "one.npy").items()} == {"x": [0, 1, 2]}
    with pytest.raises(ValueError, match="the model takes x, y: give an .npz with arrays of these names"):
        feeds_of(two, tmp_path / "one.npy")
    with pytest.raises(ValueError, match="the model takes x, y: give --input x.npy"):
        feeds_of(two, None)
    where = figure_path(SimpleNamespace(output=tmp_path / "deep" / "er"), "explain", "a b/c-d_e")
    assert where == tmp_path / "deep" / "er" / "fastconv-explain-a-b-c-d_e.png"


def test_the_program_says_its_version_its_help_and_that_it_was_interrupted(run, monkeypatch):
    assert run("--version") == (0, f"fastconv {fastconv.__version__}\n", "")
    status, out, _ = run()
    assert status == 0
    assert all(verb in out for verb in ("matrices", "compare", "bench"))

    def stopped(args):
        raise KeyboardInterrupt

    def without_words(args):
        raise MemoryError

    monkeypatch.setattr("fastconv.cli.verbs.bench.run", stopped)
    assert run("bench") == (130, "", "fastconv bench: interrupted\n")
    monkeypatch.setattr("fastconv.cli.verbs.bench.run", without_words)
    assert run("bench") == (2, "", "fastconv bench: MemoryError\n")
    monkeypatch.setattr("fastconv.cli.verbs.bench.run", lambda args: 7)
    assert run("bench")[0] == 7


def test_values_that_begin_with_a_minus_belong_to_the_option_before():
    from fastconv.cli.main import _joined

    assert _joined(["--points", "-1,0", "x"]) == ["--points=-1,0", "x"]
    assert _joined(["--points", "-.5"]) == ["--points=-.5"]
    assert _joined(["--points=1", "-1"]) == ["--points=1", "-1"]
    assert _joined(["size", "-1"]) == ["size", "-1"]
    assert _joined(["--points", "-x"]) == ["--points", "-x"]
    assert _joined(["--points", "-"]) == ["--points", "-"]
    assert _joined(["-1"]) == ["-1"]
    assert _joined(["--a", "-1", "-2"]) == ["--a=-1", "-2"]


def test_shards_are_read_and_refused():
    from fastconv.cli.verbs.search import _executor, _shard

    assert _shard("2/5") == (2, 5)
    for text in ("2", "a/3", "3/b", "/"):
        with pytest.raises(ValueError, match=f"--shard is '{text}': write I/N"):
            _shard(text)
    with _executor(None) as nothing:
        assert nothing is None
    with pytest.raises(ValueError, match="--workers is 0: pass a positive number"), _executor(0):
        pass
    with _executor(1) as executor:
        assert executor._max_workers == 1


MEASURED = {
    "policy": "fp32",
    "order": "huffman",
    "channels": 1,
    "channel_sum": "linear",
    "inputs": "uniform-libstdcxx",
    "trials": 5000,
    "seed": 0,
}
DERIVED = {"policy": "fp32", "order": "huffman", "channels": 1, "channel_sum": "linear", "inputs": "normal", "scale_w": 1.0, "scale_x": 1.0}
SEARCHED = {"policy": "fp32", "objective": "predicted", "store": "search.sqlite", "merge": [], "shard": "0/1", "infinity": "both"}
NUMBERS = {"starts": 32, "height": 16, "bits": 5, "keep": 64, "confirm": 16, "trials": 5000, "seed": 0, "show": 10}
FIGURE = {"output": Path("."), "overwrite": False}
DEFAULTS = {
    "matrices": {},
    "points": MEASURED,
    "error": MEASURED,
    "tolerance": DERIVED | {"confidence": 1 - 1e-9, "outputs": 10**6},
    "search": SEARCHED | NUMBERS,
    "compare": {"repeats": 5, "seed": 0} | FIGURE,
    "networks": {"explain": False, "images": 1, "algorithm": "auto", "measure": False, "seed": 0} | FIGURE,
    "bench": {"channels": 64, "size": 56, "kernel": 3, "batch": 1, "turns": 15},
}


@pytest.mark.parametrize("verb", DEFAULTS)
def test_options_have_the_defaults_that_the_manual_names(verb):
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"fastconv.cli.verbs.{verb}").arguments(parser)
    assert {action.dest: action.default for action in parser._actions if action.default is not None} == DEFAULTS[verb]


def test_matrices_of_a_rectangle_are_told_by_their_sides(run):
    data = json.loads(run("matrices", "F(4x2,3x3)", "--json")[1])
    assert {side: (one["m"], one["r"], one["verified"]) for side, one in data.items()} == {"height": (4, 3, True), "width": (2, 3, True)}
    assert "programs" not in data["height"]
    heads = [line for line in run("matrices", "F(4x2,3x3)")[1].splitlines() if "verified" in line]
    assert [head.partition(": ")[0] for head in heads] == ["height", "width"]
    assert run("matrices", "F(2x2,3x3)")[1].startswith(repr(fastconv.algorithm("F(2x2,3x3)")))
    assert "\nAT\n" in run("matrices", "F(2x2,3x3)", "--program", "huffman")[1]

"""Tables fit a terminal and are whole; reports show themselves in one line, as text and in a notebook."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from support.models import dense_chain

import fastconv as fc
from fastconv.cli import main
from fastconv.network.predict.propagate import LayerError, NetworkErrors
from fastconv.network.study.compare import Comparison, Row, with_interval
from fastconv.tables import Table, terminal_width

WIDE = ("--channels", "8", "--size", "12", "--turns", "1")
VERBS = {
    "networks": (),
    "explain": ("networks", "fashion", "--explain", "--threads", "1"),
    "points": ("points", "9", "3", "--trials", "5"),
    "matrices": ("matrices", "F(6x6,3x3)"),
    "error": ("error", "F(4x4,3x3)", "--trials", "5"),
    "search": ("search", "2", "3", "--candidates", "0,1,-1,2", "--confirm", "2", "--trials", "5"),
    "bench": ("bench", *WIDE),
    "compare": ("compare", "--images", "3", "--algorithms", "F(4x4,3x3)", "--repeats", "1", "--threads", "1"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_fits_80_columns(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastconv.cli.options.terminal_width", lambda: 80)
    seen = []
    plain = Table.text
    monkeypatch.setattr(Table, "text", lambda self, width=None: seen.append((self, plain(self, width))) or seen[-1][1])
    assert main(VERBS[verb] or [verb]) == 0
    out = capsys.readouterr().out
    assert seen
    for table, text in seen:
        assert text in out
        assert max(map(len, text.splitlines())) <= 80
        assert_whole(table, text)


def assert_whole(table, text):
    """Every cell is shown, in a block or as a footnote."""
    flat = "".join(text.split())
    for cell in {cell for row in table.rows for cell in row}:
        assert "".join(cell.split()) in flat


@pytest.mark.parametrize("policy", ["fp32", "fp16-balanced"])
def test_a_comparison_fits_80_columns(policy):
    """What `fastconv compare` prints for a classifier is one table; policies and their sums take more blocks."""
    metric = with_interval("top1", 949, 1000) | {"agreement": 0.998, "logit_error": 1.883e-7}
    some = {"direct": "", "F(2x2,3x3)": "lavin2016, barabasz2020", "F(4x4,3x3)": "fitted"}
    channel_sum = None if policy == "fp32" else "pairwise"
    rows = tuple(Row(name, points, 2.25, 4.42e-7, 6.52e-6, metric, 0.378, 1.83, (), policy, channel_sum) for name, points in some.items())
    (table,) = Comparison("fashion", 1000, "fp64", (), rows).tables()
    text = table.text(80)
    assert max(map(len, text.splitlines())) <= 80
    assert_whole(table, text)
    assert text.count("algorithm  ") == (1 if policy == "fp32" else 2)


def drawn(seed):
    """A table of any shape; names are longer than a terminal now and then, or of wide letters."""
    rng = random.Random(seed)
    word = lambda most: "".join(rng.choice("abc/.層") for _ in range(rng.randint(1, most)))
    count = rng.randint(2, 12)
    left = rng.randint(1, min(4, count))
    header = tuple(f"{word(6)}{k}" for k in range(count))
    rows = tuple(tuple(word(rng.choice((5, 20, 60))) if k < left else word(9) for k in range(count)) for _ in range(rng.randint(1, 6)))
    return Table(header, rows, left, rng.randint(1, left), header[1:left:2])


@pytest.mark.parametrize("width", [80, 120])
def test_any_table_fits_and_is_whole(width):
    from fastconv.tables.table import _length

    for seed in range(60):
        table = drawn(seed)
        text = table.text(width)
        marks = text.rpartition("\n\n")[2] if "\n\n[1] " in text else ""
        assert max(map(_length, text.removesuffix(marks).splitlines())) <= width, seed
        assert_whole(table, text)
        piped = table.text().splitlines()
        assert len(piped) == 1 + len(table.rows)
        assert all(all(cell in line for cell in row) for row, line in zip(table.rows, piped[1:], strict=True))


def test_blocks_begin_with_the_keys():
    table = Table(("layer", "a", "b"), (("first", "1" * 12, "2" * 12), ("last", "3", "4")))
    assert table.text(24).split() == ["layer", "a", "first", "1" * 12, "last", "3", "layer", "b", "first", "2" * 12, "last", "4"]
    assert len(table.text(40).splitlines()) == 3


def test_names_cannot_command_the_terminal():
    assert "\x1b" not in Table(("layer",), (("\x1b[2Jconv\n1",),)).text()


@pytest.fixture(scope="module")
def reports():
    net, x = fc.load_onnx(dense_chain()), np.random.default_rng(0).standard_normal((2, 16, 20, 20)).astype("f4")
    alg = fc.algorithm("F(2,3)")
    return {
        "explain": net.explain({"x": x}, threads=1),
        "compare": fc.compare(net, {"x": x}, ["F(2x2,3x3)"], repeats=1),
        "error": fc.measure_error(alg, trials=5),
        "prediction": fc.predict_error(alg),
        "tolerance": fc.tolerance(alg, channels=4),
        "search": fc.search_points(2, 3, candidates=[0, 1, -1, 2], store=None, confirm=0),
        "network errors": NetworkErrors((LayerError("first", "direct", *[1e-7] * 7),), 1e-7, 1e-7),
        "algorithm": alg,
        "matrices": alg.matrices("float32"),
    }


KINDS = ["explain", "compare", "error", "prediction", "tolerance", "search", "network errors", "algorithm", "matrices"]


@pytest.mark.parametrize("kind", KINDS)
def test_reports_show_themselves_in_a_notebook(reports, kind):
    html = reports[kind]._repr_html_()
    assert html.count("<table>") == html.count("</table>") >= 1
    assert html.count("<tr>") >= 2
    if kind != "matrices":
        shown = reports[kind].tables()
        assert sum(len(table.rows) + bool(table.header) for table in shown) == html.count("<tr>")
        assert reports[kind].table() == "\n\n".join(table.text() for table in shown)


@pytest.mark.parametrize("kind", ["explain", "compare", "search", "network errors", "algorithm"])
def test_reports_have_one_line(reports, kind):
    text = repr(reports[kind])
    assert "\n" not in text
    assert len(text) < 160


def test_only_a_terminal_has_a_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal_width() is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert terminal_width() == 77


def test_terminals_of_few_characters_get_the_table(monkeypatch, tmp_path):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert main([*VERBS["compare"], "--output", str(tmp_path)]) == 0
    out.flush()
    assert b"(95 % interval: \\xb1" in out.buffer.getvalue()


def test_html_is_escaped():
    html = Table(("<layer>", "ms"), (("a&b", "1"),), notes=("x < y",)).html()
    assert "&lt;layer&gt;" in html
    assert "a&amp;b" in html
    assert "x &lt; y" in html


def test_a_cell_is_as_wide_as_a_terminal_shows_it():
    """Wide characters take two columns of a terminal, combining accents none."""
    first, second = ("\u5377\u7a4d", "abcd")  # "convolution", in two characters
    table = Table(("name", "n"), ((first, "1"), (second, "2"), ("e\u0301abc", "3")))
    lines = [line for line in table.text(80).splitlines() if line.rstrip().endswith(("1", "2", "3"))]
    assert [line.replace(first, "abcd").replace("e\u0301", "e") for line in lines] == ["abcd  1", "abcd  2", "eabc  3"]


def test_every_line_of_a_table_that_is_cut():
    """Cells no wider than the title of their column, or than a mark, stay; the others are numbered row by row, the same once."""
    rows = (
        ("first", "no fast algorithm pays", "tiny", "1.25"),
        ("last", "equal", "層層層", "0.5"),
        ("third", "no fast algorithm pays", "", "10"),
    )
    table = Table(
        ("layer", "which", "how", "ms"), rows, 3, long=("which",), title="A title that is longer than the width", notes=("a note",)
    )
    assert table.text() == "\n".join(
        [
            "A title that is longer than the width",
            "layer  which                   how       ms",
            "first  no fast algorithm pays  tiny    1.25",
            "last   equal                   層層層   0.5",
            "third  no fast algorithm pays            10",
            "",
            "a note",
        ]
    )
    assert table.text(28) == "\n".join(
        [
            "A title that is longer than",
            "the width",
            "layer  which  how       ms",
            "first  [1]    tiny    1.25",
            "last   equal  層層層   0.5",
            "third  [1]              10",
            "",
            "[1] no fast algorithm pays",
            "",
            "a note",
        ]
    )
    assert "[1]" not in table.text(43)
    assert "[1]" in table.text(42)
    assert table.text(3) == table.text(24)
    assert table.text(24).splitlines()[2:] == [
        "layer  which  how",
        "first  [1]    tiny",
        "last   equal  層層層",
        "third  [1]",
        "",
        "layer    ms",
        "first  1.25",
        "last    0.5",
        "third    10",
        "",
        "[1] no fast algorithm",
        "    pays",
        "",
        "a note",
    ]


def test_a_matrix_says_which_of_its_columns_a_block_holds():
    table = Table((), (("1" * 10, "2" * 10, "3" * 10, "4"), ("5", "6", "7", "8")), 0, 0)
    assert table.text(24).splitlines() == [
        "columns 1 to 2",
        "1111111111  2222222222",
        "         5           6",
        "",
        "columns 3 to 4",
        "3333333333  4",
        "         7  8",
    ]
    assert table.text(23) == table.text(24)
    assert Table((), (("1" * 20, "2" * 20),), 0, 0).text(24).splitlines()[0] == "column 1"
    assert table.text(37) == "1111111111  2222222222  3333333333  4\n         5           6           7  8"
    assert table.text(36) != table.text(37)


def test_every_cell_of_html_has_its_side():
    html = Table(("a", "b"), (("1", "2"),), title="t", notes=("n",)).html()
    left, right = '="text-align: left">', '="text-align: right">'
    head, body = f"<tr><th style{left}a</th><th style{right}b</th></tr>", f"<tr><td style{left}1</td><td style{right}2</td></tr>"
    assert html == f"<table><caption style{left}t</caption><thead>{head}</thead><tbody>{body}</tbody></table><p>n</p>"
    assert Table((), (("1",),), 0, 0).html() == f"<table><tbody><tr><td style{right}1</td></tr></tbody></table>"


def test_errors_of_a_network_are_shown_with_three_digits():
    found = NetworkErrors((LayerError("first", "F(2x2,3x3)", 1e-7, 2e-7, 3e-7, 4e-7, 5.0, 6e-7, 7.0),), 8e-7, 9.126e-7)
    (table,) = found.tables()
    assert table.header == ("layer", "algorithm", "predicted", "measured", "carried", "accumulated", "gain")
    assert table.rows == (("first", "F(2x2,3x3)", "1.00e-07", "2.00e-07", "3.00e-07", "4.00e-07", "5.00e+00"),)
    assert table.notes == ("relative L2 error of the output: 8.00e-07 predicted, 9.13e-07 measured",)
    assert table.left == 2
    assert repr(found) == "<NetworkErrors of 1 layers: 8.00e-07 predicted, 9.13e-07 measured>"

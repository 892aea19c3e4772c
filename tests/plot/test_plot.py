"""Figures say what they show."""

import io

import pytest

from fastconv.plot import comparison_figure
from fastconv.plot.style import styles


def row(algorithm, points, scale):
    return {
        "algorithm": algorithm,
        "points": points,
        "relative_l2": 1e-7 * scale,
        "speed_vs_direct": 1.0 + scale / 10,
        "layer_relative_l2": [1e-7 * scale, 2e-7 * scale],
    }


@pytest.fixture
def data():
    rows = [row("direct", "", 1), row("F(2x2,3x3)", "lavin2016", 2), row("F(4x4,3x3)", "lavin2016", 6), row("F(4x4,3x3)", "alam2022", 4)]
    return {"network": "net", "images": 1, "reference": "fp64", "layers": ["one", "two"], "rows": rows}


def test_each_algorithm_has_a_line_with_its_values(data):
    left, right = comparison_figure(data).axes
    assert [list(line.get_ydata()) for line in left.lines] == [r["layer_relative_l2"] for r in data["rows"]]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in right.lines if line.get_marker() != "None"]
    assert points == [(r["speed_vs_direct"], r["relative_l2"]) for r in data["rows"]]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["one", "two"]


def test_axes_are_labelled_and_lines_differ(data):
    figure = comparison_figure(data)
    for ax in figure.axes:
        assert "error" in ax.get_ylabel()
        assert ax.get_xlabel()
        assert ax.get_yscale() == "log"
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len(set(looks)) == len(looks)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["direct", "F(2x2,3x3)  lavin2016", "F(4x4,3x3)  lavin2016", "F(4x4,3x3)  alam2022"]
    assert "1 image," in figure.get_suptitle()


def test_every_line_of_many_looks_different():
    """More algorithms than colours, and many point sets of one algorithm."""
    for names in ([f"F({m}x{m},3x3)" for m in range(40)], ["F(4x4,3x3)"] * 40, [f"F({k % 9})" for k in range(40)]):
        looks = [tuple(map(str, style.values())) for style in styles(names)]
        assert len(set(looks)) == len(looks)
        assert len({style["color"] for style in styles(names)}) == min(7, len(set(names)))
    rows = [row(f"F({m}x{m},3x3)", "", m) for m in range(1, 12)]
    figure = comparison_figure({"network": "net", "images": 1, "reference": "fp64", "layers": ["one", "two"], "rows": rows})
    for ax, count in zip(figure.axes, (11, 12), strict=True):  # on the right, a line at the speed of direct convolution
        assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == count


def test_titles_claim_nothing_about_the_data(data):
    assert [ax.get_title(loc="left") for ax in comparison_figure(data).axes] == ["Error of each layer", "Error against speed"]


def test_values_that_are_not_finite_leave_gaps(data):
    data["rows"][1]["layer_relative_l2"][1] = None
    data["rows"][1]["relative_l2"] = None
    file = io.BytesIO()
    comparison_figure(data).savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


def test_more_rows_take_more_room(data):
    heights = []
    for count in (3, 4, 12):
        data["rows"] = [row(f"F({k})", "", k + 1) for k in range(count)]
        heights.append(comparison_figure(data).get_size_inches()[1])
    assert heights == sorted(set(heights))

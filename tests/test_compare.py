"""The comparison: its numbers against numbers computed here, its JSON, its table, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_network_run import chain

import fastconv as fc
from fastconv.network.compare import after, contenders, published_contenders

KEYS = [
    "algorithm",
    "points",
    "multiplications_per_output",
    "relative_l2",
    "max_abs",
    "metric",
    "seconds",
    "speed_vs_direct",
    "layer_relative_l2",
]


@pytest.fixture(scope="module")
def net():
    return fc.load_onnx(chain())


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(2).standard_normal((5, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def report(net, x):
    return fc.compare(net, {"x": x}, ["F(2x2,3x3)", "im2col", ("F(4x4,3x3)", "lavin2016", published_contenders()[1].algorithm)], batch=2)


def test_object_of_the_interface(report):
    made = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert list(made) == ["network", "images", "reference", "layers", "rows"]
    assert (made["network"], made["images"], made["reference"]) == ("chain", 5, "fp64")
    assert made["layers"] == ["dense", "strided", "dilated", "grouped", "pointwise", "lopsided"]
    assert all(list(row) == KEYS for row in made["rows"])
    assert [row["algorithm"] for row in made["rows"]] == ["direct", "F(2x2,3x3)", "im2col", "F(4x4,3x3)"]
    assert [row["multiplications_per_output"] for row in made["rows"]] == [9, 4, 9, 2.25]
    assert made["rows"][3]["points"] == "lavin2016"
    assert all(len(row["layer_relative_l2"]) == 6 for row in made["rows"])
    assert made["rows"][0]["speed_vs_direct"] == 1


def test_errors_are_those_of_the_whole_set_whatever_the_batch(net, x, report):
    runner, exact = net.prepare("F(2x2,3x3)"), net.prepare("direct", "fp64")
    # Kernels may choose blocks by the batch, so that only float64's share is the same: compare batch by batch.
    parts = [x[:2], x[2:4], x[4:]]
    got = [runner({"x": part}, ["dense.relu"]) for part in parts]
    truth = [exact({"x": part}, ["dense.relu"]) for part in parts]
    for name, value in (("y", report.rows[1].relative_l2), ("dense.relu", report.rows[1].layer_relative_l2[0])):
        a, b = (np.concatenate([part[name] for part in side]).astype(np.float64) for side in (got, truth))
        assert value == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-6)
    difference = np.concatenate([g["y"] - t["y"] for g, t in zip(got, truth, strict=True)])
    assert report.rows[1].max_abs == pytest.approx(np.abs(difference).max(), rel=1e-6)


def test_larger_tiles_lose_more(report):
    error = {row.algorithm: row.layer_relative_l2[0] for row in report.rows}
    assert 0 < error["direct"] < error["F(4x4,3x3)"] < 1e-4
    assert error["F(2x2,3x3)"] < error["F(4x4,3x3)"]


def test_without_a_metric_classes_are_compared(report):
    assert report.rows[0].metric["agreement_direct"] == 1
    assert report.rows[0].metric["agreement_fp64"] == 1


def test_metric_sees_all_images(net, x):
    seen = []

    def metric(outputs, reference, direct):
        seen.append((outputs["y"].shape, reference["y"].dtype, direct["y"].dtype))
        return {"answer": 42, "bad": float("nan")}

    rep = fc.compare(net, {"x": x}, ["F(2x2,3x3)"], metric=metric, batch=2)
    assert seen == [((5, 2), np.float64, np.float32)] * 2
    assert rep.to_dict()["rows"][0]["metric"] == {"answer": 42, "bad": None}


def test_progress_ends_at_its_total(net, x):
    steps = []
    fc.compare(net, {"x": x}, ["F(2x2,3x3)"], batch=2, repeats=4, progress=lambda done, total, label: steps.append((done, total)))
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, total in steps} == {len(steps)}


def test_layers_are_measured_behind_their_activation(net):
    first = net.graph.convolutions[0]
    assert after(net.graph, first) == "dense.relu"


def test_published_contenders_merge_equal_sets():
    rows = [(c.label, c.points) for c in published_contenders()]
    assert rows == [
        ("F(2x2,3x3)", "lavin2016, barabasz2020"),
        ("F(4x4,3x3)", "lavin2016"),
        ("F(4x4,3x3)", "barabasz2020"),
        ("F(4x4,3x3)", "alam2022"),
        ("F(6x6,3x3)", "barabasz2020"),
    ]


def test_table_has_a_line_a_row(report):
    lines = report.table().splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["algorithm", "points"]
    assert "lavin2016" in lines[4]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"algorithms": "direct"}, TypeError, "must be a list"),
        ({"algorithms": [3]}, TypeError, "an algorithm is a name"),
        ({"algorithms": ["F(2x2,3y3)"]}, ValueError, "F"),
        ({"reference": "fp128"}, ValueError, "unknown reference 'fp128'"),
        ({"repeats": 0}, ValueError, "repeats must be a positive integer"),
        ({"batch": 1.5}, ValueError, "batch must be a positive integer"),
    ],
)
def test_bad_options(net, x, options, kind, message):
    with pytest.raises(kind, match=message):
        fc.compare(net, {"x": x}, **options)


def test_bad_feeds(net, x):
    with pytest.raises(ValueError, match="no input 'z'"):
        fc.compare(net, {"z": x}, ["direct"])


def test_overflow_is_reported_as_none_not_hidden(net, x):
    wild = x.copy()
    wild[0, 0, 3, 3] = np.inf
    rep = fc.compare(net, {"x": wild}, ["F(2x2,3x3)"], batch=2)
    assert all(row["layer_relative_l2"][0] is None and row["relative_l2"] is None for row in rep.to_dict()["rows"])


def test_batch_follows_the_memory_limit(x):
    net = fc.load_onnx(chain(), memory_limit=100_000)
    seen = []
    fc.compare(net, {"x": x}, ["F(2x2,3x3)"], repeats=1, progress=lambda done, total, label: seen.append(label))
    # One image of 3 x 16 x 16 with its layers in float64 takes 13 to 25 kB, four times which must fit.
    assert seen.count("float64") == 5


def test_pictures_are_compared_by_psnr():
    from fastconv.network.compare import agreement

    truth = {"y": np.linspace(0, 1, 48).reshape(1, 3, 4, 4)}
    assert agreement({"y": truth["y"] + 0.01}, truth, truth)["psnr_fp64"] == pytest.approx(40)
    assert agreement(truth, truth, truth)["psnr_fp64"] == np.inf


def test_direct_is_first_and_once():
    assert [c.label for c in contenders(["im2col", "direct", fc.algorithm("F(2x2,3x3)")])] == ["direct", "im2col", "F(2x2,3x3)"]

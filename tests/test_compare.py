"""The comparison: its numbers against numbers computed here, its JSON, its table, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.models import chain

import fastconv as fc
from fastconv.network.study.compare import after, contenders, published_contenders

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
    "policy",
    "channel_sum",
    "overflows",
    "scales",
    "ran",
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
    known = [(done, total) for done, total in steps if total]
    assert known == [(done, len(known) - 1) for done in range(len(known))]
    assert steps[: -len(known)] == [(0, 0)]


def test_progress_says_what_comes(net, x):
    labels = []
    fc.compare(net, {"x": x}, ["fitted F(2x2,3x3)"], batch=5, repeats=2, progress=lambda done, total, label: labels.append(label))
    choosing = ["choosing points, fitted F(2x2,3x3)" + layer for layer in ("", ": dense", ": lopsided")]
    assert labels[:3] == choosing
    first = labels.index("first run in float64")
    assert all(label.startswith(choosing[0]) for label in labels[:first])
    firsts = [f"{name}, first run: compiles and transforms weights" for name in ("direct", "F(2x2,3x3) fitted")]
    assert labels[first + 1 :] == [*firsts, "reference in float64", "direct", "F(2x2,3x3) fitted", "F(2x2,3x3) fitted", "direct", "done"]


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
    assert lines[0].split()[:2] == ["algorithm", "points"]
    assert "lavin2016" in lines[4]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5] == ""


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"algorithms": "direct"}, TypeError, "must be a list"),
        ({"algorithms": [3]}, TypeError, "an algorithm is a name"),
        ({"algorithms": ["F(2x2,3y3)"]}, ValueError, "F"),
        ({"reference": "fp128"}, ValueError, "unknown reference 'fp128'"),
        ({"policies": "fp16"}, TypeError, "must be a list of policies"),
        ({"policies": ["fp13"]}, ValueError, "unknown policy 'fp13'"),
        ({"policies": []}, ValueError, "nothing to compare"),
        ({"channel_sums": ["odd"]}, ValueError, "unknown channel sum 'odd'"),
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
    assert seen.count("reference in float64") == 5


def test_pictures_are_compared_by_psnr():
    from fastconv.network.study.compare import agreement

    truth = {"y": np.linspace(0, 1, 48).reshape(1, 3, 4, 4)}
    assert agreement({"y": truth["y"] + 0.01}, truth, truth)["psnr_fp64"] == pytest.approx(40)
    assert agreement(truth, truth, truth)["psnr_fp64"] == np.inf


@pytest.fixture(scope="module")
def in_policies(net, x):
    return fc.compare(net, {"x": x}, ["F(4x4,3x3)"], policies=["fp32", "fp16", "fp16-balanced"], channel_sums=[None, "pairwise"], batch=2)


def test_every_policy_and_sum_has_a_row(in_policies):
    rows = [(row.algorithm, row.policy, row.channel_sum) for row in in_policies.rows]
    policies = ("fp32", "fp16", "fp16-balanced")
    assert rows == [(a, p, s) for p in policies for s in (None, "pairwise") for a in ("direct", "F(4x4,3x3)")]
    for row in in_policies.rows:
        unit = 2**-11 if row.policy.startswith("fp16") else 2**-24
        assert unit / 50 < row.relative_l2 < 60 * unit
        assert np.isnan(row.speed_vs_direct) == (row.policy != "fp32" or row.channel_sum is not None)
        assert bool(row.scales) == (row.policy == "fp16-balanced" and row.algorithm != "direct")


def test_emulated_rows_are_what_the_network_gives(net, x, in_policies):
    got = np.concatenate([net.run({"x": part}, "F(4x4,3x3)", "fp16", channel_sum="pairwise")["y"] for part in (x[:2], x[2:4], x[4:])])
    exact = net.run({"x": x}, policy="fp64")["y"]
    row = in_policies.rows[7]
    assert row.relative_l2 == pytest.approx(np.linalg.norm(got - exact) / np.linalg.norm(exact), rel=1e-9)


def test_policies_have_columns_only_where_there_are_any(report, in_policies):
    (plain,), (table,) = report.tables(), in_policies.tables()
    assert "policy" not in plain.header
    assert table.header[2:4] == ("policy", "sum")
    assert "overflows" in table.header
    assert {len(row) for row in table.rows} == {len(table.header)}
    json.dumps(in_policies.to_dict(), allow_nan=False)


def test_overflows_are_reported_by_layer_and_stage(net, x):
    rep = fc.compare(net, {"x": x * np.float32(9000)}, ["F(6x6,3x3)"], policies=["fp16"], batch=5)
    assert rep.rows[0].overflows == {}
    assert rep.rows[1].overflows["dense"]["input"] > 0
    assert rep.to_dict()["rows"][1]["relative_l2"] is None


def test_metric_sees_direct_of_its_own_policy(net, x):
    def metric(outputs, reference, direct):
        return {"distance": float(np.abs(outputs["y"] - direct["y"]).max())}

    rep = fc.compare(net, {"x": x}, ["F(2x2,3x3)"], policies=["fp32", "bf16"], metric=metric)
    assert [row.metric["distance"] == 0 for row in rep.rows] == [True, False, True, False]


def test_intervals_are_shown_with_their_metric():
    from fastconv.network.study.compare import Comparison, Row, with_interval

    # Wilson's interval of 8 of 10, from his formula: (0.8 + z^2/20 -+ z sqrt(0.016 + z^2/400)) / (1 + z^2/10).
    metric = with_interval("top1", 8, 10)
    assert metric == pytest.approx({"top1": 0.8, "top1_low": 0.4901624, "top1_high": 0.9433178}, abs=1e-6)
    shown = Comparison("n", 10, "fp64", (), (Row("direct", "", 9.0, 1e-7, 1e-7, metric, 1.0, 1.0, ()),))
    (table,) = shown.tables()
    assert table.header[5] == "top1"
    assert table.rows[0][5] == "0.8"
    assert "top1: share of the images classified correctly (95 % interval: ±0.23 at most)" in table.notes[0]


def test_direct_is_first_and_once():
    assert [c.label for c in contenders(["im2col", "direct", fc.algorithm("F(2x2,3x3)")])] == ["direct", "im2col", "F(2x2,3x3)"]


def test_few_contenders_are_in_memory_at_once(net, x):
    """Whatever the memory, the numbers are the same."""
    tight = fc.load_onnx(chain(), memory_limit=100_000)
    steps = []
    options = {"policies": ["fp32", "fp16"], "batch": 3, "repeats": 2}
    wide = fc.compare(net, {"x": x}, ["F(2x2,3x3)", "F(4x4,3x3)"], **options)
    got = fc.compare(tight, {"x": x}, ["F(2x2,3x3)", "F(4x4,3x3)"], **options, progress=lambda *step: steps.append(step))
    for one, other in zip(got.rows, wide.rows, strict=True):
        assert (one.algorithm, one.policy, one.overflows) == (other.algorithm, other.policy, other.overflows)
        assert one.relative_l2 == pytest.approx(other.relative_l2, rel=1e-9)
        assert one.layer_relative_l2 == pytest.approx(other.layer_relative_l2, rel=1e-9)
        assert np.isnan(one.speed_vs_direct) == (one.policy == "fp16")
    known = [(done, total) for done, total, _ in steps if total]
    assert known == [(done, len(known) - 1) for done in range(len(known))]


def test_contenders_are_grouped_by_the_weights_they_keep():
    from fastconv.network.study.contenders import crossed
    from fastconv.network.study.race import Race

    rivals = crossed(contenders(["F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"]), ["fp32", "fp16"], [None])
    exact = fc.load_onnx(chain()).prepare("direct", "fp64")
    sizes = {}
    for limit in (1, 100_000, 2**30):
        race = Race(fc.load_onnx(chain(), memory_limit=limit), exact, (), [{}], None, 1, None)
        groups = list(race.groups(rivals))
        assert [rival for group in groups for rival in group] == list(rivals)
        sizes[limit] = [len(group) for group in groups]
    assert sizes[1] == [1] * 8
    assert sizes[2**30] == [8]
    assert 1 < len(sizes[100_000]) < 8

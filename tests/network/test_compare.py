"""The comparison: numbers, JSON, table, and bad input."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import chain, dense_chain

import fastconv as fc
from fastconv.network.study import counted, final_error, ratio, square
from fastconv.network.study.compare import (
    Comparison,
    Row,
    _batches,
    after,
    agreement,
    contenders,
    first_images,
    published_contenders,
    usual_contenders,
)
from fastconv.network.study.count import fast_share, multiply_adds
from fastconv.network.study.race import length

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
def report(net, x):
    return fc.compare(net, {"x": x}, ["F(2x2,3x3)", "im2col", ("F(4x4,3x3)", "lavin2016", published_contenders()[1].algorithm)], batch=2)


def test_object_of_the_interface(report):
    made = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert list(made) == ["network", "images", "reference", "layers", "rows", "own_precision"]
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
    # Kernels may choose blocks by the batch size, so only float64 results are the same: compare batch by batch.
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
    # One image of 3 x 16 x 16 with its layers in float64 takes 13 to 25 kB, and four times that must fit.
    assert seen.count("reference in float64") == 5


def test_pictures_are_compared_by_psnr():
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
    from fastconv.network.study.compare import with_interval

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
    """The memory limit does not change the numbers."""
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


def written(*rows, layers=("one", "two"), images=10):
    return Comparison("net", images, "fp64", layers, rows)


def test_a_report_shows_every_number_in_its_place():
    direct = Row("direct", "", 9.0, 2.34e-7, 1.26e-6, {"top1": 0.93125}, 1.2345, 1.0, (1e-7, 2e-7), ran=2)
    fast = Row("F(4x4,3x3)", "fitted", 2.25, 5.678e-7, 2.34e-6, {"top1": 0.00012, "own": 7.0}, 12.345, 1.875, (3e-7, 4e-7), ran=2)
    (table,) = written(direct, fast).tables()
    assert table.header == ("algorithm", "points", "mult", "rel. L2", "max err", "top1", "own", "s", "speed")
    assert table.rows == (
        ("direct", "-", "9", "2.34e-07", "1.3e-06", "0.9313", "-", "1.234", "1.00x"),
        ("F(4x4,3x3)", "fitted", "2.25", "5.68e-07", "2.3e-06", "1.2e-04", "7", "12.3", "1.88x"),
    )
    assert (table.left, table.keys, table.long) == (2, 2, ("points",))
    assert table.notes == (
        "mult: multiplications per output and channel; rel. L2, max err: error of the output against the same network in fp64; "
        "top1: share of the images classified correctly; s: median seconds for all images; speed: relative to direct",
    )
    assert repr(written(direct, fast)) == "<Comparison on net: 2 rows, 10 images, fp32>"


def test_a_report_in_policies_shows_them_and_where_they_ran():
    spilt = {"one": {"input": 2, "product": 3}, "two": {"input": 5}}
    plain = Row("direct", "", None, 2e-7, 1e-6, {}, 10.0, 1.0, (), ran=2)
    rows = plain, replace(plain, policy="fp16", overflows=spilt, seconds=math.nan, speed_vs_direct=math.nan, ran=1)
    (table,) = written(*rows).tables()
    assert table.header == ("algorithm", "points", "policy", "layers", "overflows", "mult", "rel. L2", "max err", "s", "speed")
    assert table.rows == (
        ("direct", "-", "fp32", "2/2", "0", "-", "2.00e-07", "1.0e-06", "10", "1.00x"),
        ("direct", "-", "fp16", "1/2", "10", "-", "2.00e-07", "1.0e-06", "-", "-"),
    )
    assert (table.left, table.keys) == (3, 3)
    assert table.notes[0].startswith("layers: those that ran the algorithm; the others ran direct; mult: ")
    assert repr(written(*rows)).endswith("2 rows, 10 images, fp32, fp16>")
    (table,) = written(plain, replace(plain, channel_sum="pairwise")).tables()
    assert table.header[:4] == ("algorithm", "points", "policy", "sum")
    assert [row[:6] for row in table.rows] == [("direct", "-", "fp32", "-", "0", "-"), ("direct", "-", "fp32", "pairwise", "0", "-")]


def test_intervals_belong_to_the_metric_whose_name_they_begin_with():
    metric = {"own_share": 0.5, "own_share_low": 0.25, "own_share_high": 0.75, "lonely_low": 3.0}
    wider = metric | {"own_share_low": 0.125, "own_share_high": 0.875}
    rows = [Row("direct", "", 9.0, 1e-7, 1e-7, m, 1.0, 1.0, (), ran=2) for m in (metric, wider)]
    (table,) = written(*rows).tables()
    assert table.header[5:7] == ("own_share", "lonely_low")
    assert "; own_share:  (95 % interval: ±0.38 at most); s: " in table.notes[0]
    titles = {"agreement": "agree", "agreement_fp64": "agree64", "logit_error": "logits", "psnr_fp64": "PSNR"}
    (table,) = written(Row("direct", "", 9.0, 1e-7, 1e-7, dict.fromkeys(titles, -0.0001), 1.0, 1.0, (), ran=2)).tables()
    assert table.header[5:-2] == tuple(titles.values())
    assert table.rows[0][5:-2] == ("-1.0e-04",) * 4
    assert "agree64: share classified as in float64; logits: root mean square error of the logits; PSNR: against" in table.notes[0]


def test_a_report_as_plain_data_keeps_every_field():
    scales, spilt = {"one": (3, -2)}, {"two": {"input": 5}}
    row = Row(
        "F", "p", 2.25, math.inf, 1e-6, {"a": math.nan, "b": 2.0}, math.nan, 3.0, (1e-7, math.inf), "fp16", "blocked", spilt, scales, 1
    )
    assert written(row).to_dict()["rows"] == [
        {
            "algorithm": "F",
            "points": "p",
            "multiplications_per_output": 2.25,
            "relative_l2": None,
            "max_abs": 1e-6,
            "metric": {"a": None, "b": 2.0},
            "seconds": None,
            "speed_vs_direct": 3.0,
            "layer_relative_l2": [1e-7, None],
            "policy": "fp16",
            "channel_sum": "blocked",
            "overflows": {"two": {"input": 5}},
            "scales": {"one": [3, -2]},
            "ran": 1,
        }
    ]


def convolutions(*shapes):
    """Return a network of parallel convolutions of one image."""
    nodes = [helper.make_node("Conv", ["x", f"w{k}"], [f"y{k}"], f"c{k}") for k in range(len(shapes))]
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), f"w{k}") for k, shape in enumerate(shapes)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2, 12, 12]) for name in ("x",)]
    leaves = [helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, None) for k in range(len(shapes))]
    graph = helper.make_graph(nodes, "g", infos, leaves, weights)
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def test_the_usual_contenders_are_of_the_commonest_square_kernel():
    net = convolutions((3, 2, 5, 5), (3, 2, 5, 5), (3, 2, 3, 3), (3, 2, 1, 7), (3, 2, 1, 7), (3, 2, 1, 7), *[(3, 2, 1, 1)] * 4)
    names = [c if isinstance(c, str) else c.label for c in usual_contenders(net, ("fastconv",))]
    assert names == ["F(2x2,5x5)", "F(4x4,5x5)", "F(6x6,5x5)", "fitted F(4x4,5x5)"]
    assert [c.label for c in usual_contenders(net, ("fastconv",), fit=False)] == names[:3]
    assert usual_contenders(convolutions((3, 2, 1, 1), (3, 2, 1, 7))) == ()
    feeds = {"x": np.ones((1, 2, 12, 12), np.float32)}
    report = fc.compare(net, feeds, ["im2col", "auto", ("both", "", ("F(2x2,5x5)"))], repeats=1)
    assert [row.multiplications_per_output for row in report.rows] == [25, 25, None, 9]
    assert [row.ran for row in report.rows][::3] == [10, 2]
    few = convolutions((3, 2, 5, 4), (3, 2, 5, 4), (3, 2, 3, 3))
    assert [row.multiplications_per_output for row in fc.compare(few, feeds, ["im2col"], repeats=1).rows] == [20, 20]
    (_, row) = fc.compare(few, feeds, ["F(3x2,5x4)"], repeats=1).rows
    assert row.multiplications_per_output == pytest.approx(7 * 5 / 6)


def test_images_are_counted_and_cut_along_the_first_axis(net, x):
    assert [part["x"].shape[0] for part in _batches(net, {"x": x}, 2)[1]] == [2, 2, 1]
    assert [part["x"].shape[0] for part in _batches(net, {"x": x}, 5)[1]] == [5]
    assert _batches(net, {"x": x}, 2)[0] == 5
    assert _batches(net, {}, 2) == (1, [{}])
    number = np.float32(3)
    cut = first_images({"x": x, "n": number}, 2)
    np.testing.assert_array_equal(cut["x"], x[:2])
    assert cut["n"] is number
    with pytest.raises(ValueError, match="the number of images is 0: pass a positive one"):
        first_images({"x": x}, 0)
    assert len(first_images({"x": x}, 1)["x"]) == 1
    with pytest.raises(ValueError, match=r"the inputs have the first lengths \[2, 5\]: pass as many images in each"):
        first_images({"x": x, "z": x[:2]}, 1)
    fixed = fc.load_onnx(dense_chain())
    given = np.zeros((6, 16, 20, 20), np.float32)
    assert [len(part["x"]) for part in _batches(fixed, {"x": given}, 5)[1]] == [2, 2, 2]
    assert [len(part["x"]) for part in _batches(fixed, {"x": given[:5]}, 1)[1]] == [5]


def test_agreement_is_of_the_first_output():
    truth = np.array([[1.0, 2, 3], [3, 2, 1]])
    got, other = np.array([[1.0, 2, 3], [1, 2, 0]]), np.array([[5.0, 2, 3], [0, 2, 1]])
    found = agreement({"y": got}, {"y": truth}, {"y": other})
    assert found == {"agreement_fp64": 0.5, "agreement_direct": 0.5, "logit_error": pytest.approx(math.sqrt(5 / 6))}
    assert agreement({"y": got}, {"y": truth}, {"y": got})["agreement_direct"] == 1
    one = np.array([[1.0], [3]])
    assert agreement({"y": one + 0.2}, {"y": one}, {}) == {"psnr_fp64": pytest.approx(20)}
    assert agreement({"y": one}, {"y": one}, {}) == {"psnr_fp64": math.inf}
    assert math.isnan(agreement({"y": one}, {"y": one * 0}, {})["psnr_fp64"])
    assert math.isnan(agreement({"y": one * np.nan}, {"y": one}, {})["psnr_fp64"])
    assert agreement({"y": np.arange(3)}, {"y": np.arange(3)}, {}) == {}
    assert agreement({"y": one[:0]}, {"y": one[:0]}, {}) == {}


def test_layers_that_run_an_algorithm_are_counted():
    small, large = fc.algorithm("F(2x2,3x3)"), fc.algorithm("F(4x4,3x3)")
    assert counted("F(2x2,3x3)", small, [small, "direct", large, small]) == 2
    assert counted("F(2x2,3x3)", "F(2x2,3x3)", [small, "direct"]) == 1
    assert counted("fitted", {"a": small}, [small, "direct", large]) == 2
    assert counted("direct", "direct", ["direct", "auto"]) == 1
    assert counted("im2col", "im2col", ["direct"]) == 0
    assert counted("F(2x2,3x3)", small, []) == 0
    for rival in (small, {"a": small}):
        with pytest.raises(ValueError, match=r"no convolution of the network can run F\(2x2,3x3\)"):
            counted("F(2x2,3x3)", rival, ["direct"])


def test_the_share_of_fast_layers_is_that_of_their_multiply_adds():
    feeds = {"x": np.ones((1, 2, 12, 12), np.float32)}
    net = convolutions((3, 2, 5, 5), (3, 2, 1, 7), (3, 2, 3, 3), (3, 2, 3, 2), (3, 2, 1, 1))
    counts = multiply_adds(net, feeds)
    assert list(counts.values()) == [6 * n for n in (25 * 64, 7 * 12 * 6, 9 * 100, 6 * 110, 144)]
    assert fast_share(net, feeds) == (25 * 64 + 9 * 100) / (25 * 64 + 7 * 72 + 900 + 660 + 144)
    assert fast_share(convolutions((3, 2, 1, 1)), feeds) == 0


def test_sums_of_squares_and_final_errors():
    x = np.ones(2**15 + 3, np.float32) * 2
    assert square(x) == 4 * (2**15 + 3)
    assert square(x, x - 1) == 2**15 + 3
    assert (ratio(9, 4), ratio(0, 0), ratio(1, 0)) == (1.5, 0, math.inf)
    truth = {"a": np.array([3.0, 0]), "k": np.array([7]), "b": np.array([4.0])}
    got = {"a": np.array([3.0, 1]), "k": np.array([9]), "b": np.array([2.0])}
    assert final_error(got, truth) == (pytest.approx(math.sqrt(5) / 5), 2)
    assert final_error({"k": got["k"]}, {"k": truth["k"]}) == (pytest.approx(2 / 7), 2)
    assert length({"n": np.float32(3), "x": np.ones((4, 2)), "y": np.ones((5, 2))}) == 5
    assert length({"n": np.float32(3)}) == 1

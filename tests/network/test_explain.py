"""Explanations describe what a network runs, and error limits determine it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import dense_chain, model

import fastconv as fc
from fastconv.cli import main
from fastconv.kernels.choose import estimated, relative_error
from fastconv.network import explain as explain_module
from fastconv.network.explain import Explanation, LayerChoice, Option
from fastconv.network.run.own import estimated_direct
from fastconv.plot import explanation_figure


@pytest.fixture(scope="module")
def net():
    return fc.load_onnx(dense_chain())


@pytest.fixture
def feeds():
    return {"x": np.random.default_rng(1).standard_normal((2, 16, 20, 20)).astype(np.float32)}


def test_it_says_what_runs(net, feeds):
    found = net.explain(feeds, algorithm={"first": "F(2x2,3x3)", "strided": "direct", "last": "F(4x4,3x3)"}, threads=1)
    assert found.algorithms == {"first": "F(2x2,3x3)", "strided": "direct", "last": "F(4x4,3x3)"}
    assert [layer.output_shape for layer in found.layers] == [(2, 16, 20, 20), (2, 16, 10, 10), (2, 16, 10, 10)]
    assert [[o.algorithm for o in layer.options] for layer in found.layers][1] == ["direct", "onnxruntime", "F(2x2,3x3)s2", "F(4x4,3x3)s2"]
    for layer in found.layers:
        assert layer.chosen.workspace_bytes > 0
        assert layer.chosen.weight_bytes >= 16 * 16 * 9 * 4
        assert layer.chosen.seconds > 0
    assert found.layers[0].chosen.multiplications_per_output == 4
    assert found.layers[2].chosen.multiplications_per_output == 2.25
    assert "first" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["layers"][0]["why"]


def test_predictions_are_near_what_is_measured(net, feeds):
    found = net.explain(feeds, measure=True, threads=1)
    for layer in found.layers:
        for option in layer.options:
            # The closed form assumes independent numbers; a factor of two covers rectified inputs and one draw of weights.
            assert option.measured_error / 2 < option.predicted_error < 2 * option.measured_error, (layer.name, option)


@pytest.mark.parametrize("scale", [10.0, 0.1])
def test_predictions_do_not_depend_on_the_scale_of_weights(net, feeds, scale):
    scaled = fc.load_onnx(dense_chain(scale=scale))
    fixed = "F(4x4,3x3)"
    for given in (feeds, None):
        one, other = net.explain(given, algorithm=fixed, threads=1), scaled.explain(given, algorithm=fixed, threads=1)
        assert other.predicted_error == pytest.approx(one.predicted_error, rel=1e-3)
        rms = [layer.input_rms * scale**k for k, layer in enumerate(one.layers)]
        assert [layer.input_rms for layer in other.layers] == pytest.approx(rms, rel=1e-3)


def share_of_direct(found):
    """Return the estimated time relative to direct convolution, as each explanation measures the machine's speed anew."""
    direct = [option.seconds for layer in found.layers for option in layer.options if option.algorithm == "direct"]
    return sum(found.seconds()) / sum(direct)


def test_the_error_that_is_allowed_decides(net, feeds):
    free = net.explain(feeds, max_error=1.0, threads=1)
    assert free.within
    hopeless = net.explain(feeds, max_error=1e-12, threads=1)
    limit = math.sqrt(free.predicted_error * hopeless.predicted_error) * (1 + 1e-12)  # they may be the same
    tight = net.explain(feeds, max_error=limit, threads=1)
    assert tight.within
    assert tight.predicted_error <= limit
    assert share_of_direct(tight) >= share_of_direct(free)
    truth = net.run(feeds, policy="fp64")["last.relu"]
    got = net.run(feeds, tight.algorithms)["last.relu"]
    # The expected error is a root mean square; the error of these 3,200 outputs together is below twice that.
    assert np.linalg.norm(got - truth) < 2 * tight.predicted_error * np.linalg.norm(truth)
    assert not hopeless.within
    assert "no choice of algorithms" in hopeless.summary()
    for layer in hopeless.layers:
        assert layer.chosen.predicted_error == min(o.predicted_error for o in layer.options)


def test_without_inputs_the_model_says_their_shapes(net):
    found = net.explain(threads=1)
    assert found.inputs == "independent numbers of variance one"
    (first, *_) = fc.load_onnx(dense_chain(("N", 16, 20, 20))).explain(threads=1).layers
    assert first.input_shape == (1, 16, 20, 20)
    with pytest.raises(ValueError, match=r"leaves a length of its input open \(x: float32 \(N, 16, H, 20\)\): pass inputs, or those of"):
        fc.load_onnx(dense_chain(("N", 16, "H", 20))).explain()
    with pytest.raises(ValueError, match="max_error is -1"):
        net.explain(max_error=-1)


def test_direct_layers_of_more_products_err_more():
    assert relative_error(None, 4, (3, 3)) < relative_error(None, 64, (3, 3)) < relative_error(None, 1024, (3, 3)) < 3e-7


def test_the_figure_has_a_line_for_each_algorithm_and_the_choice(net, feeds):
    found = net.explain(feeds, max_error=1e-6, threads=1)
    upper, lower = explanation_figure(found).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in upper.lines}
    for name in ("direct", "F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"):
        assert lines[name] == found.growth(name)
    assert lines["as chosen"] == found.growth()
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["first", "strided", "last"]
    names = {option.algorithm for layer in found.layers for option in layer.options}
    curves = [line for line in upper.lines if line.get_label() in names]
    assert len({(line.get_color(), line.get_marker()) for line in curves}) == len(curves) == len(names)
    colour = {line.get_label(): line.get_color() for line in curves}
    filled = [line for line in lower.lines if line.get_markerfacecolor() == line.get_color() and line.get_marker() != "None"]
    chosen = {layer.algorithm for layer in found.layers}
    assert {line.get_color() for line in filled if len(line.get_xdata())} == {colour[name] for name in chosen}
    points = ((x, y) for line in lower.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True))
    milliseconds = {(k, o.seconds * 1e3) for k, layer in enumerate(found.layers, 1) for o in layer.options}
    chosen_ones = {(k, layer.chosen.seconds * 1e3) for k, layer in enumerate(found.layers, 1)}
    assert chosen_ones <= set(points) <= milliseconds


def test_the_command_line(tmp_path, capsys, feeds):
    path = tmp_path / "chain.onnx"
    onnx.save(dense_chain(), path)
    np.save(tmp_path / "x.npy", feeds["x"])
    common = ["networks", str(path), "--explain", "--threads", "1", "--output", str(tmp_path)]
    assert main([*common, "--input", str(tmp_path / "x.npy"), "--algorithm", "first=F(2x2,3x3);last=direct", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["algorithm"] for layer in layers][::2] == ["F(2x2,3x3)", "direct"]
    assert (tmp_path / "fastconv-explain-chain.png").stat().st_size > 10_000
    assert main([*common, "--max-error", "1e-12"]) == 1  # the limit was not kept
    assert "no choice of algorithms" in " ".join(capsys.readouterr().out.split())
    assert main(["networks", "--explain"]) == 2
    assert main(["networks", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_what_is_explained_can_be_run_as_it_is():
    """Rectangles, strides and phases have names that `run` accepts."""

    rng = np.random.default_rng(3)
    shapes = {"a": (16, 3, 7, 7), "b": (128, 16, 3, 3), "c": (128, 128, 3, 3), "d": (8, 128, 1, 5)}
    settings = {"a": {"strides": [2, 2], "pads": [3] * 4}, "b": {"strides": [2, 2], "pads": [1] * 4}, "c": {"pads": [1] * 4}, "d": {}}
    nodes = [
        helper.make_node("Conv", [before, f"w{name}"], [name], name, **settings[name]) for before, name in zip("xabc", "abcd", strict=True)
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 3, 56, 56]), ("d", None))]
    weights = [numpy_helper.from_array(rng.standard_normal(shape).astype("f4"), f"w{name}") for name, shape in shapes.items()]
    net = fc.load_onnx(helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)))
    feeds = {"x": rng.standard_normal((1, 3, 56, 56)).astype("f4")}
    pinned = {"b": "F(4x4,3x3)s2", "c": "F(5x3,3x3)", "d": "F(1x4,1x5)", "a": "phases"}
    found = net.explain(feeds, algorithm=pinned)
    assert found.algorithms == pinned
    np.testing.assert_array_equal(net.run(feeds, found.algorithms)["d"], net.run(feeds, pinned)["d"])
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["c"].chosen.multiplications_per_output == pytest.approx(35 / 15)
    assert by_name["b"].chosen.multiplications_per_output == pytest.approx(81 / 16)
    assert [option.algorithm for option in by_name["b"].options] == ["direct", "onnxruntime", "F(2x2,3x3)s2", "F(4x4,3x3)s2"]
    small, large = (next(o for o in by_name["c"].options if o.algorithm == name) for name in ("F(2x2,3x3)", "F(4x4,3x3)"))
    assert small.predicted_error < by_name["c"].chosen.predicted_error < 2 * large.predicted_error
    automatic = net.explain(feeds)
    np.testing.assert_array_equal(net.run(feeds, automatic.algorithms)["d"], net.run(feeds)["d"])
    with pytest.raises(ValueError, match="is not a dense 3x3 convolution of stride 2 and cannot run"):
        net.run(feeds, {"c": "F(4x4,3x3)s2"})
    for measure in (False, True):
        assert net.explain(feeds, max_error=1e-5, measure=measure).within


def test_every_figure_of_an_option_can_be_counted_again(net, feeds, monkeypatch):
    monkeypatch.setattr(explain_module, "_pace", lambda threads: 1e-9)
    asked = {"first": "F(6x6,3x3)", "strided": "F(2x2,3x3)s2", "last": "direct"}
    found = net.explain(feeds, algorithm=asked, threads=1)
    values = net.prepare("direct", threads=1)(feeds, dict.fromkeys(["first.relu", "strided.relu", "first.out", "strided.out", "last.out"]))
    entering = dict(zip(asked, (feeds["x"], values["first.relu"], values["strided.relu"]), strict=True))
    plans = net.prepare(asked, threads=1).plan
    net.run(feeds, asked, threads=1)
    for layer in found.layers:
        x, y, w = entering[layer.name], values[f"{layer.name}.out"], net.graph.constants[f"{layer.name}.w"]
        assert (layer.kernel, layer.input_shape, layer.output_shape) == ((3, 3), x.shape, y.shape)
        assert layer.input_rms == pytest.approx(float(np.sqrt(np.mean(x**2))), rel=1e-5)
        assert layer.algorithm == asked[layer.name]
        assert layer.subnormal_weights == 0
        # The error of independent numbers, relative to the layer's output: a sum of 9 * 16 products of their mean squares.
        noise = math.sqrt(9 * 16 * np.mean(x**2) * np.mean(w**2) / np.mean(y**2))
        for option in layer.options:
            if option.algorithm in ("direct", "onnxruntime"):
                axes, taps, bytes_ = (), 9.0, w.nbytes
            else:
                axes = fc.algorithms(option.algorithm)
                taps, bytes_ = (axes[0].products / axes[0].m) ** 2, 16 * 16 * 4 * axes[0].products ** 2
            assert option.multiplications_per_output == pytest.approx(taps)
            own = plans(layer.name).layer
            estimate = estimated_direct(own, 1) if option.algorithm == "onnxruntime" else estimated(own, axes, threads=1)
            assert estimate.error == relative_error(axes, 16, (3, 3))
            assert option.predicted_error == pytest.approx(estimate.error * noise, rel=1e-5)
            assert option.seconds == estimate.cycles * 1e-9
            assert option.measured_error is None
            if option is not layer.chosen:
                assert (option.weight_bytes, option.workspace_bytes) == (bytes_, None)
    total = math.sqrt(sum(layer.chosen.predicted_error**2 for layer in found.layers))
    assert found.predicted_error == pytest.approx(total)
    assert found.growth() == pytest.approx(np.sqrt(np.cumsum([layer.chosen.predicted_error**2 for layer in found.layers])))
    direct = [next(o for o in layer.options if o.algorithm == "direct") for layer in found.layers]
    assert found.growth("direct") == pytest.approx(np.sqrt(np.cumsum([o.predicted_error**2 for o in direct])))
    assert found.seconds("direct") == [o.seconds for o in direct]
    assert found.seconds("F(6x6,3x3)")[1] == direct[1].seconds  # where it cannot run
    assert found.threads == 1


def test_the_error_of_a_direct_layer_is_that_of_its_chains():
    """A chain rounds the sums of 1 to 128 products, then those of 2, 3, ... chains, all with the same relative error."""
    one = relative_error(None, 128, (1, 1))
    for chains in (2, 5, 64):
        rounds = sum(range(1, 129)) / 128 + sum(range(2, chains + 1)) / chains
        assert relative_error(None, 128 * chains, (1, 1)) == pytest.approx(one * math.sqrt(rounds / 64.5))
    assert relative_error(None, 16, (3, 3)) == relative_error(None, 144, (1, 1))
    assert relative_error(None, 16, (3, 3), np.float64) == relative_error(None, 16, (3, 3)) / 2**29


@pytest.mark.parametrize("name", ["direct", "F(4x4,3x3)", "F(8x8,3x3)/13"])
@pytest.mark.parametrize("channels", [8, 100, 1000])
def test_layers_err_as_expected(name, channels):
    """Two standard errors of a norm of 576 outputs are 6 %, with shared images and weights and few tiles for F(8x8)/13."""
    rng = np.random.default_rng(channels)
    x, w = rng.standard_normal((1, channels, 26, 26)), rng.standard_normal((16, channels, 3, 3))
    plan = fc.plan_conv2d(w.astype(np.float32), input_shape=x.shape, algorithm=name, threads=1)
    x, w = x.astype(np.float32).astype(float), w.astype(np.float32).astype(float)
    truth = fc.plan_conv2d(w, input_shape=x.shape, algorithm="im2col", threads=1)(x)
    error = np.linalg.norm(plan(x.astype(np.float32)) - truth) / np.linalg.norm(truth)
    assert error == pytest.approx(estimated(plan.layer, plan.method.axes or ()).error, rel=0.1)


@pytest.mark.parametrize(
    ("r", "expected"),
    [
        (2, ["F(2x2,2x2)"]),
        (3, ["F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)", "F(8x8,3x3)/13"]),
        (5, ["F(2x2,5x5)", "F(4x4,5x5)", "F(8x8,5x5)/14", "F(6x6,5x5)/13"]),
        (7, ["F(2x2,7x7)", "F(8x8,7x7)/19", "F(4x4,7x7)/13"]),
    ],
)
def test_tiles_that_are_offered_grow_with_the_kernel(r, expected):
    """A tile has ``m + r - 1`` products along an axis, plus one per pair of complex points. The chosen algorithm may be extra."""
    weights = numpy_helper.from_array(np.ones((4, 4, r, r), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    x = np.zeros((1, 4, 30, 30), np.float32)
    net = fc.load_onnx(model([node], {"x": x}, {"y": TensorProto.FLOAT}, initializers=[weights]))
    (layer,) = net.explain(threads=1).layers
    offered = [option.algorithm for option in layer.options if option.algorithm.startswith("F")]
    assert offered[: len(expected)] == expected
    assert set(offered[len(expected) :]) <= {layer.algorithm}


def option(algorithm, seconds, error, **more):
    return Option(algorithm, 4.0, error, seconds, 2**20, **more)


FIRST = LayerChoice(
    "first",
    (3, 5),
    (2, 16, 20, 24),
    (2, 8, 20, 24),
    1.5,
    "F(2x2,3x3)",
    "the fastest",
    (option("direct", 4e-3, 1e-7), option("F(2x2,3x3)", 2e-3, 3e-7, workspace_bytes=2**19), option("F(4x4,3x3)", 1e-3, 4e-6)),
)
LAST = LayerChoice("last", (1, 1), (2, 8, 20, 24), (2, 4, 20, 24), 0.5, "direct", "no other can", (option("direct", 5e-4, 4e-7),))


def test_a_report_shows_every_number_in_its_place():
    found = Explanation("net", "the given inputs", False, 3, 1e-6, (FIRST, LAST))
    assert found.predicted_error == pytest.approx(5e-7)
    assert found.within
    (table,) = found.tables()
    assert table.header == ("layer", "input", "taps", "algorithm", "why", "error", "ms", "direct", "MiB")
    assert table.rows == (
        ("first", "16x20x24", "3x5", "F(2x2,3x3)", "the fastest", "3.0e-07", "2.000", "4.000", "1.50"),
        ("last", "8x20x24", "1x1", "direct", "no other can", "4.0e-07", "0.500", "0.500", "-"),
    )
    assert (table.left, table.keys, table.long) == (5, 1, ("why",))
    said = "2 layers, 2.5 ms estimated, 4.5 ms direct; relative L2 error of 5.0e-07 expected at the output; statistics of the given inputs"
    assert table.notes[1] == found.summary() == f"{said}; 1.0e-06 is allowed"
    assert repr(found) == "<Explanation of net: 2 layers, 2.5 ms estimated, relative L2 error of 5.0e-07 expected>"
    assert found.seconds("F(4x4,3x3)") == [1e-3, 5e-4]
    assert found.growth("F(4x4,3x3)") == pytest.approx([4e-6, math.hypot(4e-6, 4e-7)])
    made = found.to_dict()
    head = ["network", "inputs", "measured", "threads", "max_error", "predicted_error", "within", "seconds", "layers"]
    assert list(made) == [*head, "inside", "computed"]
    assert (made["network"], made["measured"], made["threads"], made["max_error"], made["within"]) == ("net", False, 3, 1e-6, True)
    assert made["seconds"] == pytest.approx(2.5e-3)
    assert [layer["name"] for layer in made["layers"]] == ["first", "last"]
    measured = replace(found, measured=True, max_error=None)
    assert measured.within
    assert measured.summary() == said.replace("estimated", "measured")
    assert repr(measured) == repr(found).replace("estimated", "measured")
    assert replace(found, max_error=found.predicted_error).within
    tight = replace(found, max_error=1e-7)
    assert not tight.within
    assert tight.summary() == f"{said}; 1.0e-07 is allowed, which no choice of algorithms keeps in float32"


@pytest.mark.parametrize(("count", "names"), [(1, "a"), (3, "a, b, c"), (4, "a, b, c and 1 more"), (5, "a, b, c and 2 more")])
def test_layers_of_subnormal_weights_are_named(count, names):
    layers = [replace(LAST, name=name, subnormal_weights=k + 1) for k, name in enumerate("abcde"[:count])]
    text = Explanation("net", "the given inputs", False, 1, None, (LAST, *layers)).summary()
    assert text.endswith(f"; weights of {names} are subnormal and may be slow: fastconv.flush_subnormals takes them for zero")
    assert "subnormal" not in Explanation("net", "the given inputs", False, 1, None, (LAST,)).summary()


def test_a_bound_takes_the_cheapest_steps_to_it():
    """From the fastest options, the step with the fewest seconds per squared error removed comes first."""
    slow = replace(FIRST, name="slow", options=(option("direct", 9e-3, 1e-7), option("F(4x4,3x3)", 1e-3, 4e-6)))
    given = Explanation("net", "the given inputs", True, 1, None, (FIRST, slow))
    fast = explain_module._bounded(given, 1e-5)
    assert [layer.algorithm for layer in fast.layers] == ["F(4x4,3x3)", "F(4x4,3x3)"]
    assert [layer.why for layer in fast.layers] == ["chosen: the fastest, measured"] * 2
    middle = explain_module._bounded(given, 5e-6)
    assert [layer.algorithm for layer in middle.layers] == ["F(2x2,3x3)", "F(4x4,3x3)"]
    why = "chosen: F(4x4,3x3) is faster, but its error is too large here"
    assert [layer.why for layer in middle.layers] == [why, "chosen: the fastest, measured"]
    assert [layer.algorithm for layer in explain_module._bounded(given, 3.5e-7).layers] == ["F(2x2,3x3)", "direct"]
    assert [layer.algorithm for layer in explain_module._bounded(given, 1e-9).layers] == ["direct", "direct"]
    exact = math.hypot(4e-6, 4e-6)
    assert [layer.algorithm for layer in explain_module._bounded(given, exact).layers] == ["F(4x4,3x3)", "F(4x4,3x3)"]
    estimated = explain_module._bounded(replace(given, measured=False), 1e-5)
    assert estimated.layers[0].why == "chosen: the fastest, estimated"


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [  # milliseconds and errors, in 1e-6, of the exact and the fast option of two layers; one exact option is enough
        ((2, 3.9, 1, 4), (11, 0.1, 1, 4), ["F(2x2,3x3)", "direct"]),  # a small gain in error for little time costs more per error
        ((10, 0.1, 9, 4), (5, 0.1, 1, 4), ["direct", "F(2x2,3x3)"]),  # a step of the slower layer may be cheaper
        ((3, 0.1, 1, 4), (2.5, 0.1, 1, 3.9), ["F(2x2,3x3)", "direct"]),
    ],
)
def test_a_step_costs_time_for_the_squared_error_that_it_takes_away(first, second, chosen):
    layers = [
        replace(FIRST, name=name, options=(option("direct", slow * 1e-3, low * 1e-6), option("F(2x2,3x3)", fast * 1e-3, high * 1e-6)))
        for name, (slow, low, fast, high) in (("one", first), ("two", second))
    ]
    found = explain_module._bounded(Explanation("net", "the given inputs", True, 1, None, tuple(layers)), 4.1e-6)
    assert [layer.algorithm for layer in found.layers] == chosen


def test_algorithms_are_offered_by_their_taps():
    offered = {
        (2, 2): ["F(2x2,2x2)"],
        (3, 2): ["F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)", "F(8x8,3x3)"],
        (4, 2): ["F(2x2,4x4)"],
        (5, 2): ["F(2x2,5x5)", "F(4x4,5x5)", "F(8x8,5x5)", "F(6x6,5x5)"],
        (7, 2): ["F(2x2,7x7)", "F(8x8,7x7)", "F(4x4,7x7)"],
        (15, 2): ["F(2x2,15x15)"],
        (16, 2): [],
        (3, 1): ["F(2x2,3x3)", "F(4x4,3x3)", "F(6x6,3x3)"],
    }
    for (taps, dims), names in offered.items():
        found = explain_module._offered(taps, dims)
        assert [name.partition("/")[0] for name in found] == names
        assert all(alg.r == taps for alg in found.values())
    pairs = {name: alg.products for name, alg in explain_module._offered(5, 2).items()}
    assert list(pairs.values()) == [6, 8, 14, 13]
    assert [alg.products for alg in explain_module._offered(7, 2).values()] == [8, 19, 13]
    assert [alg.products for alg in explain_module._offered(3, 2).values()] == [4, 6, 8, 13]


def test_mean_squares_that_are_no_numbers_count_as_zero():
    assert explain_module._square(np.array([3, 4], np.float32)) == 12.5
    assert explain_module._square(np.zeros(0, np.float32)) == 0
    assert explain_module._square(np.array([1, np.inf])) == 0
    assert explain_module._square(np.array([3e30, 4e30], np.float32)) == pytest.approx(12.5e60)


def test_the_figure_shows_milliseconds_and_the_span_of_each_layer():
    figure = explanation_figure(Explanation("net", "the given inputs", False, 1, 1e-6, (FIRST, LAST)))
    upper, lower = figure.axes
    assert upper.get_shared_x_axes().joined(upper, lower)
    spans = [(list(line.get_xdata()), list(line.get_ydata())) for line in lower.lines[-2:]]
    assert spans == [([1, 1], [1.0, 4.0]), ([2, 2], [0.5, 0.5])]
    marks = sorted(
        (x, y, line.get_markerfacecolor() != "white")
        for line in lower.lines[:-2]
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )
    assert marks == [(1, 1.0, False), (1, 2.0, True), (1, 4.0, False), (2, 0.5, True)]
    assert list(upper.lines[-1].get_ydata()) == [1e-6, 1e-6]
    assert [text.get_text() for text in upper.texts] == ["allowed"]
    assert lower.get_ylabel() == "ms, estimated"
    assert figure.get_suptitle() == "net: 2 convolutions, fp32, 1 thread"
    other = explanation_figure(Explanation("net", "the given inputs", True, 2, None, (FIRST, LAST)))
    assert other.axes[1].get_ylabel() == "ms, measured"
    assert not other.axes[0].texts
    assert other.get_suptitle() == "net: 2 convolutions, fp32, 2 threads"

"""What a network is said to do is what it does, and what is asked of its error decides."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import dense_chain, model

import fastconv as fc
from fastconv.cli import main
from fastconv.kernels.choose import estimated, relative_error
from fastconv.network import explain as explain_module
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
    assert [[o.algorithm for o in layer.options] for layer in found.layers][1] == ["direct", "F(2x2,3x3)s2", "F(4x4,3x3)s2"]
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
            # The closed form is for independent numbers; a factor of two covers rectified inputs and one draw of weights.
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
    """The estimated time beside direct convolution's: each explanation probes how fast the machine is at that moment."""
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
    # What is expected is a root mean square; twice that is kept by these 3,200 outputs together.
    assert np.linalg.norm(got - truth) < 2 * tight.predicted_error * np.linalg.norm(truth)
    assert not hopeless.within
    assert "no choice of algorithms" in hopeless.summary()
    for layer in hopeless.layers:
        assert layer.chosen.predicted_error == min(o.predicted_error for o in layer.options)


def test_without_inputs_the_model_says_their_shapes(net):
    found = net.explain(threads=1)
    assert found.inputs == "independent numbers of variance one"
    free = fc.load_onnx(dense_chain(("N", 16, 20, 20)))
    with pytest.raises(ValueError, match="leaves the shape of its input open"):
        free.explain()
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
    assert main([*common, "--max-error", "1e-12"]) == 1  # what was asked for was not done
    assert "no choice of algorithms" in " ".join(capsys.readouterr().out.split())
    assert main(["networks", "--explain"]) == 2
    assert main(["networks", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_what_is_explained_can_be_run_as_it_is():
    """Rectangles, strides and phases have names that `run` takes."""

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
    assert [option.algorithm for option in by_name["b"].options] == ["direct", "F(2x2,3x3)s2", "F(4x4,3x3)s2"]
    small, large = (next(o for o in by_name["c"].options if o.algorithm == name) for name in ("F(2x2,3x3)", "F(4x4,3x3)"))
    assert small.predicted_error < by_name["c"].chosen.predicted_error < 2 * large.predicted_error
    automatic = net.explain(feeds)
    np.testing.assert_array_equal(net.run(feeds, automatic.algorithms)["d"], net.run(feeds)["d"])
    with pytest.raises(ValueError, match="is no dense 3x3 convolution of stride 2 and cannot run"):
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
        # The error of independent numbers, on the scale of what the layer gives: a sum of 9 * 16 products of their mean squares.
        noise = math.sqrt(9 * 16 * np.mean(x**2) * np.mean(w**2) / np.mean(y**2))
        for option in layer.options:
            if option.algorithm == "direct":
                axes, taps, bytes_ = (), 9.0, w.nbytes
            else:
                axes = fc.algorithms(option.algorithm)
                taps, bytes_ = (axes[0].products / axes[0].m) ** 2, 16 * 16 * 4 * axes[0].products ** 2
            assert option.multiplications_per_output == pytest.approx(taps)
            estimate = estimated(plans(layer.name).layer, axes, threads=1)
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
    """Of a chain the sums of 1 to 128 products are rounded, then those of 2, 3, ... chains, all by the same share."""
    one = relative_error(None, 128, (1, 1))
    for chains in (2, 5, 64):
        rounds = sum(range(1, 129)) / 128 + sum(range(2, chains + 1)) / chains
        assert relative_error(None, 128 * chains, (1, 1)) == pytest.approx(one * math.sqrt(rounds / 64.5))
    assert relative_error(None, 16, (3, 3)) == relative_error(None, 144, (1, 1))
    assert relative_error(None, 16, (3, 3), np.float64) == relative_error(None, 16, (3, 3)) / 2**29


@pytest.mark.parametrize("name", ["direct", "F(4x4,3x3)", "F(8x8,3x3)/13"])
@pytest.mark.parametrize("channels", [8, 100, 1000])
def test_layers_err_as_expected(name, channels):
    """Two standard errors of a norm of 576 outputs are 6 %, images and weights shared; F(8x8)/13 takes all of few tiles."""
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
    """A tile has ``m + r - 1`` products along an axis, and one more for each pair of complex points. What runs may come besides."""
    weights = numpy_helper.from_array(np.ones((4, 4, r, r), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    x = np.zeros((1, 4, 30, 30), np.float32)
    net = fc.load_onnx(model([node], {"x": x}, {"y": TensorProto.FLOAT}, initializers=[weights]))
    (layer,) = net.explain(threads=1).layers
    offered = [option.algorithm for option in layer.options if option.algorithm.startswith("F")]
    assert offered[: len(expected)] == expected
    assert set(offered[len(expected) :]) <= {layer.algorithm}

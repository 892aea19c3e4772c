"""Rewrites preserve a network's results bit for bit, or up to the rounding that folding changes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc
from fastconv.network import Graph, Node, Value
from fastconv.network.rewrite.cut import PART
from fastconv.network.rewrite.optimise import optimised
from fastconv.network.run import execute
from fastconv.network.run.assign import assigned
from fastconv.network.run.execute import Runner


def network(nodes, weights, inputs=("x",), outputs=("y",), opset=17):
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*inputs, *outputs)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", infos[: len(inputs)], infos[len(inputs) :], tensors)
    return fc.load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), [output], name=output, **attributes)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_written(net, feeds, monkeypatch, algorithm="direct"):
    """Run each node by its definition, without rewrites; only convolutions use the kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(execute, "fast", lambda *_: None)
        return Runner(net.graph, assigned(net.graph, algorithm), optimise=False)(feeds)


def operators(net, feeds):
    """Return the nodes that run, here or in onnxruntime, with their fused nodes."""
    seen = []
    net.prepare("direct")(feeds, watch=lambda n, *_: seen.extend(n.body if n.operator == PART else (n,)))
    return ["+".join([n.operator, *(f.operator for f in n.fused)]) for n in seen]


WEIGHTS = {
    "w": random(6, 4, 3, 3),
    "b": random(6, seed=1),
    "slope": random(6, 1, 1, seed=2),
    "one": np.float32(0.3),
    "low": np.float32(-0.5),
    "high": np.float32(1.5),
    "scale": random(6, seed=3),
    "shift": random(6, seed=4),
    "mean": random(6, seed=5),
    "var": np.abs(random(6, seed=6)) + np.float32(0.5),
}
ROUNDINGS = 16 * 2.0**-24
"""What a normalisation may differ by in another order of operations, relative to the largest result."""
CONV = node("Conv", "x w b", "c", pads=[1] * 4)
NORM = "scale shift mean var"


@pytest.mark.parametrize(
    "follower",
    [
        node("Relu", "c", "y"),
        node("LeakyRelu", "c", "y", alpha=0.1),
        node("PRelu", "c slope", "y"),
        node("PRelu", "c one", "y"),
        node("Clip", "c low high", "y"),
        helper.make_node("Clip", ["c", "", "high"], ["y"], name="y"),
    ],
    ids=lambda n: f"{n.op_type} {len(n.input)}",
)
@pytest.mark.parametrize("algorithm", ["direct", "F(4x4,3x3)"])
def test_activations_fuse_bit_for_bit(follower, algorithm, monkeypatch):
    net, x = network([CONV, follower], WEIGHTS), random(2, 4, 19, 70, seed=7)
    x[0, 0, 3, 3], x[1, 1, 9, 9] = np.nan, np.inf
    assert operators(net, {"x": x}) == [f"Conv+{follower.op_type}"]
    np.testing.assert_array_equal(net.run({"x": x}, algorithm)["y"], as_written(net, {"x": x}, monkeypatch, algorithm)["y"])


def test_a_residual_block_and_pools(monkeypatch):
    nodes = [
        CONV,
        node("Add", "c z", "s"),
        node("Relu", "s", "r"),
        node("MaxPool", "r", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("AveragePool", "m", "a", kernel_shape=[2, 3], strides=[1, 2], pads=[1, 0, 0, 2]),
        node("AveragePool", "a", "i", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
        node("Mul", "i i", "q"),
        node("LeakyRelu", "q", "y", alpha=0.5),
    ]
    net = network(nodes, WEIGHTS, ("x", "z"))
    feeds = {"x": random(2, 4, 60, 61), "z": random(2, 6, 60, 61, seed=9)}
    assert operators(net, feeds)[:3] == ["Conv", "Add", "Relu"]
    # Means of at most 9 numbers that are not negative, twice, and a product: 24 roundings.
    np.testing.assert_allclose(net.run(feeds, "direct")["y"], as_written(net, feeds, monkeypatch)["y"], rtol=24 * 2.0**-24)


ONE = {"v": random(6, 6, 1, 1, seed=11), "b": WEIGHTS["b"], "slope": WEIGHTS["slope"]}


@pytest.mark.parametrize("algorithm", ["direct", "auto", "im2col", "fft"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_shortcut_is_added_by_the_convolution(algorithm, threads, monkeypatch):
    def block(x, y, **options):
        return [
            node("Conv", f"{x} v b", f"{y}c", **options),
            node("Relu", f"{y}c", f"{y}r"),
            node("Conv", f"{y}r v", f"{y}d"),
            node("Add", f"{y}d {x}" if y == "p" else f"{x} {y}d", f"{y}s"),
        ]

    nodes = [
        node("Relu", "x", "a"),
        *block("a", "p"),
        node("PRelu", "ps slope", "p"),
        *block("p", "q"),  # p dies
        *block("qs", "k"),
        node("Relu", "ks", "k"),
        node("Conv", "k v", "l"),
        node("Conv", "k v b", "m"),
        node("Add", "l m", "lm"),
        node("Abs", "qs", "e"),  # the shortcut of k is read elsewhere
        node("Add", "lm e", "y"),
    ]
    net = network(nodes, ONE)
    feeds = {"x": random(2, 6, 13, 12)}
    if algorithm == "direct":
        assert "Conv+Add+PRelu" in operators(net, feeds)
        assert operators(net, feeds).count("Conv+Add") == 2
    wanted = as_written(net, feeds, monkeypatch, algorithm)["y"]
    # In "auto" onnxruntime runs the layers, in an order of its own: a few roundings in each of nine.
    bound = 0 if algorithm != "auto" else 9 * ROUNDINGS * np.abs(wanted).max()
    for _ in range(3):
        np.testing.assert_allclose(net.run(feeds, algorithm, threads=threads)["y"], wanted, rtol=0, atol=bound)
    np.testing.assert_allclose(net.prepare(algorithm)(feeds, ["ps"])["y"], wanted, rtol=0, atol=bound)
    np.testing.assert_allclose(net.prepare(algorithm)(feeds, watch=lambda *_: None)["y"], wanted, rtol=0, atol=bound)


@pytest.mark.parametrize("algorithm", ["direct", "F(4x4,3x3)", "im2col", "fft"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(13, 12), (40, 9), (31,)])
def test_a_shortcut_is_added_by_layers_of_many_taps(algorithm, threads, size, monkeypatch):
    if len(size) == 1 and algorithm.startswith("F"):
        algorithm = "direct"
    weights = {"v": random(6, 6, *(3 for _ in size), seed=11), "g": random(6, 3, *(3 for _ in size), seed=12), "b": WEIGHTS["b"]}
    pads = {"pads": [1] * 2 * len(size)}
    nodes = [
        node("Relu", "x", "a"),
        node("Conv", "a v b", "c", **pads),
        node("Add", "c a", "s"),  # the convolution reads what it adds to
        node("LeakyRelu", "s", "r", alpha=0.3),
        node("Conv", "r v", "d", **pads),
        node("Relu", "d", "e"),
        node("Conv", "e v", "f", **pads),
        node("Add", "f r", "t"),
        node("Relu", "t", "u"),
        node("Conv", "u g", "h", group=2, **pads),
        node("Add", "h u", "y"),
    ]
    net = network(nodes, weights)
    feeds = {"x": random(2, 6, *size)}
    feeds["x"][1, 2, 3] = np.nan
    assert operators(net, feeds) == ["Relu", "Conv", "Add", "LeakyRelu", "Conv+Relu", "Conv+Add+Relu", "Conv", "Add"]
    chosen = {"c": algorithm, "d": algorithm, "f": algorithm, "h": "direct"}
    wanted = as_written(net, feeds, monkeypatch, chosen)["y"]
    for _ in range(3):
        np.testing.assert_array_equal(net.run(feeds, chosen, threads=threads)["y"], wanted)
    np.testing.assert_array_equal(net.prepare(chosen)(feeds, ["t"])["y"], wanted)


EXTRAS = [{}, {"dilations": [2, 1]}, {"ceil_mode": 1}, {"pads": [1, 0, 0, 1]}]


@pytest.mark.parametrize(
    ("kernel", "extra"),
    [((1, 1), extra) for extra in EXTRAS[:3]] + [(kernel, extra) for kernel in ((2, 2), (3, 2), (2, 5)) for extra in EXTRAS],
)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3)])
def test_pools_of_every_geometry(kernel, strides, extra, monkeypatch):
    """One tap allows no padding, as a window would be entirely in it."""
    options = {"kernel_shape": list(kernel), "strides": list(strides), **extra}
    for operator in ("MaxPool", "AveragePool"):
        net = network([node(operator, "x", "y", **options)], {}, opset=19)
        for x in (random(2, 3, 12, 11), random(1, 1, 7, 9).astype(np.float64).astype(np.float32)):
            np.testing.assert_array_equal(net.run({"x": x})["y"], as_written(net, {"x": x}, monkeypatch)["y"])


def test_a_normalisation_alone_equals_its_definition(monkeypatch):
    net = network([node("BatchNormalization", f"x {NORM}", "n"), node("Relu", "n", "y")], WEIGHTS)
    x = random(3, 6, 9, 11)
    assert operators(net, {"x": x}) == ["BatchNormalization+Relu"]
    got, wanted = net.run({"x": x})["y"], as_written(net, {"x": x}, monkeypatch)["y"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=ROUNDINGS * np.abs(wanted).max())


MAKERS = {
    "Conv": ([CONV], (2, 4, 9, 9), {}),
    "Conv without bias": ([node("Conv", "x w", "c", pads=[1] * 4)], (2, 4, 9, 9), {}),
    "ConvTranspose": ([node("ConvTranspose", "x w b", "c", group=2)], (2, 4, 5, 5), {"w": random(4, 3, 3, 3)}),
    "Gemm": ([node("Gemm", "x w b", "c", transB=1, alpha=0.5)], (5, 7), {"w": random(6, 7)}),
    "Gemm, not transposed": ([node("Gemm", "x w", "c")], (5, 7), {"w": random(7, 6)}),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_normalisation_folds_into_what_comes_before(maker, monkeypatch):
    made, shape, weights = MAKERS[maker]
    net = network([*made, node("BatchNormalization", f"c {NORM}", "n"), node("Relu", "n", "y")], WEIGHTS | weights)
    x = random(*shape, seed=11)
    ran = operators(net, {"x": x})
    assert ran == (["Gemm", "Relu"] if made[0].op_type == "Gemm" else [f"{made[0].op_type}+Relu"])
    got, plain, truth = net.run({"x": x}, "direct")["y"], as_written(net, {"x": x}, monkeypatch)["y"], net.run({"x": x}, policy="fp64")["y"]
    # Sums of at most 37 products, with each factor rounded once: (37 + 4) 2^-24 times the sum of absolute values.
    positive = {name: np.abs(value) for name, value in (WEIGHTS | weights).items()} | {"mean": -np.abs(WEIGHTS["mean"])}
    whole = network([*made, node("BatchNormalization", f"c {NORM}", "y")], positive)
    bound = 41 * 2.0**-24 * whole.run({"x": np.abs(x)}, policy="fp64")["y"]
    assert (np.abs(got - truth) <= bound).all()
    assert (np.abs(plain - truth) <= bound).all()


@pytest.mark.parametrize("why", ["read twice", "an output", "asked for", "training", "variance"])
def test_a_normalisation_stays_where_it_cannot_be_folded(why, monkeypatch):
    training = {"training_mode": 1} if why == "training" else {}
    nodes = [CONV, helper.make_node("BatchNormalization", ["c", *NORM.split()], ["n"], name="n", **training)]
    nodes.append(node("Add", "n c" if why == "read twice" else "n n", "y"))
    weights = WEIGHTS | ({"var": -np.ones(6, np.float32)} if why == "variance" else {})
    net = network(nodes, weights, outputs=("y", "c") if why == "an output" else ("y",))
    x = random(1, 4, 9, 9)
    graph = optimised(net.graph, ["c"] if why == "asked for" else [])
    assert [n.operator for n in graph.nodes] == ["Conv", "BatchNormalization", "Add"]
    got = net.prepare("direct")({"x": x}, ["c"] if why == "asked for" else [])
    wanted = as_written(net, {"x": x}, monkeypatch)["y"]
    np.testing.assert_allclose(got["y"], wanted, rtol=0, atol=ROUNDINGS * np.nan_to_num(np.abs(wanted)).max())


def test_what_is_asked_for_inside_is_there(monkeypatch):
    net = network([CONV, node("BatchNormalization", f"c {NORM}", "n"), node("Relu", "n", "y")], WEIGHTS)
    x = random(1, 4, 9, 9)
    got = net.prepare("direct")({"x": x}, ["c", "n", "w"])
    np.testing.assert_array_equal(got["c"], fc.conv2d(x, WEIGHTS["w"], WEIGHTS["b"], padding=1, algorithm="direct"))
    np.testing.assert_array_equal(got["y"], np.maximum(got["n"], 0))
    np.testing.assert_array_equal(got["w"], WEIGHTS["w"])


def test_shapes_that_depend_on_values_are_not_remembered():
    nodes = [node("NonZero", "x", "places"), node("Shape", "places", "s"), node("Cast", "s", "y", to=TensorProto.FLOAT)]
    net = network(nodes, {})
    for count in (1, 3):
        x = np.zeros(4, np.float32)
        x[:count] = 1
        assert net.run({"x": x})["y"].tolist() == [1, count]


def test_constants_are_folded_and_their_failures_reported():
    good = network([node("Neg", "k", "n"), node("Add", "x n", "y")], {"k": np.float32(2)})
    assert operators(good, {"x": np.ones(3, np.float32)}) == ["Add"]
    assert good.run({"x": np.ones(3, np.float32)})["y"].tolist() == [-1] * 3
    bad = network([node("Reshape", "k shape", "r"), node("Add", "x r", "y")], {"k": np.float32(2), "shape": np.array([7])})
    with pytest.raises(ValueError, match=r"node 'r' \(Reshape\)"):
        bad.run({"x": np.ones(7, np.float32)})
    large = network([node("Expand", "k shape", "e"), node("Add", "x e", "y")], {"k": np.float32(2), "shape": np.array([2**40])})
    with pytest.raises(ValueError, match=r"node 'e' \(Expand\): a tensor of shape"):
        large.run({"x": np.ones(1, np.float32)})


def test_results_outlive_the_next_run():
    net = network([CONV, node("Relu", "c", "r"), node("Flatten", "r", "y")], WEIGHTS, outputs=("y",))
    runner = net.prepare("direct")
    x = random(1, 4, 80, 80)
    first = runner({"x": x}, ["r"])
    before = {name: array.copy() for name, array in first.items()}
    runner({"x": -x}, ["r"])
    net.run({"x": 2 * x})
    for name, array in before.items():
        np.testing.assert_array_equal(first[name], array)


def test_memory_is_used_again():
    arena = execute.Arena()
    names = "abcdefgh"
    nodes = [node("MaxPool", f"{a} ", b, kernel_shape=[1, 1]) for a, b in zip("x" + names, [*names, "y"], strict=True)]
    net = network(nodes, {})
    runner = Runner(net.graph, {}, arena=arena, optimise=False)
    for _ in range(3):
        runner({"x": random(1, 4, 100, 100)})
    assert len(arena._free) == 2  # one is read while the other is written


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("transposed", [0, 1])
def test_dense_layers_run_on_our_threads(rows, transposed):
    inputs, outputs = 700, 131
    w, c, x = random(*((outputs, inputs) if transposed else (inputs, outputs))), random(outputs, seed=1), random(rows, inputs, seed=2)
    net = network([node("Gemm", "x w c", "g", transB=transposed, alpha=0.5, beta=2.0), node("Relu", "g", "y")], {"w": w, "c": c})
    got = net.run({"x": x}, threads=2)["y"]
    a, b = x.astype(float), (w.T if transposed else w).astype(float)
    wanted, size = np.maximum(0.5 * a @ b + 2 * c, 0), 0.5 * np.abs(a) @ np.abs(b) + 2 * np.abs(c)
    assert got.dtype == np.float32
    # A sum of 700 products in any order, a scaling and a sum: 704 roundings at most.
    assert (np.abs(got - wanted) <= 704 * 2.0**-24 * size).all()
    np.testing.assert_array_equal(got, net.run({"x": x}, threads=1)["y"])
    if not transposed:
        product = network([node("MatMul", "x w", "y")], {"w": w}).run({"x": x})["y"]
        assert (np.abs(product - a @ b) <= 700 * 2.0**-24 * (np.abs(a) @ np.abs(b))).all()


def test_squeeze_and_excitation(monkeypatch):
    nodes = [
        node("Conv", "x w b", "c", pads=[1] * 4),
        node("HardSwish", "c", "h"),
        node("GlobalAveragePool", "h", "g"),
        node("Conv", "g v b", "q"),
        node("Relu", "q", "r"),
        node("Conv", "r v", "e"),
        node("HardSigmoid", "e", "k", alpha=0.2, beta=0.5),
        node("Mul", "k h", "m"),
        node("Conv", "m v b", "d"),
        node("Sigmoid", "d", "s"),
        node("Mul", "s d", "u"),  # Swish
        node("Conv", "u v", "f"),
        node("Add", "f m", "t"),
        node("Sigmoid", "t", "o"),
        node("Mul", "t t", "y2"),
        node("Add", "o y2", "y"),
    ]
    net, x = network(nodes, WEIGHTS | {"v": ONE["v"]}), random(2, 4, 19, 23, seed=3)
    ran = operators(net, {"x": x})
    assert "Swish" in ran
    assert "Conv+Add" in ran
    wanted = as_written(net, {"x": x}, monkeypatch)["y"]
    runner = net.prepare("direct")
    got = runner({"x": x})["y"]
    # The sigmoids differ by some units of roundoff, which sums of 6 products carry on; what is squared last is of size 10.
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(runner({"x": x})["y"], got)
    kept = runner({"x": x}, ["s"])
    np.testing.assert_array_equal(kept["y"].shape, got.shape)
    np.testing.assert_allclose(
        kept["s"], 1 / (1 + np.exp(-as_written_tensor(net, x, "d", monkeypatch).astype(float))), rtol=2e-5, atol=2.0**-22
    )


def as_written_tensor(net, x, name, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(execute, "fast", lambda *_: None)
        return Runner(net.graph, assigned(net.graph, "direct"), optimise=False)({"x": x}, [name])[name]


def drawn(nodes, weights=(), inputs=("x",), outputs=("y",)):
    """Return a graph of nodes (operator, inputs, outputs, attributes), each named after its first output."""
    value = lambda name: Value(name, None, None)
    made = [Node(out.split()[0], op, tuple(ins.split(" ")) if ins else (), tuple(out.split()), given, 17) for op, ins, out, given in nodes]
    return Graph.build("g", map(value, inputs), map(value, outputs), dict(weights), made)


def parts(graph):
    return [(n.operator, " ".join(n.inputs), " ".join(n.outputs), [f.operator for f in n.fused]) for n in graph.nodes]


W = {"w": random(6, 4, 3, 3), "v": random(6, 6, 3, 3, seed=1)}


def test_a_gate_by_its_sigmoid_becomes_one_node():
    nodes = lambda product: [("Sigmoid", "x", "s", {}), ("Mul", product, "y", {})]
    for product in ("x s", "s x"):
        (node,) = optimised(drawn(nodes(product)), ()).nodes
        assert (node.operator, node.inputs, node.outputs, node.attributes, node.opset) == ("Swish", ("x",), ("y",), {"alpha": 1.0}, 24)
    kept = [("Sigmoid", "x", "s", []), ("Mul", "x s", "y", [])]
    assert parts(optimised(drawn(nodes("x s")), ["s"])) == kept
    assert parts(optimised(drawn(nodes("x s"), outputs=("y", "s")), ())) == kept
    assert parts(optimised(drawn(nodes("s s")), ())) == [("Sigmoid", "x", "s", []), ("Mul", "s s", "y", [])]
    assert parts(optimised(drawn(nodes("z s"), inputs=("x", "z")), ())) == [("Sigmoid", "x", "s", []), ("Mul", "z s", "y", [])]
    twice = [*nodes("x s"), ("Add", "y s", "z", {})]
    assert parts(optimised(drawn(twice, outputs=("z",)), ()))[:2] == kept
    assert parts(optimised(drawn([("Sigmoid", "x", "s", {}), ("Add", "x s", "y", {})]), ())) == [kept[0], ("Add", "x s", "y", [])]


def test_an_activation_hangs_on_the_node_before_it():
    conv = ("Conv", "x w", "c", {})
    assert parts(optimised(drawn([conv, ("Relu", "c", "y", {})], W), ())) == [("Conv", "x w", "y", ["Relu"])]
    assert parts(optimised(drawn([conv, ("Relu", "c", "y", {})], W), ["c"])) == [("Conv", "x w", "c", []), ("Relu", "c", "y", [])]
    assert parts(optimised(drawn([conv, ("Relu", "c", "y", {})], W, outputs=("c", "y")), ()))[0][3] == []
    twice = [conv, ("Relu", "c", "y", {}), ("Neg", "c", "z", {})]
    assert parts(optimised(drawn(twice, W, outputs=("y", "z")), ()))[0][3] == []
    chain = [conv, ("Relu", "c", "r", {}), ("LeakyRelu", "r", "y", {"alpha": 0.5})]  # one at most
    assert parts(optimised(drawn(chain, W), ())) == [("Conv", "x w", "r", ["Relu"]), ("LeakyRelu", "r", "y", [])]
    bound = [conv, ("Clip", "c low", "y", {})]
    assert parts(optimised(drawn(bound, W | {"low": np.array(0, np.float32)}), ())) == [("Conv", "x w", "y", ["Clip"])]
    assert parts(optimised(drawn(bound, W, inputs=("x", "low")), ())) == [("Conv", "x w", "c", []), ("Clip", "c low", "y", [])]
    assert parts(optimised(drawn([("Sub", "x z", "c", {}), ("Relu", "c", "y", {})], inputs=("x", "z")), ()))[0][3] == []
    assert parts(optimised(drawn([conv, ("Tanh", "c", "y", {})], W), ()))[0][3] == []


def test_a_sum_hangs_on_the_convolution_that_comes_last():
    first, second = ("Conv", "x w", "c", {}), ("Conv", "e v", "d", {})
    between = ("Tanh", "c", "e", {})
    for order in ("c d", "d c"):
        got = parts(optimised(drawn([first, between, second, ("Add", order, "y", {})], W), ()))
        assert got == [("Conv", "x w", "c", []), ("Tanh", "c", "e", []), ("Conv", "e v  c", "y", ["Add"])]
    got = parts(optimised(drawn([first, between, second, ("Add", "c d", "s", {}), ("Relu", "s", "y", {})], W), ()))
    assert got[2] == ("Conv", "e v  c", "y", ["Add", "Relu"])
    own = ("Conv", "c v", "d", {})  # it reads what it would write over
    assert parts(optimised(drawn([first, own, ("Add", "c d", "y", {})], W), ()))[2][0] == "Add"
    bias = W | {"b": random(6, seed=2)}
    got = parts(optimised(drawn([first, between, ("Conv", "e v b", "d", {}), ("Add", "c d", "y", {})], bias), ()))
    assert got[2] == ("Conv", "e v b c", "y", ["Add"])
    both = [("Conv", "x w", "c", {}), ("Conv", "x w", "d", {}), ("Add", "d c", "y", {})]
    assert parts(optimised(drawn(both, W), ())) == [("Conv", "x w", "c", []), ("Conv", "x w  c", "y", ["Add"])]
    apart = lambda nodes, *wanted, **more: [part[3] for part in parts(optimised(drawn(nodes, W, **more), wanted))]
    plain = [[], [], [], []]
    assert apart([first, between, second, ("Add", "c d", "y", {})], "d") == plain
    assert apart([first, between, second, ("Add", "c d", "y", {})], "c") == plain
    assert apart([first, between, ("Conv", "e v", "d", {"group": 2}), ("Add", "c d", "y", {})]) == plain
    assert apart([("Conv", "c v", "d", {}), ("Add", "d z", "y", {})], inputs=("c", "z")) == plain[:2]  # an input is the caller's
    assert apart([first, between, second, ("Sub", "c d", "y", {})]) == plain
    assert apart([first, between, second, ("Relu", "d", "r", {}), ("Add", "c r", "y", {})]) == [[], [], ["Relu"], []]
    assert apart([first, between, second, ("Add", "c d", "y", {}), ("Neg", "d", "z", {})], outputs=("y", "z")) == [[], [], [], [], []]


def test_a_graph_whose_names_are_not_its_own_is_left_alone():
    twins = [Node("n", "Relu", ("x",), ("a",), {}, 17), Node("n", "Neg", ("a",), ("y",), {}, 17)]
    graph = Graph.build("g", [Value("x", None, None)], [Value("y", None, None)], {}, twins)
    assert optimised(graph, ()) is graph


def test_a_normalisation_is_folded_into_weights_and_bias():
    scale, shift, mean, var = np.float32([2, 3]), np.float32([5, 7]), np.float32([11, 13]), np.float32([4, 16])
    weight, bias = np.ones((2, 1, 1, 1), np.float32), np.float32([17, 19])
    numbers = {"w": weight, "b": bias, "s": scale, "t": shift, "m": mean, "v": var}

    def folded(conv="x w b", norm=None, extra=(), weights=(), **attributes):
        nodes = [("Conv", conv, "c", {}), ("BatchNormalization", "c s t m v", "y", {"epsilon": 0.0} | (norm or {})), *extra]
        return optimised(drawn(nodes, numbers | dict(weights), **attributes), ())

    got = folded()
    (node,) = got.nodes
    assert node.outputs == ("y",)
    assert got.constants[node.inputs[1]].reshape(-1).tolist() == [1, 0.75]
    assert got.constants[node.inputs[2]].tolist() == [17 - 11 + 5, (19 - 13) * 0.75 + 7]
    got = folded("x w")
    assert got.constants[got.nodes[0].inputs[2]].tolist() == [5 - 11, 7 - 13 * 0.75]
    assert set(got.constants) == set(got.nodes[0].inputs[1:])
    assert len(folded(norm={"training_mode": 1}).nodes) == 2
    assert len(folded(norm={"spatial": 0}).nodes) == 2
    assert len(folded(extra=[("Neg", "c", "z", {})], outputs=("y", "z")).nodes) == 3
    assert len(folded(outputs=("y", "c")).nodes) == 2
    assert len(folded(weights={"s": scale.astype("f8")}).nodes) == 2
    assert len(folded(weights={"s": scale[:1]}).nodes) == 2
    assert len(folded(weights={"b": bias[:1]}).nodes) == 2
    assert len(folded(weights={"v": np.float32([-1, 1])}).nodes) == 2  # a non-finite result is left to the run
    assert len(folded(weights={"v": np.float32([1, 1])}, norm={"epsilon": 3.0}).nodes) == 1


@pytest.mark.parametrize("algorithm", ["fft", "direct", "im2col"])
def test_a_shortcut_is_added_to_each_input_anew(algorithm, monkeypatch):
    """A sum that a convolution cannot add itself is added after it in every run, not only in the first."""
    nodes = [node("Relu", "x", "a"), node("Conv", "a w", "c", pads=[1] * 4), node("Add", "c a", "s"), node("Relu", "s", "y")]
    for group in (1, 2):
        weight = random(6, 6 // group, 3, 3)
        nodes[1] = node("Conv", "a w", "c", pads=[1] * 4, group=group)
        net = network(nodes, {"w": weight})
        for seed in range(3):
            feeds = {"x": random(2, 6, 9, 8, seed=seed)}
            got = net.run(feeds, algorithm)["y"]
            np.testing.assert_array_equal(got, as_written(net, feeds, monkeypatch, algorithm)["y"])


DENSE = {"w": random(6, 5), "t": random(5, 6, seed=1), "b": random(5, seed=2), "row": random(1, 5, seed=2)}

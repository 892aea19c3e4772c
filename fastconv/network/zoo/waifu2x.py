"""waifu2x: networks that double the size of a picture.

They follow Dong et al. (2016) and He et al. (2016); the weights come from the package waifu2x (MIT licence). A network reads
the picture enlarged by repeating each pixel, and sharpens it: seven plain convolutions (vgg7), or five residual blocks
between convolutions (resnet10). There is no padding.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv.files import imported
from fastconv.network.graph.graph import Array
from fastconv.network.load.draft import Draft, with_biases
from fastconv.network.network import Network, load_onnx
from fastconv.network.zoo.demosaic import IMAGES, pictures, psnr
from fastconv.network.zoo.fetch import Package, PinnedFile, fetch

_PACKAGE = Package("waifu2x", "2024.0.1", "319243f02c0f7ba1dc95ebade5a2f53d3e7f1de0f379d318c5895d472984bd7b")
WEIGHTS = {
    "vgg7": PinnedFile(
        _PACKAGE,
        "waifu2x/models/vgg7/anime_style_scale_rgb.npz",
        "0da9fadea34adeeb2c12c4428968472d1c5e75433fbdb8cc34f950928139ee1d",
    ),
    "resnet10": PinnedFile(
        _PACKAGE,
        "waifu2x/models/resnet10/anime_style_scale_rgb.npz",
        "088e8ee1ec6e5a1966cffd5d63c482216c5b6c23fb72330f469963cc5b81f01e",
    ),
}
BORDER = {"vgg7": 7, "resnet10": 13}
"""Pixels that each network crops on each side: one per convolution."""
_SLOPE = 0.1
_PARTS = ("/W", "/b")


def vgg7(tensors: Mapping[str, Array]) -> Any:
    """Return the plain network as an ONNX model.

    Raises
    ------
    ValueError
        If a tensor is missing or has the wrong shape.
    """
    width = (3, 32, 32, 64, 64, 128, 128, 3)
    shapes = {f"conv{k}": (width[k], width[k - 1], 3, 3) for k in range(1, 8)}
    draft = Draft(tensors, with_biases(shapes, _PARTS), _PARTS)
    x = "picture"
    for layer in shapes:
        x = draft.conv(x, layer, "larger" if layer == "conv7" else layer)
        x = x if layer == "conv7" else draft.relu(x, _SLOPE)
    return draft.model("waifu2x-vgg7", ("picture", 3), x)


def resnet10(tensors: Mapping[str, Array]) -> Any:
    """Return the residual network as an ONNX model.

    Raises
    ------
    ValueError
        If a tensor is missing or has the wrong shape.
    """
    blocks = [f"res{k}" for k in range(1, 6)]
    inner = [f"{block}/conv{k}" for block in blocks for k in (1, 2)]
    shapes = {"conv_pre": (64, 3, 3, 3), **dict.fromkeys([*inner, "conv_bridge"], (64, 64, 3, 3)), "conv_post": (3, 64, 3, 3)}
    draft = Draft(tensors, with_biases(shapes, _PARTS), _PARTS)
    axes = draft.constant("axes", np.array([2, 3], np.int64))

    def cut(x: str, border: int, name: str) -> str:
        ends = [draft.constant(f"{name}.{end}", np.array([value] * 2, np.int64)) for end, value in (("from", border), ("to", -border))]
        return draft.node("Slice", [x, *ends, axes], name)

    first = x = draft.relu(draft.conv("picture", "conv_pre", "conv_pre"), _SLOPE)
    for block in blocks:
        y = x
        for k in (1, 2):
            y = draft.relu(draft.conv(y, f"{block}/conv{k}", f"{block}/conv{k}"), _SLOPE)
        x = draft.node("Add", [y, cut(x, 2, f"{block}/cut")], block)
    x = draft.relu(draft.conv(x, "conv_bridge", "conv_bridge"), _SLOPE)
    x = draft.node("Add", [x, cut(first, 11, "cut")], "joined")
    return draft.model("waifu2x-resnet10", ("picture", 3), draft.conv(x, "conv_post", "larger"))


_MODELS: Mapping[str, Callable[[Mapping[str, Array]], Any]] = {"vgg7": vgg7, "resnet10": resnet10}


def load(which: str) -> Network:
    """Load ``"vgg7"`` or ``"resnet10"``; the weights are fetched at first use."""
    with np.load(io.BytesIO(fetch(WEIGHTS[which])), allow_pickle=False) as stored:
        return load_onnx(_MODELS[which]({name: stored[name] for name in stored.files}))


def halved(picture: Array) -> Array:
    """Return a picture (3, H, W) of even sides smoothed, halved, in 256 levels."""
    resize = imported("skimage.transform", "scikit-image", "demo").resize
    shape = (3, picture.shape[1] // 2, picture.shape[2] // 2)
    small = np.stack([resize(plane, shape[1:], order=1, anti_aliasing=True) for plane in picture.astype(np.float64)])
    return np.asarray(np.rint(np.clip(small, 0, 1) * 255) / 255)


def prepared(small: Array, border: int) -> Array:
    """Return the picture with each pixel doubled, padded by the network's border."""
    twice = small.repeat(2, axis=1).repeat(2, axis=2)
    return np.asarray(np.pad(twice, ((0, 0), (border, border), (border, border)), "edge"), np.float32)


def bicubic(small: Array) -> Array:
    """Double the size of a picture (3, H, W) by Keys's bicubic interpolation, in 256 levels."""
    from PIL import Image

    planes = [Image.fromarray(np.rint(plane * 255).astype(np.uint8)) for plane in small]
    size = (2 * small.shape[2], 2 * small.shape[1])
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.BICUBIC), np.float64) / 255 for plane in planes])


def inputs(which: str) -> dict[str, Array]:
    """Return the `demosaic.pictures`, halved and prepared for a network."""
    return {"picture": np.stack([prepared(halved(picture), BORDER[which]) for picture in pictures()])}


def metric(outputs: Mapping[str, Array], reference: Mapping[str, Array], direct: Mapping[str, Array]) -> dict[str, float]:
    """Return the PSNR of the first pictures against the originals, over all 256x256 pixels."""
    pairs = zip(IMAGES, outputs["larger"], pictures(), strict=False)
    return {f"psnr_{name}": psnr(np.clip(got, 0, 1), true) for name, got, true in pairs}


@functools.cache
def _baseline() -> tuple[tuple[str, float], ...]:
    return tuple((f"psnr_{name}", psnr(bicubic(halved(x)), x)) for name, x in zip(IMAGES, pictures(), strict=True))


def baseline() -> dict[str, float]:
    """Return the PSNR of `bicubic` on the same pixels."""
    return dict(_baseline())


def doubled(net: Network, small: Array, which: str, **options: Any) -> Array:
    """Double the size of a picture (3, H, W) with a network; `options` go to `Network.run`."""
    out: Array = net.run({"picture": prepared(small, BORDER[which])[None]}, **options)["larger"][0]
    return np.clip(out, 0, 1)

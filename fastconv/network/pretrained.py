"""The trained networks that fastconv knows, each with its inputs and the measure that its task is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastconv.network import demosaic, fashion
from fastconv.network.compare import Metric
from fastconv.network.graph import Array
from fastconv.network.run import Network


def _nothing() -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class KnownNetwork:
    """A trained network with its data.

    Attributes
    ----------
    name : str
    licence : str
        Of the weights and of the inputs.
    source : str
        Where the weights come from.
    size : int
        Bytes of the file that holds the weights.
    about : str
        What the network does, in one line.
    load : callable
        ``load()`` -> `Network`. May fetch the weights: `fastconv.network.fetch.FetchError` if that fails.
    inputs : callable
        ``inputs()`` -> input name to array, all images.
    metric : callable
        ``metric(outputs, reference, direct)`` -> named numbers, for `compare`.
    batch : int
        Images that go through at once.
    baseline : callable
        ``baseline()`` -> what the simplest method reaches in the same measure; empty where there is none.
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
    baseline: Callable[[], Mapping[str, float]] = _nothing
    baseline_name: str = ""


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
        baseline=demosaic.baseline,
        baseline_name="bilinear",
    ),
)


def known_networks() -> dict[str, KnownNetwork]:
    """Return the networks that fastconv knows, by name.

    Examples
    --------
    >>> list(known_networks())
    ['fashion', 'demosaic']
    """
    return {network.name: network for network in _KNOWN}


def known_network(name: str) -> KnownNetwork:
    """Return a network that fastconv knows.

    Raises
    ------
    ValueError
        For a name that it does not know.

    Examples
    --------
    >>> known_network("fashion").about
    '10 kinds of clothing, 28x28 pixels, 7 convolutions 3x3'
    >>> known_network("resnet")
    Traceback (most recent call last):
    ValueError: there is no network 'resnet'; the known ones are fashion, demosaic
    """
    if name not in known_networks():
        raise ValueError(f"there is no network {name!r}; the known ones are {', '.join(known_networks())}")
    return known_networks()[name]

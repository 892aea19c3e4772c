"""Points fitted to a network: the smallest predicted error of all sets for each layer, also as contenders."""

from __future__ import annotations

import numpy as np
import pytest
from support.models import chain, plain

import fastconv as fc
from fastconv.network import fitted_contenders, known_algorithms
from fastconv.network.predict.samples import KERNELS, TILES, sample_for, some, windows


@pytest.fixture(scope="module")
def net():
    return plain(layers=2)


def smooth(height=26):
    """Return pictures with a strong mean and correlated neighbours."""
    rng = np.random.default_rng(1)
    level, slope = rng.standard_normal((2, 2, 16, 1, 1))
    return (3 + level + slope * np.arange(height) / 20 + rng.standard_normal((2, 16, height, height)) / 50).astype("f4")


def test_published_sets_do_not_err_less_on_the_network(net):
    x = smooth()
    found = fc.fitted(net, {"x": x}, 4, channel_sum="linear")
    exact = net.run({"x": x}, policy="fp64")["y1"]
    error = lambda choice: np.linalg.norm(net.run({"x": x}, choice, channel_sum="linear")["y1"] - exact) / np.linalg.norm(exact)
    published = [error(fc.toom_cook(4, 3, fc.published_points(s, 6))) for s in ("lavin2016", "barabasz2020", "alam2022", "nova2025")]
    # 30,976 outputs: their spread and the closed form's error are below 5 %.
    assert error(found) < 1.05 * min(published) < 0.8 * max(published)


def test_rounded_constants_weigh_more_than_what_averages_away():
    """Their errors are alike in all pixels and channels: of two sets of equal error the one with exact constants wins."""
    from fastconv.error import SampledPrediction
    from fastconv.network.predict.fit import at_output

    random, alike = (SampledPrediction(1.0, 1.0, {"kernel": 0.0, "constants": share, "sum": 1 - share}) for share in (0.0, 0.1))
    assert at_output(random) == 1 < at_output(alike)


def test_the_choice_follows_the_input(net):
    rng = np.random.default_rng(2)
    both = [fc.toom_cook(4, 3, fc.published_points("lavin2016", 6)), fc.toom_cook(4, 3, [0, "1/2", "-1/2", "3/2", "-3/2", "inf"])]
    # Of these two, the integer points cancel the mean, which dominates this picture; noise has none.
    flat = (5 + rng.standard_normal((2, 16, 26, 26)) / 500).astype("f4")
    noise = rng.standard_normal((2, 16, 26, 26)).astype("f4")
    assert [fc.fitted(net, {"x": x}, 4, candidates=both)["conv0"] for x in (flat, noise)] == both


def test_only_layers_that_can_are_fast():
    net = fc.load_onnx(chain())
    x = np.random.default_rng(2).standard_normal((5, 3, 16, 16)).astype(np.float32)
    found = fc.fitted(net, {"x": x}, 2)
    assert list(found) == list(net.layers)
    assert {name for name, choice in found.items() if choice != "direct"} == {"dense", "lopsided"}
    assert (found["dense"].m, found["dense"].r) == (2, 3)
    assert fc.fitted(net, {"x": x}, 2, candidates=[])["dense"] == "direct"


def test_fitting_is_repeatable(net):
    assert fc.fitted(net, {"x": smooth()}, 6) == fc.fitted(net, {"x": smooth()}, 6)


@pytest.mark.parametrize("m", [0, 2.0, True, "4"])
def test_bad_size(net, m):
    with pytest.raises(ValueError, match="pass the outputs of a tile"):
        fc.fitted(net, {"x": smooth()}, m)


def test_comparison_fits_by_name():
    net = fc.load_onnx(chain())
    x = np.random.default_rng(2).standard_normal((5, 3, 16, 16)).astype(np.float32)
    report = fc.compare(net, {"x": x}, ["fitted F(4x4,3x3)"], repeats=1)
    row = report.rows[1]
    assert (row.algorithm, row.points, row.multiplications_per_output) == ("F(4x4,3x3)", "fitted", 2.25)
    (by_hand,) = fitted_contenders(net, {"x": x}, (4,))
    assert fc.compare(net, {"x": x}, [by_hand], repeats=1).rows[1].relative_l2 == row.relative_l2


def test_known_sets_are_distinct_and_of_the_size():
    found = known_algorithms(4, 3)
    assert {(a.m, a.r) for a in found} == {(4, 3)}
    assert len({frozenset(a.points) for a in found}) == len(found) >= 10


def test_windows_are_those_of_the_image():
    x = np.arange(2 * 3 * 9 * 10, dtype=float).reshape(2, 3, 9, 10)
    drawn = windows(x, (2, 3), (2, 3), (4, 2), (2, 1))
    everything = {
        x[n, :, 2 * i : 2 * i + 3 : 2, 3 * j : 3 * j + 3].tobytes() for n in range(2) for i in range(4) for j in range(2) if 2 * i + 2 < 9
    }
    assert drawn.shape == (16, 3, 2, 3)
    assert {np.ascontiguousarray(one).tobytes() for one in drawn} == everything


def test_tiles_reach_over_the_edge_as_the_algorithm_lays_them():
    x = np.ones((1, 2, 7, 7))
    sample = sample_for(x, np.ones((50, 2, 3, 3)), 4)
    assert (sample.x.shape, sample.w.shape) == ((4, 2, 6, 6), (KERNELS, 2, 3, 3))
    # 5 outputs per side are two tiles of 4, the second of which begins at 4 and has 3 rows of the image.
    assert sorted(sample.x[:, 0].sum(axis=(1, 2))) == [9, 18, 18, 36]
    assert len(windows(np.ones((1, 1, 100, 100)), (6, 6), (4, 4), (24, 24))) == TILES
    assert len(some(np.ones((5, 1, 3, 3)))) == 5

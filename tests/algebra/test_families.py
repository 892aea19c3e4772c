"""Members of every family: proved, measured, predicted, bounded, and run as layers."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
from fastconv.algebra import FAMILIES, Size, best_algorithm, name_of, parse_name
from fastconv.kernels.choose import estimated

NAMES = ["F(2x2,3x3)", "F(4x4,3x3)", "F(8x8,3x3)/12", "F(2x2,3x3)s2", "F(1x4,1x3)"]


def sizes(name):
    found = parse_name(name)
    dims = 1 if 1 in found.r else found.dims
    return [Size(m, r, dims, products, stride) for m, r, stride, products in zip(*found[:3], found.products, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_a_member_is_what_its_name_says(name):
    for alg, size in zip(fc.algorithms(name), sizes(name), strict=True):
        alg.verify()
        assert (alg.m, alg.r, alg.stride) == (size.m, size.r, size.stride)
        assert size.products in (None, alg.products)
        assert best_algorithm(*size) == alg
    assert parse_name(name_of(fc.algorithms(name))) == parse_name(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_analysis_takes_a_member(name):
    measured, predicted = fc.measure_error(name, trials=4000, seed=1), fc.predict_error(name)
    assert measured.mean_abs == pytest.approx(predicted.mean_abs, rel=0.15)
    assert measured.max_abs < fc.tolerance(name, channels=1).atol


@pytest.mark.parametrize("name", NAMES)
def test_a_member_runs_layers(name):
    rng, stride, kernel = np.random.default_rng(0), parse_name(name).stride[-1], parse_name(name).r
    x, w = (
        rng.standard_normal((1, 8, 1 if kernel[0] == 1 else 17, 22)).astype(np.float32),
        rng.standard_normal((8, 8, *kernel)).astype(np.float32),
    )
    plan = fc.plan_conv2d(w, None, (1 if kernel[0] == 1 else stride, stride), input_shape=x.shape, algorithm=name, threads=1)
    direct = fc.plan_conv2d(w.astype(float), None, plan.layer.stride, input_shape=x.shape, algorithm="im2col", threads=1)(x.astype(float))
    error = np.linalg.norm(plan(x) - direct) / np.linalg.norm(direct)
    assert 0 < error < 2 * estimated(plan.layer, plan.method.axes).error
    assert plan.algorithm == name_of(fc.algorithms(name))


def test_every_size_has_one_family():
    owners = {name: next(family.name for family in FAMILIES if family.owns(sizes(name)[-1])) for name in NAMES}
    assert set(owners.values()) == {family.name for family in FAMILIES} - {"one tap"}
    assert next(family.name for family in FAMILIES if family.owns(Size(1, 1))) == "one tap"

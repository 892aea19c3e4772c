"""Find complex points with power-of-two denominators, near the circle, with the smallest error at the output of networks.

    python analysis/dyadic_points.py ["F(8x8,3x3)/13"] ["F(8x8,3x3)/12"] ["F(10x10,3x3)/14"]

For each set of a family, the error is predicted on layers of three networks: the second, the middle and the last one that a fast algorithm
runs (`fastconv.Sample`, fp32, Huffman order). It is weighted as in `fastconv.fitted`. Prints the best sets by the geometric mean
over the layers, relative to `fastconv.complex_points`, and writes figures/dyadic_points.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from statistics import geometric_mean
from typing import Any

import numpy as np
from common import print_table, progress, write_csv
from networks import FEW, feeds_of, stored

import fastconv as fc
from fastconv.kernels.choose.accuracy import POLICY
from fastconv.network import known_network
from fastconv.network.operators import Call
from fastconv.network.operators.window import window
from fastconv.network.predict.fit import at_output
from fastconv.network.predict.samples import sample_for
from fastconv.network.run.assign import is_eligible

NETWORKS = ("demosaic", "fashion", "squeezenet")
FAMILIES: dict[str, tuple[Sequence[str], ...]] = {
    "F(8x8,3x3)/13": (
        ("1 -1",),
        ("I", "9/8*I", "7/8*I"),
        ("3/4+3/4*I", "11/16+11/16*I", "3/4+5/8*I", "5/8+3/4*I", "3/4+11/16*I", "11/16+3/4*I", "45/64+45/64*I"),
    ),
    "F(8x8,3x3)/12": (
        ("3/4 -3/4", "25/32 -25/32", "13/16 -13/16", "7/8 -7/8"),
        ("9/8 -9/8", "5/4 -5/4", "21/16 -21/16", "11/8 -11/8"),
        ("3/8+15/16*I", "7/16+7/8*I", "7/16+15/16*I", "1/2+7/8*I", "1/2+15/16*I"),
    ),
    "F(10x10,3x3)/14": (
        ("1 -1",),
        ("3/2 -3/2", "25/16 -25/16", "13/8 -13/8", "7/4 -7/4"),
        ("9/16 -9/16", "5/8 -5/8", "11/16 -11/16"),
        ("5/16+15/16*I", "3/8+7/8*I", "3/8+15/16*I", "1/2+7/8*I"),
    ),
}
"""Real points, and the pair in the first quadrant, which includes its mirror image; 0 and infinity are always added."""


def samples(name: str, m: int) -> list[fc.Sample]:
    """Return samples of three layers of a network, in tiles of F(m x m, 3x3)."""
    net, (feeds, _) = known_network(name).load(), feeds_of(name, FEW.get(name, 2))
    found: list[Any] = []

    def watch(node, inputs, results, seconds):
        if node.operator == "Conv" and is_eligible(net.graph, node, 3) and inputs[1].shape[1] > 3:
            pads = window(Call(node.attributes, node.opset), inputs[0].shape[2:], inputs[1].shape[2:]).pads
            found.append(sample_for(np.pad(inputs[0], pads), inputs[1], m))

    net.prepare("direct", "fp64", threads=1)(feeds, watch=watch)
    return [found[1], found[len(found) // 2], found[-1]]


def errors(alg: fc.BilinearAlgorithm, layers: Sequence[fc.Sample]) -> tuple[float, float, float]:
    """Return the geometric mean errors at the output and of the layers, and the error on random data."""
    found = [layer.predict(alg) for layer in layers]
    random = fc.predict_error(alg, 2, POLICY, "huffman", 64, "blocked", "normal").relative_l2
    return geometric_mean(map(at_output, found)), geometric_mean(one.relative_l2 for one in found), random


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAMILIES))
    names = parser.parse_args().names or list(FAMILIES)
    kept = [row for row in stored("dyadic_points.csv") if row["algorithm"] not in names]
    rows: list[list[Any]] = [list(row.values()) for row in kept]
    for name in names:
        usual = fc.algorithm(name)
        layers = [layer for network in NETWORKS for layer in samples(network, usual.m)]
        base, found = errors(usual, layers), []
        for *reals, z in progress(product(*FAMILIES[name]), name):
            points = f"0 inf {' '.join(reals)} {z} -{z}"
            alg = fc.toom_cook(usual.m, 3, points.split())
            found.append([name, points, *(mine / theirs for mine, theirs in zip(errors(alg, layers), base, strict=True))])
        found.sort(key=lambda row: row[2])
        print_table(["algorithm", "points", "at the output", "of layers", "at random"], found[:5])
        rows += found
    write_csv("dyadic_points.csv", ["algorithm", "points", "at_output", "of_layers", "at_random"], rows)


if __name__ == "__main__":
    main()

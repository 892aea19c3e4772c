"""Compile every kind of kernel for other machines: ``python every_kernel.py TRIPLE:CPU ...``.

Kernels are built for the machine of FASTCONV_MACHINE and compiled for each target. Objects for this architecture are also
loaded, but not run. The script prints as JSON, by target, the number of objects compiled and loaded, their undefined
symbols, and the loops of many multiply-adds in the inner products.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

PRODUCTS = ("steps_product_filters", "steps_product", "pointwise_pixels")
"""The inner products of convolutions."""
PACKAGE = Path(__file__).parents[2] / "fastconv"
LABEL = re.compile(r"^\.?(LBB\w+):")
FUSED = re.compile(r"^\s(fmla)[\s.]")
STACK = re.compile(r"\[sp\b")


def sources():
    """Return every function that builds a kernel, by its name for `compiled`."""
    for path in sorted(PACKAGE.glob("*/source/*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.FunctionDef)
                and node.name[0] != "_"
                and node.returns
                and ast.unparse(node.returns) == "Callable[..., None]"
            ):
                yield f"{path.stem}.{node.name}"


def make_all():
    """Plan layers and jobs of every kind, which compiles their kernels."""
    import fastconv as fc
    from fastconv.kernels import Activation, How, Windows, layer_of, max_pool, plan_layer
    from fastconv.kernels.runners.transposed import Frame, Transposed
    from fastconv.native import lanes_of, threads

    lanes = lanes_of("f4")
    w = np.ones((2 * lanes, lanes, 3, 3), np.float32)
    for dtype in ("f4", "f8"):
        v = w.astype(dtype)
        shape = (1, lanes, 20, 20)
        for name in ("im2col", "direct", "F(4x4,3x3)", "F(6x6,3x3)", "F(2x4,3x3)", "F(8x8,3x3)/13", "fft"):
            fc.plan_conv2d(v, padding=1, input_shape=shape, algorithm=name, activation=Activation(low=0.0))
        fc.plan_conv2d(v, None, 2, 1, input_shape=shape, algorithm="F(4x4,3x3)s2")
        fc.plan_conv2d(v, None, 2, 1, input_shape=shape, algorithm="phases")
        fc.plan_conv2d(v[:, :, :1, :1].copy(), input_shape=shape)
        for stride in (1, 2):
            fc.plan_conv2d(v[:, :1].copy(), None, stride, 1, groups=2 * lanes, input_shape=(1, 2 * lanes, 20, 20), algorithm="direct")
        fc.plan_conv1d(v[:, :, 0].copy(), input_shape=(1, lanes, 64), algorithm="F(4,3)")
        x, out = np.ones((1, 4, 8, 8), dtype), np.ones((1, 4, 4, 4), dtype)
        windows = Windows((2, 2), (2, 2), (1, 1), (0, 0))
        max_pool(x, out, windows)
        max_pool(np.ones((1, 1, 8, 8, 64 // 4), dtype), np.ones((1, 1, 4, 4, 64 // 4), dtype), windows)
        Transposed((1, 8, 8, 8), np.ones((8, 4, 4, 4), dtype), None, Frame((2, 2), (1, 1), (16, 16)), 1, 1)
    every_panel(lambda: fc.plan_conv2d(w, padding=1, input_shape=(1, lanes, 20, 20), algorithm="F(4x4,3x3)"))
    layer = replace(layer_of(w, None, 1, 1, 1, 1, (1, lanes, 20, 20)), blocks=(True, True))
    plan_layer(layer, w, None, How("F(4x4,3x3)", 2))
    threads.alone()
    for name in ("member", *(("lead", "serve") if os.name == "posix" else ())):
        threads.compiled(f"native.members.{name}")


def every_panel(planned):
    """Plan a layer with each possible panel: filters in the lanes, or tiles."""
    from fastconv.kernels.choose.cut import _cuts, work_of
    from fastconv.kernels.runners import blocked
    from fastconv.native import lanes_of

    plan, chosen = planned(), blocked.cut
    panels = {(one.mt, one.nk): one for one in _cuts(work_of(plan.layer, plan.method.sizes), lanes_of("f4"), 1)}
    for panel in panels.values():
        blocked.cut = lambda *_, panel=panel: panel
        planned()
    blocked.cut = chosen


def inner_loops(assembly):
    """Return for each one-block loop of at least eight multiply-adds their number and that of stack accesses."""
    block, name = [], ""
    for line in assembly.splitlines():
        label = LABEL.match(line)
        if label:
            block, name = [], label[1]
        elif line.startswith("\t") and not line.startswith("\t."):
            block.append(line)
            if name and re.search(rf"\b{name}\b", line):
                fused = sum(bool(FUSED.match(one)) for one in block)
                if fused >= 8:
                    yield fused, sum(bool(STACK.search(one)) for one in block)


class Recorder:
    """Compiles each kernel for several targets."""

    def __init__(self, targets, found):
        from llvmlite import binding

        from fastconv.native import machine_of, target_machine

        self.machines, self.found = [machine_of(*one.split(":"), "") for one in targets], found
        self.each = [target_machine(one) for one in self.machines]
        self.target_data = self.each[0].target_data
        self.here = machine_of(binding.get_process_triple(), "", "").architecture

    def emit_object(self, module):
        from fastconv.native import load, undefined

        name = next(f.name for f in module.functions if f.name.partition("_")[0] in SOURCES and not f.is_declaration)
        for one, target in zip(self.machines, self.each, strict=True):
            module.triple, module.data_layout = one.triple, str(target.target_data)
            code = target.emit_object(module)
            told = self.found.setdefault(one.triple + ":" + one.cpu, {"objects": 0, "loaded": 0, "outside": [], "loops": {}})
            told["objects"] += 1
            told["outside"] = sorted({*told["outside"], *undefined(code)})
            if name.rpartition("_")[0] in PRODUCTS:
                told["loops"][name] = list(inner_loops(target.emit_assembly(module)))
            if one.architecture == self.here:
                told["loaded"] += load(name, code, one) != 0
        return code


SOURCES = {name.partition(".")[0] for name in sources()}


def main(targets):
    """Compile all kernels and print the results."""
    from fastconv.native import objects as compiled
    from fastconv.native.source import emit

    found, made = {}, set()

    def load(name, code):
        made.add(name.rpartition("_")[0])
        return len(made)  # an address that is not null

    compiled.load = load
    emit.target_machine = lambda here: Recorder(targets, found)
    make_all()
    print(json.dumps({"made": sorted(made), "sources": sorted(name.replace(".", "_") for name in sources()), "found": found}))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Run 1x1 layers: a matrix product of filters and pixels with a fused epilogue.

Some vectors of pixels are packed, a part of the channels at a time, so that they stay in the L1 cache while all filters
use them. A panel's sums stay in registers over a chain of channels. After the last chain, bias, shortcut and activation are
applied in registers. The operations of an output are those of im2col in the block engine, in the same order.
"""

from __future__ import annotations

import numpy as np

from fastconv.kernels.activation import Activation
from fastconv.kernels.choose.cut import DIRECT_CHAIN, parts, tile_panel
from fastconv.kernels.layer import Array, Layer, check_bytes
from fastconv.kernels.records import POINTWISE
from fastconv.kernels.runners.plan import OneJob
from fastconv.native import COUNTER, KIND, NOTHING, Job, Pool, compiled, described, lanes_of, lasting, machine, round_up

CHAINS = 2
"""Chains of channels whose pixels are packed at once: 24 pixels take 24 KiB."""
GROUP = 4
"""Most panels of pixels per item."""
LEAST = 12
"""Least items per thread, if the layer has as many: more items shorten the wait for the last one."""


def fits(layer: Layer) -> bool:
    """Return whether a layer has a 1x1 kernel and no padding."""
    return layer.kernel == (1, 1) and layer.padding == ((0, 0), (0, 0))


def packed_filters(weight: Array, groups: int, mr: int, chunk: int) -> Array:
    """Pack weights as (groups, chunks of channels, panels of `mr` filters, channels, filters)."""
    filters, channels = weight.shape[0] // groups, weight.shape[1]
    held = round_up(filters, mr)
    out = lasting((groups, channels * held), weight.dtype)
    for g in range(groups):
        for c in range(0, channels, chunk):
            some = weight[g * filters : (g + 1) * filters, c : c + chunk]
            depth, whole = some.shape[1], filters // mr
            sheet = out[g, c * held : (c + depth) * held].reshape(-1, depth, mr)
            sheet[:whole] = some[: whole * mr].reshape(whole, mr, depth).swapaxes(1, 2)
            if filters % mr:
                sheet[whole, :, : filters % mr] = some[whole * mr :].T
    return out


class PointwiseRunner(OneJob):
    """Runs a 1x1 layer."""

    adds = True

    def __init__(self, layer: Layer, weight: Array, bias: Array | None, threads: int, activation: Activation | None = None) -> None:
        kind = KIND[layer.dtype.itemsize]
        size, (mr, nv) = layer.dtype.itemsize, tile_panel()
        wide = nv * lanes_of(kind)
        channels, filters, groups = layer.channels // layer.groups, layer.filters // layer.groups, layer.groups
        outputs = layer.output[0] * layer.output[1]
        held, panels, images = parts(filters, mr), parts(outputs, wide), max(layer.batch, 1) * groups
        chain = DIRECT_CHAIN
        chunk = min(channels, CHAINS * chain)
        self.threads = threads
        group = max(1, min(GROUP, panels, panels * images // (LEAST * threads)))
        wanted = 1 if threads == 1 else parts(LEAST * threads, parts(panels, group) * images)
        if panels <= GROUP:  # few pixels: the items share the filters, each with all pixels
            group, wanted = panels, 1 if threads == 1 else parts(LEAST // 2 * threads, images)
        part = round_up(parts(held, wanted), nv) if wanted > 1 else held
        shares, blocks = parts(held, part), parts(panels, group)
        self.items, self.members = images * blocks * shares, max(1, min(threads, images * blocks * shares))
        packed = group * wide * size * chunk + 64
        places = packed + group * part * mr * wide * size + 64
        self.each = round_up(places + group * wide * 8 + nv * mr * wide * size + 64, 64)
        check_bytes("a workspace", self.each * self.members)
        bias = np.zeros(layer.filters, layer.dtype) if bias is None else bias.copy()
        table = bias[:, None] if activation is None else activation.table(bias)
        padded = np.zeros((groups, held * mr, table.shape[1]), layer.dtype)
        padded[:, :filters] = table.reshape(groups, filters, -1)
        self.table, self.weights = padded, packed_filters(weight.reshape(layer.filters, channels), groups, mr, chunk)
        self.description = described(
            POINTWISE,
            channels=channels,
            filters=filters,
            groups=groups,
            plane=layer.height * layer.width,
            outputs=outputs,
            width=layer.output[1],
            row_step=layer.stride[0] * layer.width,
            column_step=layer.stride[1],
            straight=layer.stride == (1, 1),
            panels=panels,
            group=group,
            blocks=blocks,
            shares=shares,
            part=part,
            chunk=chunk,
            chain=chain,
            held=held,
            adds=False,
            sums=packed,
            places=places,
        )
        self.function = compiled("kernels.pointwise.pixels", kind, mr, nv, int(activation is not None))
        self.pool = Pool()
        self.workspace_bytes = COUNTER + self.members * self.each
        self.weight_bytes = self.weights.nbytes
        self.template = self.job(NOTHING, NOTHING)

    def job(self, x: Array, y: Array, adding: bool = False) -> Job:
        """Return the job of all items; `adding` adds the values in `y` after the bias."""
        description = self.description.copy()
        description["adds"] = adding
        return Job(self.function, description, self.items, (x, self.weights, self.table, y), self.members, self.each)

    def details(self) -> list[str]:
        """Say how the layer is cut."""
        d = self.description
        return [
            f"{d['panels']} panels of pixels in {d['blocks']} blocks of {d['group']}",
            f"filters in {d['shares']} shares, {d['chunk']} channels at a time",
            f"products summed in chains of {d['chain']} with {'fused multiply-add' if machine().fma else 'multiplications and additions'}",
        ]

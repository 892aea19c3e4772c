"""What each kernel is told of its work: all that the sources of the kernels share with who runs them.

A record lists the integers of a description in order; `fastconv.native.described` makes one, compiled code reads ``d.name``.
"""

from __future__ import annotations

import math

from fastconv.native import record

ROWS = 8
"""Rows that are written before any is read again: a vector that straddles two just written would wait for both."""


def tiles_turned(m: int, lanes: int) -> int:
    """Return how many tiles of m columns give whole vectors of columns."""
    return math.lcm(m, lanes) // m


LAYER = record(
    "size",  # of a number
    "pixel",  # of a pixel of the input: of one number, or of those of a block of channels
    "out_pixel",  # of the output
    "bias",  # of the bias of a filter and what follows it
    "lanes",
    "groups",
    "channels",  # of a group
    "height",
    "width",
    "out_channels",  # of a group
    "out_height",
    "out_width",
    "pad_top",
    "pad_left",
    "tiles",  # of all images
    "tiles_h",
    "tiles_w",
    "step_h",  # input rows from a tile to the next
    "step_w",
    "out_h",  # output rows of a tile
    "out_w",
    "rows",  # input rows that a tile reads
    "row_step",  # from one of them to the next
    "taps",  # vectors that a row is split into
    "products_h",  # of an algorithm along each axis; the rows and taps of a direct convolution
    "products_w",
    "span",  # input columns that a tile reads
    "block",  # tiles of a block
    "blocks",
    "shares",  # of the output channels
    "kblock",  # output channels transformed back at once
    "kblocks",
    "depth",  # summed products per output of the inner product
    "channel_block",
    "xis",  # independent inner products
    "mr",  # output channels of a panel, with tiles in the lanes
    "mt",  # tiles of a panel, with filters in the lanes; zero otherwise
    "nk",  # vectors of filters of such a panel
    "chunk",  # tiles that are transformed back at once, with filters in the lanes
    "take",  # tiles whose input is transformed at once, where channels lie in blocks
    "take_pitch",  # of a row of these
    "piece",  # tiles whose rows are written at once
    "turn",  # tiles that give whole vectors of columns
    "pitch",  # of a row in the band
    "lane_pitch",  # of a vector of tiles
    "ldv",
    "v_xi",
    "v_row",
    "v_tap",
    "v_channel",
    "m_xi",
    "m_tile",  # of a tile, with filters in the lanes
    "m_panel",  # of the tiles of a panel's filters
    "line",  # of a row of results
    "u_kblock",
    "u_group",
    "strips",  # places in a thread's workspace
    "band",
    "turned",  # rows of pixels that are vectors
    "column",
    "input",
    "output",
    "half",
    "whole",
    "lines",
    "straight",  # whether planes of the input are rows of V
    "past",  # whether the output goes past the caches
    "workspace",  # of a thread
    "pixels",  # compiled functions; zero where rows of channels are not turned into pixels
    "input_h",  # zero where the axis has no transform
    "output_h",
    "output_w",
    "splitter",
    "joiner",
    "adds",  # whether it adds to what the output holds
    "product",
    "input_h_constants",
    "input_w_constants",
    "output_h_constants",
    "output_w_constants",
)
"""The layer engine; strides, pitches and offsets are in bytes."""

STRIP = record(
    "lane",  # of its first tile in the block
    "run",  # tiles
    "source",  # offset of its input from that of the first channel
    "to",  # address in the band that it is copied to
    "rows",  # rows of the image that are copied
    "bytes",  # of each
    "read",  # address of its first tile in the band
    "place",  # whether it is read where it is, in the image
    "columns",  # that it reads
    "left",  # bytes of them before the image, if it is read where it is
    "right",  # and behind it
    "out",  # offset of its output from that of the first channel
    "out_rows",
    "out_bytes",
)
"""What the engine knows of a strip of tiles: a run of one row of them."""

PHASES = record(
    "channels",
    "height",
    "width",
    "top",  # rows of padding
    "left",
    "stride",  # along the height
    "rows",  # of a phase
    "columns",
    "pitch",  # bytes of a row between its zeros
    "result",  # bytes from the workspace to a row of a phase
)
"""An image of which `fastconv.kernels.source.phases.phases` takes the phases apart."""

TOGETHER = record(
    "groups",
    "filters",  # of a group, and of each phase
    "stride_h",
    "stride_w",
    "top",  # rows that are cropped before the output
    "left",
    "out_height",
    "out_width",
    "rows",  # of a phase
    "columns",
    "none",  # bytes from the workspace to the zeros that stand for a bias
)
"""Phases of an output that `fastconv.kernels.source.phases.together` puts together."""

DEPTHWISE = record(
    "channels",
    "filters",  # of a channel
    "height",
    "width",
    "out_height",
    "out_width",
    "top",  # rows of padding
    "left",
    "pitch",  # bytes of a row between its zeros
    "down",  # rows from an output row to the next
    "apart",  # rows from a tap to the next
    "spill",  # bytes from the workspace to a vector for rows that are shorter
)
"""A layer of single channels."""

POINTWISE = record(
    "channels",  # of a group
    "filters",  # of a group
    "groups",
    "plane",  # pixels of the input
    "outputs",  # pixels of the output
    "width",  # of the output
    "row_step",  # input pixels from a row of outputs to the next
    "column_step",
    "straight",  # whether outputs are inputs, pixel by pixel
    "panels",  # of pixels
    "group",  # panels of pixels of an item
    "blocks",  # such groups
    "shares",  # of the filters
    "part",  # panels of filters of a share
    "chunk",  # channels for which pixels are packed at once
    "chain",  # channels that are summed before the sum is added to the total
    "held",  # panels of filters of a group
    "adds",  # whether it adds to what the output holds
    "sums",  # bytes from the workspace to the sums
    "places",  # bytes from the workspace to the offsets of pixels
)
"""A layer of one tap."""

_WINDOWS = (
    "height",
    "width",
    "out_height",
    "out_width",
    "kernel_h",
    "kernel_w",
    "stride_h",
    "stride_w",
    "dilation_h",
    "dilation_w",
    "top",  # rows of padding
    "left",
)

POOL = record(
    *_WINDOWS,
    "held",  # bytes of a row of results
    "pitch",  # bytes of a row between what is less than any number
)
"""A maximum pool."""

AVERAGE = record(*_WINDOWS)
"""An average pool."""

MEAN = record("planes", "size", "group")
"""Means of planes: how many, numbers of each, planes of an item."""

PLANES = record(
    "total",  # numbers
    "size",  # numbers of a plane; the last may have less
    "count",  # planes
    "group",  # planes of an item
    "channels",  # planes of an image
    "sums",  # whether a second tensor is added
)
"""Planes that are added, scaled and activated."""

CURVE = record(
    "total",  # numbers
    "piece",  # numbers of a piece; the last may have less
    "count",  # pieces
    "group",  # pieces of an item
)
"""A curve, piece by piece."""

DENSE = record(
    "rows",
    "inputs",
    "outputs",
    "group",  # outputs of an item
    "transposed",  # whether the weights are (outputs, inputs)
    "finished",  # whether a bias is added and an activation follows
)
"""A dense layer."""

"""Records that describe a kernel's work: all that the kernels share with their callers.

A record lists the integers of a description in order. `fastconv.native.described` fills one; compiled code reads ``d.name``.
"""

from __future__ import annotations

import math

from fastconv.native import record

ROWS = 8
"""Rows written before any is read back: a vector that straddles two rows just written would wait for both."""


def tiles_transposed(m: int, lanes: int) -> int:
    """Return how many tiles of m columns give whole vectors of columns."""
    return math.lcm(m, lanes) // m


LAYER = record(
    "size",  # bytes of a number
    "pixel",  # numbers per pixel of the input: one, or those of a block of channels
    "out_pixel",  # the same for the output
    "bias",  # bytes of a filter's bias and activation
    "lanes",
    "groups",
    "channels",  # per group
    "height",
    "width",
    "out_channels",  # per group
    "out_height",
    "out_width",
    "pad_top",
    "pad_left",
    "tiles",  # of all images
    "tiles_h",
    "tiles_w",
    "step_h",  # input rows from one tile to the next
    "step_w",
    "out_h",  # output rows per tile
    "out_w",
    "rows",  # input rows that a tile reads
    "row_step",  # from one of these rows to the next
    "taps",  # vectors that a row is split into
    "products_h",  # of the algorithm along each axis; rows and taps of a direct convolution
    "products_w",
    "span",  # input columns that a tile reads
    "block",  # tiles per block
    "blocks",
    "shares",  # of the output channels
    "kblock",  # output channels transformed back at once
    "kblocks",
    "depth",  # summed products per output of the inner product
    "channel_block",
    "xis",  # independent inner products
    "mr",  # output channels per panel, with tiles in the lanes
    "mt",  # tiles per panel, with filters in the lanes; zero otherwise
    "nk",  # vectors of filters of such a panel
    "chunk",  # tiles transformed back at once, with filters in the lanes
    "take",  # tiles whose input is transformed at once, channels-blocked
    "take_pitch",  # of a row of these tiles
    "piece",  # tiles whose rows are written at once
    "turn",  # tiles that fill whole vectors of columns
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
    "line",  # pitch of a row of results
    "u_kblock",
    "u_group",
    "strips",  # offsets in a thread's workspace, up to `lines`
    "band",
    "transposed",  # rows with one vector per pixel
    "column",
    "input",
    "output",
    "half",
    "whole",
    "lines",
    "straight",  # whether planes of the input are rows of V
    "past",  # whether the output bypasses the caches
    "workspace",  # of a thread
    "pixels",  # addresses of compiled functions, up to `product`; zero if channels are not transposed to pixels
    "input_h",  # zero where the axis has no transform
    "output_h",
    "output_w",
    "splitter",
    "joiner",
    "adds",  # whether the result is added to the output
    "product",
    "input_h_constants",
    "input_w_constants",
    "output_h_constants",
    "output_w_constants",
)
"""A layer for the engine; strides, pitches and offsets are in bytes."""

STRIP = record(
    "lane",  # of its first tile in the block
    "run",  # tiles
    "source",  # offset of its input from that of the first channel
    "to",  # address of its copy in the band
    "rows",  # rows of the image to copy
    "bytes",  # per row
    "read",  # address of its first tile in the band
    "place",  # whether it is read in place, from the image
    "columns",  # columns that it reads
    "left",  # bytes of them before the image, if read in place
    "right",  # and after it
    "out",  # offset of its output from that of the first channel
    "out_rows",
    "out_bytes",
)
"""A strip of tiles for the engine: consecutive tiles of one row."""

PHASES = record(
    "channels",
    "height",
    "width",
    "top",  # rows of padding
    "left",
    "stride",  # along the height
    "rows",  # of a phase
    "columns",
    "pitch",  # bytes of a row with its zeros on both sides
    "result",  # bytes from the workspace to a row of a phase
)
"""An image that `fastconv.kernels.source.phases.phases` splits into phases."""

TOGETHER = record(
    "groups",
    "filters",  # per group and phase
    "stride_h",
    "stride_w",
    "top",  # rows cropped before the output
    "left",
    "out_height",
    "out_width",
    "rows",  # of a phase
    "columns",
    "none",  # bytes from the workspace to zeros, used as the bias
)
"""Phases of an output that `fastconv.kernels.source.phases.together` interleaves."""

DEPTHWISE = record(
    "channels",
    "filters",  # per channel
    "height",
    "width",
    "out_height",
    "out_width",
    "top",  # rows of padding
    "left",
    "pitch",  # bytes of a row with its zeros on both sides
    "down",  # input rows from one output row to the next
    "apart",  # input rows from one tap to the next
    "spill",  # bytes from the workspace to a vector for rows shorter than one
)
"""A depthwise layer."""

POINTWISE = record(
    "channels",  # per group
    "filters",  # per group
    "groups",
    "plane",  # pixels of the input
    "outputs",  # pixels of the output
    "width",  # of the output
    "row_step",  # input pixels from one row of outputs to the next
    "column_step",
    "straight",  # whether output pixels are input pixels (stride 1)
    "panels",  # of pixels
    "group",  # panels of pixels per item
    "blocks",  # groups of panels
    "shares",  # of the filters
    "part",  # panels of filters per share
    "chunk",  # channels whose pixels are packed at once
    "chain",  # channels summed before the sum is added to the total
    "held",  # panels of filters per group
    "adds",  # whether the result is added to the output
    "sums",  # bytes from the workspace to the sums
    "places",  # bytes from the workspace to the offsets of pixels
)
"""A 1x1 layer."""

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
    "pitch",  # bytes of a row with minus infinities on both sides
)
"""A maximum pool."""

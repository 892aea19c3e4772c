"""What the engine is told of a layer: records of integers, written by `fastconv.kernels.runners.blocked`."""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Any

import numpy as np


class Field(IntEnum):
    """Places in the description of a layer, an array of integers. Strides, pitches and offsets are in bytes."""

    def _generate_next_value_(name, start, count, last_values):  # type: ignore[no-untyped-def,override] # noqa: N805
        return count

    SIZE = auto()  # of a number
    PIXEL = auto()  # of a pixel of the input: of one number, or of those of a block of channels
    OUT_PIXEL = auto()  # of the output
    BIAS = auto()  # of the bias of a filter and what follows it
    LANES = auto()
    GROUPS = auto()
    CHANNELS = auto()  # of a group
    HEIGHT = auto()
    WIDTH = auto()
    OUT_CHANNELS = auto()  # of a group
    OUT_HEIGHT = auto()
    OUT_WIDTH = auto()
    PAD_TOP = auto()
    PAD_LEFT = auto()
    TILES = auto()  # of all images
    TILES_H = auto()
    TILES_W = auto()
    STEP_H = auto()  # input rows from a tile to the next
    STEP_W = auto()
    OUT_H = auto()  # output rows of a tile
    OUT_W = auto()
    ROWS = auto()  # input rows that a tile reads
    ROW_STEP = auto()  # from one of them to the next
    TAPS = auto()  # vectors that a row is split into
    PRODUCTS_H = auto()  # of an algorithm along each axis; the rows and taps of a direct convolution
    PRODUCTS_W = auto()
    SPAN = auto()  # input columns that a tile reads
    BLOCK = auto()  # tiles of a block
    BLOCKS = auto()
    SHARES = auto()  # of the output channels
    KBLOCK = auto()  # output channels transformed back at once
    KBLOCKS = auto()
    DEPTH = auto()  # summed products per output of the inner product
    CHANNEL_BLOCK = auto()
    XIS = auto()  # independent inner products
    MR = auto()  # output channels of a panel, with tiles in the lanes
    MT = auto()  # tiles of a panel, with filters in the lanes; zero otherwise
    NK = auto()  # vectors of filters of such a panel
    CHUNK = auto()  # tiles that are transformed back at once, with filters in the lanes
    TAKE = auto()  # tiles whose input is transformed at once, where channels lie in blocks
    TAKE_PITCH = auto()  # of a row of these
    PIECE = auto()  # tiles whose rows are written at once
    TURN = auto()  # tiles that give whole vectors of columns
    PITCH = auto()  # of a row in the band
    LANE_PITCH = auto()  # of a vector of tiles
    LDV = auto()
    V_XI = auto()
    V_ROW = auto()
    V_TAP = auto()
    V_CHANNEL = auto()
    M_XI = auto()
    M_TILE = auto()  # of a tile, with filters in the lanes
    M_PANEL = auto()  # of the tiles of a panel's filters
    LINE = auto()  # of a row of results
    U_KBLOCK = auto()
    U_GROUP = auto()
    STRIPS = auto()  # places in a thread's workspace
    BAND = auto()
    TURNED = auto()  # rows of pixels that are vectors
    COLUMN = auto()
    INPUT = auto()
    OUTPUT = auto()
    HALF = auto()
    WHOLE = auto()
    LINES = auto()
    STRAIGHT = auto()  # whether planes of the input are rows of V
    PAST = auto()  # whether the output goes past the caches
    WORKSPACE = auto()  # of a thread
    PIXELS = auto()  # compiled functions; zero where rows of channels are not turned into pixels
    INPUT_H = auto()  # zero where the axis has no transform
    OUTPUT_H = auto()
    OUTPUT_W = auto()
    SPLITTER = auto()
    JOINER = auto()
    ADDS = auto()  # whether it adds to what the output holds
    PRODUCT = auto()
    INPUT_H_CONSTANTS = auto()
    INPUT_W_CONSTANTS = auto()
    OUTPUT_H_CONSTANTS = auto()
    OUTPUT_W_CONSTANTS = auto()


class Strip(IntEnum):
    """What is known of a strip of tiles: a run of one row of them."""

    def _generate_next_value_(name, start, count, last_values):  # type: ignore[no-untyped-def,override] # noqa: N805
        return count

    LANE = auto()  # of its first tile in the block
    RUN = auto()  # tiles
    FROM = auto()  # offset of its input from that of the first channel
    TO = auto()  # address in the band that it is copied to
    ROWS = auto()  # rows of the image that are copied
    BYTES = auto()  # of each
    READ = auto()  # address of its first tile in the band
    PLACE = auto()  # whether it is read where it is, in the image
    COLUMNS = auto()  # that it reads
    LEFT = auto()  # bytes of them before the image, if it is read where it is
    RIGHT = auto()  # and behind it
    OUT = auto()  # offset of its output from that of the first channel
    OUT_ROWS = auto()
    OUT_BYTES = auto()


def _record(places: type[IntEnum]) -> np.dtype[Any]:
    """Return the places as fields of a record: numba compiles their names to offsets, several times faster than indices."""
    return np.dtype([(place.name, np.int64) for place in places])


FIELDS, STRIP = _record(Field), _record(Strip)

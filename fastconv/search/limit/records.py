"""Records of the compiled code of a limit: a size, the transforms on a box, its choices, and places in a pool of jets."""

from __future__ import annotations

from typing import Any, NamedTuple


class Size(NamedTuple):
    """Size of a limit: F(m, r), its dimension, and whether infinity is one of the n = m + r - 1 points."""

    infinity: bool
    m: int
    r: int
    dims: int


class Entries(NamedTuple):
    """Jets of the transforms on a box: entries (row, column, value and derivatives, ends).

    Attributes
    ----------
    AL, BE : array, (n, slots, 2)
        A point is alpha / beta.
    D : array, (n, n, slots, 2)
        ``alpha_j beta_t - beta_j alpha_t`` for j > t.
    B : array, (n, n, slots, 2)
        BT.
    G : array, (n, r, slots, 2)
        The rows of G times their denominators.
    """

    AL: Any
    BE: Any
    D: Any
    B: Any
    G: Any


class Choices(NamedTuple):
    """Properties that hold for all point sets in a box.

    Attributes
    ----------
    zero_B : array of bool, (n, n)
        Entries of BT that may be zero.
    mult_B, mult_G, mult_A : arrays of bool, (n, n), (n, r), (m, n)
        Products that are certainly rounded.
    sum_G : array of bool, (n,)
        Rows of G whose sums are certainly rounded.
    X : array, (n, 2)
        Magnitudes of the points.
    ratio_B, ratio_G : arrays of bool, (n, n, n), (n, n, r)
        Where entries of two rows may be equal up to a power of two, so that their products are one value.
    """

    zero_B: Any
    mult_B: Any
    mult_G: Any
    mult_A: Any
    sum_G: Any
    X: Any
    ratio_B: Any
    ratio_G: Any


class Trees(NamedTuple):
    """Possible summation trees of the rows: bit s of a word marks a partial sum over the columns in mask s.

    Attributes
    ----------
    B, A : arrays, (n, room), (m, room)
        Trees of each row of BT, without the columns that may be zero, and of AT.
    count_B, count_A : arrays, (n,), (m,)
        Number of trees; -1 if they are too many to list.
    sums_B : array, (n,)
        Sums of all trees of a row of BT, with the columns that may be zero.
    """

    B: Any
    A: Any
    count_B: Any
    count_A: Any
    sums_B: Any


class Heap(NamedTuple):
    """Boxes of point sets, the least limit first.

    Attributes
    ----------
    boxes : array, (room, 2, k)
        Ends.
    slopes : array, (room, k)
        The slopes that `limit_of_box` stores.
    limits : array, (room,)
        Lower limits.
    order : array, (room,)
        A permutation: the numbers of the open boxes, a heap by their limits, then the numbers of free ones.
    """

    boxes: Any
    slopes: Any
    limits: Any
    order: Any


class Places(NamedTuple):
    """Offsets of the jets in the pool of a limit; alpha is at the start.

    Attributes
    ----------
    BE, D, B, G : int
        As in `Entries`.
    A : int
        AT over the denominators of the rows of G.
    squares : int
        Squares of the entries of a row.
    power, before, own : int
        For each product: its variance, that of the roundings before it, its variance in an output.
    GG, BB, H, Z : int
        Products of rows of G, of BT, and of both; the last times those of a row of AT.
    E, P, S, F : int
        For each output: variances of the roundings before the products, of the products, of the roundings after them; F is E with
        shared roundings.
    work, other, least, cost, gamma, length, result, spare, scratch : int
        One temporary jet each, two for scratch.
    variance : int
        For each sum in a tree.
    ends, shared : int
        For each pair of rows: the least and most roundings it may share; the same in each output.
    room : int
        Total number of jets.
    """

    BE: int
    D: int
    B: int
    G: int
    A: int
    squares: int
    power: int
    before: int
    own: int
    GG: int
    BB: int
    H: int
    Z: int
    E: int
    P: int
    S: int
    F: int
    work: int
    other: int
    least: int
    cost: int
    gamma: int
    length: int
    result: int
    spare: int
    scratch: int
    variance: int
    ends: int
    shared: int
    room: int

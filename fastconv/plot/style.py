"""Colours, markers and dashes that distinguish lines, also in grey print."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of Okabe and Ito: distinct for colour-blind readers and in lightness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))


def styles(groups: Iterable[Hashable]) -> list[dict[str, Any]]:
    """Return a style for each line: a colour for its group, and its own marker and dash among the lines of that colour.

    Examples
    --------
    >>> [(style["color"], style["marker"]) for style in styles(["direct", "F(2)", "F(2)"])]
    [('#222222', 'o'), ('#0072b2', 'o'), ('#0072b2', 's')]
    """
    places: dict[Hashable, int] = {}
    lines = [0] * len(COLOURS)
    found = []
    for group in groups:
        colour = places.setdefault(group, len(places)) % len(COLOURS)
        k, lines[colour] = lines[colour], lines[colour] + 1
        # Dashes shift when all markers are used, so that 49 lines of one colour differ.
        dash = (k + k // len(MARKERS)) % len(DASHES)
        found.append({"color": COLOURS[colour], "marker": MARKERS[k % len(MARKERS)], "linestyle": DASHES[dash]})
    return found

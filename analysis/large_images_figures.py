"""Draw the time and memory of networks against the side of the image, from figures/large_images.csv.

    python analysis/large_images_figures.py

Writes figures/large_images.png. Runs that did not fit are crosses on the upper edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import read_csv, save, style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RUNNERS = {"fastconv": "fastconv, within 2 GiB", "fastconv, whole": "fastconv, whole", "onnxruntime": "onnxruntime"}
QUANTITIES = {"seconds": ("seconds per image", 1.0), "bytes": ("largest resident set, GiB", 2.0**30)}
LIMIT = 2.0
"""GiB that "fastconv" may take."""

Rows = list[dict[str, str]]


def curves(ax: Axes, rows: Rows, quantity: str) -> None:
    """Draw one line per runner, hollow where it runs in strips of rows."""
    scale = QUANTITIES[quantity][1]
    for k, runner in enumerate(RUNNERS):
        mine = [row for row in rows if row["runner"] == runner and row[quantity]]
        points = [(int(row["side"]), float(row[quantity]) / scale) for row in mine]
        ax.plot(*zip(*points, strict=True), **style(k) | {"mfc": style(k)["color"]})
        strips = [point for point, row in zip(points, mine, strict=True) if row["strips"] not in ("", "1")]
        if strips:
            ax.plot(*zip(*strips, strict=True), **style(k) | {"ls": "none"}, zorder=3)


def refusals(ax: Axes, rows: Rows) -> None:
    """Mark the runs that did not fit, on the upper edge."""
    for k, runner in enumerate(RUNNERS):
        for row in rows:
            if row["runner"] == runner and row["refused"]:
                place = (int(row["side"]), 0.97 - 0.05 * k)
                ax.plot(*place, "x", color=style(k)["color"], ms=8, mew=2, transform=ax.get_xaxis_transform(), clip_on=False)


def draw(rows: Rows) -> Figure:
    """Return the figure: a column per network, time above memory."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    sides = sorted({int(row["side"]) for row in rows})
    figure = Figure(figsize=(3.7 * len(networks), 6.4), layout="constrained")
    axes = figure.subplots(2, len(networks), sharex=True, sharey="row", squeeze=False)
    for line, quantity in enumerate(QUANTITIES):
        for ax, network in zip(axes[line], networks, strict=True):
            chosen = [row for row in rows if row["network"] == network]
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            curves(ax, chosen, quantity)
            refusals(ax, chosen)
            ax.set_xticks(sides, [str(side) for side in sides])
            ax.grid(which="major", alpha=0.3)
            if quantity == "bytes":
                ax.axhline(LIMIT, color="#888888", lw=1, ls=":")
                ax.set_xlabel("side of the image, pixels")
            else:
                ax.set_title(network)
        axes[line][0].set_ylabel(QUANTITIES[quantity][0])
    handles = [Line2D([], [], **style(k) | {"mfc": style(k)["color"]}, label=label) for k, label in enumerate(RUNNERS.values())]
    handles.append(Line2D([], [], **style(0) | {"ls": "none"}, label="in strips"))
    handles.append(Line2D([], [], color="#888888", lw=1, ls=":", label="2 GiB"))
    if any(row["refused"] for row in rows):
        handles.append(Line2D([], [], color="#222222", marker="x", ls="none", ms=8, mew=2, label="does not fit"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    save(draw(read_csv("large_images.csv")), "large_images.png")

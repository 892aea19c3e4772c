"""Draw a network's layers left to right: the error expected after each, and the time of each, by algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastconv.network import Explanation
from fastconv.plot.style import styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _styles(found: Explanation) -> dict[str, dict[str, Any]]:
    """Give each algorithm that any layer offers its own style."""
    names = list(dict.fromkeys(option.algorithm for layer in found.layers for option in layer.options))
    return dict(zip(names, styles(names), strict=True))


def plot_error_growth(found: Explanation, *, ax: Axes) -> Axes:
    """Draw the error expected after each layer, one line per algorithm that runs wherever possible, and the choice.

    Parameters
    ----------
    found : Explanation
        From `Network.explain`.
    ax : Axes
        Where to draw.
    """
    places = range(1, len(found.layers) + 1)
    for name, style in _styles(found).items():
        ax.plot(places, found.growth(name), lw=1.4, ms=4.5, mfc="white", label=name, **style)
    ax.plot(places, found.growth(), lw=5, alpha=0.3, color="#f0c000", label="as chosen", zorder=0)
    if found.max_error is not None:
        ax.axhline(found.max_error, color="#999999", lw=1, ls="--")
        ax.annotate("allowed", (1, found.max_error), textcoords="offset points", xytext=(0, 4), fontsize=8, color="#666666")
    ax.set_yscale("log")
    ax.set_ylabel("expected relative L2 error\nafter the layer")
    ax.set_title("Error expected after each layer", loc="left", fontsize=11)
    ax.grid(axis="y", which="major", alpha=0.35)
    return ax


def plot_layer_times(found: Explanation, *, ax: Axes) -> Axes:
    """Draw the time of each layer by each algorithm that can run it; the chosen one is filled.

    Parameters
    ----------
    found : Explanation
        From `Network.explain`.
    ax : Axes
        Where to draw.
    """
    for name, style in _styles(found).items():
        offered = [(k, o, layer) for k, layer in enumerate(found.layers, 1) for o in layer.options if o.algorithm == name]
        for filled in (False, True):
            part = [(k, o.seconds * 1e3) for k, o, layer in offered if (layer.algorithm == name) is filled]
            face = style["color"] if filled else "white"
            look = style | {"linestyle": "none", "markersize": 7 if filled else 5, "markerfacecolor": face}
            ax.plot([k for k, _ in part], [t for _, t in part], **look)
    for k, layer in enumerate(found.layers, 1):
        times = [o.seconds * 1e3 for o in layer.options]
        ax.plot([k, k], [min(times), max(times)], color="#cccccc", lw=1, zorder=0)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_ylabel("ms, " + ("measured" if found.measured else "estimated"))
    ax.set_title("Time of each layer; the chosen algorithm is filled", loc="left", fontsize=11)
    ax.grid(axis="y", which="major", alpha=0.35)
    names = [layer.name for layer in found.layers]
    ax.set_xticks(range(1, len(names) + 1), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=8 if len(names) < 30 else 6)
    return ax


def explanation_figure(found: Explanation) -> Figure:
    """Draw both panels over one row of layers.

    Parameters
    ----------
    found : Explanation
        From `Network.explain`.

    Returns
    -------
    Figure
        Save it with ``figure.savefig(path)``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7.5, 3 + 0.28 * len(found.layers)), 7.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    plot_error_growth(found, ax=upper)
    plot_layer_times(found, ax=lower)
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9, handlelength=3.5)
    threads = "thread" if found.threads == 1 else "threads"
    figure.suptitle(f"{found.network}: {len(found.layers)} convolutions, fp32, {found.threads} {threads}", fontsize=12)
    return figure

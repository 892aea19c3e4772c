"""Draw a network's layers left to right: how the expected error grows, and the time of each layer, by algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastconv.network.explain import Explanation

_COLOURS = {"direct": "#222222", 2: "#0072b2", 4: "#d55e00", 6: "#009e73"}
_OTHERS = ("#cc79a7", "#e69f00", "#56b4e9")


def _families(found: Explanation) -> dict[str, dict[str, Any]]:
    """Give each algorithm that any layer offers a colour: one for all kernels that a size of tile goes with."""
    names = list(dict.fromkeys(option.algorithm for layer in found.layers for option in layer.options))
    styles, others = {}, 0
    for name in names:
        size: Any = name if name == "direct" else int(name[2 : name.index("x")]) if name.startswith("F(") else None
        colour = _COLOURS.get(size)
        if colour is None:
            colour, others = _OTHERS[others % len(_OTHERS)], others + 1
        styles[name] = {"color": colour}
    return styles


def plot_error_growth(found: Explanation, *, ax: Axes) -> Axes:
    """Draw the expected error behind each layer, one line an algorithm that ran wherever it can, and the choice.

    Parameters
    ----------
    found : Explanation
        From `Network.explain`.
    ax : Axes
        Where to draw.
    """
    places = range(1, len(found.layers) + 1)
    for name, style in _families(found).items():
        ax.plot(places, found.growth(name), lw=1.4, marker=".", ms=5, label=name, **style)
    ax.plot(places, found.growth(), lw=5, alpha=0.3, color="#f0c000", label="as chosen", zorder=0)
    if found.max_error is not None:
        ax.axhline(found.max_error, color="#999999", lw=1, ls="--")
        ax.annotate("allowed", (1, found.max_error), textcoords="offset points", xytext=(0, 4), fontsize=8, color="#666666")
    ax.set_yscale("log")
    ax.set_ylabel("expected relative L2 error\nbehind the layer")
    ax.set_title("Error grows through the network", loc="left", fontsize=11)
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
    styles = _families(found)
    for name, style in styles.items():
        offered = [(k, o, layer) for k, layer in enumerate(found.layers, 1) for o in layer.options if o.algorithm == name]
        for filled in (False, True):
            part = [(k, o.seconds * 1e3) for k, o, layer in offered if (layer.algorithm == name) is filled]
            face = style["color"] if filled else "white"
            ax.plot([k for k, _ in part], [t for _, t in part], ls="none", marker="o", ms=6 if filled else 4, mfc=face, **style)
    for k, layer in enumerate(found.layers, 1):
        times = [o.seconds * 1e3 for o in layer.options]
        ax.plot([k, k], [min(times), max(times)], color="#cccccc", lw=1, zorder=0)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_ylabel("ms, " + ("measured" if found.measured else "estimated"))
    ax.set_title("What each layer takes; the algorithm chosen is filled", loc="left", fontsize=11)
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
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    threads = "thread" if found.threads == 1 else "threads"
    figure.suptitle(f"{found.network}: {len(found.layers)} convolutions, fp32, {found.threads} {threads}", fontsize=12)
    return figure

"""Draw a comparison of algorithms on a network: the error layer by layer, and speed against error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastconv.plot.style import styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _style(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give each algorithm a colour, and each of its point sets and policies a marker and a dash."""
    return styles(row["algorithm"] for row in rows)


def _label(row: Mapping[str, Any]) -> str:
    parts = [row["algorithm"], row["points"], "" if _policy(row) == "fp32" else _policy(row), row.get("channel_sum")]
    return "  ".join(part for part in parts if part)


def _policy(row: Mapping[str, Any]) -> str:
    return str(row.get("policy", "fp32"))


def _log(ax: Axes, errors: Sequence[float | None]) -> None:
    """Make the axis of errors logarithmic, unless no error is above zero."""
    if any(error is not None and error > 0 for error in errors):
        ax.set_yscale("log")


def plot_layer_errors(data: Mapping[str, Any], *, ax: Axes) -> Axes:
    """Draw the relative error of each layer's output, one line per algorithm.

    Parameters
    ----------
    data : mapping
        `Comparison.to_dict` of `compare`.
    ax : Axes
        Where to draw.
    """
    layers = data["layers"]
    for row, style in zip(data["rows"], _style(data["rows"]), strict=True):
        ax.plot(range(1, len(layers) + 1), row["layer_relative_l2"], label=_label(row), lw=1.6, ms=5, mfc="white", mew=1.4, **style)
    _log(ax, [error for row in data["rows"] for error in row["layer_relative_l2"]])
    ax.set_xticks(range(1, len(layers) + 1), layers, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_xlabel("convolution layer")
    ax.set_ylabel("relative L2 error of the layer's output")
    ax.grid(axis="y", which="major", alpha=0.35)
    ax.set_title("Error of each layer", loc="left", fontsize=11)
    return ax


def plot_speed_and_error(data: Mapping[str, Any], *, ax: Axes) -> Axes:
    """Draw each algorithm at its speed and final error.

    Parameters
    ----------
    data : mapping
        `Comparison.to_dict` of `compare`.
    ax : Axes
        Where to draw.
    """
    for row, style in zip(data["rows"], _style(data["rows"]), strict=True):
        ax.plot(
            [row["speed_vs_direct"]],
            [row["relative_l2"]],
            ls="none",
            ms=9,
            mfc="white",
            mew=2,
            marker=style["marker"],
            color=style["color"],
        )
    _log(ax, [row["relative_l2"] for row in data["rows"]])
    ax.axvline(1, color="#999999", lw=0.8, zorder=0)
    ax.set_xlabel("speed of the whole network, direct = 1")
    ax.set_ylabel("relative L2 error of the final output")
    ax.grid(which="major", alpha=0.35)
    ax.margins(0.12)
    ax.set_title("Error against speed", loc="left", fontsize=11)
    return ax


def comparison_figure(data: Mapping[str, Any]) -> Figure:
    """Draw both panels with one legend and a caption.

    Parameters
    ----------
    data : mapping
        `Comparison.to_dict` of `compare`.

    Returns
    -------
    Figure
        Save it with ``figure.savefig(path)``.

    Examples
    --------
    >>> row = {"algorithm": "direct", "points": "", "relative_l2": 1e-7, "speed_vs_direct": 1.0, "layer_relative_l2": [1e-7]}
    >>> figure = comparison_figure({"network": "n", "images": 1, "reference": "fp64", "layers": ["conv"], "rows": [row]})
    >>> [ax.get_ylabel() for ax in figure.axes]
    ["relative L2 error of the layer's output", 'relative L2 error of the final output']
    """
    from matplotlib.figure import Figure

    rows = -(-len(data["rows"]) // 3)
    figure = Figure(figsize=(11, 5.4 + 0.22 * rows), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.55, 1))
    plot_layer_errors(data, ax=left)
    plot_speed_and_error(data, ax=right)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=3.5)
    many = "image" if data["images"] == 1 else "images"
    policies = ", ".join(dict.fromkeys(map(_policy, data["rows"])))
    figure.suptitle(
        f"{data['network']}: {data['images']} {many}, {policies}, errors relative to the same network in {data['reference']}", fontsize=12
    )
    return figure

"""Figures, drawn without global state: each function takes data and gives a matplotlib figure or axes."""

from fastconv.plot.comparison import comparison_figure, plot_layer_errors, plot_speed_and_error

__all__ = ["comparison_figure", "plot_layer_errors", "plot_speed_and_error"]

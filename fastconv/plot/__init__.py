"""Figures, drawn without global state: each function takes data and gives a matplotlib figure or axes."""

from fastconv.plot.comparison import comparison_figure, plot_layer_errors, plot_speed_and_error
from fastconv.plot.explanation import explanation_figure, plot_error_growth, plot_layer_times

__all__ = [
    "comparison_figure",
    "explanation_figure",
    "plot_error_growth",
    "plot_layer_errors",
    "plot_layer_times",
    "plot_speed_and_error",
]
